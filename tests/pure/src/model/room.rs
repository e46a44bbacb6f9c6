//! Where a process stands: one flat list, and the facts that count there.

use std::time::Duration;

use pollflip::internals::machine::{Attempt, Cause, Closed, Handover, Knows, Phase, State, Ticket};

/// One for each state in which the same inputs have the same effect, what is remembered (a stop, a lost thread) apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// The service is not this process's: another one has a claim to it,
    NotReady,
    /// or none has.
    Sole,
    /// It ends, which the service manager is told,
    Stopping,
    /// or not while another process has the claim.
    StoppingUntold,
    Broken,
    Idle,
    Spawning,
    /// The successor has not asked for the state,
    Waiting,
    /// is being given what can go ahead of it,
    Copying,
    /// is being given it,
    Giving,
    /// has been given it,
    Given,
    /// can serve, and is being told that it may,
    Granting,
    /// has the service and may lose it again,
    Proving,
    /// has had its time, and is being looked at.
    Checking,
    /// It has the service for good, and nobody has begun to tell that.
    Settled,
    /// Others have yet to know: it and the service manager,
    Untold,
    /// it, and the manager knows,
    UntoldManaged,
    /// it is being told, and the manager is waited for,
    Telling,
    /// or not any more;
    TellingManaged,
    /// it knows and the manager does not,
    Heard,
    /// or it is gone and the manager does not know.
    Left,
    /// All know but the program,
    LettingGo,
    /// or all.
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
    pub const ALL: [Room; 27] = [
        Room::NotReady,
        Room::Sole,
        Room::Stopping,
        Room::StoppingUntold,
        Room::Broken,
        Room::Idle,
        Room::Spawning,
        Room::Waiting,
        Room::Copying,
        Room::Giving,
        Room::Given,
        Room::Granting,
        Room::Proving,
        Room::Checking,
        Room::Settled,
        Room::Untold,
        Room::UntoldManaged,
        Room::Telling,
        Room::TellingManaged,
        Room::Heard,
        Room::Left,
        Room::LettingGo,
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
    pub lost: Option<Duration>,
    pub cause: Option<Cause>,
    /// Whether the successor has a state.
    pub gave: Option<bool>,
}

impl View {
    pub const fn bare(room: Room) -> View {
        View { room, attempt: None, ticket: None, pid: None, since: None, deadline: None, lost: None, cause: None, gave: None }
    }
}

impl From<State> for View {
    fn from(state: State) -> View {
        match state {
            State::Closed(Closed::NotReady { sole: false }) => View::bare(Room::NotReady),
            State::Closed(Closed::NotReady { sole: true }) => View::bare(Room::Sole),
            State::Closed(Closed::Stopping { told: true }) => View::bare(Room::Stopping),
            State::Closed(Closed::Stopping { told: false }) => View::bare(Room::StoppingUntold),
            State::Closed(Closed::Broken) => View::bare(Room::Broken),
            State::Idle => View::bare(Room::Idle),
            State::Spawning { attempt, ticket, since, deadline } => View {
                attempt: Some(attempt),
                ticket: Some(ticket),
                since: Some(since),
                deadline: Some(deadline),
                ..View::bare(Room::Spawning)
            },
            State::AwaitingReady { attempt, ticket, pid, since, deadline, handover, lost } => {
                let room = match handover {
                    Handover::NotAsked => Room::Waiting,
                    Handover::Precopy => Room::Copying,
                    Handover::Open => Room::Giving,
                    Handover::Sent => Room::Given,
                    Handover::Granting { .. } => Room::Granting,
                };
                let deadline = Some(deadline);
                let gave = if let Handover::Granting { gave } = handover { Some(gave) } else { None };
                View {
                    gave,
                    attempt: Some(attempt),
                    ticket: Some(ticket),
                    pid: Some(pid),
                    since: Some(since),
                    deadline,
                    lost,
                    ..View::bare(room)
                }
            }
            State::Handoff { attempt, pid, gave, phase } => {
                let of_both = View { attempt: Some(attempt), pid: Some(pid), gave: Some(gave), ..View::bare(Room::Committed) };
                match phase {
                    Phase::Committed => of_both,
                    Phase::LettingGo { until } => View { room: Room::LettingGo, deadline: Some(until), ..of_both },
                    Phase::Checking { ticket, since } => View { room: Room::Checking, ticket: Some(ticket), since: Some(since), ..of_both },
                    Phase::Committing { ticket, successor, manager_knows, deadline } => {
                        let room = match (successor, manager_knows) {
                            (Knows::NotTold, false) if deadline.is_none() => Room::Settled,
                            (Knows::NotTold, false) => Room::Untold,
                            (Knows::NotTold, true) => Room::UntoldManaged,
                            (Knows::Told, false) => Room::Telling,
                            (Knows::Told, true) => Room::TellingManaged,
                            (Knows::Taken, false) => Room::Heard,
                            (Knows::Gone, false) => Room::Left,
                            (Knows::Taken | Knows::Gone, true) => unreachable!("then all know"),
                        };
                        let deadline = deadline.filter(|_| room != Room::TellingManaged);
                        View { room, ticket: Some(ticket), deadline, ..of_both }
                    }
                    Phase::Probation { ticket, since, deadline, lost } => {
                        View { room: Room::Proving, ticket: Some(ticket), since: Some(since), deadline: Some(deadline), lost, ..of_both }
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
                View {
                    attempt: Some(attempt),
                    ticket,
                    pid: Some(pid),
                    since: Some(since),
                    deadline,
                    cause: Some(cause),
                    ..View::bare(room)
                }
            }
        }
    }
}
