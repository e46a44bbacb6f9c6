//! Directs: starts the guard, kills and restarts the server, and tells what its clients saw.

use super::clients::{Clients, Dice, Tally, newcomer, poison};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::restart_coordination_socket::request_restart;
use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Options {
    pub(crate) kills: u32,
    pub(crate) restarts: u32,
    pub(crate) poison: u32,
    pub(crate) connections: usize,
    pub(crate) seed: u64,
    pub(crate) verbose: bool,
    pub(crate) is_wrong: bool,
}

/// How long a server may take to come back.
const LIMIT: Duration = Duration::from_secs(30);
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

    fn next(&self) -> Result<Serving, Box<dyn Error>> {
        self.serving.recv_timeout(LIMIT).map_err(|_| "no server serves".into())
    }

    fn restart(&self) -> Result<Serving, Box<dyn Error>> {
        restart(&self.socket)?;
        self.next()
    }
}

fn restart(socket: &Path) -> Result<u32, Box<dyn Error>> {
    Ok(request_restart(socket, LIMIT, |_| {})?)
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.guard.id() as i32), Signal::SIGTERM);
        let _ = self.guard.wait();
    }
}

/// Runs, prints the line, and says whether nobody has lost anything.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let service = Service::start(options.connections, options.is_wrong)?;
    let mut serving = service.next()?;
    let clients = Clients::start(serving.address, options.connections, options.seed)?;
    clients.wait_for(options.connections)?;
    let mut dice = Dice(options.seed.rotate_left(17) | 1);
    let mut come = Tally::default();
    // When the server was killed, and when the next one served.
    let mut dead = Vec::new();
    let (mut kills, mut restarts, mut poisoned) = (0, 0, 0);
    loop {
        let left = [options.kills - kills, options.restarts - restarts, options.poison - poisoned];
        let [may_kill, may_restart, _] = left;
        let all: u32 = left.iter().sum();
        if all == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(LOAD_MS.0 + dice.below(LOAD_MS.1 - LOAD_MS.0)));
        let chosen = dice.below(all.into()) as u32;
        let began = Instant::now();
        if chosen < may_kill {
            kill(Pid::from_raw(serving.pid as i32), Signal::SIGKILL)?;
            kills += 1;
            newcomer(serving.address, &mut come);
            serving = service.next()?;
            dead.push((began, serving.at));
        } else if chosen < may_kill + may_restart {
            serving = service.restart()?;
            restarts += 1;
        } else {
            poison(serving.address)?;
            poisoned += 1;
            serving = service.next()?;
            dead.push((began, serving.at));
        }
        if options.verbose {
            let Serving { pid, resumed, took, .. } = serving;
            eprintln!("kill_me: kills={kills} restarts={restarts} poisoned={poisoned}: pid={pid} resumed={resumed} took={took:?}");
        }
    }
    let tally = clients.stop()?;
    let pauses = pauses(&dead, &tally.answers);
    let [refused, cut, wrong] = [tally.refused + come.refused, tally.cut + come.cut, tally.wrong + come.wrong];
    let at = |part: usize| pauses.get((pauses.len() * part / 100).min(pauses.len().saturating_sub(1))).copied().unwrap_or(0.0);
    let poisoned = if options.poison > 0 { format!(" poisoned={poisoned}") } else { String::new() };
    println!(
        "kills={kills} restarts={restarts}{poisoned} connections={} refused={refused} cut={cut} wrong={wrong} pause_ms_p50={:.1} \
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
