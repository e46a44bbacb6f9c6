//! The machine in step with the model, and what is done with what it says.

use std::collections::BTreeMap;

use pollflip::internals::machine::{Action, Attempt, Cause, Input, Notice, Output, State, TakeoverNotice};
use pollflip::internals::simulation::{Seen, Step};
use pollflip::{Event, Exit, Failure};

use crate::model::Checked;

use super::act::Setting;
use super::successor::{Said, Successor};

pub struct Judge {
    pub checked: Checked,
    /// What was to be told since the last event.
    notices: Vec<Notice>,
    /// The child of each attempt, and how it has ended.
    births: BTreeMap<Attempt, u32>,
    pub exits: BTreeMap<u32, Exit>,
    /// The kernel has refused to take something, and not for a while.
    pub lost_for_good: bool,
    /// The lifeline could not be read any more, and not for a while.
    pub unreadable: bool,
}

impl Judge {
    pub fn new(setting: Setting) -> Judge {
        Judge {
            checked: Checked::new(setting.limits()),
            notices: Vec::new(),
            births: BTreeMap::new(),
            exits: BTreeMap::new(),
            lost_for_good: false,
            unreadable: false,
        }
    }

    /// Goes through what was done: the model must do the same.
    pub fn sees(&mut self, steps: Vec<Step>, state: State, children: &[Seen], successors: &[Successor]) {
        self.exits.extend(children.iter().filter(|child| child.ended).map(|child| (child.pid, child.exit)));
        for step in steps {
            match step {
                Step::In(now, input) => {
                    self.is_true(input, children, successors);
                    self.checked.step(now.saturating_sub(self.checked.now()), input, 0);
                }
                Step::Out(output) => {
                    assert_eq!(self.checked.drain(1), [output], "{}", self.checked);
                    match output {
                        Output::Notice(notice) => {
                            if let Notice::Completed(pid) = notice {
                                self.is_final(pid, children, successors);
                            }
                            self.notices.push(notice);
                        }
                        Output::Action(action) => self.is_done(action, children),
                    }
                }
                Step::Obstacle(obstacle) => self.checked.obstruct(obstacle),
            }
        }
        assert_eq!(self.checked.state(), state, "{}", self.checked);
        let at_large: Vec<_> = children.iter().filter(|child| !child.ended && !child.killed).collect();
        assert!(at_large.len() <= 1, "more than one successor: {at_large:?}\n{}", self.checked);
    }

    /// What comes in has happened.
    fn is_true(&mut self, input: Input, children: &[Seen], successors: &[Successor]) {
        let child = |attempt| self.births.get(&attempt).and_then(|pid| children.iter().find(|child| child.pid == *pid));
        let said = |attempt, what| {
            let pid = self.births.get(&attempt);
            successors.iter().any(|successor| Some(&successor.pid) == pid && successor.said.contains(&what))
        };
        let holds = match input {
            Input::Spawned(attempt, pid) => {
                self.births.insert(attempt, pid);
                children.last().is_some_and(|child| child.pid == pid)
            }
            Input::Exited(attempt) => child(attempt).is_some_and(|child| child.ended && child.reaped || child.killed),
            Input::PrecopyRequested(attempt) | Input::PrecopyRoom(attempt) => said(attempt, Said::PrecopyPull),
            Input::StateRequested(attempt) => said(attempt, Said::Pull),
            Input::Ready(attempt) => said(attempt, Said::Ready),
            // It has it, or would if it had stayed.
            Input::Granted(attempt) => {
                let pid = self.births.get(&attempt);
                successors.iter().any(|successor| Some(&successor.pid) == pid && (successor.granted || !successor.is_open()))
            }
            Input::CommitTaken(attempt) => {
                let pid = self.births.get(&attempt);
                self.lost_for_good
                    || successors.iter().any(|successor| Some(&successor.pid) == pid && (successor.committed || !successor.is_open()))
            }
            // What passes does not end a lifeline.
            Input::LifelineClosed(attempt) => {
                let pid = self.births.get(&attempt);
                let closed = successors.iter().any(|successor| Some(&successor.pid) == pid && !successor.is_open());
                closed || self.unreadable || self.lost_for_good
            }
            Input::Refused(attempt) => said(attempt, Said::Refuse),
            Input::Garbage(attempt) => said(attempt, Said::Nonsense),
            Input::Here(attempt, pid) => self.births.get(&attempt) == Some(&pid) || said(attempt, Said::AnotherPid),
            _ => true,
        };
        assert!(holds, "{input:?} has not happened\n{}", self.checked);
    }

    /// The successor knows, or would if it had stayed: it has been told, unless that has failed for good. Or it was given up in the end, since
    /// its lifeline could not be read.
    pub fn is_final(&self, pid: u32, children: &[Seen], successors: &[Successor]) {
        let ended = children.iter().any(|child| child.pid == pid && (child.ended || child.killed));
        let told = |successor: &Successor| successor.pid == pid && (successor.committed || !successor.is_open());
        let knows = ended || self.lost_for_good || successors.iter().any(told);
        assert!(knows, "the successor has not been told that it is final\n{}", self.checked);
    }

    /// What is to be done is.
    fn is_done(&self, action: Action, children: &[Seen]) {
        if let Action::Kill(attempt) = action {
            let pid = self.births.get(&attempt);
            let child = children.iter().find(|child| Some(&child.pid) == pid);
            assert!(child.is_some_and(|child| child.killed || child.ended), "{action:?} was not done\n{}", self.checked);
        }
    }

    /// What the program is told is what the machine had to tell, and true.
    pub fn hears(&mut self, event: Option<&Event>) {
        let is_line = |notice: &Notice| {
            matches!(notice, Notice::Progress(_) | Notice::GenerationEnded | Notice::Predecessor(TakeoverNotice::LineLost))
        };
        let notices = std::mem::take(&mut self.notices);
        let told = match (event, notices.as_slice()) {
            (None | Some(Event::Inherited(_) | Event::Arrived(_) | Event::ArrivedAll), []) => true,
            // Lines that a later one has overtaken.
            (None, overtaken) => overtaken.iter().all(is_line),
            (Some(event), [overtaken @ .., notice]) => overtaken.iter().all(is_line) && self.means(event, *notice),
            _ => false,
        };
        assert!(told, "{event:?} for {notices:?}\n{}", self.checked);
    }

    fn means(&self, event: &Event, notice: Notice) -> bool {
        match (event, notice) {
            (Event::Restarting, Notice::Restarting)
            | (Event::PrecopyRequested(_), Notice::PrecopyRequested(_))
            | (Event::PrecopyRoom, Notice::PrecopyRoom(_))
            | (Event::StateRequested(_), Notice::StateRequested(_))
            | (Event::Progress(_), Notice::Progress(_))
            | (Event::NoMoreRestarts(_), Notice::Broken)
            | (Event::Granted, Notice::Predecessor(TakeoverNotice::Granted))
            | (Event::Committed, Notice::Predecessor(TakeoverNotice::Committed))
            | (Event::GivenUp(_), Notice::Predecessor(TakeoverNotice::GivenUp))
            | (Event::GenerationEnded(_), Notice::GenerationEnded)
            | (Event::PredecessorGone, Notice::Predecessor(TakeoverNotice::PredecessorGone)) => true,
            (Event::Spawned(pid), Notice::Spawned(of))
            | (Event::HandedOff(pid), Notice::HandedOff(of))
            | (Event::Completed(pid), Notice::Completed(of))
            | (Event::SuccessorGone(pid), Notice::SuccessorGone(of)) => *pid == of,
            (Event::Resumed(why), Notice::Resumed(cause)) | (Event::Failed(why), Notice::Failed(cause)) => self.explains(why, cause),
            _ => false,
        }
    }

    fn explains(&self, why: &Failure, cause: Cause) -> bool {
        let last = self.births.values().last().and_then(|pid| self.exits.get(pid));
        match (why, cause) {
            (Failure::Spawn(_), Cause::SpawnFailed)
            | (Failure::TimedOut { .. }, Cause::TimedOut)
            | (Failure::FreezeTimedOut { .. }, Cause::FreezeTimedOut)
            | (Failure::HungUp, Cause::HungUp)
            | (Failure::Protocol(_), Cause::Protocol(_))
            | (Failure::Stopping, Cause::Stopping) => true,
            (Failure::Refused(reason), Cause::Refused) | (Failure::Cancelled(reason), Cause::Cancelled) => !reason.is_empty(),
            (Failure::Handover(reason), Cause::HandoverFailed | Cause::GrantNotTaken) => !reason.is_empty(),
            (Failure::Steering(reason), Cause::Steering) => !reason.is_empty(),
            (Failure::Exited { exit, .. }, Cause::Exited | Cause::HungUp)
            | (Failure::DiedOnProbation(exit), Cause::DiedOnProbation | Cause::HungUp) => Some(exit) == last,
            _ => false,
        }
    }
}
