use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use mio::Interest;
use nix::sys::signal::raise;
use nix::sys::socket::{MsgFlags, recv};
use temp_dir::TempDir;

use crate::predecessor;
use crate::restart_coordination_socket::ServiceState;
use crate::restarter::reactor::{FIRST_CLIENT, Ready};
use crate::restarter::testing::{LIMIT, collect_until};
use crate::wire::{Coordination, Request};

use super::*;

const RESTART: Request = Request::Restart { progress: false };
const RESTART_WITH_PROGRESS: Request = Request::Restart { progress: true };

/// Who asks at a socket of its own.
struct Fixture {
    requests: Requests,
    reactor: Reactor,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = TempDir::new().expect("a directory");
        let server = Server::new(&directory.path().join("socket"), FIRST_CLIENT).expect("a server");
        let mut fixture = Fixture::of(Requests::new(None, None, Some(server)), directory);
        fixture.requests.open(&fixture.reactor);
        fixture
    }

    fn of(requests: Requests, directory: TempDir) -> Fixture {
        Fixture { requests, reactor: Reactor::new().expect("a reactor"), directory }
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(self.directory.path().join("socket")).expect("a server");
        client.set_read_timeout(Some(LIMIT)).expect("a limit");
        client
    }

    /// A client that has asked that.
    fn ask(&self, request: Request) -> UnixStream {
        let mut client = self.connect();
        client.write_all(&Coordination::Request(request).encode()).expect("a client");
        client
    }

    /// Takes in what is ready, once something is.
    fn turn(&mut self) -> Vec<Input> {
        let ready = collect_until(&mut self.reactor, |_| true);
        self.take_in(ready)
    }

    fn take_in(&mut self, ready: Ready) -> Vec<Input> {
        let moment = Moment { ready, ..Moment::at(self.reactor.now()) };
        let mut inputs = Vec::new();
        self.requests.poll(&moment, &self.reactor, &mut inputs);
        self.requests.admit(&moment, &self.reactor, &mut inputs);
        inputs
    }

    fn next_deadline(&self) -> Option<Due> {
        self.requests.next_deadline(self.reactor.now())
    }

    /// The ticket of the one request that comes.
    fn ticket(&mut self) -> Ticket {
        let inputs = self.turn();
        match inputs[..] {
            [Input::Request(ticket)] => ticket,
            _ => panic!("{inputs:?}"),
        }
    }

    fn complete(&mut self, ticket: Ticket, pid: u32) -> Option<Asker> {
        self.requests.reply(ticket, || Response::RestartComplete(pid), &self.reactor)
    }
}

/// What a client is told next.
fn answer(client: &mut UnixStream) -> Response {
    let mut length = [0; 4];
    client.read_exact(&mut length).expect("an answer");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut frame).expect("a whole answer");
    match Coordination::decode(&frame) {
        Ok(Coordination::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// Whether a client has been told nothing more, and has not been hung up on.
fn hears_nothing(client: &UnixStream) -> bool {
    let heard = recv(client.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).map_err(io::Error::from);
    heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn status(state: ServiceState) -> Status {
    Status::new(1, 0, state)
}

#[test]
fn a_ticket_is_answered_once() {
    let mut fixture = Fixture::new();
    let mut client = fixture.ask(RESTART);
    let ticket = fixture.ticket();
    assert!(hears_nothing(&client));
    assert!(matches!(fixture.complete(ticket, 7), Some(Asker::Client(_))));
    assert_eq!(answer(&mut client), Response::RestartComplete(7));
    assert_eq!(fixture.complete(ticket, 8), None);
    assert_eq!(fixture.complete(Ticket(ticket.0 + 1), 8), None);
    assert!(hears_nothing(&client));
}

#[test]
fn what_a_client_asked_before_it_was_answered_is_taken_in_when_it_has_been() {
    let mut fixture = Fixture::new();
    let mut client = fixture.connect();
    client.write_all(&[RESTART, RESTART].map(|request| Coordination::Request(request).encode()).concat()).expect("a client");
    let first = fixture.ticket();
    // That it can be read and written comes as an event too, once.
    assert_eq!(fixture.turn(), []);
    assert!(fixture.reactor.collect().is_none());
    fixture.complete(first, 1);
    // It has not read the answer yet, which would be an event of its own.
    let second = fixture.ticket();
    assert_ne!(first, second);
    fixture.complete(second, 2);
    assert_eq!(answer(&mut client), Response::RestartComplete(1));
    assert_eq!(answer(&mut client), Response::RestartComplete(2));
}

#[test]
fn two_that_ask_are_told_their_own_ends() {
    let mut fixture = Fixture::new();
    let mut first = fixture.ask(RESTART);
    let one = fixture.ticket();
    let mut second = fixture.ask(RESTART);
    let other = fixture.ticket();
    let Input::Request(program) = fixture.requests.request(Asker::Program) else { panic!("no request") };
    // The program gets no answer, and none is made up for it.
    let asker = fixture.requests.reply(program, || panic!("nobody to tell"), &fixture.reactor);
    assert_eq!(asker, Some(Asker::Program));
    fixture.complete(other, 2);
    assert_eq!(answer(&mut second), Response::RestartComplete(2));
    assert!(hears_nothing(&first));
    fixture.complete(one, 1);
    assert_eq!(answer(&mut first), Response::RestartComplete(1));
}

#[test]
fn a_late_reply_does_not_reach_the_next_client_in_the_place() {
    let mut fixture = Fixture::new();
    let gone = fixture.ask(RESTART_WITH_PROGRESS);
    let late = fixture.ticket();
    drop(gone);
    // That it has gone is seen when it is told something.
    fixture.requests.progress("a line");
    assert_eq!(fixture.turn(), []);
    let mut next = fixture.ask(RESTART);
    let ticket = fixture.ticket();
    let place = |fixture: &Fixture, ticket| fixture.requests.askers.iter().find(|(asked, _)| *asked == ticket).map(|(_, asker)| *asker);
    let [Some(Asker::Client(before)), Some(Asker::Client(now))] = [place(&fixture, late), place(&fixture, ticket)] else {
        panic!("two clients have asked");
    };
    let key = |client: ClientId| format!("{client:?}").split(',').next().map(String::from);
    assert_eq!(key(before), key(now), "the place is the same");
    assert!(fixture.complete(late, 1).is_some());
    assert!(hears_nothing(&next));
    fixture.complete(ticket, 2);
    assert_eq!(answer(&mut next), Response::RestartComplete(2));
}

#[test]
fn those_who_ask_for_the_status_are_told_once_and_nobody_in_their_place() {
    let mut fixture = Fixture::new();
    assert!(!fixture.requests.wants_status());
    let mut clients = [fixture.ask(Request::Status), fixture.ask(Request::Status)];
    assert_eq!(fixture.turn(), []);
    assert!(fixture.requests.wants_status());
    fixture.requests.answer_status(&status(ServiceState::Serving), &fixture.reactor);
    assert!(!fixture.requests.wants_status());
    for client in &mut clients {
        assert_eq!(answer(client), Response::Status(Box::new(status(ServiceState::Serving))));
    }
    fixture.requests.answer_status(&status(ServiceState::Spawning), &fixture.reactor);
    assert!(clients.iter().all(hears_nothing));

    let gone = fixture.ask(Request::Status);
    while !fixture.requests.wants_status() {
        fixture.turn();
    }
    drop((gone, clients));
    while fixture.next_deadline().is_some() {
        assert_eq!(fixture.turn(), []);
    }
    let next = fixture.ask(RESTART);
    fixture.ticket();
    fixture.requests.answer_status(&status(ServiceState::Serving), &fixture.reactor);
    assert!(hears_nothing(&next));
}

#[test]
fn lines_of_progress_go_to_those_who_wait_and_want_them() {
    let mut fixture = Fixture::new();
    let mut wants = fixture.ask(RESTART_WITH_PROGRESS);
    fixture.ticket();
    let quiet = fixture.ask(RESTART);
    fixture.ticket();
    let knows = fixture.ask(Request::Status);
    fixture.turn();
    fixture.requests.progress("half of it");
    assert_eq!(answer(&mut wants), Response::Progress("half of it".into()));
    assert!(hears_nothing(&quiet) && hears_nothing(&knows));
}

#[test]
fn a_restart_signal_is_one_request_however_often_it_came_and_another_signal_none() {
    // What these do by default is nothing, and no other test of this crate raises them.
    let (own, predecessors) = (Signal::SIGWINCH, Signal::SIGURG);
    let mut signals = Signals::new([own as i32, predecessors as i32]).expect("handlers");
    let directory = TempDir::new().expect("a directory");
    let reactor = Reactor::new().expect("a reactor");
    reactor.registry().register(&mut signals, SIGNALS, Interest::READABLE).expect("a watch");
    let mut fixture = Fixture { requests: Requests::new(Some(signals), Some(own), None), reactor, directory };
    assert_eq!(fixture.requests.signal(), Some(own));

    raise(predecessors).expect("a signal");
    let ready = collect_until(&mut fixture.reactor, |ready| ready.has(SIGNALS));
    assert_eq!(fixture.take_in(ready), []);
    for _ in 0..3 {
        raise(own).expect("a signal");
    }
    let ready = collect_until(&mut fixture.reactor, |ready| ready.has(SIGNALS));
    let inputs = fixture.take_in(ready);
    let [Input::Request(ticket)] = inputs[..] else { panic!("{inputs:?}") };
    let asker = fixture.requests.reply(ticket, || panic!("nobody to tell"), &fixture.reactor);
    assert_eq!(asker, Some(Asker::Signal));

    SigSet::from_iter([own]).thread_block().expect("a mask");
    fixture.requests.unblock_signal();
    assert!(!SigSet::thread_get_mask().expect("a mask").contains(own));
}

#[test]
fn a_listener_that_is_handed_over_leaves_those_who_wait_their_answers() {
    let mut fixture = Fixture::new();
    let path = fixture.directory.path().join("socket");
    assert_eq!(fixture.requests.listener().map(|(path, ..)| path.to_owned()), Some(path.clone()));
    let mut waits = fixture.ask(RESTART);
    let ticket = fixture.ticket();
    let mut unread = fixture.connect();
    fixture.turn();
    unread.write_all(&Coordination::Request(RESTART).encode()).expect("a client");
    fixture.requests.hand_over(&fixture.reactor);
    assert!(fixture.requests.listener().is_none());
    assert!(matches!(answer(&mut unread), Response::RestartRefused(why) if why.contains("ask again")));
    assert!(hears_nothing(&waits));
    fixture.complete(ticket, 3);
    assert_eq!(answer(&mut waits), Response::RestartComplete(3));
    // Here the listener has no other holder: nobody answers there any more, and the path is another's to take away.
    assert!(UnixStream::connect(&path).is_err());
    fixture.requests.remove_path();
    assert!(path.exists());
}

#[test]
fn nobody_is_taken_in_as_long_as_the_predecessor_does_that() {
    let first = Fixture::new();
    let (path, [identity, root], listener) = first.requests.listener().expect("a listener");
    let listener = listener.try_clone_to_owned().expect("a duplicate");
    let given = predecessor::Coordination { path: path.into(), identity, root, listener };
    let Fixture { directory, requests, .. } = first;
    // It takes nobody in, and holds the path.
    let _predecessor = requests;
    let mut fixture = Fixture::of(Requests::new(None, None, Some(Server::go_on(given, FIRST_CLIENT))), directory);
    let mut client = fixture.ask(RESTART);
    fixture.requests.open(&fixture.reactor);
    assert!(fixture.reactor.collect().is_none());
    fixture.requests.answer_alone();
    fixture.requests.open(&fixture.reactor);
    let ticket = fixture.ticket();
    fixture.complete(ticket, 4);
    assert_eq!(answer(&mut client), Response::RestartComplete(4));
}

#[test]
fn the_path_is_removed_if_it_is_still_the_own_one() {
    let mut fixture = Fixture::new();
    let path = fixture.directory.path().join("socket");
    fixture.requests.remove_path();
    assert!(!path.exists());
    let mut fixture = Fixture::new();
    let path = fixture.directory.path().join("socket");
    fs::remove_file(&path).expect("a socket");
    fs::write(&path, "another's").expect("a file");
    fixture.requests.remove_path();
    assert_eq!(fs::read_to_string(&path).expect("a file"), "another's");
}

#[test]
fn a_client_that_says_nothing_has_a_deadline_and_one_that_waits_has_none() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.next_deadline(), None);
    let _waits = fixture.ask(RESTART);
    fixture.ticket();
    assert_eq!(fixture.next_deadline(), None);
    let mut silent = fixture.connect();
    fixture.turn();
    let Some((due, Deadline::Client)) = fixture.next_deadline() else { panic!("no deadline") };
    let mut inputs = Vec::new();
    fixture.requests.admit(&Moment::at(due - Duration::from_nanos(1)), &fixture.reactor, &mut inputs);
    assert!(hears_nothing(&silent));
    fixture.requests.admit(&Moment::at(due), &fixture.reactor, &mut inputs);
    assert_eq!(silent.read(&mut [0]).expect("the end"), 0);
    assert_eq!((inputs, fixture.next_deadline()), (vec![], None));
}
