//! What a case is: a step, a fault, and whom it strikes; and which of them make sense.

use std::fmt;

/// Where the restart stands when the fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The old process is about to start the new one.
    BeforeSpawn,
    /// The new one runs and has done nothing; the old one has not looked at it since.
    AfterSpawn,
    /// The new one has read the first message, and has said nothing.
    Hello,
    /// It has said who it is.
    Here,
    /// It has asked for what can go ahead of the state, and the old one has yet to give it.
    Precopy,
    /// The first part of that is there.
    HalfAhead,
    /// All of that is there, and it has yet to ask for the state.
    Ahead,
    /// It has asked for the state, and the old one has yet to give it.
    Pull,
    /// The first part of the state is there.
    Half,
    /// All of it is.
    End,
    /// The new one has said that it is ready; the old one has not read it.
    Ready,
    /// The new one has been told that the service is its own; the old one has not committed.
    Granted,
    /// The same, and the old one can take the service back.
    Probation,
    /// The new one has been told that it is final; the old one has yet to do what it does then.
    Commit,
    /// The old one finishes its work.
    Drain,
}

use Step::*;

pub const STEPS: [Step; 15] =
    [BeforeSpawn, AfterSpawn, Hello, Here, Precopy, HalfAhead, Ahead, Pull, Half, End, Ready, Granted, Probation, Commit, Drain];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    Exit0,
    Exit1,
    Abort,
    /// It is told to end by SIGTERM, twice.
    Terminate,
    /// It closes its lifeline and lives on.
    Close,
    /// It says what makes no sense.
    Garbage,
    /// It dies, and a helper process keeps a copy of its lifeline.
    Helper,
    /// Its descriptor table is full.
    Full,
    /// Its user may have no more processes or threads.
    Crowded,
    /// It is stopped for a moment.
    Pause,
    /// It is stopped past the deadline of the restart, while the other goes on.
    Suspend,
    /// So are both: the machine was suspended, by somebody who let its clock go on.
    Sleep,
    /// It does nothing more, until the deadline has passed.
    Slow,
}

use Fault::*;

pub const FAULTS: [Fault; 14] = [Kill, Exit0, Exit1, Abort, Terminate, Close, Garbage, Helper, Full, Crowded, Pause, Suspend, Sleep, Slow];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Old,
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub step: Step,
    pub fault: Fault,
    pub victim: Victim,
}

impl Fault {
    /// The victim is dead of it.
    pub fn is_deadly(self) -> bool {
        matches!(self, Kill | Exit0 | Exit1 | Abort | Terminate | Helper)
    }
}

impl Case {
    pub fn makes_sense(self) -> bool {
        let Case { step, fault, victim } = self;
        match (victim, step) {
            // It is not there yet.
            (Victim::New, BeforeSpawn) => return false,
            // As after the spawn: that the new one has read it changes nothing for the old one.
            (Victim::Old, Hello) => return false,
            _ => {}
        }
        let before_ready = (AfterSpawn..=End).contains(&step);
        match fault {
            Kill | Exit0 | Exit1 | Abort => true,
            // One that turns would stop in order at the first.
            Terminate if victim == Victim::Old => {
                matches!(step, BeforeSpawn | AfterSpawn | Precopy | HalfAhead | Pull | Half | Ready | Granted | Commit)
            }
            Terminate => true,
            // There is no lifeline before.
            Close | Garbage | Helper => step != BeforeSpawn,
            // One that has read no more than the first message opens nothing.
            Full | Crowded | Pause => step != Hello,
            // It strikes both, which are there and under way.
            Sleep if victim == Victim::New => false,
            Suspend | Sleep if victim == Victim::Old => step != BeforeSpawn && step < Commit,
            // Of one that is on probation nothing is expected but that it lives.
            Suspend | Sleep => (before_ready && step != Hello) || step == Probation,
            // The old one has no deadline to keep, and one that is ready has kept it.
            Slow => victim == Victim::New && matches!(step, AfterSpawn | Hello | Here | Ahead | End),
        }
    }

    /// Its time to become ready is short.
    pub fn is_impatient(self) -> bool {
        (self.is_long() || self.fault == Slow) && self.step < Granted
    }

    /// A deadline passes meanwhile.
    pub fn is_long(self) -> bool {
        matches!(self.fault, Suspend | Sleep)
    }

    /// A state is handed over.
    pub fn has_state(self) -> bool {
        self.goes_ahead() || matches!(self.step, Pull | Half | End)
    }

    /// Something goes ahead of it.
    pub fn goes_ahead(self) -> bool {
        self.step.goes_ahead()
    }

    pub fn name(self) -> String {
        let promise = if self.victim == Victim::New && self.step < Granted { "promise_03" } else { "promise_07" };
        format!("{promise}_{self}")
    }
}

impl Step {
    /// Something goes ahead of the state.
    pub fn goes_ahead(self) -> bool {
        matches!(self, Precopy | HalfAhead | Ahead)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BeforeSpawn => "before_the_spawn",
            AfterSpawn => "after_the_spawn",
            Hello => "at_hello",
            Here => "at_here",
            Precopy => "at_precopy",
            HalfAhead => "half_way_through_what_goes_ahead",
            Ahead => "with_all_that_goes_ahead",
            Pull => "at_pull",
            Half => "half_way_through_the_items",
            End => "at_end",
            Ready => "at_ready",
            Granted => "at_granted",
            Probation => "on_probation",
            Commit => "at_commit",
            Drain => "while_it_drains",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Kill => "is_killed",
            Exit0 => "exits_with_0",
            Exit1 => "exits_with_1",
            Abort => "aborts",
            Terminate => "is_terminated_twice",
            Close => "closes_its_lifeline",
            Garbage => "talks_garbage",
            Helper => "dies_and_leaves_a_helper",
            Full => "has_no_descriptors",
            Crowded => "may_start_nothing",
            Pause => "is_stopped_for_a_moment",
            Suspend => "is_stopped_past_the_deadline",
            Sleep => return write!(f, "{}::the_machine_sleeps_past_the_deadline", self.step),
            Slow => "is_too_slow",
        };
        let victim = if self.victim == Victim::Old { "old" } else { "new" };
        write!(f, "{}::the_{victim}_one_{fault}", self.step)
    }
}

/// All that make sense.
pub fn all() -> Vec<Case> {
    let victims = |step, fault| [Victim::Old, Victim::New].map(|victim| Case { step, fault, victim });
    let cases = STEPS.into_iter().flat_map(|step| FAULTS.into_iter().flat_map(move |fault| victims(step, fault)));
    cases.filter(|case| case.makes_sense()).collect()
}
