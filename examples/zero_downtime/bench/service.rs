//! The server processes: starts the first, has it replaced, and leaves none behind.

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::{Status, request_restart, request_status};
use std::fs::Permissions;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use temp_dir::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Longer than a server gives its successor to become ready: so it is the server who says what was wrong.
const RESTART_LIMIT: Duration = Duration::from_secs(70);
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// Longer than a server keeps idle connections.
const END_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Socket,
    Signal,
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) generation: u32,
    socket: PathBuf,
    restart_limit: Duration,
    directory: TempDir,
}

impl Service {
    pub(crate) fn start(probation: Option<Duration>) -> Result<Self, String> {
        // When a server ends, the one that it started becomes a child of this process, which can
        // so wait for all of them.
        set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
        let directory = TempDir::new().map_err(|error| format!("cannot make a directory: {error}"))?;
        let mut service = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)), // any port
            pid: 0,
            generation: 0,
            socket: directory.path().join("restart.sock"),
            restart_limit: RESTART_LIMIT + probation.unwrap_or_default(),
            directory,
        };
        service.deploy_itself()?;
        let mut command = Command::new(service.program());
        command.args(["serve", "--listen", &service.address.to_string(), "--socket"]).arg(&service.socket);
        if let Some(time) = probation {
            command.args(["--probation", &time.as_secs_f64().to_string()]);
        }
        let server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut server = server.map_err(|error| format!("cannot start the server: {error}"))?;
        service.pid = server.id();
        service.address = server.stdout.take().and_then(first_address).ok_or("the server did not start")?;
        Ok(service)
    }

    /// Has the server replaced, and says how long that took until it was known to have succeeded.
    pub(crate) fn restart(&mut self, ask: Ask) -> Result<Duration, String> {
        let asked = Instant::now();
        let pid = match ask {
            Ask::Socket => request_restart(&self.socket, self.restart_limit, |_progress| {}).map_err(|error| error.to_string())?,
            Ask::Signal => self.restart_by_signal()?,
        };
        let took = asked.elapsed();
        let status = self.status()?;
        if (status.pid, status.generation) != (pid, self.generation + 1) {
            return Err(format!("{pid} was to serve, but it is {} of generation {}", status.pid, status.generation));
        }
        self.pid = pid;
        self.generation += 1;
        Ok(took)
    }

    /// Deploys a release that crashes so long after it was granted, has the server replaced by it, and says what the asker was told in
    /// the end. Then what is deployed is good again.
    pub(crate) fn restart_with_a_bad_release(&self, crash_after: Duration) -> Result<String, String> {
        let failed = |error| format!("cannot deploy a bad release: {error}");
        let bad = self.directory.path().join("bad");
        // The same program, told to be bad.
        let script = format!("#!/bin/sh\nexec \"${{0%/*}}/good\" \"$@\" --crash-after {}\n", crash_after.as_secs_f64());
        fs::write(&bad, script).and_then(|()| fs::set_permissions(&bad, Permissions::from_mode(0o755))).map_err(failed)?;
        self.deploy("bad").map_err(failed)?;
        let outcome = request_restart(&self.socket, self.restart_limit, |_progress| {});
        self.deploy("good").map_err(failed)?;
        match outcome {
            Err(RequestError::Failed(why)) => Ok(why),
            Err(other) => Err(other.to_string()),
            Ok(pid) => Err(format!("the bad release has taken over as process {pid}")),
        }
    }

    fn deploy_itself(&self) -> Result<(), String> {
        let itself = env::current_exe().map_err(|error| format!("which program is this? {error}"))?;
        let linked = symlink(itself, self.directory.path().join("good")).and_then(|()| self.deploy("good"));
        linked.map_err(|error| format!("cannot deploy the server: {error}"))
    }

    /// As is usual: a link that is moved from one release to the next.
    fn deploy(&self, release: &str) -> io::Result<()> {
        let new = self.directory.path().join("new");
        symlink(release, &new)?;
        fs::rename(new, self.program())
    }

    /// What is deployed.
    fn program(&self) -> PathBuf {
        self.directory.path().join("current")
    }

    /// A signal has no answer: the status tells who serves, or what failed last.
    fn restart_by_signal(&self) -> Result<u32, String> {
        let before = self.status()?;
        kill(pid(self.pid), Signal::SIGUSR1).map_err(|error| format!("cannot signal {}: {error}", self.pid))?;
        let deadline = Instant::now() + self.restart_limit;
        while Instant::now() < deadline {
            let status = self.status()?;
            if status.generation > self.generation {
                return Ok(status.pid);
            }
            if status.last_failure != before.last_failure {
                return Err(status.last_failure.unwrap_or_default());
            }
            thread::sleep(Duration::from_micros(500));
        }
        Err(format!("no successor of {} after {} s", self.pid, self.restart_limit.as_secs()))
    }

    fn status(&self) -> Result<Status, String> {
        request_status(&self.socket, STATUS_LIMIT).map_err(|error| format!("status: {error}"))
    }

    /// An error if the server that should serve has ended, or if any has ended badly.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ended = reap()?.ended;
        if ended.contains(&self.pid) || kill(pid(self.pid), None).is_err() {
            return Err(format!("the server (pid {}) has ended by itself", self.pid));
        }
        Ok(())
    }

    /// Ends the last server and waits for it and for those that it replaced.
    pub(crate) fn stop(self) -> Result<(), String> {
        kill(pid(self.pid), Signal::SIGTERM).map_err(|error| format!("cannot end {}: {error}", self.pid))?;
        let deadline = Instant::now() + END_LIMIT;
        while reap()?.some_left {
            if Instant::now() > deadline {
                return Err(format!("servers that did not end: {:?}", children()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Service {
    /// After a failure: no server survives. Whose parent dies becomes our child, and is next.
    fn drop(&mut self) {
        while !matches!(reap(), Ok(Reaped { some_left: false, .. })) {
            for child in children() {
                let _ = kill(child, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Reaped {
    ended: Vec<u32>,
    some_left: bool,
}

fn reap() -> Result<Reaped, String> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, 0)) => ended.push(pid.as_raw().unsigned_abs()),
            Ok(WaitStatus::Exited(pid, status)) => return Err(format!("server {pid} ended with exit status {status}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Err(format!("server {pid} was ended by {signal}")),
            Ok(_) => return Ok(Reaped { ended, some_left: true }),
            Err(Errno::ECHILD) => return Ok(Reaped { ended, some_left: false }),
            Err(error) => return Err(format!("cannot wait for the servers: {error}")),
        }
    }
}

fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join("children")));
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).map(Pid::from_raw).collect::<Vec<_>>()).collect()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

/// From `listening on ADDRESS, pid N`. Each generation prints such a line: the pipe has to be read on.
fn first_address(output: ChildStdout) -> Option<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        if output.read_line(&mut line).is_ok() {
            let _ = sender.send(line);
        }
        let _ = io::copy(&mut output, &mut io::sink());
    });
    let line = receiver.recv_timeout(START_LIMIT).ok()?;
    line.strip_prefix("listening on ")?.split(',').next()?.parse().ok()
}
