//! On a terminal: its session's leader must not hand over, since the terminal is hung up with its end, which kills the successor.

use std::os::fd::OwnedFd;

use nix::libc;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use pollflip::RequestError;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Step, at};

pollflip_kit::trials![
    the_leader_of_a_terminal_refuses_to_restart_and_serves_on,
    a_leader_that_ignores_the_hang_up_restarts,
    a_leader_that_handles_the_hang_up_restarts_from_then_on,
    a_leader_that_was_built_deaf_to_the_hang_up_restarts,
    a_service_in_a_session_that_another_process_leads_restarts,
    a_leader_of_a_session_without_a_terminal_restarts,
];

/// Started in a terminal, whose other end is held so that nothing but the end of its leader hangs it up.
fn on_terminal(setup: Setup) -> Option<(Service, OwnedFd)> {
    let OpenptyResult { master, slave } = match openpty(None, None) {
        Ok(pair) => pair,
        Err(error) => {
            eprintln!("skipped: no terminal can be had here: {error}");
            return None;
        }
    };
    let service = setup.terminal(slave).start();
    assert_ne!(terminal_of(service.launched()), "0");
    Some((service, master))
}

/// The number of the terminal of a process's session; 0 is none.
fn terminal_of(pid: u32) -> String {
    procfs::stat(pid).expect("a process").get(4).expect("a terminal").clone()
}

fn is_refused(service: &Service) {
    match service.try_restart() {
        Err(RequestError::Refused(why)) => assert_eq!(why, pollflip::Refusal::SessionLeader.to_string()),
        other => panic!("{other:?}"),
    }
}

/// A restart after which the terminal is hung up: the new process hears of it and lives on, and restarts in its turn.
fn survives_the_end_of_the_leader(service: &Service) {
    let first = service.first();
    let new = service.restart();
    first.ends();
    new.says("event PredecessorGone");
    // The signal comes before the terminal is taken away.
    wait_until("the hang-up", || terminal_of(new.pid) == "0");
    assert_eq!(service.connect().pid, new.pid);
    assert!(service.restart().says("built").starts_with("generation 2 "));
}

fn has_hang_up(process: &Process, mask: &str) -> bool {
    procfs::has_signal(process.pid, mask, libc::SIGHUP)
}

fn the_leader_of_a_terminal_refuses_to_restart_and_serves_on() {
    let Some((service, _master)) = on_terminal(Setup::new()) else { return };
    let first = service.first();
    assert_eq!(first.pid, service.launched());
    for _ in 0..2 {
        is_refused(&service);
    }
    assert!(first.ask(Act::Request).starts_with("SessionLeader :: the service leads the session of a terminal"));
    first.signal(Signal::SIGUSR1);
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    service.connect().echo("served on");
    assert_eq!(service.hub.pids().len(), 1);
}

fn a_leader_that_ignores_the_hang_up_restarts() {
    let Some((service, _master)) = on_terminal(Setup::new().shell("trap '' HUP; exec \"$0\"")) else { return };
    assert!(has_hang_up(&service.first(), "SigIgn"));
    survives_the_end_of_the_leader(&service);
}

fn a_leader_that_handles_the_hang_up_restarts_from_then_on() {
    let Some((service, _master)) = on_terminal(Setup::new()) else { return };
    is_refused(&service);
    assert_eq!(service.first().ask(Act::Handle(Signal::SIGHUP)), "handled");
    service.plan_next(at(Step::Born, Act::Handle(Signal::SIGHUP)));
    survives_the_end_of_the_leader(&service);
}

fn a_leader_that_was_built_deaf_to_the_hang_up_restarts() {
    let Some((service, _master)) = on_terminal(Setup::new().plan(at(Step::Born, Act::Block(Signal::SIGHUP)))) else { return };
    survives_the_end_of_the_leader(&service);
    let new = service.hub.nth(2);
    assert!(has_hang_up(&new, "SigBlk"));
}

fn a_service_in_a_session_that_another_process_leads_restarts() {
    let Some((service, _master)) = on_terminal(Setup::new().shell("\"$0\" & exec sleep 100000")) else { return };
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(terminal_of(new.pid), terminal_of(service.launched()));
        assert_eq!(service.connect().pid, new.pid);
    }
}

/// What a supervisor starts, and `setsid`.
fn a_leader_of_a_session_without_a_terminal_restarts() {
    let service = Setup::new().shell("exec setsid \"$0\"").start();
    let first = service.first();
    assert_eq!(procfs::stat(first.pid).expect("a process").get(3), Some(&first.pid.to_string()));
    assert_eq!(terminal_of(first.pid), "0");
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
    first.ends();
    new.says("event PredecessorGone");
    // It is in no group that the end of the test would reach.
    new.signal(Signal::SIGKILL);
}
