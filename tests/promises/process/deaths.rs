//! Promise 7: whoever of the two dies at whatever step, the service remains, or its end is reported.

use std::thread;
use std::time::Instant;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;

use pollflip_kit::client::Load;
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, LeaveFirstThread, Linger, Plan, Step, at, ms, set};

pollflip_kit::trials![
    promise_07_the_old_one_killed_before_the_build_of_the_new_one_leaves_it_the_service,
    promise_07_the_new_one_may_end_with_another_parent_than_the_old_one,
    promise_07_the_old_one_killed_before_granted_leaves_the_new_one_the_service,
    promise_07_a_successor_that_asks_for_the_state_gets_it,
    promise_07_the_old_one_killed_before_it_gives_the_state_is_reported_to_the_new_one,
    promise_07_the_new_one_killed_when_it_asks_for_the_state_leaves_the_old_one_the_service,
    promise_07_the_old_one_killed_at_handed_off_leaves_the_new_one_the_service,
    promise_07_the_old_one_killed_on_probation_leaves_the_new_one_the_service,
    promise_07_the_new_one_dead_at_once_on_probation_gives_the_service_back,
    promise_07_the_new_one_killed_later_on_probation_gives_the_service_back,
    promise_07_the_new_one_that_closes_its_lifeline_on_probation_is_killed,
    promise_07_a_successor_that_closes_what_it_does_not_know_does_not_serve,
    promise_10_the_number_of_a_closed_pidfd_is_the_programs,
    promise_03_a_successor_that_ends_in_the_hands_of_a_debugger_is_reported,
    promise_07_the_new_one_dead_on_probation_in_the_hands_of_a_debugger_gives_the_service_back,
    promise_10_the_number_of_a_closed_lifeline_is_the_programs,
    promise_03_a_successor_whose_first_thread_has_ended_is_not_taken_for_dead,
    promise_07_a_probation_that_ends_well_commits,
    promise_07_the_end_of_the_old_one_is_told_after_its_commit,
    promise_07_the_end_of_the_new_one_after_commit_is_reported,
    a_test_that_waits_for_words_of_a_process_that_has_ended_fails_at_once_with_the_story,
];

/// Kills the first process while the second waits at a step, and finds that the second serves and can be restarted.
fn orphaned_at(step: Step) {
    orphaned(at(step, Act::Wait));
}

fn orphaned(plan: Plan) {
    let service = Service::start();
    let old = service.first();
    service.plan_next(plan);
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.signal(Signal::SIGKILL);
    old.ends();
    assert!(matches!(asker.join().expect("a thread"), Err(RequestError::HungUp(_))));
    new.go();
    new.says("serving");
    new.says("event PredecessorGone");
    assert_eq!(new.said("event Committed"), Vec::<String>::new());
    assert_eq!(service.connect().pid, new.pid);
    assert_eq!(service.status().pid, new.pid);
    assert_eq!(service.restart().says("built"), format!("generation 2 predecessor {}", new.pid));
}

fn promise_07_the_old_one_killed_before_the_build_of_the_new_one_leaves_it_the_service() {
    orphaned_at(Step::Born);
}

fn promise_07_the_new_one_may_end_with_another_parent_than_the_old_one() {
    orphaned(at(Step::Born, Act::Wait).at(Step::Born, Act::EndWithParent(Signal::SIGKILL)));
}

fn promise_07_the_old_one_killed_before_granted_leaves_the_new_one_the_service() {
    orphaned_at(Step::Claimed);
}

fn promise_07_a_successor_that_asks_for_the_state_gets_it() {
    let service = Service::start();
    for generation in 1..=2 {
        service.plan_next(at(Step::Claimed, Act::Receive));
        let new = service.restart();
        assert_eq!(new.did(&Act::Receive), service.hub.nth(generation - 1).pid.to_string());
    }
}

fn promise_07_the_old_one_killed_before_it_gives_the_state_is_reported_to_the_new_one() {
    let service = Service::start();
    let old = service.first();
    old.on(Step::StateRequested, Act::Raise(Signal::SIGKILL));
    service.plan_next(at(Step::Claimed, Act::Receive));
    assert!(matches!(service.try_restart(), Err(RequestError::HungUp(_))));
    let new = service.hub.nth(1);
    let told = new.did(&Act::Receive);
    assert!(told.contains("predecessor"), "{told}");
    // What it makes of that is for the program to say: this one serves without the state.
    new.says("event PredecessorGone");
    assert_eq!(service.connect().pid, new.pid);
    let how = format!(
        "process {} took over from process {}, which had ended; the same file as before: {}",
        new.pid,
        old.pid,
        own_program().display()
    );
    assert_eq!(service.status().outcomes.last().map(|outcome| outcome.text.clone()), Some(how));
}

fn promise_07_the_new_one_killed_when_it_asks_for_the_state_leaves_the_old_one_the_service() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(at(Step::Claimed, Act::SayOnLifeline("{\"type\":\"pull\"}".into())).at(Step::Claimed, Act::Raise(Signal::SIGKILL)));
    let reason = service.fail_to_restart();
    assert!(reason.contains("was killed by SIGKILL"), "{reason}");
    service.expect_unchanged(&old, &before);
    assert_eq!(service.connect().pid, old.pid);
    service.restart();
}

fn promise_07_the_old_one_killed_at_handed_off_leaves_the_new_one_the_service() {
    let service = Service::start();
    let old = service.first();
    old.on(Step::HandedOff, Act::Raise(Signal::SIGKILL));
    let load = Load::start(service.address(), 1);
    assert!(matches!(service.try_restart(), Err(RequestError::HungUp(_))));
    let new = service.hub.nth(1);
    new.says("event PredecessorGone");
    wait_until("the new one to answer", || service.connect().pid == new.pid);
    assert!(load.stop().iter().all(|why| !why.contains("refused")));
    service.restart();
}

fn promise_07_the_old_one_killed_on_probation_leaves_the_new_one_the_service() {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    let asker = service.restart_meanwhile();
    old.says("event HandedOff");
    let new = service.hub.nth(1);
    new.says("serving");
    assert!(new.ask(Act::Request).starts_with("OnProbation"));
    old.signal(Signal::SIGKILL);
    assert!(matches!(asker.join().expect("a thread"), Err(RequestError::HungUp(_))));
    new.says("event PredecessorGone");
    // It is nobody's to take back any more.
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
    assert_eq!(service.status().pid, new.pid);
    assert_eq!(new.ask(Act::Request), "ok");
}

/// A release that fails on probation: the old process serves again, and the asker learns how it ended.
fn fails_on_probation(plan: Plan, failure: &str, words: &str) {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let mut kept = service.connect();
    service.plan_next(plan);
    let reason = service.fail_to_restart();
    assert!(reason.contains(words), "{words:?} is not in: {reason}");
    let told = old.says("event Resumed");
    assert!(told.starts_with(failure) && told.ends_with(&reason), "{failure} and {reason:?} expected: {told}");
    kept.echo("still here");
    drop(kept);
    assert_eq!(service.connect().pid, old.pid);
    service.expect_unchanged(&old, &before);

    let asker = service.restart_meanwhile();
    old.says_again("event HandedOff", 1);
    old.ask(Act::Stop);
    let pid = asker.join().expect("a thread").expect("a restart");
    assert_eq!(service.connect().pid, pid);
}

fn promise_07_the_new_one_dead_at_once_on_probation_gives_the_service_back() {
    fails_on_probation(at(Step::Granted, Act::Exit(7)), "DiedOnProbation(Code(7))", "the successor exited with status 7 on probation");
}

fn promise_07_the_new_one_killed_later_on_probation_gives_the_service_back() {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    let asker = service.restart_meanwhile();
    old.says("event HandedOff");
    let new = service.hub.nth(1);
    new.says("serving");
    assert_eq!(service.connect().pid, new.pid);
    new.signal(Signal::SIGKILL);
    let told = old.says("event Resumed");
    assert!(told.starts_with("DiedOnProbation(Signal(9))"), "{told}");
    assert_eq!(service.connect().pid, old.pid);
    let error = asker.join().expect("a thread").expect_err("a dead release");
    assert!(error.to_string().contains("was killed by SIGKILL on probation"), "{error}");
}

fn promise_07_the_new_one_that_closes_its_lifeline_on_probation_is_killed() {
    fails_on_probation(at(Step::Granted, Act::CloseLifeline).at(Step::Granted, Act::Hang), "HungUp", "closed its lifeline");
}

/// A restart whose successor does this, and has a second for it from when its predecessor sees that the lifeline is closed: that one is held
/// still meanwhile. Returns it when it has ended, and why the restart failed.
fn without_a_lifeline(service: &Service, does: &[Act], then: Plan) -> (Process, String) {
    let old = service.first();
    let plan = does.iter().fold(at(Step::Claimed, Act::Wait), |plan, act| plan.at(Step::Claimed, act.clone()));
    service.plan_next(plan.and(then));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.signal(Signal::SIGSTOP);
    wait_until("the old one to stand still", || procfs::state(old.pid) == Some('T'));
    new.go();
    new.says_again("did", does.len());
    old.signal(Signal::SIGCONT);
    let why = asker.join().expect("a thread").expect_err("a successor without a lifeline").to_string();
    new.ends();
    (new, why)
}

fn promise_07_a_successor_that_closes_what_it_does_not_know_does_not_serve() {
    let service = Service::start();
    let old = service.first();
    let (new, reason) = without_a_lifeline(&service, &[Act::CloseLifeline, Act::ClosePidfd], Plan::default());
    let ended_by_itself = reason.contains("exited with status 2") && new.said("ready-error").len() == 1;
    assert!(ended_by_itself || reason.contains("closed its lifeline"), "{reason}");
    assert_eq!(new.said("did"), ["Wait: gone on", "CloseLifeline: closed", "ClosePidfd: closed"]);
    assert_eq!(new.said("ready"), Vec::<String>::new());
    assert_eq!(service.connect().pid, old.pid);
    // One that has its lifeline is told there.
    service.plan_next(at(Step::Claimed, Act::ClosePidfd));
    let new = service.restart();
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
}

fn promise_10_the_number_of_a_closed_pidfd_is_the_programs() {
    let service = Service::start();
    service.plan_next(at(Step::Committed, Act::ReusePidfd));
    let new = service.restart();
    assert_eq!(new.did(&Act::ReusePidfd), "reused");
    // What the program has there is not given away as a process that still finishes its work.
    let last = service.restart();
    let pipes: Vec<_> = procfs::descriptors(last.pid).into_iter().filter(|(_, what)| what.starts_with("pipe:")).collect();
    assert!(pipes.is_empty(), "{pipes:?}");
}

/// Kills it, and keeps it from its parent: until this thread has waited for it, which debugs it. `None`: nobody may do that here.
fn killed_in_a_debugger(process: &Process) -> Option<Pid> {
    let pid = Pid::from_raw(process.pid as i32);
    if let Err(error) = ptrace::seize(pid, ptrace::Options::empty()) {
        eprintln!("skipped: a process cannot be debugged here: {error}");
        return None;
    }
    process.signal(Signal::SIGKILL);
    Some(pid)
}

fn promise_03_a_successor_that_ends_in_the_hands_of_a_debugger_is_reported() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let Some(pid) = killed_in_a_debugger(&new) else { return };
    let error = asker.join().expect("a thread").expect_err("a dead release");
    assert!(error.to_string().contains("was killed by SIGKILL before it was ready"), "{error}");
    // It is still there, and in nobody's way.
    assert_eq!(procfs::state(new.pid), Some('Z'));
    service.plan_next(at(Step::Born, Act::Exit(3)));
    assert!(service.fail_to_restart().contains("exited with status 3"));
    // The loop has nothing more to do until then.
    old.ask(Act::Status);
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, false)));
    service.expect_unchanged(&old, &before);
    service.restart();
}

fn promise_07_the_new_one_dead_on_probation_in_the_hands_of_a_debugger_gives_the_service_back() {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    let asker = service.restart_meanwhile();
    old.says("event HandedOff");
    let new = service.hub.nth(1);
    new.says("serving");
    let Some(pid) = killed_in_a_debugger(&new) else { return };
    let told = old.says("event Resumed");
    assert!(told.starts_with("DiedOnProbation(Signal(9))"), "{told}");
    assert_eq!(service.connect().pid, old.pid);
    let error = asker.join().expect("a thread").expect_err("a dead release");
    assert!(error.to_string().contains("was killed by SIGKILL on probation"), "{error}");
    assert_eq!(waitpid(pid, None), Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, false)));
}

fn promise_10_the_number_of_a_closed_lifeline_is_the_programs() {
    // What its owner reads there, and what the other side of that connection does.
    let kept = "ReuseLifeline: a request, WouldBlock";
    let service = Service::start();
    let (new, reason) = without_a_lifeline(&service, &[Act::ReuseLifeline], at(Step::Claimed, Act::Hang));
    assert!(reason.contains("closed its lifeline"), "{reason}");
    assert_eq!(new.said("did"), ["Wait: gone on", kept]);
    service.plan_next(at(Step::Committed, Act::ReuseLifeline));
    let new = service.restart();
    assert_eq!(new.says("did"), kept);
    service.restart();
}

fn promise_03_a_successor_whose_first_thread_has_ended_is_not_taken_for_dead() {
    // Of the old one, which has no descriptors left to look at the other threads with.
    let service = Service::start();
    let old = service.first();
    service.plan_next(set(LeaveFirstThread).at(Step::Built, Act::Wait));
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    wait_until("the end of its first thread", || procfs::state(new.pid) == Some('Z'));
    assert_eq!(old.ask(Act::SpareDescriptors(1)), "held");
    new.go();
    new.says("serving");
    old.says("event Completed");
}

fn promise_07_a_probation_that_ends_well_commits() {
    let service = Setup::new().set(Config::Probation(ms(400))).start();
    let old = service.first();
    let new = service.restart();
    assert_eq!(old.says("event HandedOff"), old.says("event Completed"));
    new.says("event Committed");
    old.ends();
    assert_eq!(service.connect().pid, new.pid);
    service.restart();
}

fn promise_07_the_end_of_the_old_one_is_told_after_its_commit() {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    service.plan_next(at(Step::Granted, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.ask(Act::Stop);
    old.ends();
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    // It sees both at once.
    new.go();
    new.says("event Committed");
    new.says("event PredecessorGone");
    assert_eq!(new.said("event"), ["Granted", "Committed", "PredecessorGone"]);
}

fn promise_07_the_end_of_the_new_one_after_commit_is_reported() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let new = service.restart();
    new.signal(Signal::SIGKILL);
    assert_eq!(old.says("event SuccessorGone"), new.pid.to_string());
    wait_until("no zombie", || Snapshot::of(old.pid).children == 0);
    assert_eq!(old.said("event SuccessorGone").len(), 1);
}

fn a_test_that_waits_for_words_of_a_process_that_has_ended_fails_at_once_with_the_story() {
    let service = Service::start();
    let process = service.first();
    let waiting = {
        let process = process.clone();
        thread::spawn(move || process.says("what it never says"))
    };
    process.signal(Signal::SIGKILL);
    let began = Instant::now();
    let panic = waiting.join().expect_err("nothing comes");
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    let said = panic.downcast_ref::<String>().expect("a text");
    assert!(said.contains("has ended") && said.contains("what it never says") && said.contains("serving"), "{said}");
}
