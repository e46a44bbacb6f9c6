//! In a PID namespace: its first process must not hand over, since all others end with it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::RequestError;

use crate::harness::Setup;
use crate::hub::wait_until;
use crate::procfs;
use crate::surroundings::directory;

trials![
    the_first_process_of_a_container_refuses_to_restart_and_serves_on,
    a_service_under_another_first_process_restarts,
    the_entry_point_of_the_guide_keeps_a_container_alive,
    the_entry_point_of_the_guide_ends_with_one_signal_during_a_probation,
    the_entry_point_of_the_guide_ends_with_one_signal_before_anybody_is_ready,
];

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
    let service = Setup::new().shell(&format!("exec {CONTAINER} \"$0\"")).start();
    let first = service.first();
    assert_eq!(first.pid, 1);
    for _ in 0..2 {
        match service.try_restart() {
            Err(RequestError::Refused(why)) => {
                assert_eq!(why, pollflip::Refusal::ContainerInit.to_string());
                assert!(why.contains("PID 1") && why.contains("start it from a parent that outlives it"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(first.ask("request").starts_with("ContainerInit :: "));
    // A signal does nothing, and kills nobody: it is sent from outside, where the process has another number.
    assert_eq!(first.ask("raise SIGUSR1"), "raised");
    assert_eq!(service.status().state, "idle");
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

fn the_entry_point_of_the_guide_keeps_a_container_alive() {
    if !there_are_containers() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/container/entrypoint.sh");
    let setup = Setup::new();
    let pid_file = setup.path("pid");
    let shell = format!("exec {CONTAINER} /bin/sh \"$SCRIPT\" \"$PID_FILE\" \"$0\"");
    let service = setup.set("pid_file", &pid_file).env("SCRIPT", script).env("PID_FILE", &pid_file).shell(&shell).start();
    for _ in 0..3 {
        let new = service.restart();
        // The old process has ended, and the container with all in it is there.
        new.says("event PredecessorGone");
        assert_eq!(service.connect().pid, new.pid);
    }
}

/// `docker stop` sends one SIGTERM. The process that the file names then leaves the service to the one on probation.
fn the_entry_point_of_the_guide_ends_with_one_signal_during_a_probation() {
    if !there_are_containers() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/container/entrypoint.sh");
    let setup = Setup::new().set("probation_ms", "60000");
    let pid_file = setup.path("pid");
    // The shell tells that its child was terminated.
    let shell = format!("exec {CONTAINER} /bin/sh \"$SCRIPT\" \"$PID_FILE\" \"$0\" 2>/dev/null");
    let service = setup.set("pid_file", &pid_file).env("SCRIPT", script).env("PID_FILE", &pid_file).shell(&shell).start();
    let asked = service.restart_meanwhile();
    service.first().says("event HandedOff");
    let inner = procfs::children(service.launched());
    let [entry_point] = inner[..] else { panic!("not one child: {inner:?}") };
    kill(Pid::from_raw(entry_point as i32), Signal::SIGTERM).expect("it is there");
    wait_until("the container to end", || procfs::has_ended(service.launched()));
    // Nobody is left to answer.
    asked.join().expect("no panic").expect_err("it was answered");
}

/// A service that is slow to start: no file names it yet. That takes no container.
fn the_entry_point_of_the_guide_ends_with_one_signal_before_anybody_is_ready() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/container/entrypoint.sh");
    let directory = directory();
    let mut command = Command::new("/bin/sh");
    command.arg(script).arg(directory.path().join("pid")).args(["/bin/sh", "-c", "echo started; exec sleep 100"]);
    // The shell tells that its child was terminated.
    let mut entry_point = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell");
    let mut started = String::new();
    BufReader::new(entry_point.stdout.take().expect("a pipe")).read_line(&mut started).expect("a line");
    assert_eq!(started, "started\n");
    kill(Pid::from_raw(entry_point.id() as i32), Signal::SIGTERM).expect("it is there");
    wait_until("the container to end", || entry_point.try_wait().expect("its status").is_some());
    assert_eq!(entry_point.wait().expect("its status").code(), Some(128 + Signal::SIGTERM as i32));
}
