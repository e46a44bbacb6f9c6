//! What it costs while nothing happens: a tick of the loop, and what the process has more than one that only sleeps.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::plan::{Peer, Plan};
use crate::proc::see;
use crate::report::{Report, Row, Unit};
use crate::roles::{Role, Settings, VARIABLE};
use crate::service::{Service, is_installed};
use crate::stats::median;

const POLLERS: [(Peer, Role); 2] = [(Peer::Ours, Role::OursIdle), (Peer::Shellflip, Role::ShellflipIdle)];

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let mut time = Row::new("idle poll", "one idle tick", Unit::Seconds);
    let mut calls = Row::new("idle calls", "system calls of one idle tick", Unit::Count);
    let pollers: Vec<_> = POLLERS.into_iter().filter(|(peer, _)| peer.is_built()).collect();
    let mut samples: BTreeMap<Peer, Vec<f64>> = BTreeMap::new();
    for () in plan.rounds(3, 15, 15) {
        for (peer, role) in &pollers {
            const POLLS: usize = 200_000;
            let settings = Settings { role: *role, state: POLLS, ..Settings::default() };
            let total: f64 = Service::launch(*peer, settings)?.wait_for("idle")?.rest.parse().map_err(|error| format!("{error}"))?;
            samples.entry(*peer).or_default().push(total / POLLS as f64);
        }
    }
    for (peer, role) in &pollers {
        time = time.with(*peer, median(&samples[peer]));
        match is_installed("strace") {
            true => calls = calls.with(*peer, (counted(*role, 2000)? - counted(*role, 1000)?) / 1000.0),
            false => report.note("system calls of an idle tick are not counted: strace is not installed"),
        }
    }
    report.add_all([time, calls]);
    added(plan, report)?;
    report.note(
        "idle: a tick is one poll of the Restarter, or one poll of shellflip's task and one turn of the tokio runtime it needs (one thread, no \
         task of its own)",
    );
    Ok(())
}

/// All system calls of a process that polls so often.
fn counted(role: Role, polls: usize) -> Result<f64, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot count system calls: {error}");
    let directory = tempfile::tempdir().map_err(|error| failed(&error))?;
    let settings = Settings { role, state: polls, socket: directory.path().join("s"), ..Settings::default() };
    let table = directory.path().join("counts");
    let status = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&table)
        .arg(std::env::current_exe().map_err(|error| failed(&error))?)
        .env(VARIABLE, serde_json::to_string(&settings).map_err(|error| failed(&error))?)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| failed(&error))?;
    let text = std::fs::read_to_string(&table).map_err(|error| failed(&error))?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total")).and_then(|line| line.split_whitespace().next());
    total.and_then(|count| count.parse().ok()).ok_or_else(|| failed(&format!("strace ended with {status}")))
}

/// Beside a process of the same program that sleeps.
fn added(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let mut memory = Row::new("idle memory", "private memory that it adds to an idle process", Unit::Bytes);
    let mut threads = Row::new("idle threads", "threads that it adds", Unit::Count);
    let mut descriptors = Row::new("idle descriptors", "descriptors that it adds", Unit::Count);
    let seen = |peer: Peer, role: Role| -> Result<_, String> {
        let mut service = Service::launch(peer, Settings { role, ..Settings::default() })?;
        service.pid = service.wait_for("ready")?.pid;
        thread::sleep(Duration::from_millis(200));
        Ok(see(service.pid))
    };
    let bare = seen(Peer::Limit, Role::Sleeper)?;
    for peer in plan.peers(&[Peer::Ours, Peer::Shellflip, Peer::Ecdysis]) {
        let with = seen(peer, Role::of(peer))?;
        // A service here holds a MiB that it writes to.
        memory = memory.with(peer, with.private - bare.private - (256 * crate::memory::PAGE) as f64);
        threads = threads.with(peer, with.threads - bare.threads);
        descriptors = descriptors.with(peer, with.descriptors - bare.descriptors);
    }
    report.add_all([memory, threads, descriptors]);
    Ok(())
}
