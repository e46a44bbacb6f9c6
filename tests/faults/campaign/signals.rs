//! Promise 6 and its relatives: signals at every step, in any number, to either process; being told to stop at every step; children
//! whose end the program hides from the restarter.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::request_status;

use crate::asker::Answer;
use crate::case::{Case, Fault, STEPS, Step, Victim};
use crate::expected::{Serves, Told, outcomes};
use crate::judge::{alone, expect_size, group};
use crate::service::{Children, OwnHandler, StopOnSignals};
use crate::trial;
use crate::world::{World, setup};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, plan};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for step in STEPS.into_iter().filter(|step| *step != Step::Hello) {
        for whom in ["the_old_one", "the_new_one", "both"] {
            if step != Step::BeforeSpawn || whom == "the_old_one" {
                let own = whom == "both";
                trials.push(trial(format!("promise_06_{step}::a_storm_of_restart_signals_to_{whom}"), move || storm(step, whom, own)));
            }
        }
        trials.push(trial(format!("promise_06_{step}::a_call_of_stop"), move || stop(step)));
        trials.push(trial(format!("promise_06_{step}::a_storm_of_three_signals_to_both"), move || storm_of_all(step)));
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            trials.push(trial(format!("promise_06_{step}::one_{signal}_to_the_old_one"), move || stop_by(step, signal)));
        }
    }
    for (mode, name) in [(Children::Ignored, "ignore-children"), (Children::Reaped, "reap-any")] {
        for step in STEPS.into_iter().filter(|step| !matches!(step, Step::BeforeSpawn | Step::Hello)) {
            for fault in [Fault::Kill, Fault::Exit1, Fault::Pause] {
                let case = Case { step, fault, victim: Victim::New };
                trials.push(trial(format!("promise_06_{name}::{}", case.name()), move || hidden_children(mode, case)));
            }
        }
    }
    trials.push(trial("promise_03_before_the_spawn::stopped_and_dropped_at_once_it_still_answers".into(), stopped_and_dropped));
    trials
}

/// The restarter is told to stop and dropped in one breath, while a successor is about to be started.
fn stopped_and_dropped() {
    let world = world(Step::BeforeSpawn, |setup| setup);
    world.owner.on(plan::Step::Restarting, Act::Stop);
    world.owner.on(plan::Step::Restarting, Act::Drop);
    let under_way = world.reach(Step::BeforeSpawn, false);
    world.owner.go();
    let answer = under_way.asker.answer();
    assert!(matches!(&answer, Answer::Failed(why) if why.contains("because this process is stopping")), "{answer:?}");
    let case = Case { step: Step::BeforeSpawn, fault: Fault::Pause, victim: Victim::Old };
    alone(&world, case, Some(&world.owner));
}

fn world(step: Step, change: impl FnOnce(Setup) -> Setup) -> World {
    let case = Case { step, fault: Fault::Pause, victim: Victim::Old };
    World::start(change(setup(case)), step == Step::Probation)
}

fn has_state(step: Step) -> bool {
    Case { step, fault: Fault::Pause, victim: Victim::Old }.has_state()
}

/// To one that may end meanwhile, and be reaped by its predecessor; nobody else gets its number as fast as that.
fn send(process: &Process, signal: Signal) {
    let _ = kill(Pid::from_raw(process.pid as i32), signal);
}

fn storm(step: Step, whom: &str, own_handler: bool) {
    let world = world(step, |setup| if own_handler { setup.set(OwnHandler) } else { setup });
    let old = world.owner.clone();
    let under_way = world.reach(step, has_state(step));
    let new = under_way.new.iter();
    let struck: Vec<_> = match whom {
        "the_old_one" => vec![&old],
        "the_new_one" if under_way.new.is_some() => new.collect(),
        _ => new.chain([&old]).collect(),
    };
    for _ in 0..20 {
        struck.iter().for_each(|process| send(process, Signal::SIGUSR1));
    }
    if let Some(new) = under_way.new.as_ref().filter(|_| under_way.new_waits) {
        new.go();
    }
    if under_way.old_waits {
        old.go();
    }
    if step == Step::Probation {
        old.ask(Act::Stop);
    }
    let answer = under_way.asker.answer();
    assert!(matches!(answer, Answer::Complete(_)), "{answer:?}");
    drop(under_way.kept);
    calm(&world, 0);
}

/// Waits until a storm is over, and looks at what it has left of those who were born after so many others.
pub fn calm(world: &World, births: usize) {
    let service = &world.service;
    let processes = || service.hub.pids().into_iter().map(|pid| service.hub.process(pid));
    wait_until("one process that serves", || {
        let left: Vec<_> = processes().filter(Process::lives).collect();
        if world.has_long_probation {
            // A restart more that a signal has begun ends as the one before.
            let old = left.iter().find(|process| !process.said("event HandedOff").is_empty() && process.said("event Completed").is_empty());
            // It may have ended since it was looked at.
            old.iter().for_each(|old| drop(old.try_tell(Act::Stop)));
        }
        // A signal that was sent may not have been seen yet, and the next restart begins with it.
        left.len() == 1
            && procfs::has_taken_in(left[0].pid, Signal::SIGUSR1 as i32)
            && service.status().state == pollflip::ServiceState::Serving
            && processes().filter(Process::lives).count() == 1
    });
    // Each had one successor at most, and none was killed.
    let later = || processes().skip(births);
    let generations: Vec<_> = later().map(|process| process.says("built").split(' ').nth(1).map(String::from)).collect();
    assert_eq!(generations.iter().collect::<BTreeSet<_>>().len(), generations.len(), "{generations:?}\n{}", service.hub.story());
    for process in later() {
        // What it has told may still be on its way here.
        if process.lives() {
            process.ask(Act::Status);
        } else {
            process.ends();
        }
        assert!(process.said("event Failed").is_empty() && process.said("event Resumed").is_empty(), "{}", service.hub.story());
        assert!(process.lives() || !process.said("ends").is_empty(), "process {} was killed\n{}", process.pid, service.hub.story());
    }
    service.connect().echo("served");
}

fn stop(step: Step) {
    let mut world = world(step, |setup| setup);
    let old = world.owner.clone();
    let event = match step {
        Step::BeforeSpawn => Some(plan::Step::Restarting),
        Step::AfterSpawn => Some(plan::Step::Spawned),
        Step::Precopy => Some(plan::Step::PrecopyRequested),
        Step::HalfAhead => Some(plan::Step::HalfAhead),
        Step::Pull => Some(plan::Step::StateRequested),
        Step::Half => Some(plan::Step::Half),
        Step::Granted => Some(plan::Step::HandedOff),
        Step::Commit => Some(plan::Step::Completed),
        _ => None,
    };
    if let Some(event) = event {
        // It is called where the old one waits then.
        old.on(event, Act::Stop);
    }
    let under_way = world.reach(step, has_state(step));
    if under_way.old_waits {
        old.go();
    }
    if event.is_none() {
        old.ask(Act::Stop);
    } else {
        old.did(&Act::Stop);
    }
    let answer = under_way.asker.answer();
    let mut kept = under_way.kept;
    kept.echo("still here");
    match answer {
        Answer::Failed(why) => {
            assert!(step <= Step::Ready && why.contains("because this process is stopping"), "{step:?}: {why}");
            drop(kept);
            let case = Case { step, fault: Fault::Pause, victim: Victim::Old };
            // No orphan, and it serves until it ends by itself.
            alone(&world, case, Some(&old));
            expect_size(&world, case, &old, &world.before.clone().without_a_kept_socket());
            assert_eq!(world.service.connect().pid, old.own);
            assert!(matches!(world.service.try_restart(), Err(RequestError::Refused(why)) if why.contains("stopping")));
        }
        Answer::Complete(pid) => {
            assert!(step >= Step::Ready, "{step:?}");
            drop(kept);
            world.owner = world.service.hub.process(pid);
            calm(&world, 0);
        }
        other => panic!("{step:?}: {other:?}"),
    }
}

/// A program that stops in order, at a signal that comes at that step.
fn stop_by(step: Step, signal: Signal) {
    let world = world(step, |setup| setup.set(StopOnSignals));
    let old = world.owner.clone();
    let under_way = world.reach(step, has_state(step));
    old.signal(signal);
    if let Some(new) = under_way.new.as_ref().filter(|_| under_way.new_waits && step == Step::AfterSpawn) {
        new.go();
    }
    if under_way.old_waits {
        old.go();
    }
    let answer = under_way.asker.answer();
    drop(under_way.kept);
    old.ends();
    match answer {
        Answer::Failed(why) => {
            assert!(step <= Step::Ready && why.contains("because this process is stopping"), "{step:?}: {why}");
            let case = Case { step, fault: Fault::Pause, victim: Victim::Old };
            alone(&world, case, None);
        }
        Answer::Complete(_) => calm(&world, 0),
        other => panic!("{step:?}: {other:?}"),
    }
    assert!(old.said("ends").len() == 1, "it was killed\n{}", world.service.hub.story());
}

/// The restart signal and both that end a program, to whoever has handlers, so that each is told to end more than once.
fn storm_of_all(step: Step) {
    let world = world(step, |setup| setup.set(StopOnSignals));
    let under_way = world.reach(step, has_state(step));
    let new = under_way.new.as_ref().filter(|_| step != Step::AfterSpawn);
    let struck: Vec<_> = [Some(&under_way.old), new].into_iter().flatten().cloned().collect();
    for number in 0..60 {
        let signal = [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT][number % 3];
        for process in struck.iter().filter(|process| process.lives()) {
            send(process, signal);
        }
    }
    for (process, waits) in [(Some(&under_way.old), under_way.old_waits), (under_way.new.as_ref(), under_way.new_waits)] {
        // It may have ended.
        process.into_iter().filter(|_| waits).for_each(|process| drop(process.try_go()));
    }
    under_way.asker.answer();
    drop(under_way.kept);
    for process in &struck {
        process.ends();
        // If nobody has been told its end yet: was it one of these signals? One that is told twice exits, and an old one that stops kills a
        // new one that is not ready.
        let status = procfs::stat(process.pid).and_then(|fields| fields.last()?.parse::<i32>().ok());
        let signal = status.map_or(0, |status| status & 0x7f);
        let story = || world.service.hub.story();
        assert!(matches!(signal, 0 | libc::SIGKILL), "process {} was killed by signal {signal}\n{}", process.pid, story());
    }
    let is_whole = |pid: u32| {
        // One that ends before it has named itself never will.
        let mut born = world.service.hub.pids().into_iter().map(|own| world.service.hub.process(own));
        let Some(process) = born.find(|process| process.pid == pid) else { return false };
        !process.lives()
            || request_status(world.service.socket(), DEADLINE).is_ok_and(|status| status.state == pollflip::ServiceState::Serving)
    };
    // One that was born of the storm has not been told to end.
    wait_until("an end of the storm", || {
        let left: Vec<_> = group(&world.service).into_iter().map(|member| member.pid).collect();
        left.is_empty() || matches!(left[..], [pid] if is_whole(pid))
    });
}

/// SIGCHLD is ignored, or another thread reaps every child.
fn hidden_children(mode: Children, case: Case) {
    let mut world = World::start(setup(case).set(mode), case.step == Step::Probation);
    let unknown: &[_] = &["status unknown"];
    let mut expected = outcomes(case);
    if expected[0].0 == Serves::Old {
        expected.push((Serves::Old, Told::Failed(if mode == Children::Reaped { &["ended (status unknown"] } else { unknown })));
    }
    world.suffer_to(case, &expected);
}
