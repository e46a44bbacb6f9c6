//! The server processes: starts the first, has it replaced, hears when what happened, and leaves none behind.

use crate::clock::{self, Moment, Told};
use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::request_restart;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use temp_dir::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Longer than a server gives its successor: so it is the server who says what was wrong.
const RESTART_LIMIT: Duration = Duration::from_secs(70);
const END_LIMIT: Duration = Duration::from_secs(10);

/// What the servers are told.
pub(crate) struct Settings {
    pub(crate) shared: bool,
    pub(crate) precopy: bool,
    /// They keep so many players, below a guard.
    pub(crate) keep: Option<usize>,
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// The server.
    pub(crate) pid: u32,
    /// Who was started: the first server, or a guard.
    first: u32,
    is_guarded: bool,
    socket: PathBuf,
    fail: PathBuf,
    moments: Receiver<Told>,
    _directory: TempDir,
}

impl Service {
    pub(crate) fn start(settings: &Settings) -> Result<Self, String> {
        // When a server ends, the one that it started becomes a child of this process, which can so wait for all of them.
        set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
        let directory = TempDir::new().map_err(|error| format!("cannot make a directory: {error}"))?;
        let (socket, fail) = (directory.path().join("restart.sock"), directory.path().join("fail"));
        let mut command = Command::new(env::current_exe().map_err(|error| format!("which program is this? {error}"))?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(&socket).arg("--fail").arg(&fail);
        command.args(["--precopy", if settings.precopy { "yes" } else { "no" }]);
        match settings.keep {
            Some(seats) => command.args(["--keep", "--guard", "--seats", &seats.to_string()]),
            None => command.args(["--state", if settings.shared { "shared" } else { "written" }]),
        };
        let server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut server = server.map_err(|error| format!("cannot start the server: {error}"))?;
        let first = server.id();
        let output = server.stdout.take().ok_or("the server has no output")?;
        let (sender, moments) = channel();
        let (sender_of_address, addresses) = channel();
        thread::spawn(move || {
            read_all(output, |line| match line.strip_prefix("listening on ") {
                Some(address) => drop(address.parse().map(|address| sender_of_address.send(address))),
                None => drop(clock::read(line).map(|told| sender.send(told))),
            });
        });
        let address = addresses.recv_timeout(START_LIMIT).map_err(|_| "the server did not start")?;
        let is_guarded = settings.keep.is_some();
        let mut service = Self { address, pid: first, first, is_guarded, socket, fail, moments, _directory: directory };
        service.pid = last_pid(&service.moments_until(Moment::Granted)?);
        Ok(service)
    }

    /// Kills the server. The guard that keeps its players starts it again.
    pub(crate) fn kill(&mut self) -> Result<Vec<Told>, String> {
        let killed = Told { moment: Moment::Killed, pid: self.pid, at: clock::now(), figures: Vec::new() };
        kill(pid(self.pid), Signal::SIGKILL).map_err(|error| format!("cannot kill {}: {error}", self.pid))?;
        let mut moments = vec![killed];
        moments.extend(self.moments_until(Moment::Granted)?);
        self.pid = last_pid(&moments);
        Ok(moments)
    }

    /// Has the server replaced by one that breaks a rule.
    pub(crate) fn restart_wrongly(&mut self, how: &str) -> Result<Vec<Told>, String> {
        self.tell_the_next(how)?;
        self.restart()
    }

    fn tell_the_next(&self, how: &str) -> Result<(), String> {
        fs::write(&self.fail, how).map_err(|error| format!("cannot write {}: {error}", self.fail.display()))
    }

    /// Has the server replaced. What was told of the moments comes back with it.
    pub(crate) fn restart(&mut self) -> Result<Vec<Told>, String> {
        self.pid = request_restart(&self.socket, RESTART_LIMIT, |_| {}).map_err(|error| error.to_string())?;
        self.moments_until(Moment::Granted)
    }

    /// Has it replaced by one that fails in this way. The reason that was told comes back too.
    pub(crate) fn fail_to_restart(&mut self, how: &str) -> Result<(String, Vec<Told>), String> {
        self.tell_the_next(how)?;
        match request_restart(&self.socket, RESTART_LIMIT, |_| {}) {
            Err(RequestError::Failed(why)) => Ok((why, self.moments_until(Moment::Thawed)?)),
            Err(error) => Err(error.to_string()),
            Ok(pid) => Err(format!("process {pid} was to fail, and serves")),
        }
    }

    fn moments_until(&self, last: Moment) -> Result<Vec<Told>, String> {
        let mut moments = Vec::new();
        while moments.last().is_none_or(|told: &Told| told.moment != last) {
            moments.push(self.moments.recv_timeout(START_LIMIT).map_err(|_| format!("nobody has told of the moment {last:?}"))?);
        }
        Ok(moments)
    }

    /// An error if the server that should serve has ended, or if any has ended badly.
    pub(crate) fn check(&self) -> Result<(), String> {
        reap()?;
        kill(pid(self.pid), None).map_err(|_| format!("the server (pid {}) has ended by itself", self.pid))
    }

    /// Ends the last server, and waits for those that it has replaced.
    pub(crate) fn stop(self) -> Result<(), String> {
        let told = if self.is_guarded { self.first } else { self.pid };
        kill(pid(told), Signal::SIGTERM).map_err(|error| format!("cannot end {told}: {error}"))?;
        let deadline = Instant::now() + END_LIMIT;
        while reap()? {
            if Instant::now() > deadline {
                return Err("there are servers that do not end".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Service {
    /// After a failure: no server survives. Whose parent dies becomes our child, and is next.
    fn drop(&mut self) {
        while reap().unwrap_or(true) {
            for child in children() {
                let _ = kill(child, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether some are left. None ends badly but those that were told to.
fn reap() -> Result<bool, String> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGTERM, _)) => {}
            Ok(WaitStatus::Exited(pid, status)) => return Err(format!("server {pid} ended with exit status {status}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Err(format!("server {pid} was ended by {signal}")),
            Ok(_) => return Ok(true),
            Err(Errno::ECHILD) => return Ok(false),
            Err(error) => return Err(format!("cannot wait for the servers: {error}")),
        }
    }
}

fn last_pid(moments: &[Told]) -> u32 {
    moments.last().map_or(0, |told| told.pid)
}

fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join("children")));
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).map(Pid::from_raw).collect::<Vec<_>>()).collect()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

fn read_all(output: ChildStdout, mut with: impl FnMut(&str)) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        with(&line);
    }
}
