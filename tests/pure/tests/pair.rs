//! Both machines joined by a lifeline, with every death, stop and deadline of either at every point: all that can happen, to a fixed point.
//!
//! `cargo test --test pair -- --nocapture` prints how large each search is, the history behind each
//! assumption, and which law finds which planted fault. A process that is stopped or slow is one whose next step comes late: the search
//! takes the steps of both in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use pollflip::internals::machine::Stage;

use pollflip_tests_pure::model::corpus::{Seed, corpus, is_seed};
use pollflip_tests_pure::pair;
use pollflip_tests_pure::pair::automaton::Turn;
use pollflip_tests_pure::pair::laws::Law;
use pollflip_tests_pure::pair::plant::PLANTS;
use pollflip_tests_pure::pair::room::Room;
use pollflip_tests_pure::pair::search::{Pair, Seen};
use pollflip_tests_pure::pair::setting::{ASSUMPTIONS, Act, Power, SETTINGS, Setting};

fn explore(name: &str, setting: Setting) -> (Pair, Seen) {
    let began = Instant::now();
    let mut pair = Pair::new(setting);
    let seen = pair.explore();
    let Seen { states, edges, at_rest, .. } = seen;
    let probation = if setting.probation { "with a probation" } else { "without one" };
    let machines = format!("{} and {} states of the machines", pair.restarts.len(), pair.takeovers.len());
    println!("{states:>8} states {edges:>9} edges {at_rest:>5} at rest, {machines}, {:>5.1?}: {name}, {probation}", began.elapsed());
    (pair, seen)
}

/// The rooms of the restart machine, those of the model; and the stages of the takeover machine, with the lifeline and the state: each of
/// those that a process can come to that does not say that it is ready after it has refused.
const ROOMS: usize = Room::ALL.len();
const STAGES: usize = 29;

/// Every law in every state of every setting.
fn every_law_holds(settings: &[(&str, &'static [Power])]) {
    let (mut all, mut rooms, mut stages) = (0, BTreeSet::new(), BTreeSet::new());
    for (name, powers) in settings {
        for probation in [false, true] {
            let (mut pair, seen) = explore(name, Setting::new(powers, probation));
            rooms.extend(pair.restarts.all().iter().map(|facts| format!("{:?}", facts.room)));
            stages.extend(pair.takeovers.all().iter().map(|facts| format!("{:?}", facts.stage).replace("{ until: 0ns }", "")));
            if let Some(broken) = seen.broken {
                panic!("broken in {name}: {}\n{}", broken.law, pair.tell(&broken.way));
            }
            all += seen.edges;
        }
    }
    println!("{all:>24} edges in all, over {} rooms and {} stages", rooms.len(), stages.len());
    // Each of them there is in both machines, the first of which is the new process's own as well.
    assert!(rooms.len() == ROOMS && stages.len() == STAGES, "{rooms:#?} {stages:#?}");
}

#[test]
fn promise_07_never_two_owners_and_never_none_whatever_either_does_and_when() {
    every_law_holds(&SETTINGS[..12]);
}

#[test]
fn promise_07_nor_behind_a_wrapper_or_with_helpers() {
    every_law_holds(&SETTINGS[12..]);
}

/// Such a process is forgotten by the search where nobody waits for it: nothing leads on from there.
#[test]
fn a_process_that_knows_that_it_was_given_up_stays_so() {
    for probation in [false, true] {
        let mut pair = Pair::new(Setting::new(&[], probation));
        // All that can be done to the machine, whether or not a driver would.
        let mut node = 0;
        while node < pair.takeovers.len() {
            let is_given_up = |pair: &Pair, node: usize| matches!(pair.takeovers.all()[node].stage, Stage::GivenUp { .. });
            for turn in Turn::ALL {
                let to = pair.takeovers.step(node as u16, turn).0;
                assert!(!is_given_up(&pair, node) || is_given_up(&pair, to.into()), "{turn:?} leads on");
            }
            node += 1;
        }
    }
}

/// Where something is taken for granted, a search without it finds why, and that all other laws hold without it.
#[test]
fn every_assumption_is_needed() {
    for (name, powers, laws) in ASSUMPTIONS {
        for probation in [false, true] {
            let (mut pair, seen) = explore(name, Setting::new(powers, probation));
            let broken = seen.broken.unwrap_or_else(|| panic!("not needed: {name}"));
            println!("otherwise broken: {}\n{}", broken.law, pair.tell(&broken.way));
            assert!(laws.contains(&broken.law), "{name}: {}", broken.law);
            let (mut pair, seen) = explore(name, Setting { waived: laws, ..Setting::new(powers, probation) });
            if let Some(broken) = seen.broken {
                panic!("broken as well without it, that {name}: {}\n{}", broken.law, pair.tell(&broken.way));
            }
        }
    }
}

/// What a law is worth: each finds a fault, and each fault is found by the law that is about it.
#[test]
fn every_planted_fault_is_caught_by_its_law() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (plant, what, powers, probation, law) in PLANTS {
        let mut pair = Pair::new(Setting { plant: Some(*plant), ..Setting::new(powers, *probation) });
        let seen = pair.explore();
        let (found, steps) = seen.broken.map_or(("nothing".into(), 0), |broken| (broken.law.to_string(), broken.way.len()));
        println!("{what:<85} {found}, in {steps} steps, after {} states", seen.states);
        used.insert(*law);
        if found != law.to_string() {
            wrong.push(format!("{what}: found by {found:?} and not by {:?}", law.to_string()));
        }
    }
    let unused: Vec<_> = Law::ALL.iter().filter(|law| !used.contains(law)).map(Law::to_string).collect();
    println!("{} faults, {} laws", PLANTS.len(), used.len());
    assert!(wrong.is_empty() && unused.is_empty(), "{wrong:#?}, and nothing is found by {unused:?}");
}

/// In so many states all of it happens.
const EARLY: usize = 8000;

fn name_of(act: Act) -> String {
    format!("{act:?}").replace(['(', ' '], "-").replace([')', ','], "").to_lowercase()
}

/// Each thing that can happen, by a shortest way to it: what fuzzing starts from.
fn seeds() -> Vec<Seed> {
    let mut shortest: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (number, (_, powers)) in SETTINGS.iter().enumerate() {
        for probation in [false, true] {
            let mut pair = Pair::new(Setting::new(powers, probation));
            for (act, way) in pair.explore_up_to(EARLY).acts {
                let name = name_of(act);
                let first = (number as u8) << 1 | u8::from(probation);
                let bytes = [vec![first], pair.bytes_of(&way)].concat();
                let known = shortest.entry(name).or_insert_with(|| bytes.clone());
                if bytes.len() < known.len() {
                    *known = bytes;
                }
            }
        }
    }
    shortest.into_iter().collect()
}

#[test]
fn the_lives_of_the_corpus_keep_every_law_and_all_that_can_happen_is_in_it() {
    let seeds = seeds();
    let mut happened = BTreeSet::new();
    let files = corpus("pair", &seeds);
    for (file, bytes) in &files {
        let life = pair::life(bytes);
        if is_seed(file) {
            happened.extend(life.acts.iter().map(|act| name_of(*act)));
        }
    }
    assert!(happened.iter().eq(seeds.iter().map(|(name, _)| name)), "{happened:?}");
    println!("{} lives, {} things that can happen", files.len(), happened.len());
}
