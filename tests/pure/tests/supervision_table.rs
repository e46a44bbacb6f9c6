//! The table in the docs of `Stage` is made from the code: every fact is tried in every kind of
//! stage, under every kind of rules.
//!
//! `POLLFLIP_BLESS=1 cargo test --test supervision_table` writes it anew.

use std::fs;
use std::time::Duration;

use pollflip_tests_pure::repository;

use nix::libc::{SIGSEGV, SIGTERM, SIGUSR1};
use pollflip::Exit;
use pollflip::internals::machine::supervision::{Deed, Fact, Notification, Policy, Rules, Stage, Strikes, Supervision};
use pollflip_tests_pure::supervision::SECOND;

const BEGIN: &str = "// table:begin\n";
const END: &str = "// table:end\n";

/// Numbers of processes: one that drains, the main one, and others.
const EARLIER: u32 = 1;
const MAIN: u32 = 2;
const STRAY: u32 = 3;

const NOTHING: Notification =
    Notification { main: None, has_heard: false, ready: false, reloading: false, stopping: false, extend: None, absolved: false };

/// Under what an effect is seen, with the word for it.
const SETTINGS: [(&str, Policy, u32, bool); 4] = [
    ("no more", Policy::No, 9, false),
    ("again", Policy::Always, 9, false),
    ("struck out", Policy::Always, 1, false),
    ("told", Policy::Always, 9, true),
];

/// A machine, with the time, that this has happened to.
struct Life {
    machine: Supervision,
    now: Duration,
}

impl Life {
    fn new((_, policy, count, _): (&str, Policy, u32, bool), ready: bool) -> Life {
        let strikes = Strikes { count, within: 1000 * SECOND };
        let rules = Rules { policy, strikes, delay: SECOND, ready: ready.then_some(3 * SECOND) };
        let mut life = Life { machine: Supervision::new(rules), now: Duration::ZERO };
        life.deeds();
        life
    }

    fn meets(&mut self, fact: Fact) -> Vec<Deed> {
        if fact == Fact::Timeout {
            self.now = self.now.max(self.machine.poll_timeout().unwrap_or_default());
        }
        self.machine.handle(self.now, fact);
        self.deeds()
    }

    fn deeds(&mut self) -> Vec<Deed> {
        std::iter::from_fn(|| self.machine.poll_deed()).collect()
    }

    /// A restart has been, whose predecessor drains.
    fn restarted(setting: (&str, Policy, u32, bool)) -> Life {
        let mut life = Life::new(setting, false);
        life.meets(Fact::Started(EARLIER));
        if setting.3 {
            life.meets(Fact::Told { signal: SIGTERM, heard: true });
        }
        life.meets(Fact::Notified(EARLIER, Notification { main: Some(MAIN), ready: true, ..NOTHING }));
        life
    }
}

/// The kinds of stages, each with a way to it where there is one under these rules.
const PLACES: [&str; 11] = [
    "Starting(first)",
    "Starting(later)",
    "Starting(again)",
    "Running",
    "Running(not ready)",
    "Running(reloading)",
    "Between",
    "Clearing(told)",
    "Clearing(killed)",
    "Stopping",
    "Over",
];

fn life(place: &str, setting: (&str, Policy, u32, bool)) -> Option<Life> {
    let crash = Fact::Ended(MAIN, Exit::Signal(SIGSEGV));
    let mut life = Life::restarted(setting);
    match place {
        "Starting(first)" => life = Life::new(setting, false),
        "Starting(later)" | "Starting(again)" | "Stopping" | "Over" => {
            life.meets(crash);
            life.meets(Fact::Alone);
            if place == "Starting(again)" {
                life.meets(Fact::Timeout);
            }
            if place == "Over" {
                life.meets(Fact::Ended(EARLIER, Exit::Code(0)));
                life.meets(Fact::Alone);
            }
        }
        "Running" => {}
        "Running(not ready)" => {
            life = Life::new(setting, true);
            life.meets(Fact::Started(MAIN));
            if setting.3 {
                life.meets(Fact::Told { signal: SIGTERM, heard: true });
            }
        }
        _ => {
            if ["Running(reloading)", "Between"].contains(&place) {
                life.meets(Fact::Notified(MAIN, Notification { reloading: true, ..NOTHING }));
            }
            if place != "Running(reloading)" {
                life.meets(crash);
            }
            if place == "Clearing(killed)" {
                life.meets(Fact::Timeout);
            }
        }
    }
    (name(&life.machine, place) == place).then_some(life)
}

/// What a stage is called; which of the two starts it is, and which of the two clearings, it does
/// not say itself.
fn name(machine: &Supervision, place: &str) -> String {
    match machine.stage() {
        Stage::Starting { due: Some(_) } => "Starting(later)".into(),
        Stage::Starting { due: None } if machine.status().is_none() => "Starting(first)".into(),
        Stage::Starting { due: None } => "Starting(again)".into(),
        Stage::Running { reloading: Some(_), .. } => "Running(reloading)".into(),
        Stage::Running { ready_by: Some(_), .. } => "Running(not ready)".into(),
        Stage::Running { .. } => "Running".into(),
        Stage::Between { .. } => "Between".into(),
        Stage::Clearing { killed: false, .. } => "Clearing(told)".into(),
        Stage::Clearing { killed: true, .. } => "Clearing(killed)".into(),
        Stage::Stopping if place == "Over" => "Over".into(),
        stage => format!("{stage:?}"),
    }
}

fn facts() -> Vec<(&'static str, Fact)> {
    let from_main = |notification| Fact::Notified(MAIN, notification);
    vec![
        ("Started", Fact::Started(MAIN)),
        ("StartFailed", Fact::StartFailed),
        ("MAINPID of another", Fact::Notified(STRAY, Notification { main: Some(STRAY), ready: true, ..NOTHING })),
        (
            "MAINPID of one that has heard",
            Fact::Notified(STRAY, Notification { main: Some(STRAY), has_heard: true, ready: true, ..NOTHING }),
        ),
        ("READY", from_main(Notification { ready: true, ..NOTHING })),
        ("RELOADING", from_main(Notification { reloading: true, ..NOTHING })),
        ("STOPPING", from_main(Notification { stopping: true, ..NOTHING })),
        ("EXTEND_TIMEOUT_USEC", from_main(Notification { extend: Some(1000 * SECOND), ..NOTHING })),
        ("ABSOLVED", from_main(Notification { absolved: true, ..NOTHING })),
        ("anything of an earlier one", Fact::Notified(EARLIER, Notification { main: Some(EARLIER), ready: true, ..NOTHING })),
        ("Ended, the main one", Fact::Ended(MAIN, Exit::Signal(SIGSEGV))),
        ("Ended, the last earlier one", Fact::Ended(EARLIER, Exit::Code(0))),
        ("Alone", Fact::Alone),
        ("Told", Fact::Told { signal: SIGTERM, heard: false }),
        ("Told, and it has heard", Fact::Told { signal: SIGTERM, heard: true }),
        ("Signalled", Fact::Signalled(SIGUSR1)),
        ("Timeout", Fact::Timeout),
    ]
}

fn deed(deed: Deed) -> String {
    let who = |pid| match pid {
        EARLIER => "earlier",
        MAIN => "main",
        _ => "it",
    };
    match deed {
        Deed::Start => "Start".into(),
        Deed::Signal(pid, nix::libc::SIGKILL) => format!("Signal({}, KILL)", who(pid)),
        Deed::Signal(pid, _) => format!("Signal({})", who(pid)),
        Deed::SignalStrays(nix::libc::SIGKILL) => "SignalStrays(KILL)".into(),
        Deed::SignalStrays(_) => "SignalStrays".into(),
        Deed::TellStrays(_) => "TellStrays".into(),
        Deed::EmptyStore => "EmptyStore".into(),
        Deed::Tell(remark) => format!("{remark:?}").split('(').next().unwrap_or_default().into(),
    }
}

/// What a fact does; `None`: nothing at all.
fn effect(place: &str, fact: Fact, setting: (&str, Policy, u32, bool)) -> Option<Option<(String, String)>> {
    let mut life = life(place, setting)?;
    let (before, inside) = (name(&life.machine, place), format!("{:?}", life.machine));
    let deeds = life.meets(fact);
    if deeds.is_empty() && inside == format!("{:?}", life.machine) {
        return Some(None);
    }
    let after = name(&life.machine, "");
    let then = match deeds.is_empty() {
        _ if after != before => after,
        true => "same, remembered".into(),
        false => "same".into(),
    };
    Some(Some((then, deeds.into_iter().map(deed).collect::<Vec<_>>().join(", "))))
}

/// Place, fact, what then, and what comes out.
fn rows() -> Vec<[String; 4]> {
    let mut rows: Vec<([String; 2], Vec<String>, Vec<String>)> = Vec::new();
    for place in PLACES {
        for (fact_name, fact) in facts() {
            // There no restart has been.
            if place == "Running(not ready)" && fact_name.contains("earlier") {
                continue;
            }
            let effects: Vec<_> =
                SETTINGS.iter().filter_map(|setting| effect(place, fact, *setting).map(|effect| (setting.0, effect))).collect();
            let mut distinct: Vec<_> = effects.iter().map(|(_, effect)| effect.clone()).collect();
            distinct.sort();
            distinct.dedup();
            for effect in distinct.iter().flatten() {
                let under: Vec<_> =
                    effects.iter().filter(|(_, other)| other.as_ref() == Some(effect)).map(|(setting, _)| *setting).collect();
                let under = under.join(", ").replace("no more, again, struck out", "not told");
                let input = if distinct.len() == 1 { fact_name.to_owned() } else { format!("{fact_name} ({under})") };
                let result = [effect.0.clone(), effect.1.clone()];
                match rows.iter_mut().find(|(other, _, inputs)| *other == result && *inputs == [input.clone()]) {
                    Some((_, places, _)) => places.push(place.into()),
                    None => rows.push((result, vec![place.into()], vec![input])),
                }
            }
        }
    }
    let mut lines = Vec::new();
    for ([then, out], places, inputs) in rows {
        for places in lists(places) {
            lines.push([places, inputs.join(", "), then.clone(), out.clone()]);
        }
    }
    lines
}

/// The longest list in a cell: what is longer becomes two rows.
const LIST: usize = 38;

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
    let mut lines = vec![["in", "fact", "then", "deeds"].map(str::to_owned), ["---"; 4].map(str::to_owned)];
    lines.extend(rows());
    let widths = [0, 1, 2].map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut table = String::new();
    for [place, fact, then, deeds] in lines {
        let [a, b, c] = widths;
        table += format!("/// | {place:a$} | {fact:b$} | {then:c$} | {deeds} |\n").replace("|  |", "| |").as_str();
    }
    table
}

#[test]
fn the_table_in_the_docs_is_what_the_code_does() {
    let file = repository().join("src/machine/supervision/stage.rs");
    let source = fs::read_to_string(&file).unwrap();
    let (head, rest) = source.split_once(BEGIN).expect("a line that begins the table");
    let (documented, tail) = rest.split_once(END).expect("a line that ends it");
    let table = table();
    if std::env::var_os("POLLFLIP_BLESS").is_some() {
        fs::write(&file, [head, BEGIN, &table, END, tail].concat()).unwrap();
    } else {
        assert_eq!(documented, table, "the table in {} is out of date: POLLFLIP_BLESS=1 writes it anew", file.display());
    }
}

#[test]
fn every_stage_is_in_the_table() {
    for place in PLACES {
        assert!(SETTINGS.iter().any(|setting| life(place, *setting).is_some()), "no way leads to {place}");
    }
}
