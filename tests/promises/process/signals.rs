//! Promise 6: the restart signal, at any moment from the first handler on and in any number, kills nothing and starts at most one
//! successor at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Step, at, set};

pollflip_kit::trials![
    promise_06_a_signal_restarts,
    promise_06_a_signal_at_once_after_the_build_kills_nothing,
    promise_06_signals_to_a_starting_successor_kill_nothing,
    promise_06_a_storm_of_signals_kills_nothing_and_starts_one_at_a_time,
    promise_06_signals_during_a_restart_are_refused,
    promise_06_another_restart_signal_can_be_chosen,
    promise_06_a_successor_may_choose_another_signal,
    promise_06_no_signal_restarts_if_none_was_chosen,
    promise_06_the_signal_mask_is_handed_down_without_the_restart_signal,
    promise_06_the_thread_of_the_loop_is_not_interrupted_by_the_restart_signal,
];

fn promise_06_a_signal_restarts() {
    let service = Service::start();
    service.first().signal(Signal::SIGUSR1);
    let new = service.hub.nth(1);
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
}

/// A loop that passes every error of its poll on would end by EINTR.
fn promise_06_the_thread_of_the_loop_is_not_interrupted_by_the_restart_signal() {
    let service = Service::start();
    let mut process = service.first();
    for generation in 1..3 {
        assert!(procfs::has_signal(process.pid, "SigBlk", libc::SIGUSR1), "generation {}", generation - 1);
        process.signal(Signal::SIGUSR1);
        process = service.hub.nth(generation);
        process.says("event Committed");
    }
}

fn promise_06_a_signal_at_once_after_the_build_kills_nothing() {
    let service = Setup::new().plan(at(Step::Built, Act::Raise(Signal::SIGUSR1)).at(Step::Built, Act::Wait)).launch();
    let first = service.first();
    first.says("waits");
    for _ in 0..20 {
        first.signal(Signal::SIGUSR1);
    }
    first.go();
    first.says("serving");
    // What came before it was ready was refused, or restarts it now; it is not dead of it.
    wait_until("somebody who can be restarted", || service.try_restart().is_ok());
    service.connect().echo("served");
}

fn promise_06_signals_to_a_starting_successor_kill_nothing() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Wait).at(Step::Built, Act::Wait).at(Step::Claimed, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    for number in 0..3 {
        new.says_again("waits", number);
        // Before the build it is blocked, afterwards it is handled, by the restart thread alone.
        assert!(procfs::has_signal(new.pid, "SigBlk", libc::SIGUSR1));
        // The thread does so when it gets to run.
        wait_until("the restart thread", || procfs::restart_thread_takes(new.pid, libc::SIGUSR1) == (number > 0).then_some(true));
        assert_eq!(procfs::has_signal(new.pid, "SigCgt", libc::SIGUSR1), number > 0);
        for _ in 0..20 {
            new.signal(Signal::SIGUSR1);
            old.signal(Signal::SIGUSR1);
        }
        new.go();
    }
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    new.says("serving");
    wait_until("somebody who can be restarted", || service.try_restart().is_ok());
    service.connect().echo("served");
}

fn promise_06_a_storm_of_signals_kills_nothing_and_starts_one_at_a_time() {
    let service = Service::start();
    let first = service.first();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for pid in service.hub.pids() {
                        if !procfs::has_ended(pid) {
                            // It may end meanwhile, and be reaped by its predecessor; nobody else gets its number as fast as that.
                            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGUSR1);
                        }
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            });
        }
        wait_until("eight generations", || service.hub.pids().len() > 8);
        stop.store(true, Ordering::Relaxed);
    });
    let processes = || service.hub.pids().into_iter().map(|pid| service.hub.process(pid));
    wait_until("one process that serves, all others ended", || {
        let left: Vec<_> = processes().filter(Process::lives).collect();
        // What it has been sent is a restart that has begun, or is none.
        left.len() == 1
            && procfs::has_taken_in(left[0].pid, libc::SIGUSR1)
            && service.status().state == pollflip::ServiceState::Serving
            && service.hub.pids().len() == processes().count()
    });
    // Each had one successor at most: a generation has one process.
    let generations: Vec<_> = processes().map(|process| process.says("built")).collect();
    let distinct: BTreeSet<_> = generations.iter().map(|built| built.split(' ').nth(1)).collect();
    assert_eq!(distinct.len(), generations.len(), "{generations:?}");
    assert!(processes().all(|process| process.said("event Failed").is_empty()));
    assert_eq!(first.said("event Spawned").len(), 1);
    service.connect().echo("served");
    service.restart();
}

fn promise_06_signals_during_a_restart_are_refused() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Built, Act::Wait));
    old.signal(Signal::SIGUSR1);
    let new = service.hub.nth(1);
    new.says("waits");
    for _ in 0..50 {
        old.signal(Signal::SIGUSR1);
    }
    // The successor may have come this far before the restart thread has told the loop of it.
    old.says("event Spawned");
    assert_eq!(service.status().state, pollflip::ServiceState::AwaitingReady);
    new.go();
    new.says("event Committed");
    assert_eq!(old.said("event Spawned").len(), 1);
    old.ends();
    assert_eq!(service.status().pid, new.pid);
}

fn promise_06_another_restart_signal_can_be_chosen() {
    let service = Setup::new().set(Config::Signal(Some(libc::SIGHUP))).start();
    service.first().signal(Signal::SIGHUP);
    let new = service.hub.nth(1);
    new.says("event Committed");
    new.signal(Signal::SIGHUP);
    service.hub.nth(2).says("event Committed");
}

fn promise_06_a_successor_may_choose_another_signal() {
    let service = Setup::new().set(Config::Signal(Some(libc::SIGHUP))).start();
    let usr2 = || set(Config::Signal(Some(libc::SIGUSR2)));
    service.plan_next(usr2().at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    // The one that restarts its predecessor must not kill it.
    new.signal(Signal::SIGHUP);
    // While its handler runs it is blocked.
    wait_until("a signal that nobody blocks", || !procfs::has_signal(new.pid, "SigBlk", libc::SIGHUP));
    new.go();
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    new.signal(Signal::SIGHUP);
    assert_eq!(service.status().pid, new.pid);
    service.plan_next(usr2());
    new.signal(Signal::SIGUSR2);
    let last = service.hub.nth(2);
    last.says("event Committed");
    assert!(!procfs::has_signal(last.pid, "SigBlk", libc::SIGHUP));
}

fn promise_06_no_signal_restarts_if_none_was_chosen() {
    let service = Setup::new().set(Config::Signal(None)).start();
    let first = service.first();
    assert!(!procfs::has_signal(first.pid, "SigCgt", libc::SIGUSR1));
    let second = service.restart();
    assert!(!procfs::has_signal(second.pid, "SigBlk", libc::SIGUSR1));
    service.restart();
}

fn promise_06_the_signal_mask_is_handed_down_without_the_restart_signal() {
    let service = Service::start();
    for _ in 0..2 {
        let new = service.restart();
        let blocked = u64::from_str_radix(new.says("born").rsplit(' ').next().expect("a mask"), 16).expect("a mask");
        assert_eq!(blocked, 1 << (libc::SIGUSR1 - 1));
        wait_until("the restart thread", || procfs::restart_thread_takes(new.pid, libc::SIGUSR1) == Some(true));
        // What Command leaves, and not what Rust makes of it.
        assert!(!procfs::has_signal(new.pid, "SigBlk", libc::SIGPIPE));
    }
}
