//! Promise 7: what an old process has given up and cannot kill does not serve, whenever it gets ready.

use nix::sys::signal::Signal;

use pollflip_kit::harness::{Service, Setup, install, own_program};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Plan, Step, at};

pollflip_kit::trials![
    promise_07_a_successor_given_up_by_the_old_one_is_told,
    promise_07_a_successor_given_up_before_the_end_of_the_old_one_does_not_serve,
    promise_07_a_successor_that_was_ready_when_it_was_given_up_does_not_serve_when_the_old_one_has_died,
    promise_07_a_successor_that_was_ready_when_it_was_given_up_does_not_serve_after_a_later_restart,
    promise_07_a_successor_that_goes_into_the_background_does_not_serve_later,
    promise_07_a_successor_in_the_background_does_not_serve_when_the_old_one_ends_at_the_failure,
    promise_07_a_successor_in_the_background_does_not_serve_when_the_restarter_is_dropped_at_the_failure,
    promise_07_a_successor_of_a_drop_while_spawning_does_not_serve,
    promise_07_a_successor_of_a_stop_while_spawning_does_not_serve,
];

fn promise_07_a_successor_given_up_by_the_old_one_is_told() {
    // The one behind a wrapper is out of the reach of a kill: it has to end by itself, and does not serve.
    let service = Service::start();
    service.plan_next(at(Step::Born, Act::RunAsChild));
    service.fail_to_restart();
    // Which of the two announces itself first is not settled.
    let either = [service.hub.nth(1), service.hub.nth(2)];
    wait_until("the one that was given up", || either.iter().any(|process| !process.said("ready-error").is_empty()));
    let program = either.iter().find(|process| !process.said("ready-error").is_empty()).expect("one of them");
    let told = program.says("ready-error");
    assert!(told.contains(&format!("the predecessor (process {}) has given this process up", service.first().pid)), "{told}");
    program.ends();
    assert_eq!(program.said("serving"), Vec::<String>::new());
}

/// A wrapper that does not become the program, and what that does.
fn behind_a_wrapper(plan: Plan) -> Plan {
    at(Step::Born, Act::LeavePlan(plan)).at(Step::Born, Act::RunAsChild)
}

fn promise_07_a_successor_given_up_before_the_end_of_the_old_one_does_not_serve() {
    // The one behind the wrapper initialises itself for so long that a later restart has succeeded meanwhile, and the old one has ended.
    let service = Service::start();
    service.plan_next(behind_a_wrapper(at(Step::Built, Act::Wait)));
    service.fail_to_restart();
    let either = [service.hub.nth(1), service.hub.nth(2)];
    wait_until("the one that is getting ready", || either.iter().any(|process| !process.said("waits").is_empty()));
    let late = either.iter().find(|process| !process.said("waits").is_empty()).expect("one of them");
    let new = service.restart();
    service.first().ends();
    late.go();
    late.ends();
    assert!(!late.said("ready-error").is_empty());
    assert_eq!(late.said("serving"), Vec::<String>::new());
    assert_eq!(service.connect().pid, new.pid);
    service.restart();
}

/// What is behind a wrapper has said that it is ready before the old one has looked at it, and is stopped before it hears that it is given up.
fn given_up_when_ready() -> (Service, Process) {
    let service = Service::start();
    let old = service.first();
    service.plan_next(behind_a_wrapper(at(Step::Claimed, Act::Wait)));
    old.on(Step::Spawned, Act::Wait);
    let asker = service.restart_meanwhile();
    old.says("waits");
    let either = [service.hub.nth(1), service.hub.nth(2)];
    wait_until("the one that is getting ready", || either.iter().any(|process| !process.said("waits").is_empty()));
    let late = either.into_iter().find(|process| !process.said("waits").is_empty()).expect("one of them");
    late.go();
    late.did(&Act::Wait);
    wait_until("the one that waits for its grant", || procfs::state(late.pid) == Some('S'));
    late.signal(Signal::SIGSTOP);
    wait_until("the one that is stopped", || procfs::state(late.pid) == Some('T'));
    old.go();
    let why = asker.join().expect("a thread").expect_err("a successor behind a wrapper").to_string();
    assert!(why.contains(&format!("process {} answers in place of the one that was started", late.pid)), "{why}");
    assert!(late.lives());
    (service, late)
}

/// It looks only now.
fn hears_that_it_is_given_up(service: &Service, late: &Process) {
    late.signal(Signal::SIGCONT);
    let told = late.says("ready-error");
    assert!(told.contains(&format!("the predecessor (process {}) has given this process up", service.first().pid)), "{told}");
    late.ends();
    assert!(late.said("serving").is_empty() && late.said("event Granted").is_empty());
}

fn promise_07_a_successor_that_was_ready_when_it_was_given_up_does_not_serve_when_the_old_one_has_died() {
    let (service, late) = given_up_when_ready();
    service.first().signal(Signal::SIGKILL);
    service.first().ends();
    hears_that_it_is_given_up(&service, &late);
}

fn promise_07_a_successor_that_was_ready_when_it_was_given_up_does_not_serve_after_a_later_restart() {
    let (service, late) = given_up_when_ready();
    let new = service.restart();
    service.first().ends();
    hears_that_it_is_given_up(&service, &late);
    assert_eq!(service.connect().pid, new.pid);
    service.restart();
}

fn promise_07_a_successor_that_goes_into_the_background_does_not_serve_later() {
    let setup = Setup::new();
    let program = setup.path("server");
    let into = |line: &str| {
        install(&program, format!("#!/bin/sh\n{}\n", line.replace("PROGRAM", &own_program().display().to_string())).as_bytes())
    };
    into("PROGRAM & exit 0");
    let service = setup.set(Config::Program(program.clone())).start();
    service.plan_next(at(Step::Born, Act::Wait));
    assert!(service.fail_to_restart().contains("exited with status 0"));
    let late = service.hub.nth(1);
    late.says("waits");
    into("exec PROGRAM");
    let new = service.restart();
    service.first().ends();
    late.go();
    late.ends();
    assert!(!late.said("ready-error").is_empty());
    assert_eq!(service.connect().pid, new.pid);
}

/// The program ends by itself, or has the restarter dropped, when it hears of the failure.
fn ends_at_the_failure(how: Act) {
    let setup = Setup::new();
    let program = setup.path("server");
    install(&program, format!("#!/bin/sh\n{} & exit 0\n", own_program().display()).as_bytes());
    let service = setup.set(Config::Program(program.clone())).start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Wait));
    old.on(Step::Failed, how.clone());
    assert!(service.fail_to_restart().contains("exited with status 0"));
    let late = service.hub.nth(1);
    late.says("waits");
    old.says("event Failed");
    if how == Act::Drop {
        assert_eq!(old.did(&Act::Drop), "dropped");
        old.tell(Act::Exit(0));
    }
    does_not_serve(&old, &late);
}

/// It goes on when the old one has ended.
fn does_not_serve(old: &Process, late: &Process) {
    old.ends();
    late.go();
    late.ends();
    assert_eq!(late.said("serving"), Vec::<String>::new());
}

fn promise_07_a_successor_in_the_background_does_not_serve_when_the_old_one_ends_at_the_failure() {
    ends_at_the_failure(Act::Exit(0));
}

fn promise_07_a_successor_in_the_background_does_not_serve_when_the_restarter_is_dropped_at_the_failure() {
    ends_at_the_failure(Act::Drop);
}

/// What is behind the wrapper has come far when the program, which has not polled since, does this.
fn ends_while_spawning(how: &[Act]) {
    let service = Service::start();
    let old = service.first();
    service.plan_next(behind_a_wrapper(at(Step::Built, Act::Wait)));
    old.on(Step::Spawning, Act::Wait);
    how.iter().for_each(|act| old.on(Step::Spawning, act.clone()));
    old.ask(Act::Request);
    let either = [service.hub.nth(1), service.hub.nth(2)];
    wait_until("the one that is getting ready", || either.iter().any(|process| !process.said("waits").is_empty()));
    let late = either.iter().find(|process| !process.said("waits").is_empty()).expect("one of them");
    old.go();
    old.did(&Act::Drop);
    old.tell(Act::Exit(0));
    does_not_serve(&old, late);
}

fn promise_07_a_successor_of_a_drop_while_spawning_does_not_serve() {
    ends_while_spawning(&[Act::Drop]);
}

fn promise_07_a_successor_of_a_stop_while_spawning_does_not_serve() {
    ends_while_spawning(&[Act::Stop, Act::Drop]);
}
