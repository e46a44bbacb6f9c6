//! Where a process stands: one flat list, and the facts that count there.

use std::time::Duration;

use pollflip::internals::machine::{Attempt, Cause, Closed, Handover, Phase, State, Ticket};

/// One for each state in which the same inputs have the same effect, what is remembered (a stop, a lost thread) apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    NotReady,
    Stopping,
    Broken,
    Idle,
    Spawning,
    /// The successor has not asked for the state,
    Waiting,
    /// is being given it,
    Giving,
    /// has been given it,
    Given,
    /// can serve, and is being told that it may,
    Granting,
    /// has the service and may lose it again,
    Proving,
    /// has it for good.
    Committed,
    /// The child was given up before it had the service,
    Killing,
    /// or after.
    KillingGranted,
    /// It does not die; the asker has been told.
    Undying,
    UndyingGranted,
}

impl Room {
    pub const ALL: [Room; 15] = [
        Room::NotReady,
        Room::Stopping,
        Room::Broken,
        Room::Idle,
        Room::Spawning,
        Room::Waiting,
        Room::Giving,
        Room::Given,
        Room::Granting,
        Room::Proving,
        Room::Committed,
        Room::Killing,
        Room::KillingGranted,
        Room::Undying,
        Room::UndyingGranted,
    ];
}

/// What can be seen of a state: the room, and each fact that has a meaning in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub room: Room,
    pub attempt: Option<Attempt>,
    pub ticket: Option<Ticket>,
    pub pid: Option<u32>,
    pub since: Option<Duration>,
    pub deadline: Option<Duration>,
    pub cause: Option<Cause>,
}

impl View {
    pub const fn bare(room: Room) -> View {
        View { room, attempt: None, ticket: None, pid: None, since: None, deadline: None, cause: None }
    }
}

impl From<State> for View {
    fn from(state: State) -> View {
        match state {
            State::Closed(Closed::NotReady) => View::bare(Room::NotReady),
            State::Closed(Closed::Stopping) => View::bare(Room::Stopping),
            State::Closed(Closed::Broken) => View::bare(Room::Broken),
            State::Idle => View::bare(Room::Idle),
            State::Spawning { attempt, ticket, since, deadline } => View {
                attempt: Some(attempt),
                ticket: Some(ticket),
                since: Some(since),
                deadline: Some(deadline),
                ..View::bare(Room::Spawning)
            },
            State::AwaitingReady { attempt, ticket, pid, since, deadline, handover } => {
                let (room, deadline) = match handover {
                    Handover::NotAsked => (Room::Waiting, Some(deadline)),
                    Handover::Open => (Room::Giving, Some(deadline)),
                    Handover::Sent => (Room::Given, Some(deadline)),
                    Handover::Granting => (Room::Granting, None),
                };
                View { attempt: Some(attempt), ticket: Some(ticket), pid: Some(pid), since: Some(since), deadline, ..View::bare(room) }
            }
            State::Handoff { attempt, pid, phase } => {
                let of_both = View { attempt: Some(attempt), pid: Some(pid), ..View::bare(Room::Committed) };
                match phase {
                    Phase::Committed => of_both,
                    Phase::Probation { ticket, since, deadline } => {
                        View { room: Room::Proving, ticket: Some(ticket), since: Some(since), deadline: Some(deadline), ..of_both }
                    }
                }
            }
            State::Killing { attempt, ticket, pid, since, cause, granted, deadline } => {
                let room = match (granted, deadline) {
                    (false, Some(_)) => Room::Killing,
                    (true, Some(_)) => Room::KillingGranted,
                    (false, None) => Room::Undying,
                    (true, None) => Room::UndyingGranted,
                };
                View { room, attempt: Some(attempt), ticket, pid: Some(pid), since: Some(since), deadline, cause: Some(cause) }
            }
        }
    }
}
