//! A service under test: started, restarted, looked at, and at the end killed and reaped with all its generations.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::{Status, request_restart, request_status};
use tempfile::TempDir;

use crate::client::Connection;
use crate::hub::{DEADLINE, Hub, Process, wait_until};
use crate::procfs::Snapshot;
use crate::service::{self, Plan, Setting, Settings};
use crate::surroundings::directory;

/// How a service is started.
#[derive(Debug)]
pub struct Setup {
    directory: TempDir,
    settings: Settings,
    becomes_another: bool,
    environment: Vec<(String, String)>,
    program: PathBuf,
    shell: Option<String>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    terminal: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            directory: directory(),
            settings: Settings::default(),
            becomes_another: false,
            environment: Vec::new(),
            program: own_program(),
            shell: None,
            stdin: None,
            stdout: None,
            terminal: false,
        }
    }
}

/// This binary, which is also the service.
pub fn own_program() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}

/// The same for users who may not execute it, or not enter the directories that it is in: by another name in that one, or a copy.
fn for_everybody(directory: &Path) -> PathBuf {
    let program = own_program();
    let is_open = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    if program.ancestors().all(is_open) {
        return program;
    }
    let name = directory.join("program");
    if !is_open(&program) || fs::hard_link(&program, &name).is_err() {
        install_copy(&name);
    }
    name
}

/// Writes a program. By another process: a test that forks while this one has it open would have it open too until it executes, and what is
/// open for writing cannot be executed.
pub fn install(path: &Path, content: &[u8]) {
    let mut shell = Command::new("/bin/sh");
    let mut writer = shell.args(["-c", r#"cat > "$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped()).spawn().expect("a shell");
    let mut stdin = writer.stdin.take().expect("a pipe");
    stdin.write_all(content).expect("it reads on");
    drop(stdin);
    assert!(writer.wait().expect("a shell").success(), "cannot write {}", path.display());
}

/// A copy of this binary.
pub fn install_copy(path: &Path) {
    install(path, &fs::read(own_program()).expect("this program"));
}

impl Setup {
    pub fn new() -> Setup {
        Setup::default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What this process and its successors are like.
    pub fn set(mut self, setting: impl Setting) -> Setup {
        self.becomes_another |= setting.becomes_another();
        self.settings.add(setting);
        self
    }

    /// The plan of the first process.
    pub fn plan(self, plan: Plan) -> Setup {
        plan.write(&self.path(service::NEXT));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Setup {
        self.environment.push((name.into(), value.as_ref().display().to_string()));
        self
    }

    /// Another path to this binary.
    pub fn program(mut self, path: PathBuf) -> Setup {
        self.program = path;
        self
    }

    /// Starts it by a shell command; `"$0"` is the program.
    pub fn shell(mut self, command: &str) -> Setup {
        self.shell = Some(command.into());
        self
    }

    pub fn stdin(mut self, fd: impl Into<OwnedFd>) -> Setup {
        self.stdin = Some(fd.into());
        self
    }

    pub fn stdout(mut self, fd: impl Into<OwnedFd>) -> Setup {
        self.stdout = Some(fd.into());
        self
    }

    /// Reads from that terminal, as the leader of its session.
    pub fn terminal(mut self, terminal: impl Into<OwnedFd>) -> Setup {
        self.terminal = true;
        self.stdin(terminal)
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Service {
        let service = self.launch();
        service.first().says("serving");
        service
    }

    /// Starts it.
    pub fn launch(mut self) -> Service {
        if self.program == own_program() && self.becomes_another {
            self.program = for_everybody(self.directory.path());
        }
        let hub = Hub::new(&self.path(service::HUB));
        let mut command = match &self.shell {
            Some(script) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(script).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        for name in ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "POLLFLIP_LIFELINE", "RUST_LOG"] {
            command.env_remove(name);
        }
        let directory = self.directory.path().to_owned();
        let output = |name: &str| {
            let file = fs::OpenOptions::new().create(true).append(true).open(directory.join(name)).expect("a file");
            Stdio::from(file)
        };
        command
            .env(service::ROLE, "service")
            .env(service::DIRECTORY, self.directory.path())
            .env(service::SETTINGS, self.settings.to_text())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(self.stdout.map_or_else(|| output("stdout"), Stdio::from))
            .stderr(output("stderr"))
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from));
        if self.terminal {
            lead_terminal(&mut command);
        } else {
            command.process_group(0);
        }
        if self.becomes_another {
            // So is the directory in which it starts its successors.
            command.current_dir(&directory);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Service { directory: self.directory, hub, child }
    }
}

/// It begins a session, and its standard input becomes the terminal of that, whose signals it hears, whatever the tests were started by.
#[allow(unsafe_code, reason = "std has no terminals")]
fn lead_terminal(command: &mut Command) {
    let begin = || {
        nix::unistd::setsid()?;
        // SAFETY: the call takes two numbers.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        // A shell without job control starts what is to run in the background deaf to the first two.
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTSTP] {
            // SAFETY: no handler is installed.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec system calls are made, and nothing else.
    unsafe { command.pre_exec(begin) };
}

/// A service, all its generations. Dropping it kills and reaps them, and checks that they have printed nothing (promise 12).
#[derive(Debug)]
pub struct Service {
    directory: TempDir,
    pub hub: Arc<Hub>,
    child: Child,
}

impl Service {
    /// One with the default settings that serves.
    pub fn start() -> Service {
        Setup::new().start()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The process that was started: the first generation, or the shell or tool that has started it.
    pub fn launched(&self) -> u32 {
        self.child.id()
    }

    pub fn first(&self) -> Process {
        self.hub.nth(0)
    }

    /// Writes the plan of the process that is started next, and only of that one.
    pub fn plan_next(&self, plan: Plan) {
        plan.write(&self.path(service::NEXT));
    }

    /// Whether the plan for the next process still waits for it.
    pub fn next_is_waiting(&self) -> bool {
        self.path(service::NEXT).exists()
    }

    pub fn socket(&self) -> PathBuf {
        self.path(service::COORDINATION)
    }

    /// Asks for a restart over the coordination socket.
    pub fn try_restart(&self) -> Result<u32, RequestError> {
        request_restart(self.socket(), DEADLINE, |_| {})
    }

    /// A restart that must succeed; returns the new process, which serves.
    pub fn restart(&self) -> Process {
        match self.try_restart() {
            Ok(pid) => self.hub.process(pid),
            Err(why) => panic!("the restart failed: {why}\n{}", self.hub.story()),
        }
    }

    /// As [`Service::restart`], where the time to become ready is so short that a busy machine may need several tries.
    pub fn restart_some_time(&self) -> Process {
        let pid = crate::hub::wait_for("a restart that succeeds", || match self.try_restart() {
            Ok(pid) => Some(pid),
            Err(RequestError::Failed(why)) if why.contains("was not ready within") => None,
            Err(why) => panic!("the restart failed: {why}\n{}", self.hub.story()),
        });
        self.hub.process(pid)
    }

    /// A restart that must fail; returns the reason.
    pub fn fail_to_restart(&self) -> String {
        match self.try_restart() {
            Err(RequestError::Failed(why)) => why,
            other => panic!("the restart ended with {other:?}\n{}", self.hub.story()),
        }
    }

    /// Asks for a restart in another thread.
    pub fn restart_meanwhile(&self) -> thread::JoinHandle<Result<u32, RequestError>> {
        let socket = self.socket();
        thread::spawn(move || request_restart(socket, DEADLINE, |_| {}))
    }

    pub fn status(&self) -> Status {
        request_status(self.socket(), DEADLINE).expect("a status")
    }

    /// Where it listens, which no generation changes.
    pub fn address(&self) -> SocketAddr {
        self.first().says("serving").parse().expect("an address")
    }

    /// A connection, greeted.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// Waits until that process has the descriptors, threads and children that it had.
    pub fn expect_unchanged(&self, process: &Process, before: &Snapshot) {
        let mut now = Snapshot::of(process.pid);
        let deadline = std::time::Instant::now() + DEADLINE;
        while now != *before {
            assert!(std::time::Instant::now() < deadline, "before: {before:#?}\nnow: {now:#?}\n{}", self.hub.story());
            thread::sleep(std::time::Duration::from_millis(5));
            now = Snapshot::of(process.pid);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Successors are in the process group of the first one, whose number is taken as long as nobody has reaped it.
        let group = Pid::from_raw(self.child.id() as i32);
        let mut left = true;
        wait_until("the end of all generations", || {
            let _ = killpg(group, Signal::SIGKILL);
            loop {
                match waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => return false,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => {
                        left = false;
                        return true;
                    }
                }
            }
        });
        self.hub.close();
        if thread::panicking() {
            eprintln!("the story of the service:\n{}", self.hub.story());
            return;
        }
        assert!(!left);
        for name in ["stdout", "stderr"] {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            assert!(text.is_empty(), "promise 12: {name} was written to: {text}\n{}", self.hub.story());
        }
    }
}
