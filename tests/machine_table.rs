//! The table in the docs of `State` is made from the code: every input is tried in every kind of state, and what is alike is told once.
//!
//! `POLLFLIP_BLESS=1 cargo test --test machine_table` writes it anew.

mod model;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use model::say::*;
use model::{Checked, ON_PROBATION, On, PLAIN, Room};
use pollflip::internals::machine::{Action, Cause, Limits, Notice, Output, Reply};

const BEGIN: &str = "// table:begin\n";
const END: &str = "// table:end\n";
const REMEMBERED: &str = "same, remembered";

/// The longest list in a cell: what is longer becomes two rows.
const LIST: usize = 30;

/// The name of a state, and which of its kinds it is.
struct Place {
    state: &'static str,
    kind: &'static str,
    path: Vec<On>,
}

fn places() -> Vec<Place> {
    let names = [
        (Room::NotReady, "Closed", "NotReady"),
        (Room::Idle, "Idle", ""),
        (Room::Spawning, "Spawning", ""),
        (Room::Waiting, "AwaitingReady", "NotAsked"),
        (Room::Giving, "AwaitingReady", "Open"),
        (Room::Given, "AwaitingReady", "Sent"),
        (Room::Granting, "AwaitingReady", "Granting"),
        (Room::Proving, "Handoff", "Probation"),
        (Room::Checking, "Handoff", "Checking"),
        (Room::Untold, "Committing", "NotTold awaited"),
        (Room::UntoldManaged, "Committing", "NotTold"),
        (Room::Telling, "Committing", "Told awaited"),
        (Room::TellingManaged, "Committing", "Told"),
        (Room::Heard, "Committing", "Taken awaited"),
        (Room::Left, "Committing", "Gone awaited"),
        (Room::Committed, "Handoff", "Committed"),
        (Room::Killing, "Killing", "ungranted"),
        (Room::KillingGranted, "Killing", "granted"),
        (Room::Undying, "Killing", "ungranted overdue"),
        (Room::UndyingGranted, "Killing", "granted overdue"),
        (Room::Stopping, "Closed", "Stopping"),
        (Room::Broken, "Closed", "Broken"),
    ];
    names.map(|(room, state, kind)| Place { state, kind, path: way_to(room) }).into()
}

/// What an input does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Effect {
    then: String,
    out: String,
}

/// `None` if it does nothing at all.
fn effect(limits: Limits, place: &Place, on: On) -> Option<Effect> {
    let mut checked = Checked::after(limits, &place.path);
    let (before, inside) = (checked.room(), format!("{:?}", checked.machine()));
    let outputs = checked.meets(on);
    let unchanged = before == checked.room();
    if unchanged && outputs.is_empty() {
        let remembered = inside != format!("{:?}", checked.machine());
        return remembered.then(|| Effect { then: REMEMBERED.into(), out: String::new() });
    }
    let cause = on.cause(before).map_or("cause", |cause| if matches!(cause, Cause::Protocol(_)) { "Protocol" } else { "cause" });
    let then = match checked.room() {
        _ if unchanged => "same".into(),
        Room::NotReady => "Closed(NotReady)".into(),
        Room::Stopping => "Closed(Stopping)".into(),
        Room::Broken => "Closed(Broken)".into(),
        Room::Waiting => "AwaitingReady(NotAsked)".into(),
        Room::Giving => "AwaitingReady(Open)".into(),
        Room::Given => "AwaitingReady(Sent)".into(),
        Room::Granting => "AwaitingReady(Granting)".into(),
        Room::Proving => "Handoff(Probation)".into(),
        Room::Checking => "Handoff(Checking)".into(),
        Room::Untold => "Committing(NotTold awaited)".into(),
        Room::UntoldManaged => "Committing(NotTold)".into(),
        Room::Telling => "Committing(Told awaited)".into(),
        Room::TellingManaged => "Committing(Told)".into(),
        Room::Heard => "Committing(Taken awaited)".into(),
        Room::Left => "Committing(Gone awaited)".into(),
        Room::Committed => "Handoff(Committed)".into(),
        Room::Killing | Room::KillingGranted => format!("Killing({cause})"),
        Room::Undying | Room::UndyingGranted => "same, overdue".into(),
        room @ (Room::Idle | Room::Spawning) => format!("{room:?}"),
    };
    let out: Vec<String> = outputs.into_iter().map(output_name).collect();
    Some(Effect { then, out: out.join(", ") })
}

fn output_name(output: Output) -> String {
    let word = |debug: String| debug.split(['(', ' ']).next().unwrap_or_default().to_owned();
    match output {
        Output::Action(Action::Reply(_, Reply::Completed(_))) => "Reply(Completed)".into(),
        Output::Action(Action::Reply(_, Reply::Failed(_))) => "Reply(Failed)".into(),
        Output::Action(Action::Reply(_, Reply::Refused(refusal) | Reply::Forbidden(refusal))) => {
            format!("Reply({})", word(format!("{refusal:?}")))
        }
        Output::Action(action) => word(format!("{action:?}")),
        Output::Notice(notice @ (Notice::Restarting | Notice::Broken)) => format!("{notice:?}"),
        Output::Notice(notice) => word(format!("{notice:?}")),
    }
}

fn input_name(on: On) -> &'static str {
    match on {
        On::Opened => "Opened",
        On::HereAnother => "Here with another pid",
        On::HereItself => "Here",
        On::Request => "Request",
        On::Spawned => "Spawned",
        On::SpawnFailed => "SpawnFailed",
        On::StateRequested => "StateRequested",
        On::HandoverSent => "HandoverSent",
        On::HandoverFailed => "HandoverFailed",
        On::Refused => "Refused",
        On::Progress => "Progress",
        On::Ready => "Ready",
        On::Granted => "Granted",
        On::LifelineClosed => "LifelineClosed",
        On::Garbage => "Garbage",
        On::Dying => "Dying",
        On::Sound => "Sound",
        On::CommitTaken => "CommitTaken",
        On::Exited => "Exited",
        On::Cancel => "Cancel",
        On::Stop => "Stop",
        On::ThreadLost => "ThreadLost",
        On::ManagerTold => "ManagerTold",
        On::BarrierPassed => "BarrierPassed",
        On::Timeout => "Timeout",
    }
}

/// A row to be: places and inputs that are alike.
struct Row {
    places: BTreeSet<usize>,
    inputs: Vec<(On, String)>,
    effect: Effect,
}

impl Row {
    /// By states and inputs; what is to be said of many states comes last, by inputs and states.
    fn order(&self, places: &[Place]) -> (Option<On>, usize, On) {
        let first = places[*self.places.first().unwrap()].state;
        let on = self.inputs[0].0;
        let refusal = on == On::Request && self.effect.then == "same";
        let closing = on == On::Stop && self.effect.out.is_empty();
        let general = refusal || closing || self.effect.then == REMEMBERED;
        (general.then_some(on), places.iter().position(|place| place.state == first).unwrap(), on)
    }
}

fn rows(places: &[Place]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |place: usize, input: (On, String), effect: Effect| {
        // What leads nowhere, or says nothing, is told once for all states; the rest once for each.
        let quiet = effect.then.starts_with("same") || effect.out.is_empty();
        let of_this = |row: &Row| row.places.iter().any(|other| places[*other].state == places[place].state);
        match rows.iter_mut().find(|row| row.inputs[0] == input && row.effect == effect && (quiet || of_this(row))) {
            Some(row) => drop(row.places.insert(place)),
            None => rows.push(Row { places: BTreeSet::from([place]), inputs: vec![input], effect }),
        }
    };
    for (index, place) in places.iter().enumerate() {
        let with_either = Checked::after(PLAIN, &place.path).room() == Checked::after(ON_PROBATION, &place.path).room();
        for on in On::ALL {
            let [without, with] = [PLAIN, ON_PROBATION].map(|limits| effect(limits, place, on));
            let settings =
                if with_either && without != with { vec![(without, " (no probation)"), (with, " (probation)")] } else { vec![(with, "")] };
            for (effect, setting) in settings {
                effect.into_iter().for_each(|effect| add(index, (on, format!("{}{setting}", input_name(on))), effect));
            }
        }
    }
    let mut merged: Vec<Row> = Vec::new();
    for row in rows {
        match merged.iter_mut().find(|other| other.places == row.places && other.effect == row.effect) {
            Some(other) => other.inputs.extend(row.inputs),
            None => merged.push(row),
        }
    }
    merged.sort_by_key(|row| row.order(places));
    merged
}

/// The states of a row, each with its kinds where not all of them are meant.
fn place_names(places: &[Place], of: &BTreeSet<usize>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for index in of {
        let state = places[*index].state;
        let all = places.iter().filter(|place| place.state == state).count();
        let meant: Vec<&str> =
            of.iter().map(|other| &places[*other]).filter(|place| place.state == state).map(|place| place.kind).collect();
        let name = if meant.len() == all { state.to_owned() } else { format!("{state}({})", meant.join(", ")) };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Lists of no more than so many characters, as few as will do.
fn lists(items: Vec<String>) -> Vec<String> {
    let mut lists: Vec<String> = Vec::new();
    for item in items {
        match lists.last_mut() {
            Some(last) if last.len() + 2 + item.len() <= LIST => *last += &format!(", {item}"),
            _ => lists.push(item),
        }
    }
    lists
}

fn table() -> String {
    let places = places();
    let mut lines = vec![["in", "input", "then", "out"].map(str::to_owned), ["---"; 4].map(str::to_owned)];
    for Row { places: of, inputs, effect } in rows(&places) {
        let inputs = lists(inputs.into_iter().map(|(_, name)| name).collect());
        for place in lists(place_names(&places, &of)) {
            for input in &inputs {
                lines.push([place.clone(), input.clone(), effect.then.clone(), effect.out.clone()]);
            }
        }
    }
    let widths = [0, 1, 2].map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut table = String::new();
    for [place, input, then, out] in lines {
        let [a, b, c] = widths;
        table += format!("/// | {place:a$} | {input:b$} | {then:c$} | {out} |\n").replace("|  |", "| |").as_str();
    }
    table
}

#[test]
fn the_table_in_the_docs_is_what_the_code_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine/state.rs");
    let source = fs::read_to_string(&file).unwrap();
    let (head, rest) = source.split_once(BEGIN).expect("a line that begins the table");
    let (documented, tail) = rest.split_once(END).expect("a line that ends it");
    let table = table();
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        fs::write(&file, [head, BEGIN, &table, END, tail].concat()).unwrap();
    } else {
        assert_eq!(documented, table, "the table in src/machine/state.rs is out of date: POLLFLIP_BLESS=1 writes it anew");
    }
}
