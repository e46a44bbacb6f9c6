//! Who runs the server, and starts it again: a guard that this program has started, or systemd.
//!
//! Knows: how to find out who serves, to kill it and to have it restarted. Does not know: clients,
//! and when who is killed.

use super::clients::Dice;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use pollflip::ServiceState;
use pollflip::restart_coordination_socket::{request_restart, request_status};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};
use temp_dir::TempDir;

/// How long a server may take to come back.
const LIMIT: Duration = Duration::from_secs(30);
/// Hardly a restart takes longer.
const LONGEST_RESTART_US: u64 = 40_000;

/// A server that serves, as it has said itself.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) resumed: usize,
    /// When it executed its first instruction.
    pub(crate) began: Instant,
    /// When it served.
    pub(crate) at: Instant,
    socket: PathBuf,
}

/// Reads a line of `server.rs`.
fn read_line(line: &str) -> Option<Serving> {
    let words: Vec<_> = line.strip_prefix("serving ")?.splitn(6, ' ').collect();
    let [pid, address, resumed, began, at, socket] = words[..] else { return None };
    let (began, at) = (instant(began.parse().ok()?)?, instant(at.parse().ok()?)?);
    let (pid, address, resumed) = (pid.parse().ok()?, address.parse().ok()?, resumed.parse().ok()?);
    Some(Serving { pid, address, resumed, began, at, socket: socket.into() })
}

/// A time in nanoseconds of the clock that all processes of the machine have.
fn instant(nanoseconds: u64) -> Option<Instant> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    Instant::now().checked_sub(now.checked_sub(Duration::from_nanos(nanoseconds))?)
}

pub(crate) struct Service {
    keeper: Keeper,
    /// What the processes say when they serve.
    serving: Receiver<Serving>,
}

/// Who holds what is kept, and starts the server again.
enum Keeper {
    Guard { guard: Child, _directory: TempDir },
    Systemd { unit: String, journal: Child },
}

impl Service {
    /// Starts a guard, and the server below it.
    pub(crate) fn guarded(connections: usize, is_wrong: bool) -> Result<(Service, Serving), Box<dyn Error>> {
        let directory = TempDir::new()?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["serve", "--guard", "--connections", &connections.to_string(), "--socket"]);
        command.arg(directory.path().join("restart.sock")).args(is_wrong.then_some("--wrong"));
        let mut guard = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = guard.stdout.take().ok_or("the guard has no output")?;
        let service = Service { keeper: Keeper::Guard { guard, _directory: directory }, serving: listen(output) };
        let first = service.wait_for(|_| true)?;
        Ok((service, first))
    }

    /// Finds the server that a unit of systemd runs. What it says is in the journal.
    pub(crate) fn unit(unit: &str) -> Result<(Service, Serving), Box<dyn Error>> {
        let main = main_pid(unit)?;
        if main == 0 {
            return Err(format!("the unit {unit} does not run: systemctl start {unit}").into());
        }
        let mut command = Command::new("journalctl");
        command.args(["--quiet", "--boot", "--output=cat", "--lines=1000", "--follow", "--unit", unit]);
        let mut journal = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| format!("journalctl: {error}"))?;
        let output = journal.stdout.take().ok_or("journalctl has no output")?;
        let service = Service { keeper: Keeper::Systemd { unit: unit.into(), journal }, serving: listen(output) };
        let first = service.wait_for(|serving| serving.pid == main).map_err(|_| {
            format!("the journal does not tell where {unit} serves: its program has to be `kill_me serve`, and its output has to go there")
        })?;
        Ok((service, first))
    }

    fn wait_for(&self, is_it: impl Fn(&Serving) -> bool) -> Result<Serving, Box<dyn Error>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let serving = self.serving.recv_timeout(left).map_err(|_| format!("no server serves after {} s", LIMIT.as_secs()))?;
            if is_it(&serving) {
                return Ok(serving);
            }
        }
    }

    /// Kills the process that serves, and returns when that was. It has ended then: a connection that it
    /// accepts in its last moment cannot be kept any more.
    pub(crate) fn kill(&self, serving: &Serving) -> Result<Instant, Box<dyn Error>> {
        if let Keeper::Systemd { unit, .. } = &self.keeper {
            // Of a successor systemd learns a moment later than the one who asked for the restart.
            let deadline = Instant::now() + LIMIT;
            let mut main = main_pid(unit)?;
            while main != serving.pid {
                if Instant::now() > deadline {
                    return Err(format!("process {} serves, and the main process of {unit} is {main}", serving.pid).into());
                }
                thread::sleep(Duration::from_millis(5));
                main = main_pid(unit)?;
            }
        }
        let now = Instant::now();
        kill(Pid::from_raw(serving.pid.cast_signed()), Signal::SIGKILL)
            .map_err(|error| format!("cannot kill process {}: {error}", serving.pid))?;
        // Amid a call it ends when that is over, and the call may be an accept.
        while !has_ended(serving.pid) {
            thread::yield_now();
        }
        Ok(now)
    }

    /// The one that serves after that process was killed at that moment.
    pub(crate) fn next(&self, killed: u32, at: Instant) -> Result<Serving, Box<dyn Error>> {
        // What others have said before is read late.
        self.wait_for(|serving| serving.pid != killed && serving.at >= at)
    }

    pub(crate) fn restart(&self, before: &Serving) -> Result<Serving, Box<dyn Error>> {
        let pid = request_restart(&before.socket, LIMIT, |_| {})?;
        self.wait_for(|serving| serving.pid == pid)
    }

    /// Kills one of the two processes of a restart, at any moment of it. Returns who serves then.
    pub(crate) fn kill_in_restart(&self, before: &Serving, dice: &mut Dice) -> Result<Serving, Box<dyn Error>> {
        let socket = before.socket.clone();
        let asked = thread::spawn(move || request_restart(socket, LIMIT, |_| {}).is_ok());
        thread::sleep(Duration::from_micros(dice.below(LONGEST_RESTART_US)));
        let successor = children_of(before.pid).last().copied().filter(|_| dice.below(2) == 0);
        // It may have ended in order already.
        let _ = kill(Pid::from_raw(successor.unwrap_or(before.pid).cast_signed()), Signal::SIGKILL);
        // Who asks is told the truth, or nothing by a process that is dead.
        let _ = asked.join();
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match request_status(&before.socket, Duration::from_secs(1)) {
                Ok(status) if status.state == ServiceState::Serving && status.pid == before.pid => return Ok(before.clone()),
                Ok(status) if status.state == ServiceState::Serving => return self.wait_for(|serving| serving.pid == status.pid),
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
        Err("no server serves".into())
    }
}

/// Tells of each server that says that it serves.
fn listen(output: ChildStdout) -> Receiver<Serving> {
    let (sender, serving) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(serving) = read_line(&line) {
                let _ = sender.send(serving);
            }
        }
    });
    serving
}

/// Whether nothing is left of that process but what its parent has not read yet.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |text| text.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}

/// The main process of a unit; 0: there is none at the moment.
fn main_pid(unit: &str) -> Result<u32, Box<dyn Error>> {
    let output = Command::new("systemctl").args(["show", "--value", "--property=MainPID", "--", unit]).output();
    let output = output.map_err(|error| format!("systemctl: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().parse().map_err(|_| format!("systemctl does not know {unit}: {}", String::from_utf8_lossy(&output.stderr).trim()))?)
}

/// Those that a process has started, and who have not ended.
fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

impl Drop for Service {
    fn drop(&mut self) {
        let (child, signal) = match &mut self.keeper {
            Keeper::Guard { guard, .. } => (guard, Signal::SIGTERM),
            // The service was there before, and stays.
            Keeper::Systemd { journal, .. } => (journal, Signal::SIGKILL),
        };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        let _ = child.wait();
    }
}
