//! A process that keeps what it has, killed at each of its system calls: while it recovers, while it
//! keeps one more connection, and while it forgets one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::Shutdown;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::keeping::Wish;
use crate::kept::{Kept, Player, keeps};
use crate::kit::signal;
use pollflip_kit::debugger::Stopped;
use pollflip_kit::hub::{wait_until, wait_until_equal};

pollflip_kit::trials![
    promise_15_a_start_that_is_killed_at_any_call_of_its_recovery_loses_nothing,
    a_start_that_is_killed_while_it_packs_hundreds_of_connections_loses_nothing,
    a_process_that_is_killed_at_any_call_while_it_keeps_a_connection_loses_no_other,
    a_process_that_is_killed_at_any_call_while_it_forgets_a_connection_leaves_nothing_of_it,
];

/// Where each start waits before it recovers.
struct Gate<'a> {
    kept: &'a Kept,
    pipe: File,
    passed: usize,
}

impl Gate<'_> {
    fn new(kept: &Kept) -> Gate<'_> {
        let path = kept.wish(Wish::Gate);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        // Who has both ends waits for nobody.
        let pipe = OpenOptions::new().read(true).write(true).open(path).expect("a pipe");
        Gate { kept, pipe, passed: 0 }
    }

    /// The process that waits there next.
    fn waits(&mut self) -> u32 {
        let mut pid = None;
        wait_until("a start at the gate", || {
            let said = self.kept.read("said");
            let line = said.lines().filter(|line| line.ends_with("at the gate")).nth(self.passed);
            pid = line.and_then(|line| line.split(' ').next()?.parse().ok());
            pid.is_some()
        });
        self.passed += 1;
        pid.expect("a process")
    }

    fn opens(&mut self) {
        self.pipe.write_all(b"x").expect("room");
    }

    /// Lets one recover and serve.
    fn lets_through(&mut self) {
        let pid = self.waits().to_string();
        self.opens();
        wait_until("it to serve", || self.kept.pid_after("") == pid);
    }
}

fn die(stopped: Stopped, pid: u32) {
    signal(pid, Signal::SIGKILL);
    drop(stopped);
}

/// Kills a start after so many calls. `None`: nobody can be stopped here; `false`: it had recovered before.
fn killed_after(gate: &mut Gate<'_>, calls: usize, test: &str) -> Option<bool> {
    let pid = gate.waits();
    let stopped = Stopped::new(pid, test)?;
    stopped.go_on_until(libc::SYS_read);
    gate.opens();
    let goes_on = (0..calls).all(|_| stopped.next_call().is_some_and(|call| !call.waits()));
    die(stopped, pid);
    Some(goes_on)
}

fn promise_15_a_start_that_is_killed_at_any_call_of_its_recovery_loses_nothing() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut players = [1, 2, 3].map(|seed| Player::new(&kept, seed));
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    let mut gate = Gate::new(&kept);
    kept.kill();
    for calls in 1.. {
        let Some(goes_on) = killed_after(&mut gate, calls, "the one of a recovery") else { return };
        // Some are killed again and again.
        if !goes_on || calls % 4 == 0 {
            gate.lets_through();
            players.iter_mut().try_for_each(Player::round).unwrap_or_else(|why| panic!("killed after {calls} calls: {why}"));
            kept.kill();
        }
        if !goes_on {
            println!("a recovery of 3 connections is {calls} calls");
            assert!(calls > 50, "no more than {calls} calls");
            break;
        }
    }
    gate.lets_through();
    assert_eq!((kept.connections(), kept.stop()), (3, 0));
}

/// What lies in the queue as single ones becomes a packet.
fn a_start_that_is_killed_while_it_packs_hundreds_of_connections_loses_nothing() {
    const CROWD: u64 = 260;
    const SAMPLES: usize = 12;
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut players: Vec<_> = (1..=CROWD).map(|seed| Player::new(&kept, seed)).collect();
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    let mut gate = Gate::new(&kept);
    kept.kill();
    // How many calls there are.
    let pid = gate.waits();
    let Some(stopped) = Stopped::new(pid, "the one of hundreds of connections") else { return };
    stopped.go_on_until(libc::SYS_read);
    gate.opens();
    let mut all = 0;
    while stopped.next_call().is_some_and(|call| !call.waits()) {
        all += 1;
    }
    println!("a recovery of {CROWD} connections is {all} calls");
    die(stopped, pid);
    for sample in 1..=SAMPLES {
        let calls = all * sample / (SAMPLES + 1);
        killed_after(&mut gate, calls, "").expect("one could be stopped before");
        if sample % 4 == 0 {
            gate.lets_through();
            players.iter_mut().try_for_each(Player::round).unwrap_or_else(|why| panic!("killed after {calls} calls: {why}"));
            kept.kill();
        }
    }
    gate.lets_through();
    players.iter_mut().try_for_each(Player::round).expect("all go on");
    assert_eq!((kept.connections(), kept.stop()), (CROWD as usize, 0));
}

fn serving(kept: &Kept) -> u32 {
    kept.pid_after("").parse().expect("a number")
}

/// A connection that was accepted and is not kept yet ends with the process, which takes a few calls.
fn a_process_that_is_killed_at_any_call_while_it_keeps_a_connection_loses_no_other() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut players = vec![Player::new(&kept, 1), Player::new(&kept, 2)];
    players.iter_mut().try_for_each(Player::round).expect("an answer");
    let mut cut = 0;
    for calls in 0.. {
        let pid = serving(&kept);
        let Some(stopped) = Stopped::new(pid, "the one of a connection that is kept") else { return };
        let mut new = Player::new(&kept, 3 + calls as u64);
        new.stream.set_nonblocking(true).expect("a socket");
        let expected = new.sends().expect("room");
        new.stream.set_nonblocking(false).expect("a socket");
        stopped.go_on_until(libc::SYS_accept4);
        // It waits when it has answered all that has come.
        let (mut is_kept, mut keeps, mut goes_on) = (false, false, true);
        for _ in 0..calls {
            let Some(call) = stopped.next_call() else { panic!("it has ended") };
            // What it was about to do is done when it does the next.
            is_kept |= keeps;
            keeps = call.number() == libc::SYS_sendmsg;
            if call.waits() {
                goes_on = false;
                break;
            }
        }
        die(stopped, pid);
        kept.pid_after(&pid.to_string());
        players.iter_mut().try_for_each(Player::round).unwrap_or_else(|why| panic!("killed after {calls} calls: {why}"));
        let mut answer = vec![0; expected.len()];
        match new.stream.read_exact(&mut answer) {
            Ok(()) => {
                assert!(answer == expected, "killed after {calls} calls: another answer");
                new.round().unwrap_or_else(|why| panic!("killed after {calls} calls: {why}"));
            }
            Err(why) => {
                assert!(calls > 0 && !is_kept, "killed after {calls} calls: {why}");
                cut += 1;
            }
        }
        if !goes_on {
            println!("{calls} calls to keep and answer one; at {cut} of them a kill ends that one");
            assert!(cut > 0, "is the place still where a connection is not kept yet?");
            assert!(calls > 10, "no more than {calls} calls");
            break;
        }
    }
    drop(players.pop());
    wait_until("all but one to be gone", || kept.connections() == 1);
    assert_eq!(kept.stop(), 0);
}

fn a_process_that_is_killed_at_any_call_while_it_forgets_a_connection_leaves_nothing_of_it() {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut stays = Player::new(&kept, 1);
    stays.round().expect("an answer");
    let open = kept.descriptors();
    for calls in 1.. {
        let mut leaves = Player::new(&kept, 1 + calls as u64);
        leaves.round().expect("an answer");
        let pid = serving(&kept);
        let Some(stopped) = Stopped::new(pid, "the one of a connection that is forgotten") else { return };
        stopped.go_on_until_it_waits();
        leaves.stream.shutdown(Shutdown::Write).expect("a connection");
        let (mut has_shut_down, mut goes_on) = (false, true);
        for _ in 0..calls {
            let Some(call) = stopped.next_call() else { panic!("it has ended") };
            if has_shut_down && call.waits() {
                goes_on = false;
                break;
            }
            has_shut_down |= call.number() == libc::SYS_shutdown;
        }
        die(stopped, pid);
        kept.pid_after(&pid.to_string());
        assert_eq!(leaves.stream.read(&mut [0; 8]).expect("an end"), 0, "killed after {calls} calls");
        stays.round().unwrap_or_else(|why| panic!("killed after {calls} calls: {why}"));
        wait_until("the connection to be gone", || kept.connections() == 1);
        wait_until_equal("nothing else to be left", || kept.descriptors(), || open.clone());
        if !goes_on {
            println!("{calls} calls to forget one");
            assert!(calls > 5, "no more than {calls} calls");
            break;
        }
    }
    assert_eq!(kept.stop(), 0);
}
