//! The server processes: starts the first, has it replaced, and leaves none behind.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::restart_coordination_socket::{request_restart, request_status};
use pollflip::{RequestError, Status};
use tempfile::TempDir;

use crate::identity::Identity;

/// How long the processes may take for anything: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);

/// The processes of one service, all of them children of this process or its descendants.
pub struct Service {
    /// Where it is served.
    pub address: SocketAddr,
    /// What its clients trust.
    pub identity: Identity,
    /// The process that serves.
    pub pid: u32,
    /// Where a restart is asked for.
    pub socket: PathBuf,
    lines: Option<JoinHandle<Vec<String>>>,
    is_stopped: bool,
    _directory: TempDir,
}

/// What the generations have counted, all together: see the server's `Tally`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Generations that have said it.
    pub generations: u64,
    /// For the generation that has received them.
    pub own: u64,
    /// Unmarked, with a long header.
    pub first: u64,
    /// Marked by a generation that has ended, or nonsense.
    pub unknown: u64,
    /// For another generation than the one that has received them.
    pub astray: u64,
    /// Left by generations that have ended.
    pub orphaned: u64,
}

impl Service {
    /// Starts the server: `program serve`, with further arguments.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        // A server whose predecessor ends becomes a child of this process.
        set_child_subreaper(true)?;
        let directory = tempfile::tempdir()?;
        Identity::create(directory.path())?;
        let socket = directory.path().join("restart.sock");
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(&socket).arg("--identity").arg(directory.path());
        let mut server = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut service = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: Identity::read(directory.path())?,
            pid: server.id(),
            socket,
            lines: None,
            is_stopped: false,
            _directory: directory,
        };
        let output = server.stdout.take().ok_or("the server has no output")?;
        (service.address, service.lines) = first_address(output).ok_or("the server did not start")?;
        Ok(service)
    }

    /// Has the server replaced. `Some`: it cannot be for now, and why.
    ///
    /// # Errors
    ///
    /// The restart has failed.
    pub fn restart(&mut self) -> Result<Option<String>, RequestError> {
        match request_restart(&self.socket, LIMIT, |_| {}) {
            Ok(pid) => {
                self.pid = pid;
                Ok(None)
            }
            Err(RequestError::Refused(why)) => Ok(Some(why)),
            Err(error) => Err(error),
        }
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn status(&self) -> Result<Status, RequestError> {
        request_status(&self.socket, LIMIT)
    }

    /// Kills a process at once.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn kill(&self, pid: u32) -> Result<(), Errno> {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
    }

    /// Ends the last server, and waits for all. `killed` of them were.
    ///
    /// # Errors
    ///
    /// One has not ended well.
    pub fn stop(mut self, killed: usize) -> Result<Counted, String> {
        self.is_stopped = true;
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).map_err(|error| format!("cannot end the server: {error}"))?;
        let deadline = Instant::now() + LIMIT;
        let mut ended_by_kill = 0;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(WaitStatus::Exited(_, 0)) => {}
                Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if ended_by_kill < killed => ended_by_kill += 1,
                Ok(other) => {
                    self.is_stopped = false;
                    return Err(format!("a server has not ended well: {other:?}"));
                }
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(format!("cannot wait for the servers: {error}")),
            }
        }
        let lines = self.lines.take().and_then(|lines| lines.join().ok()).unwrap_or_default();
        Ok(lines.iter().filter_map(|line| line.strip_prefix("ended ")).fold(Counted::default(), Counted::and))
    }
}

impl Drop for Service {
    /// After a failure no server stays. One whose parent dies becomes a child of this process, and is next.
    fn drop(&mut self) {
        while !self.is_stopped {
            for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                for child in children.split_whitespace().flat_map(str::parse) {
                    let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
                }
            }
            self.is_stopped = waitpid(None, None) == Err(Errno::ECHILD);
        }
    }
}

impl Counted {
    fn and(self, line: &str) -> Self {
        let number = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            generations: self.generations + 1,
            own: self.own + number("own"),
            first: self.first + number("first"),
            unknown: self.unknown + number("unknown"),
            astray: self.astray + number("astray"),
            orphaned: self.orphaned + number("orphaned"),
        }
    }
}

/// From `listening on ADDRESS, pid N`. All generations write to the pipe, so it is read until the last has ended.
fn first_address(output: ChildStdout) -> Option<(SocketAddr, Option<JoinHandle<Vec<String>>>)> {
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line).ok()?;
    let lines = thread::spawn(move || output.lines().map_while(Result::ok).collect());
    let address = line.strip_prefix("listening on ")?.split(',').next()?.parse().ok()?;
    Some((address, Some(lines)))
}
