//! The edges of the machine: what each input does in each state.
//!
//! Knows: the table on [`State`]. Does not know: which inputs belong to an attempt that is over; those do not come here.

use std::time::Duration;

use super::{
    Action, Attempt, COMMIT_TIMEOUT, Cause, Closed, GRANT_TIMEOUT, Handover, Input, KILL_TIMEOUT, Knows, Machine, Notice, Output, Phase,
    Reply, State, Ticket, Violation,
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
            let is_at_rest = matches!(self.state, State::Idle | State::Closed(Closed::Broken));
            let reply = if is_at_rest { Reply::Forbidden(refusal) } else { Reply::Refused(refusal) };
            return self.act(Action::Reply(ticket, reply));
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
            // The next thing to tell is that the service is the successor's: a line must not come in between.
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Progress(_)) => {}
            (State::AwaitingReady { .. }, Input::Progress(_)) => self.tell(Notice::Progress(attempt)),
            (State::AwaitingReady { handover: Handover::Open, .. }, Input::Ready(_)) => {
                self.kill(now, Cause::Protocol(Violation::ReadyTooSoon));
            }
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Ready(_)) => {}
            (State::AwaitingReady { handover, deadline, .. }, Input::Ready(_)) => {
                *handover = Handover::Granting;
                *deadline = now.saturating_add(GRANT_TIMEOUT);
                self.act(Action::Grant(attempt));
            }
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Granted(_)) => self.granted(now),
            (State::AwaitingReady { handover: Handover::Granting, .. }, Input::Dying(_))
            | (State::AwaitingReady { .. }, Input::LifelineClosed(_)) => self.kill(now, Cause::HungUp),
            (State::AwaitingReady { .. }, Input::Garbage(_)) => self.kill(now, Cause::Protocol(Violation::Garbage)),
            (State::Handoff { pid, phase, .. }, input) => {
                let (pid, phase) = (*pid, *phase);
                self.said_after_grant(now, attempt, pid, phase, input);
            }
            _ => {}
        }
    }

    fn said_after_grant(&mut self, now: Duration, attempt: Attempt, pid: u32, phase: Phase, input: Input) {
        match (phase, input) {
            (Phase::Probation { .. } | Phase::Checking { .. }, Input::LifelineClosed(_) | Input::Dying(_)) => self.kill(now, Cause::HungUp),
            (Phase::Probation { .. } | Phase::Checking { .. }, Input::Garbage(_)) => {
                self.kill(now, Cause::Protocol(Violation::Garbage));
            }
            (Phase::Checking { ticket, .. }, Input::Sound(_)) => self.commit(attempt, pid, ticket),
            (Phase::Committing { .. }, Input::CommitTaken(_)) => {
                if let Some(successor @ Knows::Told) = self.committing() {
                    *successor = Knows::Taken;
                    self.complete_if_known();
                }
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

    /// The probation is over: has the successor passed it?
    fn check(&mut self) {
        if let State::Handoff { attempt, phase: phase @ Phase::Probation { .. }, .. } = &mut self.state {
            let attempt = *attempt;
            if let Phase::Probation { ticket, since, .. } = *phase {
                *phase = Phase::Checking { ticket, since };
            }
            self.act(Action::Check(attempt));
        }
    }

    fn commit(&mut self, attempt: Attempt, pid: u32, ticket: Ticket) {
        let phase = Phase::Committing { ticket, successor: Knows::NotTold, manager_knows: false, deadline: None };
        self.state = State::Handoff { attempt, pid, phase };
        self.act(Action::Commit(attempt));
    }

    /// What the successor knows of the commit, while not all know.
    fn committing(&mut self) -> Option<&mut Knows> {
        match &mut self.state {
            State::Handoff { phase: Phase::Committing { successor, .. }, .. } => Some(successor),
            _ => None,
        }
    }

    pub(super) fn manager_asked(&mut self, now: Duration) {
        if let State::Handoff { phase: Phase::Committing { deadline: deadline @ None, .. }, .. } = &mut self.state {
            *deadline = Some(now.saturating_add(COMMIT_TIMEOUT));
        }
    }

    pub(super) fn manager_told(&mut self, now: Duration) {
        let State::Handoff { phase: Phase::Committing { successor, manager_knows, deadline: Some(deadline), .. }, .. } = &mut self.state
        else {
            return;
        };
        if matches!(successor, Knows::NotTold | Knows::Gone) && !*manager_knows {
            *deadline = now.saturating_add(COMMIT_TIMEOUT);
        }
        self.tell_commit();
    }

    fn tell_commit(&mut self) {
        if let State::Handoff { attempt, phase: Phase::Committing { successor: successor @ Knows::NotTold, .. }, .. } = &mut self.state {
            *successor = Knows::Told;
            let attempt = *attempt;
            self.act(Action::TellCommit(attempt));
        }
    }

    pub(super) fn barrier_passed(&mut self) {
        if let State::Handoff { phase: Phase::Committing { manager_knows, deadline: Some(_), .. }, .. } = &mut self.state {
            *manager_knows = true;
            self.complete_if_known();
        }
    }

    /// Those who wait are told when everybody else knows.
    fn complete_if_known(&mut self) {
        if let State::Handoff { phase: Phase::Committing { successor: Knows::Taken | Knows::Gone, manager_knows: true, .. }, .. } =
            self.state
        {
            self.complete();
        }
    }

    fn complete(&mut self) {
        if let State::Handoff { pid, phase, .. } = &mut self.state
            && let Phase::Committing { ticket, successor, .. } = *phase
        {
            *phase = Phase::Committed;
            let pid = *pid;
            self.act(Action::Reply(ticket, Reply::Completed(pid)));
            self.tell(Notice::Completed(pid));
            if successor == Knows::Gone {
                self.tell(Notice::SuccessorGone(pid));
            }
        }
    }

    pub(super) fn give_up(&mut self) {
        match self.state {
            State::Handoff { phase: Phase::Committing { .. }, .. } => {
                self.tell_commit();
                self.complete();
            }
            State::Killing { attempt, .. } => self.exited(attempt),
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, of: Attempt) {
        match self.state {
            State::AwaitingReady { attempt, ticket, .. } if attempt == of => {
                self.take_back(Action::Grant(attempt));
                self.fail(Some(ticket), Cause::Exited);
            }
            State::Handoff { attempt, phase: Phase::Probation { ticket, .. } | Phase::Checking { ticket, .. }, .. } if attempt == of => {
                self.take_back(Action::Check(attempt));
                self.resume(Some(ticket), Cause::DiedOnProbation);
            }
            State::Handoff { attempt, phase: Phase::Committing { .. }, .. } if attempt == of => {
                self.tell_commit();
                if let State::Handoff { phase: Phase::Committing { successor, manager_knows, deadline, .. }, .. } = &mut self.state {
                    *successor = Knows::Gone;
                    // Nobody has begun to tell the service manager, which waits for nothing then.
                    *manager_knows |= deadline.is_none();
                }
                self.complete_if_known();
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
            State::Handoff { phase: Phase::Probation { .. }, .. } => {
                self.stopping = true;
                self.check();
            }
            State::Handoff { phase: Phase::Committing { .. } | Phase::Committed, .. } => {}
            State::Handoff { phase: Phase::Checking { .. }, .. } | State::Killing { .. } => self.stopping = true,
        }
    }

    pub(super) fn thread_lost(&mut self) {
        match self.state {
            State::Closed(Closed::Stopping | Closed::Broken)
            | State::Handoff { phase: Phase::Committing { .. } | Phase::Committed, .. } => {}
            State::Idle => self.broken(),
            State::Spawning { attempt, ticket, .. } => {
                if !self.take_back(Action::Spawn(attempt)) {
                    self.act(Action::Abandon(attempt));
                }
                self.act(Action::Reply(ticket, Reply::Refused(Refusal::RestartThreadGone)));
                self.tell(Notice::Failed(Cause::SpawnFailed));
                self.broken();
            }
            State::Closed(Closed::NotReady)
            | State::AwaitingReady { .. }
            | State::Handoff { phase: Phase::Probation { .. } | Phase::Checking { .. }, .. }
            | State::Killing { .. } => self.thread_lost = true,
        }
    }

    pub(super) fn timeout(&mut self, now: Duration) {
        match &mut self.state {
            State::Spawning { .. } => self.abandon(Cause::TimedOut),
            State::AwaitingReady { handover: Handover::Granting, .. } => self.kill(now, Cause::GrantNotTaken),
            State::AwaitingReady { .. } => self.kill(now, Cause::TimedOut),
            State::Handoff { phase: Phase::Probation { .. }, .. } => self.check(),
            State::Handoff { phase: Phase::Committing { .. }, .. } => {
                self.tell_commit();
                self.barrier_passed();
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
            State::Closed(_) | State::Idle | State::Handoff { phase: Phase::Checking { .. } | Phase::Committed, .. } => {}
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
            State::Handoff { attempt, pid, phase: Phase::Probation { ticket, since, .. } | Phase::Checking { ticket, since } } => {
                (attempt, ticket, pid, since, true)
            }
            _ => return,
        };
        let deadline = Some(now.saturating_add(KILL_TIMEOUT));
        self.state = State::Killing { attempt, ticket: Some(ticket), pid, since, cause, granted, deadline };
        self.take_back(Action::Grant(attempt));
        self.take_back(Action::Check(attempt));
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
