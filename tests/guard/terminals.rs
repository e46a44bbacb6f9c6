//! The guard on a terminal.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::write;

use crate::harness::{Service, Setup};
use crate::hub::wait_until;
use crate::kit::{End, end_of, guarded, how, log, signal, terminal};
use crate::procfs;

trials![
    under_a_guard_that_leads_a_terminal_restarts_are_not_refused,
    an_interrupt_of_the_terminal_reaches_the_service_once,
    a_quit_of_the_terminal_ends_both,
    a_stop_and_going_on_reach_both,
    a_hang_up_ends_both,
    a_terminal_that_is_gone_does_not_end_a_service_that_stays,
];

/// Started in a terminal, as the leader of its session.
fn on_terminal(setup: Setup, options: &str) -> Option<(Service, OwnedFd)> {
    let (master, slave) = terminal()?;
    Some((guarded(setup, options).terminal(slave).start(), master))
}

fn press(master: &OwnedFd, key: u8) {
    assert_eq!(write(master, &[key]), Ok(1));
}

fn under_a_guard_that_leads_a_terminal_restarts_are_not_refused() {
    let Some((service, _master)) = on_terminal(Setup::new(), "") else { return };
    for _ in 0..3 {
        service.restart().says("event PredecessorGone");
    }
    assert_ne!(procfs::stat(service.launched()).expect("a process")[4], "0", "it leads a terminal");
    service.hub.nth(3).tell("exit 4");
    assert_eq!(how(end_of(&service)), End::Code(4));
}

/// The service handles it, and is counted on to see it as one.
fn an_interrupt_of_the_terminal_reaches_the_service_once() {
    let Some((service, master)) = on_terminal(Setup::new().set("signal", (Signal::SIGINT as i32).to_string()), "--restart always") else {
        return;
    };
    service.restart().says("event PredecessorGone");
    press(&master, 3);
    // Here a signal is a request for a restart, and the guard remembers that the service was told to end: so is the new one.
    let told = service.hub.nth(2);
    told.says("built");
    wait_until("all to be told", || log(&service).contains(&format!("the service is process {}", told.pid)));
    assert_eq!(service.first().said("event Restarting").len(), 1);
    service.hub.nth(1).says("event Restarting");
    assert_eq!(service.hub.nth(1).said("event Restarting").len(), 1);
    signal(service.launched(), Signal::SIGTERM);
    end_of(&service);
}

fn a_quit_of_the_terminal_ends_both() {
    let Some((service, master)) = on_terminal(Setup::new(), "--restart always") else { return };
    let new = service.restart();
    new.says("event PredecessorGone");
    press(&master, 0x1c);
    new.ends();
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGQUIT), "{}", log(&service));
}

fn a_stop_and_going_on_reach_both() {
    // A shell with job control is what a person has: the guard is a job in the foreground.
    let Some((service, master)) = on_shell() else { return };
    let first = service.first();
    let guard = procfs::stat(first.pid).expect("a process")[1].parse::<u32>().expect("a parent");
    press(&master, 0x1a);
    for pid in [first.pid, guard] {
        wait_until("it to stop", || procfs::state(pid) == Some('T'));
    }
    nix::unistd::write(&master, b"fg\n").expect("a terminal");
    for pid in [first.pid, guard] {
        wait_until("it to go on", || procfs::state(pid) == Some('S'));
    }
    let new = service.restart();
    first.ends();
    assert!(!procfs::has_ended(guard), "the prompt has not come back");
    press(&master, 3);
    new.ends();
    wait_until("the guard to end", || procfs::has_ended(guard));
}

/// In an interactive shell.
fn on_shell() -> Option<(Service, OwnedFd)> {
    if !crate::kit::has_program("bash") {
        return None;
    }
    let (master, slave) = terminal()?;
    let setup = Setup::new();
    let log = setup.path("guard.log");
    let shell = "export SERVICE=\"$0\"; exec bash --norc --noprofile -i >>\"$LOG\" 2>&1";
    let setup = setup.env("POLLFLIP", crate::kit::POLLFLIP).env("LOG", log).shell(shell).terminal(slave);
    let service = setup.launch();
    nix::unistd::write(&master, b"\"$POLLFLIP\" guard -- \"$SERVICE\"\n").expect("a terminal");
    service.first().says("serving");
    Some((service, master))
}

fn a_hang_up_ends_both() {
    let Some((service, master)) = on_terminal(Setup::new(), "--restart on-failure") else { return };
    let new = service.restart();
    new.says("event PredecessorGone");
    drop(master);
    new.ends();
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGHUP), "{}", log(&service));
}

fn a_terminal_that_is_gone_does_not_end_a_service_that_stays() {
    let Some((service, master)) = on_terminal(Setup::new(), "--restart on-failure --delay 10") else { return };
    assert_eq!(service.first().ask("handle SIGHUP"), "handled");
    drop(master);
    wait_until("the hang-up", || procfs::stat(service.launched()).expect("a process")[4] == "0");
    let new = service.restart();
    new.says("event PredecessorGone");
    new.tell("exit 1");
    let again = service.hub.nth(2);
    again.says("serving");
    again.tell("exit 0");
    assert_eq!(how(end_of(&service)), End::Code(0), "{}", log(&service));
}
