//! The guard's machine in every world there is: breadth first, to a fixed point, so that what is
//! checked on each step holds for lives of any length. And with a fault planted, each of which a
//! law finds.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs;

use pollflip_tests_pure::repository;

use pollflip::Exit;
use pollflip::internals::machine::supervision::{Fact, Policy, Rules, Stage, Supervision};
use pollflip_tests_pure::supervision::faults::{Fault, Faulty};
use pollflip_tests_pure::supervision::{Law, Machine, SECOND, Step, World, life, notification, rules};

/// What a search has found.
struct Found {
    worlds: usize,
    steps: usize,
    stages: BTreeSet<String>,
    broken: Option<(Law, Vec<Step>)>,
}

/// Every world that can be reached by these steps, each by a shortest way.
fn search<M: Machine + Clone>(rules: Rules, machine: M, steps: &[Step]) -> Found {
    let first = World::new(machine, rules);
    let mut known = HashSet::from([first.key()]);
    let mut edge = VecDeque::from([first]);
    let mut found = Found { worlds: 0, steps: 0, stages: BTreeSet::new(), broken: None };
    while let Some(world) = edge.pop_front() {
        found.worlds += 1;
        found.stages.insert(format!("{:?}", world.stage()).split(' ').next().unwrap_or_default().into());
        let mut end = world.clone();
        end.everything_ends();
        if let Some(law) = end.broken {
            found.broken = Some((law, end.story));
            return found;
        }
        for step in steps {
            let mut next = world.clone();
            if !next.take(*step) {
                continue;
            }
            found.steps += 1;
            if let Some(law) = next.broken {
                found.broken = Some((law, next.story));
                return found;
            }
            if known.insert(next.key()) {
                edge.push_back(next);
            }
        }
    }
    found
}

/// What makes a difference: ninety seconds are no other world than two, and how an earlier
/// generation ends is not asked. What is no strike is asked apart, without restarts: strikes end
/// most lives early.
fn steps() -> Vec<Step> {
    let left_out = [Step::ReloadAnyTime, Step::EarlierCrashes, Step::Signalled, Step::MainIsKilled, Step::Absolve];
    Step::ALL.into_iter().filter(|step| !left_out.contains(step)).collect()
}

const WITHOUT_RESTARTS: [Step; 10] = [
    Step::StartSucceeds,
    Step::StartFails,
    Step::Ready,
    Step::MainExits,
    Step::MainCrashes,
    Step::MainIsKilled,
    Step::Absolve,
    Step::Told,
    Step::Deadline,
    Step::Later,
];

/// Of all rules, so many that each policy is among them, with a time to be ready in and without.
fn searched_rules() -> [Rules; 3] {
    [rules(Policy::No, true), rules(Policy::OnFailure, false), rules(Policy::Always, false)]
}

#[test]
fn the_laws_hold_in_every_world() {
    for rules in searched_rules() {
        let found = search(rules, Supervision::new(rules), &steps());
        println!("{:?}, ready {:?}: {} worlds, {} steps", rules.policy, rules.ready, found.worlds, found.steps);
        assert_eq!(found.broken, None, "with {rules:?}");
        let stages = ["Starting", "Running", "Between", "Clearing", "Stopping", "Over"];
        assert_eq!(found.stages, stages.map(String::from).into(), "with {rules:?}");
    }
}

#[test]
fn the_laws_hold_where_some_ends_are_no_strikes() {
    for rules in searched_rules() {
        let found = search(rules, Supervision::new(rules), &WITHOUT_RESTARTS);
        println!("{:?}, ready {:?}: {} worlds, {} steps", rules.policy, rules.ready, found.worlds, found.steps);
        assert_eq!(found.broken, None, "with {rules:?}");
    }
}

#[test]
fn each_planted_fault_breaks_its_law() {
    for (fault, law) in Fault::ALL {
        // The one that always starts again is in order where that is wanted.
        let rules = searched_rules().into_iter().rev().filter(|rules| fault != Fault::StartsAlways || rules.policy != Policy::Always);
        let found = rules.map(|rules| search(rules, Faulty::new(rules, fault), &steps()).broken).find(|broken| broken.is_some()).flatten();
        let (broken, shortest) = found.unwrap_or_else(|| panic!("no law finds {fault:?}"));
        assert_eq!(broken, law, "{fault:?} after {shortest:?}");
        println!("{fault:?} breaks {law:?}: {shortest:?}");
    }
}

#[test]
fn the_corpus_of_the_fuzzer_breaks_no_law() {
    let corpus = repository().join("fuzz/corpus/supervision");
    let mut count = 0;
    for entry in fs::read_dir(corpus).expect("the corpus") {
        life(&fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

#[test]
fn the_corpus_of_notifications_is_understood_or_left_out() {
    let corpus = repository().join("fuzz/corpus/notification");
    let mut count = 0;
    for entry in fs::read_dir(corpus).expect("the corpus") {
        notification(&fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

/// What fuzzing starts from: lives that go through all stages.
#[test]
fn the_seeds_are_committed() {
    let lives: [(&str, u8, &[Step]); 6] = [
        ("restart", 0, &[Step::StartSucceeds, Step::Reload, Step::Spawn, Step::Name, Step::EarlierExits, Step::Told, Step::MainExits]),
        ("alone", 0, &[Step::StartSucceeds, Step::Reload, Step::Spawn, Step::MainCrashes, Step::NameItself, Step::MainCrashes]),
        ("given-up", 2, &[Step::StartSucceeds, Step::Reload, Step::Spawn, Step::MainCrashes, Step::Deadline, Step::Deadline]),
        ("strikes", 4, &[Step::StartSucceeds, Step::MainExits, Step::Deadline, Step::StartSucceeds, Step::MainExits]),
        ("drains", 0, &[Step::StartSucceeds, Step::Reload, Step::Spawn, Step::Name, Step::MainCrashes, Step::Told, Step::EarlierExits]),
        ("never-ready", 3, &[Step::StartSucceeds, Step::Extend, Step::Deadline, Step::MainCrashes, Step::Deadline, Step::StartFails]),
    ];
    let directory = repository().join("fuzz/corpus/supervision");
    for (name, rules, steps) in lives {
        let number = |step: &Step| Step::ALL.iter().position(|other| other == step).expect("a step") as u8;
        let bytes: Vec<u8> = std::iter::once(rules).chain(steps.iter().map(number)).collect();
        let file = directory.join(format!("{name}.seed"));
        if std::env::var_os("POLLFLIP_BLESS").is_some() {
            fs::create_dir_all(&directory).expect("a directory");
            fs::write(&file, &bytes).expect("a file");
        }
        let committed = fs::read(&file).unwrap_or_default();
        assert_eq!(committed, bytes, "{name}.seed is out of date: POLLFLIP_BLESS=1 writes it anew");
    }
}

/// A generator that needs no seed: the same lives each time.
#[test]
fn long_lives_break_no_law() {
    let mut number: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut data = [0; 400];
    for _ in 0..2_000 {
        for byte in &mut data {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            *byte = (number >> 32) as u8;
        }
        life(&data);
    }
}

/// It may have been a crash.
#[test]
fn a_status_that_nobody_knows_is_a_failure() {
    let after = |policy, told: bool| {
        let mut machine = Supervision::new(rules(policy, false));
        machine.handle(SECOND, Fact::Started(1));
        if told {
            machine.handle(SECOND, Fact::Told { signal: nix::libc::SIGTERM, heard: true });
        }
        machine.handle(SECOND, Fact::Ended(1, Exit::Unknown));
        machine.handle(SECOND, Fact::Alone);
        machine.stage()
    };
    assert!(matches!(after(Policy::OnFailure, false), Stage::Starting { .. }));
    assert_eq!(after(Policy::OnFailure, true), Stage::Over);
    assert_eq!(after(Policy::No, false), Stage::Over);
}

/// It may be asked for anything at any time.
#[test]
fn a_machine_that_is_over_stays_over() {
    let rules = rules(Policy::Always, false);
    let mut world = World::new(Supervision::new(rules), rules);
    world.take(Step::StartFails);
    assert_eq!(world.stage(), Stage::Over);
    for step in Step::ALL {
        world.take(step);
        assert_eq!((world.stage(), world.broken), (Stage::Over, None), "after {step:?}");
    }
}
