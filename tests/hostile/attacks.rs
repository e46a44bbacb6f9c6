//! Promise 5 for a coordination socket under attack, by processes that may ask: root and the user of the service. Its memory stays within
//! a bound, the loop turns, the service serves, and an honest asker gets an answer without asking again.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use pollflip::RequestError;
use pollflip::restart_coordination_socket::{request_restart, request_status};

use crate::attacker::{Attacker, STATUS};
use crate::confine::NOBODY;
use crate::is_root;
use pollflip_kit::client::{Raw, frame};
use pollflip_kit::harness::Service;
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Step, at};
use pollflip_kit::surroundings::directory;

pollflip_kit::trials![
    promise_05_slow_loris_keeps_neither_the_loop_nor_honest_askers_out,
    promise_05_silent_connections_keep_neither_the_loop_nor_honest_askers_out,
    promise_05_half_frames_cost_bounded_memory,
    promise_05_lengths_of_four_gibibytes_cost_nothing,
    promise_05_deep_json_costs_bounded_memory,
    promise_05_askers_who_never_read_cost_bounded_memory,
    promise_05_a_flood_of_requests_during_a_restart_changes_nothing,
    promise_05_users_who_may_not_ask_take_no_room,
    promise_05_ten_thousand_connections_are_survived,
    promise_05_ten_thousand_connections_that_come_back_keep_nobody_out,
    promise_05_clients_that_have_been_answered_make_room,
    promise_05_askers_among_a_crowd_that_came_in_one_instant_are_all_answered,
    promise_05_an_asker_who_is_hung_up_on_before_it_is_read_asks_again,
    promise_10_a_service_of_another_user_has_no_say_over_the_terminal_of_a_client,
];

/// What the attack may cost, as the guide says: 64 clients with a frame of 64 KiB and as much of answers each, both in buffers that have
/// grown by doubling.
const MEMORY: u64 = 16 << 20;
/// Generous: it takes milliseconds, and the machine may be slow.
const TURN: Duration = Duration::from_secs(1);

/// VmRSS and VmData, in bytes.
fn memory(process: &Process) -> [u64; 2] {
    ["VmRSS", "VmData"].map(|line| {
        let text = procfs::status(process.pid, line).expect("a live process");
        text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number of kB") << 10
    })
}

/// What an attack has cost so far.
struct Watch<'a> {
    service: &'a Service,
    process: Process,
    before: [u64; 2],
    most: [u64; 2],
    slowest: Duration,
    asked: usize,
}

impl<'a> Watch<'a> {
    fn new(service: &'a Service) -> Watch<'a> {
        let process = service.first();
        // What the first client of each kind costs is no attack.
        service.status();
        service.connect().echo("once");
        let before = memory(&process);
        Watch { service, process, before, most: before, slowest: Duration::ZERO, asked: 0 }
    }

    /// An honest asker, who asks once.
    fn ask_honestly(&mut self) {
        let began = Instant::now();
        self.look();
        match request_status(self.service.socket(), DEADLINE) {
            Ok(status) => assert_eq!(status.pid, self.process.pid),
            Err(why) => panic!("an honest asker was told: {why}"),
        }
        self.asked += 1;
        self.slowest = self.slowest.max(began.elapsed());
        self.service.connect().echo("served meanwhile");
    }

    fn look(&mut self) {
        let now = memory(&self.process);
        self.most = [0, 1].map(|index| self.most[index].max(now[index]));
    }

    fn conclude(&mut self, what: &str) {
        self.look();
        let turn = Duration::from_micros(self.process.ask(Act::Turns).parse().expect("a number"));
        let [resident, data] = [0, 1].map(|index| self.most[index].saturating_sub(self.before[index]));
        println!(
            "{what}: memory +{} KiB resident, +{} KiB data; longest turn {:.1} ms; {} honest askers, the slowest answer after {:.1} s",
            resident >> 10,
            data >> 10,
            turn.as_secs_f64() * 1e3,
            self.asked,
            self.slowest.as_secs_f64()
        );
        assert!(resident < MEMORY && data < MEMORY, "{what}: {resident} and {data} bytes more");
        assert!(turn < TURN, "{what}: the loop was held up for {turn:?}");
    }
}

/// An attack by some processes with so many connections each, while honest askers ask; at the end a restart.
fn attack(how: &str, processes: usize, connections: usize, user: Option<u32>) {
    let service = Service::start();
    let before = procfs::descriptors(service.first().pid).len();
    let mut watch = Watch::new(&service);
    if user.is_some() {
        // Even if somebody opens the path to all.
        std::fs::set_permissions(service.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("a mode");
    }
    let mut attackers: Vec<_> = (0..processes).map(|_| Attacker::start(&service.socket(), how, connections, user)).collect();
    for _ in 0..5 {
        watch.ask_honestly();
    }
    let held: usize = attackers.iter_mut().map(Attacker::holds).sum();
    assert_eq!(held, processes * connections);
    for _ in 0..5 {
        watch.ask_honestly();
    }
    watch.conclude(&format!("{held} connections of {how}"));
    // The one who asks for a restart gets it too.
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
    drop(attackers);
    wait_until("the descriptors of the attack to be closed", || procfs::descriptors(new.pid).len() <= before + 4);
}

fn promise_05_slow_loris_keeps_neither_the_loop_nor_honest_askers_out() {
    attack("drip", 2, 50, None);
}

fn promise_05_silent_connections_keep_neither_the_loop_nor_honest_askers_out() {
    attack("silence", 2, 50, None);
}

fn promise_05_half_frames_cost_bounded_memory() {
    attack("halves", 2, 50, None);
}

fn promise_05_lengths_of_four_gibibytes_cost_nothing() {
    attack("lengths", 2, 50, None);
}

fn promise_05_deep_json_costs_bounded_memory() {
    attack("depth", 2, 50, None);
}

fn promise_05_askers_who_never_read_cost_bounded_memory() {
    attack("deaf", 2, 50, None);
}

fn promise_05_users_who_may_not_ask_take_no_room() {
    if is_root("the one of the users who may not ask") {
        attack("silence", 2, 500, Some(NOBODY));
    }
}

fn promise_05_ten_thousand_connections_are_survived() {
    attack("crowd", 10, 1_000, None);
}

/// Whoever is thrown out comes back at once.
fn promise_05_ten_thousand_connections_that_come_back_keep_nobody_out() {
    attack("silence", 10, 1_000, None);
}

fn promise_05_clients_that_have_been_answered_make_room() {
    let service = Service::start();
    service.plan_next(at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    service.hub.nth(1).says("waits");
    // The successor may have come this far before the restart thread has told its loop of it.
    service.first().says("event Spawned");
    let deadline = Instant::now() + DEADLINE;
    // One that is silent for five seconds is hung up on, which a busy machine may be late for.
    while let Err(error) = three_hundred_clients(&service) {
        assert!(Instant::now() < deadline, "{error}");
    }
    service.hub.nth(1).go();
    assert_eq!(asker.join().expect("a thread").expect("the restart"), service.hub.nth(1).pid);
}

fn three_hundred_clients(service: &Service) -> std::io::Result<()> {
    let ask = |client: &mut Raw| {
        client.try_send(STATUS)?;
        assert!(client.try_receive()?.contains(r#""state":"awaiting ready""#));
        Ok(())
    };
    // They stay; so there are 63 places for 300.
    let answered = |_| {
        let mut client = Raw::connect(&service.socket());
        ask(&mut client).map(|()| client)
    };
    let mut answered = (0..300).map(answered).collect::<std::io::Result<Vec<_>>>()?;
    answered[..300 - 63].iter_mut().for_each(Raw::expect_end);
    // The others are still talked to, and so is the one that waits.
    answered[300 - 63..].iter_mut().try_for_each(ask)
}

fn promise_05_askers_among_a_crowd_that_came_in_one_instant_are_all_answered() {
    let service = Service::start();
    // They all wait in the queue when the service looks at it.
    service.first().signal(Signal::SIGSTOP);
    let mut crowd: Vec<_> = (0..600).map(|_| Raw::connect(&service.socket())).collect();
    crowd.iter_mut().step_by(3).for_each(|client| client.send(STATUS));
    service.first().signal(Signal::SIGCONT);
    for client in crowd.iter_mut().step_by(3) {
        assert!(client.receive().contains(r#""state":"idle""#));
    }
    service.restart();
}

/// As a service does that needs the place.
fn promise_05_an_asker_who_is_hung_up_on_before_it_is_read_asks_again() {
    let keep = directory();
    let path = keep.path().join("restart.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let asker = thread::spawn(move || request_restart(path, DEADLINE, |_| {}));
    // Once perhaps before it has asked, once certainly after it.
    drop(listener.accept().expect("an asker"));
    let (stream, _) = listener.accept().expect("it comes again");
    recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK).expect("a request");
    drop(stream);
    let mut client = Raw(listener.accept().expect("it comes again").0);
    assert_eq!(client.receive(), r#"{"Request":{"Restart":{"progress":true}}}"#);
    client.send(r#"{"Response":{"RestartComplete":7}}"#);
    assert_eq!(asker.join().expect("a thread").expect("an answer"), 7);
}

/// What a terminal would obey, and what would be a line of its own in what the client prints.
const COMMANDS: &str = r"\u001b]0;owned\u0007\u001b[31m\nprocess 1: serving\r\u009b2J\u2028\u202ex";

/// The client may be root at a terminal, and the service somebody's.
fn promise_10_a_service_of_another_user_has_no_say_over_the_terminal_of_a_client() {
    let keep = directory();
    let path = keep.path().join("restart.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let is_harmless = |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'));
    for answer in ["RestartFailed", "RestartRefused", "RestartImpossible", COMMANDS] {
        let path = path.clone();
        let asker = thread::spawn(move || {
            let mut lines = Vec::new();
            let outcome = request_restart(path, DEADLINE, |line| lines.push(line.to_owned()));
            (lines, outcome.expect_err("no restart").to_string())
        });
        let mut client = Raw(listener.accept().expect("an asker").0);
        client.receive();
        client.send(&format!(r#"{{"Response":{{"Progress":"{COMMANDS}"}}}}"#));
        client.send(&format!(r#"{{"Response":{{"{answer}":"{COMMANDS}"}}}}"#));
        let (lines, why) = asker.join().expect("a thread");
        assert!(lines.len() == 1 && lines[0].contains("process 1: serving") && is_harmless(&lines[0]), "{lines:?}");
        assert!(is_harmless(&why), "{why:?}");
    }

    let asker = thread::spawn(move || Command::new(env!("CARGO_BIN_EXE_pollflip-of-hostile")).arg("status").arg(path).output());
    let mut client = Raw(listener.accept().expect("an asker").0);
    client.receive();
    let of = |name| format!(r#""{name}":"{COMMANDS}""#);
    let texts = ["state", "version", "program", "progress", "impossible", "last_failure"].map(of).join(",");
    let outcome = format!(r#"{{"at":1,"took_ms":1,"ok":true,{}}}"#, of("text"));
    client
        .send(&format!(r#"{{"Response":{{"Status":{{"pid":7,"generation":0,"outcomes":[{outcome}],"notes":["{COMMANDS}"],{texts}}}}}}}"#));
    let shown = asker.join().expect("a thread").expect("a process").stdout;
    let shown = String::from_utf8(shown).expect("text");
    // The state, and a line each for all but the last failure.
    assert_eq!(shown.lines().count(), 7, "{shown:?}");
    assert!(shown.lines().all(|line| line.contains("process 1: serving") && is_harmless(line)), "{shown:?}");
}

fn promise_05_a_flood_of_requests_during_a_restart_changes_nothing() {
    let service = Service::start();
    let mut watch = Watch::new(&service);
    service.plan_next(at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    // Requests that come in one packet are answered one by one.
    let mut client = Raw::connect(&service.socket());
    client.write(&frame(r#"{"Request":"TryRestart"}"#).repeat(500));
    for _ in 0..500 {
        assert!(client.receive().contains("a restart has been under way"));
    }
    let mut attackers: Vec<_> = (0..2).map(|_| Attacker::start(&service.socket(), "requests", 100, None)).collect();
    attackers.iter_mut().for_each(|attacker| assert_eq!(attacker.holds(), 100));
    for _ in 0..20 {
        watch.ask_honestly();
        match request_restart(service.socket(), DEADLINE, |_| {}) {
            Err(RequestError::Refused(why)) => assert!(why.contains("a restart has been under way"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    watch.conclude("200 connections of requests during a restart");
    assert_eq!(service.hub.pids().len(), 2);
    drop(attackers);
    // What they have asked is refused before this is answered; the next generation would take it for a wish.
    service.status();
    new.go();
    assert_eq!(asker.join().expect("a thread").expect("the restart"), new.pid);
    assert_eq!(service.connect().pid, new.pid);
}
