//! The cells of the machine of the process that is replaced.

use pollflip::internals::machine::{Action, Cause, Limits, Notice, Output, Reply};

use super::layout::{Cell, Effect, Place, table, word};
use pollflip_tests_pure::model::checked::ALL;
use pollflip_tests_pure::model::say::{way_to, way_with_a_state_to};
use pollflip_tests_pure::model::{Checked, ON_PROBATION, On, PLAIN, Room};

const REMEMBERED: &str = "same, remembered";

/// What a lifeline that is closed makes a difference to.
const LISTENED_TO: [Room; 6] = [Room::Waiting, Room::Copying, Room::Giving, Room::Given, Room::Granting, Room::Proving];

const ROOMS: [(Room, &str, &str); 27] = [
    (Room::NotReady, "Closed", "NotReady"),
    (Room::Sole, "Closed", "Sole"),
    (Room::Idle, "Idle", ""),
    (Room::Spawning, "Spawning", ""),
    (Room::Waiting, "AwaitingReady", "NotAsked"),
    (Room::Copying, "AwaitingReady", "Precopy"),
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
    (Room::LettingGo, "Handoff", "LettingGo"),
    (Room::Committed, "Handoff", "Committed"),
    (Room::Killing, "Killing", "ungranted"),
    (Room::KillingGranted, "Killing", "granted"),
    (Room::Undying, "Killing", "ungranted overdue"),
    (Room::UndyingGranted, "Killing", "granted overdue"),
    (Room::Stopping, "Closed", "Stopping"),
    (Room::StoppingUntold, "Closed", "Stopping untold"),
    (Room::Broken, "Closed", "Broken"),
];

fn cells_of(place: usize, way: &[On], cells: &mut Vec<Cell>) {
    let with_either = Checked::after(PLAIN, way).room() == Checked::after(ON_PROBATION, way).room();
    for (input, on) in On::ALL.into_iter().enumerate() {
        if on == On::Predecessor {
            // In every state: the text says so.
            continue;
        }
        let with = effect(ON_PROBATION, way, on);
        let without = if with_either { effect(PLAIN, way, on) } else { with.clone() };
        for cell in Cell::by_setting(place, input, input_name(on), [("no probation", without), ("probation", with)]) {
            let refusal = on == On::Request && cell.effect.then == "same";
            let closing = matches!(on, On::Stop | On::Dropped) && cell.effect.out.is_empty();
            let general = refusal || closing || cell.effect.then == REMEMBERED;
            cells.push(Cell { general, ..cell });
        }
    }
}

/// The table on `State`.
pub fn restart() -> String {
    let mut places = Vec::new();
    let mut cells = Vec::new();
    for (room, state, kind) in ROOMS {
        let lines: &[&str] = match room {
            _ if LISTENED_TO.contains(&room) => &["open", "lost"],
            Room::TellingManaged | Room::Heard => &["no state", "state"],
            _ => &[""],
        };
        for line in lines {
            let closed: &[On] = if *line == "lost" { &[On::LifelineClosed] } else { &[] };
            let way = if *line == "state" { way_with_a_state_to(room) } else { way_to(room) };
            let way = [&way[..], closed].concat();
            cells_of(places.len(), &way, &mut cells);
            places.push(Place { state, kinds: [kind, line] });
        }
    }
    table(&places, cells)
}

/// `None` if it does nothing at all.
fn effect(limits: Limits, way: &[On], on: On) -> Option<Effect> {
    let mut checked = Checked::after(limits, way);
    let (before, inside) = (checked.room(), format!("{:?}", checked.machine()));
    let outputs = match on {
        // It matters where the deadline is near.
        On::Unread => {
            let unread = checked.input(on, checked.attempt());
            checked.step(checked.to_deadline(), unread, ALL)
        }
        _ => checked.meets(on),
    };
    let unchanged = before == checked.room();
    if unchanged && outputs.is_empty() {
        let remembered = inside != format!("{:?}", checked.machine());
        let then = match on {
            On::LifelineClosed => "same, lost",
            On::Unread => "same, put off",
            _ => REMEMBERED,
        };
        return remembered.then(|| Effect { then: then.into(), out: String::new() });
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
        Output::Action(Action::Steer(side)) => format!("Steer({side:?})"),
        Output::Action(Action::Hold(whose)) => format!("Hold({whose:?})"),
        Output::Action(action) => word(action),
        Output::Notice(notice @ (Notice::Restarting | Notice::Broken)) => format!("{notice:?}"),
        Output::Notice(notice) => word(notice),
    }
}

fn input_name(on: On) -> &'static str {
    match on {
        On::Sole => "Sole",
        On::Opened => "Opened",
        On::Predecessor => "Predecessor",
        On::HereAnother => "Here with another pid",
        On::HereItself => "Here",
        On::Request => "Request",
        On::Spawned => "Spawned",
        On::SpawnFailed => "SpawnFailed",
        On::PrecopyRequested => "PrecopyRequested",
        On::PrecopyRoom => "PrecopyRoom",
        On::StateRequested => "StateRequested",
        On::HandoverSent => "HandoverSent",
        On::HandoverFailed => "HandoverFailed",
        On::Refused => "Refused",
        On::Progress => "Progress",
        On::Ready => "Ready",
        On::SteeringFailed => "SteeringFailed",
        On::MarksFreed => "MarksFreed",
        On::Granted => "Granted",
        On::LifelineClosed => "LifelineClosed",
        On::Unread => "Unread",
        On::Garbage => "Garbage",
        On::Dying => "Dying",
        On::Sound => "Sound",
        On::CommitTaken => "CommitTaken",
        On::Exited => "Exited",
        On::Cancel => "Cancel",
        On::Stop => "Stop",
        On::Dropped => "Dropped",
        On::ThreadLost => "ThreadLost",
        On::ManagerAsked => "ManagerAsked",
        On::ManagerTold => "ManagerTold",
        On::BarrierPassed => "BarrierPassed",
        On::GivingUp => "GivingUp",
        On::Timeout => "Timeout",
    }
}
