//! Rows to a table that is Markdown and lines up, or to JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use serde::Serialize;

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

/// What a measurement brings.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rows: Vec<Row>,
    /// What the reader of the rows has to know.
    pub notes: Vec<String>,
    pub series: Vec<Series>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    quick: bool,
    machine: String,
    pub rows: Vec<Row>,
    pub bars: Vec<String>,
    notes: Vec<String>,
    #[serde(skip)]
    pub series: Vec<Series>,
}

impl Report {
    pub fn new(plan: &Plan) -> Report {
        let mut notes = Vec::new();
        for peer in Peer::ALL.into_iter().filter(|peer| !peer.is_built()) {
            notes.push(format!("{} is left out: this program was built without it", peer.name()));
        }
        Report { quick: plan.quick, machine: machine(), rows: Vec::new(), bars: Vec::new(), notes, series: Vec::new() }
    }

    pub fn add(&mut self, outcome: Outcome) {
        self.rows.extend(outcome.rows);
        self.notes.extend(outcome.notes);
        self.series.extend(outcome.series);
    }

    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == key)
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|error| format!("{error}\n"), |text| text + "\n")
    }

    pub fn table(&self) -> String {
        let mut cells = vec![["", "limit", "pollflip", "to limit", "shellflip", "to ours", "ecdysis", "to ours"].map(str::to_owned)];
        for row in &self.rows {
            let value = |peer| row.get(peer).map_or_else(|| "–".into(), |value| shown(value, row.unit));
            let ratio = |of: Peer, to: Peer| match (row.get(of), row.get(to)) {
                (Some(of), Some(to)) if of > 0.0 && to > 0.0 => format!("{}×", significant(of / to)),
                _ => String::new(),
            };
            cells.push([
                row.what.clone(),
                value(Peer::Limit),
                value(Peer::Ours),
                ratio(Peer::Ours, Peer::Limit),
                value(Peer::Shellflip),
                ratio(Peer::Shellflip, Peer::Ours),
                value(Peer::Ecdysis),
                ratio(Peer::Ecdysis, Peer::Ours),
            ]);
        }
        let widths: Vec<usize> = (0..8).map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        let mut text = format!("{}{}\n\n", self.machine, if self.quick { "; --quick, not for quoting" } else { "" });
        for (number, row) in cells.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let _ = write!(text, "| {}{} ", "-".repeat(width - usize::from(column > 0)), if column > 0 { ":" } else { "" });
                }
                text.push_str("|\n");
            }
        }
        for (title, lines) in [("Bars", &self.bars), ("Notes", &self.notes)] {
            if !lines.is_empty() {
                let _ = write!(text, "\n{title}:\n");
                for line in lines {
                    let _ = writeln!(text, "- {line}");
                }
            }
        }
        text
    }
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
