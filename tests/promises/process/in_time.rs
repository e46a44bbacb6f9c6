//! What came in time counts, however late it is looked at: a process can be stopped at any point. The clock is what this is about.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use pollflip::RequestError;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Linger, Plan, Step, at};

pollflip_kit::trials![
    promise_03_a_refusal_behind_much_progress_is_heard_after_the_deadline,
    a_successor_that_was_ready_in_time_behind_much_progress_takes_over,
    promise_03_a_refusal_behind_too_much_progress_is_heard,
    the_last_line_of_many_that_come_at_once_is_told,
    promise_04_a_client_that_was_stopped_past_its_deadline_reads_its_answer,
];

const LIMIT: Duration = Duration::from_secs(8);

/// Asks for a restart whose successor does all this while the old one is stopped.
fn with_the_old_one_stopped(service: &Service, plan: Plan) -> (JoinHandle<Result<u32, RequestError>>, Process) {
    let old = service.first();
    service.plan_next(at(Step::Claimed, Act::Wait).and(plan));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.says("event Spawned");
    old.signal(Signal::SIGSTOP);
    new.go();
    (asker, new)
}

/// A successor that says so much and then this, while its predecessor is stopped for longer than it has time. What the asker is told.
fn told_late(last: Act) -> Result<u32, RequestError> {
    let service = Setup::new().set(Config::ReadyTimeout(LIMIT)).set(Linger).start();
    let (asker, new) = with_the_old_one_stopped(&service, progress(100).at(Step::Claimed, last).at(Step::Claimed, Act::Hang));
    new.says("hangs");
    thread::sleep(LIMIT);
    service.first().signal(Signal::SIGCONT);
    let answer = asker.join().expect("a thread");
    assert!(answer.is_err() || answer.as_ref().is_ok_and(|pid| *pid == new.pid));
    answer
}

fn progress(lines: usize) -> Plan {
    (0..lines).fold(Plan::default(), |plan, line| plan.at(Step::Claimed, Act::Progress(format!("line {line}"))))
}

fn promise_03_a_refusal_behind_much_progress_is_heard_after_the_deadline() {
    let why = told_late(Act::Refuse("not this one".into())).expect_err("a refusal").to_string();
    assert_eq!(why, "restart failed: the successor refused: not this one");
}

fn a_successor_that_was_ready_in_time_behind_much_progress_takes_over() {
    told_late(Act::SayOnLifeline("{\"type\":\"ready\"}".into())).expect("a restart");
}

fn promise_03_a_refusal_behind_too_much_progress_is_heard() {
    let service = Service::start();
    // More than there is room for.
    let (asker, new) = with_the_old_one_stopped(
        &service,
        progress(600).at(Step::Claimed, Act::Refuse("not this one".into())).at(Step::Claimed, Act::Exit(3)),
    );
    wait_until("the end of it", || procfs::has_ended(new.pid));
    service.first().signal(Signal::SIGCONT);
    let why = asker.join().expect("a thread").expect_err("a refusal").to_string();
    assert_eq!(why, "restart failed: the successor refused: not this one");
}

fn the_last_line_of_many_that_come_at_once_is_told() {
    let service = Service::start();
    service.plan_next(progress(100).at(Step::Claimed, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    wait_until("the last line", || service.status().progress.as_deref() == Some("line 99"));
    new.go();
    asker.join().expect("a thread").expect("a restart");
}

fn promise_04_a_client_that_was_stopped_past_its_deadline_reads_its_answer() {
    let service = Setup::new().set(Linger).start();
    service.plan_next(at(Step::Claimed, Act::Wait));
    // Another service is the client.
    let other = Setup::new().set(Config::NoSocket).start();
    let client = other.first();
    client.tell(Act::RestartOf(service.socket(), LIMIT));
    let new = service.hub.nth(1);
    new.says("waits");
    client.signal(Signal::SIGSTOP);
    new.go();
    service.first().says("event Completed");
    thread::sleep(LIMIT);
    client.signal(Signal::SIGCONT);
    assert_eq!(client.says("answer"), new.pid.to_string());
}
