//! A thousand clients at once on the coordination socket, each of which wants a restart.

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::client;
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::Settings;
use crate::service::Service;
use crate::stats::median;

const CLIENTS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(20);

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let what = format!("{CLIENTS} clients at once ask for a restart");
    let mut last = Row::new("crowd last", "the same: until the last has one", Unit::Seconds);
    let mut middle = Row::new("crowd median", format!("{what}: until half have an answer"), Unit::Seconds);
    let mut restarts = Row::new("crowd restarts", "the same: processes started", Unit::Count);
    let mut lost = Row::new("crowd lost", "the same: clients without an answer", Unit::Count);
    for peer in plan.peers(&[Peer::Ours, Peer::Shellflip]) {
        let service = Service::start(peer, Settings::default())?;
        let barrier = Arc::new(Barrier::new(CLIENTS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (barrier, socket) = (barrier.clone(), service.socket.clone());
                thread::Builder::new().stack_size(128 * 1024).spawn(move || {
                    barrier.wait();
                    let begun = Instant::now();
                    (client::restart(&socket, PATIENCE), begun.elapsed().as_secs_f64())
                })
            })
            .collect::<Result<_, _>>()
            .map_err(|error| format!("cannot start the clients: {error}"))?;
        let (mut answered, mut pids) = (Vec::new(), BTreeSet::new());
        let mut reason = String::new();
        for client in clients {
            match client.join().map_err(|_| "a client panicked")? {
                (Ok(answer), time) => {
                    pids.extend(answer.ok());
                    answered.push(time);
                }
                (Err(error), _) => reason = error.to_string(),
            }
        }
        last = last.with(peer, answered.iter().copied().fold(f64::NAN, f64::max));
        middle = middle.with(peer, median(&answered));
        restarts = restarts.with(peer, pids.len() as f64);
        lost = lost.with(peer, (CLIENTS - answered.len()) as f64);
        if !reason.is_empty() {
            report.note(format!("{CLIENTS} clients: without an answer from {} within {PATIENCE:?}: {reason}", peer.name()));
        }
        // The next one who asks is answered.
        match client::restart(&service.socket, PATIENCE) {
            Ok(Ok(_)) => {}
            other => report.note(format!("{CLIENTS} clients: the next one after them gets from {}: {other:?}", peer.name())),
        }
    }
    report.add_all([middle, last, lost, restarts]);
    Ok(())
}
