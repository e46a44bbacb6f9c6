//! A start that takes its time: something that watches the file system, a virus scanner or a network that hangs, does not let the program be
//! opened. Only the restart thread waits for it, and what it is to start is given up meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::AT_FDCWD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;

use crate::deploys::copy;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Step, ms};

pollflip_kit::trials![
    promise_05_a_start_that_is_held_up_holds_nothing_else_up,
    promise_03_what_is_given_up_while_another_start_is_held_up_is_never_started,
    promise_03_a_held_up_start_that_is_called_off_is_killed_when_it_comes,
    promise_03_a_held_up_start_that_is_called_off_in_the_hands_of_a_debugger_is_reaped,
    promise_07_a_start_that_is_held_up_until_its_process_has_died_takes_over,
    promise_07_a_start_that_is_held_up_until_its_process_has_stopped_takes_nothing_over,
    promise_07_a_start_that_is_held_up_until_its_restarter_is_gone_takes_nothing_over,
    a_start_that_is_killed_while_it_is_held_up_is_told_with_the_signal,
    a_client_sees_the_end_of_its_connection_while_a_start_is_held_up,
    a_start_that_is_held_up_has_nothing_open_but_what_it_is_given,
    a_start_that_is_held_up_leaves_the_address_of_a_stopped_service_free,
];

/// A program that nobody executes without leave.
struct Gate {
    watch: Fanotify,
    held: Vec<FanotifyEvent>,
}

impl Gate {
    /// `None`: this machine or user does not have the means, which is said.
    fn close(program: &Path, test: &str) -> Option<Gate> {
        let close = || {
            let watch =
                Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
            watch.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM, AT_FDCWD, Some(program))?;
            nix::Result::Ok(watch)
        };
        match close() {
            Ok(watch) => Some(Gate { watch, held: Vec::new() }),
            Err(error) => {
                eprintln!("skipped {test}: nobody can be kept from executing a program here: {error}");
                None
            }
        }
    }

    fn somebody_waits(&self, limit: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, limit).expect("poll") == 1
    }

    /// Waits until somebody stands before it.
    fn holds(&mut self) {
        assert!(self.somebody_waits(PollTimeout::try_from(DEADLINE).expect("a time")), "nobody executes the program");
        self.held.extend(self.watch.read_events().expect("an event"));
        assert_eq!(self.held.len(), 1, "one at a time");
    }

    /// Whether somebody still stands before it.
    fn is_shut(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets the one before it through.
    fn let_through(&mut self) {
        for event in self.held.drain(..) {
            self.watch.write_response(FanotifyResponse::new(event.fd().expect("a file"), Response::FAN_ALLOW)).expect("an answer");
        }
    }
}

/// A service that serves, and a gate before its next successor.
fn gated(test: &str, setup: Setup) -> Option<(Service, Gate)> {
    let program = setup.path("server");
    copy(&program);
    let service = setup.program(program.clone()).start();
    Gate::close(&program, test).map(|gate| (service, gate))
}

fn has_no_child(pid: u32) -> bool {
    procfs::children(pid).is_empty()
}

fn promise_05_a_start_that_is_held_up_holds_nothing_else_up() {
    let Some((service, mut gate)) = gated("a_start_that_is_held_up", Setup::new()) else { return };
    let asker = service.restart_meanwhile();
    gate.holds();
    assert_eq!(service.connect().pid, service.first().pid);
    assert!(service.status().to_json().contains(r#""state":"spawning""#), "{}", service.status().to_json());
    match service.try_restart() {
        Err(RequestError::Refused(why)) => assert!(why.contains("under way"), "{why}"),
        other => panic!("{other:?}"),
    }
    gate.let_through();
    let pid = asker.join().expect("a thread").expect("a restart");
    assert_eq!(service.connect().pid, pid);
}

fn promise_03_what_is_given_up_while_another_start_is_held_up_is_never_started() {
    let setup = Setup::new().set(Config::ReadyTimeout(ms(1000)));
    let Some((service, mut gate)) = gated("what_is_given_up_while_another_start_is_held_up", setup) else { return };
    let first = service.first();
    let before = Snapshot::of(first.pid);
    let is_given_up = || match service.try_restart().expect_err("it was not let through") {
        RequestError::Failed(why) => assert!(why.contains("was not ready within"), "{why}"),
        other => panic!("{other:?}"),
    };
    // On a busy machine one can be given up before the thread has come to it.
    wait_until("a start that is held up", || {
        is_given_up();
        gate.somebody_waits(PollTimeout::ZERO)
    });
    gate.holds();
    // These wait behind it: by their deadline, and called off before that.
    is_given_up();
    wait_until("one that is called off before its deadline", || {
        first.on(Step::Spawning, Act::Cancel);
        let (failed, called_off) = (first.said("event Failed").len(), first.said("did Cancel:").len());
        assert_eq!(first.ask(Act::Request), "ok");
        let is_in_time = first.says_again("did Cancel:", called_off) == "true";
        first.says_again("event Failed", failed);
        is_in_time
    });
    assert_eq!(service.connect().pid, first.pid);
    gate.let_through();
    wait_until("the late one to be reaped", || has_no_child(first.pid));
    // Nobody else has come to the gate, nor comes before the next request.
    assert!(!gate.somebody_waits(PollTimeout::ZERO));
    service.expect_unchanged(&first, &before);
    drop(gate);
    let new = service.restart_some_time();
    assert_eq!(service.connect().pid, new.pid);
    assert_eq!(service.hub.pids().last(), Some(&new.pid));
}

fn promise_03_a_held_up_start_that_is_called_off_is_killed_when_it_comes() {
    let Some((service, mut gate)) = gated("a_held_up_start_that_is_called_off", Setup::new()) else { return };
    let first = service.first();
    assert_eq!(first.ask(Act::Request), "ok");
    gate.holds();
    assert_eq!(first.ask(Act::Cancel), "true");
    assert!(first.says("event Failed").contains("called off"));
    // One that is asked for now has to wait for the one before it.
    let asker = service.restart_meanwhile();
    first.says_again("event Restarting", 1);
    gate.let_through();
    gate.holds();
    gate.let_through();
    let pid = asker.join().expect("a thread").expect("a restart");
    assert_eq!(service.connect().pid, pid);
    service.hub.process(pid).says("serving");
    assert_eq!(service.hub.pids().last(), Some(&pid));
}

fn promise_03_a_held_up_start_that_is_called_off_in_the_hands_of_a_debugger_is_reaped() {
    let test = "a_held_up_start_that_is_called_off_in_the_hands_of_a_debugger";
    let Some((service, mut gate)) = gated(test, Setup::new()) else { return };
    let first = service.first();
    let before = Snapshot::of(first.pid);
    assert_eq!(first.ask(Act::Request), "ok");
    gate.holds();
    let child = procfs::children(first.pid)[0];
    let pid = Pid::from_raw(child as i32);
    if let Err(error) = ptrace::seize(pid, ptrace::Options::empty()) {
        gate.let_through();
        return eprintln!("skipped {test}: a process cannot be debugged here: {error}");
    }
    assert_eq!(first.ask(Act::Cancel), "true");
    gate.let_through();
    wait_until("the end of it", || procfs::state(child) == Some('Z'));
    // It is in nobody's way.
    assert_eq!(first.ask(Act::Request), "ok");
    gate.holds();
    assert_eq!(first.ask(Act::Cancel), "true");
    gate.let_through();
    wait_until("the end of the other", || procfs::children(first.pid) == [child]);
    // The debugger lets it go. It was killed, or had found out before that that it is not wanted.
    let end = waitpid(pid, None);
    assert!(matches!(end, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(..))), "{end:?}");
    wait_until("it to be reaped", || has_no_child(first.pid));
    service.expect_unchanged(&first, &before);
}

fn a_start_that_is_killed_while_it_is_held_up_is_told_with_the_signal() {
    let Some((service, mut gate)) = gated("a_start_that_is_killed_while_it_is_held_up", Setup::new()) else { return };
    let first = service.first();
    let before = Snapshot::of(first.pid);
    for _ in 0..2 {
        let asker = service.restart_meanwhile();
        gate.holds();
        kill(Pid::from_raw(procfs::children(first.pid)[0] as i32), Signal::SIGKILL).expect("a child");
        match asker.join().expect("a thread") {
            Err(RequestError::Failed(why)) => assert!(why.contains("was killed by SIGKILL before it was ready"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(gate.is_shut() && has_no_child(first.pid));
        // Nobody stands before it any more.
        gate.let_through();
        service.expect_unchanged(&first, &before);
        assert_eq!(service.connect().pid, first.pid);
    }
    drop(gate);
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}

/// What a process has open that it is given at its birth, or keeps: by the numbers.
fn numbers(pid: u32) -> Vec<i32> {
    // By a pipe the C library of musl learns how the start went.
    procfs::descriptors(pid).into_iter().filter(|(_, what)| !what.starts_with("pipe:")).map(|(number, _)| number).collect()
}

fn a_client_sees_the_end_of_its_connection_while_a_start_is_held_up() {
    let Some((service, mut gate)) = gated("a_client_sees_the_end_of_its_connection", Setup::new()) else { return };
    let connect = || {
        let stream = TcpStream::connect(service.address()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    };
    let greeted = |mut stream: TcpStream| {
        let mut line = [0; 64];
        assert!(stream.read(&mut line).expect("a greeting") > 0);
        stream
    };
    let before = greeted(connect());
    let asker = service.restart_meanwhile();
    gate.holds();
    let during = greeted(connect());
    for mut stream in [before, during] {
        stream.write_all(b"a line\n").expect("it is read");
        stream.shutdown(Shutdown::Write).expect("an open connection");
        let since = Instant::now();
        let mut rest = String::new();
        // The service closes it, and no other process has it.
        stream.read_to_string(&mut rest).expect("the end");
        assert_eq!(rest, "a line\n");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    assert!(gate.is_shut());
    gate.let_through();
    let pid = asker.join().expect("a thread").expect("a restart");
    assert_eq!(service.connect().pid, pid);
}

fn a_start_that_is_held_up_has_nothing_open_but_what_it_is_given() {
    for inherit in [true, false] {
        let setup = Setup::new().set(Config::InheritDescriptors(inherit));
        let Some((service, mut gate)) = gated("a_start_that_is_held_up_has_nothing_open", setup) else { return };
        let first = service.first();
        assert_eq!(first.ask(Act::OpenFiles(300)), "open");
        let leaked: i32 = first.ask(Act::Leak("/dev/zero".into())).parse().expect("a number");
        assert_eq!(first.ask(Act::Request), "ok");
        gate.holds();
        let held = procfs::children(first.pid)[0];
        let passed = numbers(held);
        let lifeline = passed.last().copied().expect("a lifeline");
        let (expected, above) = if inherit { (vec![0, 1, 2, leaked, lifeline], leaked) } else { (vec![0, 1, 2, lifeline], 2) };
        assert_eq!(passed, expected);
        assert!(lifeline > above);
        gate.let_through();
        service.hub.nth(1).says("serving");
    }
}

fn a_start_that_is_held_up_leaves_the_address_of_a_stopped_service_free() {
    let Some((service, mut gate)) = gated("a_start_that_is_held_up_leaves_the_address_free", Setup::new()) else { return };
    let (first, address) = (service.first(), service.address());
    let asker = service.restart_meanwhile();
    gate.holds();
    assert_eq!(first.ask(Act::Stop), "stopped");
    drop(asker.join().expect("a thread"));
    first.tell(Act::Exit(0));
    first.ends();
    // A service that is started afresh has it, before what is held up has come or gone.
    let fresh = TcpListener::bind(address).expect("a free address");
    assert!(gate.is_shut());
    gate.let_through();
    assert!(service.hub.nth(1).says("build-error").contains("the lifeline cannot be used"));
    drop(fresh);
}

/// Ends the process; what was held up comes into the world as an orphan, learns that it is not wanted, and ends.
fn takes_nothing_over(service: &Service, gate: &mut Gate) {
    let first = service.first();
    first.tell(Act::Exit(0));
    // What is to become its child has no copy of its connection to the hub.
    first.ends();
    let born = service.hub.pids().len();
    gate.let_through();
    let orphan = service.hub.nth(born);
    let error = orphan.says("build-error");
    assert!(error.contains("the lifeline cannot be used"), "{error}");
    orphan.ends();
}

/// The same once the process has been told to do this.
fn is_called_off(test: &str, act: Act) {
    let Some((service, mut gate)) = gated(test, Setup::new()) else { return };
    let asker = service.restart_meanwhile();
    gate.holds();
    service.first().ask(act);
    match asker.join().expect("a thread") {
        Err(RequestError::Failed(why)) => assert!(why.contains("stopping"), "{why}"),
        other => panic!("{other:?}"),
    }
    takes_nothing_over(&service, &mut gate);
}

fn promise_07_a_start_that_is_held_up_until_its_process_has_stopped_takes_nothing_over() {
    is_called_off("a_start_that_is_held_up_until_its_process_has_stopped", Act::Stop);
}

fn promise_07_a_start_that_is_held_up_until_its_restarter_is_gone_takes_nothing_over() {
    is_called_off("a_start_that_is_held_up_until_its_restarter_is_gone", Act::Drop);
}

fn promise_07_a_start_that_is_held_up_until_its_process_has_died_takes_over() {
    let Some((service, mut gate)) = gated("a_start_that_is_held_up_until_its_process_has_died", Setup::new()) else { return };
    let first = service.first();
    let asker = service.restart_meanwhile();
    gate.holds();
    first.signal(Signal::SIGKILL);
    wait_until("the first to end", || procfs::has_ended(first.pid));
    gate.let_through();
    let heir = service.hub.nth(1);
    heir.says("serving");
    assert_eq!(service.connect().pid, heir.pid);
    // The one who asked lost whom it had asked; it may ask again, of the heir.
    drop(asker.join().expect("a thread"));
}
