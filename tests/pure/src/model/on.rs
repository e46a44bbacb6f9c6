//! The inputs by kind, and what each is the cause of.

use pollflip::internals::machine::{Attempt, Cause, Input, TakeoverNotice, Ticket, Violation};

use super::Room;

/// The inputs by kind: those whose effect depends on what they carry are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum On {
    Sole,
    Opened,
    Request,
    Spawned,
    SpawnFailed,
    HereItself,
    HereAnother,
    PrecopyRequested,
    PrecopyRoom,
    StateRequested,
    HandoverSent,
    HandoverFailed,
    Refused,
    Progress,
    Ready,
    SteeringFailed,
    Granted,
    LifelineClosed,
    Unread,
    Garbage,
    Dying,
    Sound,
    CommitTaken,
    Exited,
    Cancel,
    Stop,
    Dropped,
    ThreadLost,
    Predecessor,
    MarksFreed,
    ManagerAsked,
    ManagerTold,
    BarrierPassed,
    GivingUp,
    Timeout,
}

impl On {
    /// Their numbers in a corpus: what is added comes last.
    pub const ALL: [On; 35] = [
        On::Sole,
        On::Opened,
        On::Request,
        On::Spawned,
        On::SpawnFailed,
        On::HereItself,
        On::HereAnother,
        On::PrecopyRequested,
        On::PrecopyRoom,
        On::StateRequested,
        On::HandoverSent,
        On::HandoverFailed,
        On::Refused,
        On::Progress,
        On::Ready,
        On::Granted,
        On::LifelineClosed,
        On::Unread,
        On::Garbage,
        On::Dying,
        On::Sound,
        On::CommitTaken,
        On::Exited,
        On::Cancel,
        On::Stop,
        On::Dropped,
        On::ThreadLost,
        On::Predecessor,
        On::ManagerAsked,
        On::ManagerTold,
        On::BarrierPassed,
        On::GivingUp,
        On::Timeout,
        On::SteeringFailed,
        On::MarksFreed,
    ];

    /// Which kind an input is to somebody who knows the successor by this pid.
    pub fn of(input: Input, successor: u32) -> On {
        match input {
            Input::Sole => On::Sole,
            Input::Opened => On::Opened,
            Input::Predecessor(_) => On::Predecessor,
            Input::Request(_) => On::Request,
            Input::Spawned(..) => On::Spawned,
            Input::SpawnFailed(_) => On::SpawnFailed,
            Input::Here(_, pid) if pid == successor => On::HereItself,
            Input::Here(..) => On::HereAnother,
            Input::PrecopyRequested(_) => On::PrecopyRequested,
            Input::PrecopyRoom(_) => On::PrecopyRoom,
            Input::StateRequested(_) => On::StateRequested,
            Input::HandoverSent(_) => On::HandoverSent,
            Input::HandoverFailed(_) => On::HandoverFailed,
            Input::Refused(_) => On::Refused,
            Input::Progress(_) => On::Progress,
            Input::Ready(_) => On::Ready,
            Input::SteeringFailed(_) => On::SteeringFailed,
            Input::MarksFreed => On::MarksFreed,
            Input::Granted(_) => On::Granted,
            Input::LifelineClosed(_) => On::LifelineClosed,
            Input::Unread(_) => On::Unread,
            Input::Garbage(_) => On::Garbage,
            Input::Dying(_) => On::Dying,
            Input::Sound(_) => On::Sound,
            Input::CommitTaken(_) => On::CommitTaken,
            Input::Exited(_) => On::Exited,
            Input::Cancel => On::Cancel,
            Input::Stop => On::Stop,
            Input::Dropped => On::Dropped,
            Input::ThreadLost => On::ThreadLost,
            Input::ManagerAsked => On::ManagerAsked,
            Input::ManagerTold => On::ManagerTold,
            Input::BarrierPassed => On::BarrierPassed,
            Input::GivingUp => On::GivingUp,
            Input::Timeout => On::Timeout,
        }
    }

    /// An input of this kind.
    pub fn input(self, attempt: Attempt, ticket: Ticket, pid: u32) -> Input {
        match self {
            On::Sole => Input::Sole,
            On::Opened => Input::Opened,
            On::Predecessor => Input::Predecessor(TakeoverNotice::PredecessorGone),
            On::Request => Input::Request(ticket),
            On::Spawned => Input::Spawned(attempt, pid),
            On::SpawnFailed => Input::SpawnFailed(attempt),
            On::HereItself => Input::Here(attempt, pid),
            On::HereAnother => Input::Here(attempt, pid.wrapping_add(1)),
            On::PrecopyRequested => Input::PrecopyRequested(attempt),
            On::PrecopyRoom => Input::PrecopyRoom(attempt),
            On::StateRequested => Input::StateRequested(attempt),
            On::HandoverSent => Input::HandoverSent(attempt),
            On::HandoverFailed => Input::HandoverFailed(attempt),
            On::Refused => Input::Refused(attempt),
            On::Progress => Input::Progress(attempt),
            On::Ready => Input::Ready(attempt),
            On::SteeringFailed => Input::SteeringFailed(attempt),
            On::MarksFreed => Input::MarksFreed,
            On::Granted => Input::Granted(attempt),
            On::LifelineClosed => Input::LifelineClosed(attempt),
            On::Unread => Input::Unread(attempt),
            On::Garbage => Input::Garbage(attempt),
            On::Dying => Input::Dying(attempt),
            On::Sound => Input::Sound(attempt),
            On::CommitTaken => Input::CommitTaken(attempt),
            On::Exited => Input::Exited(attempt),
            On::Cancel => Input::Cancel,
            On::Stop => Input::Stop,
            On::Dropped => Input::Dropped,
            On::ThreadLost => Input::ThreadLost,
            On::ManagerAsked => Input::ManagerAsked,
            On::ManagerTold => Input::ManagerTold,
            On::BarrierPassed => Input::BarrierPassed,
            On::GivingUp => Input::GivingUp,
            On::Timeout => Input::Timeout,
        }
    }

    /// Whether it belongs to an attempt.
    pub fn has_attempt(self) -> bool {
        On::Spawned <= self && self <= On::Exited
    }

    /// Why an attempt failed that ended by this; `None` if it ends none.
    pub fn cause(self, room: Room) -> Option<Cause> {
        Some(match (self, room) {
            (On::SpawnFailed | On::ThreadLost, _) => Cause::SpawnFailed,
            (On::Exited, Room::Proving | Room::Checking) => Cause::DiedOnProbation,
            (On::Exited, _) => Cause::Exited,
            (On::Timeout, Room::Granting) => Cause::GrantNotTaken,
            (On::Timeout, _) => Cause::TimedOut,
            (On::Refused, _) => Cause::Refused,
            (On::HandoverFailed, _) => Cause::HandoverFailed,
            (On::SteeringFailed, _) => Cause::Steering,
            (On::LifelineClosed | On::Dying, _) => Cause::HungUp,
            (On::StateRequested, _) => Cause::Protocol(Violation::AskedTwice),
            (On::PrecopyRequested, _) => Cause::Protocol(Violation::PrecopyOutOfTurn),
            (On::Ready, Room::Copying) => Cause::Protocol(Violation::ReadyWithoutState),
            (On::Ready, _) => Cause::Protocol(Violation::ReadyTooSoon),
            (On::HereAnother, _) => Cause::Protocol(Violation::WrongPid),
            (On::Garbage, _) => Cause::Protocol(Violation::Garbage),
            (On::Cancel, _) => Cause::Cancelled,
            (On::Stop | On::Dropped, _) => Cause::Stopping,
            _ => return None,
        })
    }
}
