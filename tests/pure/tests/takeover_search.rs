//! The machine of the process that takes over against its model and its laws, in every stage there is
//! and on many ways through them.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use pollflip::internals::machine::{DYING, TakeoverInput};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::takeover::say::*;
use pollflip_tests_pure::model::takeover::step::setting_of_byte;
use pollflip_tests_pure::model::takeover::{At, CheckedTakeover, INPUTS, Setting, TAKEOVER_ROWS, TakeoverStep};
use pollflip_tests_pure::model::{After, Random};

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// So much time passes, and then this comes in.
    Input(Duration, TakeoverInput),
    /// The clock was read a second ago: the process has been stopped since.
    StaleTimeout,
    /// The loop carries out one output.
    Output,
}

impl Happens {
    fn to(self, checked: &mut CheckedTakeover) {
        match self {
            Happens::Input(after, input) => {
                checked.wait(after);
                checked.takes(checked.now(), input);
            }
            Happens::StaleTimeout => drop(checked.takes(checked.now().saturating_sub(DYING), TakeoverInput::Timeout)),
            Happens::Output => drop(checked.drain(1)),
        }
    }
}

/// All that can happen to a process with so long left until its deadline. Time does not matter where
/// there is none.
fn happenings(left: Duration) -> Vec<Happens> {
    let mut times = BTreeSet::from([Duration::ZERO]);
    if !left.is_zero() {
        times.extend([DYING / 2, left - INSTANT, left, left + INSTANT]);
    }
    let inputs = INPUTS.iter().flat_map(|input| times.iter().map(|after| Happens::Input(*after, *input)));
    inputs.chain([Happens::StaleTimeout, Happens::Output]).collect()
}

fn replay(setting: Setting, path: &[Happens]) -> CheckedTakeover {
    let mut checked = CheckedTakeover::new(setting);
    path.iter().for_each(|happens| happens.to(&mut checked));
    checked
}

/// What a search has found.
struct Found {
    /// A shortest way to each state.
    ways: Vec<Vec<Happens>>,
    edges: usize,
    /// The rows of the table that were used, and where.
    cells: BTreeSet<(usize, At)>,
    places: BTreeSet<At>,
}

/// Breadth first, to a fixed point: a state is a stage with what is left of its deadline, what waits to
/// be carried out, and what the laws remember. There are finitely many.
fn explore(setting: Setting) -> Found {
    let mut seen = HashSet::from([CheckedTakeover::new(setting).key()]);
    let mut edge = VecDeque::from([vec![]]);
    let mut found = Found { ways: Vec::new(), edges: 0, cells: BTreeSet::new(), places: BTreeSet::new() };
    while let Some(way) = edge.pop_front() {
        let before = replay(setting, &way);
        found.places.insert(before.at());
        for happens in happenings(before.to_deadline_of_this_age()) {
            let mut checked = replay(setting, &way);
            happens.to(&mut checked);
            found.edges += 1;
            if seen.insert(checked.key()) {
                edge.push_back([&way[..], &[happens]].concat());
            }
            found.cells.extend(checked.cells().last().copied());
            // Carried out to the end, each history leaves nothing untold.
            checked.drain(ALL);
        }
        found.ways.push(way);
    }
    found
}

/// What is checked on each edge between the states holds for histories of any length.
#[test]
fn every_input_in_every_stage_does_what_the_model_does() {
    let mut cells = BTreeSet::new();
    for setting in Setting::ALL {
        let found = explore(setting);
        let longest = found.ways.iter().map(Vec::len).max().unwrap_or(0);
        println!("{setting:?}: {} states, {} edges, the longest way has {longest} steps", found.ways.len(), found.edges);
        let expected = At::ALL.into_iter().filter(|at| setting.has_predecessor() || [At::Alone, At::Serving].contains(at));
        assert!(found.places.iter().copied().eq(expected), "{:?}", found.places);
        cells.extend(found.cells);
    }
    let unused: Vec<_> = TAKEOVER_ROWS
        .iter()
        .enumerate()
        .flat_map(|(index, row)| row.at.iter().map(move |at| (index, *at)))
        .filter(|cell| !cells.contains(cell))
        .map(|(index, at)| (TAKEOVER_ROWS[index].name, at))
        .collect();
    assert!(unused.is_empty(), "each row is used in each of its places: {unused:?}");
}

/// Two states that look alike to the search could still differ inside the machine: from each all pairs
/// of inputs are tried as they are.
#[test]
fn stages_that_look_alike_are_alike() {
    let plain: Vec<_> = INPUTS.into_iter().map(TakeoverStep::plain).collect();
    for setting in [FIRST, SUCCESSOR, PROBATIONER] {
        let found = explore(setting);
        let mut tried = 0;
        for way in &found.ways {
            for first in &plain {
                for second in &plain {
                    let mut checked = replay(setting, way);
                    first.apply(&mut checked);
                    second.apply(&mut checked);
                    tried += 1;
                }
            }
        }
        println!("{setting:?}: {tried} pairs after {} states", found.ways.len());
    }
}

/// Anything at all now and then, and mostly what has an effect and leads on.
fn stumble(random: &mut Random, checked: &mut CheckedTakeover) {
    let bytes = random.next().to_le_bytes();
    let any = TakeoverStep::of_bytes([bytes[0], bytes[1]]);
    let at = checked.at();
    let leads_on: Vec<TakeoverInput> =
        TAKEOVER_ROWS.iter().filter(|row| row.at.contains(&at)).flat_map(|row| row.on.iter().copied()).collect();
    let step = match bytes[2] {
        ..100 if !leads_on.is_empty() => TakeoverStep { drain: any.drain, ..TakeoverStep::plain(random.pick(&leads_on)) },
        ..180 if !leads_on.is_empty() => TakeoverStep { input: random.pick(&leads_on), after: After::Second, ..any },
        _ => TakeoverStep { after: if any.after == After::Eternity { After::Second } else { any.after }, ..any },
    };
    step.apply(checked);
}

#[test]
fn random_walks_do_what_the_model_does() {
    let mut random = Random::seeded();
    let (mut steps, mut lives) = (0, 0);
    while steps < 200_000 {
        let mut checked = CheckedTakeover::new(setting_of_byte(random.next() as u8));
        for _ in 0..random.next() % 40 {
            stumble(&mut random, &mut checked);
            steps += 1;
        }
        checked.drain(ALL);
        lives += 1;
    }
    println!("{steps} steps in {lives} lives");
}
