//! Where a process stands: what the machine is in, and the table of how it gets from one state to the next.
//!
//! Knows: which facts belong to which state. Does not know: how they change; that is [`Machine`](super::Machine)'s.

use std::time::Duration;

use super::words::{Attempt, Cause, Ticket};

/// Where a process stands.
///
/// ```text
///           Opened                 Request                 Spawned                  Granted
///  Closed ──────────▶ Idle ──────────────────▶ Spawning ──────────▶ AwaitingReady ──────────▶ Handoff
///    ▲                ▲  ▲                        │                     │      │                │  │
///    │ Stop           │  └────────────────────────┘                     │      │ (Probation)    │  └─ (Committed): the end
///    │                │     SpawnFailed, Timeout, Cancel                │      │                │
///    │                │                                                 │      │                │
///    │                └──────────────────── Exited ─────────────────────┘      │                │
///    │                                         ▲                               │                │
///    └── Exited, after Stop ── Killing ────────┘ Exited                        │                │
///                                 ▲                                            │                │
///                                 └────────────────────────────────────────────┴────────────────┘
///                                   Timeout, Cancel, Stop, Refused, LifelineClosed, a broken protocol
/// ```
///
/// The whole table, made from the code by `tests/pure/tests/machine_table`; a pair that is not in it does nothing:
///
// table:begin
/// | in                                  | input                          | then                        | out |
/// | ---                                 | ---                            | ---                         | --- |
/// | Closed(NotReady)                    | Sole                           | Closed(Sole)                | |
/// | Closed(Stopping untold)             | Sole, Opened                   | Closed(Stopping)            | TellStopping |
/// | Closed(NotReady, Sole)              | Opened                         | Idle                        | |
/// | Closed(Sole, Broken)                | Stop                           | Closed(Stopping)            | TellStopping |
/// | Closed, Idle, Spawning              | MarksFreed                     | same                        | Steer(This), GenerationEnded |
/// | AwaitingReady(NotAsked, Precopy)    | MarksFreed                     | same                        | Steer(This), GenerationEnded |
/// | AwaitingReady(Open, Sent)           | MarksFreed                     | same                        | Steer(This), GenerationEnded |
/// | Killing(ungranted)                  | MarksFreed                     | same                        | Steer(This), GenerationEnded |
/// | Killing(ungranted overdue)          | MarksFreed                     | same                        | Steer(This), GenerationEnded |
/// | Idle                                | Request                        | Spawning                    | Restarting, Hold(Both), Spawn |
/// | Idle                                | Stop                           | Closed(Stopping)            | TellStopping |
/// | Idle                                | ThreadLost                     | Closed(Broken)              | Broken |
/// | Spawning                            | Spawned                        | AwaitingReady(NotAsked)     | Spawned |
/// | Spawning                            | SpawnFailed                    | Idle                        | Hold(This), Reply(Failed), Failed |
/// | Spawning                            | Cancel, Timeout                | Idle                        | Abandon, Hold(This), Reply(Failed), Failed |
/// | Spawning                            | Stop                           | Closed(Stopping)            | TellStopping, Abandon, Reply(Failed), Failed |
/// | Spawning                            | Dropped                        | Closed(Stopping)            | Abandon, Hold(This), Reply(Failed), Failed |
/// | Spawning                            | ThreadLost                     | Closed(Broken)              | Abandon, Hold(This), Reply(RestartThreadGone), Failed, Broken |
/// | AwaitingReady(NotAsked, Precopy)    | Here with another pid, Garbage | Killing(Protocol)           | Kill |
/// | AwaitingReady(Open, Sent)           | Here with another pid, Garbage | Killing(Protocol)           | Kill |
/// | AwaitingReady(Granting)             | Here with another pid, Garbage | Killing(Protocol)           | Steer(This), Kill |
/// | AwaitingReady(NotAsked)             | PrecopyRequested               | AwaitingReady(Precopy)      | PrecopyRequested |
/// | AwaitingReady(Precopy, Open, Sent)  | PrecopyRequested               | Killing(Protocol)           | Kill |
/// | AwaitingReady(Precopy)              | PrecopyRoom                    | same                        | PrecopyRoom |
/// | AwaitingReady(NotAsked, Precopy)    | StateRequested                 | AwaitingReady(Open)         | StateRequested |
/// | AwaitingReady(Open, Sent)           | StateRequested                 | Killing(Protocol)           | Kill |
/// | AwaitingReady(Open)                 | HandoverSent                   | AwaitingReady(Sent)         | |
/// | AwaitingReady(NotAsked, Precopy)    | HandoverFailed, Refused        | Killing(cause)              | Kill |
/// | AwaitingReady(NotAsked, Precopy)    | Cancel, Dropped, Timeout       | Killing(cause)              | Kill |
/// | AwaitingReady(Open, Sent)           | HandoverFailed, Refused        | Killing(cause)              | Kill |
/// | AwaitingReady(Open, Sent)           | Cancel, Dropped, Timeout       | Killing(cause)              | Kill |
/// | AwaitingReady(Granting)             | HandoverFailed, Refused, Dying | Killing(cause)              | Steer(This), Kill |
/// | AwaitingReady(Granting)             | Cancel, Dropped, Timeout       | Killing(cause)              | Steer(This), Kill |
/// | AwaitingReady(Granting)             | SteeringFailed                 | Killing(cause)              | Steer(This), Kill |
/// | AwaitingReady(NotAsked, Precopy)    | Progress                       | same                        | Progress |
/// | AwaitingReady(Open, Sent)           | Progress                       | same                        | Progress |
/// | AwaitingReady(NotAsked, Sent)       | Ready                          | AwaitingReady(Granting)     | Steer(Successor), Grant |
/// | AwaitingReady(Precopy, Open)        | Ready                          | Killing(Protocol)           | Kill |
/// | AwaitingReady(Granting)             | Granted (no probation)         | Committing(NotTold unasked) | HandedOff, Hold(Successor), Commit |
/// | AwaitingReady(Granting)             | Granted (probation)            | Handoff(Probation)          | HandedOff |
/// | AwaitingReady(open)                 | LifelineClosed                 | same, lost                  | |
/// | Handoff(Probation, open)            | LifelineClosed                 | same, lost                  | |
/// | AwaitingReady(open)                 | Unread                         | same, put off               | |
/// | Handoff(Probation, open)            | Unread                         | same, put off               | |
/// | AwaitingReady(NotAsked, Precopy)    | Exited                         | Idle                        | Hold(This), Reply(Failed), Failed |
/// | AwaitingReady(Open, Sent)           | Exited                         | Idle                        | Hold(This), Reply(Failed), Failed |
/// | AwaitingReady(Granting)             | Exited                         | Idle                        | Steer(This), Hold(This), Reply(Failed), Failed |
/// | AwaitingReady(NotAsked, Precopy)    | Stop                           | Killing(cause)              | TellStopping, Kill |
/// | AwaitingReady(Open, Sent)           | Stop                           | Killing(cause)              | TellStopping, Kill |
/// | AwaitingReady(Granting)             | Stop                           | Killing(cause)              | TellStopping, Steer(This), Kill |
/// | AwaitingReady(Granting)             | MarksFreed                     | same                        | GenerationEnded |
/// | Handoff(Probation)                  | MarksFreed                     | same                        | GenerationEnded |
/// | Handoff(Checking, LettingGo)        | MarksFreed                     | same                        | GenerationEnded |
/// | Handoff(Committed)                  | MarksFreed                     | same                        | GenerationEnded |
/// | Committing(NotTold unasked)         | MarksFreed                     | same                        | GenerationEnded |
/// | Committing(NotTold awaited)         | MarksFreed                     | same                        | GenerationEnded |
/// | Committing(NotTold, Told awaited)   | MarksFreed                     | same                        | GenerationEnded |
/// | Committing(Gone awaited)            | MarksFreed                     | same                        | GenerationEnded |
/// | Committing(Told, Taken awaited)     | MarksFreed                     | same                        | GenerationEnded |
/// | Killing(granted, granted overdue)   | MarksFreed                     | same                        | GenerationEnded |
/// | Handoff(Checking)                   | LifelineClosed                 | Killing(cause)              | Kill |
/// | Handoff(Probation)                  | Garbage                        | Killing(Protocol)           | Kill |
/// | Handoff(Checking)                   | Garbage                        | Killing(Protocol)           | Kill |
/// | Handoff(Probation)                  | Dying                          | Killing(cause)              | Kill |
/// | Handoff(Checking)                   | Dying                          | Killing(cause)              | Kill |
/// | Handoff(Checking)                   | Sound                          | Committing(NotTold unasked) | Hold(Successor), Commit |
/// | Handoff(Probation)                  | Exited                         | Idle                        | Steer(This), Hold(Returned), Reply(Failed), Resumed, Hold(This) |
/// | Handoff(Checking)                   | Exited                         | Idle                        | Steer(This), Hold(Returned), Reply(Failed), Resumed, Hold(This) |
/// | Handoff(LettingGo)                  | Exited                         | Handoff(Committed)          | Completed, SuccessorGone |
/// | Handoff(Committed)                  | Exited                         | same                        | SuccessorGone |
/// | Handoff(Probation, open)            | Stop, Dropped, Timeout         | Handoff(Checking)           | Check |
/// | Handoff(Probation, lost)            | Stop, Dropped, Timeout         | Killing(cause)              | Kill |
/// | Handoff(LettingGo)                  | Stop, Dropped, GivingUp        | Handoff(Committed)          | Completed |
/// | Handoff(LettingGo)                  | Timeout                        | Handoff(Committed)          | Completed |
/// | Committing(Told awaited)            | CommitTaken                    | Committing(Taken awaited)   | |
/// | Committing(Told, no state)          | CommitTaken                    | Handoff(Committed)          | Reply(Completed), Completed |
/// | Committing(Told, state)             | CommitTaken                    | Handoff(LettingGo)          | Reply(Completed) |
/// | Committing(NotTold unasked)         | Exited                         | Handoff(Committed)          | TellCommit, Reply(Completed), Completed, SuccessorGone |
/// | Committing(NotTold)                 | Exited                         | Handoff(Committed)          | TellCommit, Reply(Completed), Completed, SuccessorGone |
/// | Committing(NotTold awaited)         | Exited                         | Committing(Gone awaited)    | TellCommit |
/// | Committing(Told awaited)            | Exited                         | Committing(Gone awaited)    | |
/// | Committing(Taken awaited)           | Exited                         | Committing(Gone awaited)    | |
/// | Committing(Told)                    | Exited                         | Handoff(Committed)          | Reply(Completed), Completed, SuccessorGone |
/// | Committing(NotTold unasked)         | ManagerAsked                   | Committing(NotTold awaited) | |
/// | Committing(NotTold awaited)         | ManagerTold                    | Committing(Told awaited)    | TellCommit |
/// | Committing(NotTold)                 | ManagerTold                    | Committing(Told)            | TellCommit |
/// | Committing(NotTold awaited)         | BarrierPassed                  | Committing(NotTold)         | |
/// | Committing(Told awaited)            | BarrierPassed, Timeout         | Committing(Told)            | |
/// | Committing(Taken awaited, no state) | BarrierPassed, Timeout         | Handoff(Committed)          | Reply(Completed), Completed |
/// | Committing(Taken awaited, state)    | BarrierPassed, Timeout         | Handoff(LettingGo)          | Reply(Completed) |
/// | Committing(Gone awaited)            | BarrierPassed, GivingUp        | Handoff(Committed)          | Reply(Completed), Completed, SuccessorGone |
/// | Committing(Gone awaited)            | Timeout                        | Handoff(Committed)          | Reply(Completed), Completed, SuccessorGone |
/// | Committing(NotTold unasked)         | GivingUp                       | Handoff(Committed)          | TellCommit, Reply(Completed), Completed |
/// | Committing(NotTold awaited)         | GivingUp                       | Handoff(Committed)          | TellCommit, Reply(Completed), Completed |
/// | Committing(NotTold)                 | GivingUp                       | Handoff(Committed)          | TellCommit, Reply(Completed), Completed |
/// | Committing(Told awaited)            | GivingUp                       | Handoff(Committed)          | Reply(Completed), Completed |
/// | Committing(Told, Taken awaited)     | GivingUp                       | Handoff(Committed)          | Reply(Completed), Completed |
/// | Committing(NotTold awaited)         | Timeout                        | Committing(Told)            | TellCommit |
/// | Committing(NotTold)                 | Timeout                        | Committing(Told)            | TellCommit |
/// | Killing(ungranted)                  | Exited, GivingUp               | Idle                        | Hold(This), Reply(Failed), Failed |
/// | Killing(granted)                    | Exited, GivingUp               | Idle                        | Steer(This), Hold(Returned), Reply(Failed), Resumed, Hold(This) |
/// | Killing(ungranted overdue)          | Exited, GivingUp               | Idle                        | Hold(This) |
/// | Killing(granted overdue)            | Exited, GivingUp               | Idle                        | Steer(This), Hold(Returned), Resumed, Hold(This) |
/// | Killing(ungranted)                  | Stop                           | same                        | TellStopping |
/// | Killing(ungranted overdue)          | Stop                           | same                        | TellStopping |
/// | Killing(ungranted)                  | Timeout                        | same, overdue               | Reply(Failed), Failed |
/// | Killing(granted)                    | Timeout                        | same, overdue               | Reply(Failed) |
/// | Closed(NotReady, Sole)              | Request                        | same                        | Reply(NotReady) |
/// | Closed(Stopping, Stopping untold)   | Request                        | same                        | Reply(Stopping) |
/// | Closed(Broken)                      | Request                        | same                        | Reply(RestartThreadGone) |
/// | Spawning, AwaitingReady             | Request                        | same                        | Reply(UnderWay) |
/// | Killing                             | Request                        | same                        | Reply(UnderWay) |
/// | Handoff(Probation)                  | Request                        | same                        | Reply(OnProbation) |
/// | Handoff(Checking)                   | Request                        | same                        | Reply(OnProbation) |
/// | Committing(NotTold unasked)         | Request                        | same                        | Reply(HandedOff) |
/// | Committing(NotTold awaited)         | Request                        | same                        | Reply(HandedOff) |
/// | Committing(NotTold, Told awaited)   | Request                        | same                        | Reply(HandedOff) |
/// | Committing(Gone awaited)            | Request                        | same                        | Reply(HandedOff) |
/// | Committing(Told, Taken awaited)     | Request                        | same                        | Reply(HandedOff) |
/// | Handoff(LettingGo, Committed)       | Request                        | same                        | Reply(HandedOff) |
/// | Closed(NotReady)                    | Stop, Dropped                  | Closed(Stopping untold)     | |
/// | Handoff(Checking)                   | Stop                           | same, remembered            | |
/// | Killing(granted, granted overdue)   | Stop                           | same, remembered            | |
/// | Closed(Sole, Broken), Idle          | Dropped                        | Closed(Stopping)            | |
/// | Handoff(Checking), Killing          | Dropped                        | same, remembered            | |
/// | Closed(NotReady, Sole)              | ThreadLost                     | same, remembered            | |
/// | AwaitingReady                       | ThreadLost                     | same, remembered            | |
/// | Handoff(Probation)                  | ThreadLost                     | same, remembered            | |
/// | Handoff(Checking), Killing          | ThreadLost                     | same, remembered            | |
// table:end
///
/// *Killing* has a way out on `Timeout` too: the asker is answered, and the state stays until the child is gone; if that one had been
/// granted the service, nothing is told before, since it may still be at it. A `Stop` while a child is being killed is remembered, and so
/// is a `ThreadLost` while a child exists or before the process is open: what is under way goes on, and where it would have ended in `Idle`
/// it ends in `Closed`. What a successor on probation says is not listened to: it has been granted the service, and only its end, its
/// silence or garbage can take that back. A line of progress is not passed on once it is ready, for the same reason as below.
///
/// A successor that is ready may be dead before it can be granted the service: it has it only when the driver says `Granted`, which
/// does nothing before a `Grant` is carried out, nor does `Sound` before a `Check` is. If it is given
/// up or ends first, a `Grant` that nobody has carried out is taken back; so is such a `Spawn`, in place of an `Abandon`, and such a `Check`.
///
/// A lifeline is closed before its process has ended: `lost` is a successor that may be dying, and has a second to end by itself. One whose
/// probation is over meanwhile has not passed it. The program stands still from *StateRequested* on: the deadline comes nearer then, to
/// that of the freeze, if that is the earlier one, and the cause of its *Timeout* is another. *Unread* is a word that may have come in time and cannot be read for a moment: a deadline
/// that is about words waits for it.
///
/// Those who wait are told of the end when everybody else knows: the service manager first, then the successor. *Committing*, a phase of
/// `Handoff`, counts who does: the first word is for the successor, `awaited` for the manager, `unasked` for one that nobody has begun to
/// tell. The manager has its time from `ManagerAsked` on, and once more from `ManagerTold` on, however long the loop stood still before;
/// the successor is waited for until the kernel has taken the message or it has ended. A `Stop` on probation is remembered, should the
/// successor turn out to have failed. *GivingUp* is the end of all waiting: what is final is told as if all knew it, and a child that was
/// killed is taken for ended.
///
/// In *Precopy* the program serves, and gives what can go ahead of the state. The deadline is that of the
/// restart: nothing stands still. *PrecopyRoom* may come any number of times. A successor that has asked for
/// what goes ahead must ask for the state too, before it is ready.
///
/// In *LettingGo* all know that the restart is final, but for the program. It is told a moment later, since
/// it has the same connections as the successor, and dropping them takes the processor time that the
/// successor needs at that moment. A program that has handed nothing over is told at once.
///
/// *Steer* says where the kernel sends UDP datagrams that bear nobody's mark: to the successor before the grant, so that what comes
/// between the two waits for it, and to this process again where the grant comes to nothing, or a successor that had the service has
/// ended. If the kernel does not take it (*SteeringFailed*), that is the cause of the failure. *MarksFreed* is the end of an earlier
/// generation: the process that serves tells the kernel so.
///
/// *Hold* says whose connections and descriptors a keeper holds, if there is one. Those of the successor are held before it is started, so
/// that a kill finds them whatever the moment. `Hold(Successor)` comes before *Commit*: what this process drains must not be found by a
/// start after the successor's end, and that successor is the main process from *Commit* on. A service that comes back offers
/// the program its connections (`Hold(Returned)`), and what it has not gone on with by the time it asks for more ends (`Hold(This)`).
///
/// *TellStopping* comes out once after a `Stop`, before all that waits, as soon as no other process has a claim to the service: not
/// before `Sole` or `Opened`, and not while a successor has it. What is heard of the predecessor (*Predecessor*, in every state) is told
/// in the order in which it came, but after a *HandedOff* or a *Commit*: the program goes on for a while after each thing that it is
/// told. It must know first that the service is another's, and a successor that has been looked at must not die before it is final.
/// After *PredecessorGone* comes *LetSurvivorsGo*: until the program asks for more, it can take what a predecessor has left that ended
/// before it had granted the service.
/// With *TellStopping* nothing is held any more, and no *Hold* follows; one that waits is taken back.
///
/// An obstacle ([`Machine::set_obstacle`](super::Machine::set_obstacle)) has each `Request` in `Idle` refused, is the reason in
/// `Closed(NotReady)`, and does nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No restart can be asked for.
    Closed(Closed),
    /// Serving, and waiting for a request.
    Idle,
    /// The restart thread has been told to start the successor.
    Spawning {
        /// Which try.
        attempt: Attempt,
        /// Who asked.
        ticket: Ticket,
        /// When.
        since: Duration,
        /// When the successor must be ready.
        deadline: Duration,
    },
    /// The successor runs and is getting ready.
    AwaitingReady {
        /// Which try.
        attempt: Attempt,
        /// Who asked.
        ticket: Ticket,
        /// The successor.
        pid: u32,
        /// When the restart was asked for.
        since: Duration,
        /// When the successor must be ready: in time after the request, and after it has asked for the state.
        deadline: Duration,
        /// How far the state has been handed over.
        handover: Handover,
        /// When it must have ended, since its lifeline is closed.
        lost: Option<Duration>,
    },
    /// The successor has been granted the service.
    Handoff {
        /// Which try.
        attempt: Attempt,
        /// The successor.
        pid: u32,
        /// Whether it has a state: this process then holds what the successor has, too.
        gave: bool,
        /// Whether it can still be taken back.
        phase: Phase,
    },
    /// A child was given up and killed; its end is awaited, and nothing new is spawned meanwhile.
    Killing {
        /// Which try.
        attempt: Attempt,
        /// Who has yet to be told.
        ticket: Option<Ticket>,
        /// The child.
        pid: u32,
        /// When the restart was asked for.
        since: Duration,
        /// Why it was given up.
        cause: Cause,
        /// Whether it had been granted the service.
        granted: bool,
        /// When the asker is told, dead or not; `None` once it has been.
        deadline: Option<Duration>,
    },
}

impl State {
    /// When the restart under way was asked for, if one is: one on probation still is.
    pub fn under_way_since(&self) -> Option<Duration> {
        match *self {
            State::Spawning { since, .. } | State::AwaitingReady { since, .. } | State::Killing { since, .. } => Some(since),
            State::Handoff { phase: Phase::Probation { since, .. } | Phase::Checking { since, .. }, .. } => Some(since),
            State::Closed(_)
            | State::Idle
            | State::Handoff { phase: Phase::Committing { .. } | Phase::LettingGo { .. } | Phase::Committed, .. } => None,
        }
    }
}

/// Why no restart can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The service is not this process's yet: see [`Takeover`](super::Takeover).
    NotReady {
        /// Whether no other process has a claim to it.
        sole: bool,
    },
    /// The process is ending.
    Stopping {
        /// Whether that is the service manager's to know: not while the service is another process's.
        told: bool,
    },
    /// The restart thread is lost.
    Broken,
}

/// How far the state has been handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The successor has not asked.
    NotAsked,
    /// It asked for what can go ahead of the state, and the program gives that while it serves.
    Precopy,
    /// It asked, and the program is giving.
    Open,
    /// All has been given.
    Sent,
    /// It is ready and is being granted the service. The deadline is that of the grant.
    Granting {
        /// Whether it has a state.
        gave: bool,
    },
}

/// Whether a handoff can still be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It can, until the deadline.
    Probation {
        /// Who asked.
        ticket: Ticket,
        /// When the restart was asked for.
        since: Duration,
        /// When it is over.
        deadline: Duration,
        /// When the successor must have ended, since its lifeline is closed.
        lost: Option<Duration>,
    },
    /// The probation is over, and whether the successor has passed it is being looked at.
    Checking {
        /// Who asked.
        ticket: Ticket,
        /// When the restart was asked for.
        since: Duration,
    },
    /// It is final, and not all who must know it do.
    Committing {
        /// Who asked.
        ticket: Ticket,
        /// Whether the successor knows.
        successor: Knows,
        /// Whether the service manager knows.
        manager_knows: bool,
        /// When the service manager is not waited for any longer; `None`: the order to tell it is not carried out yet.
        deadline: Option<Duration>,
    },
    /// It is final, and all know but the program of this process. That drops what it has handed over
    /// when it is told, which takes processor time, and the successor needs the processor first.
    LettingGo {
        /// When the program is told.
        until: Duration,
    },
    /// It is final, and all know.
    Committed,
}

/// Whether the successor knows that the service is its own. It is told after the service manager: from then on it can name a main PID
/// itself, and a later one must not be overtaken by this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knows {
    /// It has not been told.
    NotTold,
    /// It is being told.
    Told,
    /// The kernel has taken the message.
    Taken,
    /// It has ended.
    Gone,
}
