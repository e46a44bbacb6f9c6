//! Restarts in a row: what a service has after the first and after the last, and what restarts that fail leave behind.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::client;
use crate::plan::{Peer, Plan};
use crate::proc::{Seen, see};
use crate::report::{Report, Row, Unit};
use crate::roles::Settings;
use crate::service::{LIMIT, Service};

const ALL: [Peer; 3] = [Peer::Ours, Peer::Shellflip, Peer::Ecdysis];

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let wanted = plan.choose(50, 1000);
    let patience = Duration::from_secs(plan.choose(5, 40));
    let mut rows = ["descriptors", "threads", "zombies", "private memory"].map(|what| {
        let unit = if what == "private memory" { Unit::Bytes } else { Unit::Count };
        Row::new(format!("chain {what}"), format!("{wanted} restarts in a row: {what} more at the end"), unit)
    });
    for peer in plan.peers(&ALL) {
        let settings = Settings { listeners: usize::from(peer != Peer::Shellflip), ..Settings::default() };
        let mut service = Service::start(peer, settings)?;
        let begun = Instant::now();
        let (mut done, mut first, mut stopped) = (0, Seen::default(), String::new());
        while done < wanted && begun.elapsed() < patience {
            let old = service.pid;
            if let Err(error) = service.restart().and_then(|_| service.wait_for_end(old)) {
                stopped = format!("; then {error}");
                break;
            }
            service.forget();
            done += 1;
            if done == 1 {
                first = settled(service.pid);
            }
        }
        let last = settled(service.pid);
        let changes = [
            last.descriptors - first.descriptors,
            last.threads - first.threads,
            last.zombies - first.zombies,
            last.private - first.private,
        ];
        for (row, change) in rows.iter_mut().zip(changes) {
            row.values.insert(peer, change);
        }
        report.note(format!(
            "{}: {done} restarts in a row in {:.1} s{stopped}; {} descriptors, {} threads after the first",
            peer.name(),
            begun.elapsed().as_secs_f64(),
            first.descriptors,
            first.threads
        ));
    }
    report.add_all(rows);
    failures(plan, report)?;
    Ok(())
}

/// Not while something is being started in it.
fn settled(pid: u32) -> Seen {
    thread::sleep(Duration::from_millis(50));
    see(pid)
}

/// Successors that end before they are ready.
fn failures(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let count = plan.choose(5, 20);
    let mut zombies = Row::new("failed zombies", format!("{count} restarts that fail: zombies left"), Unit::Count);
    let mut descriptors = Row::new("failed descriptors", "the same: descriptors more", Unit::Count);
    for peer in plan.peers(&[Peer::Ours, Peer::Shellflip]) {
        let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        let service = Service::start(peer, Settings { fails: Some(file.path().into()), ..Settings::default() })?;
        let before = settled(service.pid);
        for _ in 0..count {
            match client::restart(&service.socket, LIMIT) {
                Ok(Err(_)) => {}
                other => return Err(format!("{}: a restart that must fail ended with {other:?}", peer.name())),
            }
        }
        let after = settled(service.pid);
        zombies = zombies.with(peer, after.zombies - before.zombies);
        descriptors = descriptors.with(peer, after.descriptors - before.descriptors);
        drop(service);
        drop(fs::remove_file(file.path()));
    }
    report.add_all([zombies, descriptors]);
    Ok(())
}
