//! What happens between two system calls of a process, at each place where it can happen.

use std::os::unix::net::UnixStream;

use libtest_mimic::Trial;
use nix::libc;
use nix::sys::signal::Signal;

use crate::debugger::Stopped;
use crate::harness::{Service, Setup};
use crate::hub::{Process, wait_until};
use crate::procfs;

pub fn trials() -> Vec<Trial> {
    trials![
        promise_03_a_successor_that_refuses_is_heard_at_whatever_call_of_the_old_one_it_ends,
        promise_07_the_new_one_killed_at_any_call_of_the_old_one_gives_the_service_back_or_is_reported,
        promise_07_the_new_one_killed_at_any_call_of_the_old_one_on_probation_gives_the_service_back,
        promise_07_the_old_one_killed_at_any_call_of_the_new_one_leaves_it_the_service,
        promise_07_the_old_one_that_calls_off_at_any_call_of_the_new_one_stays_the_only_owner,
    ]
}

/// Lets a thread make so many calls, or fewer if it has nothing to do any more: it has looked at its lifeline and waits, so many times.
/// Says whether it has made them all.
fn makes(calls: usize, stopped: &Stopped, waits: usize) -> bool {
    let (mut has_read, mut left) = (false, waits);
    for _ in 0..calls {
        let Some(call) = stopped.next_call() else { return false };
        has_read |= call.number() == libc::SYS_recvmsg;
        if has_read && call.waits() {
            left -= 1;
            if left == 0 {
                return false;
            }
        }
    }
    true
}

fn is_dead(process: &Process) {
    wait_until("the end of it", || procfs::has_ended(process.pid));
}

fn promise_03_a_successor_that_refuses_is_heard_at_whatever_call_of_the_old_one_it_ends() {
    let service = Service::start();
    let old = service.first();
    for calls in 1.. {
        service.plan_next("claimed wait\nclaimed refuse not this one\nclaimed exit 3");
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(calls);
        new.says("waits");
        old.says_again("event Spawned", calls - 1);
        let Some(stopped) = Stopped::new(old.pid, "the one of a successor that refuses") else { return };
        // The loop has something to do, and looks at all that it has.
        let client = UnixStream::connect(service.socket()).expect("a connection");
        let goes_on = makes(calls, &stopped, 1);
        new.tell("go");
        is_dead(&new);
        drop(stopped);
        let why = asker.join().expect("a thread").expect_err("a refusal").to_string();
        assert_eq!(why, "restart failed: the successor refused: not this one", "at call {calls}");
        drop(client);
        if !goes_on {
            assert!(calls > 10, "no more than {calls} calls");
            break;
        }
    }
    service.restart();
}

/// Says that the successor is ready, and kills it at each call that the old one makes from then on.
fn killed_when_it_is_ready(setup: impl Fn() -> Setup, check: impl Fn(&Service, &Process, Result<u32, String>)) {
    for calls in 1.. {
        let service = setup().set("linger", "1").start();
        let old = service.first();
        service.plan_next("claimed wait\nclaimed say-on-lifeline {\"type\":\"ready\"}\nclaimed hang");
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        old.says("event Spawned");
        let Some(stopped) = Stopped::new(old.pid, "the one of a successor that is killed") else { return };
        new.tell("go");
        new.says("hangs");
        let goes_on = makes(calls, &stopped, 1);
        new.signal(Signal::SIGKILL);
        is_dead(&new);
        drop(stopped);
        let answer = asker.join().expect("a thread").map_err(|error| error.to_string());
        check(&service, &new, answer);
        if !goes_on {
            assert!(calls > 10, "no more than {calls} calls");
            break;
        }
    }
}

fn serves_again(service: &Service, why: &str) {
    assert!(why.contains("was killed by SIGKILL"), "{why}");
    let old = service.first();
    assert_eq!(service.connect().pid, old.pid);
    wait_until("it to be reaped", || procfs::children(old.pid).is_empty());
    // It can be restarted: by one that fails at once, for a good one would be on probation now.
    service.plan_next("born exit 4");
    assert!(service.fail_to_restart().contains("exited with status 4"));
}

fn promise_07_the_new_one_killed_at_any_call_of_the_old_one_gives_the_service_back_or_is_reported() {
    killed_when_it_is_ready(Setup::new, |service, new, answer| match answer {
        Ok(pid) => {
            assert_eq!(pid, new.pid);
            service.first().says(&format!("event SuccessorGone {pid}"));
        }
        Err(why) => serves_again(service, &why),
    });
}

fn promise_07_the_new_one_killed_at_any_call_of_the_old_one_on_probation_gives_the_service_back() {
    let setup = || Setup::new().set("probation_ms", "120000");
    killed_when_it_is_ready(setup, |service, _, answer| serves_again(service, &answer.expect_err("a dead successor")));
}

/// Strikes at each call that the new one makes on its way to the service.
fn struck_on_its_way(strike: impl Fn(&Process) -> String, check: impl Fn(&Service, &Process, &str)) {
    for calls in 1.. {
        let service = Setup::new().set("linger", "1").start();
        let old = service.first();
        service.plan_next("claimed wait");
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        let Some(stopped) = Stopped::new(new.pid, "the one of a successor on its way") else { return };
        new.tell("go");
        let goes_on = makes(calls, &stopped, 2);
        let struck = strike(&old);
        drop(stopped);
        // Whoever asked may have lost whom it had asked.
        drop(asker.join().expect("a thread"));
        check(&service, &new, &struck);
        if !goes_on {
            assert!(calls > 10, "no more than {calls} calls");
            break;
        }
    }
}

fn promise_07_the_old_one_killed_at_any_call_of_the_new_one_leaves_it_the_service() {
    let strike = |old: &Process| {
        old.signal(Signal::SIGKILL);
        is_dead(old);
        String::new()
    };
    struck_on_its_way(strike, |service, new, _| {
        new.says("serving");
        assert_eq!(service.connect().pid, new.pid);
        assert_eq!(service.status().pid, new.pid);
        service.restart();
    });
}

fn promise_07_the_old_one_that_calls_off_at_any_call_of_the_new_one_stays_the_only_owner() {
    struck_on_its_way(
        |old| old.ask("cancel"),
        |service, new, is_called_off| {
            let old = service.first();
            if is_called_off == "true" {
                old.says("event Failed Cancelled");
                is_dead(new);
                assert!(new.said("serving").is_empty());
                assert_eq!(service.connect().pid, old.pid);
                service.restart();
            } else {
                // It came too late.
                new.says("event Committed");
                assert_eq!(service.connect().pid, new.pid);
            }
        },
    );
}
