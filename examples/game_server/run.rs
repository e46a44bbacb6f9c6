//! One run: a server with all its players, restarts, and before every second one a try that fails.

use super::client::slow_among;
use super::crowd::Crowd;
use super::report::{self, Run, Try};
use super::seen::Seen;
use super::service::Service;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take until every player has been answered.
const PROOF_LIMIT: Duration = Duration::from_secs(30);
/// The same where somebody is known to wait without an answer.
const BROKEN_PROOF_LIMIT: Duration = Duration::from_secs(4);

pub(crate) struct Options {
    pub(crate) players: usize,
    pub(crate) restarts: usize,
    /// Players who come and go, a second.
    pub(crate) visitors: u32,
    /// A rule that the last server breaks: the run must notice.
    pub(crate) wrong: Option<String>,
    /// What the servers are told.
    pub(crate) shared: bool,
    pub(crate) precopy: bool,
}

/// True if nobody lost anything.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let mut service = Service::start(options.shared, options.precopy)?;
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
    let done = tries.iter().filter(|one| one.failure.is_none()).count();
    let printed = report::print(&mut io::stdout().lock(), &Run { players: options.players, tries: &tries, normal: &normal, tally: &tally });
    printed.map_err(|error| format!("cannot print the report: {error}"))?;
    let wanted = options.restarts + usize::from(options.wrong.is_some());
    Ok(all_went && done == wanted && tally.disconnected == 0 && tally.out_of_sequence == 0)
}

/// Returns what the players see without a restart.
fn restart_all(options: &Options, service: &mut Service, crowd: &Crowd, tries: &mut Vec<Try>) -> Result<Seen, String> {
    // The first round after so many connects is not a normal one.
    for _ in 0..2 {
        crowd.look();
        wait_for_proof(options, service, crowd)?;
    }
    let normal = crowd.look();
    for number in 0..options.restarts {
        if number % 2 == 1 {
            let how = if number % 4 == 1 { "exit" } else { "refuse" };
            let (why, moments) = service.fail_to_restart(how)?;
            wait_for_proof(options, service, crowd)?;
            tries.push(Try { failure: Some(why), moments, seen: crowd.look() });
        }
        let moments = service.restart()?;
        wait_for_proof(options, service, crowd)?;
        tries.push(Try { failure: None, moments, seen: crowd.look() });
    }
    if let Some(how) = &options.wrong {
        let moments = service.restart_wrongly(how)?;
        wait_for_proof(options, service, crowd)?;
        tries.push(Try { failure: None, moments, seen: crowd.look() });
    }
    Ok(normal)
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
