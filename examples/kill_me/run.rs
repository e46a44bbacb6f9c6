//! Directs: starts the guard, kills and restarts the server, and tells what its clients saw.

use super::clients::{Clients, Dice, Tally, newcomer, poison};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::ServiceState;
use pollflip::restart_coordination_socket::{request_restart, request_status};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};
use tempfile::TempDir;

pub(crate) struct Options {
    pub(crate) kills: u32,
    pub(crate) restarts: u32,
    pub(crate) poison: u32,
    pub(crate) during: u32,
    pub(crate) connections: usize,
    pub(crate) seed: u64,
    pub(crate) verbose: bool,
    pub(crate) is_wrong: bool,
}

/// How long a server may take to come back.
const LIMIT: Duration = Duration::from_secs(30);
/// Hardly a restart takes longer.
const LONGEST_RESTART_US: u64 = 40_000;
/// Between two deeds there is some load.
const LOAD_MS: (u64, u64) = (30, 150);

/// A server that serves, as it has said itself.
#[derive(Debug, Clone, Copy)]
struct Serving {
    pid: u32,
    address: SocketAddr,
    resumed: usize,
    /// From its first instruction until it served.
    took: Duration,
    at: Instant,
}

fn read_line(line: &str) -> Option<Serving> {
    let words: Vec<_> = line.strip_prefix("serving ")?.split(' ').collect();
    let [pid, address, resumed, took] = words[..] else { return None };
    let took = Duration::from_micros(took.parse().ok()?);
    let (pid, address, resumed) = (pid.parse().ok()?, address.parse().ok()?, resumed.parse().ok()?);
    Some(Serving { pid, address, resumed, took, at: Instant::now() })
}

struct Service {
    guard: Child,
    serving: Receiver<Serving>,
    socket: PathBuf,
    _directory: TempDir,
}

impl Service {
    fn start(connections: usize, is_wrong: bool) -> Result<Service, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("restart.sock");
        let mut command = Command::new(env::current_exe()?);
        command.args(["serve", "--connections", &connections.to_string(), "--socket"]).arg(&socket);
        command.args(is_wrong.then_some("--wrong"));
        let mut guard = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = guard.stdout.take().ok_or("the guard has no output")?;
        let (sender, serving) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(serving) = read_line(&line) {
                    let _ = sender.send(serving);
                }
            }
        });
        Ok(Service { guard, serving, socket, _directory: directory })
    }

    /// The one that serves after that process was killed at that moment.
    fn next(&self, killed: u32, at: Instant) -> Result<Serving, Box<dyn Error>> {
        loop {
            let serving = self.serving.recv_timeout(LIMIT).map_err(|_| "no server serves")?;
            // What others have said before is read late.
            if serving.pid != killed && serving.at >= at {
                return Ok(serving);
            }
        }
    }

    fn restart(&self) -> Result<Serving, Box<dyn Error>> {
        let pid = request_restart(&self.socket, LIMIT, |_| {})?;
        loop {
            let serving = self.serving.recv_timeout(LIMIT).map_err(|_| "no server serves")?;
            if serving.pid == pid {
                return Ok(serving);
            }
        }
    }

    /// Kills one of the two processes of a restart, at any moment of it.
    fn kill_in_restart(&self, before: Serving, dice: &mut Dice) -> Result<Serving, Box<dyn Error>> {
        let socket = self.socket.clone();
        let asked = thread::spawn(move || request_restart(socket, LIMIT, |_| {}).is_ok());
        thread::sleep(Duration::from_micros(dice.below(LONGEST_RESTART_US)));
        let successor = children_of(before.pid).last().copied().filter(|_| dice.below(2) == 0);
        // It may have ended in order already.
        let _ = kill(Pid::from_raw(successor.unwrap_or(before.pid) as i32), Signal::SIGKILL);
        // Whoever asks is told the truth, or nothing by a process that is dead.
        let _ = asked.join();
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            if let Ok(status) = request_status(&self.socket, Duration::from_secs(1))
                && status.state == ServiceState::Serving
            {
                return Ok(Serving { pid: status.pid, at: Instant::now(), ..before });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err("no server serves".into())
    }
}

/// Those that a process has started, and who have not ended.
fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.guard.id() as i32), Signal::SIGTERM);
        let _ = self.guard.wait();
    }
}

/// Runs, prints the line, and says whether nobody has lost anything.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let started = Instant::now();
    let service = Service::start(options.connections, options.is_wrong)?;
    let mut serving = service.next(0, started)?;
    let clients = Clients::start(serving.address, options.connections, options.seed)?;
    clients.wait_for(options.connections)?;
    let mut dice = Dice(options.seed.rotate_left(17) | 1);
    let mut come = Tally::default();
    // When the server was killed, and when the next one served.
    let mut dead = Vec::new();
    let (mut kills, mut restarts, mut poisoned, mut during) = (0, 0, 0, 0);
    loop {
        let left = [options.kills - kills, options.restarts - restarts, options.poison - poisoned, options.during - during];
        let all: u32 = left.iter().sum();
        if all == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(LOAD_MS.0 + dice.below(LOAD_MS.1 - LOAD_MS.0)));
        let mut chosen = dice.below(all.into()) as u32;
        let deed = left.iter().position(|left| chosen.checked_sub(*left).map(|rest| chosen = rest).is_none());
        let began = Instant::now();
        let killed = serving.pid;
        match deed {
            Some(0) => {
                kill(Pid::from_raw(killed as i32), Signal::SIGKILL)?;
                kills += 1;
                newcomer(serving.address, &mut come);
                serving = service.next(killed, began)?;
            }
            Some(1) => {
                serving = service.restart()?;
                restarts += 1;
            }
            Some(2) => {
                poison(serving.address)?;
                poisoned += 1;
                serving = service.next(killed, began)?;
            }
            _ => {
                serving = service.kill_in_restart(serving, &mut dice)?;
                during += 1;
            }
        }
        if deed != Some(1) {
            dead.push((began, serving.at));
        }
        if options.verbose {
            let Serving { pid, resumed, took, .. } = serving;
            let deeds = format!("kills={kills} restarts={restarts} poisoned={poisoned} during={during}");
            eprintln!("kill_me: {deeds}: pid={pid} resumed={resumed} took={took:?}");
        }
    }
    let tally = clients.stop()?;
    let pauses = pauses(&dead, &tally.answers);
    let [refused, cut, wrong] = [tally.refused + come.refused, tally.cut + come.cut, tally.wrong + come.wrong];
    let at = |part: usize| pauses.get((pauses.len() * part / 100).min(pauses.len().saturating_sub(1))).copied().unwrap_or(0.0);
    let mut others = String::new();
    for (name, count) in [("poisoned", poisoned), ("killed_in_restart", during)] {
        if count > 0 {
            others += &format!(" {name}={count}");
        }
    }
    println!(
        "kills={kills} restarts={restarts}{others} connections={} refused={refused} cut={cut} wrong={wrong} pause_ms_p50={:.1} \
         pause_ms_max={:.1}",
        options.connections,
        at(50),
        at(100),
    );
    if options.verbose {
        let all = (tally.answers.len(), tally.bytes >> 10, pauses.len());
        eprintln!("kill_me: {} answers of {} KiB in all, {} of them over a kill, seed {}", all.0, all.1, all.2, options.seed);
    }
    Ok(refused + cut + wrong == 0)
}

/// How long clients waited for answers that a kill has held up, in milliseconds, in rising order:
/// from the kill, or from when the client sent, if that was while the server was dead.
fn pauses(dead: &[(Instant, Instant)], answers: &[(Instant, Instant)]) -> Vec<f64> {
    let mut pauses = Vec::new();
    for (killed, back) in dead {
        let held_up = answers.iter().filter(|(sent, answered)| sent <= back && answered >= killed);
        pauses.extend(held_up.map(|(sent, answered)| answered.duration_since(*sent.max(killed)).as_secs_f64() * 1e3));
    }
    pauses.sort_by(f64::total_cmp);
    pauses
}

#[test]
fn only_answers_that_a_kill_has_held_up_count() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let dead = [(at(100), at(120))];
    let answers = [(at(50), at(60)), (at(90), at(130)), (at(110), at(125)), (at(121), at(122))];
    assert_eq!(pauses(&dead, &answers), [15.0, 30.0]);
}
