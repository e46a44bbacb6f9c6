//! What the keeper is told at which moment, without one.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use mio::{Poll, Token, Waker};

use super::*;

fn keeper(sort: Sort, held: Held) -> Keeper {
    keeper_of(sort, held, true)
}

fn keeper_of(sort: Sort, held: Held, is_guarded: bool) -> Keeper {
    let poll = Poll::new().expect("a poll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
    let inner = Inner { untaken: held.kept, leftover: held.leftover, ..Inner::default() };
    let mut keeper = Keeper::with(inner, Arc::new(waker), sort, Some(16));
    let shared = keeper.shared.as_mut().and_then(Arc::get_mut).expect("it is new");
    shared.is_guarded = is_guarded;
    keeper
}

fn file() -> OwnedFd {
    sys::memory_file().expect("memory").into()
}

/// What was ordered since, each as `+name` or `-name`, with how many descriptors go along.
fn orders(keeper: &Keeper) -> Vec<String> {
    let own = process::id().to_string();
    let word = |order: Order| {
        let name = order.text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().replace(&own, "PID");
        match order.descriptors.len() {
            0 if order.text.starts_with("FDSTOREREMOVE=1\n") => format!("-{name}"),
            0 => order.text.trim_end().into(),
            count => format!("+{name} {count}"),
        }
    };
    keeper.take_orders().into_iter().map(word).collect()
}

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (listener.accept().expect("a connection").0, client)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a listener")
}

const STREAMS_OF_THIS: &str = "pollflip.streams.PID";

#[test]
fn nothing_is_held_before_the_grant_and_only_connections_before_the_commit() {
    let (keeper, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    keeper.keep("state", &file()).expect("room");
    keeper.keep_stream(&connection(&listener).0).expect("room");
    assert_eq!(orders(&keeper), [""; 0]);
    keeper.granted();
    assert_eq!(orders(&keeper), [format!("+{STREAMS_OF_THIS} 4")]);
    keeper.granted();
    keeper.serves(Some(7), [("web", Listener::New(listener.as_fd())), ("given", Listener::Held)].into_iter());
    assert_eq!(orders(&keeper), ["+web 1", "+pollflip.kept.state 1", "-pollflip.streams.7"]);
    // From here on at once.
    keeper.keep("more", &file()).expect("room");
    keeper.keep("state", &file()).expect("room");
    keeper.listens("late", listener.as_fd());
    assert_eq!(orders(&keeper), ["+pollflip.kept.more 1", "-pollflip.kept.state", "+pollflip.kept.state 1", "+late 1"]);
    assert!(keeper.forget("more") && !keeper.forget("more"));
    keeper.listens_no_more("late");
    keeper.listens_no_more("late");
    assert_eq!(orders(&keeper), ["-pollflip.kept.more", "-late"]);
    keeper.stop();
    assert_eq!(orders(&keeper), ["-given", "-web", "-pollflip.kept.state", &format!("-{STREAMS_OF_THIS}")]);
    keeper.stop();
    keeper.handed_over();
    assert_eq!(orders(&keeper), [""; 0]);
}

#[test]
fn systemd_is_told_by_the_main_process_alone() {
    let (new, old) = (keeper_of(Sort::Keeps, Held::default(), false), keeper_of(Sort::Keeps, Held::default(), false));
    new.granted();
    assert_eq!(orders(&new), [""; 0], "the old one is the main process");
    new.serves(Some(7), [].into_iter());
    assert_eq!(orders(&new), [format!("+{STREAMS_OF_THIS} 4"), "-pollflip.streams.7".into()]);
    old.serves(None, [].into_iter());
    orders(&old);
    old.handed_over();
    assert_eq!(orders(&old), [""; 0], "it is not any more");
}

#[test]
fn what_an_old_process_drains_is_found_by_nobody() {
    let listener = listener();
    let (server, _client) = connection(&listener);
    for hands_over in [false, true] {
        let old = keeper(Sort::Keeps, Held::default());
        old.serves(None, [].into_iter());
        old.keep_stream(&server).expect("room");
        // As the keeper has it.
        let given = old.given();
        old.hands_over(hands_over);
        old.handed_over();
        let next = keeper(Sort::Keeps, Held::sort(given));
        let found = next.survivors(true).map_or(0, |survivors| survivors.len());
        assert_eq!(found, usize::from(hands_over));
    }
}

#[test]
fn what_a_process_before_kept_and_nobody_took_is_removed_at_the_commit() {
    let held = [
        ("pollflip.kept.a", file()),
        ("pollflip.kept.b", file()),
        ("pollflip.kept.c", file()),
        ("pollflip.streams.9", file()),
        ("web", file()),
    ];
    let held = Held::sort(held.map(|(name, file)| (name.to_owned(), file)));
    assert_eq!(held.sockets.len(), 1);
    let keeper = keeper(Sort::Keeps, held);
    assert!(keeper.take("a").is_some() && keeper.take("a").is_none() && keeper.take("x").is_none());
    // Another file under the name.
    keeper.keep("b", &file()).expect("room");
    keeper.serves(None, [].into_iter());
    let expected = ["-pollflip.kept.b", "+pollflip.kept.a 1", "+pollflip.kept.b 1", "-pollflip.streams.9", "-pollflip.kept.c"];
    assert_eq!(orders(&keeper)[1..], expected);
}

#[test]
fn what_is_forgotten_or_replaced_before_the_commit_is_removed_then() {
    let names = ["taken", "untaken", "replaced", "same"];
    let held = Held::sort(names.map(|name| (format!("pollflip.kept.{name}"), file())));
    let keeper = keeper(Sort::Keeps, held);
    let [_taken, _replaced, same] = ["taken", "replaced", "same"].map(|name| keeper.take(name).expect("it was kept"));
    assert!(keeper.forget("taken") && keeper.forget("untaken") && !keeper.forget("untaken"));
    assert!(keeper.take("taken").is_none() && keeper.take("untaken").is_none());
    keeper.keep("replaced", &file()).expect("room");
    // As each start does with the state that it has found.
    keeper.keep("same", &same).expect("room");
    keeper.serves(None, [].into_iter());
    let expected =
        ["-pollflip.kept.taken", "-pollflip.kept.untaken", "-pollflip.kept.replaced", "+pollflip.kept.replaced 1", "+pollflip.kept.same 1"];
    assert_eq!(orders(&keeper)[1..], expected);
    keeper.keep("same", &same).expect("room");
    assert_eq!(orders(&keeper), [""; 0], "it is held all the while");
}

#[test]
fn what_is_kept_after_a_roll_back_lies_where_the_keeper_looks() {
    let (keeper, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    keeper.serves(None, [].into_iter());
    let held = keeper.take_orders().remove(0).descriptors;
    // There was no connection.
    keeper.granted_to(8);
    keeper.taken_back();
    assert_eq!(orders(&keeper), ["-pollflip.streams.8"]);
    let (server, _client) = connection(&listener);
    keeper.keep_stream(&server).expect("room");
    let held = held.into_iter().map(|end| (format!("pollflip.streams.{}", process::id()), end));
    let next = keeper_of(Sort::Keeps, Held::sort(held), true);
    assert_eq!(next.survivors(true).expect("what was kept").len(), 1);
}

#[test]
fn a_successor_gets_what_is_kept_by_name_and_looks_into_the_queue() {
    let (old, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    old.keep("state", &file()).expect("room");
    old.serves(None, [].into_iter());
    let (server, _client) = connection(&listener);
    old.keep_stream(&server).expect("room");
    let new = keeper(Sort::Keeps, Held::sort(old.given()));
    assert!(new.take("state").is_some());
    assert!(new.survivors(false).is_none(), "the predecessor lives");
    // It is killed: the connection goes on in its successor.
    let mut survivors = new.survivors(true).expect("what was kept");
    let found: Vec<_> = survivors.streams().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(sys::socket_cookie(&found[0]).expect("a socket"), sys::socket_cookie(&server).expect("a socket"));
    assert_eq!(new.streams(), 1, "it is kept on");
    assert!(new.survivors(true).is_none(), "once");
}

#[test]
fn what_comes_back_with_the_service_is_the_programs_to_go_on_with() {
    let (keeper, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    keeper.serves(None, [].into_iter());
    let all: Vec<_> = (0..3).map(|_| connection(&listener)).collect();
    all.iter().for_each(|(server, _)| keeper.keep_stream(server).expect("room"));
    keeper.forget_stream(&all[2].0);
    orders(&keeper);
    keeper.granted_to(8);
    keeper.taken_back();
    assert_eq!(orders(&keeper), ["-pollflip.streams.8".to_owned(), format!("+{STREAMS_OF_THIS}.1 4")], "a kill loses nothing");
    assert_eq!(keeper.streams(), 0);
    assert_eq!(keeper.survivors(false).expect("what was kept").streams().count(), 2);
    assert_eq!(keeper.streams(), 2);
    assert_eq!(orders(&keeper), [""; 0]);
    keeper.settle();
    keeper.settle();
    assert_eq!(orders(&keeper), [format!("-{STREAMS_OF_THIS}")]);
    keeper.taken_back();
    assert_eq!(orders(&keeper), [""; 0], "it was granted to nobody since");
    assert!(keeper.given().iter().all(|(name, _)| *name == format!("pollflip.streams.{}.1", process::id())));
    keeper.stop();
    assert_eq!(orders(&keeper), [format!("-{STREAMS_OF_THIS}.1")]);
}

#[test]
fn a_connection_that_is_over_is_none_that_survives() {
    let (old, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    old.serves(None, [].into_iter());
    let [over, lives, forgotten, half_forgotten] = [(); 4].map(|()| connection(&listener));
    for (server, _) in [&over, &lives, &forgotten, &half_forgotten] {
        old.keep_stream(server).expect("room");
    }
    old.forget_stream(&forgotten.0);
    // As a process that is killed between the two steps of that.
    shut_down(&half_forgotten.0);
    nix::sys::socket::setsockopt(&over.1, nix::sys::socket::sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })
        .expect("a socket");
    drop(over.1);
    let new = keeper(Sort::Keeps, Held::sort(old.given()));
    let mut survivors = new.survivors(true).expect("what was kept");
    assert_eq!(survivors.len(), 1);
    assert_eq!(survivors.streams().count(), 1);
    assert!(survivors.is_empty());
}

#[test]
fn limits_are_said_before_they_bite() {
    let keeper = keeper(Sort::Keeps, Held::default());
    for name in ["", "a:b", "\u{e4}", &"x".repeat(242)] {
        assert_eq!(keeper.keep(name, &file()).expect_err("unfit").kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
    keeper.keep(&"x".repeat(241), &file()).expect("room");
    for number in 1..8 {
        keeper.keep(&number.to_string(), &file()).expect("room");
    }
    let error = keeper.keep("one more", &file()).expect_err("16, of which 4 are the queue's, and 4 the next one's");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("--store"), "{error}");
    assert!(keeper.keep("7", &file()).is_ok(), "that name has its place");
    assert!(keeper.keep_stream(&file()).is_err(), "it is no socket");
}

#[test]
fn without_a_keeper_names_go_to_successors_and_nothing_is_ordered() {
    let (keeper, listener) = (keeper(Sort::PassesOn, Held::default()), listener());
    assert!(!keeper.is_active());
    keeper.keep("state", &file()).expect("no limit");
    keeper.keep_stream(&connection(&listener).0).expect("nothing is done");
    keeper.serves(Some(3), [("web", Listener::New(listener.as_fd()))].into_iter());
    assert_eq!(orders(&keeper), [""; 0]);
    assert_eq!(keeper.given().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["pollflip.kept.state"]);
}

#[test]
fn a_program_that_keeps_nothing_has_removed_what_was_kept() {
    let held = Held::sort([("pollflip.kept.a".to_owned(), file()), ("pollflip.streams.9".to_owned(), file())]);
    let keeper = keeper(Sort::Removes, held);
    keeper.granted();
    assert_eq!(orders(&keeper), [""; 0], "not before the commit: a predecessor may still need it");
    keeper.serves(Some(9), [].into_iter());
    assert_eq!(orders(&keeper), ["-pollflip.streams.9", "-pollflip.kept.a"]);
    assert!(!keeper.for_program().is_active() && keeper.for_program().take("a").is_none());
}

#[test]
fn an_end_is_absolved_by_a_word() {
    let keeper = keeper(Sort::Keeps, Held::sort([("pollflip.kept.a".to_owned(), file())]));
    keeper.survivors(true).expect("what was kept").absolve();
    assert_eq!(orders(&keeper), ["X_POLLFLIP_ABSOLVED=1"]);
}
