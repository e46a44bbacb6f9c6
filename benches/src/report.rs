//! Rows to a table that is Markdown and lines up, or to JSON, each when it is there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde::Serialize;
use serde_json::json;

use crate::plan::{Peer, Plan};

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Seconds,
    Bytes,
    Count,
}

/// One thing measured, for each peer that can do it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Stable, for those who look it up.
    pub key: String,
    pub what: String,
    pub unit: Unit,
    pub values: BTreeMap<Peer, f64>,
}

impl Row {
    pub fn new(key: impl Into<String>, what: impl Into<String>, unit: Unit) -> Row {
        Row { key: key.into(), what: what.into(), unit, values: BTreeMap::new() }
    }

    pub fn with(mut self, peer: Peer, value: f64) -> Row {
        self.values.insert(peer, value);
        self
    }

    pub fn get(&self, peer: Peer) -> Option<f64> {
        self.values.get(&peer).copied().filter(|value| value.is_finite())
    }
}

/// A line of a picture: its name, and points.
pub type Series = (String, Vec<(f64, f64)>);

/// How the rows are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Markdown that lines up.
    Table,
    /// One object a line.
    Json,
}

/// All that was measured. Each row is printed when it comes, so that a run that is stopped has shown what it has.
#[derive(Debug)]
pub struct Report {
    form: Form,
    rows: Vec<Row>,
    notes: Vec<String>,
    /// For the pictures.
    pub series: Vec<Series>,
}

/// The width of the first column, and of each of the others.
const WIDTHS: [usize; 8] = [67, 9, 9, 8, 9, 8, 9, 8];

impl Report {
    /// An empty one; its head is printed.
    pub fn new(plan: &Plan, form: Form) -> Report {
        match form {
            Form::Table => {
                println!("{}{}\n", machine(), if plan.quick { "; --quick, not for quoting" } else { "" });
                line(["", "limit", "pollflip", "to limit", "shellflip", "to ours", "ecdysis", "to ours"].map(str::to_owned));
                let rules = WIDTHS.map(|width| "-".repeat(width));
                println!("| {} | {}: |", rules[0], rules[1..].iter().map(|rule| &rule[1..]).collect::<Vec<_>>().join(": | "));
            }
            Form::Json => println!("{}", json!({ "quick": plan.quick, "machine": machine() })),
        }
        let mut report = Report { form, rows: Vec::new(), notes: Vec::new(), series: Vec::new() };
        for peer in Peer::ALL.into_iter().filter(|peer| !peer.is_built()) {
            report.note(format!("{} is left out: this program was built without it", peer.name()));
        }
        report
    }

    /// A row more.
    pub fn add(&mut self, row: Row) {
        match self.form {
            Form::Table => line(cells(&row)),
            Form::Json => println!("{}", json!(row)),
        }
        self.rows.push(row);
    }

    pub fn add_all(&mut self, rows: impl IntoIterator<Item = Row>) {
        rows.into_iter().for_each(|row| self.add(row));
    }

    /// What the reader of the rows has to know. It stands below them, and is told on standard error at once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        eprintln!("  note: {text}");
        self.notes.push(text);
    }

    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == key)
    }

    /// What stands below the rows.
    pub fn finish(&self, bars: &[String]) {
        if self.form == Form::Json {
            println!("{}", json!({ "bars": bars, "notes": self.notes }));
            return;
        }
        for (title, lines) in [("Bars", bars), ("Notes", &self.notes)] {
            if !lines.is_empty() {
                println!("\n{title}:");
                lines.iter().for_each(|line| println!("- {line}"));
            }
        }
    }
}

/// What stands in a row: the figures, and how many times as much each is.
fn cells(row: &Row) -> [String; 8] {
    let value = |peer| row.get(peer).map_or_else(|| "–".into(), |value| shown(value, row.unit));
    let ratio = |of: Peer, to: Peer| match (row.get(of), row.get(to)) {
        (Some(of), Some(to)) if of > 0.0 && to > 0.0 => format!("{}×", significant(of / to)),
        _ => String::new(),
    };
    [
        row.what.clone(),
        value(Peer::Limit),
        value(Peer::Ours),
        ratio(Peer::Ours, Peer::Limit),
        value(Peer::Shellflip),
        ratio(Peer::Shellflip, Peer::Ours),
        value(Peer::Ecdysis),
        ratio(Peer::Ecdysis, Peer::Ours),
    ]
}

/// A line of the table. Standard output that is a pipe or a file gets each line at once, too.
fn line(cells: [String; 8]) {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
    }
    println!("{text}|");
}

/// A number for people.
pub fn shown(value: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (factor, name) = steps.iter().find(|(factor, _)| value.abs() >= *factor).or(steps.last()).copied().unwrap_or((1.0, ""));
        format!("{} {name}", significant(value / factor))
    };
    match unit {
        Unit::Seconds => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]),
        Unit::Bytes => scaled(&[(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")]),
        Unit::Count if value.fract() == 0.0 => format!("{value}"),
        Unit::Count => significant(value),
    }
}

/// Three digits that count.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The machine, and how busy it was before.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = crate::proc::memory_total() as f64;
    let kernel = read("/proc/sys/kernel/osrelease");
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let huge = huge.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    format!("{cores} cores, {}, Linux {}, huge pages: {huge}, load before: {load}", shown(memory, Unit::Bytes), kernel.trim())
}
