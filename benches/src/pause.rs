//! How long a server with many connections stands still in a restart: from the freeze to the grant, on the server's own clock.
//!
//! The server and its players are those of `examples/game_server`, each in a process of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::example;
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::Way;
use crate::service::Service;
use crate::stats::{median, quantile};

/// Descriptors that a process needs beside one for each connection.
const BESIDES: usize = 700;
/// As many as the README promises something of.
const MANY: usize = 50_000;
/// Where one process may not have that many, so many share them.
const SHARDS: usize = 3;
/// Between two restarts, so that the players have come to rest.
const REST: Duration = Duration::from_millis(150);
/// How long a player may have waited when the pause is over, and not yet know it.
const LATE: Duration = Duration::from_millis(150);

/// How a server hands its players over.
#[derive(Clone, Copy, PartialEq)]
struct Variant {
    state: Way,
    precopy: bool,
}

const VARIANTS: [Variant; 4] = [
    Variant { state: Way::Copied, precopy: false },
    Variant { state: Way::Copied, precopy: true },
    Variant { state: Way::OwnFile, precopy: false },
    Variant { state: Way::OwnFile, precopy: true },
];

impl Variant {
    fn name(self) -> &'static str {
        match (self.state, self.precopy) {
            (Way::OwnFile, true) => "shared",
            (Way::OwnFile, false) => "shared, no pre-copy",
            (_, true) => "written",
            (_, false) => "written, no pre-copy",
        }
    }

    fn peer(self) -> Peer {
        if self.precopy { Peer::Ours } else { Peer::Limit }
    }
}

/// What one variant has shown at one number of connections.
#[derive(Clone, Default)]
struct Samples {
    pauses: Vec<f64>,
    waits: Vec<f64>,
}

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let program = example::build("game_server")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("no limit of descriptors: {error}"))?;
    let wanted: &[usize] = plan.choose(&[1000, 5000], &[1000, 10_000, 19_000, MANY]);
    let (counts, too_many): (Vec<usize>, Vec<usize>) = wanted.iter().partition(|count| (**count + BESIDES) as u64 <= hard);
    for count in too_many {
        let needed = count + BESIDES;
        report.note(format!(
            "{count} connections in one process are left out: {needed} descriptors are needed, and the hard limit is {hard}"
        ));
    }
    let mut samples = vec![vec![Samples::default(); VARIANTS.len()]; counts.len()];
    let mut failed = BTreeMap::new();
    for () in plan.rounds(1, 3, 200) {
        for (count, samples) in counts.iter().zip(&mut samples) {
            for (variant, samples) in VARIANTS.iter().zip(samples) {
                // What is given at the freeze may be held twice, for which there are not always descriptors.
                if let Err(error) = sample(&program, *variant, *count, plan.choose(5, 7), samples) {
                    failed.insert(format!("{count} connections, state {}", variant.name()), error);
                }
            }
        }
    }
    for (count, samples) in counts.iter().zip(&samples) {
        rows(report, &format!("{count}"), &format!("{count} connections"), samples);
    }
    slopes(report, &counts, &samples);
    if !plan.quick && hard < (MANY + BESIDES) as u64 && hard >= (MANY / SHARDS + 1 + BESIDES) as u64 {
        let mut samples = vec![Samples::default(); VARIANTS.len()];
        for (variant, samples) in VARIANTS.iter().zip(&mut samples) {
            if let Err(error) = shards(&program, *variant, MANY / SHARDS + 1, 7, samples) {
                failed.insert(format!("{SHARDS} processes, state {}", variant.name()), error);
            }
        }
        rows(report, "shards", &format!("{} in each of {SHARDS} processes at once", MANY / SHARDS + 1), &samples);
    }
    failed.into_iter().for_each(|(what, error)| report.note(format!("{what}: a restart failed: {error}")));
    for (index, variant) in VARIANTS.iter().enumerate() {
        report.series.push((format!("pause {}", variant.name()), medians(&counts, &samples, index)));
    }
    report.note(
        "pause: of the server of examples/game_server, from the freeze to the grant, on its own clock, while each player asks once a second; \
         the limit is the same server without pre-copy. State: 32 bytes a player, written down at the freeze or kept in a memory file. Wait: \
         the longest of any player, or the longest time in which nobody was told anything, that touches the pause",
    );
    Ok(())
}

fn rows(report: &mut Report, key: &str, what: &str, samples: &[Samples]) {
    for (state, name) in [(Way::Copied, "written"), (Way::OwnFile, "shared")] {
        let row = |kind: &str, text: &str, figure: &dyn Fn(&Samples) -> f64| {
            let row = Row::new(format!("{kind} {name} {key}"), format!("{what}, state {name}: {text}"), Unit::Seconds);
            let of_state = VARIANTS.iter().zip(samples).filter(|(variant, _)| variant.state == state);
            of_state.fold(row, |row, (variant, samples)| row.with(variant.peer(), figure(samples)))
        };
        report.add(row("pause", "pause", &|samples| median(&samples.pauses)));
        report.add(row("longest pause", "longest pause", &|samples| quantile(&samples.pauses, 1.0)));
        report.add(row("wait", "wait", &|samples| median(&samples.waits)));
        report.add(row("longest wait", "longest wait", &|samples| quantile(&samples.waits, 1.0)));
    }
}

/// What a connection more costs, between the fewest and the most.
fn slopes(report: &mut Report, counts: &[usize], samples: &[Vec<Samples>]) {
    for (state, name) in [(Way::Copied, "written"), (Way::OwnFile, "shared")] {
        let mut row = Row::new(format!("pause slope {name}"), format!("each connection more, state {name}: pause"), Unit::Seconds);
        for (index, variant) in VARIANTS.iter().enumerate().filter(|(_, variant)| variant.state == state) {
            if let [few, .., many] = medians(counts, samples, index)[..] {
                row = row.with(variant.peer(), (many.1 - few.1) / (many.0 - few.0));
            }
        }
        report.add(row);
    }
}

/// The pauses of a variant by connections, where there are some.
fn medians(counts: &[usize], samples: &[Vec<Samples>], variant: usize) -> Vec<(f64, f64)> {
    let all = counts.iter().zip(samples).map(|(count, samples)| (*count as f64, median(&samples[variant].pauses)));
    all.filter(|(_, pause)| pause.is_finite()).collect()
}

/// A server, and its players.
struct Game {
    server: Service,
    players: Service,
}

impl Game {
    fn start(program: &Path, variant: Variant, count: usize) -> Result<Game, String> {
        let Variant { state, precopy } = variant;
        let mut server = Service::spawn(Peer::Ours, |socket| {
            let mut command = Command::new(program);
            command.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(socket);
            command.args(["--state", if state == Way::OwnFile { "shared" } else { "written" }]);
            command.args(["--precopy", if precopy { "yes" } else { "no" }]);
            Ok(command)
        })?;
        server.pid = server.wait_for("granted")?.pid;
        let said = server.wait_for("listening")?.rest;
        let address: SocketAddr = said.parse().map_err(|_| format!("{said:?} is no address"))?;
        let mut players = Service::spawn(Peer::Ours, |_| {
            let mut command = Command::new(program);
            command.args(["play", "--at", &address.to_string(), "--players", &count.to_string()]);
            Ok(command)
        })?;
        players.wait_for("ready")?;
        thread::sleep(REST);
        Ok(Game { server, players })
    }

    /// One restart; of the first of a server more is new than later, and it is not counted.
    fn restart(&mut self, samples: Option<&mut Samples>) -> Result<(), String> {
        let old = self.server.pid;
        self.server.restart()?;
        let begin = nanoseconds(&self.server.wait_for("frozen")?.rest)?;
        let end = nanoseconds(&self.server.wait_for("granted")?.rest)?;
        thread::sleep(LATE);
        self.players.tell(&format!("{begin} {end}"))?;
        let waited = nanoseconds(&self.players.wait_for("waited")?.rest)?;
        self.server.wait_for_end(old)?;
        self.server.forget();
        if let Some(samples) = samples {
            samples.pauses.push(end.saturating_sub(begin) as f64 / 1e9);
            samples.waits.push(waited as f64 / 1e9);
        }
        Ok(())
    }
}

fn sample(program: &Path, variant: Variant, count: usize, restarts: usize, samples: &mut Samples) -> Result<(), String> {
    let mut game = Game::start(program, variant, count)?;
    game.restart(None)?;
    (0..restarts).try_for_each(|_| game.restart(Some(samples)))
}

/// Servers that restart all at once.
fn shards(program: &Path, variant: Variant, count: usize, restarts: usize, samples: &mut Samples) -> Result<(), String> {
    let mut games = (0..SHARDS).map(|_| Game::start(program, variant, count)).collect::<Result<Vec<_>, _>>()?;
    for number in 0..=restarts {
        let mut seen = vec![Samples::default(); SHARDS];
        thread::scope(|scope| {
            let restarts: Vec<_> = games.iter_mut().zip(&mut seen).map(|(game, seen)| scope.spawn(|| game.restart(Some(seen)))).collect();
            restarts.into_iter().try_for_each(|one| one.join().map_err(|_| "a thread panicked".to_owned())?)
        })?;
        if number > 0 {
            samples.pauses.extend(seen.iter().flat_map(|one| &one.pauses));
            samples.waits.extend(seen.iter().flat_map(|one| &one.waits));
        }
    }
    Ok(())
}

fn nanoseconds(text: &str) -> Result<u64, String> {
    text.split(' ').next().and_then(|number| number.parse().ok()).ok_or_else(|| format!("{text:?} is no time"))
}
