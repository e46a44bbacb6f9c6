//! Cells to rows, and rows to text.

use std::collections::BTreeSet;
use std::fs;

use pollflip_tests_pure::repository;

/// The longest list in a cell: what is longer becomes two rows.
const LIST: usize = 30;
/// The longest name of a place, likewise.
const NAME: usize = 35;

/// The name of a state, and which of its kinds it is, by one or two marks; an empty one is none.
pub struct Place {
    pub state: &'static str,
    pub kinds: [&'static str; 2],
}

/// What an input does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub then: String,
    pub out: String,
}

/// What one input does in one place; an input that does nothing has no cell.
pub struct Cell {
    pub place: usize,
    /// Inputs stand in the order of their numbers.
    pub input: usize,
    pub name: String,
    pub effect: Effect,
    /// The row holds for many states, and comes last.
    pub general: bool,
}

impl Cell {
    /// One for each setting that makes a difference, by the name of it; none where nothing happens.
    pub fn by_setting(place: usize, input: usize, name: &str, settings: [(&str, Option<Effect>); 2]) -> Vec<Cell> {
        let [(_, one), (_, other)] = &settings;
        let alike = one == other;
        let told = settings.into_iter().take(if alike { 1 } else { 2 });
        let cell = |(setting, effect): (&str, Option<Effect>)| {
            let name = if alike { name.to_owned() } else { format!("{name} ({setting})") };
            effect.map(|effect| Cell { place, input, name, effect, general: false })
        };
        told.filter_map(cell).collect()
    }
}

/// A row to be: places and inputs that are alike.
struct Row {
    places: BTreeSet<usize>,
    inputs: Vec<(usize, String)>,
    effect: Effect,
    general: bool,
}

impl Row {
    /// By states and inputs; general rows by inputs and states.
    fn order(&self, places: &[Place]) -> (Option<usize>, usize, usize) {
        let first = self.places.first().map_or("", |place| places[*place].state);
        let input = self.inputs[0].0;
        (self.general.then_some(input), places.iter().position(|place| place.state == first).unwrap_or(0), input)
    }
}

fn rows(places: &[Place], cells: Vec<Cell>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for Cell { place, input, name, effect, general } in cells {
        // What leads nowhere, or says nothing, is told once for all states; the rest once for each.
        let quiet = effect.then.starts_with("same") || effect.out.is_empty();
        let of_this = |row: &Row| row.places.iter().any(|other| places[*other].state == places[place].state);
        let input = (input, name);
        match rows.iter_mut().find(|row| row.inputs[0] == input && row.effect == effect && (quiet || of_this(row))) {
            Some(row) => drop(row.places.insert(place)),
            None => rows.push(Row { places: BTreeSet::from([place]), inputs: vec![input], effect, general }),
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
        let all: Vec<_> = (0..places.len()).filter(|other| places[*other].state == state).collect();
        // By the first mark, with the second ones that go with it.
        let mut groups: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
        let marks = |first: &str, of: &mut dyn Iterator<Item = &usize>| -> Vec<&str> {
            of.filter(|place| all.contains(place) && places[**place].kinds[0] == first).map(|place| places[*place].kinds[1]).collect()
        };
        let firsts = distinct(all.iter().map(|place| places[*place].kinds[0]));
        for first in &firsts {
            let meant = marks(first, &mut of.iter());
            match groups.iter_mut().find(|(_, seconds)| *seconds == meant) {
                _ if meant.is_empty() => {}
                Some((group, _)) => group.push(first),
                None => groups.push((vec![first], meant)),
            }
        }
        for (group, seconds) in groups {
            let every_first = group.len() == firsts.len();
            let every_second = group.iter().all(|first| marks(first, &mut all.iter()) == seconds);
            let seconds = if every_second { vec![] } else { seconds };
            let named = |group: &[&str]| match [group, &seconds].concat() {
                kinds if kinds.is_empty() => state.to_owned(),
                kinds => format!("{state}({})", kinds.join(", ")),
            };
            let mut rest = if every_first { &[][..] } else { &group };
            loop {
                let fits = (1..=rest.len()).rev().find(|count| named(&rest[..*count]).len() <= NAME).unwrap_or(rest.len().min(1));
                let name = named(&rest[..fits]);
                rest = &rest[fits..];
                if !names.contains(&name) {
                    names.push(name);
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
    }
    names
}

fn distinct<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    items.for_each(|item| {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    });
    distinct
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

/// The table, as lines of documentation.
pub fn table(places: &[Place], cells: Vec<Cell>) -> String {
    let mut lines = vec![["in", "input", "then", "out"].map(str::to_owned), ["---"; 4].map(str::to_owned)];
    for Row { places: of, inputs, effect, .. } in rows(places, cells) {
        let inputs = lists(inputs.into_iter().map(|(_, name)| name).collect());
        for place in lists(place_names(places, &of)) {
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

/// The first word of what `Debug` says.
pub fn word(thing: impl std::fmt::Debug) -> String {
    format!("{thing:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// Compares the table with what the file has between the marks; `POLLFLIP_BLESS=1` writes it anew.
pub fn check(file: &str, mark: &str, table: &str) {
    let path = repository().join(file);
    let source = fs::read_to_string(&path).unwrap();
    let [begin, end] = ["begin", "end"].map(|which| format!("// {mark}:{which}\n"));
    let (head, rest) = source.split_once(&begin).expect("a line that begins the table");
    let (documented, tail) = rest.split_once(&end).expect("a line that ends it");
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        fs::write(&path, [head, &begin, table, &end, tail].concat()).unwrap();
    } else {
        assert_eq!(documented, table, "the table in {file} is out of date: POLLFLIP_BLESS=1 writes it anew");
    }
}
