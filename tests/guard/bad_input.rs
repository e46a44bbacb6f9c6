//! What can be wrong with what is kept: peers that leave while the service is dead, a release that dies
//! of it, connections without a position, a guard without room.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::keeping::{Accounts, Wish};
use crate::kept::{Kept, Player, keeps};
use crate::kit::{End, end_of_command, signal};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;

pollflip_kit::trials![
    peers_that_leave_while_the_service_is_dead_are_gone_and_the_others_go_on,
    a_release_that_aborts_on_connections_that_were_kept_comes_back_without_them,
    a_release_that_aborts_on_what_was_kept_by_name_comes_back_with_the_listeners_alone,
    more_clients_than_there_are_accounts_are_turned_away_and_end_nobody,
    a_unix_socket_is_kept_and_has_no_position,
    a_guard_without_room_says_so_and_the_service_comes_back,
];

fn stops(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(pid) == Some('T'));
}

/// With a FIN, with a RST, with a FIN and a question before it; one asks and stays.
fn peers_that_leave_while_the_service_is_dead_are_gone_and_the_others_go_on() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut players = [1, 2, 3, 4, 5].map(|seed| Player::new(&kept, seed));
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    assert_eq!(kept.connections(), 5);
    stops(kept.guard());
    let old = kept.kill();
    wait_until("its end", || procfs::state(old.parse().expect("a number")) == Some('Z'));
    let [finishes, resets, mut asks_and_finishes, asks, mut waits] = players;
    drop(finishes);
    setsockopt(&resets.stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    drop(resets);
    let expected = asks_and_finishes.sends().expect("a connection");
    asks_and_finishes.stream.shutdown(Shutdown::Write).expect("a connection");
    let playing = std::thread::spawn(move || {
        let mut asks = asks;
        asks.round().map(|()| asks)
    });
    signal(kept.guard(), Signal::SIGCONT);
    let mut asks = playing.join().expect("no panic").expect("it goes on");
    waits.round().expect("it goes on");
    let mut answer = Vec::new();
    asks_and_finishes.stream.read_to_end(&mut answer).expect("an answer and an end");
    assert!(answer == expected, "another answer");
    wait_until("the others to be gone", || kept.connections() == 2);
    let mut go_on = || [&mut asks, &mut waits].into_iter().try_for_each(Player::round).expect("they go on");
    // The ends of those who have left or asked are done with when these are answered.
    go_on();
    let open = kept.descriptors();
    let old = kept.kill();
    kept.pid_after(&old);
    go_on();
    assert_eq!(kept.connections(), 2, "nothing is left of those who are gone: {}", kept.read("said"));
    go_on();
    assert_eq!(kept.descriptors(), open, "nothing is left of those who are gone: {}", kept.read("said"));
    assert_eq!(kept.stop(), 0);
}

/// It dies of each connection that was kept, or of something else. The guard starts it again and again.
fn comes_back(wish: Wish, expected: &[&str]) {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    let held = || procfs::descriptors(kept.guard()).into_iter().filter(|(_, what)| what == "/dev/null").count();
    let before = held();
    fs::write(kept.wish(wish), "").expect("a file");
    // Keeps it from here on.
    let new = kept.restart().expect("a restart").to_string();
    wait_until("it to serve", || kept.pid_after("") == new);
    player.round().expect("it was handed over");
    if wish == Wish::AbortOfMore {
        wait_until("what it keeps to be held", || held() > before);
    }
    kept.kill();
    let old = kept.pid_after(&new);
    let said = kept.read("said");
    let ends: Vec<_> = said.lines().filter_map(|line| line.split_once(" after ").map(|(_, end)| end)).collect();
    assert_eq!(ends, expected, "{said}");
    assert!(player.round().is_err(), "it was dropped");
    // It serves, and what is new is kept.
    let mut late = Player::new(&kept, 2);
    late.round().expect("the listener is there");
    fs::remove_file(kept.wish(wish)).expect("a file");
    kept.kill();
    kept.pid_after(&old);
    late.round().expect("it goes on");
    assert_eq!(kept.stop(), 0);
}

fn a_release_that_aborts_on_connections_that_were_kept_comes_back_without_them() {
    comes_back(Wish::Abort, &["Signal(9) 0", "Signal(6) 1", "Signal(6) 2"]);
}

fn a_release_that_aborts_on_what_was_kept_by_name_comes_back_with_the_listeners_alone() {
    comes_back(Wish::AbortOfMore, &["Signal(9) 0", "Signal(6) 1", "Signal(6) 2", "Signal(6) 3"]);
}

/// A service that ended at that would be started again with the same clients, and lose them all.
fn more_clients_than_there_are_accounts_are_turned_away_and_end_nobody() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps().set(Accounts(4)));
    let mut players: Vec<_> = (1..=4).map(|seed| Player::new(&kept, seed)).collect();
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    for seed in 5..=40 {
        let mut late = Player::new(&kept, seed);
        assert!(late.round().is_err(), "there is no room for it");
    }
    let old = kept.kill();
    kept.pid_after(&old);
    players.iter_mut().try_for_each(Player::round).expect("they go on");
    drop(players.pop());
    wait_until("room for another one", || Player::new(&kept, 41).round().is_ok());
    let said = kept.read("said");
    assert_eq!(said.matches(" serves ").count(), 2, "nobody but the test has ended it: {said}");
    assert_eq!(kept.stop(), 0);
}

fn a_unix_socket_is_kept_and_has_no_position() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let listener = UnixListener::bind(kept.wish(Wish::Peer)).expect("a listener");
    let old = kept.kill();
    kept.pid_after(&old);
    let (mut peer, _) = listener.accept().expect("a connection");
    peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("an option");
    for _ in 0..2 {
        let old = kept.kill();
        kept.pid_after(&old);
        let mut word = [0; 4];
        peer.read_exact(&mut word).expect("it goes on");
        assert_eq!(&word, b"back");
    }
    let said = kept.read("said");
    assert_eq!(said.matches("the connection has no position: only TCP has one").count(), 2, "{said}");
    assert_eq!(kept.stop(), 0);
    assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
    let _ = peer.write(b"x");
}

/// The number of its descriptors is limited from outside, so that it gets none of what is stored.
fn a_guard_without_room_says_so_and_the_service_comes_back() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut player = Player::new(&kept, 1);
    player.round().expect("an answer");
    let limit = |limit: &str| {
        let mut command = Command::new("prlimit");
        command.args([&format!("--pid={}", kept.guard()), &format!("--nofile={limit}:")]);
        assert_eq!(end_of_command(command).0, End::Code(0));
    };
    let used: Vec<i32> = procfs::descriptors(kept.guard()).into_iter().map(|(number, _)| number).collect();
    // It has spare ones for a new main process, and not for what that stores.
    let free = (0..).find(|number| !used.contains(number)).expect("a number");
    limit(&free.to_string());
    let old = kept.pid_after("");
    kept.restart().expect("a restart");
    let old = kept.pid_after(&old);
    player.round().expect("it was handed over");
    wait_until("the guard to say so", || kept.read("guard.log").contains("has no room for what it stores as \"pollflip.streams."));
    limit("1024");
    kept.kill();
    kept.pid_after(&old);
    assert!(player.round().is_err(), "nobody had it");
    let mut late = Player::new(&kept, 2);
    late.round().expect("the listener is there");
    let old = kept.kill();
    kept.pid_after(&old);
    late.round().expect("it goes on");
    assert_eq!(kept.stop(), 0);
}
