//! One run: a server with all its players, restarts, before every second one a try that fails, and kills.

use super::client::slow_among;
use super::crowd::Crowd;
use super::report::{self, Outcome, Run, Try};
use super::seen::Seen;
use super::service::{Service, Settings};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take until every player has been answered.
const PROOF_LIMIT: Duration = Duration::from_secs(30);
/// The same where somebody is known to wait without an answer.
const BROKEN_PROOF_LIMIT: Duration = Duration::from_secs(4);

/// A server that keeps has room for so many more, who are greeted while others leave.
const SPARE_SEATS: usize = 1_000;

pub(crate) struct Options {
    pub(crate) players: usize,
    pub(crate) restarts: usize,
    /// How often the server is killed, which it survives only if it keeps its players.
    pub(crate) kills: usize,
    /// Players who come and go, a second.
    pub(crate) visitors: u32,
    /// A rule that the last server breaks: the run must notice.
    pub(crate) wrong: Option<String>,
    /// What the servers are told.
    pub(crate) shared: bool,
    pub(crate) precopy: bool,
    pub(crate) keep: bool,
}

/// True if nobody lost anything.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let mut service = Service::start(&settings(options))?;
    let crowd = Crowd::gather(service.address, options.players, options.visitors)?;
    let mut tries = Vec::new();
    let went = restart_all(options, &mut service, &crowd, &mut tries);
    let tally = crowd.leave();
    // If it went wrong, the service is dropped, which kills the servers.
    let went = went.and_then(|normal| service.stop().map(|()| normal));
    let all_went = went.is_ok();
    let normal = went.unwrap_or_else(|problem| {
        eprintln!("game_server: {problem}");
        Seen::default()
    });
    let done = |wanted| tries.iter().filter(|one| one.outcome == wanted).count();
    let (restarted, killed) = (done(Outcome::Restarted), done(Outcome::Killed));
    let printed = report::print(
        &mut io::stdout().lock(),
        &Run { players: options.players, keeps: options.keep, tries: &tries, normal: &normal, tally: &tally },
    );
    printed.map_err(|error| format!("cannot print the report: {error}"))?;
    let wanted = options.restarts + usize::from(options.wrong.is_some());
    Ok(all_went && restarted == wanted && killed == options.kills && tally.disconnected == 0 && tally.out_of_sequence == 0)
}

fn settings(options: &Options) -> Settings {
    let seats = options.players + options.visitors as usize + SPARE_SEATS;
    Settings { shared: options.shared, precopy: options.precopy, keep: options.keep.then_some(seats) }
}

/// Returns what the players see without a restart.
fn restart_all(options: &Options, service: &mut Service, crowd: &Crowd, tries: &mut Vec<Try>) -> Result<Seen, String> {
    // The first round after so many connects is not a normal one.
    for _ in 0..2 {
        crowd.look();
        wait_for_proof(options, service, crowd)?;
    }
    let normal = crowd.look();
    for number in 0..options.restarts.max(options.kills) {
        if number < options.restarts {
            restart(options, number, service, crowd, tries)?;
        }
        if number < options.kills {
            let moments = service.kill()?;
            wait_for_proof(options, service, crowd)?;
            tries.push(Try { outcome: Outcome::Killed, moments, seen: crowd.look() });
        }
    }
    if let Some(how) = &options.wrong {
        let moments = service.restart_wrongly(how)?;
        wait_for_proof(options, service, crowd)?;
        tries.push(Try { outcome: Outcome::Restarted, moments, seen: crowd.look() });
    }
    Ok(normal)
}

fn restart(options: &Options, number: usize, service: &mut Service, crowd: &Crowd, tries: &mut Vec<Try>) -> Result<(), String> {
    if number % 2 == 1 {
        let how = if number % 4 == 1 { "exit" } else { "refuse" };
        let (why, moments) = service.fail_to_restart(how)?;
        wait_for_proof(options, service, crowd)?;
        tries.push(Try { outcome: Outcome::Failed(why), moments, seen: crowd.look() });
    }
    let moments = service.restart()?;
    wait_for_proof(options, service, crowd)?;
    tries.push(Try { outcome: Outcome::Restarted, moments, seen: crowd.look() });
    Ok(())
}

/// Until every player has been answered from now on, those who read slowly aside.
fn wait_for_proof(options: &Options, service: &Service, crowd: &Crowd) -> Result<(), String> {
    let limit = Instant::now() + if options.wrong.is_some() { BROKEN_PROOF_LIMIT } else { PROOF_LIMIT };
    crowd.begin_round();
    loop {
        service.check()?;
        let tally = crowd.tally();
        if let (1.., Some(why)) = (tally.disconnected, &tally.why) {
            return Err(format!("a player was disconnected: {why}"));
        }
        if tally.answered + slow_among(options.players) >= options.players {
            return Ok(());
        }
        if Instant::now() > limit {
            return Err(format!("no more than {} players were answered", tally.answered));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
