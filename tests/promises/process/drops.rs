//! What becomes of a restarter that is dropped, at each state.

use std::fs;

use nix::sys::signal::Signal;

use crate::api::{go_on_when_it_was_tried, slow_to_spawn, while_it_is_tried};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs::Snapshot;
use pollflip_kit::service::{Act, Config, Linger, Listen, Step, at, ms, never_ready, set};

pollflip_kit::trials![
    a_drop_when_idle_leaves_nothing,
    a_drop_at_restarting_leaves_nothing,
    a_drop_while_spawning_leaves_nothing,
    a_drop_while_the_successor_gets_ready_kills_it,
    a_drop_while_a_successor_is_being_killed_leaves_nothing,
    a_drop_on_probation_commits,
    a_drop_after_the_handoff_leaves_the_service_alone,
    a_drop_with_the_commit_unread_takes_the_path_away,
    a_restarter_can_be_built_again_after_a_drop,
    what_a_dropped_restarter_has_not_told_of_the_predecessor_the_next_one_tells,
    what_a_dropped_restarter_has_not_told_the_next_one_tells,
    what_a_dropped_restarter_has_not_told_when_the_predecessor_is_killed_the_next_one_tells,
    promise_07_the_state_that_a_dropped_restarter_has_read_is_the_next_ones_though_the_predecessor_dies,
    a_copy_that_a_forked_child_drops_is_not_the_restarter,
];

/// Without a restarter: one thread, no child, no socket, and the restart signal does nothing.
fn expect_dropped(service: &Service) {
    let old = service.first();
    wait_until("the end of all children and threads", || {
        let now = Snapshot::of(old.pid);
        now.children == 0 && now.threads == 1
    });
    let left: Vec<_> = fs::read_dir(service.path(".")).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("restart.sock")), "{left:?}");
    old.signal(Signal::SIGUSR1);
    let descriptors = Snapshot::of(old.pid).descriptors;
    for kind in ["[pidfd]", "[timerfd]", "[eventfd]"] {
        assert!(!descriptors.iter().any(|what| what.contains(kind)), "{descriptors:?}");
    }
    service.connect().echo("it serves");
    assert_eq!(old.ask(Act::Request), "there is no restarter");
}

fn a_drop_when_idle_leaves_nothing() {
    let service = Service::start();
    assert!(service.socket().exists());
    assert_eq!(service.first().ask(Act::Drop), "dropped");
    expect_dropped(&service);
}

fn a_drop_at_restarting_leaves_nothing() {
    let service = Service::start();
    service.plan_next(set(Listen::Nowhere));
    service.first().on(Step::Restarting, Act::Drop);
    service.first().ask(Act::Request);
    assert_eq!(service.first().did(&Act::Drop), "dropped");
    expect_dropped(&service);
    assert!(service.next_is_waiting());
}

fn a_drop_while_spawning_leaves_nothing() {
    let (service, writer) = slow_to_spawn();
    let old = service.first();
    let waits = while_it_is_tried(&old, Act::Drop);
    old.ask(Act::Request);
    go_on_when_it_was_tried(&old, waits);
    assert_eq!(old.did(&Act::Drop), "dropped");
    drop(writer);
    expect_dropped(&service);
    assert_eq!(service.hub.pids(), [old.pid]);
}

fn a_drop_while_the_successor_gets_ready_kills_it() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Built, Act::Hang));
    old.ask(Act::Request);
    let new = service.hub.nth(1);
    new.says("hangs");
    assert_eq!(old.ask(Act::Drop), "dropped");
    new.ends();
    expect_dropped(&service);
}

fn a_drop_while_a_successor_is_being_killed_leaves_nothing() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Hang));
    old.on(Step::Spawned, Act::Cancel);
    old.on(Step::Spawned, Act::Drop);
    old.ask(Act::Request);
    assert_eq!(old.did(&Act::Drop), "dropped");
    expect_dropped(&service);
}

fn a_drop_on_probation_commits() {
    let service = Setup::new().set(Config::Probation(ms(120000))).set(Linger).start();
    let old = service.first();
    old.on(Step::HandedOff, Act::Drop);
    old.ask(Act::Request);
    let new = service.hub.nth(1);
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
    assert_eq!(service.status().pid, new.pid);
    old.signal(Signal::SIGUSR1);
    assert_eq!(old.ask(Act::Drop), "there was none");
    assert!(new.lives());
}

fn a_drop_after_the_handoff_leaves_the_service_alone() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let new = service.restart();
    old.says("event Completed");
    assert_eq!(old.ask(Act::Drop), "dropped");
    assert_eq!(service.status().pid, new.pid);
    assert_eq!(service.connect().pid, new.pid);
    old.signal(Signal::SIGUSR1);
    assert_eq!(service.restart().says("built").split(' ').nth(1), Some("2"));
    assert!(old.lives());
}

fn a_drop_with_the_commit_unread_takes_the_path_away() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Granted, Act::Wait).at(Step::Granted, Act::Drop));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    asker.join().expect("a thread").expect("a restart");
    old.ends();
    new.go();
    assert_eq!(new.did(&Act::Drop), "dropped");
    assert!(!service.socket().exists());
}

fn a_restarter_can_be_built_again_after_a_drop() {
    let service = Setup::new().set(Listen::Nowhere).start();
    let old = service.first();
    for _ in 0..3 {
        assert_eq!(old.ask(Act::Drop), "dropped");
        assert!(!service.socket().exists());
        assert_eq!(old.ask(Act::Build), "ok");
        assert_eq!(old.ask(Act::Ready), "ok");
        assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    }
    let new = service.restart();
    assert_eq!(new.says("built"), format!("generation 1 predecessor {}", old.pid));
    // And in a successor.
    assert_eq!(new.ask(Act::Drop), "dropped");
    assert_eq!(new.ask(Act::Build), "ok");
    assert_eq!(new.ask(Act::Ready), "ok");
    wait_until("a process that can be restarted again", || service.status().state == pollflip::ServiceState::Serving);
    service.restart();
}

fn what_a_dropped_restarter_has_not_told_of_the_predecessor_the_next_one_tells() {
    let service = Setup::new().set(Listen::Nowhere).set(Config::NoSocket).set(Config::Probation(ms(120000))).start();
    let old = service.first();
    service.plan_next(at(Step::Granted, Act::Drop));
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    assert_eq!(new.did(&Act::Drop), "dropped");
    // The grant is all that there is: the loop need not wait for anything else.
    assert_eq!(new.ask(Act::Build), "ok");
    new.says("event Granted");
    assert_eq!(new.ask(Act::Drop), "dropped");
    assert_eq!(old.ask(Act::Stop), "stopped");
    old.ends();
    assert_eq!(new.ask(Act::Build), "ok");
    new.says("event Committed");
    new.says("event PredecessorGone");
    // Each comes once.
    assert_eq!((new.ask(Act::Drop).as_str(), new.ask(Act::Build).as_str(), new.ask(Act::Ready).as_str()), ("dropped", "ok", "ok"));
    assert!(new.ask(Act::Status).contains("idle"));
    for event in ["event Granted", "event Committed", "event PredecessorGone"] {
        assert_eq!(new.said(event).len(), 1, "{event}");
    }
}

/// Each notice of the predecessor comes once in a process, however many restarters that has.
fn what_a_dropped_restarter_has_not_told_the_next_one_tells() {
    let service = Setup::new().set(Listen::Nowhere).start();
    let old = service.first();
    // It has looked when it was ready, and once more when it was dropped.
    service.plan_next(at(Step::Granted, Act::Wait).at(Step::Granted, Act::Drop));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    asker.join().expect("a thread").expect("a restart");
    old.ends();
    new.go();
    assert_eq!(new.did(&Act::Drop), "dropped");
    for _ in 0..2 {
        assert_eq!(new.ask(Act::Build), "ok");
        for event in ["Granted", "Committed", "PredecessorGone"] {
            new.says(&format!("event {event}"));
        }
        assert_eq!(new.ask(Act::Drop), "dropped");
    }
    for event in ["Granted", "Committed", "PredecessorGone"] {
        assert_eq!(new.said(&format!("event {event}")).len(), 1, "{event}");
    }
}

fn what_a_dropped_restarter_has_not_told_when_the_predecessor_is_killed_the_next_one_tells() {
    let service = Setup::new().set(Listen::Nowhere).set(Config::NoSocket).set(Config::Probation(ms(120000))).start();
    let old = service.first();
    service.plan_next(at(Step::Granted, Act::Drop));
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    assert_eq!(new.did(&Act::Drop), "dropped");
    old.signal(Signal::SIGKILL);
    old.ends();
    assert_eq!((new.ask(Act::Build).as_str(), new.ask(Act::Ready).as_str()), ("ok", "ok"));
    new.says("event PredecessorGone");
    assert_eq!(new.said("event"), ["Granted", "Committed", "PredecessorGone"]);
    assert!(new.ask(Act::Status).contains("idle"));
}

fn promise_07_the_state_that_a_dropped_restarter_has_read_is_the_next_ones_though_the_predecessor_dies() {
    let service = Setup::new().set(Listen::Nowhere).set(Config::NoSocket).start();
    let old = service.first();
    service.plan_next(
        never_ready().at(Step::Claimed, Act::Pull).at(Step::Claimed, Act::Wait).at(Step::Claimed, Act::Drop).at(Step::Claimed, Act::Wait),
    );
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    assert_eq!(old.says("gives the state"), "Ok(())");
    // It is under way when this is answered. The restarter reads it when it is dropped, and nobody takes it.
    old.ask(Act::Status);
    new.go();
    new.says_again("waits", 1);
    assert_eq!(new.said("did Drop:"), ["dropped"]);
    old.signal(Signal::SIGKILL);
    old.ends();
    new.go();
    assert_eq!(new.ask(Act::Build), "ok");
    new.says("event Inherited");
    new.says("event PredecessorGone");
    assert_eq!(new.said("event"), ["Inherited", "PredecessorGone"]);
    assert_eq!(new.ask(Act::Ready), "ok");
    assert!(new.ask(Act::Status).contains("idle"));
}

/// A worker that fails runs its way out of `main`, over everything that it has inherited.
fn a_copy_that_a_forked_child_drops_is_not_the_restarter() {
    let service = Service::start();
    let old = service.first();
    // It takes as long as the machine's load, and never the seconds that it could wait for a thread.
    let drops_a_copy = || wait_until("a drop that waits for nobody", || old.ask(Act::DropInAFork) == "Ok(true)");
    drops_a_copy();
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    service.plan_next(at(Step::Built, Act::Hang));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("hangs");
    old.says("event Spawned");
    drops_a_copy();
    assert!(new.lives());
    let status = service.status();
    assert_eq!((status.state.as_str(), status.successor), ("awaiting ready", Some(new.pid)));
    assert_eq!(old.ask(Act::Cancel), "true");
    asker.join().expect("a thread").expect_err("a restart that was called off");
    service.restart();
}
