//! The restart state machine.
//!
//! Knows: the order in which things may happen. Does not know: processes, descriptors, clocks, threads, text. Time is a [`Duration`]
//! since any fixed moment, handed in; words that belong to a cause (an exit status, a reason) stay with the driver.
//!
//! The contract: call [`Machine::handle`], then [`Machine::poll_output`] until it returns `None`, carrying each output out in order;
//! call `handle` with [`Input::Timeout`] when [`Machine::poll_timeout`] has passed. `handle` is total: a pair of state and input that
//! is not a row of the table on [`State`] changes nothing and says nothing. The driver answers an [`Action::Spawn`] with `Spawned` or
//! `SpawnFailed` only after it has carried it out, and an [`Action::Grant`] with `Granted` likewise, when the successor
//! is sure to hear of it; it reads a lifeline only after `Spawned`, and feeds `Exited` once for each child.

mod edges;
pub mod poison;
mod state;
pub mod supervision;
mod takeover;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::Refusal;

pub use state::{Closed, Handover, Knows, Phase, State};
pub use takeover::{DYING, Inbound, LOST, Line, Prompt, Stage, Takeover, TakeoverInput, TakeoverNotice, TakeoverOutput};
pub use words::{Action, Attempt, Cause, Input, Notice, Output, Reply, Side, Ticket, Violation, Whose};

/// How long a killed successor may take to die before its asker is told.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the kernel may take to take the grant: the program stands still meanwhile, and the successor waits.
pub const GRANT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a deadline is put off at a time for words that cannot be read yet: longer than until that is tried again.
pub const UNREAD: Duration = Duration::from_millis(20);
/// How long the service manager may take to be sent the new main PID, and then to take it in.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the program is not told to drop what it has handed over. The message that grants the service
/// often wakes the successor on the processor of this process, where it waits for the time slice of a
/// process that drops thousands of connections. In this time the successor has answered what had waited.
pub const LET_GO: Duration = Duration::from_millis(2);

/// The times a machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a restart may take from the request until the successor is ready.
    pub ready: Duration,
    /// How much of that may pass after the successor has asked for the state: the program stands still meanwhile.
    pub freeze: Duration,
    /// How long the service can be taken back after it was granted; `None`: not at all.
    pub probation: Option<Duration>,
}

/// The machine: what it is in, what it goes by, and what has yet to be carried out.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    state: State,
    attempts: u64,
    stopping: bool,
    /// It was told to stop, and not only that its restarter is dropped.
    ends: bool,
    /// And that is told.
    has_told_stopping: bool,
    thread_lost: bool,
    obstacle: Option<Refusal>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A process that is starting.
    pub fn new(limits: Limits) -> Machine {
        Machine {
            limits,
            state: State::Closed(Closed::NotReady { sole: false }),
            attempts: 0,
            stopping: false,
            ends: false,
            has_told_stopping: false,
            thread_lost: false,
            obstacle: None,
            outputs: VecDeque::new(),
        }
    }

    /// Where it stands.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// The next thing to do or tell.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The same, which stays.
    pub fn first_output(&self) -> Option<Output> {
        self.outputs.front().copied()
    }

    /// When `handle(Input::Timeout)` is next needed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Closed(_) | State::Idle => None,
            State::Spawning { deadline, .. } => Some(deadline),
            State::AwaitingReady { deadline, lost, .. } | State::Handoff { phase: Phase::Probation { deadline, lost, .. }, .. } => {
                Some(lost.map_or(deadline, |lost| lost.min(deadline)))
            }
            // Only the kernel is waited for.
            State::Handoff { phase: Phase::Committing { successor: Knows::Told, manager_knows: true, .. }, .. } => None,
            State::Handoff { phase: Phase::Committing { deadline, .. }, .. } => deadline,
            State::Handoff { phase: Phase::LettingGo { until }, .. } => Some(until),
            State::Handoff { phase: Phase::Checking { .. } | Phase::Committed, .. } => None,
            State::Killing { deadline, .. } => deadline,
        }
    }

    /// From now on a process that could restart does not, for a reason that lies outside of the machine; `None`: it does. One that is not
    /// open refuses in any case, and for that reason if there is one.
    pub fn set_obstacle(&mut self, why: Option<Refusal>) {
        self.obstacle = why;
    }

    /// Why a request that came now would be refused; `None` if it would not.
    pub fn refusal(&self, now: Duration) -> Option<Refusal> {
        match self.state {
            State::Idle => self.obstacle,
            State::Closed(Closed::NotReady { .. }) => Some(self.obstacle.unwrap_or(Refusal::NotReady)),
            State::Closed(Closed::Stopping { .. }) => Some(Refusal::Stopping),
            State::Closed(Closed::Broken) => Some(Refusal::RestartThreadGone),
            State::Spawning { since, .. } | State::AwaitingReady { since, .. } | State::Killing { since, .. } => {
                Some(Refusal::UnderWay { since: now.saturating_sub(since) })
            }
            State::Handoff { pid, phase: Phase::Probation { .. } | Phase::Checking { .. }, .. } => {
                Some(Refusal::OnProbation { successor: Some(pid) })
            }
            State::Handoff { pid, phase: Phase::Committing { .. } | Phase::LettingGo { .. } | Phase::Committed, .. } => {
                Some(Refusal::HandedOff { successor: pid })
            }
        }
    }

    /// Takes one thing in.
    pub fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Sole => self.sole(),
            Input::Opened => self.opened(),
            Input::Predecessor(notice) => self.heard_of_predecessor(notice),
            Input::MarksFreed => self.marks_freed(),
            Input::Request(ticket) => self.request(now, ticket),
            Input::Spawned(attempt, pid) => self.spawned(attempt, pid),
            Input::SpawnFailed(attempt) => self.spawn_failed(attempt),
            Input::Exited(attempt) => self.exited(now, attempt),
            Input::Cancel => self.cancel(now),
            Input::Stop => {
                self.ends = true;
                self.stop(now);
            }
            Input::Dropped => self.stop(now),
            Input::ThreadLost => self.thread_lost(),
            Input::ManagerAsked => self.manager_asked(now),
            Input::ManagerTold => self.manager_told(now),
            Input::BarrierPassed => self.barrier_passed(now),
            Input::GivingUp => self.give_up(now),
            Input::Timeout => {
                if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
                    self.timeout(now);
                }
            }
            Input::Here(attempt, _)
            | Input::PrecopyRequested(attempt)
            | Input::PrecopyRoom(attempt)
            | Input::StateRequested(attempt)
            | Input::HandoverSent(attempt)
            | Input::HandoverFailed(attempt)
            | Input::Refused(attempt)
            | Input::Progress(attempt)
            | Input::Ready(attempt)
            | Input::SteeringFailed(attempt)
            | Input::Granted(attempt)
            | Input::Dying(attempt)
            | Input::Sound(attempt)
            | Input::CommitTaken(attempt)
            | Input::LifelineClosed(attempt)
            | Input::Unread(attempt)
            | Input::Garbage(attempt) => {
                if self.successor() == Some(attempt) {
                    self.said_by_successor(now, attempt, input);
                }
            }
        }
    }
}
