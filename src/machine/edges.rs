//! The edges of the machine: what each input does in each state.
//!
//! Knows: the table on [`State`]. Does not know: which inputs belong to an attempt that is over; those do not come here.

use std::time::Duration;

use super::{
    Action, Attempt, COMMIT_TIMEOUT, Cause, Closed, DYING, GRANT_TIMEOUT, Handover, Input, KILL_TIMEOUT, Knows, LET_GO, Machine, Notice,
    Output, Phase, Reply, Side, State, TakeoverNotice, Ticket, UNREAD, Violation, Whose,
};
use crate::error::Refusal;

impl Machine {
    pub(super) fn sole(&mut self) {
        match &mut self.state {
            State::Closed(Closed::NotReady { sole }) => *sole = true,
            State::Closed(Closed::Stopping { told: false }) => self.close(),
            _ => {}
        }
    }

    pub(super) fn opened(&mut self) {
        match self.state {
            State::Closed(Closed::NotReady { .. }) => self.rest(),
            State::Closed(Closed::Stopping { told: false }) => self.close(),
            _ => {}
        }
    }

    pub(super) fn heard_of_predecessor(&mut self, notice: TakeoverNotice) {
        self.tell(Notice::Predecessor(notice));
        if notice == TakeoverNotice::PredecessorGone {
            // When the program has been told, and comes back for more.
            self.act(Action::LetSurvivorsGo);
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
        self.act(Action::Hold(Whose::Both));
        self.act(Action::Spawn(attempt));
    }

    pub(super) fn spawned(&mut self, of: Attempt, pid: u32) {
        match self.state {
            State::Spawning { attempt, ticket, since, deadline } if attempt == of => {
                self.state = State::AwaitingReady { attempt, ticket, pid, since, deadline, handover: Handover::NotAsked, lost: None };
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
        let is_answered_too_soon = match input {
            Input::SteeringFailed(_) => self.is_on_order(Action::Steer(Side::Successor)),
            Input::Granted(_) => self.is_on_order(Action::Grant(attempt)),
            Input::Sound(_) => self.is_on_order(Action::Check(attempt)),
            _ => false,
        };
        if is_answered_too_soon {
            return;
        }
        match (&mut self.state, input) {
            (State::AwaitingReady { pid, .. }, Input::Here(_, claimed)) if *pid != claimed => {
                self.kill(now, Cause::Protocol(Violation::WrongPid));
            }
            (State::AwaitingReady { handover, .. }, Input::PrecopyRequested(_)) => match handover {
                Handover::NotAsked => {
                    *handover = Handover::Precopy;
                    self.tell(Notice::PrecopyRequested(attempt));
                }
                Handover::Precopy | Handover::Open | Handover::Sent => self.kill(now, Cause::Protocol(Violation::PrecopyOutOfTurn)),
                Handover::Granting { .. } => {}
            },
            (State::AwaitingReady { handover: Handover::Precopy, .. }, Input::PrecopyRoom(_)) => {
                self.tell(Notice::PrecopyRoom(attempt));
            }
            (State::AwaitingReady { handover, deadline, .. }, Input::StateRequested(_)) => match handover {
                Handover::NotAsked | Handover::Precopy => {
                    *handover = Handover::Open;
                    *deadline = (*deadline).min(now.saturating_add(self.limits.freeze));
                    self.tell(Notice::StateRequested(attempt));
                }
                Handover::Open | Handover::Sent => self.kill(now, Cause::Protocol(Violation::AskedTwice)),
                // What it wants now it will find out that it has not got.
                Handover::Granting { .. } => {}
            },
            (State::AwaitingReady { handover: handover @ Handover::Open, .. }, Input::HandoverSent(_)) => *handover = Handover::Sent,
            (State::AwaitingReady { .. }, Input::HandoverFailed(_)) => self.kill(now, Cause::HandoverFailed),
            (State::AwaitingReady { .. }, Input::Refused(_)) => self.kill(now, Cause::Refused),
            // The next thing to tell is that the service is the successor's: a line must not come in between.
            (State::AwaitingReady { handover: Handover::Granting { .. }, .. }, Input::Progress(_)) => {}
            (State::AwaitingReady { .. }, Input::Progress(_)) => self.tell(Notice::Progress(attempt)),
            (State::AwaitingReady { handover: Handover::Precopy, .. }, Input::Ready(_)) => {
                self.kill(now, Cause::Protocol(Violation::ReadyWithoutState));
            }
            (State::AwaitingReady { handover: Handover::Open, .. }, Input::Ready(_)) => {
                self.kill(now, Cause::Protocol(Violation::ReadyTooSoon));
            }
            (State::AwaitingReady { handover: Handover::Granting { .. }, .. }, Input::Ready(_)) => {}
            (State::AwaitingReady { handover, deadline, .. }, Input::Ready(_)) => {
                *handover = Handover::Granting { gave: *handover == Handover::Sent };
                *deadline = now.saturating_add(GRANT_TIMEOUT);
                self.act(Action::Steer(Side::Successor));
                self.act(Action::Grant(attempt));
            }
            (State::AwaitingReady { handover: Handover::Granting { .. }, .. }, Input::SteeringFailed(_)) => self.kill(now, Cause::Steering),
            (State::AwaitingReady { handover: Handover::Granting { .. }, .. }, Input::Granted(_)) => self.granted(now),
            (State::AwaitingReady { handover: Handover::Granting { .. }, .. }, Input::Dying(_)) => self.kill(now, Cause::HungUp),
            (State::AwaitingReady { lost, .. } | State::Handoff { phase: Phase::Probation { lost, .. }, .. }, Input::LifelineClosed(_)) => {
                lost.get_or_insert(now.saturating_add(DYING));
            }
            (
                State::AwaitingReady { deadline, lost: None, .. }
                | State::Handoff { phase: Phase::Probation { deadline, lost: None, .. }, .. },
                Input::Unread(_),
            ) => *deadline = (*deadline).max(now.saturating_add(UNREAD)),
            (State::AwaitingReady { .. }, Input::Garbage(_)) => self.kill(now, Cause::Protocol(Violation::Garbage)),
            (State::Handoff { phase, .. }, input) => {
                let phase = *phase;
                self.said_after_grant(now, phase, input);
            }
            _ => {}
        }
    }

    fn said_after_grant(&mut self, now: Duration, phase: Phase, input: Input) {
        match (phase, input) {
            (Phase::Checking { .. }, Input::LifelineClosed(_)) | (Phase::Probation { .. } | Phase::Checking { .. }, Input::Dying(_)) => {
                self.kill(now, Cause::HungUp);
            }
            (Phase::Probation { .. } | Phase::Checking { .. }, Input::Garbage(_)) => {
                self.kill(now, Cause::Protocol(Violation::Garbage));
            }
            (Phase::Checking { ticket, .. }, Input::Sound(_)) => self.commit(ticket),
            (Phase::Committing { .. }, Input::CommitTaken(_)) => {
                if let Some(successor @ Knows::Told) = self.committing() {
                    *successor = Knows::Taken;
                    self.complete_if_known(now);
                }
            }
            _ => {}
        }
    }

    fn granted(&mut self, now: Duration) {
        let State::AwaitingReady { attempt, ticket, pid, since, lost, handover: Handover::Granting { gave }, .. } = self.state else {
            return;
        };
        self.put_ahead(Notice::HandedOff(pid).into());
        let deadline = now.saturating_add(self.limits.probation.unwrap_or_default());
        self.state = State::Handoff { attempt, pid, gave, phase: Phase::Probation { ticket, since, deadline, lost } };
        if self.limits.probation.is_none() {
            self.commit(ticket);
        }
    }

    /// The probation is over: has the successor passed it? Not one that nothing is heard of.
    fn check(&mut self, now: Duration) {
        if let State::Handoff { phase: Phase::Probation { lost: Some(_), .. }, .. } = self.state {
            self.kill(now, Cause::HungUp);
        } else if let State::Handoff { attempt, phase: phase @ Phase::Probation { .. }, .. } = &mut self.state {
            let attempt = *attempt;
            if let Phase::Probation { ticket, since, .. } = *phase {
                *phase = Phase::Checking { ticket, since };
            }
            self.act(Action::Check(attempt));
        }
    }

    fn commit(&mut self, ticket: Ticket) {
        if let State::Handoff { attempt, phase, .. } = &mut self.state {
            *phase = Phase::Committing { ticket, successor: Knows::NotTold, manager_knows: false, deadline: None };
            let attempt = *attempt;
            // First: once the successor is known to be the main process, its end has the next start look at what is held.
            self.put_ahead(Action::Hold(Whose::Successor).into());
            self.put_ahead(Action::Commit(attempt).into());
        }
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

    pub(super) fn barrier_passed(&mut self, now: Duration) {
        if let State::Handoff { phase: Phase::Committing { manager_knows, deadline: Some(_), .. }, .. } = &mut self.state {
            *manager_knows = true;
            self.complete_if_known(now);
        }
    }

    /// Those who wait are told when everybody else knows.
    fn complete_if_known(&mut self, now: Duration) {
        let State::Handoff { pid, gave, phase, .. } = &mut self.state else { return };
        let pid = *pid;
        match *phase {
            Phase::Committing { ticket, successor: Knows::Taken, manager_knows: true, .. } if *gave => {
                *phase = Phase::LettingGo { until: now.saturating_add(LET_GO) };
                self.act(Action::Reply(ticket, Reply::Completed(pid)));
            }
            Phase::Committing { successor: Knows::Taken | Knows::Gone, manager_knows: true, .. } => self.complete(),
            _ => {}
        }
    }

    fn complete(&mut self) {
        let State::Handoff { pid, phase, .. } = &mut self.state else { return };
        let (pid, before) = (*pid, std::mem::replace(phase, Phase::Committed));
        if let Phase::Committing { ticket, .. } = before {
            self.act(Action::Reply(ticket, Reply::Completed(pid)));
        }
        self.tell(Notice::Completed(pid));
        if let Phase::Committing { successor: Knows::Gone, .. } = before {
            self.tell(Notice::SuccessorGone(pid));
        }
    }

    pub(super) fn give_up(&mut self, now: Duration) {
        match self.state {
            State::Handoff { phase: Phase::Committing { .. } | Phase::LettingGo { .. }, .. } => {
                self.tell_commit();
                self.complete();
            }
            State::Killing { attempt, .. } => self.exited(now, attempt),
            _ => {}
        }
    }

    pub(super) fn exited(&mut self, now: Duration, of: Attempt) {
        match self.state {
            State::AwaitingReady { attempt, ticket, .. } if attempt == of => {
                self.take_back_grant(attempt);
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
                self.complete_if_known(now);
            }
            State::Handoff { attempt, pid, phase: Phase::LettingGo { .. }, .. } if attempt == of => {
                self.complete();
                self.tell(Notice::SuccessorGone(pid));
            }
            State::Handoff { attempt, pid, phase: Phase::Committed, .. } if attempt == of => self.tell(Notice::SuccessorGone(pid)),
            State::Killing { attempt, ticket, cause, granted, deadline, .. } if attempt == of => match (granted, deadline) {
                (true, _) => self.resume(ticket, cause),
                (false, Some(_)) => self.fail(ticket, cause),
                (false, None) => {
                    self.hold_no_successor();
                    self.rest();
                }
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
            State::Closed(Closed::NotReady { sole: false }) => self.state = State::Closed(Closed::Stopping { told: false }),
            State::Closed(Closed::NotReady { sole: true } | Closed::Broken) | State::Idle => self.close(),
            State::Closed(Closed::Stopping { .. }) => {}
            State::Spawning { .. } => {
                self.stopping = true;
                self.tell_stopping();
                self.abandon(Cause::Stopping);
            }
            State::AwaitingReady { .. } => {
                self.stopping = true;
                self.tell_stopping();
                self.kill(now, Cause::Stopping);
            }
            State::Handoff { phase: Phase::Probation { .. }, .. } => {
                self.stopping = true;
                self.check(now);
            }
            State::Handoff { phase: Phase::Committing { .. } | Phase::Committed, .. } => {}
            // The program lets go of everything anyway.
            State::Handoff { phase: Phase::LettingGo { .. }, .. } => self.complete(),
            State::Handoff { phase: Phase::Checking { .. }, .. } | State::Killing { granted: true, .. } => self.stopping = true,
            State::Killing { granted: false, .. } => {
                self.stopping = true;
                self.tell_stopping();
            }
        }
    }

    pub(super) fn thread_lost(&mut self) {
        match self.state {
            State::Closed(Closed::Stopping { .. } | Closed::Broken)
            | State::Handoff { phase: Phase::Committing { .. } | Phase::LettingGo { .. } | Phase::Committed, .. } => {}
            State::Idle => self.broken(),
            State::Spawning { attempt, ticket, .. } => {
                if !self.take_back(Action::Spawn(attempt)) {
                    self.act(Action::Abandon(attempt));
                }
                self.hold_no_successor();
                self.act(Action::Reply(ticket, Reply::Refused(Refusal::RestartThreadGone)));
                self.tell(Notice::Failed(Cause::SpawnFailed));
                self.broken();
            }
            State::Closed(Closed::NotReady { .. })
            | State::AwaitingReady { .. }
            | State::Handoff { phase: Phase::Probation { .. } | Phase::Checking { .. }, .. }
            | State::Killing { .. } => self.thread_lost = true,
        }
    }

    pub(super) fn timeout(&mut self, now: Duration) {
        match &mut self.state {
            State::Spawning { .. } => self.abandon(Cause::TimedOut),
            State::AwaitingReady { lost: Some(lost), .. } if now >= *lost => self.kill(now, Cause::HungUp),
            State::AwaitingReady { handover: Handover::Granting { .. }, .. } => self.kill(now, Cause::GrantNotTaken),
            State::AwaitingReady { since, deadline, .. } => {
                // Only that of the freeze is earlier.
                let is_of_freeze = *deadline < since.saturating_add(self.limits.ready);
                self.kill(now, if is_of_freeze { Cause::FreezeTimedOut } else { Cause::TimedOut });
            }
            State::Handoff { phase: Phase::Probation { .. }, .. } => self.check(now),
            State::Handoff { phase: Phase::Committing { .. }, .. } => {
                self.tell_commit();
                self.barrier_passed(now);
            }
            State::Handoff { phase: Phase::LettingGo { .. }, .. } => self.complete(),
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
        let was_there = self.is_on_order(order);
        self.outputs.retain(|output| *output != Output::Action(order));
        was_there
    }

    fn is_on_order(&self, order: Action) -> bool {
        self.outputs.contains(&order.into())
    }

    /// Gives up a successor that runs.
    fn kill(&mut self, now: Duration, cause: Cause) {
        let (attempt, ticket, pid, since, granted) = match self.state {
            State::AwaitingReady { attempt, ticket, pid, since, .. } => (attempt, ticket, pid, since, false),
            State::Handoff { attempt, pid, phase: Phase::Probation { ticket, since, .. } | Phase::Checking { ticket, since }, .. } => {
                (attempt, ticket, pid, since, true)
            }
            _ => return,
        };
        let deadline = Some(now.saturating_add(KILL_TIMEOUT));
        self.take_back_grant(attempt);
        self.state = State::Killing { attempt, ticket: Some(ticket), pid, since, cause, granted, deadline };
        self.take_back(Action::Check(attempt));
        self.act(Action::Kill(attempt));
    }

    fn is_granting(&self) -> bool {
        matches!(self.state, State::AwaitingReady { handover: Handover::Granting { .. }, .. })
    }

    /// The successor will not have the service: new flows are this process's again, if they were about to be that one's.
    fn take_back_grant(&mut self, attempt: Attempt) {
        self.take_back(Action::Grant(attempt));
        if self.is_granting() && !self.take_back(Action::Steer(Side::Successor)) {
            self.act(Action::Steer(Side::This));
        }
    }

    /// It is the process that serves which tells the kernel so.
    pub(super) fn marks_freed(&mut self) {
        let serves = match self.state {
            State::Closed(_) | State::Idle | State::Spawning { .. } | State::Killing { granted: false, .. } => true,
            State::AwaitingReady { .. } => !self.is_granting(),
            State::Handoff { .. } | State::Killing { granted: true, .. } => false,
        };
        if serves {
            self.act(Action::Steer(Side::This));
        }
        self.tell(Notice::GenerationEnded);
    }

    fn fail(&mut self, ticket: Option<Ticket>, cause: Cause) {
        self.hold_no_successor();
        self.end(ticket, cause, Notice::Failed(cause));
        self.rest();
    }

    fn resume(&mut self, ticket: Option<Ticket>, cause: Cause) {
        self.act(Action::Steer(Side::This));
        self.act(Action::Hold(Whose::Returned));
        self.end(ticket, cause, Notice::Resumed(cause));
        if self.ends {
            // It would have been the successor's to tell, had the service stayed there.
            self.has_told_stopping = true;
            self.act(Action::TellStopping);
        } else {
            // When the program has been told, and comes back for more.
            self.act(Action::Hold(Whose::This));
        }
        self.rest();
    }

    fn end(&mut self, ticket: Option<Ticket>, cause: Cause, notice: Notice) {
        if let Some(ticket) = ticket {
            self.act(Action::Reply(ticket, Reply::Failed(cause)));
        }
        self.tell(notice);
    }

    /// Once the end is told nothing is held at all.
    fn hold_no_successor(&mut self) {
        if !self.has_told_stopping {
            self.act(Action::Hold(Whose::This));
        }
    }

    /// Where a process comes to rest when nothing is under way.
    fn rest(&mut self) {
        if self.stopping {
            self.state = State::Closed(Closed::Stopping { told: true });
        } else if self.thread_lost {
            self.broken();
        } else {
            self.state = State::Idle;
        }
    }

    /// No restart can be asked for any more, since the service ends with this process.
    fn close(&mut self) {
        self.state = State::Closed(Closed::Stopping { told: true });
        self.tell_stopping();
    }

    /// At once: nothing that waits to be carried out has to do with it. But a program that has the service again gets its
    /// connections first, to finish them.
    fn tell_stopping(&mut self) {
        if self.ends && !std::mem::replace(&mut self.has_told_stopping, true) {
            self.take_back(Action::Hold(Whose::This));
            self.take_back(Action::Hold(Whose::Both));
            let returns = self.outputs.iter().rposition(|output| *output == Action::Hold(Whose::Returned).into());
            self.outputs.insert(returns.map_or(0, |place| place + 1), Action::TellStopping.into());
        }
    }

    fn broken(&mut self) {
        self.state = State::Closed(Closed::Broken);
        self.tell(Notice::Broken);
    }

    /// The program goes on for a while after each thing that it is told: what is heard of the predecessor waits.
    fn put_ahead(&mut self, output: Output) {
        let is_later = |queued: &Output| matches!(queued, Output::Notice(Notice::Predecessor(_) | Notice::GenerationEnded));
        let place = self.outputs.iter().position(is_later).unwrap_or(self.outputs.len());
        self.outputs.insert(place, output);
    }

    fn act(&mut self, action: Action) {
        self.outputs.push_back(action.into());
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.outputs.push_back(notice.into());
    }
}
