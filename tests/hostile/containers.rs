//! In a PID namespace: who must not hand over, since all others end with it, and who may.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use pollflip::RequestError;

use nix::sys::signal::Signal;
use pollflip_kit::harness::{Service, Setup, install};
use pollflip_kit::manager::Manager;
use pollflip_kit::service::{Act, Config, Log, RunAs, Step, at};

pollflip_kit::trials![
    the_first_process_of_a_container_refuses_to_restart_and_serves_on,
    a_service_under_another_first_process_restarts,
    the_first_child_of_an_init_that_ends_with_it_refuses_to_restart_and_serves_on,
    a_user_without_rights_knows_such_an_init_too,
    what_is_not_the_first_child_of_such_an_init_restarts,
    a_service_whose_parent_is_outside_of_its_namespace_refuses_to_restart,
    a_service_whose_parent_is_a_container_runtime_refuses_to_restart,
    a_program_that_knows_better_restarts_beside_the_main_process_of_a_container,
    a_service_whose_numbers_are_not_those_of_systemd_refuses_to_restart,
    systemd_is_told_no_number_that_is_another_one_to_it,
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
    let service = Setup::new().set(Log::Told).shell(&format!("exec {CONTAINER} \"$0\"")).start();
    let first = service.first();
    assert_eq!(first.own, 1);
    for _ in 0..2 {
        match service.try_restart() {
            Err(RequestError::Impossible(why)) => {
                assert_eq!(why, pollflip::Refusal::ContainerInit.to_string());
                assert!(why.contains("PID 1") && why.contains("such as `pollflip guard -- PROGRAM`"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(first.ask(Act::Request).starts_with("ContainerInit :: "));
    // A signal does nothing, and kills nobody: it is sent from outside, where the process has another number.
    assert_eq!(first.ask(Act::Raise(Signal::SIGUSR1)), "raised");
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
    assert_ne!(service.first().own, 1);
    for _ in 0..3 {
        let new = service.restart();
        assert_eq!(service.connect().pid, new.own);
    }
}

/// Inits that end with their first child: those that are installed, and a script, of which all that counts is the name.
fn inits(setup: &Setup) -> Vec<String> {
    let script = setup.path("docker-init");
    install(&script, b"#!/bin/sh\nshift\n\"$@\" &\nwait $!\n");
    let paths: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut inits = vec![script.display().to_string()];
    for name in ["tini", "dumb-init", "catatonit"] {
        if paths.iter().any(|path| path.join(name).is_file()) {
            inits.push(name.into());
        } else {
            eprintln!("skipped: {name} is not installed here");
        }
    }
    inits
}

/// Asked in each way, it refuses for that reason, and goes on serving as the only one.
fn expect_refused(service: &Service, reason: &str) {
    for _ in 0..2 {
        match service.try_restart() {
            Err(RequestError::Impossible(why)) => {
                assert!(why.contains(reason), "{why}");
                assert!(why.contains("pollflip guard") && why.contains("RestartConfig::trust_parent"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    let first = service.first();
    let warning = first.says("log WARN");
    assert!(warning.contains("every restart of this process will be refused") && warning.contains(reason), "{warning}");
    assert!(first.ask(Act::Request).contains(reason));
    assert_eq!(first.ask(Act::Raise(Signal::SIGUSR1)), "raised");
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    assert!(service.status().impossible.is_some_and(|why| why.contains(reason)));
    service.connect().echo("served on");
    assert_eq!(service.hub.pids().len(), 1);
}

const OF_INIT: &str = "the first child of an init that ends with its first child";
const OF_OUTSIDE: &str = "the parent of this process is outside of its PID namespace";
const OF_NUMBERS: &str = "in another PID namespace than systemd";

/// A service that says what it is warned of.
fn warned() -> Setup {
    Setup::new().set(Log::Told)
}

fn the_first_child_of_an_init_that_ends_with_it_refuses_to_restart_and_serves_on() {
    if !there_are_containers() {
        return;
    }
    let place = Setup::new();
    for init in inits(&place) {
        let service = warned().shell(&format!("exec {CONTAINER} {init} -- \"$0\"")).start();
        expect_refused(&service, OF_INIT);
    }
}

/// Who may not look at the file of PID 1.
fn a_user_without_rights_knows_such_an_init_too() {
    if !there_are_containers() {
        return;
    }
    let place = Setup::new();
    for init in inits(&place) {
        let setup = warned().set(RunAs(65534));
        fs::set_permissions(setup.path("."), Permissions::from_mode(0o777)).expect("a directory");
        let service = setup.shell(&format!("exec {CONTAINER} {init} -- \"$0\"")).start();
        expect_refused(&service, OF_INIT);
    }
}

fn what_is_not_the_first_child_of_such_an_init_restarts() {
    if !there_are_containers() {
        return;
    }
    let place = Setup::new();
    // A shell with other work, and an orphan that the init takes in; later generations of both are such orphans.
    for script in ["\"$0\" & exec sleep 100000", "(\"$0\" &) ; exec sleep 100000"] {
        for init in inits(&place) {
            let shell = format!("exec {CONTAINER} {init} -- /bin/sh -c '{script}' \"$0\"");
            let service = warned().shell(&shell).start();
            for _ in 0..3 {
                let new = service.restart();
                new.says("event PredecessorGone");
                assert_eq!(service.connect().pid, new.own);
            }
            assert!(service.first().said("log WARN").is_empty());
        }
    }
}

/// A container whose main process sleeps, and a service that somebody outside starts in it.
const ENTERED: &str = "unshare --pid --fork --kill-child --mount-proc sleep 100000 & \
                       main=0; until [ \"$(cat /proc/$main/comm 2>&1)\" = sleep ]; do \
                       sleep 0.01; main=$(tr -dc 0-9 </proc/$!/task/$!/children); done; \
                       exec nsenter --target $main --pid --mount";

fn a_service_whose_parent_is_outside_of_its_namespace_refuses_to_restart() {
    if !there_are_containers() {
        return;
    }
    let service = warned().shell(&format!("{ENTERED} \"$0\"")).start();
    assert_ne!(service.first().own, 1);
    expect_refused(&service, OF_OUTSIDE);
}

/// Which is seen in a PID namespace that the container shares with the machine. All that counts of it is the name.
fn a_service_whose_parent_is_a_container_runtime_refuses_to_restart() {
    let setup = warned();
    let runtime = setup.path("conmon");
    install(&runtime, b"#!/bin/sh\n\"$@\" &\nwait $!\n");
    let service = setup.shell(&format!("exec {} \"$0\"", runtime.display())).start();
    expect_refused(&service, &format!("process {}, the parent of this process, is a container runtime", service.launched()));
}

fn a_program_that_knows_better_restarts_beside_the_main_process_of_a_container() {
    if !there_are_containers() {
        return;
    }
    let service = warned().set(Config::TrustParent).shell(&format!("{ENTERED} \"$0\"")).start();
    let first = service.first();
    for (plan, reason) in
        [(at(Step::Built, Act::Exit(3)), "exited with status 3"), (at(Step::Built, Act::Raise(Signal::SIGKILL)), "SIGKILL")]
    {
        service.plan_next(plan);
        let why = service.fail_to_restart();
        assert!(why.contains(reason), "{why}");
        assert_eq!(service.connect().pid, first.own);
    }
    for _ in 0..3 {
        let new = service.restart();
        new.says("event PredecessorGone");
        assert_eq!(service.connect().pid, new.own);
    }
    assert!(first.said("log WARN").is_empty());
    // Nobody knows better of PID 1.
    let service = warned().set(Config::TrustParent).shell(&format!("exec {CONTAINER} \"$0\"")).start();
    assert!(matches!(service.try_restart(), Err(RequestError::Impossible(why)) if why.contains("PID 1")));
}

/// A service in a namespace of its own, with its own `/proc` or that of the manager, which is outside.
fn apart(setup: Setup, own_proc: bool) -> (Manager, Service) {
    let (manager, setup) = Manager::new(setup.set(Log::Told));
    let container = if own_proc { CONTAINER } else { "unshare --pid --fork --kill-child" };
    // The first process of the namespace is a shell with other work, which the manager knows as another one.
    let shell = format!("export SYSTEMD_EXEC_PID=$$; exec {container} /bin/sh -c '\"$0\" & exec sleep 100000' \"$0\"");
    let service = setup.shell(&shell).start();
    manager.expect(&["READY=1"]);
    (manager, service)
}

fn a_service_whose_numbers_are_not_those_of_systemd_refuses_to_restart() {
    if !there_are_containers() {
        return;
    }
    for own_proc in [true, false] {
        let (manager, service) = apart(Setup::new(), own_proc);
        expect_refused(&service, OF_NUMBERS);
        manager.expect_nothing();
    }
}

fn systemd_is_told_no_number_that_is_another_one_to_it() {
    if !there_are_containers() {
        return;
    }
    let (manager, service) = apart(Setup::new().set(Config::TrustParent), true);
    let first = service.first();
    for plan in [at(Step::Built, Act::Exit(3)), at(Step::Built, Act::Raise(Signal::SIGKILL))] {
        service.plan_next(plan);
        service.fail_to_restart();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        manager.expect(&["READY=1", "STATUS="]);
        assert_eq!(service.connect().pid, first.own);
    }
    for _ in 0..3 {
        let asker = service.restart_meanwhile();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        manager.expect(&["READY=1", "STATUS="]);
        Manager::answer(manager.expect_barrier());
        let new = service.hub.process(asker.join().expect("a thread").expect("a restart"));
        new.says("event PredecessorGone");
        assert_eq!(service.connect().pid, new.own);
    }
    manager.expect_nothing();
}
