//! Directs: has the server killed and restarted while clients talk to it, and tells what they saw.

use super::clients::{Clients, Dice, Tally, newcomer, poison};
use super::figures::{Death, first_answers, pauses, percentile, recoveries};
use super::service::{Service, Serving};
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct Options {
    pub(crate) kills: u32,
    pub(crate) restarts: u32,
    pub(crate) poison: u32,
    pub(crate) during: u32,
    pub(crate) connections: usize,
    /// The unit of systemd that runs the server; `None`: a guard does.
    pub(crate) unit: Option<String>,
    pub(crate) seed: u64,
    pub(crate) verbose: bool,
    pub(crate) is_wrong: bool,
}

/// Between two deeds there is some load.
const LOAD_MS: (u64, u64) = (30, 150);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Kill,
    Restart,
    /// A client that the server dies of.
    Poison,
    /// One of the two processes of a restart is killed.
    KillInRestart,
}

/// Runs, prints the line, and says whether nobody has lost anything.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let (service, mut serving) = match &options.unit {
        Some(unit) => Service::unit(unit)?,
        None => Service::guarded(options.connections, options.is_wrong)?,
    };
    let clients = Clients::start(serving.address, options.connections, options.seed)?;
    clients.wait_for(options.connections)?;
    let mut dice = Dice(options.seed.rotate_left(17) | 1);
    let mut come = Tally::default();
    let (mut kills, mut others) = (Vec::new(), Vec::new());
    let mut left = vec![Deed::Kill; options.kills as usize];
    for (deed, count) in [(Deed::Restart, options.restarts), (Deed::Poison, options.poison), (Deed::KillInRestart, options.during)] {
        left.extend(std::iter::repeat_n(deed, count as usize));
    }
    while !left.is_empty() {
        thread::sleep(Duration::from_millis(LOAD_MS.0 + dice.below(LOAD_MS.1 - LOAD_MS.0)));
        let deed = left.swap_remove(dice.below(left.len() as u64) as usize);
        let began = Instant::now();
        let next = match deed {
            Deed::Kill => {
                let killed = service.kill(&serving)?;
                newcomer(serving.address, &mut come);
                let next = service.next(serving.pid, killed)?;
                kills.push(Death { at: killed, next_began: next.began, next_served: next.at });
                next
            }
            Deed::Restart => service.restart(&serving)?,
            Deed::Poison => {
                poison(serving.address)?;
                service.next(serving.pid, began)?
            }
            Deed::KillInRestart => service.kill_in_restart(&serving, &mut dice)?,
        };
        if matches!(deed, Deed::Poison | Deed::KillInRestart) {
            others.push(Death { at: began, next_began: next.began, next_served: next.at.max(began) });
        }
        serving = next;
        if options.verbose {
            let Serving { pid, resumed, began: start, at, .. } = serving;
            let (start, recovery) = (start.saturating_duration_since(began), at - start);
            eprintln!("kill_me: {deed:?}, {} left: pid={pid} resumed={resumed} start={start:?} recovery={recovery:?}", left.len());
        }
    }
    let tally = clients.stop()?;
    let all_pauses = pauses(&[kills.as_slice(), others.as_slice()].concat(), &tally.answers);
    let (firsts, recoveries) = (first_answers(&kills, &tally.answers), recoveries(&kills));
    let [refused, cut, wrong] = [tally.refused + come.refused, tally.cut + come.cut, tally.wrong + come.wrong];
    if cut > 0 {
        eprintln!("kill_me: cut off were {} of those who stay, and {} of those who came while nobody served", tally.cut, come.cut);
    }
    let mut more = String::new();
    for (name, count) in [("poisoned", options.poison), ("killed_in_restart", options.during)] {
        if count > 0 {
            more += &format!(" {name}={count}");
        }
    }
    println!(
        "kills={} restarts={}{more} connections={} refused={refused} cut={cut} wrong={wrong} pause_ms_p50={:.1} pause_ms_max={:.1} \
         first_answer_ms_p50={:.1} recovery_ms_p50={:.1}",
        options.kills,
        options.restarts,
        options.connections,
        percentile(&all_pauses, 50),
        percentile(&all_pauses, 100),
        percentile(&firsts, 50),
        percentile(&recoveries, 50),
    );
    if options.verbose {
        let all = (tally.answers.len(), tally.bytes >> 10, all_pauses.len());
        eprintln!("kill_me: {} answers of {} KiB in all, {} of them over a kill, seed {}", all.0, all.1, all.2, options.seed);
    }
    Ok(refused + cut + wrong == 0)
}
