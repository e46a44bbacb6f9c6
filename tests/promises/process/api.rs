//! What a program can do with its restarter at each state: request, cancel, stop.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nix::sys::signal::Signal;

use pollflip_kit::harness::{Service, Setup, install, own_program};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Linger, Listen, Plan, Step, at, ms, never_ready, set, tcp};

pollflip_kit::trials![
    a_cancel_at_restarting_prevents_the_spawn,
    a_cancel_while_spawning_gives_the_start_up,
    a_cancel_while_the_successor_gets_ready_kills_it,
    a_cancel_after_the_grant_comes_too_late,
    a_stop_refuses_what_comes_later,
    a_stop_at_restarting_prevents_the_spawn,
    a_stop_while_the_successor_gets_ready_kills_it,
    a_process_that_has_handed_over_builds_no_other_restarter,
    two_restarters_at_a_time_are_an_error,
    ready_is_idempotent,
    startup_complete_before_the_build_is_an_error,
    startup_complete_is_ready_from_anywhere,
    the_successor_can_be_watched,
    a_successor_whose_end_was_told_still_says_how_it_ended,
];

fn a_cancel_at_restarting_prevents_the_spawn() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(set(Listen::Nowhere));
    old.on(Step::Restarting, Act::Cancel);
    assert_eq!(service.fail_to_restart(), "the restart was called off: by a test");
    assert_eq!(old.did(&Act::Cancel), "true");
    assert!(old.says("event Failed").starts_with("Cancelled"));
    // Nobody was born to take the plan.
    assert!(service.next_is_waiting());
    assert!(old.said("event Spawned").is_empty());
    service.expect_unchanged(&old, &before);
    service.plan_next(Plan::default());
    service.restart();
}

/// A service whose program is being written, so that a start of it takes long, but no more than two seconds; and who writes.
pub fn slow_to_spawn() -> (Service, fs::File) {
    let setup = Setup::new();
    let program = setup.path("program");
    symlink(own_program(), &program).expect("a link");
    let service = setup.set(Config::Program(program.clone())).start();
    fs::remove_file(&program).expect("the link");
    install(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", own_program().display()).as_bytes());
    let writer = fs::OpenOptions::new().append(true).open(&program).expect("a file");
    (service, writer)
}

/// Has it do something in the turn of its loop that has begun a start, so that it does not see before that how the start went. Returns how
/// often the restart thread has waited so far.
pub fn while_it_is_tried(old: &Process, act: Act) -> u64 {
    for act in [Act::Wait, Act::Status, act] {
        old.on(Step::Spawning, act);
    }
    procfs::restart_thread_waits(old.pid)
}

/// Lets it when the program has been tried, and was found to be written.
pub fn go_on_when_it_was_tried(old: &Process, before: u64) {
    old.says("waits");
    // For the child that tries it, and for the time of the next try.
    wait_until("the restart thread to wait for the writer", || procfs::restart_thread_waits(old.pid) >= before + 2);
    old.go();
    assert!(old.did(&Act::Status).contains("spawning"));
}

fn a_cancel_while_spawning_gives_the_start_up() {
    let (service, writer) = slow_to_spawn();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let waits = while_it_is_tried(&old, Act::Cancel);
    let asker = service.restart_meanwhile();
    go_on_when_it_was_tried(&old, waits);
    assert_eq!(old.did(&Act::Cancel), "true");
    let error = asker.join().expect("a thread").expect_err("a restart that was called off");
    assert_eq!(error.to_string(), "restart failed: the restart was called off: by a test");
    drop(writer);
    service.expect_unchanged(&old, &before);
    service.restart();
}

fn a_cancel_while_the_successor_gets_ready_kills_it() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(at(Step::Born, Act::Hang));
    old.on(Step::Spawned, Act::Cancel);
    assert_eq!(service.fail_to_restart(), "the restart was called off: by a test");
    assert_eq!(old.did(&Act::Cancel), "true");
    service.expect_unchanged(&old, &before);
    service.plan_next(Plan::default());
    service.restart();
}

fn a_cancel_after_the_grant_comes_too_late() {
    let service = Setup::new().set(Config::Probation(ms(300))).set(Linger).start();
    let old = service.first();
    assert_eq!(old.ask(Act::Cancel), "false");
    old.on(Step::HandedOff, Act::Cancel);
    let new = service.restart();
    assert_eq!(old.did(&Act::Cancel), "false");
    assert_eq!(old.ask(Act::Cancel), "false");
    assert_eq!(service.connect().pid, new.pid);
}

fn a_stop_refuses_what_comes_later() {
    let service = Service::start();
    let old = service.first();
    old.ask(Act::Stop);
    assert!(old.ask(Act::Request).starts_with("Stopping"));
    let error = service.try_restart().expect_err("a process that stops");
    assert_eq!(error.to_string(), "restart refused: this process is stopping");
    old.signal(Signal::SIGUSR1);
    assert_eq!(service.status().state, pollflip::ServiceState::Stopping);
    service.connect().echo("it serves until it ends");
    // What was kept for a successor is closed, and the program alone has the listener.
    assert!(old.ask(Act::Claim(tcp("other", "127.0.0.1:0"))).contains("asked for too late"));
    assert_eq!(service.hub.pids(), [old.pid]);
}

fn a_stop_at_restarting_prevents_the_spawn() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(set(Listen::Nowhere));
    old.on(Step::Restarting, Act::Stop);
    assert!(service.fail_to_restart().contains("because this process is stopping"));
    assert!(service.next_is_waiting());
    assert!(old.ask(Act::Request).starts_with("Stopping"));
}

fn a_stop_while_the_successor_gets_ready_kills_it() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid).without_a_kept_socket();
    service.plan_next(at(Step::Built, Act::Hang));
    old.on(Step::Spawned, Act::Stop);
    assert!(service.fail_to_restart().contains("because this process is stopping"));
    assert!(old.says("event Failed").starts_with("Stopping"));
    service.expect_unchanged(&old, &before);
    assert!(old.ask(Act::Request).starts_with("Stopping"));
}

/// Two would have a successor each, and both would serve.
fn a_process_that_has_handed_over_builds_no_other_restarter() {
    for (probation, end) in [(Duration::ZERO, Act::Drop), (Duration::ZERO, Act::Successor), (ms(120_000), Act::Drop)] {
        let service = Setup::new().set(Config::Probation(probation)).set(Linger).start();
        let old = service.first();
        if probation.is_zero() {
            service.restart();
            old.says("event Completed");
            assert_ne!(old.ask(end), "none");
        } else {
            old.on(Step::HandedOff, Act::Drop);
            old.ask(Act::Request);
            assert_eq!(old.did(&Act::Drop), "dropped");
        }
        let answer = old.ask(Act::Build);
        assert!(answer.contains("has handed the service over"), "{answer}");
        let new = service.hub.nth(1);
        new.says("event Committed");
        assert_eq!((service.status().pid, service.connect().pid), (new.pid, new.pid));
    }
}

fn two_restarters_at_a_time_are_an_error() {
    let service = Service::start();
    let answer = service.first().ask(Act::Build);
    assert!(answer.contains("another Restarter or RestartTask lives in this process"), "{answer}");
    service.restart();
}

fn ready_is_idempotent() {
    let service = Service::start();
    let new = service.restart();
    for command in [Act::Ready, Act::Ready, Act::StartupComplete] {
        assert_eq!(new.ask(command), "ok");
    }
    service.restart();
}

fn startup_complete_before_the_build_is_an_error() {
    let service = Setup::new().plan(at(Step::Born, Act::StartupComplete)).start();
    let answer = service.first().did(&Act::StartupComplete);
    assert!(answer.contains("startup_complete comes too early"), "{answer}");
}

fn startup_complete_is_ready_from_anywhere() {
    let service = Setup::new().plan(never_ready()).launch();
    let first = service.first();
    assert_eq!(first.ask(Act::StartupComplete), "ok");
    assert_eq!(first.ask(Act::StartupComplete), "ok");
    service.plan_next(never_ready());
    let asker = service.restart_meanwhile();
    let second = service.hub.nth(1);
    assert_eq!(second.ask(Act::StartupComplete), "ok");
    assert_eq!(asker.join().expect("a thread").expect("a restart"), second.pid);
    second.says("event Committed");
}

fn the_successor_can_be_watched() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let new = service.restart();
    old.says("event Completed");
    assert_eq!(old.ask(Act::Successor), format!("{} None", new.pid));
    assert!(!procfs::has_ended(new.pid));
    assert_eq!(service.status().pid, new.pid);
}

fn a_successor_whose_end_was_told_still_says_how_it_ended() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    service.plan_next(at(Step::Committed, Act::Exit(7)));
    let pid = service.try_restart().expect("a restart");
    assert_eq!(old.says("event SuccessorGone"), pid.to_string());
    assert_eq!(old.ask(Act::Successor), format!("{pid} Some(Code(7))"));
}
