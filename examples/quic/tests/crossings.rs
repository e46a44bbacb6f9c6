//! What of a connection can be on its way when the server is replaced, one thing at a time, with real processes. The client holds datagrams
//! back or loses them, so that each crossing happens every time.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use pollflip::restart_coordination_socket::request_restart;
use pollflip_quic::client::{Client, Id, Wire};
use pollflip_quic::marked::LENGTH;
use pollflip_quic::protocol::{ALPN, Head, Request};
use pollflip_quic::service::{Counted, Service};
use pollflip_quic::visits::{Plan, run};

const LIMIT: Duration = Duration::from_secs(60);
const SHORT: Request = Request { file: 1, length: 5000 };
/// More than the client's window: the server cannot have sent it all.
const LONG: Request = Request { file: 2, length: 200_000 };

/// The processes of a test are children of this one, which waits for all of them: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pollflip-quic"))
}

struct Test {
    service: Service,
    _one: MutexGuard<'static, ()>,
}

impl Test {
    fn start(arguments: &[&str]) -> Test {
        let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let arguments = [&["--idle", "3"], arguments].concat();
        Test { service: Service::start(program(), &arguments).expect("a server"), _one: one }
    }

    fn client(&self) -> Client<Tapped> {
        self.client_that_speaks(vec![ALPN.to_vec()])
    }

    fn client_that_speaks(&self, protocols: Vec<Vec<u8>>) -> Client<Tapped> {
        let config = self.service.identity.client(protocols).expect("a configuration");
        Client::new(Tapped::new(), config, self.service.address).expect("a client")
    }

    fn restart(&mut self) {
        let refused = self.service.restart().expect("a restart");
        assert_eq!(refused, None);
    }

    fn wait_for_the_end_of_drainers(&self) {
        let begun = Instant::now();
        while !self.service.status().expect("a status").draining.is_empty() {
            assert!(begun.elapsed() < LIMIT, "the old process does not end");
            std::thread::yield_now();
        }
    }

    fn stop(self) -> Counted {
        self.service.stop(0).expect("all have ended well")
    }
}

/// What becomes of a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    Waits,
    IsLost,
}

type Rule = Box<dyn FnMut(&[u8]) -> Fate>;

/// A socket whose datagrams a test holds back or loses.
struct Tapped {
    socket: UdpSocket,
    outgoing: Rule,
    incoming: Rule,
    /// What waits to be sent, and to be received.
    leaving: Vec<Vec<u8>>,
    arriving: Vec<Vec<u8>>,
    /// What has come, and may be received.
    here: Vec<Vec<u8>>,
    /// All that was to be sent, and all that has come.
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    server: Option<SocketAddr>,
}

fn always(fate: Fate) -> Rule {
    Box::new(move |_| fate)
}

impl Tapped {
    fn new() -> Tapped {
        Tapped {
            socket: UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket"),
            outgoing: always(Fate::Goes),
            incoming: always(Fate::Goes),
            leaving: Vec::new(),
            arriving: Vec::new(),
            here: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            server: None,
        }
    }

    /// Lets the first of those go that wait to be sent.
    fn let_go(&mut self, count: usize) {
        for datagram in self.leaving.drain(..count) {
            self.socket.send_to(&datagram, self.server.expect("something was sent")).expect("sent");
        }
    }

    /// Lets those in that wait and fulfil a condition.
    fn let_in(&mut self, mut which: impl FnMut(&[u8]) -> bool) {
        let (let_in, wait) = self.arriving.drain(..).partition::<Vec<_>, _>(|datagram| which(datagram));
        self.here.extend(let_in);
        self.arriving = wait;
    }
}

impl Wire for Tapped {
    fn socket(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    fn send(&mut self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.server = Some(to);
        self.sent.push(datagram.to_vec());
        match (self.outgoing)(datagram) {
            Fate::Goes => self.socket.send_to(datagram, to).map(drop),
            Fate::Waits => {
                self.leaving.push(datagram.to_vec());
                Ok(())
            }
            Fate::IsLost => Ok(()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let datagram = if self.here.is_empty() {
                let (length, from) = self.socket.recv_from(buffer)?;
                assert_eq!(Some(from), self.server, "all generations answer from one address");
                let datagram = buffer[..length].to_vec();
                self.received.push(datagram.clone());
                match (self.incoming)(&datagram) {
                    Fate::Goes => datagram,
                    Fate::Waits => {
                        self.arriving.push(datagram);
                        continue;
                    }
                    Fate::IsLost => continue,
                }
            } else {
                self.here.remove(0)
            };
            buffer[..datagram.len()].copy_from_slice(&datagram);
            return Ok((datagram.len(), self.server.expect("the server has been asked")));
        }
    }
}

fn has_long_header(datagram: &[u8]) -> bool {
    datagram[0] & 0x80 != 0
}

fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xb0 == 0xb0
}

/// The IDs of a long header: whom it is for, and who sends it.
fn long_ids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = has_long_header(datagram).then(|| &datagram[5..])?;
    let (to, rest) = rest[1..].split_at_checked(rest[0].into())?;
    Some((to, rest.get(1..=usize::from(*rest.first()?))?))
}

/// The slot that a connection ID names.
fn slot_of(id: &[u8]) -> Option<u8> {
    (id.len() == usize::from(LENGTH) && id[0] ^ id[1] == 0xa5).then_some(id[0])
}

/// The slot of the generation that has sent a datagram, if it has a long header.
fn sender(datagram: &[u8]) -> Option<u8> {
    slot_of(long_ids(datagram)?.1)
}

/// The slot of the generation that a datagram of a client is for.
fn receiver(datagram: &[u8]) -> Option<u8> {
    match long_ids(datagram) {
        Some((to, _)) => slot_of(to),
        None => slot_of(&datagram[1..=LENGTH.into()]),
    }
}

/// Lets a client do what it has to do until something is so.
fn until(client: &mut Client<Tapped>, what: &str, mut is_so: impl FnMut(&mut Client<Tapped>) -> bool) {
    let begun = Instant::now();
    while !is_so(client) {
        assert!(begun.elapsed() < LIMIT, "{what}: not so in {LIMIT:?}");
        client.turn(Duration::from_millis(5)).expect("a turn");
    }
}

/// Waits for so many files, which have to be whole and of one process.
fn answers(client: &mut Client<Tapped>, id: Id, count: usize) -> Head {
    let mut all = Vec::new();
    until(client, "the files are there", |client| {
        all.extend(client.take_done(id));
        all.len() >= count
    });
    for download in &all {
        assert_eq!(download.failed, None);
        assert!(download.is_whole());
        assert_eq!(download.head(), all[0].head());
    }
    all[0].head().expect("an answer")
}

/// Asks a new connection, to the end.
fn ask(client: &mut Client<Tapped>) -> Head {
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    let head = answers(client, id, 1);
    client.close(id);
    head
}

/// A download of which a part has come, and that the server cannot have sent to the end.
fn hold(client: &mut Client<Tapped>) -> Id {
    let id = client.connect().expect("a connection");
    client.download(id, LONG, 50_000);
    until(client, "a part is there", |client| client.received(id) == 50_000);
    id
}

fn finish(client: &mut Client<Tapped>, id: Id) -> Head {
    client.allow(id, u64::MAX);
    let head = answers(client, id, 1);
    client.close(id);
    client.go_on().expect("the end is sent");
    head
}

#[test]
fn promise_14_downloads_that_began_before_three_restarts_end_whole_and_new_connections_are_the_new_generations() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let plan = Plan { restarts: 3, held: 16, pause: Duration::ZERO, seed: 1, server: Vec::new() };
    let tally = run(program(), &plan).expect("a run");
    assert!(tally.is_good(), "{tally:?}");
    assert!(tally.over_three >= 16 && tally.new >= 16 && tally.moved >= 16 && tally.at_once >= 2, "{tally:?}");
    assert_eq!(tally.counted.generations, 4);
}

#[test]
fn promise_14_a_first_datagram_that_was_late_is_the_new_generations() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    client.wire.outgoing = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "something waits", |client| !client.wire.leaving.is_empty());
    test.restart();
    client.wire.outgoing = always(Fate::Goes);
    client.wire.let_go(1);
    assert_eq!(answers(&mut client, id, 1).generation, 1);
    test.stop();
}

#[test]
fn promise_14_a_handshake_whose_answer_was_lost_is_begun_anew_by_the_new_generation() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    client.wire.incoming = Box::new(|datagram| if sender(datagram) == Some(0) { Fate::IsLost } else { Fate::Goes });
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "the old process has answered", |client| !client.wire.received.is_empty());
    test.restart();
    assert_eq!(answers(&mut client, id, 1).generation, 1);
    // The old process ends when its half of a handshake has timed out.
    test.stop();
}

/// A client repeats its first datagram, which the other generation gets: both answer.
fn both_answer(winner: u8) {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    client.wire.incoming = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    let answered = |slot: u8| move |client: &mut Client<Tapped>| client.wire.received.iter().any(|datagram| sender(datagram) == Some(slot));
    until(&mut client, "the old process has answered", answered(0));
    test.restart();
    until(&mut client, "the new process has answered", answered(1));
    client.wire.let_in(|datagram| sender(datagram) == Some(winner));
    until(&mut client, "the client has taken one", |client| client.wire.sent.iter().any(|datagram| receiver(datagram) == Some(winner)));
    client.wire.incoming = always(Fate::Goes);
    client.wire.let_in(|_| true);
    assert_eq!(answers(&mut client, id, 1).generation, winner.into());
    assert!(client.wire.sent.iter().all(|datagram| receiver(datagram) != Some(1 - winner)), "the other one is not spoken to");
    test.stop();
}

#[test]
fn promise_14_a_client_that_both_generations_answer_stays_with_the_old_one_if_that_was_first() {
    both_answer(0);
}

#[test]
fn promise_14_a_client_that_both_generations_answer_stays_with_the_new_one_if_that_was_first() {
    both_answer(1);
}

#[test]
fn promise_14_a_client_that_gets_the_answers_of_both_generations_mixed_is_answered() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    client.wire.incoming = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    let count = |client: &Client<Tapped>, slot| client.wire.received.iter().filter(|datagram| sender(datagram) == Some(slot)).count();
    until(&mut client, "the old process has answered", |client| count(client, 0) > 0);
    test.restart();
    until(&mut client, "the new process has answered twice", |client| count(client, 1) >= 2);
    client.wire.incoming = always(Fate::Goes);
    // In one turn: the beginning of the old answer, all of the new one, the rest of the old one.
    let mut is_first = true;
    client.wire.let_in(|_| std::mem::take(&mut is_first));
    client.wire.let_in(|datagram| sender(datagram) == Some(1));
    client.wire.let_in(|_| true);
    assert_eq!(answers(&mut client, id, 1).generation, 0);
    test.stop();
}

#[test]
fn promise_14_a_hello_that_a_restart_has_cut_in_two_is_answered() {
    let mut test = Test::start(&[]);
    // So many protocols do not fit into one datagram.
    let protocols = (0..60).map(|number| format!("a protocol that nobody speaks, number {number}").into_bytes());
    let mut client = test.client_that_speaks(protocols.chain([ALPN.to_vec()]).collect());
    client.wire.outgoing = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "both halves wait", |client| client.wire.leaving.len() >= 2);
    client.wire.let_go(1);
    test.restart();
    client.wire.outgoing = always(Fate::Goes);
    let rest = client.wire.leaving.len();
    client.wire.let_go(rest);
    // Each generation has half of it, and acknowledges that. The client repeats the other half to the one that it has heard first.
    answers(&mut client, id, 1);
    test.stop();
}

#[test]
fn promise_14_a_handshake_goes_on_with_the_generation_that_has_answered() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    client.wire.outgoing = Box::new(|datagram| if receiver(datagram) == Some(0) { Fate::Waits } else { Fate::Goes });
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "the second flight waits", |client| !client.wire.leaving.is_empty());
    test.restart();
    client.wire.outgoing = always(Fate::Goes);
    let all = client.wire.leaving.len();
    client.wire.let_go(all);
    // The old process has no other connection. It has waited for this one.
    assert_eq!(answers(&mut client, id, 1).generation, 0);
    client.close(id);
    assert_eq!(ask(&mut client).generation, 1);
    test.stop();
}

#[test]
fn promise_14_early_data_that_a_restart_has_cut_off_is_sent_again() {
    const FILES: usize = 90;
    let mut test = Test::start(&[]);
    let mut client = test.client();
    assert_eq!(ask(&mut client).generation, 0);
    client.wire.sent.clear();
    client.wire.outgoing = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    for file in 0..FILES as u64 {
        client.download(id, Request { file, length: 10 }, u64::MAX);
    }
    let is_early = |datagram: &Vec<u8>| datagram[0] & 0xb0 == 0x90;
    until(&mut client, "early data wait", |client| client.wire.leaving.iter().any(is_early));
    let first = client.wire.leaving.iter().position(is_early).expect("early data");
    assert!(first > 0, "the hello is first");
    client.wire.let_go(first);
    test.restart();
    client.wire.outgoing = always(Fate::Goes);
    let rest = client.wire.leaving.len();
    client.wire.let_go(rest);
    assert_eq!(answers(&mut client, id, FILES).generation, 0);
    client.close(id);
    client.go_on().expect("the end is sent");
    test.stop();
}

#[test]
fn promise_14_a_retry_of_a_generation_that_has_ended_is_good_for_the_next() {
    let mut test = Test::start(&["--retry"]);
    let mut client = test.client();
    client.wire.incoming = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "a Retry waits", |client| !client.wire.arriving.is_empty());
    assert_eq!(sender(&client.wire.arriving[0]), Some(0));
    test.restart();
    test.wait_for_the_end_of_drainers();
    client.wire.incoming = always(Fate::Goes);
    client.wire.let_in(|_| true);
    assert_eq!(answers(&mut client, id, 1).generation, 1);
    let retries = client.wire.received.iter().filter(|datagram| is_retry(datagram)).count();
    assert_eq!(retries, 1, "the new process takes the token of the old one");
    test.stop();
}

#[test]
fn promise_14_a_retry_of_a_generation_that_drains_is_its_own() {
    let mut test = Test::start(&["--retry"]);
    let mut holder = test.client();
    let held = hold(&mut holder);
    let mut client = test.client();
    client.wire.incoming = always(Fate::Waits);
    let id = client.connect().expect("a connection");
    client.download(id, SHORT, u64::MAX);
    until(&mut client, "a Retry waits", |client| !client.wire.arriving.is_empty());
    test.restart();
    client.wire.incoming = always(Fate::Goes);
    client.wire.let_in(|_| true);
    assert_eq!(answers(&mut client, id, 1).generation, 0);
    assert_eq!(ask(&mut test.client()).generation, 1);
    assert_eq!(finish(&mut holder, held).generation, 0);
    test.stop();
}

#[test]
fn promise_14_a_client_that_moves_to_other_ports_reaches_its_generation_by_other_ids() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    let id = hold(&mut client);
    let pid = test.service.pid;
    let mut ids = Vec::new();
    for restarts in 1..=3 {
        test.restart();
        let old = client.move_to(Tapped::new()).expect("another port");
        assert_ne!(old.socket.local_addr().ok(), client.wire.socket.local_addr().ok());
        ids.extend(old.sent);
        client.allow(id, 50_000 + restarts * 10_000);
        client.download(id, SHORT, u64::MAX);
        assert_eq!(answers(&mut client, id, 1).pid, pid);
        until(&mut client, "a little more is there", |client| client.received(id) == 50_000 + restarts * 10_000);
        assert_eq!(ask(&mut test.client()).generation, restarts as u32);
    }
    ids.extend(std::mem::take(&mut client.wire.sent));
    ids.retain(|datagram| !has_long_header(datagram));
    assert!(ids.iter().all(|datagram| receiver(datagram) == Some(0)), "each ID is marked");
    let mut ids: Vec<_> = ids.iter().map(|datagram| datagram[1..=LENGTH.into()].to_vec()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "one for each port");
    assert_eq!(finish(&mut client, id).pid, pid);
    let counted = test.stop();
    assert_eq!((counted.unknown, counted.astray), (0, 0));
}

#[test]
fn promise_14_the_clients_of_a_killed_generation_are_told_at_once_and_begin_anew() {
    let mut test = Test::start(&[]);
    let mut clients: Vec<_> = (0..20).map(|_| test.client()).collect();
    let held: Vec<_> = clients.iter_mut().map(hold).collect();
    let old = test.service.pid;
    test.restart();
    test.service.kill(old).expect("killed");
    let begun = Instant::now();
    for (client, id) in clients.iter_mut().zip(held.iter().copied()) {
        // It asks, and is told; else it would be told when it next says that it is there.
        client.download(id, SHORT, u64::MAX);
        client.go_on().expect("asked");
    }
    for (client, id) in clients.iter_mut().zip(held.iter().copied()) {
        until(client, "it is told", |client| client.session(id).is_some_and(|session| session.is_reset));
    }
    let told = begun.elapsed();
    println!("20 clients of a killed process were told in {told:?}");
    assert!(told < Duration::from_secs(3), "not by a time-out: {told:?}");
    for client in &mut clients {
        assert_eq!(ask(client).generation, 1);
    }
    let counted = test.service.stop(1).expect("the others have ended well");
    assert!(counted.orphaned + counted.unknown >= 20, "{counted:?}");
}

#[test]
fn promise_14_the_clients_of_a_successor_that_died_on_probation_begin_anew_with_the_old_generation() {
    let test = Test::start(&["--probation", "60"]);
    let socket = test.service.socket.clone();
    let asker = std::thread::spawn(move || request_restart(socket, LIMIT, |_| {}));
    let mut client = test.client();
    let begun = Instant::now();
    let new = loop {
        let head = ask(&mut client);
        if head.generation == 1 {
            break head.pid;
        }
        assert!(begun.elapsed() < LIMIT, "the successor does not serve");
    };
    let held = hold(&mut client);
    // It has the first flight of the new process, and its answer waits.
    let mut late = test.client();
    let is_answered = Rc::new(Cell::new(false));
    let sees = is_answered.clone();
    late.wire.incoming = Box::new(move |datagram| {
        sees.set(sees.get() || sender(datagram).is_some() && !is_retry(datagram));
        Fate::Goes
    });
    late.wire.outgoing = Box::new(move |_| if is_answered.get() { Fate::Waits } else { Fate::Goes });
    let half_way = late.connect().expect("a connection");
    late.download(half_way, SHORT, u64::MAX);
    until(&mut late, "the second flight waits", |client| !client.wire.leaving.is_empty());

    test.service.kill(new).expect("killed");
    asker.join().expect("no panic").expect_err("the restart has failed");
    client.download(held, SHORT, u64::MAX);
    until(&mut client, "it is told", |client| client.session(held).is_some_and(|session| session.is_reset));
    assert_eq!(ask(&mut client).generation, 0);
    // The old process ignores the rest of a handshake that it does not know. The request behind it is reset, as on any connection.
    late.wire.outgoing = always(Fate::Goes);
    let all = late.wire.leaving.len();
    late.wire.let_go(all);
    until(&mut late, "it is told", |client| client.session(half_way).is_some_and(|session| session.is_reset));
    assert_eq!(ask(&mut late).generation, 0);
    test.service.stop(1).expect("the old process has ended well");
}

/// A datagram in a version that nobody speaks, for an ID.
fn of_no_version(to: &[u8]) -> Vec<u8> {
    let ids = [&[to.len() as u8], to, &[4], b"here"].concat();
    let mut datagram = [&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a][..], &ids].concat();
    datagram.resize(1200, 0);
    datagram
}

fn blocking_socket() -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    socket
}

#[test]
fn promise_14_a_version_that_nobody_speaks_is_answered_whoever_gets_it() {
    let mut test = Test::start(&[]);
    let mut client = test.client();
    let held = hold(&mut client);
    let own = client.wire.sent.iter().rfind(|datagram| !has_long_header(datagram)).expect("a short header")[1..=LENGTH.into()].to_vec();
    test.restart();
    let socket = blocking_socket();
    for id in [&b"whatever"[..], &own, b"", &[7; 20]] {
        socket.send_to(&of_no_version(id), test.service.address).expect("sent");
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).expect("an answer");
        assert_eq!(answer[1..5], [0; 4], "a version negotiation");
        assert_eq!(long_ids(&answer[..length]), Some((&b"here"[..], id)));
    }
    assert_eq!(finish(&mut client, held).generation, 0);
    test.stop();
}

#[test]
fn promise_14_a_generation_does_not_reset_what_has_come_astray_in_a_train() {
    let mut test = Test::start(&[]);
    let id = |client: &Client<Tapped>| {
        let datagram = client.wire.sent.iter().rfind(|datagram| !has_long_header(datagram)).expect("a short header");
        datagram[1..=LENGTH.into()].to_vec()
    };
    let mut old = test.client();
    let held_by_old = hold(&mut old);
    test.restart();
    let mut new = test.client();
    let held_by_new = hold(&mut new);
    // Two segments, which the kernel sends where the first one is for: each way once.
    let socket = blocking_socket();
    let to = SockaddrStorage::from(test.service.address);
    let segment = |id: &[u8]| {
        let mut segment = [&[0x40][..], id].concat();
        segment.resize(100, 0xee);
        segment
    };
    for (first, second) in [(id(&old), id(&new)), (id(&new), id(&old))] {
        let train = [segment(&first), segment(&second)].concat();
        let size = [ControlMessage::UdpGsoSegments(&100)];
        let sent = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&train)], &size, MsgFlags::empty(), Some(&to));
        assert_eq!(sent, Ok(200));
        // The same process gets this next. If it had answered a segment, that answer would be first.
        socket.send_to(&of_no_version(&first), test.service.address).expect("sent");
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).expect("an answer");
        assert_eq!(long_ids(&answer[..length]), Some((&b"here"[..], &first[..])), "a version negotiation and no reset");
    }
    assert_eq!(finish(&mut new, held_by_new).generation, 1);
    assert_eq!(finish(&mut old, held_by_old).generation, 0);
    assert_eq!(test.stop().astray, 2);
}
