//! The server processes: starts the first, has it replaced, and leaves none behind.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::{request_restart, request_status};
use temp_dir::TempDir;

/// How long the processes may take for anything: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    socket: PathBuf,
    pid: u32,
    is_stopped: bool,
    _directory: TempDir,
}

impl Service {
    /// Starts this program again, as the server.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        // A server whose predecessor ends becomes a child of this process.
        set_child_subreaper(true)?;
        let directory = TempDir::new()?;
        let socket = directory.path().join("restart.sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(&socket).args(arguments);
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let pid = server.id();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut service = Self { address, socket, pid, is_stopped: false, _directory: directory };
        service.address = server.stdout.take().and_then(first_address).ok_or("the server did not start")?;
        Ok(service)
    }

    /// Has the server replaced. `Some`: it cannot be for now, and why.
    pub(crate) fn restart(&mut self) -> Result<Option<String>, RequestError> {
        match request_restart(&self.socket, LIMIT, |_| {}) {
            Ok(pid) => {
                self.pid = pid;
                Ok(None)
            }
            Err(RequestError::Refused(why)) => Ok(Some(why)),
            Err(error) => Err(error),
        }
    }

    /// How many generations there are, with those that finish their work.
    pub(crate) fn alive(&self) -> Result<usize, RequestError> {
        Ok(1 + request_status(&self.socket, LIMIT)?.draining.len())
    }

    /// Ends the last server, and waits for all.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.is_stopped = true;
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).map_err(|error| format!("cannot end the server: {error}"))?;
        let deadline = Instant::now() + LIMIT;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(WaitStatus::Exited(_, 0)) => {}
                Ok(other) => return Err(format!("a server has not ended well: {other:?}")),
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(format!("cannot wait for the servers: {error}")),
            }
        }
    }
}

impl Drop for Service {
    /// After a failure no server stays. One whose parent dies becomes a child of this process, and is next.
    fn drop(&mut self) {
        while !self.is_stopped {
            let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
            for child in children.split_whitespace().flat_map(str::parse) {
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            }
            self.is_stopped = waitpid(None, None) == Err(Errno::ECHILD);
        }
    }
}

/// From `listening on ADDRESS, pid N`. Each generation prints such a line: the pipe has to be read on.
fn first_address(output: ChildStdout) -> Option<SocketAddr> {
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line).ok()?;
    thread::spawn(move || io::copy(&mut output, &mut io::sink()));
    line.strip_prefix("listening on ")?.split(',').next()?.parse().ok()
}
