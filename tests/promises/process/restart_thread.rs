//! What the restart thread has not told, and what becomes of a restart when that thread is lost.

use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use pollflip::RequestError;

use pollflip_kit::debugger::Stopped;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Log, Plan, Step, at, ms};

/// Whoever waits for the outcome.
type Asker = JoinHandle<Result<u32, RequestError>>;

pollflip_kit::trials![
    promise_03_a_successor_that_runs_and_is_told_of_after_its_deadline_is_killed_then,
    promise_07_a_successor_that_runs_and_is_told_of_after_its_deadline_does_not_serve,
    promise_07_a_successor_that_waits_when_the_restart_thread_is_lost_takes_over,
    promise_07_a_successor_that_fails_after_the_restart_thread_is_lost_leaves_the_old_one_the_service,
    promise_07_a_successor_that_dies_on_probation_after_the_restart_thread_is_lost_gives_the_service_back,
    promise_03_a_successor_that_waits_when_the_restart_thread_is_lost_can_be_called_off,
];

/// The restart thread of the first process, which goes no further than it is told to.
fn stopped_thread(service: &Service) -> Option<Stopped> {
    let thread = wait_for("the restart thread", || procfs::restart_thread(service.first().pid));
    Stopped::new(thread, "the one of a restart thread")
}

/// The successor runs, and waits before its build. The restart thread, which goes no further, has not told of it when its time is over.
fn told_of_too_late() -> Option<(Service, Stopped, Process)> {
    let service = Setup::new().set(Config::ReadyTimeout(ms(2500))).start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Wait));
    let stopped = stopped_thread(&service)?;
    let asker = service.restart_meanwhile();
    while !matches!(stopped.next_call()?.number(), libc::SYS_clone | libc::SYS_clone3 | libc::SYS_vfork) {}
    // It makes no other one before the successor has its program.
    stopped.next_call()?;
    let new = service.hub.nth(1);
    new.says("waits");
    let why = asker.join().expect("a thread").expect_err("a successor that is too late").to_string();
    assert!(why.contains("was not ready within 2.5 s"), "{why}");
    assert!(old.said("event Spawned").is_empty() && new.lives());
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    Some((service, stopped, new))
}

/// A second restart is asked for, and nothing is started before the first one is dead.
fn restarts_when_the_thread_goes_on(service: &Service, stopped: Stopped, first: &Process) {
    let old = service.first();
    let asker = service.restart_meanwhile();
    old.says_again("event Restarting", 1);
    assert_eq!(service.status().state, pollflip::ServiceState::Spawning);
    assert_eq!(service.hub.pids().len(), 2);
    drop(stopped);
    first.ends();
    let new = match asker.join().expect("a thread") {
        Ok(pid) => service.hub.process(pid),
        // The time is short for a busy machine.
        Err(RequestError::Failed(why)) if why.contains("was not ready within") => service.restart_some_time(),
        Err(why) => panic!("{why}"),
    };
    assert!(first.said("serving").is_empty() && !old.said("event Spawned").contains(&first.pid.to_string()));
    assert_eq!(service.connect().pid, new.pid);
    wait_until("the end of the old one", || !old.lives());
}

fn promise_03_a_successor_that_runs_and_is_told_of_after_its_deadline_is_killed_then() {
    let Some((service, stopped, new)) = told_of_too_late() else { return };
    restarts_when_the_thread_goes_on(&service, stopped, &new);
    // It has never gone on.
    assert!(new.said("did Wait:").is_empty());
}

fn promise_07_a_successor_that_runs_and_is_told_of_after_its_deadline_does_not_serve() {
    let Some((service, stopped, new)) = told_of_too_late() else { return };
    // It is out of the reach of a kill until the thread goes on.
    new.go();
    let told = new.says("build-error");
    assert!(told.contains("has given this process up"), "{told}");
    new.ends();
    assert!(new.said("serving").is_empty());
    assert_eq!(service.connect().pid, service.first().pid);
    restarts_when_the_thread_goes_on(&service, stopped, &new);
}

/// The restart thread has started a successor, which does this and waits, and panics when it is about to tell of it: it cannot wake the loop,
/// and the program's log fails.
fn lost(setup: Setup, plan: Plan) -> Option<(Service, Asker, Process)> {
    let service = setup.set(Log::Faulty).start();
    let old = service.first();
    service.plan_next(plan);
    let stopped = stopped_thread(&service)?;
    let asker = service.restart_meanwhile();
    let wakes = loop {
        let call = stopped.next_call()?;
        if call.number() == libc::SYS_write {
            break call;
        }
    };
    stopped.fail_call(wakes, Errno::EBADF);
    drop(stopped);
    let told = old.says("panic");
    assert!(told.contains("the log fails"), "{told}");
    wait_until("the end of the restart thread", || procfs::restart_thread(old.pid).is_none());
    let new = service.hub.nth(1);
    new.says("waits");
    assert_eq!(old.says("event Spawned"), new.pid.to_string());
    let status = service.status();
    assert_eq!((status.state.as_str(), status.successor), ("awaiting ready", Some(new.pid)));
    Some((service, asker, new))
}

/// The old one serves on, and can do no more than that.
fn is_broken(service: &Service) {
    let old = service.first();
    old.says("event NoMoreRestarts");
    assert_eq!(old.said("event").last().map(|event| event.starts_with("NoMoreRestarts")), Some(true));
    assert_eq!(service.connect().pid, old.pid);
    assert_eq!(service.status().state, pollflip::ServiceState::NoMoreRestarts);
    match service.try_restart() {
        Err(RequestError::Impossible(why)) => assert!(why.contains("the restart thread of this process is gone"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(old.said("event NoMoreRestarts").len(), 1);
    wait_until("the end of all children", || procfs::children(old.pid).is_empty());
}

fn promise_07_a_successor_that_waits_when_the_restart_thread_is_lost_takes_over() {
    let Some((service, asker, new)) = lost(Setup::new(), at(Step::Built, Act::Wait)) else { return };
    new.go();
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    service.first().ends();
    assert!(service.first().said("event NoMoreRestarts").is_empty());
    assert_eq!(service.connect().pid, new.pid);
    service.restart();
}

fn promise_07_a_successor_that_fails_after_the_restart_thread_is_lost_leaves_the_old_one_the_service() {
    let Some((service, asker, new)) = lost(Setup::new(), at(Step::Built, Act::Wait).at(Step::Built, Act::Exit(3))) else { return };
    new.go();
    let why = asker.join().expect("a thread").expect_err("a successor that fails").to_string();
    assert!(why.contains("exited with status 3 before it was ready"), "{why}");
    is_broken(&service);
}

fn promise_07_a_successor_that_dies_on_probation_after_the_restart_thread_is_lost_gives_the_service_back() {
    let Some((service, asker, new)) = lost(Setup::new().set(Config::Probation(ms(120000))), at(Step::Built, Act::Wait)) else { return };
    new.go();
    new.says("serving");
    new.signal(Signal::SIGKILL);
    let why = asker.join().expect("a thread").expect_err("a successor that dies").to_string();
    assert!(why.contains("was killed by SIGKILL on probation"), "{why}");
    service.first().says("event Resumed");
    is_broken(&service);
}

fn promise_03_a_successor_that_waits_when_the_restart_thread_is_lost_can_be_called_off() {
    let Some((service, asker, new)) = lost(Setup::new(), at(Step::Built, Act::Wait)) else { return };
    assert_eq!(service.first().ask(Act::Cancel), "true");
    let why = asker.join().expect("a thread").expect_err("a restart that was called off").to_string();
    assert!(why.contains("the restart was called off: by a test"), "{why}");
    new.ends();
    is_broken(&service);
}
