//! With a simulated clock, and a manager of each test's own.
#![cfg(debug_assertions)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use temp_dir::TempDir;

use crate::restarter::testing::collect_until;
use crate::sys::simulation::Simulation;
use crate::sys::{self, is_readable_within};

use super::*;

/// A manager that listens, and what is to tell it.
struct Fixture {
    manager: Manager,
    reactor: Reactor,
    listener: UnixDatagram,
    /// A busy manager has these to read first.
    in_the_way: usize,
    simulation: Simulation,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let simulation = Simulation::new(None, Some(path.into()));
        let reactor = Reactor::new().expect("a reactor");
        Fixture { manager: Manager::default(), reactor, listener, in_the_way: 0, simulation, directory }
    }

    /// The manager does not read, and no more goes into its socket.
    fn fill(&mut self) {
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("a socket");
        while filler.send_to(b"busy", self.directory.path().join("notify")).is_ok() {
            self.in_the_way += 1;
        }
        assert!(self.in_the_way > 0);
    }

    /// The next message, and what came with it; `None`: there is none.
    fn receive(&mut self) -> Option<(String, Vec<OwnedFd>)> {
        while self.in_the_way > 0 {
            sys::receive(&self.listener).expect("a message");
            self.in_the_way -= 1;
        }
        let packet = sys::receive(&self.listener).ok()?;
        Some((String::from_utf8(packet.bytes).expect("a text"), packet.descriptors))
    }

    fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.receive()).map(|(text, _)| text).collect()
    }

    fn poll(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let moment = Moment::at(self.reactor.now());
        self.manager.poll(&moment, &self.reactor, &mut inputs);
        inputs
    }

    fn next_deadline(&self) -> Option<Due> {
        self.manager.next_deadline(self.reactor.now())
    }
}

fn main_pid(pid: u32) -> String {
    format!("MAINPID={pid}\nREADY=1\nSTATUS=\n")
}

#[test]
fn the_main_process_is_named_once() {
    let mut fixture = Fixture::new();
    fixture.manager.name_main_pid(42);
    assert_eq!(fixture.heard(), [main_pid(42)]);
    assert_eq!((fixture.poll(), fixture.poll()), (vec![], vec![]));
    assert_eq!(fixture.heard(), [""; 0]);
    assert_eq!(fixture.next_deadline(), None);
}

#[test]
fn a_busy_manager_is_told_later_in_order_and_what_it_answers_is_told_once() {
    let mut fixture = Fixture::new();
    fixture.fill();
    fixture.manager.name_main_pid(42);
    fixture.manager.begin_commit(&fixture.reactor);
    assert_eq!(fixture.poll(), []);
    assert!(matches!(fixture.next_deadline(), Some((_, Deadline::Unnotified))), "{:?}", fixture.next_deadline());

    assert_eq!(fixture.receive().map(|(text, _)| text), None, "it had no room");
    assert_eq!(fixture.poll(), [Input::ManagerTold]);
    assert_eq!(fixture.next_deadline(), None);
    assert_eq!(fixture.receive().map(|(text, _)| text), Some(main_pid(42)));
    let (barrier, descriptors) = fixture.receive().expect("a barrier");
    assert_eq!((&*barrier, descriptors.len()), ("BARRIER=1", 1));
    assert_eq!(fixture.poll(), []);
    assert!(!is_readable_within(&fixture.reactor, Duration::ZERO));
    drop(descriptors);
    assert!(collect_until(&mut fixture.reactor, |_| true).has(BARRIER));
    assert_eq!(fixture.poll(), [Input::BarrierPassed]);
    assert_eq!((fixture.poll(), fixture.receive().map(|(text, _)| text)), (vec![], None));
}

#[test]
fn a_commit_that_is_over_waits_for_no_answer() {
    let mut fixture = Fixture::new();
    fixture.manager.begin_commit(&fixture.reactor);
    assert_eq!(fixture.poll(), [Input::ManagerTold]);
    fixture.manager.end_commit(&fixture.reactor);
    // It hangs up.
    assert_eq!(fixture.heard(), ["BARRIER=1"]);
    assert!(fixture.reactor.collect().is_none());
    assert_eq!(fixture.poll(), []);
}

#[test]
fn without_a_manager_nothing_is_told_and_nothing_is_waited_for() {
    let fixture = Fixture::new();
    let Fixture { simulation, listener, directory, .. } = fixture;
    drop(simulation);
    let mut fixture = Fixture {
        manager: Manager::default(),
        reactor: Reactor::new().expect("a reactor"),
        listener,
        in_the_way: 0,
        simulation: Simulation::new(None, None),
        directory,
    };
    fixture.manager.reloading(Duration::from_secs(1));
    fixture.manager.progress("half of it");
    fixture.manager.still_here("why");
    fixture.manager.stopping(Duration::ZERO);
    fixture.manager.name_main_pid(42);
    assert_eq!((fixture.poll(), fixture.next_deadline()), (vec![], None));
    fixture.manager.begin_commit(&fixture.reactor);
    assert_eq!(fixture.poll(), [Input::ManagerTold, Input::BarrierPassed]);
    assert_eq!((fixture.poll(), fixture.heard()), (vec![], vec![]));
    fixture.manager.end_commit(&fixture.reactor);
}

#[test]
fn an_end_that_takes_longer_is_told_again_and_a_restart_that_fails_does_not_hide_it() {
    let mut fixture = Fixture::new();
    let longer = format!("EXTEND_TIMEOUT_USEC={}\n", 2 * EXTENSION.as_micros());
    let stopping = format!("STOPPING=1\n{longer}");
    let now = fixture.reactor.now();
    fixture.manager.stopping(now);
    assert_eq!(fixture.heard(), std::slice::from_ref(&stopping));
    assert_eq!(fixture.next_deadline(), Some((now + EXTENSION, Deadline::Stopping)));
    fixture.simulation.pass(EXTENSION - Duration::from_nanos(1));
    assert_eq!((fixture.poll(), fixture.heard()), (vec![], vec![]));
    fixture.simulation.pass(Duration::from_nanos(1));
    fixture.poll();
    assert_eq!(fixture.heard(), [longer]);
    assert_eq!(fixture.next_deadline(), Some((now + 2 * EXTENSION, Deadline::Stopping)));
    fixture.manager.still_here("it refused\nMAINPID=1");
    assert_eq!(fixture.heard(), ["READY=1\nSTATUS=it refused MAINPID=1\n".to_string(), stopping]);
}

#[test]
fn lines_of_progress_do_not_pile_up_while_the_manager_is_busy() {
    let mut fixture = Fixture::new();
    fixture.manager.progress("one");
    assert_eq!(fixture.heard(), ["STATUS=one\n"]);
    fixture.fill();
    for line in ["two", "three", "four"] {
        fixture.manager.progress(line);
    }
    assert_eq!(fixture.heard(), [""; 0]);
    fixture.poll();
    assert_eq!(fixture.heard(), ["STATUS=two\n"]);
}
