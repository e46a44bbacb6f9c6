//! The guard on a terminal.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::write;

use crate::harness::{Service, Setup};
use crate::hub::wait_until;
use crate::kit::{End, end_of, guarded, how, log, signal, terminal};
use crate::procfs;
use crate::service::ROLE;
use crate::speaker::NOTES;

trials![
    under_a_guard_that_leads_a_terminal_restarts_are_not_refused,
    an_interrupt_of_the_terminal_reaches_the_service_once,
    what_is_sent_to_the_guard_reaches_the_service,
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

/// What the service gets when these keys are pressed on a terminal, or a window changes, in the
/// order in which it gets it.
fn notes(setup: Setup, happens: impl FnOnce(&Service, Option<&OwnedFd>, &dyn Fn() -> String)) -> Vec<String> {
    let path = setup.path("notes");
    let notes = || std::fs::read_to_string(&path).unwrap_or_default();
    let setup = guarded(setup.env(ROLE, "counter").env(NOTES, &path), "");
    let (service, master) = match terminal() {
        Some((master, slave)) => (setup.terminal(slave).launch(), Some(master)),
        None => (setup.launch(), None),
    };
    wait_until("the service", || notes().starts_with("ready"));
    happens(&service, master.as_ref(), &notes);
    // By then all that came before has been passed on, or has not.
    signal(service.launched(), Signal::SIGUSR2);
    assert_eq!(how(end_of(&service)), End::Code(0), "{}", log(&service));
    notes().lines().skip(1).map(String::from).collect()
}

fn an_interrupt_of_the_terminal_reaches_the_service_once() {
    let mut notes = notes(Setup::new(), |service, master, notes| {
        let Some(master) = master else { return };
        // One that is pending already would hide another.
        signal(service.launched(), Signal::SIGSTOP);
        press(master, 3);
        wait_until("the service to have it", || notes().contains("SIGINT kernel"));
        signal(service.launched(), Signal::SIGCONT);
        wait_until("the guard to have it", || !procfs::has_signal(service.launched(), "ShdPnd", Signal::SIGINT as i32));
        // For the guard alone.
        signal(service.launched(), Signal::SIGTERM);
        wait_until("the service to have that", || notes().contains("SIGTERM process"));
    });
    notes.retain(|note| note != "SIGCONT process");
    assert!(notes.len() == 1 || notes == ["SIGINT kernel", "SIGTERM process", "SIGUSR2 process"], "{notes:?}");
}

fn what_is_sent_to_the_guard_reaches_the_service() {
    let all = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGALRM, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGABRT];
    let notes = notes(Setup::new(), |service, _, notes| {
        for name in all {
            signal(service.launched(), name);
            // Of several that are pending the one with the lowest number is read first.
            wait_until("the service to have it", || notes().contains(&format!("{name} process")));
        }
    });
    let expected: Vec<_> = all.into_iter().chain([Signal::SIGUSR2]).map(|name| format!("{name} process")).collect();
    assert_eq!(notes, expected);
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
