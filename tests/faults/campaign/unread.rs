//! What lies in the lifeline and has not been read: the new one is stopped when the old one dies, drops its restarter, or has given
//! the state. And the same where the program of the new one closes the lifeline before it has read it.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::asker::Answer;
use crate::case::{Case, Fault, Step, Victim};
use crate::expected::{Serves, Told};
use crate::freeze::Frozen;
use crate::judge::{alone, judge};
use crate::strike::{Line, Strike};
use crate::trial;
use crate::world::{Outcome, UnderWay, World, stop};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::Process;
use pollflip_kit::service::{Act, Config, ms, plan};

/// Longer than any test.
const PROBATION: Duration = ms(120_000);

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (probation, step) in [(None, "at_granted"), (Some(PROBATION), "on_probation")] {
        for (fault, how) in [(Fault::Kill, "is_killed"), (Fault::Helper, "dies_and_leaves_a_helper")] {
            let name = format!("promise_07_{step}::an_old_one_that_{how}_with_the_grant_unread_leaves_the_new_one_the_service");
            trials.push(trial(name, move || grant_unread(probation, fault)));
        }
        for (dies_first, when) in [(true, "before"), (false, "after")] {
            let name = format!("promise_07_{step}::a_new_one_killed_with_the_grant_unread_{when}_a_drop_is_told_of_once");
            trials.push(trial(name, move || dropped(probation, dies_first)));
        }
    }
    trials.extend([
        trial("promise_07_at_commit::an_old_one_killed_with_all_of_it_unread_leaves_the_new_one_the_service".into(), commit_unread),
        trial("promise_07_at_end::an_old_one_that_is_killed_with_the_state_unread_leaves_the_new_one_both".into(), || {
            state_unread(Fault::Kill);
        }),
        trial("promise_07_at_end::an_old_one_that_dies_and_leaves_a_helper_with_the_state_unread_leaves_the_new_one_both".into(), || {
            state_unread(Fault::Helper);
        }),
        trial("promise_07_at_granted::a_new_one_that_closes_the_grant_unread_is_reported_by_the_old_one".into(), || {
            grant_closed(None, &[(Serves::NobodyAndReported, Told::Complete)]);
        }),
        trial("promise_07_on_probation::a_new_one_that_closes_the_grant_unread_gives_the_service_back".into(), || {
            let closed = (Serves::Old, Told::Failed(&["closed its lifeline"]));
            // It gives up by itself after a while: whoever is first.
            grant_closed(Some(PROBATION), &[closed, (Serves::Old, Told::Failed(&["exited with status 2"]))]);
        }),
        trial(
            "promise_07_at_commit::a_new_one_that_closes_the_grant_unread_serves_when_the_old_one_has_ended".into(),
            grant_closed_at_the_end,
        ),
    ]);
    trials
}

fn case(step: Step, fault: Fault, victim: Victim) -> Case {
    Case { step, fault, victim }
}

fn world(probation: Option<Duration>) -> World {
    let setup = probation.into_iter().fold(Setup::new(), |setup, time| setup.set(Config::Probation(time)));
    World::start(setup, probation.is_some())
}

/// The new one is ready and goes no further, and the old one gets to where it has been told to wait.
fn reach(world: &World, halt: impl FnOnce(&Process)) -> UnderWay {
    let under_way = world.reach(Step::Ready, false);
    let old = &under_way.old;
    halt(under_way.new.as_ref().expect("a successor"));
    let waits = old.said("waits").len();
    old.go();
    old.says_again("waits", waits);
    under_way
}

fn new_of(under_way: &UnderWay) -> Process {
    under_way.new.clone().expect("a successor")
}

/// What came of it.
fn outcome(under_way: UnderWay) -> Outcome {
    let UnderWay { old, new, kept, asker, .. } = under_way;
    Outcome { old, new, answer: asker.answer(), kept }
}

/// It hears all of it in order, and once.
fn hears(new: &Process, events: &[&str]) {
    let heard: Vec<_> = new.said("event").into_iter().take_while(|event| event != "Restarting").collect();
    assert_eq!(heard, events);
}

fn grant_unread(probation: Option<Duration>, fault: Fault) {
    let mut world = world(probation);
    world.owner.on(plan::Step::HandedOff, Act::Wait);
    let under_way = reach(&world, stop);
    let new = new_of(&under_way);
    let case = case(Step::Granted, fault, Victim::Old);
    world.strike(case, &under_way);
    new.signal(Signal::SIGCONT);
    judge(&mut world, case, outcome(under_way), &[(Serves::New, Told::Ended)]);
    hears(&new, &["Granted", "Committed", "PredecessorGone"]);
}

fn commit_unread() {
    let mut world = world(None);
    world.owner.on(plan::Step::Completed, Act::Wait);
    let under_way = reach(&world, stop);
    let new = new_of(&under_way);
    let case = case(Step::Commit, Fault::Kill, Victim::Old);
    world.strike(case, &under_way);
    new.signal(Signal::SIGCONT);
    judge(&mut world, case, outcome(under_way), &[(Serves::New, Told::Complete)]);
    hears(&new, &["Granted", "Committed", "PredecessorGone"]);
}

/// The restarter goes between the grant and the commit, which it makes on its way out if it can.
fn dropped(probation: Option<Duration>, dies_first: bool) {
    let world = world(probation);
    world.owner.on(plan::Step::HandedOff, Act::Wait);
    world.owner.on(plan::Step::HandedOff, Act::Drop);
    let under_way = reach(&world, stop);
    let (old, new) = (under_way.old.clone(), new_of(&under_way));
    let killed = || {
        new.signal(Signal::SIGKILL);
        new.ends();
    };
    if dies_first {
        killed();
    }
    old.go();
    assert_eq!(old.did(&Act::Drop), "dropped");
    if !dies_first {
        killed();
    }
    let expected = match probation {
        // It can still be taken back, and the program has to see to that by itself: it hears no more events.
        Some(_) if dies_first => Answer::Failed(
            "the successor was killed by SIGKILL on probation; by somebody, or for want of memory? see the log of the kernel".into(),
        ),
        _ => Answer::Complete(new.own),
    };
    assert_eq!(under_way.asker.answer(), expected);
    let case = case(Step::Granted, Fault::Kill, Victim::New);
    if dies_first && probation.is_some() {
        // Reaped before the drop was over. One that has the service for good is left to whoever reaps the children of this program.
        alone(&world, case, Some(&old));
    }
    drop(under_way.kept);
    old.tell(Act::Exit(0));
    alone(&world, case, None);
}

fn state_unread(fault: Fault) {
    let mut world = world(None);
    let under_way = world.reach(Step::Pull, true);
    let (old, new) = (under_way.old.clone(), new_of(&under_way));
    stop(&new);
    old.go();
    assert_eq!(old.says("gives"), "Ok(())");
    old.ask(Act::Status);
    let case = case(Step::End, fault, Victim::Old);
    world.strike(case, &under_way);
    new.signal(Signal::SIGCONT);
    judge(&mut world, case, outcome(under_way), &[(Serves::New, Told::Ended)]);
    hears(&new, &["Inherited", "PredecessorGone"]);
}

/// It closes the lifeline while the thread that waits for the grant stands still. Without a probation nobody can take the grant back: what
/// is left is that the old one, which finishes its work, says that the new one has ended.
fn grant_closed(probation: Option<Duration>, expected: &[(Serves, Told)]) {
    let mut world = world(probation);
    world.owner.on(plan::Step::HandedOff, Act::Wait);
    let mut frozen = None;
    let under_way = reach(&world, |new| frozen = Frozen::new(new));
    let Some(frozen) = frozen else { return };
    let new = new_of(&under_way);
    world.strike_with(&new, Strike::Vanish(Line::Up));
    drop(frozen);
    under_way.old.go();
    judge(&mut world, case(Step::Granted, Fault::Close, Victim::New), outcome(under_way), expected);
    assert!(new.said("event Granted").is_empty() && new.said("serving").is_empty());
}

/// The same where the old one has ended before the new one goes on.
fn grant_closed_at_the_end() {
    let mut world = world(None);
    world.owner.on(plan::Step::Completed, Act::Wait);
    let mut frozen = None;
    let under_way = reach(&world, |new| frozen = Frozen::new(new));
    let Some(frozen) = frozen else { return };
    let new = new_of(&under_way);
    world.strike_with(&new, Strike::Close(Line::Up));
    let case = case(Step::Commit, Fault::Kill, Victim::Old);
    world.strike(case, &under_way);
    drop(frozen);
    judge(&mut world, case, outcome(under_way), &[(Serves::New, Told::Complete)]);
    hears(&new, &["PredecessorGone"]);
}
