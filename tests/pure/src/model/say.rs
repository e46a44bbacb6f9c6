//! Words to write tests in.

use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{Action, Attempt, Cause, Notice, Output, Reply, Side, Ticket, Whose};

use super::{Checked, On, PLAIN, Room};

pub const IDLE: &[On] = &[On::Opened];
pub const SPAWNING: &[On] = &[On::Opened, On::Request];
pub const WAITING: &[On] = &[On::Opened, On::Request, On::Spawned];
pub const COPYING: &[On] = &[On::Opened, On::Request, On::Spawned, On::PrecopyRequested];
pub const GIVING: &[On] = &[On::Opened, On::Request, On::Spawned, On::StateRequested];
pub const GIVEN: &[On] = &[On::Opened, On::Request, On::Spawned, On::StateRequested, On::HandoverSent];
pub const GRANTING: &[On] = &[On::Opened, On::Request, On::Spawned, On::Ready];
pub const GRANTED: &[On] = &[On::Opened, On::Request, On::Spawned, On::Ready, On::Granted];
/// With or without a probation.
const FINAL: &[On] = &[On::Stop, On::Sound];
const FINALLY: &[On] = &[On::Opened, On::Request, On::Spawned, On::Ready, On::Granted, On::Stop, On::Sound];
pub const COMMITTED: &[On] = &[
    On::Opened,
    On::Request,
    On::Spawned,
    On::Ready,
    On::Granted,
    On::Stop,
    On::Sound,
    On::ManagerAsked,
    On::ManagerTold,
    On::BarrierPassed,
    On::CommitTaken,
];
pub const LETTING_GO: &[On] = &[
    On::Opened,
    On::Request,
    On::Spawned,
    On::StateRequested,
    On::HandoverSent,
    On::Ready,
    On::Granted,
    On::Stop,
    On::Sound,
    On::ManagerAsked,
    On::ManagerTold,
    On::BarrierPassed,
    On::CommitTaken,
];
pub const KILLING: &[On] = &[On::Opened, On::Request, On::Spawned, On::Cancel];
pub const KILLING_GRANTED: &[On] = &[On::Opened, On::Request, On::Spawned, On::Ready, On::Granted, On::Dying];

/// How a room is reached; those after a grant that can be taken back only with probation.
pub fn way_to(room: Room) -> Vec<On> {
    let (way, last): (&[On], &[On]) = match room {
        Room::NotReady => (&[], &[]),
        Room::Sole => (&[On::Sole], &[]),
        Room::Stopping => (IDLE, &[On::Stop]),
        Room::StoppingUntold => (&[On::Stop], &[]),
        Room::Broken => (IDLE, &[On::ThreadLost]),
        Room::Idle => (IDLE, &[]),
        Room::Spawning => (SPAWNING, &[]),
        Room::Waiting => (WAITING, &[]),
        Room::Copying => (COPYING, &[]),
        Room::Giving => (GIVING, &[]),
        Room::Given => (GIVEN, &[]),
        Room::Granting => (GRANTING, &[]),
        Room::Proving => (GRANTED, &[]),
        Room::Checking => (GRANTED, &[On::Timeout]),
        Room::Settled => (GRANTED, FINAL),
        Room::Untold => (FINALLY, &[On::ManagerAsked]),
        Room::UntoldManaged => (FINALLY, &[On::ManagerAsked, On::BarrierPassed]),
        Room::Telling => (FINALLY, &[On::ManagerAsked, On::ManagerTold]),
        Room::TellingManaged => (FINALLY, &[On::ManagerAsked, On::ManagerTold, On::BarrierPassed]),
        Room::Heard => (FINALLY, &[On::ManagerAsked, On::ManagerTold, On::CommitTaken]),
        Room::Left => (FINALLY, &[On::ManagerAsked, On::Exited]),
        Room::LettingGo => (LETTING_GO, &[]),
        Room::Committed => (COMMITTED, &[]),
        Room::Killing => (KILLING, &[]),
        Room::KillingGranted => (KILLING_GRANTED, &[]),
        Room::Undying => (KILLING, &[On::Timeout]),
        Room::UndyingGranted => (KILLING_GRANTED, &[On::Timeout]),
    };
    [way, last].concat()
}

/// The same with a state for the successor.
pub fn way_with_a_state_to(room: Room) -> Vec<On> {
    let way = way_to(room).into_iter();
    way.flat_map(|on| if on == On::Ready { vec![On::StateRequested, On::HandoverSent, On::Ready] } else { vec![on] }).collect()
}

/// The first attempt, who asked for it, and its child.
pub const A: Attempt = Attempt(1);
pub const T: Ticket = Ticket(1);
pub const PID: u32 = 1001;
pub const INSTANT: Duration = Duration::from_nanos(1);

/// A list of actions and notices.
#[macro_export]
macro_rules! outputs {
    ($($output:expr),* $(,)?) => { vec![$(pollflip::internals::machine::Output::from($output)),*] };
}

/// An attempt that came to nothing,
pub fn failed(cause: Cause) -> Vec<Output> {
    [outputs![Action::Hold(Whose::This)], failed_at_its_end(cause)].concat()
}

/// in a process whose end was told,
pub fn failed_at_its_end(cause: Cause) -> Vec<Output> {
    outputs![Action::Reply(T, Reply::Failed(cause)), Notice::Failed(cause)]
}

/// where new flows went to the child already, after this,
pub fn here_again(path: &[On]) -> Vec<Output> {
    if path.contains(&On::Ready) { outputs![Action::Steer(Side::This)] } else { vec![] }
}

/// one that gave the service back,
pub fn resumed(cause: Cause) -> Vec<Output> {
    [resumed_at_its_end(cause), outputs![Action::Hold(Whose::This)]].concat()
}

/// to a process whose end is told next,
pub fn resumed_at_its_end(cause: Cause) -> Vec<Output> {
    outputs![Action::Steer(Side::This), Action::Hold(Whose::Returned), Action::Reply(T, Reply::Failed(cause)), Notice::Resumed(cause)]
}

/// and one that is final.
pub fn completed() -> Vec<Output> {
    outputs![Action::Reply(T, Reply::Completed(PID)), Notice::Completed(PID)]
}

/// Somebody else is told why there is no restart now.
pub fn refused(ticket: u64, refusal: Refusal) -> Vec<Output> {
    outputs![Action::Reply(Ticket(ticket), Reply::Refused(refusal))]
}

/// The same for a reason that stays.
pub fn forbidden(ticket: u64, refusal: Refusal) -> Vec<Output> {
    outputs![Action::Reply(Ticket(ticket), Reply::Forbidden(refusal))]
}

/// A process without probation that this has happened to.
pub fn after(path: &[On]) -> Checked {
    Checked::after(PLAIN, path)
}

/// What comes out when this comes in, and where that leads.
pub fn meets(mut checked: Checked, on: On) -> (Vec<Output>, Room) {
    (checked.meets(on), checked.room())
}
