//! The cells of the machine of the process that is replaced.

use pollflip::internals::machine::{Action, Cause, Limits, Notice, Output, Reply};

use super::layout::{Cell, Effect, Place, table, word};
use crate::model::say::way_to;
use crate::model::{Checked, ON_PROBATION, On, PLAIN, Room};

const REMEMBERED: &str = "same, remembered";

const ROOMS: [(Room, &str, &str); 23] = [
    (Room::NotReady, "Closed", "NotReady"),
    (Room::Idle, "Idle", ""),
    (Room::Spawning, "Spawning", ""),
    (Room::Waiting, "AwaitingReady", "NotAsked"),
    (Room::Giving, "AwaitingReady", "Open"),
    (Room::Given, "AwaitingReady", "Sent"),
    (Room::Granting, "AwaitingReady", "Granting"),
    (Room::Proving, "Handoff", "Probation"),
    (Room::Checking, "Handoff", "Checking"),
    (Room::Settled, "Committing", "NotTold unasked"),
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

/// The table on `State`.
pub fn restart() -> String {
    let places = ROOMS.map(|(_, state, kind)| Place { state, kinds: [kind, ""] });
    let mut cells = Vec::new();
    for (place, (room, ..)) in ROOMS.iter().enumerate() {
        let way = way_to(*room);
        let with_either = Checked::after(PLAIN, &way).room() == Checked::after(ON_PROBATION, &way).room();
        for (input, on) in On::ALL.into_iter().enumerate() {
            let with = effect(ON_PROBATION, &way, on);
            let without = if with_either { effect(PLAIN, &way, on) } else { with.clone() };
            for cell in Cell::by_setting(place, input, input_name(on), [("no probation", without), ("probation", with)]) {
                let refusal = on == On::Request && cell.effect.then == "same";
                let closing = on == On::Stop && cell.effect.out.is_empty();
                let general = refusal || closing || cell.effect.then == REMEMBERED;
                cells.push(Cell { general, ..cell });
            }
        }
    }
    table(&places, cells)
}

/// `None` if it does nothing at all.
fn effect(limits: Limits, way: &[On], on: On) -> Option<Effect> {
    let mut checked = Checked::after(limits, way);
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
        Room::Killing | Room::KillingGranted => format!("Killing({cause})"),
        Room::Undying | Room::UndyingGranted => "same, overdue".into(),
        room => match ROOMS.iter().find(|(other, ..)| *other == room) {
            Some((_, state, kind)) if !kind.is_empty() => format!("{state}({kind})"),
            _ => format!("{room:?}"),
        },
    };
    let out: Vec<String> = outputs.into_iter().map(output_name).collect();
    Some(Effect { then, out: out.join(", ") })
}

fn output_name(output: Output) -> String {
    match output {
        Output::Action(Action::Reply(_, Reply::Completed(_))) => "Reply(Completed)".into(),
        Output::Action(Action::Reply(_, Reply::Failed(_))) => "Reply(Failed)".into(),
        Output::Action(Action::Reply(_, Reply::Refused(refusal) | Reply::Forbidden(refusal))) => format!("Reply({})", word(refusal)),
        Output::Action(action) => word(action),
        Output::Notice(notice @ (Notice::Restarting | Notice::Broken)) => format!("{notice:?}"),
        Output::Notice(notice) => word(notice),
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
        On::ManagerAsked => "ManagerAsked",
        On::ManagerTold => "ManagerTold",
        On::BarrierPassed => "BarrierPassed",
        On::GivingUp => "GivingUp",
        On::Timeout => "Timeout",
    }
}
