//! In a PID namespace: its first process must not hand over, since all others end with it.

use std::process::{Command, Stdio};

use pollflip::RequestError;

use crate::harness::Setup;

trials![the_first_process_of_a_container_refuses_to_restart_and_serves_on, a_service_under_another_first_process_restarts,];

/// A new PID namespace with its own /proc.
const CONTAINER: &str = "unshare --pid --fork --kill-child --mount-proc";

/// Whether this machine lets us have one; says aloud if not.
fn there_are_containers() -> bool {
    let words = CONTAINER.split(' ').skip(1);
    let mut probe = Command::new("unshare");
    let there = probe.args(words).arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: no PID namespace can be had here; it needs root and unshare");
    }
    there
}

fn the_first_process_of_a_container_refuses_to_restart_and_serves_on() {
    if !there_are_containers() {
        return;
    }
    let service = Setup::new().env("POLLFLIP_TEST_LOG", "1").shell(&format!("exec {CONTAINER} \"$0\"")).start();
    let first = service.first();
    assert_eq!(first.pid, 1);
    for _ in 0..2 {
        match service.try_restart() {
            Err(RequestError::Impossible(why)) => {
                assert_eq!(why, pollflip::Refusal::ContainerInit.to_string());
                assert!(why.contains("PID 1") && why.contains("such as `pollflip guard`"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(first.ask("request").starts_with("ContainerInit :: "));
    // A signal does nothing, and kills nobody: it is sent from outside, where the process has another number.
    assert_eq!(first.ask("raise SIGUSR1"), "raised");
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    assert_eq!(service.status().impossible, Some(pollflip::Refusal::ContainerInit.to_string()));
    let warned = first.said("log WARN").iter().filter(|line| line.contains("every restart of this process will be refused")).count();
    assert_eq!(warned, 1);
    service.connect().echo("served on");
    assert_eq!(service.hub.pids().len(), 1);
}

fn a_service_under_another_first_process_restarts() {
    if !there_are_containers() {
        return;
    }
    let service = Setup::new().shell(&format!("exec {CONTAINER} /bin/sh -c '\"$0\" & exec sleep 100000' \"$0\"")).start();
    assert_ne!(service.first().pid, 1);
    for _ in 0..3 {
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
}
