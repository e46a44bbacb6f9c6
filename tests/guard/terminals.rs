//! The guard on a terminal.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use nix::unistd::{tcgetpgrp, write};

use crate::kit::{End, POLLFLIP, contained, end_of, guarded, how, init_of, log, signal, terminal, there_are_containers};
use crate::speaker::NOTES;
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::ROLE;
use pollflip_kit::service::{Act, Step, at};

pollflip_kit::trials![
    under_a_guard_that_leads_a_terminal_restarts_are_not_refused,
    an_interrupt_of_the_terminal_reaches_the_service_once,
    an_interrupt_of_the_terminal_of_a_container_reaches_the_service_once,
    what_is_sent_to_the_guard_reaches_the_service,
    an_interrupt_amid_a_restart_reaches_each_once,
    who_begins_after_an_interrupt_is_told,
    who_begins_before_the_guard_has_seen_an_interrupt_is_told,
    in_the_background_the_service_has_its_own_group,
    a_quit_of_the_terminal_ends_both,
    a_stop_and_going_on_reach_both,
    the_prompt_stays_away_while_hello_restarts_itself,
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
    service.hub.nth(3).tell(Act::Exit(4));
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

/// As PID 1, as `docker run -it` starts it.
fn an_interrupt_of_the_terminal_of_a_container_reaches_the_service_once() {
    if !there_are_containers() {
        return;
    }
    let Some((master, slave)) = terminal() else { return };
    let service = contained(Setup::new(), "").terminal(slave).start();
    let (first, guard) = (service.first(), init_of(&service));
    assert_eq!(first.ask(Act::Count(Signal::SIGINT)), "counting");
    // One that is pending already would hide another.
    signal(guard, Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(guard) == Some('T'));
    press(&master, 3);
    wait_until("the service to have it", || first.ask(Act::Counted) == "1");
    signal(guard, Signal::SIGCONT);
    wait_until("the guard to have it", || !procfs::has_signal(guard, "ShdPnd", Signal::SIGINT as i32));
    // The guard has taken all of it in when the service has this one.
    service.plan_next(at(Step::Born, Act::Exit(4)));
    signal(guard, Signal::SIGUSR1);
    first.says("event Failed");
    assert_eq!(first.ask(Act::Counted), "1");
    service.first().tell(Act::Exit(6));
    assert_eq!(how(end_of(&service)), End::Code(6), "{}", log(&service));
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

/// The terminal tells the old one, the new one and the guard, and what the guard knows of that, the
/// new one knows already.
fn an_interrupt_amid_a_restart_reaches_each_once() {
    let Some((service, master)) = on_terminal(Setup::new(), "") else { return };
    let first = service.first();
    assert_eq!(first.ask(Act::Count(Signal::SIGINT)), "counting");
    service.plan_next(at(Step::Born, Act::Count(Signal::SIGINT)).at(Step::Claimed, Act::Wait));
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    press(&master, 3);
    wait_until("the old one to have it", || first.ask(Act::Counted) == "1");
    wait_until("the guard to have it", || !procfs::has_signal(service.launched(), "ShdPnd", Signal::SIGINT as i32));
    new.go();
    asked.join().expect("no panic").expect("a restart");
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.own)));
    // The guard has taken the second signal in when the service has it.
    service.plan_next(at(Step::Born, Act::Exit(4)));
    signal(service.launched(), Signal::SIGUSR1);
    new.says("event Failed");
    assert_eq!(new.ask(Act::Counted), "1");
    signal(service.launched(), Signal::SIGKILL);
}

/// Nobody has told that one.
fn who_begins_after_an_interrupt_is_told() {
    let Some((service, master)) = on_terminal(Setup::new(), "--restart always") else { return };
    let first = service.first();
    assert_eq!(first.ask(Act::Count(Signal::SIGINT)), "counting");
    press(&master, 3);
    wait_until("the old one to have it", || first.ask(Act::Counted) == "1");
    // It runs from the moment at which it takes the signal until it has dealt with it.
    wait_until("the guard to have it", || !procfs::has_signal(service.launched(), "ShdPnd", Signal::SIGINT as i32));
    wait_until("the guard to have dealt with it", || procfs::state(service.launched()) == Some('S'));
    service.restart();
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGINT), "{}", log(&service));
}

/// The guard has yet to see the signal when the successor is born, which has not got it.
fn who_begins_before_the_guard_has_seen_an_interrupt_is_told() {
    let Some((service, master)) = on_terminal(Setup::new(), "") else { return };
    let (first, guard) = (service.first(), service.launched());
    assert_eq!(first.ask(Act::Count(Signal::SIGINT)), "counting");
    signal(guard, Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(guard) == Some('T'));
    press(&master, 3);
    wait_until("the old one to have it", || first.ask(Act::Counted) == "1");
    service.plan_next(at(Step::Claimed, Act::Wait));
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    signal(guard, Signal::SIGCONT);
    wait_until("the guard to have it", || !procfs::has_signal(guard, "ShdPnd", Signal::SIGINT as i32));
    wait_until("the guard to have dealt with it", || procfs::state(guard) == Some('S'));
    new.go();
    let _ = asked.join().expect("no panic");
    new.ends();
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGINT), "{}", log(&service));
}

/// As a shell with job control starts it, or one who starts several: a signal to its group is for
/// the guard. The shell waits on when it is stopped, which is status 147.
fn in_the_background_the_service_has_its_own_group() {
    let Some((master, slave)) = terminal() else { return };
    let setup = Setup::new();
    let log_path = setup.path("guard.log");
    let shell =
        "set -m; \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\" & code=147; while [ $code = 147 ]; do wait $!; code=$?; done; exit $code";
    let setup = setup.env("POLLFLIP", POLLFLIP).env("LOG", log_path).env("POLLFLIP_LOG", "info").shell(shell);
    let service = setup.terminal(slave).start();
    let first = service.first();
    assert_eq!(first.ask(Act::Count(Signal::SIGTERM)), "counting");
    let guard: u32 = procfs::stat(first.pid).expect("a process")[1].parse().expect("a parent");
    assert_ne!(procfs::stat(guard).expect("a process")[4], "0", "it has a terminal");
    // A guard that stands still sends nothing on.
    signal(guard, Signal::SIGSTOP);
    wait_until("the guard to stop", || procfs::state(guard) == Some('T'));
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(guard as i32), Signal::SIGTERM).expect("a group");
    assert_eq!(first.ask(Act::Counted), "0");
    signal(guard, Signal::SIGCONT);
    wait_until("the service to have it", || first.ask(Act::Counted) == "1");
    first.tell(Act::Exit(3));
    assert_eq!(how(end_of(&service)), End::Code(3), "{}", log(&service));
    drop(master);
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

/// A person in a shell, with the smallest example. Without a guard the prompt is back after a restart.
fn the_prompt_stays_away_while_hello_restarts_itself() {
    const PROMPT: &str = "what next? ";
    if !crate::kit::has_program("bash") {
        return;
    }
    let Some((master, slave)) = terminal() else { return };
    let hello = own_program().ancestors().nth(2).expect("target/PROFILE/deps/guard").join("examples/hello");
    assert!(hello.exists(), "there is no {}: `cargo test` builds the examples, `cargo test --test` does not", hello.display());
    let setup =
        Setup::new().env("PS1", PROMPT).env("POLLFLIP", POLLFLIP).env("HELLO", &hello).stdout(slave.try_clone().expect("a terminal"));
    let service = setup.shell("exec bash --norc --noprofile -i 2>&1").terminal(slave).launch();
    let screen = Screen::of(&master);
    let types = |line: &str| assert_eq!(write(&master, format!("{line}\n").as_bytes()), Ok(line.len() + 1));
    // What is typed is on the screen too, and has no number in it.
    let number_after = |words: &str, count: usize| -> u32 {
        wait_for(words, || {
            let text = screen.text();
            let rest = text.split(words).skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).nth(count)?;
            // The whole of it.
            rest.split_once(|c: char| !c.is_ascii_digit())?.0.parse().ok()
        })
    };
    let is_asked = |times| wait_until("the prompt", || screen.text().matches(PROMPT).count() == times);
    let foreground = || tcgetpgrp(&master).expect("a terminal").as_raw() as u32;
    is_asked(1);

    types("\"$HELLO\" 127.0.0.1:0");
    let alone = number_after(", pid ", 0);
    signal(alone, Signal::SIGUSR1);
    let left = number_after(", pid ", 1);
    is_asked(2);
    assert_eq!(foreground(), service.launched());
    signal(left, Signal::SIGTERM);
    wait_until("it to end", || procfs::has_ended(left));

    types("\"$POLLFLIP\" guard -- \"$HELLO\" 127.0.0.1:0");
    let mut serves = number_after(", pid ", 2);
    let guard = procfs::stat(serves).expect("a process")[1].parse::<u32>().expect("a parent");
    for number in 3..=5 {
        signal(guard, Signal::SIGUSR1);
        let new = number_after(", pid ", number);
        wait_until("the old one to be reaped", || procfs::children(guard) == [new]);
        assert!(!procfs::has_ended(guard));
        assert_eq!(foreground(), guard, "the shell has the terminal again");
        serves = new;
    }
    press(&master, 3);
    is_asked(3);
    assert!(procfs::has_ended(serves) && procfs::has_ended(guard));
    assert_eq!(foreground(), service.launched());
}

/// What a terminal shows.
struct Screen(Arc<Mutex<String>>);

impl Screen {
    fn of(master: &OwnedFd) -> Screen {
        let text = Arc::new(Mutex::new(String::new()));
        let (mut shown, end) = (std::fs::File::from(master.try_clone().expect("a terminal")), Arc::clone(&text));
        // It ends with the last who has the terminal.
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = shown.read(&mut part) {
                end.lock().expect("no panic").push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        Screen(text)
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic").clone()
    }
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
    assert_eq!(service.first().ask(Act::Handle(Signal::SIGHUP)), "handled");
    drop(master);
    wait_until("the hang-up", || procfs::stat(service.launched()).expect("a process")[4] == "0");
    let new = service.restart();
    new.says("event PredecessorGone");
    new.tell(Act::Exit(1));
    let again = service.hub.nth(2);
    again.says("serving");
    again.tell(Act::Exit(0));
    assert_eq!(how(end_of(&service)), End::Code(0), "{}", log(&service));
}
