//! A grant that the kernel takes late: the lifeline is full when the new one is ready, and that one is stopped.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::asker::Answer;
use crate::case::{Case, Fault, Step, Victim};
use crate::expected::{Serves, Told};
use crate::judge::{alone, judge};
use crate::strike::{Line, Strike};
use crate::trial;
use crate::world::{Outcome, UnderWay, World, stop};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::service::{Act, Config, ms, plan};

/// Longer than the kernel may take to take the grant.
const TOO_LONG: Duration = Duration::from_millis(5300);

const KILLED: &[&str] = &["was killed by SIGKILL before it was ready"];

/// What happens before the old one looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing: it looks all the time.
    Nothing,
    /// The new one dies.
    Death,
    /// The new one goes on, so that there is room again.
    Room,
    /// The new one goes on, and the time for that is over.
    LateRoom,
    /// The new one goes on and dies.
    RoomAndDeath,
    /// The new one goes on, and the program calls the restart off.
    RoomAndCancel,
}

use Before::*;

pub fn trials() -> Vec<Trial> {
    let taken = (Serves::New, Told::Complete);
    let failed = |words: &'static [&'static str]| (Serves::Old, Told::Failed(words));
    let cases = [
        ("promise_03", "is_given_up_at_its_deadline", Nothing, failed(&["the kernel has not taken the grant for 5s"])),
        ("promise_03", "is_not_made_to_one_that_has_died", Death, failed(KILLED)),
        ("promise_07", "is_made_when_there_is_room", Room, taken),
        ("promise_07", "is_made_when_there_was_room_before_anybody_looked_at_the_deadline", LateRoom, taken),
        ("promise_03", "is_not_made_to_one_that_has_read_all_and_died", RoomAndDeath, failed(KILLED)),
        (
            "promise_03",
            "is_taken_back_by_a_cancel_although_there_is_room",
            RoomAndCancel,
            failed(&["the restart was called off: by a test"]),
        ),
    ];
    let name = |promise: &str, what: &str| format!("{promise}_at_ready::a_grant_that_the_kernel_does_not_take_{what}");
    let mut trials: Vec<_> =
        cases.into_iter().map(|(promise, what, before, expected)| trial(name(promise, what), move || suffer(before, expected))).collect();
    trials.push(trial(name("promise_03", "is_taken_back_by_a_cancel"), cancelled));
    trials.push(trial(name("promise_03", "is_taken_back_by_a_stop"), stopped));
    trials.push(trial(name("promise_03", "is_taken_back_by_a_drop"), || dropped(false)));
    trials.push(trial(name("promise_03", "is_taken_back_by_a_drop_although_there_is_room"), || dropped(true)));
    for (probation, step) in [(None, "at_granted"), (Some(ms(120_000)), "on_probation")] {
        let name = format!("promise_03_{step}::a_commit_that_the_kernel_does_not_take_is_told_to_the_asker_when_the_restarter_is_dropped");
        trials.push(trial(name, move || commit_not_taken(probation)));
    }
    trials.push(trial(name("promise_07", "dies_with_the_old_one"), || orphaned(Fault::Kill)));
    trials.push(trial(name("promise_07", "dies_with_the_old_one_that_leaves_a_helper"), || orphaned(Fault::Helper)));
    trials
}

fn case(fault: Fault, victim: Victim) -> Case {
    Case { step: Step::Ready, fault, victim }
}

/// The old one has read that the new one is ready, and cannot tell it anything.
fn with_a_full_lifeline() -> (World, UnderWay, Process) {
    let world = World::start(Setup::new(), false);
    let under_way = world.reach(Step::Ready, false);
    let (old, new) = (&under_way.old, under_way.new.clone().expect("a successor"));
    stop(&new);
    world.strike_with(old, Strike::Fill(Line::Down));
    goes_on(old);
    for _ in 0..2 {
        let status = old.ask(Act::Status);
        assert!(status.contains(r#""state":"awaiting ready""#), "{status}");
    }
    (world, under_way, new)
}

/// It waits by a command, which is answered.
fn goes_on(old: &Process) {
    let answers = old.said("answer").len();
    old.go();
    old.says_again("answer", answers);
}

fn outcome(under_way: UnderWay) -> Outcome {
    let UnderWay { old, new, kept, asker, .. } = under_way;
    Outcome { old, new, answer: asker.answer(), kept }
}

fn suffer(before: Before, expected: (Serves, Told)) {
    let (mut world, under_way, new) = with_a_full_lifeline();
    let old = under_way.old.clone();
    if before != Nothing {
        let waits = old.said("waits").len();
        // In one breath: the restarter has no turn in between.
        let then = (before == RoomAndCancel).then_some(Act::Cancel);
        old.tell_all([Act::Wait].into_iter().chain(then));
        old.says_again("waits", waits);
        if before != Death {
            new.signal(Signal::SIGCONT);
            world.strike_with(&old, Strike::Room(Line::Down));
        }
        match before {
            Death | RoomAndDeath => {
                new.signal(Signal::SIGKILL);
                new.ends();
            }
            // The clock is what this is about.
            LateRoom => thread::sleep(TOO_LONG),
            Nothing | Room | RoomAndCancel => {}
        }
        goes_on(&old);
    }
    let fault = if expected.0 == Serves::Old { Fault::Kill } else { Fault::Pause };
    judge(&mut world, case(fault, Victim::New), outcome(under_way), &[expected]);
    let handed_off = old.said("event HandedOff");
    if expected.0 == Serves::New {
        assert_eq!(handed_off, [new.own.to_string()]);
    } else {
        assert!(!handed_off.contains(&new.own.to_string()));
        assert!(new.said("event Granted").is_empty() && new.said("serving").is_empty());
    }
}

fn cancelled() {
    let (mut world, under_way, new) = with_a_full_lifeline();
    assert_eq!(under_way.old.ask(Act::Cancel), "true");
    let expected = (Serves::Old, Told::Failed(&["the restart was called off: by a test"]));
    judge(&mut world, case(Fault::Kill, Victim::New), outcome(under_way), &[expected]);
    new.ends();
}

fn stopped() {
    let (world, under_way, new) = with_a_full_lifeline();
    let old = under_way.old.clone();
    assert_eq!(old.ask(Act::Stop), "stopped");
    let answer = outcome(under_way).answer;
    assert_eq!(answer, Answer::Failed("the restart was called off because this process is stopping".into()));
    new.ends();
    assert!(old.said("event HandedOff").is_empty());
    assert_eq!(world.service.connect().pid, old.own);
    alone(&world, case(Fault::Kill, Victim::New), Some(&old));
}

fn dropped(there_is_room: bool) {
    let (world, under_way, new) = with_a_full_lifeline();
    let old = under_way.old.clone();
    let waits = old.said("waits").len();
    // In one breath: the restarter has no turn in between.
    old.tell_all([Act::Wait, Act::Drop]);
    old.says_again("waits", waits);
    if there_is_room {
        new.signal(Signal::SIGCONT);
        world.strike_with(&old, Strike::Room(Line::Down));
    }
    old.go();
    let answer = outcome(under_way).answer;
    assert_eq!(answer, Answer::Failed("the restart was called off because this process is stopping".into()));
    new.ends();
    assert!(old.said("event HandedOff").is_empty() && new.said("event Granted").is_empty() && new.said("serving").is_empty());
    assert_eq!(world.service.connect().pid, old.own);
    alone(&world, case(Fault::Kill, Victim::New), Some(&old));
}

/// The new one, which is stopped, has the grant, and the lifeline is full then: the old one drops its restarter, and lives on.
fn commit_not_taken(probation: Option<Duration>) {
    let setup = probation.into_iter().fold(Setup::new(), |setup, time| setup.set(Config::Probation(time)));
    let world = World::start(setup, false);
    world.owner.on(plan::Step::HandedOff, Act::Wait);
    world.owner.on(plan::Step::HandedOff, Act::Drop);
    let under_way = world.reach(Step::Ready, false);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    stop(&new);
    let waits = old.said("waits").len();
    old.go();
    old.says_again("waits", waits);
    world.strike_with(&old, Strike::Fill(Line::Down));
    old.go();
    assert_eq!(under_way.asker.answer(), Answer::Complete(new.own));
    assert_eq!(old.did(&Act::Drop), "dropped");
    new.signal(Signal::SIGCONT);
    new.says("event Granted");
    if probation.is_some() {
        // Nobody can tell it that this is final but the end of the old one.
        assert!(new.ask(Act::Request).starts_with("OnProbation"));
        drop(under_way.kept);
        old.tell(Act::Exit(0));
    }
    new.says("event Committed");
    wait_until("a process that can be restarted", || new.ask(Act::Status).contains(r#""state":"idle""#));
    assert_eq!(world.service.connect().pid, new.own);
}

fn orphaned(fault: Fault) {
    let (mut world, under_way, new) = with_a_full_lifeline();
    let case = case(fault, Victim::Old);
    world.strike(case, &under_way);
    new.signal(Signal::SIGCONT);
    judge(&mut world, case, outcome(under_way), &[(Serves::New, Told::Ended)]);
    assert!(new.said("event Granted").is_empty());
}
