//! Processes under test: started in a group of their own, listened to, and at the end killed and reaped with all that they started.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use crate::hub::{DEADLINE, wait_for, wait_until};
pub use crate::procfs::{has_ended, state};
use crate::surroundings::directory;

/// Set: this process is no test runner.
pub const ROLE: &str = "POLLFLIP_EMBEDDING_ROLE";
/// Where all files of a test are.
pub const DIRECTORY: &str = "POLLFLIP_EMBEDDING_DIRECTORY";

/// A process and all that it starts. What they write to standard output is gathered here, line by line.
#[derive(Debug)]
pub struct Group {
    directory: TempDir,
    child: Child,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    lines: Mutex<Vec<String>>,
    /// Nobody has the output open any more. It changes while the lines are locked.
    is_over: AtomicBool,
    changed: Condvar,
}

impl Told {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, stdout: ChildStdout) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            self.lines().push(line);
            self.changed.notify_all();
        }
        let _lines = self.lines();
        self.is_over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

impl Group {
    /// This binary in that role.
    pub fn of_role(role: &str) -> Group {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.env(ROLE, role);
        Group::start(command, directory())
    }

    pub fn start(mut command: Command, directory: TempDir) -> Group {
        for name in ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "POLLFLIP_LIFELINE", "RUST_LOG"] {
            command.env_remove(name);
        }
        let stderr = fs::File::create(directory.path().join("stderr")).expect("a file");
        command.env(DIRECTORY, directory.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let told = Arc::new(Told::default());
        let (stdout, theirs) = (child.stdout.take().expect("a pipe"), told.clone());
        thread::spawn(move || theirs.listen(stdout));
        Group { directory, child, told }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The first process.
    pub fn first(&self) -> u32 {
        self.child.id()
    }

    /// What the process that is started next is to do.
    pub fn plan(&self, plan: &str) {
        fs::write(self.path("next"), plan).expect("a plan");
    }

    pub fn socket(&self) -> PathBuf {
        self.path("restart.sock")
    }

    /// Waits until `look` finds something in the lines so far, and no longer than somebody is there to write one.
    pub fn wait<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut lines = self.told.lines();
        loop {
            if let Some(found) = look(&lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = self.told.is_over.load(Ordering::Relaxed);
            if is_over || left.is_zero() {
                let (so_far, stderr) = (lines.join("\n"), self.stderr());
                drop(lines);
                match is_over {
                    true => panic!("all have ended, without {what}; so far:\n{so_far}\n{stderr}"),
                    false => panic!("waited {DEADLINE:?} for {what}; so far:\n{so_far}\n{stderr}"),
                }
            }
            lines = self.told.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for line number `number` of those that begin so, and returns the rest of it.
    pub fn says(&self, beginning: &str, number: usize) -> String {
        self.wait(&format!("{beginning:?} number {number}"), |lines| matching(lines, beginning).nth(number).map(str::to_owned))
    }

    /// How many lines begin so, so far.
    pub fn count(&self, beginning: &str) -> usize {
        matching(&self.told.lines(), beginning).count()
    }

    /// Waits for the end of the first process.
    pub fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the process to end", || child.try_wait().expect("its status"))
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }
}

fn matching<'a>(lines: &'a [String], beginning: &str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| line.strip_prefix(beginning)).map(str::trim)
}

impl Drop for Group {
    fn drop(&mut self) {
        // What it starts is in its process group.
        let group = self.child.id() as i32;
        wait_until("the end of all processes", || {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            loop {
                match waitpid(Pid::from_raw(-group), Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => return false,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return true,
                }
            }
        });
        if thread::panicking() {
            eprintln!("said:\n  {}\nstandard error:\n{}", self.told.lines().join("\n  "), self.stderr());
        }
    }
}

/// Runs a case in a process of its own, which ends well if the case does.
pub fn run_case(name: &str) {
    let mut group = Group::of_role(&format!("case {name}"));
    let status = group.exit();
    for line in group.told.lines().iter() {
        println!("{name}: {line}");
    }
    assert!(status.success(), "{name}: {status}");
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("a signal");
}

pub fn entries(directory: impl AsRef<Path>) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}
