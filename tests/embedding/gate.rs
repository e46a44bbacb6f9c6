//! A listener that follows the restarter, from within the process that has it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Events, Poll, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use pollflip::{Accept, Event, Gate, RestartConfig, Restarter};

use crate::case::Case;
use crate::child::{config, path};
use pollflip_kit::group::{DEADLINE, wait_for, wait_until};

cases![
    a_gate_opens_when_the_process_is_ready_and_closes_when_the_restart_is_final,
    a_gate_is_shut_while_the_state_is_handed_over_and_opens_when_that_fails,
    a_gate_stays_open_beside_a_successor_that_fails_without_the_state,
    a_gate_is_shut_on_probation_and_opens_when_the_service_comes_back,
    a_gate_that_is_closed_is_told_of_no_more_although_another_has_the_listener,
    a_gate_follows_a_unix_listener,
    a_gate_in_a_forked_child_changes_nothing,
    a_listener_that_was_made_blocking_is_warned_of_and_left_alone_until_a_gate_opens,
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

/// The old process sits in a blocking accept, and never hears of what its successor does with the flag.
fn a_listener_that_was_made_blocking_is_warned_of_and_left_alone_until_a_gate_opens(case: &Case) {
    let mut restarter = config().build().expect("a restarter");
    let sockets = restarter.sockets();
    let listener = sockets.tcp_listener("gate", "127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    drop(sockets.udp_socket("other", "127.0.0.1:0").expect("a socket"));
    fs::write(path("address"), address.to_string()).expect("written");
    restarter.ready().expect("the service");
    listener.set_nonblocking(false).expect("a listener");
    let (sender, served) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let result = listener.accept().map(drop);
            let goes_on = result.is_ok();
            if sender.send(result).is_err() || !goes_on {
                return;
            }
        }
    });
    let serve = || {
        let _client = TcpStream::connect(address).expect("somebody who listens");
        served.recv_timeout(DEADLINE).expect("it is served").expect("no error that it does not expect");
    };
    serve();
    case.plan("gate");
    restarter.request().expect("a restart");
    let event = restarter.wait(DEADLINE);
    assert!(matches!(event, Some(Event::Restarting)), "{event:?}");
    while !path("claimed").exists() {
        let event = restarter.wait(Duration::from_millis(10));
        assert!(matches!(event, None | Some(Event::Spawned(_))), "{event:?}");
    }
    // It has the listener, and asked its gate to follow: nobody is disturbed.
    serve();
    serve();
    assert_eq!(fs::read_to_string(path("claimed")).expect("written"), "blocking");
    fs::write(path("go"), "").expect("written");
    loop {
        let event = restarter.wait(DEADLINE).expect("an event");
        assert!(!matches!(event, Event::Failed(_)), "{event:?}");
        if let Event::Completed(_) = event {
            break;
        }
    }
    let opened = wait_for("the successor to open its gate", || fs::read_to_string(path("opened")).ok().filter(|text| !text.is_empty()));
    assert_eq!(opened, "non-blocking, and nobody waits");
    let log = fs::read_to_string(path("log")).expect("it has logged");
    let about = |name: &str| log.lines().filter(|line| line.contains(&format!("socket {name:?}"))).collect::<Vec<_>>();
    assert!(matches!(about("gate")[..], [line] if line.starts_with("WARN") && line.contains("blocking") && line.contains("Gate")), "{log}");
    assert_eq!(about("other"), [""; 0]);
}

/// The successor in that: with a gate, and a log.
pub(crate) fn succeed(restarter: &mut Restarter) {
    log::set_logger(&ToFile).expect("no other logger");
    log::set_max_level(log::LevelFilter::Warn);
    let address = fs::read_to_string(path("address")).expect("an address");
    let sockets = restarter.sockets();
    let listener = sockets.tcp_listener("gate", address.as_str()).expect("the one of before");
    drop(sockets.udp_socket("other", "127.0.0.1:0").expect("the one of before"));
    let flags = |listener: &TcpListener| {
        let flags = fcntl(listener, FcntlArg::F_GETFL).expect("flags");
        if OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK) { "non-blocking" } else { "blocking" }
    };
    let poll = Poll::new().expect("a poll");
    let mut gate = Gate::new(TcpListener::from_std(listener), TOKEN);
    gate.follow(restarter, poll.registry()).expect("nothing to do");
    write_whole("claimed", flags(gate.listener().expect("it is shut, and not closed")));
    wait_until("the predecessor to have served", || path("go").exists());
    restarter.ready().expect("the service");
    gate.follow(restarter, poll.registry()).expect("it can be registered");
    let opened = flags(gate.listener().expect("it is open"));
    // Without the flag this would hang.
    let waits = gate.accept().expect("it can be accepted from").is_some();
    write_whole("opened", &format!("{opened}, and {} waits", if waits { "somebody" } else { "nobody" }));
}

/// It is there with all that is in it.
fn write_whole(name: &str, text: &str) {
    fs::write(path("part"), text).and_then(|()| fs::rename(path("part"), path(name))).expect("written");
}

struct ToFile;

impl log::Log for ToFile {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let file = fs::OpenOptions::new().create(true).append(true).open(path("log"));
        writeln!(file.expect("a file"), "{} {}", record.level(), record.args()).expect("written");
    }

    fn flush(&self) {}
}
