//! What happens between two system calls of a process, at each place where it can happen.

use std::fs;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::signal::Signal;

use pollflip_kit::debugger::Stopped;
use pollflip_kit::harness::{Service, Setup, install, install_copy};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Linger, Log, Step, at, ms, never_ready};

pollflip_kit::trials![
    promise_03_a_successor_that_refuses_is_heard_at_whatever_call_of_the_old_one_it_ends,
    promise_03_a_start_that_is_called_off_at_any_call_of_the_restart_thread_leaves_nothing,
    promise_03_a_message_to_the_old_one_that_cannot_be_read_for_a_moment_is_read_later,
    promise_03_a_message_to_the_new_one_that_cannot_be_read_for_a_moment_is_read_later,
    promise_07_the_new_one_killed_at_any_call_of_the_old_one_gives_the_service_back_or_is_reported,
    promise_07_the_new_one_killed_at_any_call_of_the_old_one_on_probation_gives_the_service_back,
    promise_07_the_old_one_killed_at_any_call_of_the_new_one_leaves_it_the_service,
    promise_07_the_old_one_that_calls_off_at_any_call_of_the_new_one_stays_the_only_owner,
    the_state_is_the_threads_that_waits_for_it_even_if_it_comes_before_that_one_waits,
];

/// Lets a thread make so many calls, or fewer if it has nothing to do any more: it has made that one, and waits, so many times. Says whether
/// it has made them all.
fn makes(calls: usize, stopped: &Stopped, last: c_long, waits: usize) -> bool {
    let (mut has_made_it, mut left) = (false, waits);
    for _ in 0..calls {
        let Some(call) = stopped.next_call() else { return false };
        has_made_it |= call.number() == last;
        if has_made_it && call.waits() {
            left -= 1;
            if left == 0 {
                return false;
            }
        }
    }
    true
}

/// How often in a row a message cannot be read.
const IN_A_ROW: usize = 3;

/// One of the two processes of a restart cannot read a message of the lifeline for want of memory, each
/// time another message.
fn short_of_memory(test: &str, whom: impl Fn(&Process, &Process) -> u32) {
    for message in 1.. {
        let service = Setup::new().set(Linger).set(Log::Told).start();
        let old = service.first();
        service.plan_next(at(Step::Born, Act::Wait).at(Step::Built, Act::Progress("halfway".into())));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        old.says("event Spawned");
        let who = whom(&old, &new);
        let Some(stopped) = Stopped::new(who, test) else { return };
        new.go();
        // The new one says that it is there, how far it is, and that it is ready; the old one grants and
        // commits.
        let (mut left, mut waits): (u32, u32) = if who == new.pid { (3, 2) } else { (2, 1) };
        let (mut before, mut failed) = (message, 0);
        while failed < IN_A_ROW {
            let Some(call) = stopped.next_call() else { panic!("it has ended") };
            if left == 0 && failed == 0 && call.waits() {
                waits -= 1;
                if waits == 0 {
                    break;
                }
            }
            if call.number() == libc::SYS_sendmsg {
                left = left.saturating_sub(1);
            }
            if call.number() == libc::SYS_recvmsg {
                before -= usize::from(before > 0);
                if before == 0 {
                    stopped.fail_call(call, Errno::ENOMEM);
                    failed += 1;
                }
            }
        }
        drop(stopped);
        assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid, "at message {message}");
        new.says("event Committed");
        assert_eq!(service.connect().pid, new.pid);
        assert!(old.said("event Failed").is_empty() && new.said("event GivenUp").is_empty());
        if failed < IN_A_ROW {
            assert!(message > 2, "no more than {message} messages");
            break;
        }
        let warnings = [old.said("log WARN"), new.said("log WARN")].concat();
        assert!(matches!(&warnings[..], [one] if one.contains("the lifeline cannot be read for a moment")), "{warnings:?}");
    }
}

fn promise_03_a_message_to_the_old_one_that_cannot_be_read_for_a_moment_is_read_later() {
    short_of_memory("the one of an old process that is short of memory", |old, _| old.pid);
}

fn promise_03_a_message_to_the_new_one_that_cannot_be_read_for_a_moment_is_read_later() {
    short_of_memory("the one of a new process that is short of memory", |_, new| new.pid);
}

fn is_dead(process: &Process) {
    wait_until("the end of it", || procfs::has_ended(process.pid));
}

fn promise_03_a_successor_that_refuses_is_heard_at_whatever_call_of_the_old_one_it_ends() {
    let service = Service::start();
    let old = service.first();
    for calls in 1.. {
        service
            .plan_next(at(Step::Claimed, Act::Wait).at(Step::Claimed, Act::Refuse("not this one".into())).at(Step::Claimed, Act::Exit(3)));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(calls);
        new.says("waits");
        old.says_again("event Spawned", calls - 1);
        let Some(stopped) = Stopped::new(old.pid, "the one of a successor that refuses") else { return };
        // The loop has something to do, and looks at all that it has.
        let client = UnixStream::connect(service.socket()).expect("a connection");
        let goes_on = makes(calls, &stopped, libc::SYS_accept4, 1);
        new.go();
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

fn promise_03_a_start_that_is_called_off_at_any_call_of_the_restart_thread_leaves_nothing() {
    let setup = Setup::new();
    let program = setup.path("server");
    install_copy(&program);
    let service = setup.program(program.clone()).start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let release = |script: &str| {
        fs::remove_file(&program).expect("the release before");
        install(&program, script.as_bytes());
    };
    // Whatever comes of it lives until it is killed.
    release("#!/bin/sh\nexec sleep 1000\n");
    let thread = wait_for("the restart thread", || procfs::restart_thread(old.pid));
    for calls in 1.. {
        wait_until("the end of the one before", || procfs::children(old.pid).is_empty());
        let Some(stopped) = Stopped::new(thread, "the one of a start that is called off") else { return };
        // Its answer may have to wait for what the thread has at this moment.
        old.tell(Act::Request);
        let (mut left, mut has_told) = (calls, false);
        let is_done = loop {
            let call = stopped.next_call().expect("the restart thread");
            // It wakes the loop. Then it waits for the next one to start.
            has_told |= call.number() == libc::SYS_write;
            if has_told && call.waits() {
                break true;
            }
            left -= usize::from(!call.may_hold_a_lock());
            if left == 0 {
                break false;
            }
        };
        old.says_again("event Restarting", calls - 1);
        assert_eq!(old.ask(Act::Cancel), "true");
        drop(stopped);
        assert!(old.says_again("event Failed", calls - 1).starts_with("Cancelled"));
        if is_done {
            assert!(calls > 4, "no more than {calls} calls");
            break;
        }
    }
    // What the thread had to do before is done when this has been started.
    release("#!/bin/sh\nexit 3\n");
    assert!(service.fail_to_restart().contains("exited with status 3"));
    service.expect_unchanged(&old, &before);
    assert_eq!(service.hub.pids(), [old.pid]);
    fs::remove_file(&program).expect("the last release");
    install_copy(&program);
    service.restart();
}

/// Says that the successor is ready, and kills it at each call that the old one makes from then on.
fn killed_when_it_is_ready(setup: impl Fn() -> Setup, check: impl Fn(&Service, &Process, Result<u32, String>)) {
    for calls in 1.. {
        let service = setup().set(Linger).start();
        let old = service.first();
        service.plan_next(
            at(Step::Claimed, Act::Wait).at(Step::Claimed, Act::SayOnLifeline("{\"type\":\"ready\"}".into())).at(Step::Claimed, Act::Hang),
        );
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        old.says("event Spawned");
        let Some(stopped) = Stopped::new(old.pid, "the one of a successor that is killed") else { return };
        new.go();
        new.says("hangs");
        // Its last word is the grant.
        let goes_on = makes(calls, &stopped, libc::SYS_sendmsg, 1);
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
    service.plan_next(at(Step::Born, Act::Exit(4)));
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
    let setup = || Setup::new().set(Config::Probation(ms(120000)));
    killed_when_it_is_ready(setup, |service, _, answer| serves_again(service, &answer.expect_err("a dead successor")));
}

/// Strikes at each call that the new one makes on its way to the service.
fn struck_on_its_way(strike: impl Fn(&Process) -> String, check: impl Fn(&Service, &Process, &str)) {
    for calls in 1.. {
        let service = Setup::new().set(Linger).start();
        let old = service.first();
        service.plan_next(at(Step::Claimed, Act::Wait));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        let Some(stopped) = Stopped::new(new.pid, "the one of a successor on its way") else { return };
        new.go();
        // Its last word is that it is ready; then it waits for the grant, and for something to do.
        let goes_on = makes(calls, &stopped, libc::SYS_sendmsg, 2);
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
        |old| old.ask(Act::Cancel),
        |service, new, is_called_off| {
            let old = service.first();
            if is_called_off == "true" {
                assert!(old.says("event Failed").starts_with("Cancelled("));
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

fn the_state_is_the_threads_that_waits_for_it_even_if_it_comes_before_that_one_waits() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let go = service.path("go");
    service.plan_next(never_ready().at(Step::Claimed, Act::ReceiveAfter(go.clone())));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    let receiver = new.says("receiver").parse().expect("a number");
    let Some(stopped) = Stopped::new(receiver, "the one of a thread that waits for the state") else { return };
    fs::write(go, "").expect("a file");
    // It has asked, and goes no further, while the loop has the answer and would look at it.
    stopped.go_on_until(libc::SYS_sendmsg);
    stopped.end_call();
    old.says("gives the state");
    wait_until("the loop to look at it", || procfs::waits_for_a_lock(new.pid));
    // The thread lets go of that.
    stopped.go_on_until(libc::SYS_futex);
    stopped.end_call();
    // The loop looks again before it has answered twice.
    new.ask(Act::Status);
    new.ask(Act::Status);
    drop(stopped);
    wait_until("an outcome", || !new.said("received").is_empty() || !new.said("receive-error").is_empty());
    assert_eq!(new.said("received"), ["from"], "{:?}", new.said("receive-error"));
    old.ask(Act::Cancel);
    drop(asker.join().expect("a thread"));
}
