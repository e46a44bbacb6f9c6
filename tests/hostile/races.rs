//! Two servers of one path, started in the same instant.

use std::fs;

use pollflip::restart_coordination_socket::request_status;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_for};
use pollflip_kit::service::{Act, Config, Listen, Step, at};
use pollflip_kit::surroundings::{directory, stale_socket};

pollflip_kit::trials![
    promise_10_of_two_processes_started_in_the_same_instant_exactly_one_wins_each_of_200_times,
    promise_10_of_two_processes_that_find_a_stale_socket_exactly_one_wins_each_of_200_times,
];

const ROUNDS: usize = 200;

/// Both wait at the same line, and go on together.
fn race(prepare: impl Fn(&std::path::Path)) {
    let keep = directory();
    let path = keep.path().join("one.sock");
    let mut wins = [0; 2];
    for round in 0..ROUNDS {
        prepare(&path);
        let services =
            [0, 1].map(|_| Setup::new().set(Config::Socket(path.clone())).set(Listen::Nowhere).plan(at(Step::Born, Act::Wait)).launch());
        let processes = services.each_ref().map(Service::first);
        processes.iter().for_each(|process| _ = process.says("waits"));
        processes.iter().for_each(|process| process.go());
        let outcomes = processes.each_ref().map(|process| {
            wait_for("an outcome", || {
                let error = process.said("build-error").pop();
                error.map(Err).or_else(|| process.said("serving").pop().map(Ok))
            })
        });
        let winner = match &outcomes {
            [Ok(_), Err(why)] if why.contains("another process serves it") => 0,
            [Err(why), Ok(_)] if why.contains("another process serves it") => 1,
            other => panic!("round {round}: {other:?}"),
        };
        wins[winner] += 1;
        assert_eq!(request_status(&path, DEADLINE).expect("a status").pid, processes[winner].pid);
        assert_eq!(processes[winner].ask(Act::Drop), "dropped");
        assert!(!path.exists(), "round {round}");
    }
    println!("{ROUNDS} races: the first won {} of them, the second {}", wins[0], wins[1]);
    assert_eq!(fs::read_dir(keep.path()).expect("a directory").count(), 0);
}

fn promise_10_of_two_processes_started_in_the_same_instant_exactly_one_wins_each_of_200_times() {
    race(|_| {});
}

fn promise_10_of_two_processes_that_find_a_stale_socket_exactly_one_wins_each_of_200_times() {
    race(stale_socket);
}
