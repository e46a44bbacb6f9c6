//! The longest time in which another thread of the old process does not get on while a restart goes on.

use crate::memory::{GIB, now, sizes};
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::{Gap, Occupation, Settings};
use crate::service::Service;
use crate::stats::median;

const AROUND: u64 = 50_000_000;
const ALL: [Peer; 3] = [Peer::Ours, Peer::Shellflip, Peer::Ecdysis];

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let peers = plan.peers(&ALL);
    for gib in sizes(plan, report, "stall") {
        let mut row = Row::new(format!("stall {gib}"), format!("longest stall of a writing thread, {gib} GiB"), Unit::Seconds);
        let rounds = match gib {
            0 => plan.rounds(5, 25, 15),
            1 => plan.rounds(3, 15, 25),
            _ => plan.rounds(3, 7, 35),
        };
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); peers.len()];
        let mut calm = Vec::new();
        for () in rounds {
            for (peer, samples) in peers.iter().zip(&mut samples) {
                let (stall, before) = sample(*peer, gib * GIB)?;
                samples.push(stall);
                calm.push(before);
            }
        }
        row = row.with(Peer::Limit, median(&calm));
        for (peer, samples) in peers.iter().zip(&samples) {
            row = row.with(*peer, median(samples));
        }
        report.add(row);
    }
    report.note(
        "stall: from the request until 50 ms after the answer, seen by a thread that keeps writing to the memory; the limit is the same \
         thread for 50 ms without a restart, so what it has is the machine's",
    );
    Ok(())
}

/// The longest gap about the restart, and before it.
fn sample(peer: Peer, memory: usize) -> Result<(f64, f64), String> {
    let settings = Settings { memory, occupation: Occupation::Writes, ..Settings::default() };
    let mut service = Service::start(peer, settings)?;
    service.wait_for("warm")?;
    service.settle()?;
    let begun = now();
    service.restart()?;
    let ended = now() + AROUND;
    let gaps: Vec<Gap> = serde_json::from_str(&service.wait_for("gaps")?.rest).map_err(|error| format!("{error}"))?;
    let longest = |from: u64, to: u64| {
        let within = gaps.iter().filter(|gap| gap.begun + gap.lasted > from && gap.begun < to);
        within.map(|gap| gap.lasted).max().unwrap_or(0) as f64 / 1e9
    };
    Ok((longest(begun, ended), longest(begun - AROUND, begun)))
}
