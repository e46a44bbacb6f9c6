//! UDP groups beside plain sockets: a datagram, a grant, and the kernel's memory; and the relay for protocols without a mark.

use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::{Figures, Role, Route, Settings, Udp};
use crate::service::Service;
use crate::stats::{median, quantile};

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    datagrams(plan, report)?;
    grants(plan, report)?;
    memory(plan, report)?;
    report.note(
        "udp: groups are of eight. Datagrams: 100 bytes, 64 at a time by sendmmsg and recvmmsg, both ends in one thread; the quickest tenth of \
         rounds that take turns, as a busy machine only adds. The relay packs 64 datagrams into one packet over a pair of unix sockets. Grant: \
         from ready until the predecessor has given the service. Kernel memory: Slab, VmallocUsed and Percpu of /proc/meminfo, for many at a time",
    );
    Ok(())
}

fn datagrams(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let settings = Settings { role: Role::Datagrams, state: plan.choose(200, 500), ..Settings::default() };
    let said = Service::launch(Peer::Ours, settings)?.wait_for("datagrams")?.rest;
    let figures: Figures = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let of = |route: Route| figures.rounds.get(&route).map_or(f64::NAN, |rounds| quantile(rounds, 0.1));
    let row = |key: &str, what: &str, route: Route| {
        Row::new(key, what, Unit::Seconds).with(Peer::Limit, of(Route::Plain)).with(Peer::Ours, of(route))
    };
    report.add_all([
        row("udp marked", "a datagram with a mark (limit: to a plain socket)", Route::Marked),
        row("udp unmarked", "a datagram without one, to a group (limit: to a plain socket)", Route::Unmarked),
        row("udp relayed", "a datagram over a packed relay (limit: read directly)", Route::Relayed),
        Row::new("udp refused", "a packet that a full relay refuses", Unit::Seconds).with(Peer::Ours, median(&figures.refusals)),
    ]);
    Ok(())
}

fn grants(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let start = |udp| Service::start(Peer::Ours, Settings { udp, ..Settings::default() });
    let mut services = [start(Udp::Plain)?, start(Udp::Group)?];
    let mut restarts: [Vec<f64>; 2] = Default::default();
    let mut grants: [Vec<f64>; 2] = Default::default();
    for () in plan.rounds(30, 300, 20) {
        for (index, service) in services.iter_mut().enumerate() {
            let old = service.pid;
            restarts[index].push(service.restart()?);
            grants[index].push(service.wait_for("granted")?.rest.parse().map_err(|error| format!("{error}"))?);
            service.wait_for_end(old)?;
            service.forget();
        }
    }
    let row = |key: &str, what: &str, [plain, group]: &[Vec<f64>; 2]| {
        Row::new(key, what, Unit::Seconds).with(Peer::Limit, median(plain)).with(Peer::Ours, median(group))
    };
    report.add(row("udp grant", "a grant with a UDP group (limit: with a plain UDP socket)", &grants));
    report.add(row("udp restart", "a restart with a UDP group (limit: with a plain UDP socket)", &restarts));
    Ok(())
}

fn memory(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let mut samples: [Vec<f64>; 2] = Default::default();
    for () in plan.rounds(3, 9, 20) {
        for (udp, samples) in [Udp::Plain, Udp::Group].into_iter().zip(&mut samples) {
            let settings = Settings { role: Role::KernelMemory, udp, listeners: plan.choose(200, 1000), ..Settings::default() };
            let said = Service::launch(Peer::Ours, settings)?.wait_for("memory")?.rest;
            samples.push(said.parse().map_err(|error| format!("{error}"))?);
        }
    }
    let [plain, group] = samples.map(|samples| median(&samples));
    let row = Row::new("udp memory", "kernel memory of a UDP group (limit: of eight plain UDP sockets)", Unit::Bytes);
    report.add(row.with(Peer::Limit, plain).with(Peer::Ours, group));
    Ok(())
}
