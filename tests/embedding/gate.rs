//! A listener that follows the restarter, from within the process that has it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Events, Poll, Token};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use pollflip::{Accept, Event, Gate, RestartConfig, Restarter};

use crate::case::Case;
use crate::child::{config, path};
use crate::harness::{DEADLINE, wait_until};

cases![
    a_gate_opens_when_the_process_is_ready_and_closes_when_the_restart_is_final,
    a_gate_is_shut_while_the_state_is_handed_over_and_opens_when_that_fails,
    a_gate_stays_open_beside_a_successor_that_fails_without_the_state,
    a_gate_is_shut_on_probation_and_opens_when_the_service_comes_back,
    a_gate_that_is_closed_is_told_of_no_more_although_another_has_the_listener,
    a_gate_follows_a_unix_listener,
    a_gate_in_a_forked_child_changes_nothing,
];

const TOKEN: Token = Token(7);

/// A process with one listener, and a poll for that alone.
struct Doors {
    restarter: Restarter,
    gate: Gate<TcpListener>,
    address: SocketAddr,
    poll: Poll,
}

impl Doors {
    /// Before it is ready.
    fn new(config: &RestartConfig) -> Doors {
        let mut restarter = config.build().expect("a restarter");
        let listener = restarter.sockets().tcp_listener("gate", "127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let gate = Gate::new(TcpListener::from_std(listener), TOKEN);
        Doors { restarter, gate, address, poll: Poll::new().expect("a poll") }
    }

    fn ready(config: &RestartConfig) -> Doors {
        let mut doors = Doors::new(config);
        doors.restarter.ready().expect("the service");
        doors.follow();
        assert!(doors.gate.is_open());
        doors
    }

    fn follow(&mut self) {
        self.gate.follow(&self.restarter, self.poll.registry()).expect("it can be registered");
    }

    /// The next event, which the gate follows.
    fn next(&mut self) -> Event {
        let event = self.restarter.wait(DEADLINE).expect("an event");
        self.follow();
        event
    }

    /// The next event that is the one looked for.
    fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next();
            if is_it(&event) {
                return event;
            }
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("somebody who listens")
    }

    fn is_told(&mut self) -> bool {
        is_told(&mut self.poll)
    }
}

fn is_told(poll: &mut Poll) -> bool {
    let mut events = Events::with_capacity(4);
    poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll");
    assert!(events.iter().all(|event| event.token() == TOKEN));
    !events.is_empty()
}

/// Whether there is somebody to take in.
fn takes_in<L: Accept>(gate: &Gate<L>) -> bool {
    gate.accept().expect("it can be accepted from").is_some()
}

fn a_gate_opens_when_the_process_is_ready_and_closes_when_the_restart_is_final(_: &Case) {
    let mut doors = Doors::new(&config());
    doors.follow();
    let _early = doors.connect();
    assert!(!doors.gate.is_open() && !doors.restarter.accepts());
    assert!(!doors.is_told() && !takes_in(&doors.gate), "it is not this process's to take in");
    doors.restarter.ready().expect("the service");
    assert!(doors.restarter.accepts());
    doors.follow();
    assert!(doors.gate.is_open() && doors.is_told() && takes_in(&doors.gate));
    assert!(!takes_in(&doors.gate));

    doors.restarter.request().expect("a restart");
    doors.until(|event| matches!(event, Event::HandedOff(_)));
    assert!(!doors.gate.is_open() && !doors.restarter.accepts());
    doors.until(|event| matches!(event, Event::Completed(_)));
    assert!(doors.gate.is_closed() && doors.gate.listener().is_none() && !takes_in(&doors.gate));
    // The successor has not asked for it, and closes it.
    wait_until(
        "the end of the listener",
        || matches!(TcpStream::connect(doors.address), Err(error) if error.kind() == ErrorKind::ConnectionRefused),
    );
}

fn a_gate_is_shut_while_the_state_is_handed_over_and_opens_when_that_fails(case: &Case) {
    let mut doors = Doors::ready(&config());
    case.plan("pull and refuse");
    doors.restarter.request().expect("a restart");
    let Event::StateRequested(mut handover) = doors.until(|event| matches!(event, Event::StateRequested(_))) else {
        unreachable!("it was looked for")
    };
    assert!(!doors.gate.is_open() && !doors.gate.is_closed());
    let _client = doors.connect();
    assert!(!doors.is_told() && !takes_in(&doors.gate), "it would be in nobody's state");
    handover.bytes("state", b"some").expect("room");
    handover.send();
    doors.until(|event| matches!(event, Event::Failed(_)));
    assert!(doors.gate.is_open() && doors.is_told() && takes_in(&doors.gate), "it has waited");
}

fn a_gate_stays_open_beside_a_successor_that_fails_without_the_state(case: &Case) {
    let mut doors = Doors::ready(&config());
    case.plan("exit");
    doors.restarter.request().expect("a restart");
    let mut told = 0;
    while !matches!(doors.next(), Event::Failed(_)) {
        let _client = doors.connect();
        assert!(doors.gate.is_open() && doors.is_told() && takes_in(&doors.gate));
        told += 1;
    }
    assert!(told >= 2, "it is asked for and started");
    assert!(doors.gate.is_open());
}

fn a_gate_is_shut_on_probation_and_opens_when_the_service_comes_back(case: &Case) {
    let mut doors = Doors::ready(&config().probation(DEADLINE));
    case.plan("leave");
    doors.restarter.request().expect("a restart");
    doors.until(|event| matches!(event, Event::HandedOff(_)));
    assert!(!doors.gate.is_open() && !doors.gate.is_closed());
    let _client = doors.connect();
    assert!(!doors.is_told());
    doors.until(|event| matches!(event, Event::Resumed(_)));
    assert!(doors.gate.is_open() && doors.is_told() && takes_in(&doors.gate));
}

fn a_gate_that_is_closed_is_told_of_no_more_although_another_has_the_listener(_: &Case) {
    let mut doors = Doors::ready(&config());
    // As a successor that was granted the service, or a helper, has it.
    let other = doors.restarter.sockets().tcp_listener("gate", doors.address).expect("the same");
    doors.restarter.stop();
    doors.follow();
    assert!(doors.gate.is_open(), "what waits in the queue is still this process's");
    let _last = doors.connect();
    assert!(doors.is_told() && takes_in(&doors.gate));
    doors.gate.close(doors.poll.registry()).expect("it is registered");
    assert!(doors.gate.is_closed() && !doors.gate.is_open());
    let _late = doors.connect();
    assert!(!doors.is_told());
    doors.follow();
    assert!(doors.gate.is_closed());
    drop(other);
}

fn a_gate_follows_a_unix_listener(_: &Case) {
    let mut restarter = config().build().expect("a restarter");
    let mut poll = Poll::new().expect("a poll");
    let listener = restarter.sockets().unix_listener("gate", path("gate.sock")).expect("a listener");
    let mut gate = Gate::new(UnixListener::from_std(listener), TOKEN);
    restarter.ready().expect("the service");
    gate.follow(&restarter, poll.registry()).expect("registered");
    let _client = UnixStream::connect(path("gate.sock")).expect("somebody who listens");
    assert!(is_told(&mut poll) && takes_in(&gate) && !takes_in(&gate));
    let address = gate.listener().and_then(|listener| listener.local_addr().ok()).expect("an address");
    assert_eq!(address.as_pathname(), Some(&*path("gate.sock")));
}

#[allow(unsafe_code, reason = "a worker that some programs have")]
fn a_gate_in_a_forked_child_changes_nothing(_: &Case) {
    let mut doors = Doors::ready(&config());
    // SAFETY: the other thread of this process waits for an order, and holds nothing that the child needs.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let error = doors.gate.follow(&doors.restarter, doors.poll.registry());
            // It would deregister the listener of the parent.
            let is_left = error.is_err() && doors.gate.is_open() && !doors.restarter.accepts();
            std::process::exit(if is_left { 0 } else { 1 });
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
    let _client = doors.connect();
    assert!(doors.is_told() && takes_in(&doors.gate));
}
