//! What must hold of any history, judged by what went in and came out alone.
//!
//! A child counts as born when the thread, having been told to start it, says so for the first time; whatever else names it is noise. Of
//! a grant that is confirmed before it was carried out little is promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{
    Action, Closed, Handover, Input, Knows, Notice, Output, Phase, Reply, Side, State, TakeoverNotice, Ticket, Whose, refusals,
};

/// One attempt, as seen from outside.
#[derive(Debug, Default)]
struct Try {
    /// The order to start it went out, and the thread has answered.
    ordered: bool,
    answered: bool,
    /// The pid that was named, whether or not it was a birth.
    named: Option<u32>,
    born: bool,
    ended: bool,
    given: bool,
    /// The moment of the grant.
    granted_at: Duration,
    announced: bool,
    precopied: bool,
    asked: bool,
    abandoned: bool,
    killed: bool,
    /// Nobody waits for its end any more.
    unawaited: bool,
    granted: bool,
    /// Somebody says that it was told so: truly, or before it was.
    confirmed: bool,
    presumed: bool,
    handed_off: bool,
    committed: bool,
    informed: bool,
    over: bool,
}

impl Try {
    /// Whether a child lives, or may yet be born, that nobody has been told to get rid of.
    fn at_large(&self) -> bool {
        let coming = self.ordered && !self.answered;
        let living = self.born && !self.ended;
        (coming || living) && !self.abandoned && !(self.killed && self.unawaited)
    }
}

#[derive(Debug, Default)]
pub struct Laws {
    tries: BTreeMap<u64, Try>,
    /// The newest attempt that the machine has begun, and the newest that was told.
    newest: u64,
    told: u64,
    unanswered: BTreeSet<Ticket>,
    answered: BTreeSet<Ticket>,
    stopped: bool,
    told_stopping: bool,
    dropped: bool,
    thread_lost: bool,
    completed: Option<u32>,
    /// New flows go to the successor.
    steered: bool,
    /// What is held, once that was said.
    held: Option<Whose>,
    /// The program was told of the end of the predecessor.
    told_gone: bool,
    broken: bool,
    now: Duration,
}

type Verdict = Result<(), &'static str>;

fn law(holds: bool, otherwise: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Laws {
    pub fn new() -> Laws {
        // Attempt 0 stands for the time before the first.
        let before = Try { over: true, ..Try::default() };
        Laws { tries: BTreeMap::from([(0, before)]), ..Laws::default() }
    }

    /// Notes what goes in.
    pub fn goes_in(&mut self, now: Duration, input: Input) {
        self.now = now;
        match input {
            Input::Request(ticket) => assert!(self.unanswered.insert(ticket), "the test asks twice by one ticket"),
            Input::Spawned(attempt, pid) if (1..=self.newest).contains(&attempt.0) => {
                let (gone, of) = (self.thread_lost, self.tries.entry(attempt.0).or_default());
                if !of.answered {
                    of.answered = true;
                    of.named = Some(pid);
                    of.born = of.ordered && !gone;
                }
            }
            Input::SpawnFailed(attempt) if (1..=self.newest).contains(&attempt.0) => {
                self.tries.entry(attempt.0).or_default().answered = true;
            }
            Input::HandoverSent(attempt) | Input::Exited(attempt) => {
                if let Some(of) = self.tries.get_mut(&attempt.0).filter(|of| of.named.is_some()) {
                    of.ended |= input == Input::Exited(attempt);
                    of.given |= input == Input::HandoverSent(attempt);
                }
            }
            Input::Granted(attempt) => {
                if let Some(of) = self.tries.get_mut(&attempt.0) {
                    of.confirmed |= of.granted;
                    of.presumed |= !of.granted;
                    of.granted_at = now;
                }
            }
            Input::GivingUp => self.tries.values_mut().for_each(|of| of.unawaited = true),
            Input::Stop => self.stopped = true,
            Input::Dropped => self.dropped = true,
            Input::ThreadLost => {
                self.thread_lost = true;
                // What a thread that is gone was about to start will never be heard of.
                self.tries.values_mut().for_each(|of| of.answered = true);
            }
            _ => {}
        }
    }

    /// Judges what comes out, at the moment it is carried out.
    pub fn comes_out(&mut self, output: Output, state: State) -> Verdict {
        if output == Output::Action(Action::LetSurvivorsGo) {
            return law(self.told_gone, "what the predecessor has left is gone before its end is told");
        }
        if let Some(pid) = self.completed {
            let in_order = match output {
                Output::Action(Action::Reply(_, Reply::Refused(refusal))) => refusal == refusals::handed_off(pid),
                Output::Notice(Notice::SuccessorGone(gone)) => gone == pid,
                Output::Notice(Notice::Predecessor(_) | Notice::GenerationEnded) => true,
                _ => false,
            };
            law(in_order, "after Completed come only refusals, SuccessorGone and what is heard of the predecessor")?;
        }
        if self.broken {
            let in_order = match output {
                Output::Action(Action::Reply(_, Reply::Forbidden(Refusal::RestartThreadGone))) => true,
                Output::Action(Action::TellStopping) => self.stopped,
                Output::Action(Action::Steer(Side::This)) => true,
                Output::Action(Action::Reply(_, Reply::Refused(Refusal::Stopping))) => self.stopped || self.dropped,
                Output::Notice(Notice::Predecessor(_) | Notice::GenerationEnded) => true,
                _ => false,
            };
            law(in_order, "after Broken come only refusals, the end and what is heard of the predecessor")?;
        }
        match output {
            Output::Action(action) => self.acts(action, state),
            Output::Notice(notice) => self.tells(notice, state),
        }
    }

    fn acts(&mut self, action: Action, state: State) -> Verdict {
        let told = self.told;
        if let Action::Spawn(attempt)
        | Action::Abandon(attempt)
        | Action::Kill(attempt)
        | Action::Grant(attempt)
        | Action::Check(attempt)
        | Action::Commit(attempt)
        | Action::TellCommit(attempt) = action
        {
            law(attempt.0 == told, "an action names another attempt than the one concerned")?;
        }
        let others_at_large = self.tries.iter().any(|(number, of)| *number != told && of.at_large());
        let of = self.tries.entry(told).or_default();
        match action {
            Action::Spawn(_) => {
                law(self.held == Some(Whose::Both) || self.told_stopping, "a successor is started whose connections nobody holds")?;
                law(!others_at_large, "a successor is started while another lives")?;
                law(!of.ordered && !of.over, "a successor is started twice, or after its attempt")?;
                let wanted = matches!(state, State::Spawning { attempt, .. } if attempt.0 == told);
                law(wanted || of.answered, "a successor is started that nobody wants any more")?;
                of.ordered = true;
            }
            Action::Abandon(_) => {
                law(of.ordered && !of.abandoned && !of.announced, "Abandon is for a child that is on order, once")?;
                of.abandoned = true;
            }
            Action::Kill(_) => {
                law(of.named.is_some() && !of.killed && !of.committed && !of.over, "Kill is for a child that is ours, once")?;
                of.killed = true;
            }
            Action::Steer(Side::Successor) => {
                law(
                    of.named.is_some() && !of.granted && !of.killed && !of.over,
                    "new flows go to a child that is not about to be granted",
                )?;
                law(!self.steered, "new flows go to a child twice")?;
                self.steered = true;
            }
            Action::Steer(Side::This) => {
                let has_service = of.handed_off && !of.over;
                law(!has_service || of.ended || of.unawaited, "new flows are taken from a child that has the service and lives")?;
                self.steered = false;
            }
            Action::Grant(_) => {
                law(self.steered, "a child is granted the service before new flows go there")?;
                law(of.named.is_some() && !of.granted && !of.killed && !of.over, "Grant is for a child that is ours, once")?;
                law(!of.ended || of.presumed, "a dead child is granted the service")?;
                let wanted =
                    matches!(state, State::AwaitingReady { attempt, handover: Handover::Granting { .. }, .. } if attempt.0 == told);
                law(wanted || of.presumed, "a child is granted the service that was given up")?;
                law(of.given || !(of.asked || of.precopied), "a successor is granted the service while its state is on the way")?;
                of.granted = true;
            }
            Action::Hold(whose) => {
                let is_after = match whose {
                    Whose::Both => !of.ordered && !of.over && !self.told_stopping,
                    Whose::This => !of.handed_off || of.over,
                    Whose::Returned => of.handed_off && !of.committed && (of.ended || of.unawaited),
                    Whose::Successor => of.handed_off && !of.committed && !of.killed && !of.over,
                };
                law(is_after, "what is held is not of those who have a claim to the service")?;
                law(!self.told_stopping, "something is held after the end was told")?;
                let has_returned = self.held == Some(Whose::Returned);
                law(whose != Whose::This || !has_returned || of.over, "what a program has kept is gone before it is told")?;
                self.held = Some(whose);
            }
            Action::Commit(_) => {
                law(self.held == Some(Whose::Successor), "what this process drains is held when the successor becomes the main one")?;
                law(of.granted && of.handed_off && !of.committed && !of.killed && !of.over, "Commit follows HandedOff, once")?;
                of.committed = true;
            }
            Action::Check(_) => {
                law(of.handed_off && !of.committed && !of.killed && !of.over, "Check is for a child that can still lose the service")?;
            }
            Action::TellCommit(_) => {
                law(of.committed && !of.informed && !of.over, "TellCommit follows Commit, once")?;
                of.informed = true;
            }
            Action::Reply(ticket, reply) => {
                if let Reply::Completed(pid) = reply {
                    law(
                        of.informed && of.named == Some(pid),
                        "Completed is answered for a child that has not been told of the commitment",
                    )?;
                }
                law(self.unanswered.remove(&ticket), "a ticket is answered that nobody holds, or twice")?;
                law(self.answered.insert(ticket), "a ticket is answered twice")?;
            }
            // Judged before.
            Action::LetSurvivorsGo => {}
            Action::TellStopping => {
                law(self.stopped && !self.told_stopping, "the end of the service is told once, after a stop")?;
                self.told_stopping = true;
            }
        }
        Ok(())
    }

    fn tells(&mut self, notice: Notice, state: State) -> Verdict {
        if notice == Notice::Restarting {
            let before_is_over = self.tries[&self.told].over;
            self.told += 1;
            self.tries.entry(self.told).or_default();
            return law(before_is_over, "a restart begins before the last one is over");
        }
        let (told, of) = (self.told, self.tries.entry(self.told).or_default());
        match notice {
            Notice::Restarting => {}
            Notice::Spawned(pid) => {
                law(of.named == Some(pid) && !of.announced && !of.over, "Spawned names the child of the attempt, once")?;
                of.announced = true;
            }
            Notice::PrecopyRequested(attempt) => {
                let is_in_time = !of.asked && !of.granted && !of.over;
                law(attempt.0 == told && !of.precopied && is_in_time, "PrecopyRequested comes once, before StateRequested")?;
                of.precopied = true;
            }
            Notice::PrecopyRoom(attempt) => {
                let is_in_time = of.precopied && !of.asked && !of.granted && !of.over;
                law(attempt.0 == told && is_in_time, "PrecopyRoom comes between PrecopyRequested and StateRequested")?;
            }
            Notice::StateRequested(attempt) => {
                law(attempt.0 == told && !of.asked && !of.granted && !of.over, "StateRequested comes once, before the grant")?;
                of.asked = true;
            }
            Notice::Progress(attempt) => {
                law(attempt.0 == told && !of.granted && !of.over, "Progress is of the current attempt, and not told after the grant")?;
            }
            Notice::HandedOff(pid) => {
                law(self.steered, "HandedOff is told while new flows come here")?;
                law(of.granted && of.confirmed || of.presumed, "HandedOff is told of a child that has not been granted the service")?;
                law(of.named == Some(pid) && !of.handed_off && !of.killed && !of.over, "HandedOff names the child of the attempt, once")?;
                of.handed_off = true;
            }
            Notice::Completed(pid) => {
                law(of.informed && of.named == Some(pid) && !of.over, "Completed names the child that was told of the commitment")?;
                let (first, is_held_up) = (of.granted_at.saturating_add(Duration::from_millis(2)), of.asked && of.confirmed);
                let may_be_told = self.now >= first || of.ended || of.unawaited || self.stopped || self.dropped;
                law(!is_held_up || may_be_told, "who has handed something over lets go of it a moment after the grant")?;
                self.completed = Some(pid);
                of.over = true;
            }
            Notice::Failed(_) => {
                law(!self.steered, "a failure is told while new flows go to the child")?;
                law(!of.over && !of.handed_off, "an attempt fails once, and not while its child may have the service")?;
                of.over = true;
            }
            Notice::Resumed(_) => {
                law(!self.steered, "a failure is told while new flows go to the child")?;
                law(of.handed_off && !of.over && !of.committed, "Resumed takes back what was handed off")?;
                of.over = true;
            }
            Notice::SuccessorGone(pid) => {
                law(self.completed == Some(pid) && of.ended, "SuccessorGone is of the one that has taken over, when it has ended")?;
            }
            Notice::Predecessor(_) | Notice::GenerationEnded => {
                let is_known = !matches!(state, State::Handoff { .. }) || of.handed_off;
                law(is_known, "something is told between the grant and HandedOff")?;
                self.told_gone |= notice == Notice::Predecessor(TakeoverNotice::PredecessorGone);
            }
            Notice::Broken => {
                law(!self.broken && self.thread_lost, "Broken is told once, when the thread is lost")?;
                law(of.over, "Broken is told while a restart is under way")?;
                self.broken = true;
            }
        }
        Ok(())
    }

    /// Notes where the machine went.
    pub fn moved(&mut self, state: State) -> Verdict {
        match state {
            State::Spawning { attempt, .. } if attempt.0 > self.newest => {
                self.newest = attempt.0;
                law(!self.stopped && !self.dropped && !self.thread_lost, "a restart begins after a stop, or without a thread")
            }
            _ => Ok(()),
        }
    }

    /// Judges a machine that has nothing more to say.
    pub fn rests(&self, state: State) -> Verdict {
        let (current, asker) = match state {
            State::Closed(_) | State::Idle => (None, None),
            State::Spawning { attempt, ticket, .. } | State::AwaitingReady { attempt, ticket, .. } => (Some(attempt), Some(ticket)),
            State::Handoff {
                attempt,
                phase: Phase::Probation { ticket, .. } | Phase::Checking { ticket, .. } | Phase::Committing { ticket, .. },
                ..
            } => (Some(attempt), Some(ticket)),
            State::Handoff { attempt, phase: Phase::LettingGo { .. } | Phase::Committed, .. } => (Some(attempt), None),
            State::Killing { attempt, ticket, .. } => (Some(attempt), ticket),
        };
        let is_told = match state {
            State::Closed(Closed::NotReady { .. } | Closed::Stopping { told: false }) => !self.told_stopping,
            State::Handoff { .. } | State::Killing { granted: true, .. } => true,
            _ => self.told_stopping == self.stopped,
        };
        let is_there = match state {
            State::AwaitingReady { handover: Handover::Granting { .. }, .. } | State::Handoff { .. } => true,
            State::Killing { granted, .. } => granted,
            State::Closed(_) | State::Idle | State::Spawning { .. } | State::AwaitingReady { .. } => false,
        };
        law(self.steered == is_there, "new flows go to the one that has the service, or is about to be granted it")?;
        law(is_told || self.dropped, "the service manager is told of the end as soon as the service is nobody else's, and not before")?;
        let holds = match state {
            State::Closed(_) | State::Idle => matches!(self.held, None | Some(Whose::This)),
            State::Spawning { .. } | State::AwaitingReady { .. } | State::Killing { .. } => self.held == Some(Whose::Both),
            State::Handoff { phase: Phase::Probation { .. } | Phase::Checking { .. }, .. } => self.held == Some(Whose::Both),
            State::Handoff { .. } => self.held == Some(Whose::Successor),
        };
        law(holds || self.told_stopping, "what is held is of those who have a claim to the service, and of nobody else")?;
        law(self.unanswered.iter().eq(asker.iter()), "a ticket is neither answered nor in flight")?;
        for (number, of) in &self.tries {
            let current = current.is_some_and(|attempt| attempt.0 == *number);
            law(current || !of.at_large(), "a child is neither killed, dead, awaited nor handed off")?;
            law(current || of.over, "an attempt has ended and nobody was told")?;
        }
        let Some(of) = current.and_then(|attempt| self.tries.get(&attempt.0)) else {
            return law(current.is_none(), "an attempt goes on that nobody was told of");
        };
        let stands = match state {
            State::Closed(_) | State::Idle => true,
            State::Spawning { .. } => of.ordered && !of.killed && !of.granted,
            State::AwaitingReady { handover, .. } => {
                of.ordered && of.announced && !of.killed && !of.handed_off && of.granted == matches!(handover, Handover::Granting { .. })
            }
            State::Handoff { phase: Phase::Probation { .. } | Phase::Checking { .. }, .. } => of.handed_off && !of.killed && !of.committed,
            State::Handoff { phase: Phase::Committing { successor, .. }, .. } => {
                of.committed && !of.over && of.informed == (successor != Knows::NotTold)
            }
            State::Handoff { phase: Phase::LettingGo { .. }, gave, .. } => of.informed && !of.over && gave,
            State::Handoff { phase: Phase::Committed, .. } => of.informed && of.over,
            State::Killing { granted, .. } => of.killed && granted == of.handed_off,
        };
        law(stands, "what was done does not fit where it stands")
    }
}
