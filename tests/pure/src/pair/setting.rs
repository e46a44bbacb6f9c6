//! What may happen in a search: the settings, and each thing that can.
//!
//! In each of them: the death of either process at every point, each deadline, any number of requests, a program that cancels, stops or
//! drops, a restart thread that is lost, a successor that cannot be started, refuses or hangs. A [`Power`] adds to that.

use super::laws::Law;
use super::plant::Plant;
use super::world::Which;

/// What may happen besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The successor asks for the state, which may not be given, or not be usable.
    State,
    /// It may ask for what can go ahead of it before, which the old process may give, or fail to.
    Precopy,
    /// The successor may say how far it is, once.
    Progress,
    /// The old process has a predecessor.
    Predecessor,
    /// Ends take their time: a core dump, then closed descriptors, then memory.
    SlowEnds,
    /// And nobody sees them: `/proc` tells nothing.
    Unseen,
    /// An assumption about real time: a process has ended within a second after its descriptors are closed, and a loop that turns has done
    /// within a second after a lifeline is closed what follows from that. The other side waits at least so long.
    Punctual,
    /// The kernel may not take it that new flows are the successor's.
    Steering,
    /// What is started may be a wrapper: a kill reaches it, and not the successor. One such successor lives on at a time.
    Wrapper,
    /// The kernel may take nothing for a while, of either.
    Stalls,
    /// The kernel may refuse what it has not taken yet of the old process, and take nothing later.
    Refusals,
    /// The kernel may give out nothing of what has come for a while, of either.
    Shortages,
    /// There is a service manager. It may be too busy to be told of the commit, and answer late.
    Manager,
    /// A killed successor may not die.
    Undying,
    /// The lifeline may be shut down, or carry nonsense.
    Breaks,
    /// The program of the successor may close it.
    Closes,
    /// Even while the last word to it is in there, and nobody has read it.
    WordUnread,
    /// Both may be at once: a lifeline that is broken, and a process that no kill reaches.
    Unreachable,
    /// The kernel may not take the last word either, which is tried once.
    LastWordLost,
    /// A helper may have a copy of an end of it.
    Helpers,
    /// The program of the successor may drop its restarter and build another.
    Rebuilds,
    /// The restart thread may be held up while a successor runs already.
    LateThread,
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub probation: bool,
    pub powers: &'static [Power],
    pub plant: Option<Plant>,
    /// Laws that are not judged.
    pub waived: &'static [Law],
}

/// Searches in which every law holds.
pub const SETTINGS: &[(&str, &[Power])] = {
    use Power::*;
    &[
        ("what always may happen", &[]),
        ("the state, and a kernel and a manager that are busy", &[State, Stalls, Manager]),
        ("slow ends", &[State, SlowEnds, Stalls, LateThread]),
        ("slow ends that nobody sees", &[State, SlowEnds, Unseen, Punctual]),
        ("a broken lifeline, and one that does not die", &[State, SlowEnds, Breaks, Closes, LateThread, Undying]),
        ("a broken lifeline, and nobody is held up", &[State, SlowEnds, Breaks, Closes, Unseen, Punctual]),
        ("a lifeline that is shut down, and a kernel that is busy", &[Breaks, Stalls]),
        ("a lifeline that is closed, and a kernel that is busy", &[Closes, Stalls]),
        ("a kernel that refuses, and a second restarter", &[State, Stalls, Refusals, Rebuilds]),
        ("pre-copy, and a kernel that is busy", &[Precopy, State, Stalls]),
        ("pre-copy, and slow ends", &[Precopy, State, SlowEnds, LateThread]),
        ("pre-copy, and a broken lifeline", &[Precopy, State, Breaks, Closes]),
        ("behind a wrapper", &[Wrapper, State, LateThread]),
        ("pre-copy, behind a wrapper", &[Precopy, State, Wrapper]),
        ("pre-copy, and a kernel that gives out nothing", &[Precopy, State, Shortages]),
        ("behind a wrapper, with a kernel that is busy", &[Wrapper, Stalls]),
        ("behind a wrapper, and slow ends", &[Wrapper, SlowEnds, Punctual, LateThread, Rebuilds]),
        ("helpers with copies of the lifeline", &[Helpers, State, SlowEnds, Manager]),
        ("helpers, behind a wrapper", &[Helpers, Wrapper]),
        ("new flows that cannot be given away", &[Steering, State, SlowEnds]),
        ("a line of progress", &[Progress, State, Stalls]),
        ("a line of progress, and slow ends", &[Progress, SlowEnds, LateThread]),
        ("a predecessor, and a kernel that is busy", &[Predecessor, Stalls]),
        ("a kernel that gives out nothing", &[Shortages, State, SlowEnds, LateThread]),
        ("a kernel that gives out nothing, and takes nothing", &[Shortages, Stalls]),
        ("a kernel that gives out nothing, behind a wrapper", &[Shortages, Wrapper]),
    ]
};

/// What is taken for granted, and the laws that do not hold otherwise. All others do.
pub const ASSUMPTIONS: &[(&str, &[Power], &[Law])] = {
    use Power::*;
    &[
        ("a dying process that nobody sees has ended within a second", &[SlowEnds, Unseen], &[Law::NoOwner]),
        ("nor does one see it that is no child", &[SlowEnds, Wrapper], &[Law::NoOwner]),
        (
            "the kernel takes the last word to a process that no kill reaches",
            &[Wrapper, Stalls, LastWordLost],
            &[Law::GivenUpServes, Law::TwoOwners, Law::FlowsAstray],
        ),
        (
            "the lifeline of a process that no kill reaches is whole",
            &[Wrapper, Closes, Unreachable],
            &[Law::GivenUpServes, Law::TwoOwners, Law::FlowsAstray],
        ),
        ("a program does not close a lifeline with a grant in it that nobody has read", &[Closes, WordUnread], &[Law::NoOwner]),
        ("nor one of which a helper has a copy", &[Closes, Helpers], &[Law::NoOwner]),
        (
            "the kernel takes the commit of a restarter that is dropped, or no helper has a copy of its end",
            &[Helpers, Stalls],
            &[Law::Stuck],
        ),
    ]
};

impl Setting {
    pub const fn new(powers: &'static [Power], probation: bool) -> Setting {
        Setting { probation, powers, plant: None, waived: &[] }
    }

    pub fn has(&self, power: Power) -> bool {
        self.powers.contains(&power)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Somebody asks the old process for a restart.
    Request,
    /// Something is heard of a predecessor of the old process.
    Hear,
    Cancel,
    Stop,
    /// The program of the old process drops its restarter.
    Drop,
    /// It gives the state, or fails to.
    Give,
    FailToGive,
    /// It gives something ahead of the state, says that this is all, or fails to.
    GiveAhead,
    EndAhead,
    FailAhead,
    /// The loop turns once, and what is due besides what has come.
    Poll,
    PollAtDeadline,
    ThreadStarts,
    ThreadStartsWrapper,
    ThreadFails,
    ThreadReports,
    ThreadLost,
    /// No lifeline can be made for the successor that is about to be started.
    NoLifeline,
    /// It will not be taken that new flows are the successor's.
    Unsteerable,
    /// The end of the old process begins, or goes on.
    OldEnds,
    OldHelper,
    /// The kernel refuses what it has not taken yet.
    KernelRefuses,
    OldStalls,
    OldGoesOn,
    /// The kernel gives out nothing to the old process, for longer than that one waits, and does again.
    OldShort,
    OldStaysShort,
    OldReads,
    ManagerBusy,
    ManagerShort,
    ManagerAttends,
    /// It gives the sign that it was asked for.
    ManagerAnswers,
    New(Which, Step),
}

/// What a new process does, and what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// It reads the first message.
    Adopt,
    /// A thread that waits looks at the predecessor.
    Look,
    /// The same, and what has come cannot be used.
    LookUnusable,
    /// The same when the deadline has passed.
    LookAtDeadline,
    /// The loop does what there is to do.
    Loop,
    PullPrecopy,
    Pull,
    /// It has what can go ahead, and asks for the rest.
    PullTheRest,
    TakeState,
    TellProgress,
    SayReady,
    Refuse,
    CloseLine,
    /// Somebody shuts the lifeline down.
    ShutLine,
    TalkGarbage,
    Stalls,
    GoesOn,
    /// The kernel gives out nothing to it, and does again.
    Short,
    Reads,
    /// Its end begins, or goes on.
    Ends,
    WrapperEnds,
    Undying,
    DiesAtLast,
    /// The restart thread gets to kill it.
    LateKill,
    /// It starts a helper that has a copy of the lifeline.
    Helper,
    /// Its program rules restarts out.
    Stop,
    /// It drops its restarter, and builds another.
    Rebuild,
}

impl Act {
    /// Whether it comes without anybody doing anything new: what is on its way arrives, a deadline passes, a program does what it is there
    /// for. Where none of that is left, the pair is at rest.
    pub fn is_due(self) -> bool {
        match self {
            Act::Poll | Act::PollAtDeadline => true,
            Act::Give | Act::EndAhead | Act::ThreadStarts | Act::ThreadReports | Act::OldGoesOn | Act::OldReads => true,
            Act::ManagerAttends | Act::ManagerAnswers => true,
            Act::New(_, step) => matches!(
                step,
                Step::Adopt
                    | Step::Look
                    | Step::LookAtDeadline
                    | Step::Loop
                    | Step::PullTheRest
                    | Step::TakeState
                    | Step::SayReady
                    | Step::GoesOn
                    | Step::Reads
                    | Step::LateKill
            ),
            _ => false,
        }
    }
}
