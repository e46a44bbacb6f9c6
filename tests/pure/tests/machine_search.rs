//! The machine against the model and the laws, in every state there is and on many ways through them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pollflip::internals::machine::Limits;
use pollflip_tests_pure::model;
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::operation::Whose;
use pollflip_tests_pure::model::rows::ROWS;
use pollflip_tests_pure::model::{After, Checked, ON_PROBATION, On, Operation, PLAIN, Random, Room};

/// A machine that this was done to.
fn replay(limits: Limits, path: &[Operation]) -> Checked {
    let mut checked = Checked::new(limits);
    path.iter().for_each(|operation| operation.apply(&mut checked));
    checked
}

/// Every distinct state that is reached by these operations, with a shortest way to it: breadth first, to a depth or to the end.
/// Also counts the machines that were tried.
fn explore(limits: Limits, operations: &[Operation], depth: usize) -> (BTreeMap<String, Vec<Operation>>, usize) {
    let start = Checked::new(limits);
    let mut found = BTreeMap::from([(start.key(), vec![])]);
    let mut edge = VecDeque::from([vec![]]);
    let mut tried = 0;
    while let Some(path) = edge.pop_front().filter(|path: &Vec<Operation>| path.len() < depth) {
        for operation in operations {
            let mut checked = replay(limits, &path);
            operation.apply(&mut checked);
            tried += 1;
            let longer = || [&path[..], &[*operation]].concat();
            found.entry(checked.key()).or_insert_with(|| {
                edge.push_back(longer());
                longer()
            });
            checked.drain(ALL);
        }
    }
    (found, tried)
}

/// Every kind of input, of the current attempt and of others, early and late.
fn everything() -> Vec<Operation> {
    let mut operations = Vec::new();
    for on in On::ALL {
        let owners: &[Whose] = if on.has_attempt() { &[Whose::Current, Whose::Past, Whose::Future] } else { &[Whose::Current] };
        for whose in owners {
            for after in [After::AtOnce, After::JustBeforeDeadline, After::AtDeadline, After::JustAfterDeadline] {
                operations.push(Operation { on, whose: *whose, after, drain: ALL });
            }
        }
    }
    operations
}

/// Every kind of input, of the current attempt, when it can have an effect.
fn plain() -> Vec<Operation> {
    On::ALL.map(Operation::plain).to_vec()
}

/// With the outputs carried out after each input there are finitely many states, and this finds all of them: what is checked on each of
/// their edges holds for sequences of any length.
#[test]
fn every_input_in_every_state_does_what_the_model_does() {
    let mut cells = BTreeSet::new();
    for limits in [PLAIN, ON_PROBATION] {
        let (states, tried) = explore(limits, &plain(), usize::MAX);
        let mut checks = tried;
        let mut rooms = BTreeSet::new();
        for path in states.values() {
            for operation in everything() {
                for drain in [ALL, 0, 1] {
                    let mut checked = replay(limits, path);
                    rooms.insert(checked.room());
                    Operation { drain, ..operation }.apply(&mut checked);
                    cells.extend(checked.cells().iter().copied());
                    checked.drain(ALL);
                    checks += 1;
                }
            }
        }
        println!("probation {:?}: {} states, {checks} cells", limits.probation, states.len());
        let out_of_reach = [Room::Proving, Room::Checking, Room::KillingGranted, Room::UndyingGranted];
        let expected = Room::ALL.into_iter().filter(|room| limits.probation.is_some() || !out_of_reach.contains(room));
        assert!(rooms.iter().copied().eq(expected), "{rooms:?}");
    }
    let table: usize = ROWS.iter().map(|row| row.at.len() * row.on.len()).sum();
    assert_eq!(cells.len(), table, "each row was used in each of its states and by each of its inputs");
}

/// Two states that look alike to the model could still differ inside the machine: from each all pairs of inputs are tried as they are.
#[test]
fn states_that_look_alike_are_alike() {
    for limits in [PLAIN, ON_PROBATION] {
        let (states, _) = explore(limits, &plain(), usize::MAX);
        let mut tried = 0;
        for path in states.values() {
            for first in plain() {
                for second in plain() {
                    let mut checked = replay(limits, path);
                    first.apply(&mut checked);
                    second.apply(&mut checked);
                    tried += 1;
                }
            }
        }
        println!("probation {:?}: {tried} pairs after {} states", limits.probation, states.len());
    }
}

const DEPTH: usize = 7;

/// Two tests, so that two processors share the work.
#[test]
fn every_sequence_of_seven_inputs_and_pauses_does_what_the_model_does() {
    try_sequences(PLAIN);
}

#[test]
fn every_sequence_of_seven_inputs_and_pauses_does_what_the_model_does_on_probation() {
    try_sequences(ON_PROBATION);
}

/// The driver may stop after any output: every sequence of so many inputs, each with none, one or all of what comes out carried out.
fn try_sequences(limits: Limits) {
    let of_others = On::ALL.into_iter().filter(|on| on.has_attempt()).map(|on| Operation { whose: Whose::Past, ..Operation::plain(on) });
    let inputs: Vec<_> = plain().into_iter().chain(of_others).collect();
    let operations: Vec<_> = inputs.iter().flat_map(|input| [ALL, 0, 1].map(|drain| Operation { drain, ..*input })).collect();
    let (states, tried) = explore(limits, &operations, DEPTH);
    let sequences = (operations.len() as f64).powi(DEPTH as i32);
    println!("probation {:?}: {sequences:.1e} sequences by {} states and {tried} machines", limits.probation, states.len());
}

/// Where a process is for good, or nearly.
const DEAD_ENDS: [Room; 3] = [Room::Stopping, Room::Broken, Room::Committed];

/// Anything at all now and then, and mostly what has an effect and leads on.
fn stumble(random: &mut Random, checked: &mut Checked) {
    let bytes = random.next().to_le_bytes();
    let any = Operation::of_bytes([bytes[0], bytes[1]]);
    let leads_on: Vec<On> = ROWS
        .iter()
        .filter(|row| row.at.contains(&checked.room()))
        .flat_map(|row| row.on.iter().copied())
        .filter(|on| !matches!(on, On::Stop | On::ThreadLost) || bytes[2] < 8)
        .collect();
    let operation = match bytes[3] {
        ..100 if !leads_on.is_empty() => Operation { drain: any.drain, ..Operation::plain(random.pick(&leads_on)) },
        ..180 if !leads_on.is_empty() => Operation { on: random.pick(&leads_on), after: After::Second, ..any },
        _ if matches!(any.on, On::Stop | On::ThreadLost) => return,
        _ => Operation { after: if any.after == After::Eternity { After::Second } else { any.after }, ..any },
    };
    operation.apply(checked);
}

#[test]
fn random_walks_do_what_the_model_does() {
    let mut random = Random::seeded();
    let (mut steps, mut lives) = (0, 0);
    while steps < 200_000 {
        let limits = model::operation::limits_of_byte(random.next() as u8);
        let mut checked = Checked::new(limits);
        let mut left = 500i32;
        while left > 0 {
            stumble(&mut random, &mut checked);
            left -= if DEAD_ENDS.contains(&checked.room()) { 25 } else { 1 };
            steps += 1;
        }
        checked.drain(ALL);
        lives += 1;
    }
    println!("{steps} steps in {lives} lives");
}
