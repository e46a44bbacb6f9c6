//! The cells of the machine of the process that takes over.

use pollflip::internals::machine::{Inbound, TakeoverInput, TakeoverOutput};

use super::layout::{Cell, Effect, Place, table, word};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::takeover::say::*;
use pollflip_tests_pure::model::takeover::{At, CheckedTakeover, Contact, INPUTS, Setting, StageView};

/// A kind of stage: its name, its marks, and where that is. With each of its states it does the same.
struct Kind {
    stage: &'static str,
    marks: [&'static str; 2],
    at: At,
    states: Vec<Inbound>,
    contact: Contact,
    ended: bool,
}

fn kinds() -> Vec<Kind> {
    let kind = |stage, marks, at| Kind { stage, marks, at, states: vec![Inbound::NotAsked], contact: Contact::Open, ended: false };
    let lines = [(Contact::Open, "open"), (Contact::Lost, "lost"), (Contact::Silent, "silent")];
    let mut kinds = Vec::new();
    for state in
        [Inbound::NotAsked, Inbound::Precopy, Inbound::Precopied, Inbound::Asked, Inbound::Arrived, Inbound::Taken, Inbound::Unusable]
    {
        for (contact, line) in &lines[..2] {
            kinds.push(Kind { states: vec![state], contact: *contact, ..kind("Starting", [state_name(state), line], At::Starting) });
        }
    }
    kinds.extend(lines[..2].iter().map(|(contact, line)| Kind { contact: *contact, ..kind("ReadySent", [line, ""], At::ReadySent) }));
    kinds.extend(lines.iter().map(|(contact, line)| Kind { contact: *contact, ..kind("Granted", [line, ""], At::Granted) }));
    for (ended, mark) in [(false, "living"), (true, "ended")] {
        kinds.push(Kind { ended, ..kind("Final", [mark, ""], At::Final) });
    }
    let before = vec![Inbound::NotAsked, Inbound::Taken, Inbound::Unusable];
    kinds.push(Kind { states: before, ..kind("Alone", ["starting", ""], At::Alone) });
    kinds.push(Kind { states: vec![Inbound::Arrived], ..kind("Alone", ["Arrived", ""], At::Alone) });
    kinds.push(kind("Alone", ["ready", ""], At::Serving));
    for (ended, mark) in [(false, "living"), (true, "ended")] {
        kinds.push(Kind { ended, ..kind("GivenUp", [mark, ""], At::GivenUp) });
    }
    kinds
}

fn state_name(state: Inbound) -> &'static str {
    match state {
        Inbound::NotAsked => "NotAsked",
        Inbound::Precopy => "Precopy",
        Inbound::Precopied => "Precopied",
        Inbound::Asked => "Asked",
        Inbound::Arrived => "Arrived",
        Inbound::Taken => "Taken",
        Inbound::Unusable => "Unusable",
    }
}

/// The table on `Stage`.
pub fn takeover() -> String {
    let kinds = kinds();
    let mut cells = Vec::new();
    for (place, kind) in kinds.iter().enumerate() {
        for (index, input) in INPUTS.into_iter().enumerate() {
            let of = |setting: Setting| {
                let states = kind.states.iter().take(if setting.has_predecessor() { usize::MAX } else { 1 });
                let effects: Vec<_> = states.map(|state| effect(setting, kind, *state, input)).collect();
                assert!(effects.iter().all(|effect| *effect == effects[0]), "{input:?} in {}{:?}: {effects:?}", kind.stage, kind.marks);
                effects[0].clone()
            };
            // A first generation is alone from the start; one without a probation is never silent.
            let settings = match (kind.at, kind.contact) {
                (At::Alone, _) if kind.states.contains(&Inbound::Arrived) => ["", ""].map(|name| (name, of(SUCCESSOR))),
                (At::Alone | At::Serving, _) => [("first", of(FIRST)), ("successor", of(SUCCESSOR))],
                (_, Contact::Silent) => ["", ""].map(|name| (name, of(PROBATIONER))),
                _ => [("no probation", of(SUCCESSOR)), ("probation", of(PROBATIONER))],
            };
            cells.extend(Cell::by_setting(place, index, &input_name(input), settings));
        }
    }
    let places: Vec<_> = kinds.iter().map(|kind| Place { state: kind.stage, kinds: kind.marks }).collect();
    table(&places, cells)
}

fn input_name(input: TakeoverInput) -> String {
    match input {
        TakeoverInput::LineClosed { by_us: true } => "LineClosed by us".into(),
        input => word(input),
    }
}

/// `None` if it does nothing at all.
fn effect(setting: Setting, kind: &Kind, state: Inbound, input: TakeoverInput) -> Option<Effect> {
    let mut checked = CheckedTakeover::after(setting, &way_to(setting, kind.at, state, kind.contact, kind.ended));
    let before = StageView::from(checked.stage());
    // At the last moment: what postpones a deadline does it visibly.
    checked.wait(checked.to_deadline());
    let prompts = checked.takes(checked.now(), input);
    let outputs = checked.drain(ALL);
    let after = StageView::from(checked.stage());
    if after == before && prompts.is_empty() && outputs.is_empty() {
        return None;
    }
    let prompts = prompts.into_iter().map(word);
    let out: Vec<_> = prompts.chain(outputs.into_iter().map(output_name)).collect();
    let waits = checked.to_deadline().as_secs();
    Some(Effect { then: then(before, after, waits), out: out.join(", ") })
}

/// Where it leads; a deadline that is set anew comes in so many seconds.
fn then(before: StageView, after: StageView, waits: u64) -> String {
    let since = StageView { until: after.until, ..before };
    if after == before {
        "same".into()
    } else if after == since {
        format!("same, due in {waits} s")
    } else if after == (StageView { contact: after.contact, ..since }) {
        match after.contact {
            Some(Contact::Lost) => format!("same, lost ({waits} s)"),
            _ => "same, silent".into(),
        }
    } else if after == (StageView { ended: after.ended, ..since }) {
        "same, ended".into()
    } else {
        match (after.at, after.state) {
            (At::Starting, Some(state)) => format!("Starting({})", state_name(state)),
            (At::Final, _) if after.ended == Some(true) => "Final(ended)".into(),
            (At::Alone, Some(Inbound::Arrived)) => "Alone(Arrived)".into(),
            (At::Alone, _) => "Alone(starting)".into(),
            (At::Serving, _) => "Alone(ready)".into(),
            (at, _) => format!("{at:?}"),
        }
    }
}

fn output_name(output: TakeoverOutput) -> String {
    match output {
        TakeoverOutput::TakeService { name_main_pid: true } => "TakeService(PID)".into(),
        TakeoverOutput::Notice(notice) => word(notice),
        output => word(output),
    }
}
