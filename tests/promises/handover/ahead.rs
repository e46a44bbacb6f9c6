//! What goes to the successor while the predecessor serves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::copying::{Ahead, AheadItems, TakeAhead};
use crate::dialects::{GivenAhead, Predecessor, Successor};
use crate::player::Player;
use crate::service::{Ask, Hold, Limit, Thing};
use crate::taking::Take;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::procfs::Snapshot;
use pollflip_kit::service::{Config, ms, set};
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    promise_13_connections_go_ahead_and_only_the_rest_goes_with_the_state,
    arrivals_can_be_told_by_events,
    the_predecessor_serves_while_it_copies,
    what_has_changed_since_can_be_taken_before_the_state,
    a_name_can_be_given_and_be_gone_again_and_again,
    an_end_during_the_copy_is_heard_at_once_whatever_the_successor_does,
    four_hundred_connections_come_and_go_in_a_second_during_the_copy,
    a_predecessor_that_gives_nothing_ahead_hands_over_as_ever,
    a_successor_that_wants_nothing_ahead_gets_the_state_as_ever,
    a_precopy_that_is_dropped_half_way_gives_the_rest_with_the_state,
    complete_twice_is_once,
    what_is_given_after_the_freeze_fails_nothing_and_does_not_go,
    a_name_that_is_given_twice_fails_the_attempt,
    a_successor_that_fails_with_what_it_has_leaves_everything_where_it_is,
    promise_13_a_successor_that_hangs_with_what_has_gone_ahead_freezes_nobody,
    a_successor_that_cannot_take_what_comes_ahead_says_so,
    a_list_of_what_goes_ahead_that_makes_no_sense_is_refused,
    a_successor_that_asks_in_the_wrong_order_is_killed,
    a_successor_that_is_ready_without_the_state_is_told_so,
    a_predecessor_that_dies_while_it_copies_leaves_no_connection_in_limbo,
    a_predecessor_that_dies_when_all_has_gone_ahead_leaves_no_connection_in_limbo,
    ten_thousand_items_need_no_descriptors_of_the_predecessor,
    a_successor_without_room_for_them_freezes_nobody,
    a_successor_that_reads_nothing_has_the_predecessor_wait_for_room,
    an_attempt_that_fails_is_followed_by_one_that_copies_anew,
    a_memory_file_that_went_ahead_is_not_what_it_was_after_a_roll_back,
];

fn copying(how: Ahead) -> Setup {
    Setup::new().set(how)
}

fn promise_13_connections_go_ahead_and_only_the_rest_goes_with_the_state() {
    let service = copying(Ahead::All).set(Hold(vec![Thing::File, Thing::Memfd])).start();
    let (mut tcp, mut unix) = (Player::tcp(&service), Player::unix(&service));
    tcp.write("half a ");
    let old = service.first();
    let before = old.ask(Ask::Holds);
    let new = service.restart();
    assert_eq!(new.says("ahead"), "4 Ok(true)");
    // The buffers.
    assert_eq!(new.says("received"), "1");
    old.ends();
    assert_eq!(new.ask(Ask::Holds), before);
    tcp.write("line\n");
    assert_eq!((tcp.hear(), unix.echo("unix")), ((new.pid, "half a line".into()), new.pid));
    // And so on.
    let newest = service.restart();
    assert_eq!((tcp.echo("tcp"), unix.echo("unix")), (newest.pid, newest.pid));
}

fn arrivals_can_be_told_by_events() {
    let service = copying(Ahead::All).set(AheadItems(3000)).set(TakeAhead::Pull).set(Take::Pull).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!(new.says("ahead"), "3001 Ok(true)");
    assert_eq!(new.says("received"), "1");
    assert_eq!(player.echo("pulled"), new.pid);
}

/// A successor that has asked for what can go ahead and does nothing more.
fn successor_that_waits(service: &Service) -> pollflip_kit::hub::Process {
    let new = service.hub.nth(1);
    new.says("waits");
    service.first().says("copies");
    new
}

fn the_predecessor_serves_while_it_copies() {
    let service = copying(Ahead::All).set(TakeAhead::Unread).start();
    let old = service.first();
    let (mut one, mut other) = (Player::tcp(&service), Player::unix(&service));
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    old.says("copied");
    assert_eq!((one.echo("served"), other.echo("served")), (old.pid, old.pid));
    let mut late = Player::tcp(&service);
    assert_eq!(late.echo("also"), old.pid);
    new.go();
    assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    assert_eq!((one.echo("one"), other.echo("other"), late.echo("late")), (new.pid, new.pid, new.pid));
    // It came after that was all: it goes with the state.
    assert_eq!((new.says("ahead"), new.says("received")), ("2 Ok(true)".into(), "2".into()));
}

fn what_has_changed_since_can_be_taken_before_the_state() {
    let service = copying(Ahead::All).set(Hold(vec![Thing::File, Thing::Memfd])).set(TakeAhead::Twice).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    assert_eq!(old.ask(Ask::Close("file".into())), "closed");
    assert_eq!(old.ask(Ask::Again(3)), "given");
    new.go();
    asked.join().expect("no panic").expect("a restart");
    new.says("ahead again Ok(true)");
    assert!(new.said("gone").is_empty());
    assert_eq!(new.ask(Ask::Holds), "again memfd tcp/3");
    assert_eq!(player.echo("still"), new.pid);
}

fn a_name_can_be_given_and_be_gone_again_and_again() {
    for take_ahead in [TakeAhead::Unread, TakeAhead::Wait] {
        let service = copying(Ahead::Open).set(Hold(vec![Thing::File, Thing::Memfd])).set(take_ahead).start();
        let old = service.first();
        let asked = service.restart_meanwhile();
        let new = service.hub.nth(1);
        old.says("copies");
        assert_eq!(old.ask(Ask::Again(300)), "given");
        assert_eq!(old.ask(Ask::Close("file".into())), "closed");
        assert_eq!(old.ask(Ask::Complete), "complete");
        new.says("waits");
        if take_ahead == TakeAhead::Wait {
            new.says("ahead");
            // It has them, and they go again, and one comes anew.
            assert_eq!(old.ask(Ask::Close("memfd".into())), "closed");
            assert_eq!(old.ask(Ask::Again(2)), "given");
        }
        new.go();
        asked.join().expect("no panic").expect("a restart");
        let (gone, holds) = if take_ahead == TakeAhead::Wait { (vec!["memfd", "again"], "again") } else { (vec![], "again memfd") };
        assert_eq!(new.ask(Ask::Holds), holds, "{take_ahead:?}");
        assert_eq!(new.said("gone"), gone, "what it had, to be dropped before the rest is taken");
    }
}

fn an_end_during_the_copy_is_heard_at_once_whatever_the_successor_does() {
    let service = copying(Ahead::All).set(TakeAhead::Unread).start();
    let old = service.first();
    let (mut one, mut other, mut stays) = (Player::tcp(&service), Player::unix(&service), Player::tcp(&service));
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    old.says("copied");
    // The successor has not read that they are there, and their ends are in its descriptors' queue.
    for (name, player) in [("tcp/1", &mut one), ("unix/2", &mut other)] {
        assert_eq!(old.ask(Ask::Close(name.into())), "closed");
        player.expect_end();
    }
    assert_eq!(stays.echo("still"), old.pid);
    new.go();
    asked.join().expect("no panic").expect("a restart");
    assert_eq!((stays.echo("here"), new.ask(Ask::Holds).as_str()), (new.pid, "tcp/3"));
}

/// Clients that come, say something, and go, as fast as they can, until they are told to stop.
fn coming_and_going(
    service: &Arc<Service>,
    over: &Arc<AtomicBool>,
) -> (Vec<thread::JoinHandle<()>>, Arc<AtomicUsize>, Arc<Mutex<Duration>>) {
    let (count, longest) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Duration::ZERO)));
    let clients = (0..2).map(|_| {
        let (service, over, count, longest) = (service.clone(), over.clone(), count.clone(), longest.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut player = Player::unix(&service);
                player.echo("and bye");
                let begun = Instant::now();
                player.finish();
                player.expect_end();
                let mut longest = longest.lock().expect("no panic");
                *longest = (*longest).max(begun.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    (clients.collect(), count, longest)
}

fn four_hundred_connections_come_and_go_in_a_second_during_the_copy() {
    let service = Arc::new(copying(Ahead::All).set(TakeAhead::Unread).set(AheadItems(2000)).start());
    let mut players: Vec<_> = (0..20).map(|_| Player::tcp(&service)).collect();
    let over = Arc::new(AtomicBool::new(false));
    let (clients, count, longest) = coming_and_going(&service, &over);
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    // The successor reads nothing, for as many as come in a second.
    let begun = Instant::now();
    while count.load(Ordering::Relaxed) < 400 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{count:?} have come and gone");
        thread::yield_now();
    }
    println!("{count:?} came and went in {:?}; the longest wait for an end was {longest:?}", begun.elapsed());
    new.go();
    assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("each is served to its end"));
    assert!(players.iter_mut().all(|player| player.echo("still") == new.pid));
    // None of them has stayed.
    pollflip_kit::hub::wait_until("they are gone", || new.ask(Ask::Holds).split(' ').count() == 20);
}

fn a_predecessor_that_gives_nothing_ahead_hands_over_as_ever() {
    let service = copying(Ahead::None).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!((new.says("ahead"), player.echo("with the state")), ("0 Ok(false)".into(), new.pid));
}

fn a_successor_that_wants_nothing_ahead_gets_the_state_as_ever() {
    let service = copying(Ahead::All).set(TakeAhead::Never).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!((new.says("received"), player.echo("with the state")), ("2".into(), new.pid));
    assert!(service.first().said("event PrecopyRequested").is_empty());
}

fn a_precopy_that_is_dropped_half_way_gives_the_rest_with_the_state() {
    let service = copying(Ahead::Open).set(TakeAhead::Unread).start();
    let old = service.first();
    let mut players = [Player::tcp(&service), Player::tcp(&service)];
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    assert_eq!(old.ask(Ask::GiveNothingMore), "dropped");
    // What has gone ahead is then given twice by this careless program, which the successor is not asked to bear.
    let late = Player::tcp(&service);
    new.go();
    let why = asked.join().expect("no panic").expect_err("a name is given twice").to_string();
    assert!(why.contains("there is one of that name already"), "{why}");
    assert!(players.iter_mut().chain([late].iter_mut()).all(|player| player.echo("still here") == old.pid));
}

fn complete_twice_is_once() {
    let service = copying(Ahead::CompleteTwice).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!((new.says("ahead"), player.echo("here")), ("0 Ok(false)".into(), new.pid));
}

fn what_is_given_after_the_freeze_fails_nothing_and_does_not_go() {
    let service = copying(Ahead::All).set(Take::Wait).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let why = "the state has been asked for: the rest is given to the Handover";
    assert_eq!(old.ask(Ask::GiveLate), why);
    assert_eq!((old.ask(Ask::Complete), old.ask(Ask::Room)), ("complete".into(), "0".into()));
    new.go();
    asked.join().expect("no panic").expect("a restart");
    assert_eq!((player.echo("here"), new.ask(Ask::Holds).as_str()), (new.pid, "tcp/1"));
}

/// A restart that fails, twice, and leaves everything as it was. Returns the reason.
fn fails(service: &Service) -> String {
    let old = service.first();
    let (mut tcp, mut unix) = (Player::tcp(service), Player::unix(service));
    let holds = old.ask(Ask::Holds);
    let before = Snapshot::of(old.pid);
    service.fail_to_restart();
    let why = service.fail_to_restart();
    assert_eq!((tcp.echo("still"), unix.echo("here")), (old.pid, old.pid));
    assert_eq!(old.ask(Ask::Holds), holds);
    assert!(old.said("frozen").is_empty(), "nobody stood still");
    service.expect_unchanged(&old, &before);
    why
}

fn a_name_that_is_given_twice_fails_the_attempt() {
    let service = copying(Ahead::Twice).start();
    assert_eq!(fails(&service), "the handover failed: cannot hand \"same\" over: there is one of that name already");
}

fn a_successor_that_fails_with_what_it_has_leaves_everything_where_it_is() {
    for (take_ahead, reason) in [
        (TakeAhead::Exit, "the successor exited with status 3 before it was ready; its standard error may say why"),
        (TakeAhead::Refuse, "the successor refused: not with these"),
    ] {
        let service = copying(Ahead::All).set(AheadItems(600)).set(take_ahead).start();
        assert_eq!(fails(&service), reason);
        service.plan_next(set(TakeAhead::All));
        let mut player = Player::tcp(&service);
        let new = service.restart();
        assert_eq!(player.echo("at last"), new.pid);
    }
}

fn promise_13_a_successor_that_hangs_with_what_has_gone_ahead_freezes_nobody() {
    for take_ahead in [TakeAhead::Hang, TakeAhead::Unread] {
        let service = copying(Ahead::All).set(Config::ReadyTimeout(ms(700))).set(take_ahead).set(AheadItems(4000)).start();
        let why = fails(&service);
        assert!(why.starts_with("the successor was not ready within 0.7 s and has been given up"), "{why}");
    }
}

fn a_successor_that_cannot_take_what_comes_ahead_says_so() {
    let service = copying(Ahead::All).set(AheadItems(10)).set(TakeAhead::ButTheThird).start();
    assert_eq!(fails(&service), "the successor refused: the state cannot be taken over: the third is one too many");
}

fn a_list_of_what_goes_ahead_that_makes_no_sense_is_refused() {
    for (how, why) in [
        (GivenAhead::GoneBeforeGiven, "\"b\" is taken back, and had not been given"),
        (GivenAhead::Twice, "two items have come ahead under the name \"a\""),
        (GivenAhead::Miscounted, "3 items have gone ahead, and 1 have come"),
        (GivenAhead::EndMiscounted, "2 items were handed over, and 1 have come"),
    ] {
        let service = Setup::new().set(Ahead::All).plan(set(Predecessor::GivesAhead(how))).launch();
        let old = service.first();
        old.says("waits");
        old.go();
        let error = service.hub.nth(1).says("receive-error");
        assert_eq!(error, format!("the state of the predecessor cannot be used: {why}"));
        assert_eq!(old.says("refused"), format!("the state cannot be taken over: {why}"));
    }
}

fn a_successor_that_asks_in_the_wrong_order_is_killed() {
    for (how, why) in [
        (Successor::AsksAheadTwice, "it asked for what can go ahead of the state twice, or after the state"),
        (Successor::AsksAheadAfterTheState, "it asked for what can go ahead of the state twice, or after the state"),
        (Successor::ReadyWithoutTheState, "it said that it is ready and had not asked for the state that belongs to what has gone ahead"),
    ] {
        let service = copying(Ahead::All).start();
        let mut player = Player::tcp(&service);
        service.plan_next(set(how));
        let told = service.fail_to_restart();
        assert_eq!(told, format!("the successor broke the protocol and has been killed: {why}"));
        assert_eq!(player.echo("still"), service.first().pid);
    }
}

fn a_successor_that_is_ready_without_the_state_is_told_so() {
    let service = copying(Ahead::All).set(TakeAhead::NoState).start();
    let why = fails(&service);
    let told = "what has gone ahead is of no use without its state: receive that before this process is ready";
    assert!(why.contains(told), "{why}");
}

/// A predecessor that dies when the successor waits there.
fn dies(ahead: Ahead, take_ahead: TakeAhead, moment: &str) {
    let service = copying(ahead).set(take_ahead).set(AheadItems(600)).start();
    let old = service.first();
    let (mut player, mut other) = (Player::tcp(&service), Player::unix(&service));
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    old.says(moment);
    if take_ahead != TakeAhead::All {
        new.says("waits");
    }
    old.signal(Signal::SIGKILL);
    old.ends();
    if take_ahead != TakeAhead::All {
        new.go();
    }
    let error = new.says("receive-error");
    assert_eq!(error, format!("no state has come: the predecessor (process {}) has ended; what it listened on is here", old.pid));
    new.says("serving");
    asked.join().expect("no panic").expect_err("nobody is left to answer");
    // Neither of the two has them any more, and they learn of that.
    player.expect_end();
    other.expect_end();
    assert_eq!(Player::tcp(&service).echo("anew"), new.pid);
}

fn a_predecessor_that_dies_while_it_copies_leaves_no_connection_in_limbo() {
    dies(Ahead::Open, TakeAhead::All, "copies");
    dies(Ahead::Open, TakeAhead::Unread, "copies");
}

fn a_predecessor_that_dies_when_all_has_gone_ahead_leaves_no_connection_in_limbo() {
    dies(Ahead::All, TakeAhead::Unread, "copied");
    dies(Ahead::All, TakeAhead::Wait, "copied");
}

fn ten_thousand_items_need_no_descriptors_of_the_predecessor() {
    if !are_many_descriptors_allowed("ten_thousand_items_need_no_descriptors_of_the_predecessor") {
        return;
    }
    // As many as go at a time, and some for its own use.
    let service = copying(Ahead::All).plan(set(Limit::Files(340))).set(AheadItems(10000)).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!((new.says("ahead"), player.echo("here")), ("10001 Ok(true)".into(), new.pid));
}

fn a_successor_without_room_for_them_freezes_nobody() {
    let service = copying(Ahead::All).set(AheadItems(600)).start();
    for _ in 0..2 {
        service.plan_next(set(Limit::Files(60)));
        let why = service.fail_to_restart();
        let told = "this process may have no more than 60 open at a time (RLIMIT_NOFILE)";
        assert!(why.contains(told), "{why}");
    }
    assert!(service.first().said("frozen").is_empty(), "nobody stood still");
    service.restart();
}

/// What a successor does not read waits in the kernel, and at most one packet more here.
fn a_successor_that_reads_nothing_has_the_predecessor_wait_for_room() {
    if !are_many_descriptors_allowed("a_successor_that_reads_nothing_has_the_predecessor_wait_for_room") {
        return;
    }
    let service = copying(Ahead::All).set(AheadItems(20000)).set(TakeAhead::Unread).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = pollflip_kit::procfs::descriptors(old.pid).len();
    let asked = service.restart_meanwhile();
    let new = successor_that_waits(&service);
    pollflip_kit::hub::wait_until("there is no room", || old.ask(Ask::Room) == "0");
    let during = pollflip_kit::procfs::descriptors(old.pid).len();
    assert!(during < before + 300, "{before}, then {during}");
    assert!(old.said("copied").is_empty());
    assert_eq!(player.echo("served"), old.pid);
    new.go();
    asked.join().expect("no panic").expect("a restart");
    assert_eq!((new.says("ahead"), player.echo("here")), ("20001 Ok(true)".into(), new.pid));
}

fn an_attempt_that_fails_is_followed_by_one_that_copies_anew() {
    let service = copying(Ahead::All).set(AheadItems(600)).set(TakeAhead::Wait).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    service.hub.nth(1).says("waits");
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "true");
    asked.join().expect("no panic").expect_err("called off");
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(2);
    new.says("waits");
    new.go();
    asked.join().expect("no panic").expect("a restart");
    assert_eq!((new.says("ahead"), player.echo("here")), ("601 Ok(true)".into(), new.pid));
}

/// Why a program with a probation keeps its state elsewhere.
fn a_memory_file_that_went_ahead_is_not_what_it_was_after_a_roll_back() {
    let service = copying(Ahead::All).set(Hold(vec![Thing::Memfd])).set(Config::Probation(ms(60000))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    old.says("event HandedOff");
    let new = service.hub.nth(1);
    new.says("serving");
    assert_eq!(player.echo("on probation"), new.pid);
    assert_eq!(new.ask(Ask::Write(" of the successor".into())), "word of the successor");
    new.signal(Signal::SIGKILL);
    asked.join().expect("no panic").expect_err("taken back");
    old.says("event Resumed");
    assert_eq!(old.ask(Ask::Read("memfd".into())), "word of the successor");
    // The connection is still this process's.
    assert_eq!(player.echo("back"), old.pid);
}
