//! How long a restart takes, from the request to the answer, by the memory of the old process.

use crate::memory::{GIB, sizes};
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::Settings;
use crate::service::Service;
use crate::stats::median;

const ALL: [Peer; 4] = [Peer::Limit, Peer::Ours, Peer::Shellflip, Peer::Ecdysis];

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let peers = plan.peers(&ALL);
    let mut lines: Vec<Vec<(f64, f64)>> = vec![Vec::new(); peers.len()];
    for gib in sizes(plan, report, "latency") {
        let mut row = Row::new(format!("latency {gib}"), format!("restart, {gib} GiB touched: request → answer"), Unit::Seconds);
        // A process that has touched nothing is quickly had again.
        let rounds = match gib {
            0 => plan.rounds(9, 40, 15),
            1 => plan.rounds(3, 11, 25),
            _ => plan.rounds(3, 9, 35),
        };
        let mut samples: Vec<Vec<f64>> = vec![Vec::new(); peers.len()];
        for () in rounds {
            for (peer, samples) in peers.iter().zip(&mut samples) {
                samples.push(sample(*peer, gib * GIB)?);
            }
        }
        for ((peer, samples), line) in peers.iter().zip(&samples).zip(&mut lines) {
            row = row.with(*peer, median(samples));
            line.push((gib as f64, median(samples)));
        }
        report.add(row);
    }
    report.series.extend(peers.iter().zip(lines).map(|(peer, line)| (format!("latency {}", peer.name()), line)));
    report.note(
        "restart: the limit is a bare posix_spawn in a process of that size, until the child has written a byte. ecdysis answers nobody: \
         signal → the old process knows",
    );
    Ok(())
}

fn sample(peer: Peer, memory: usize) -> Result<f64, String> {
    let mut service = Service::start(peer, Settings { memory, ..Settings::default() })?;
    service.wait_for("warm")?;
    service.settle()?;
    service.measure()
}
