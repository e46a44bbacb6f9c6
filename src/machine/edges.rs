//! The edges of the machine: what each input does in each state.
//!
//! Knows: the table on [`State`]. Does not know: which inputs belong to an attempt that is over; those do not come here.

use std::time::Duration;

use super::{
    Action, Attempt, Cause, Closed, Handover, Input, KILL_TIMEOUT, Machine, Notice, Output, Phase, Reply, State, Ticket, Violation,
};
use crate::error::Refusal;

impl Machine {
    pub(super) fn opened(&mut self) {
        if self.state == State::Closed(Closed::NotReady) {
            self.rest();
        }
    }

    pub(super) fn request(&mut self, now: Duration, ticket: Ticket) {
        if let Some(refusal) = self.refusal(now) {
            return self.act(Action::Reply(ticket, Reply::Refused(refusal)));
        }
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        let deadline = now.saturating_add(self.limits.ready);
        self.state = State::Spawning { attempt, ticket, since: now, deadline };
        self.tell(Notice::Restarting);
        self.act(Action::Spawn(attempt));
    }

    pub(super) fn spawned(&mut self, of: Attempt, pid: u32) {
        match self.state {
            State::Spawning { attempt, ticket, since, deadline } if attempt == of => {
                self.state = State::AwaitingReady { attempt, ticket, pid, since, deadline, handover: Handover::NotAsked };
                self.tell(Notice::Spawned(pid));
            }
            _ => {}
        }
    }

    pub(super) fn spawn_failed(&mut self, of: Attempt) {
        match self.state {
            State::Spawning { attempt, ticket, .. } if attempt == of => self.fail(Some(ticket), Cause::SpawnFailed),
            _ => {}
        }
    }

    /// The attempt whose successor has a lifeline that matters.
    pub(super) fn successor(&self) -> Option<Attempt> {
        match self.state {
            State::AwaitingReady { attempt, .. } | State::Handoff { attempt, .. } => Some(attempt),
            State::Closed(_) | State::Idle | State::Spawning { .. } | State::Killing { .. } => None,
        }
    }

    /// Whatever the current successor says or does short of ending.
    pub(super) fn said_by_successor(&mut self, now: Duration, attempt: Attempt, input: Input) {
        match (&mut self.state, input) {
            (State::AwaitingReady { pid, .. }, Input::Here(_, claimed)) if *pid != claimed => {
                self.kill(now, Cause::Protocol(Violation::WrongPid));
            }
            (State::AwaitingReady { handover, .. }, Input::StateRequested(_)) => match handover {
                Handover::NotAsked => {
                    *handover = Handover::Open;
                    self.tell(Notice::StateRequested(attempt));
                }
                Handover::Open | Handover::Sent => self.kill(now, Cause::Protocol(Violation::AskedTwice)),
                // What it wants now it will find out that it has not got.
                Handover::Granting => {}
            },
            (State::AwaitingReady { handover: handover @ Handover::Open, .. }, Input::HandoverSent(_)) => *handover = Handover::Sent,
            (State::AwaitingReady { .. }, Input::HandoverFailed(_)) => self.kill(now, Cause::HandoverFailed),
            (State::AwaitingReady { .. }, Input::Refused(_)) => self.kill(now, Cause::Refused),
            (State::AwaitingReady { .. }, Input::Progress(_)) => self.tell(Notice::Progress(attempt)),
            (State::AwaitingReady { handover: Handover::Open, .. }, Input::Ready(_)) => {
                self.kill(now, Cause::Protocol(Violation::ReadyTooSoon));
            }
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Ready(_)) => {}
            (State::AwaitingReady { handover, .. }, Input::Ready(_)) => {
                *handover = Handover::Granting;
                self.act(Action::Grant(attempt));
            }
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Granted(_)) => self.granted(now),
            (State::AwaitingReady { .. } | State::Handoff { phase: Phase::Probation { .. }, .. }, Input::LifelineClosed(_)) => {
                self.kill(now, Cause::HungUp);
            }
            (State::AwaitingReady { .. } | State::Handoff { phase: Phase::Probation { .. }, .. }, Input::Garbage(_)) => {
                self.kill(now, Cause::Protocol(Violation::Garbage));
            }
            _ => {}
        }
    }

    fn granted(&mut self, now: Duration) {
        let State::AwaitingReady { attempt, ticket, pid, since, .. } = self.state else { return };
        self.tell(Notice::HandedOff(pid));
        match self.limits.probation {
            None => self.commit(attempt, pid, ticket),
            Some(probation) => {
                let phase = Phase::Probation { ticket, since, deadline: now.saturating_add(probation) };
                self.state = State::Handoff { attempt, pid, phase };
            }
        }
    }

    fn commit(&mut self, attempt: Attempt, pid: u32, ticket: Ticket) {
        self.state = State::Handoff { attempt, pid, phase: Phase::Committed };
        self.act(Action::Commit(attempt));
        self.act(Action::Reply(ticket, Reply::Completed(pid)));
        self.tell(Notice::Completed(pid));
    }

    pub(super) fn exited(&mut self, of: Attempt) {
        match self.state {
            State::AwaitingReady { attempt, ticket, .. } if attempt == of => {
                self.take_back(Action::Grant(attempt));
                self.fail(Some(ticket), Cause::Exited);
            }
            State::Handoff { attempt, phase: Phase::Probation { ticket, .. }, .. } if attempt == of => {
                self.resume(Some(ticket), Cause::DiedOnProbation);
            }
            State::Handoff { attempt, pid, phase: Phase::Committed } if attempt == of => self.tell(Notice::SuccessorGone(pid)),
            State::Killing { attempt, ticket, cause, granted, deadline, .. } if attempt == of => match (granted, deadline) {
                (true, _) => self.resume(ticket, cause),
                (false, Some(_)) => self.fail(ticket, cause),
                (false, None) => self.rest(),
            },
            _ => {}
        }
    }

    pub(super) fn cancel(&mut self, now: Duration) {
        match self.state {
            State::Spawning { .. } => self.abandon(Cause::Cancelled),
            State::AwaitingReady { .. } => self.kill(now, Cause::Cancelled),
            State::Closed(_) | State::Idle | State::Handoff { .. } | State::Killing { .. } => {}
        }
    }

    pub(super) fn stop(&mut self, now: Duration) {
        match self.state {
            State::Closed(Closed::NotReady) | State::Idle => self.state = State::Closed(Closed::Stopping),
            State::Closed(Closed::Stopping | Closed::Broken) => {}
            State::Spawning { .. } => {
                self.stopping = true;
                self.abandon(Cause::Stopping);
            }
            State::AwaitingReady { .. } => {
                self.stopping = true;
                self.kill(now, Cause::Stopping);
            }
            State::Handoff { attempt, pid, phase: Phase::Probation { ticket, .. } } => self.commit(attempt, pid, ticket),
            State::Handoff { phase: Phase::Committed, .. } => {}
            State::Killing { .. } => self.stopping = true,
        }
    }

    pub(super) fn thread_lost(&mut self) {
        match self.state {
            State::Closed(Closed::Stopping | Closed::Broken) | State::Handoff { phase: Phase::Committed, .. } => {}
            State::Idle => self.broken(),
            State::Spawning { attempt, ticket, .. } => {
                if !self.take_back(Action::Spawn(attempt)) {
                    self.act(Action::Abandon(attempt));
                }
                self.act(Action::Reply(ticket, Reply::Refused(Refusal::Broken)));
                self.tell(Notice::Failed(Cause::SpawnFailed));
                self.broken();
            }
            State::Closed(Closed::NotReady)
            | State::AwaitingReady { .. }
            | State::Handoff { phase: Phase::Probation { .. }, .. }
            | State::Killing { .. } => self.thread_lost = true,
        }
    }

    pub(super) fn timeout(&mut self, now: Duration) {
        match &mut self.state {
            State::Spawning { .. } => self.abandon(Cause::TimedOut),
            State::AwaitingReady { .. } => self.kill(now, Cause::TimedOut),
            State::Handoff { attempt, pid, phase: Phase::Probation { ticket, .. } } => {
                let (attempt, pid, ticket) = (*attempt, *pid, *ticket);
                self.commit(attempt, pid, ticket);
            }
            State::Killing { ticket, cause, granted, deadline, .. } => {
                let (cause, granted) = (*cause, *granted);
                *deadline = None;
                if let Some(ticket) = ticket.take() {
                    self.act(Action::Reply(ticket, Reply::Failed(cause)));
                }
                // One that had the service has it until it is gone.
                if !granted {
                    self.tell(Notice::Failed(cause));
                }
            }
            State::Closed(_) | State::Idle | State::Handoff { phase: Phase::Committed, .. } => {}
        }
    }

    /// Gives up a successor that is still being started.
    fn abandon(&mut self, cause: Cause) {
        let State::Spawning { attempt, ticket, .. } = self.state else { return };
        if !self.take_back(Action::Spawn(attempt)) {
            self.act(Action::Abandon(attempt));
        }
        self.fail(Some(ticket), cause);
    }

    /// Takes back an order that nobody has carried out yet.
    fn take_back(&mut self, order: Action) -> bool {
        let before = self.outputs.len();
        self.outputs.retain(|output| *output != Output::Action(order));
        self.outputs.len() < before
    }

    /// Gives up a successor that runs.
    fn kill(&mut self, now: Duration, cause: Cause) {
        let (attempt, ticket, pid, since, granted) = match self.state {
            State::AwaitingReady { attempt, ticket, pid, since, .. } => (attempt, ticket, pid, since, false),
            State::Handoff { attempt, pid, phase: Phase::Probation { ticket, since, .. } } => (attempt, ticket, pid, since, true),
            _ => return,
        };
        let deadline = Some(now.saturating_add(KILL_TIMEOUT));
        self.state = State::Killing { attempt, ticket: Some(ticket), pid, since, cause, granted, deadline };
        self.take_back(Action::Grant(attempt));
        self.act(Action::Kill(attempt));
    }

    fn fail(&mut self, ticket: Option<Ticket>, cause: Cause) {
        self.end(ticket, cause, Notice::Failed(cause));
    }

    fn resume(&mut self, ticket: Option<Ticket>, cause: Cause) {
        self.end(ticket, cause, Notice::Resumed(cause));
    }

    fn end(&mut self, ticket: Option<Ticket>, cause: Cause, notice: Notice) {
        if let Some(ticket) = ticket {
            self.act(Action::Reply(ticket, Reply::Failed(cause)));
        }
        self.tell(notice);
        self.rest();
    }

    /// Where a process comes to rest when nothing is under way.
    fn rest(&mut self) {
        if self.stopping {
            self.state = State::Closed(Closed::Stopping);
        } else if self.thread_lost {
            self.broken();
        } else {
            self.state = State::Idle;
        }
    }

    fn broken(&mut self) {
        self.state = State::Closed(Closed::Broken);
        self.tell(Notice::Broken);
    }

    fn act(&mut self, action: Action) {
        self.outputs.push_back(action.into());
    }

    fn tell(&mut self, notice: Notice) {
        self.outputs.push_back(notice.into());
    }
}
