//! The path of the coordination socket, from one generation to the next.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::sys::signal::Signal;
use pollflip::restart_coordination_socket::{request_restart, request_status};

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::DEADLINE;
use pollflip_kit::service::{Act, Config, Plan, Step, ms, set};

pollflip_kit::trials![
    promise_10_a_successor_with_another_path_serves_there,
    promise_10_a_successor_with_another_name_of_the_path_goes_on_there,
    promise_04_whoever_asks_at_another_path_than_the_predecessors_is_told_at_once,
    promise_10_a_path_that_was_taken_away_is_there_again_after_a_restart,
    promise_10_a_path_that_another_service_has_by_now_is_never_taken_from_it,
];

fn promise_10_a_successor_with_another_path_serves_there() {
    let service = Service::start();
    let other = service.path("other.sock");
    service.plan_next(set(Config::Socket(other.clone())));
    let new = service.restart();
    new.says("event Committed");
    let status = request_status(&other, DEADLINE).expect("a status");
    assert_eq!(status.pid, new.pid);
    assert!(service.try_restart().is_err());
}

fn promise_10_a_successor_with_another_name_of_the_path_goes_on_there() {
    let service = Service::start();
    let inode = || fs::symlink_metadata(service.socket()).expect("a socket").ino();
    let bound = inode();
    // As `/var/run` is one of `/run`.
    let link = service.path("link");
    symlink(service.path("."), &link).expect("a link");
    let other = link.join("restart.sock");
    service.plan_next(set(Config::Socket(other.clone())));
    let second = service.restart();
    second.says("event Committed");
    assert_eq!(request_status(&other, DEADLINE).expect("a status").pid, second.pid);
    let third = service.restart();
    third.says("event Committed");
    assert_eq!((service.status().pid, inode()), (third.pid, bound));
    // It is the last one's to take away, by whichever name.
    service.plan_next(set(Config::Socket(other.clone())));
    let last = service.restart();
    last.says("event Committed");
    assert_eq!(last.ask(Act::Drop), "dropped");
    assert!(!service.socket().exists());
}

fn promise_04_whoever_asks_at_another_path_than_the_predecessors_is_told_at_once() {
    let service = Setup::new().set(Config::Probation(ms(600000))).start();
    let other = service.path("other.sock");
    service.plan_next(set(Config::Socket(other.clone())).at(Step::Claimed, Act::Wait));
    let first = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    // Not before its loop turns.
    let early = std::thread::spawn({
        let other = other.clone();
        move || request_restart(other, DEADLINE, |_| {})
    });
    new.go();
    new.says("serving");
    let error = early.join().expect("a thread").expect_err("a refusal");
    assert!(error.to_string().contains("has not committed yet"), "{error}");
    assert_eq!(request_status(&other, DEADLINE).expect("a status").state, pollflip::ServiceState::OnProbation);
    service.first().ask(Act::Stop);
    assert_eq!(first.join().expect("a thread").expect("a restart"), new.pid);
    new.says("event Committed");
    assert_eq!(request_status(&other, DEADLINE).expect("a status").state, pollflip::ServiceState::Serving);
}

fn promise_10_a_path_that_was_taken_away_is_there_again_after_a_restart() {
    let service = Service::start();
    fs::remove_file(service.socket()).expect("the path");
    service.first().signal(Signal::SIGUSR1);
    service.hub.nth(1).says("event Committed");
    assert_eq!(service.status().pid, service.hub.nth(1).pid);
    let third = service.restart();
    assert_eq!(service.status().pid, third.pid);
    assert_eq!(third.ask(Act::Drop), "dropped");
    assert!(!service.socket().exists());
}

fn promise_10_a_path_that_another_service_has_by_now_is_never_taken_from_it() {
    let service = Service::start();
    let path = service.socket();
    fs::remove_file(&path).expect("the path");
    let other = Setup::new().set(Config::Socket(path.clone())).start();
    let answers = || request_status(&path, DEADLINE).expect("the other's status").pid == other.first().pid;
    assert!(answers());
    // By one that goes on there, by one that has another path, and at the end.
    for (generation, plan) in [(1, Plan::default()), (2, set(Config::Socket(service.path("elsewhere"))))] {
        service.plan_next(plan);
        service.hub.nth(generation - 1).signal(Signal::SIGUSR1);
        service.hub.nth(generation).says("event Committed");
        service.hub.nth(generation - 1).ends();
        assert!(answers());
    }
    let last = service.hub.nth(2);
    assert_eq!(last.ask(Act::Drop), "dropped");
    assert!(answers());
}
