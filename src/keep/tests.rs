//! What the keeper is told at which moment, and what a start finds after a kill at any of them, without a process.

use std::net::{TcpListener, TcpStream};
use std::process;

use mio::{Poll, Token, Waker};

use super::*;

fn keeper(sort: Sort, held: Held) -> Keeper {
    keeper_of(sort, held, false)
}

fn keeper_of(sort: Sort, held: Held, is_successor: bool) -> Keeper {
    let poll = Poll::new().expect("a poll");
    let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
    Keeper::with(Inner { is_successor, ..Inner::new(held) }, Arc::new(waker), sort, Room::new(Some(16)))
}

/// One that serves, and has told so.
fn serving() -> Keeper {
    let keeper = keeper(Sort::Keeps, Held::default());
    take_service(&keeper);
    keeper
}

fn take_service(keeper: &Keeper) {
    keeper.take_service(false, [].into_iter(), [].into_iter());
}

fn file() -> OwnedFd {
    sys::memory_file().expect("memory").into()
}

/// A keeper: what it holds after each order.
#[derive(Default)]
struct Store {
    entries: Vec<(String, OwnedFd)>,
}

impl Store {
    fn obey(&mut self, order: Order) {
        let name = name_of(&order);
        if order.text.starts_with("FDSTOREREMOVE=1\n") {
            self.entries.retain(|(held, _)| *held != name);
        }
        for descriptor in order.descriptors {
            let is_same = |held: &OwnedFd| sys::is_same_open_file(held, &descriptor).expect("a kernel that tells");
            // As a guard and systemd do, whatever the name.
            if !self.entries.iter().any(|(_, held)| is_same(held)) {
                self.entries.push((name.clone(), descriptor));
            }
        }
    }

    fn obey_all(&mut self, keeper: &Keeper) {
        keeper.take_orders().into_iter().for_each(|order| self.obey(order));
    }

    /// What a start is given that comes now.
    fn held(&self) -> Held {
        // Some keepers give what they have the other way round.
        let held = Held::sort(self.entries.iter().rev().map(|(name, held)| (name.clone(), copy(held))));
        let same = Held::sort(self.entries.iter().map(|(name, held)| (name.clone(), copy(held))));
        let latest =
            |held: &Held| held.kept.iter().map(|(name, versions)| (name.clone(), versions.slots.last().copied())).collect::<Vec<_>>();
        assert_eq!(latest(&held), latest(&same));
        Held::sort(self.entries.iter().map(|(name, held)| (name.clone(), copy(held))))
    }

    /// The cookies of the connections that such a start finds.
    fn streams(&self) -> Vec<u64> {
        let found = keeper(Sort::Keeps, self.held()).survivors(true);
        let mut cookies: Vec<u64> =
            found.into_iter().flat_map(|mut found| found.streams().map(|stream| cookie(&stream)).collect::<Vec<_>>()).collect();
        cookies.sort_unstable();
        cookies
    }

    /// What such a start finds under a name.
    fn named(&self, name: &str) -> Option<OwnedFd> {
        keeper(Sort::Keeps, self.held()).take(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.entries.iter().map(|(name, _)| name.replace(&process::id().to_string(), "PID")).collect();
        names.dedup();
        names
    }
}

fn name_of(order: &Order) -> String {
    order.text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().into()
}

/// What was ordered since, each as `+name` or `-name`, with how many descriptors go along.
fn orders(keeper: &Keeper) -> Vec<String> {
    let word = |order: Order| {
        let name = name_of(&order).replace(&process::id().to_string(), "PID");
        match order.descriptors.len() {
            0 if order.text.starts_with("FDSTOREREMOVE=1\n") => format!("-{name}"),
            0 => order.text.trim_end().into(),
            count => format!("+{name} {count}"),
        }
    };
    keeper.take_orders().into_iter().map(word).collect()
}

fn copy(descriptor: &impl AsFd) -> OwnedFd {
    sys::duplicate(descriptor, 3).expect("a duplicate")
}

fn cookie(stream: &impl AsFd) -> u64 {
    sys::socket_cookie(stream).expect("a socket")
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    sys::is_same_open_file(one, other).expect("a kernel that tells")
}

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (listener.accept().expect("a connection").0, client)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a listener")
}

/// A successor, with what it is given of what that one keeps.
fn successor_of(old: &Keeper) -> Keeper {
    keeper_of(Sort::Keeps, Held::sort(old.given()), true)
}

#[test]
fn nothing_is_held_before_the_service_is_taken_and_then_all_at_once() {
    let (keeper, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    keeper.keep("state", &file()).expect("room");
    keeper.keep_stream(&connection(&listener).0).expect("room");
    assert_eq!(orders(&keeper), [""; 0]);
    keeper.take_service(false, [("web", Listener::New(listener.as_fd())), ("given", Listener::Held)].into_iter(), [].into_iter());
    assert_eq!(orders(&keeper), ["+pollflip.streams.PID.0 4", "+web 1", "+pollflip.kept.state 1"]);
    take_service(&keeper);
    assert_eq!(orders(&keeper), [""; 0], "once");
    // From here on at once.
    keeper.keep("more", &file()).expect("room");
    keeper.keep("state", &file()).expect("room");
    keeper.listens("late", listener.as_fd());
    assert_eq!(orders(&keeper), ["+pollflip.kept.more 1", "+pollflip.kept1.state 1", "-pollflip.kept.state", "+late 1"]);
    assert!(keeper.forget("more") && !keeper.forget("more"));
    keeper.listens_no_more("late");
    keeper.listens_no_more("late");
    assert_eq!(orders(&keeper), ["-pollflip.kept.more", "-late"]);
    keeper.stop();
    assert_eq!(orders(&keeper), ["-given", "-web", "-pollflip.kept1.state", "-pollflip.streams.PID.0"]);
    keeper.stop();
    keeper.keep("late", &file()).expect("nothing is done");
    keeper.keep_stream(&connection(&listener).0).expect("nothing is done");
    assert_eq!((orders(&keeper), keeper.streams()), (Vec::new(), 0));
}

#[test]
fn a_kill_while_something_is_replaced_leaves_the_one_or_the_other() {
    let keeper = serving();
    let mut store = Store::default();
    let files: Vec<_> = (0..7).map(|_| file()).collect();
    keeper.keep("state", &files[0]).expect("room");
    store.obey_all(&keeper);
    for pair in files.windows(2) {
        let [before, after] = pair else { unreachable!("they are two") };
        keeper.keep("state", after).expect("room");
        let orders = keeper.take_orders();
        assert_eq!(orders.len(), 2);
        for order in orders {
            store.obey(order);
            let found = store.named("state").expect("the one or the other");
            assert!(is_same(&found, before) || is_same(&found, after));
        }
        assert!(is_same(&store.named("state").expect("what was kept"), after));
        assert_eq!(store.entries.len(), 5, "nothing is left behind");
    }
}

#[test]
fn a_kill_while_a_start_replaces_what_it_found_leaves_the_one_or_the_other() {
    for killed_amid_a_replacement in [false, true] {
        // Of each slot, and with two of them.
        for replacements in 0..4 {
            let (first, mut store) = (serving(), Store::default());
            let mut newest = file();
            first.keep("state", &newest).expect("room");
            for _ in 0..replacements {
                newest = file();
                first.keep("state", &newest).expect("room");
            }
            let mut orders = first.take_orders();
            if killed_amid_a_replacement && replacements > 0 {
                orders.pop();
            }
            orders.into_iter().for_each(|order| store.obey(order));
            let next = keeper(Sort::Keeps, store.held());
            assert!(is_same(&next.take("state").expect("what was kept"), &newest), "the later one");
            let anew = file();
            next.keep("state", &file()).expect("room");
            assert!(next.forget("state"));
            next.keep("state", &file()).expect("room");
            next.keep("state", &anew).expect("room");
            take_service(&next);
            for order in next.take_orders() {
                store.obey(order);
                let found = store.named("state").expect("the one or the other");
                assert!(is_same(&found, &newest) || is_same(&found, &anew));
            }
            assert!(is_same(&store.named("state").expect("what was kept"), &anew));
            assert_eq!(store.names().len(), 2, "{:?}", store.names());
        }
    }
}

#[test]
fn what_a_process_before_kept_and_nobody_took_is_removed_when_the_service_is_taken() {
    let names = ["pollflip.kept.a", "pollflip.kept.b", "pollflip.kept2.c", "pollflip.streams.9", "web"];
    let held = Held::sort(names.map(|name| (name.to_owned(), file())));
    assert_eq!(held.sockets.len(), 1);
    let keeper = keeper(Sort::Keeps, held);
    assert!(keeper.take("a").is_some() && keeper.take("a").is_none() && keeper.take("x").is_none());
    // Another file under the name.
    keeper.keep("b", &file()).expect("room");
    take_service(&keeper);
    let expected = ["+pollflip.kept.a 1", "+pollflip.kept1.b 1", "-pollflip.kept.b", "-pollflip.streams.9", "-pollflip.kept2.c"];
    assert_eq!(orders(&keeper)[1..], expected);
}

#[test]
fn what_is_forgotten_or_the_same_before_the_service_is_taken_is_removed_then_or_stays() {
    let names = ["taken", "untaken", "same"];
    let held = Held::sort(names.map(|name| (format!("pollflip.kept.{name}"), file())));
    let keeper = keeper(Sort::Keeps, held);
    let [_taken, same] = ["taken", "same"].map(|name| keeper.take(name).expect("it was kept"));
    assert!(keeper.forget("taken") && keeper.forget("untaken") && !keeper.forget("untaken"));
    assert!(keeper.take("taken").is_none() && keeper.take("untaken").is_none());
    // As each start does with the state that it has found.
    keeper.keep("same", &same).expect("room");
    take_service(&keeper);
    assert_eq!(orders(&keeper)[1..], ["+pollflip.kept.same 1", "-pollflip.kept.taken", "-pollflip.kept.untaken"]);
    keeper.keep("same", &same).expect("room");
    assert_eq!(orders(&keeper), [""; 0], "it is held all the while");
}

#[test]
fn the_connections_of_a_successor_are_held_before_it_is_started() {
    let (old, listener) = (serving(), listener());
    let mut store = Store::default();
    old.hold(Whose::Both);
    store.obey_all(&old);
    let new = successor_of(&old);
    let (server, _client) = connection(&listener);
    new.keep_stream(&server).expect("room");
    assert_eq!(store.streams(), [cookie(&server)], "the successor has told nobody anything");
    // It comes to nothing.
    drop(new);
    old.hold(Whose::This);
    assert_eq!(orders(&old), ["-pollflip.streams.PID.1"]);
    old.hold(Whose::Both);
    assert_eq!(orders(&old), ["+pollflip.streams.PID.2 4"], "the next one has its own");
}

#[test]
fn a_kill_at_any_point_of_a_commit_finds_what_the_successor_has_and_nothing_that_is_drained() {
    let (old, listener) = (serving(), listener());
    let mut store = Store::default();
    let all: Vec<_> = (0..3).map(|_| connection(&listener)).collect();
    all.iter().for_each(|(server, _)| old.keep_stream(server).expect("room"));
    old.keep("state", &file()).expect("room");
    old.hold(Whose::Both);
    store.obey_all(&old);
    let new = successor_of(&old);
    let state = new.take("state").expect("it was given");
    // Two are handed over, and one comes in after the grant. The last one is drained.
    let later = connection(&listener);
    let mut of_new = vec![cookie(&all[0].0), cookie(&all[1].0), cookie(&later.0)];
    let of_both: Vec<u64> = all.iter().map(|(server, _)| cookie(server)).collect();
    new.keep_stream(&all[0].0).expect("room");
    new.keep_stream(&all[1].0).expect("room");
    assert_eq!(store.streams(), of_both, "both are killed before the grant: each is found once");
    new.keep_stream(&later.0).expect("room");
    // What the old one keeps now is nobody's when it is final.
    old.keep("only here", &file()).expect("room");
    store.obey_all(&old);
    old.hold(Whose::Successor);
    let orders = old.take_orders();
    assert_eq!(orders.len(), 2, "{orders:?}");
    orders.into_iter().for_each(|order| store.obey(order));
    of_new.sort_unstable();
    // From here on a start may come while the old process drains.
    assert_eq!(store.streams(), of_new);
    assert!(is_same(&store.named("state").expect("it was kept"), &state) && store.named("only here").is_none());
    old.close();
    take_service(&new);
    for order in new.take_orders() {
        store.obey(order);
        assert_eq!(store.streams(), of_new);
        assert!(is_same(&store.named("state").expect("it was kept"), &state));
    }
    assert_eq!(store.names(), ["pollflip.kept.state", "pollflip.streams.PID.1"]);
    old.keep_stream(&later.0).expect("nothing is done");
    assert_eq!(old.streams(), 0, "the service is another's");
}

#[test]
fn a_successor_whose_predecessor_is_killed_has_all_removed_that_was_that_one_s() {
    let (old, listener) = (serving(), listener());
    let mut store = Store::default();
    let [given, replaced] = [file(), file()];
    old.keep("given", &given).expect("room");
    old.keep("replaced", &replaced).expect("room");
    let (server, _client) = connection(&listener);
    old.keep_stream(&server).expect("room");
    old.hold(Whose::Both);
    let new = successor_of(&old);
    assert!(new.take("given").is_some() && new.take("replaced").is_some());
    // The successor knows nothing of it.
    old.keep("replaced", &file()).expect("room");
    store.obey_all(&old);
    drop(old);
    // It goes on with the connection.
    let found: Vec<_> = new.survivors(true).expect("what was kept").streams().collect();
    assert_eq!(found.iter().map(cookie).collect::<Vec<_>>(), [cookie(&server)]);
    take_service(&new);
    for order in new.take_orders() {
        store.obey(order);
        assert_eq!(store.streams(), [cookie(&server)]);
        assert!(is_same(&store.named("given").expect("it was kept"), &given));
    }
    assert!(is_same(&store.named("replaced").expect("it was kept"), &replaced), "the one that the new process has");
    assert_eq!(store.names().len(), 3, "{:?}", store.names());
}

/// The successor was started before, and is left alone.
#[test]
fn what_a_killed_predecessor_has_kept_under_a_new_name_is_not_found_in_the_place_of_what_its_successor_keeps() {
    let (old, mut store, [stale, fresh]) = (serving(), Store::default(), [file(), file()]);
    old.hold(Whose::Both);
    let new = successor_of(&old);
    old.keep("late", &stale).expect("room");
    store.obey_all(&old);
    drop(old);
    take_service(&new);
    store.obey_all(&new);
    new.keep("late", &fresh).expect("room");
    store.obey_all(&new);
    assert!(is_same(&store.named("late").expect("it is kept"), &fresh));
    assert_eq!(store.entries.iter().filter(|(name, _)| name.ends_with(".late")).count(), 1);
}

#[test]
fn what_a_killed_predecessor_has_kept_under_a_new_name_is_forgotten_with_that() {
    let (old, mut store) = (serving(), Store::default());
    old.hold(Whose::Both);
    let new = successor_of(&old);
    old.keep("late", &file()).expect("room");
    store.obey_all(&old);
    drop(old);
    take_service(&new);
    assert!(!new.forget("late"), "this process had nothing of that name");
    store.obey_all(&new);
    assert!(store.named("late").is_none());
}

/// Killed when its successor has looked for survivors, and has yet to be granted the service.
#[test]
fn what_a_predecessor_has_left_stays_until_the_program_was_told_of_its_end_and_has_gone_on() {
    let listener = listener();
    let begin = |is_told_before: bool, is_alone: bool| {
        let (old, (server, client)) = (serving(), connection(&listener));
        old.keep_stream(&server).expect("room");
        old.hold(Whose::Both);
        let new = successor_of(&old);
        assert!(new.survivors(false).is_none(), "it lives");
        let mut store = Store::default();
        store.obey_all(&old);
        if is_told_before {
            new.let_survivors_go();
        }
        new.take_service(is_alone, [].into_iter(), [].into_iter());
        store.obey_all(&new);
        (new, store, cookie(&server), client)
    };
    for asks in [true, false] {
        let (new, mut store, server, client) = begin(false, true);
        assert_eq!(store.streams(), [server], "a start that comes now finds it");
        let found: Vec<_> = if asks { new.survivors(true).expect("what was kept").streams().collect() } else { Vec::new() };
        assert_eq!(found.len(), usize::from(asks));
        new.let_survivors_go();
        store.obey_all(&new);
        assert!(new.survivors(true).is_none(), "once, and in time");
        assert_eq!(store.streams(), found.iter().map(cookie).collect::<Vec<_>>());
        // Its peer learns that nobody has taken it.
        assert_eq!(sys::is_readable_within(&client, std::time::Duration::ZERO), !asks);
    }
    for (is_told_before, is_alone) in [(true, true), (true, false), (false, false)] {
        let (new, store, ..) = begin(is_told_before, is_alone);
        assert_eq!(store.streams(), [0; 0], "told before: {is_told_before}, alone: {is_alone}");
        assert!(new.survivors(true).is_none());
    }
    // The program was told, and has not said that it is ready.
    let (old, (server, _client)) = (serving(), connection(&listener));
    old.keep_stream(&server).expect("room");
    let new = successor_of(&old);
    new.let_survivors_go();
    assert_eq!(new.survivors(true).expect("what was kept").len(), 1);
}

#[test]
fn what_is_kept_after_a_roll_back_lies_where_the_keeper_looks() {
    let (keeper, listener) = (serving(), listener());
    let mut store = Store::default();
    // There was no connection.
    keeper.hold(Whose::Both);
    keeper.hold(Whose::Returned);
    assert_eq!(keeper.returned().count(), 0);
    keeper.hold(Whose::This);
    store.obey_all(&keeper);
    let (server, _client) = connection(&listener);
    keeper.keep_stream(&server).expect("room");
    assert_eq!((store.streams(), store.entries.len()), (vec![cookie(&server)], 4));
}

#[test]
fn a_successor_gets_what_is_kept_by_name_and_looks_into_the_queue() {
    let (old, listener) = (keeper(Sort::Keeps, Held::default()), listener());
    old.keep("state", &file()).expect("room");
    take_service(&old);
    let (server, _client) = connection(&listener);
    old.keep_stream(&server).expect("room");
    old.hold(Whose::Both);
    let new = successor_of(&old);
    assert!(new.take("state").is_some());
    assert!(new.survivors(false).is_none(), "the predecessor lives");
    // It is killed: the connection goes on in its successor.
    let mut survivors = new.survivors(true).expect("what was kept");
    let found: Vec<_> = survivors.streams().collect();
    assert_eq!(found.iter().map(cookie).collect::<Vec<_>>(), [cookie(&server)]);
    assert_eq!(new.streams(), 1, "it is kept on");
    assert!(new.survivors(true).is_none(), "once");
}

#[test]
fn what_comes_back_with_the_service_is_the_programs_to_go_on_with() {
    let (keeper, listener) = (serving(), listener());
    let mut store = Store::default();
    let all: Vec<_> = (0..3).map(|_| connection(&listener)).collect();
    all.iter().for_each(|(server, _)| keeper.keep_stream(server).expect("room"));
    keeper.forget_stream(&all[2].0);
    let both: Vec<u64> = all[..2].iter().map(|(server, _)| cookie(server)).collect();
    store.obey_all(&keeper);
    keeper.hold(Whose::Both);
    store.obey_all(&keeper);
    let new = successor_of(&keeper);
    new.keep_stream(&connection(&listener).0).expect("room");
    drop(new);
    keeper.hold(Whose::Returned);
    for order in keeper.take_orders() {
        store.obey(order);
        assert!(both.iter().all(|cookie| store.streams().contains(cookie)), "a kill loses nothing");
    }
    assert_eq!((store.streams(), keeper.streams()), (both.clone(), 0), "what the successor kept ends with it");
    let mut returned = keeper.returned();
    let first = returned.next().expect("what was kept");
    drop(returned);
    assert_eq!((keeper.returned().count(), keeper.streams()), (0, 1));
    keeper.hold(Whose::This);
    store.obey_all(&keeper);
    assert_eq!(store.streams(), [cookie(&first)], "the program has not gone on with the other");
    assert_eq!(store.names(), ["pollflip.streams.PID.2"]);
    keeper.stop();
    store.obey_all(&keeper);
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn a_process_with_the_number_of_one_before_takes_none_of_its_names() {
    let (first, listener) = (serving(), listener());
    let mut store = Store::default();
    let (server, _client) = connection(&listener);
    first.keep_stream(&server).expect("room");
    store.obey_all(&first);
    let next = keeper(Sort::Keeps, store.held());
    let _kept: Vec<_> = next.survivors(true).expect("what was kept").streams().collect();
    take_service(&next);
    for order in next.take_orders() {
        store.obey(order);
        assert_eq!(store.streams(), [cookie(&server)]);
    }
    assert_eq!(store.names(), ["pollflip.streams.PID.1"]);
}

#[test]
fn a_connection_that_is_over_is_none_that_survives() {
    let (old, listener) = (serving(), listener());
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
    let new = successor_of(&old);
    let mut survivors = new.survivors(true).expect("what was kept");
    assert_eq!(survivors.len(), 1);
    assert_eq!(survivors.streams().count(), 1);
    assert!(survivors.is_empty());
}

#[test]
fn limits_are_said_before_they_bite() {
    let keeper = serving();
    for name in ["", "a:b", "\u{e4}", &"x".repeat(241)] {
        assert_eq!(keeper.keep(name, &file()).expect_err("unfit").kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
    keeper.keep(&"x".repeat(240), &file()).expect("room");
    for number in 1..7 {
        keeper.keep(&number.to_string(), &file()).expect("room");
    }
    let error = keeper.keep("one more", &file()).expect_err("16: the queue's, those of the next, and one that replaces another");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("--store"), "{error}");
    assert!(keeper.keep("6", &file()).is_ok(), "that name has its place");
    assert!(keeper.keep_stream(&file()).is_err(), "it is no socket");
    // What is held at the most while a restart is under way.
    let mut store = Store::default();
    keeper.hold(Whose::Both);
    store.obey_all(&keeper);
    keeper.keep("5", &file()).expect("that name has its place");
    let mut most = 0;
    for order in keeper.take_orders() {
        store.obey(order);
        most = most.max(store.entries.len());
    }
    assert_eq!(most, 16, "and no more");
}

#[test]
fn without_a_keeper_names_go_to_successors_and_nothing_is_ordered() {
    let (keeper, listener) = (keeper(Sort::PassesOn, Held::default()), listener());
    assert!(!keeper.is_active());
    keeper.keep("state", &file()).expect("no limit");
    keeper.keep_stream(&connection(&listener).0).expect("nothing is done");
    keeper.take_service(false, [("web", Listener::New(listener.as_fd()))].into_iter(), [].into_iter());
    keeper.hold(Whose::Both);
    assert_eq!(orders(&keeper), [""; 0]);
    assert_eq!(keeper.given().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["pollflip.kept.state"]);
}

#[test]
fn a_program_that_keeps_nothing_has_removed_what_was_kept() {
    let old = serving();
    let mut store = Store::default();
    old.keep("a", &file()).expect("room");
    old.hold(Whose::Both);
    store.obey_all(&old);
    let waker = Waker::new(Poll::new().expect("a poll").registry(), Token(0)).expect("a waker");
    let keeper = Keeper::for_nothing(Held::sort(old.given()), false, Arc::new(waker));
    assert!(!keeper.for_program().is_active() && keeper.for_program().take("a").is_none());
    old.hold(Whose::Successor);
    store.obey_all(&old);
    assert!(store.named("a").is_some(), "not before the successor has the service");
    take_service(&keeper);
    store.obey_all(&keeper);
    assert_eq!(store.names(), [""; 0]);
    // What it does not go on with, at once.
    let parts = [(); 3].map(|()| file());
    keeper.listens_no_more("web");
    keeper.has_group_no_more(&group(true, &parts));
    assert_eq!(orders(&keeper), [&["-web"][..], &PARTS_REMOVED].concat());
    let waker = &keeper.shared.as_ref().expect("it removes").waker;
    let of_nothing = |has_groups| Keeper::for_nothing(Held::default(), has_groups, Arc::clone(waker)).shared.is_none();
    assert!(of_nothing(false) && !of_nothing(true));
}

#[test]
fn an_end_is_absolved_by_a_word() {
    let keeper = keeper(Sort::Keeps, Held::sort([("pollflip.kept.a".to_owned(), file())]));
    keeper.survivors(true).expect("what was kept").absolve();
    assert_eq!(orders(&keeper), ["X_POLLFLIP_ABSOLVED=1"]);
}

/// A group of two, as `Sockets` has it.
fn group(is_held: bool, parts: &[OwnedFd; 3]) -> KeptGroup<'_> {
    let names = [HeldGroup::member_name("game", 0), HeldGroup::member_name("game", 1), HeldGroup::roster_name("game")];
    KeptGroup { name: "game", is_held, parts: names.into_iter().zip(parts.iter().map(AsFd::as_fd)).collect() }
}

const PARTS_STORED: [&str; 3] = ["+pollflip.member.0.game 1", "+pollflip.member.1.game 1", "+pollflip.group.game 1"];
const PARTS_REMOVED: [&str; 3] = ["-pollflip.member.0.game", "-pollflip.member.1.game", "-pollflip.group.game"];

#[test]
fn a_group_is_held_whole_from_the_service_on_and_until_it_is_removed() {
    let parts = [(); 3].map(|()| file());
    for is_held in [false, true] {
        let keeper = keeper(Sort::Keeps, Held::default());
        keeper.has_group(&group(is_held, &parts));
        assert_eq!(orders(&keeper), [""; 0], "not before");
        keeper.take_service(false, [].into_iter(), [group(is_held, &parts)].into_iter());
        let expected = if is_held { &[][..] } else { &PARTS_STORED };
        assert_eq!(orders(&keeper)[1..], *expected);
        keeper.has_group(&group(is_held, &parts));
        assert_eq!(orders(&keeper), [""; 0], "it is there");
        keeper.has_group_no_more(&group(is_held, &parts));
        keeper.has_group_no_more(&group(is_held, &parts));
        assert_eq!(orders(&keeper), PARTS_REMOVED);
        keeper.has_group(&group(false, &parts));
        assert_eq!(orders(&keeper), PARTS_STORED);
        // None is watched: a socket with something in its error queue would go.
        keeper.has_group_no_more(&group(false, &parts));
        orders(&keeper);
        keeper.has_group(&group(false, &parts));
        assert!(keeper.take_orders().iter().all(|order| order.text.ends_with("\nFDPOLL=0\n")));
        keeper.stop();
        assert_eq!(orders(&keeper)[..3], PARTS_REMOVED);
    }
}

#[test]
fn a_group_for_which_there_is_no_room_is_held_in_no_part() {
    let (keeper, parts) = (keeper(Sort::Keeps, Held::default()), [(); 3].map(|()| file()));
    // 16, of which four are the queue's, four the next one's, and one is spare.
    for number in 0..5 {
        keeper.keep(&number.to_string(), &file()).expect("room");
    }
    keeper.take_service(false, [].into_iter(), [group(false, &parts)].into_iter());
    assert!(!orders(&keeper).iter().any(|order| order.contains("game")));
    assert!(keeper.forget("0"));
    orders(&keeper);
    keeper.has_group(&group(false, &parts));
    assert_eq!(orders(&keeper), PARTS_STORED);
    assert_eq!(keeper.keep("0", &file()).expect_err("its room is taken").kind(), io::ErrorKind::StorageFull);
}

#[test]
fn what_this_process_has_no_use_for_is_held_no_more_with_the_service_and_not_before() {
    let (keeper, listener, parts) = (keeper(Sort::Keeps, Held::default()), listener(), [(); 3].map(|()| file()));
    keeper.listens_no_more("web");
    keeper.has_group_no_more(&group(true, &parts));
    assert_eq!(orders(&keeper), [""; 0], "a predecessor may need it yet");
    keeper.take_service(false, [("web", Listener::New(listener.as_fd()))].into_iter(), [].into_iter());
    let all = orders(&keeper);
    assert_eq!(all[0], "-web", "something else has that name by now");
    assert_eq!((&all[1..4], all.last().map(String::as_str)), (&PARTS_REMOVED.map(String::from)[..], Some("+web 1")));
}

#[test]
fn a_listener_is_held_until_it_is_shut_down_and_a_socket_for_datagrams_until_it_is_removed() {
    let (keeper, listener) = (serving(), listener());
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    keeper.listens("web", listener.as_fd());
    keeper.listens("dns", datagrams.as_fd());
    let all = keeper.take_orders();
    let is_watched = |name: &str| {
        let order = all.iter().find(|order| order.text.contains(&format!("FDNAME={name}\n"))).expect("it is held");
        !order.text.contains("FDPOLL=0")
    };
    assert!(is_watched("web") && !is_watched("dns"));
}

#[test]
fn a_socket_of_the_service_is_held_under_its_own_name_and_under_no_other() {
    for sort in [Sort::Keeps, Sort::PassesOn] {
        let (keeper, listener, other) = (keeper(sort, Held::default()), listener(), listener());
        keeper.has_socket("web", listener.as_fd());
        let error = keeper.keep("mine", &copy(&listener)).expect_err("it is held once");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("socket \"web\""), "{error}");
        assert!(!keeper.forget("mine"));
        // One that is no socket of the service, and one that is none any more.
        keeper.keep("mine", &other).expect("room");
        keeper.listens_no_more("web");
        keeper.keep("mine", &listener).expect("room");
    }
}

/// A release that bound it by itself, and one that has it in `Sockets`.
#[test]
fn what_was_kept_by_name_and_becomes_a_socket_of_the_service_is_held_as_that_alone() {
    for is_successor in [false, true] {
        let (old, listener, mut store) = (serving(), listener(), Store::default());
        old.keep("mine", &listener).expect("room");
        old.keep("other", &file()).expect("room");
        store.obey_all(&old);
        let held = if is_successor { Held::sort(old.given()) } else { store.held() };
        let new = keeper_of(Sort::Keeps, held, is_successor);
        let taken = new.take("mine").expect("it was kept");
        new.has_socket("web", taken.as_fd());
        assert!(new.take("mine").is_none() && new.take("other").is_some());
        assert_eq!(new.keep("mine", &taken).expect_err("it is held once").kind(), io::ErrorKind::AlreadyExists);
        new.take_service(false, [("web", Listener::New(taken.as_fd()))].into_iter(), [].into_iter());
        store.obey_all(&new);
        let held = |name: &str| store.entries.iter().filter(|(held, _)| held == name).count();
        assert_eq!([held("web"), held("pollflip.kept.mine"), held("pollflip.kept.other")], [1, 0, 1], "{:?}", store.names());
    }
    // At once, in one that serves.
    let (keeper, listener, mut store) = (serving(), listener(), Store::default());
    keeper.keep("mine", &listener).expect("room");
    keeper.has_socket("web", listener.as_fd());
    keeper.listens("web", listener.as_fd());
    store.obey_all(&keeper);
    assert!(store.named("mine").is_none() && store.names().contains(&"web".into()), "{:?}", store.names());
}

/// It took no harm at a keeper, which took the second name for done.
#[test]
fn what_a_release_has_kept_of_its_sockets_by_name_is_refused_to_the_next_one_as_to_a_start() {
    let listener = listener();
    for is_successor in [false, true] {
        let given = [("pollflip.kept.mine".to_owned(), copy(&listener))];
        let keeper = keeper_of(Sort::Keeps, Held::sort(given), is_successor);
        keeper.has_socket("web", listener.as_fd());
        assert!(keeper.take("mine").is_none());
        assert_eq!(keeper.keep("mine", &listener).expect_err("it is held once").kind(), io::ErrorKind::AlreadyExists);
    }
}

#[test]
fn a_listener_that_is_kept_by_name_is_replaced_by_another_one() {
    let (keeper, mut store, listeners) = (serving(), Store::default(), [listener(), listener()]);
    for listener in &listeners {
        keeper.keep("mine", listener).expect("room");
        store.obey_all(&keeper);
        assert!(is_same(&store.named("mine").expect("it is kept"), &copy(listener)));
    }
}

#[test]
fn what_is_kept_under_another_name_is_held_under_that_one() {
    // As a program that serves, and as one that has found it.
    let (keeper, mut store, state) = (serving(), Store::default(), file());
    keeper.keep("old", &state).expect("room");
    store.obey_all(&keeper);
    assert_eq!(keeper.keep("new", &state).expect_err("it is held once").kind(), io::ErrorKind::AlreadyExists);
    keeper.keep("old", &state).expect("it is there");
    assert!(keeper.forget("old"));
    keeper.keep("new", &state).expect("room");
    store.obey_all(&keeper);
    assert!(is_same(&store.named("new").expect("it is kept"), &state));
    assert!(store.named("old").is_none());
}

#[test]
fn a_start_that_keeps_what_it_found_under_another_name_has_it_held() {
    for is_taken in [false, true] {
        let (first, mut store, state) = (serving(), Store::default(), file());
        first.keep("old", &state).expect("room");
        store.obey_all(&first);
        drop(first);
        let keeper = keeper(Sort::Keeps, store.held());
        // Or it came by other ways: a successor can have been handed it over.
        let found = if is_taken { keeper.take("old").expect("it was kept") } else { copy(&state) };
        assert!(!is_taken || keeper.forget("old"));
        keeper.keep("new", &found).expect("room");
        take_service(&keeper);
        store.obey_all(&keeper);
        assert!(is_same(&store.named("new").expect("it is kept"), &state));
        assert!(store.named("old").is_none());
    }
}

#[test]
fn a_start_that_comes_back_to_what_it_found_has_it_held() {
    let (first, mut store, state) = (serving(), Store::default(), file());
    first.keep("state", &state).expect("room");
    store.obey_all(&first);
    drop(first);
    let keeper = keeper(Sort::Keeps, store.held());
    let found = keeper.take("state").expect("it was kept");
    keeper.keep("state", &file()).expect("room");
    keeper.keep("state", &found).expect("room");
    take_service(&keeper);
    for order in keeper.take_orders() {
        store.obey(order);
        assert!(is_same(&store.named("state").expect("it is kept"), &state));
    }
}

#[test]
fn a_kill_while_a_successor_takes_what_its_predecessor_has_replaced_leaves_something() {
    for replacements in 0..4 {
        for successor_replaces in [false, true] {
            let (old, mut store) = (serving(), Store::default());
            old.keep("state", &file()).expect("room");
            old.hold(Whose::Both);
            let new = successor_of(&old);
            let found = new.take("state").expect("it was given");
            for _ in 0..replacements {
                old.keep("state", &file()).expect("room");
            }
            store.obey_all(&old);
            let latest = if successor_replaces { file() } else { copy(&found) };
            new.keep("state", &latest).expect("room");
            old.hold(Whose::Successor);
            store.obey_all(&old);
            take_service(&new);
            for order in new.take_orders() {
                store.obey(order);
                assert!(store.named("state").is_some(), "{replacements} {successor_replaces}");
            }
            assert!(is_same(&store.named("state").expect("it is kept"), &latest));
        }
    }
}

#[test]
fn a_start_that_replaces_all_it_found_needs_room_for_one_more() {
    let (first, mut store) = (serving(), Store::default());
    let names: Vec<String> = (0..7).map(|number| number.to_string()).collect();
    names.iter().for_each(|name| first.keep(name, &file()).expect("room"));
    store.obey_all(&first);
    let next = keeper(Sort::Keeps, store.held());
    names.iter().for_each(|name| next.keep(name, &file()).expect("room"));
    take_service(&next);
    let mut most = 0;
    for order in next.take_orders() {
        store.obey(order);
        most = most.max(store.entries.len());
    }
    assert_eq!(most, 16, "and no more");
}

/// Any number without a seed.
fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize % below
}

#[test]
fn whatever_is_kept_and_moved_a_keeper_has_it_when_it_was_told_and_a_kill_finds_something() {
    let names = ["a", "b", "c"];
    let files: Vec<_> = (0..5).map(|_| file()).collect();
    let number = |found: &OwnedFd| files.iter().position(|file| is_same(file, found)).expect("one of them");
    let look = |store: &Store| names.map(|name| store.named(name).map(|found| number(&found)));
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let (mut serving, mut store) = (serving(), Store::default());
    let mut model: [Option<usize>; 3] = [None; 3];
    let change = |keeper: &Keeper, model: &mut [Option<usize>; 3], state: &mut u64| {
        let (name, file) = (random(state, 3), random(state, 5));
        if random(state, 3) == 0 {
            assert_eq!(keeper.forget(names[name]), model[name].take().is_some());
        } else {
            let elsewhere = (0..3).any(|other| other != name && model[other] == Some(file));
            match keeper.keep(names[name], &files[file]) {
                Ok(()) => model[name] = Some(file),
                Err(error) => assert!(elsewhere && error.kind() == io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    };
    for round in 0..1_000 {
        let before = model;
        let was_killed = match random(&mut state, 4) {
            // A kill and a start.
            0 => {
                serving = keeper(Sort::Keeps, store.held());
                Some(true)
            }
            // A restart. The predecessor goes on meanwhile.
            1 => {
                serving.hold(Whose::Both);
                let new = successor_of(&serving);
                let mut of_old = model;
                (0..random(&mut state, 5)).for_each(|_| change(&serving, &mut of_old, &mut state));
                serving.hold(Whose::Successor);
                store.obey_all(&serving);
                serving = new;
                Some(false)
            }
            _ => None,
        };
        if was_killed.is_some() {
            for (name, kept) in names.iter().zip(&model) {
                assert_eq!(serving.take(name).map(|found| number(&found)), *kept, "{round}");
            }
        }
        (0..random(&mut state, 5)).for_each(|_| change(&serving, &mut model, &mut state));
        take_service(&serving);
        for order in serving.take_orders() {
            store.obey(order);
            let found = look(&store);
            // What was there all the while.
            let stays = (0..3).filter(|name| was_killed == Some(true) && before[*name].is_some() && before[*name] == model[*name]);
            stays.for_each(|name| assert_eq!(found[name], model[name], "{round}"));
        }
        assert_eq!(look(&store), model, "{round}");
        let held = store.entries.iter().filter(|(name, _)| name.starts_with("pollflip.kept")).count();
        assert_eq!(held, model.iter().flatten().count(), "{round}: {:?}", store.names());
    }
}
