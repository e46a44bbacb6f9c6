//! A lifeline that the new process loses between the grant and the commit, of which it then cannot hear.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use pollflip::RequestError;

use crate::asker::{Answer, Asker};
use crate::case::{Case, Fault, Step, Victim};
use crate::dying::shut_lifeline;
use crate::judge::{alone, next_restart};
use crate::strike::{Line, Strike};
use crate::trial;
use crate::world::{UnderWay, World, stop};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::Process;
use pollflip_kit::service::{Act, Config, at, plan};

/// Of the old one: shorter than the time that a closed lifeline is given to become an end.
const PROBATION: Duration = Duration::from_millis(900);
const CASE: Case = Case { step: Step::Granted, fault: Fault::Close, victim: Victim::New };

pub fn trials() -> Vec<Trial> {
    vec![
        trial("promise_07_at_granted::without_a_lifeline_it_is_restarted_while_the_old_one_lives".into(), || {
            without_probation(Strike::Close(Line::Up))
        }),
        trial("promise_07_at_granted::a_lifeline_whose_number_is_free_is_not_read".into(), || without_probation(Strike::Vanish(Line::Up))),
        trial("promise_03_on_probation::a_lifeline_that_is_closed_shortly_before_its_end_is_noticed".into(), at_its_end),
        trial("promise_03_on_probation::a_lifeline_that_is_closed_at_once_is_noticed_however_short_it_is".into(), short),
        trial("promise_03_on_probation::a_lifeline_that_is_shut_down_there_while_the_new_one_is_stopped_is_noticed".into(), || {
            shut_down(Victim::New);
        }),
        trial("promise_03_on_probation::a_lifeline_that_is_shut_down_here_while_the_new_one_is_stopped_is_noticed".into(), || {
            shut_down(Victim::Old);
        }),
        trial("promise_07_at_granted::a_grant_in_a_lifeline_that_is_shut_down_there_is_still_read".into(), || {
            shut_down_without_probation(Victim::New);
        }),
        trial("promise_07_at_granted::a_grant_in_a_lifeline_that_is_shut_down_here_is_still_read".into(), || {
            shut_down_without_probation(Victim::Old);
        }),
        trial("promise_07_on_probation::without_a_lifeline_and_past_its_end_the_service_can_still_be_taken_back".into(), taken_back),
    ]
}

/// The new one is granted the service and loses its lifeline, and the old one has yet to take in that it has granted anything.
fn lose(setup: Setup, how: Strike) -> (World, UnderWay) {
    let world = World::start(setup, false);
    let under_way = world.reach(Step::Granted, false);
    world.strike_with(under_way.new.as_ref().expect("a successor"), how);
    (world, under_way)
}

fn without_probation(how: Strike) {
    let (mut world, under_way) = lose(Setup::new(), how);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    // One of these may have the number now. What is said on it is not for the restarter.
    let mut clients = [(); 3].map(|()| world.service.connect());
    let mut serve = || clients.iter_mut().filter(|client| client.pid == new.own).for_each(|client| client.echo("for the program"));
    serve();
    old.go();
    assert_eq!(under_way.asker.answer(), Answer::Complete(new.own));
    // What has been granted without a probation cannot be taken back.
    new.says("event Committed");
    serve();
    drop(clients);
    let third = world.service.restart();
    third.says("event Committed");
    new.ends();
    let mut kept = under_way.kept;
    kept.echo("still here");
    assert_eq!(world.service.connect().pid, third.own);
    assert!(old.said("event Resumed").is_empty());
    drop(kept);
    alone(&world, CASE, Some(&third));
    world.owner = third;
    next_restart(&mut world, CASE);
}

/// The same where the old one is held up until its probation is over.
fn lose_at_the_end() -> (World, UnderWay) {
    let (world, under_way) = lose(Setup::new().set(Config::Probation(PROBATION)), Strike::Close(Line::Up));
    // The clock is what this is about.
    thread::sleep(PROBATION);
    // Whoever asks is answered, although nobody can know for how long the old one is held up: it may serve again.
    refused(&world);
    (world, under_way)
}

fn refused(world: &World) {
    match world.service.try_restart() {
        Err(RequestError::Refused(why)) => assert!(why.contains("has not committed yet"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn at_its_end() {
    let (mut world, under_way) = lose_at_the_end();
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    old.go();
    drop(under_way.kept);
    is_given_up(&mut world, under_way.asker.answer(), &old);
    new.ends();
}

/// The lifeline is shut down by somebody else, at either end, which is the same to both: the new one is stopped and has not read the grant,
/// and the old one has yet to take in that it has granted anything.
fn shut_down_unread(setup: Setup, end: Victim) -> (World, UnderWay) {
    let world = World::start(setup, false);
    world.owner.on(plan::Step::HandedOff, Act::Wait);
    let under_way = world.reach(Step::Ready, false);
    let (old, new) = (&under_way.old, under_way.new.as_ref().expect("a successor"));
    stop(new);
    let waits = old.said("waits").len();
    old.go();
    old.says_again("waits", waits);
    shut_lifeline(if end == Victim::New { new } else { old });
    (world, under_way)
}

fn shut_down_without_probation(end: Victim) {
    let (mut world, under_way) = shut_down_unread(Setup::new(), end);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    old.go();
    assert_eq!(under_way.asker.answer(), Answer::Complete(new.own));
    new.signal(Signal::SIGCONT);
    // What was in it is still read, and cannot be taken back.
    new.says("event Granted");
    new.says("event Committed");
    assert!(old.lives());
    let mut kept = under_way.kept;
    kept.echo("still here");
    assert_eq!(world.service.connect().pid, new.own);
    drop(kept);
    alone(&world, CASE, Some(&new));
    new.says("event PredecessorGone");
    assert_eq!(new.said("event"), ["Granted", "Committed", "PredecessorGone"]);
    world.owner = new;
    next_restart(&mut world, CASE);
}

/// Shortly before the probation is over.
fn shut_down(end: Victim) {
    let (mut world, under_way) = shut_down_unread(Setup::new().set(Config::Probation(PROBATION)), end);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    // The clock is what this is about.
    thread::sleep(PROBATION);
    old.go();
    drop(under_way.kept);
    is_given_up(&mut world, under_way.asker.answer(), &old);
    new.ends();
    assert!(new.said("event Granted").is_empty());
}

fn is_given_up(world: &mut World, answer: Answer, old: &Process) {
    match answer {
        Answer::Failed(why) => assert!(why.contains("closed its lifeline and has been killed"), "{why}"),
        other => panic!("{other:?}"),
    }
    old.says("event Resumed");
    assert!(old.said("event Completed").is_empty());
    assert_eq!(world.service.connect().pid, old.own);
    alone(world, CASE, Some(old));
    next_restart(world, CASE);
}

fn short() {
    let mut world = World::start(Setup::new().set(Config::Probation(PROBATION)), false);
    let old = world.owner.clone();
    // The old one looks when it is closed, and a probation is not over before somebody looks.
    old.on(plan::Step::HandedOff, Act::Wait);
    world.service.plan_next(at(plan::Step::Granted, Act::CloseLifeline));
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    old.says("waits");
    world.service.hub.nth(births).did(&Act::CloseLifeline);
    old.go();
    is_given_up(&mut world, asker.answer(), &old);
}

fn taken_back() {
    let (mut world, under_way) = lose_at_the_end();
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    new.signal(Signal::SIGKILL);
    new.ends();
    old.go();
    assert_eq!(
        under_way.asker.answer(),
        Answer::Failed(
            "the successor was killed by SIGKILL on probation; by somebody, or for want of memory? see the log of the kernel".into()
        )
    );
    old.says("event Resumed");
    assert_eq!(world.service.connect().pid, old.own);
    drop(under_way.kept);
    alone(&world, CASE, Some(&old));
    next_restart(&mut world, CASE);
}
