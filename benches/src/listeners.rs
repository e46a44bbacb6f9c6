//! Listeners that go over to the successor, beside descriptors that are merely passed.

use nix::sys::resource::{Resource, getrlimit};

use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::{Role, Settings};
use crate::service::Service;
use crate::stats::median;

const ALL: [Peer; 3] = [Peer::Limit, Peer::Ours, Peer::Ecdysis];

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let peers = plan.peers(&ALL);
    let (mut one, mut most) = (Vec::new(), Vec::new());
    let wanted: &[usize] = plan.choose(&[1, 1000], &[1, 100, 1000, 10_000]);
    // A service holds each twice, one to listen on and one to pass on, and once more what waits for the kernel to take it.
    let room = descriptors() / 3 - 100;
    let counts: Vec<usize> = wanted.iter().map(|count| *count.min(&room)).collect();
    if counts != wanted {
        report.note(format!("listeners: no more than {room}, as this machine permits a process {} descriptors", descriptors()));
    }
    for count in &counts {
        let mut services = Vec::new();
        for peer in &peers {
            match start(*peer, *count) {
                Ok(service) => services.push((*peer, service, Vec::new())),
                Err(error) => report.note(format!("{count} listeners are left out: {error}")),
            }
        }
        for () in plan.rounds(5, 21, 20) {
            for (peer, service, samples) in &mut services {
                samples.push(sample(*peer, service)?);
            }
        }
        let mut row = Row::new(format!("listeners {count}"), format!("restart with {count} listeners"), Unit::Seconds);
        most.clear();
        for (peer, _, samples) in &services {
            row = row.with(*peer, median(samples));
            most.push((*peer, median(samples)));
        }
        if *count == 1 {
            one.clone_from(&most);
        }
        report.add(row);
    }
    let count = counts.last().copied().unwrap_or(2);
    let mut each = Row::new("listener each", format!("each listener more, of {count}"), Unit::Seconds);
    for (peer, most) in most {
        if let Some((_, one)) = one.iter().find(|(found, _)| *found == peer) {
            each = each.with(peer, (most - one) / (count - 1) as f64);
        }
    }
    report.add(each);
    report.note(
        "listeners: the successor asks for each by name and address before it is ready. The limit is a spawn, the bare descriptors sent to \
         the child in packets of 253, and its byte when it has them. ecdysis: signal → the new process is ready. shellflip passes none",
    );
    Ok(())
}

/// How many a process can have.
fn descriptors() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // Who may raise it finds out in the role.
    soft.max(hard).min(1 << 20) as usize
}

fn start(peer: Peer, listeners: usize) -> Result<Service, String> {
    let settings = Settings { listeners, ..Settings::default() };
    match peer {
        Peer::Limit => {
            let mut service = Service::launch(peer, Settings { role: Role::Passer, ..settings })?;
            service.wait_for("ready")?;
            Ok(service)
        }
        // Each has the addresses for itself: they are of one network namespace, and these share their ports.
        _ => Service::start(peer, settings),
    }
}

fn sample(peer: Peer, service: &mut Service) -> Result<f64, String> {
    service.forget();
    let old = service.pid;
    let lasted = match peer {
        Peer::Ecdysis => service.restart_until_ready()?,
        _ => service.measure()?,
    };
    if peer != Peer::Limit {
        service.wait_for_end(old)?;
    }
    Ok(lasted)
}
