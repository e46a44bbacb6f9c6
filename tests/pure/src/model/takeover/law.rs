//! The laws by name.

use std::fmt;

/// A law, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TakeoverLaw {
    PrecopyPullOnce,
    PullOnce,
    ReadyOnce,
    RefuseOnlyWhenDecided,
    TellManagerOnce,
    SaysWhatTheProgramSays,
    KeepsWhatCanBeTaken,
    ClosesWhatNobodyTakes,
    OpenOnce,
    OpenOnlyWhenItMay,
    NothingAfterGivenUp,
    TakeServiceOnce,
    TakeServiceAfterOpen,
    TakeServiceOnlyItsOwn,
    NamesMainPidOnce,
    AnswersOnlyAlone,
    NoticeOnce,
    NoticesAreTrue,
    NoVerdictTooSoon,
    GoneIsLast,
    TellsWhatHappened,
    TellsWhatHolds,
    RefusesWithTheReason,
    ReadyWaitsForTheState,
    WakesInTime,
    FreesMarks,
    FreesMarksOnlyWhenItMay,
}

impl TakeoverLaw {
    pub const ALL: [TakeoverLaw; 27] = [
        TakeoverLaw::PrecopyPullOnce,
        TakeoverLaw::PullOnce,
        TakeoverLaw::ReadyOnce,
        TakeoverLaw::RefuseOnlyWhenDecided,
        TakeoverLaw::TellManagerOnce,
        TakeoverLaw::SaysWhatTheProgramSays,
        TakeoverLaw::KeepsWhatCanBeTaken,
        TakeoverLaw::ClosesWhatNobodyTakes,
        TakeoverLaw::OpenOnce,
        TakeoverLaw::OpenOnlyWhenItMay,
        TakeoverLaw::NothingAfterGivenUp,
        TakeoverLaw::TakeServiceOnce,
        TakeoverLaw::TakeServiceAfterOpen,
        TakeoverLaw::TakeServiceOnlyItsOwn,
        TakeoverLaw::NamesMainPidOnce,
        TakeoverLaw::AnswersOnlyAlone,
        TakeoverLaw::NoticeOnce,
        TakeoverLaw::NoticesAreTrue,
        TakeoverLaw::NoVerdictTooSoon,
        TakeoverLaw::GoneIsLast,
        TakeoverLaw::TellsWhatHappened,
        TakeoverLaw::TellsWhatHolds,
        TakeoverLaw::RefusesWithTheReason,
        TakeoverLaw::ReadyWaitsForTheState,
        TakeoverLaw::WakesInTime,
        TakeoverLaw::FreesMarks,
        TakeoverLaw::FreesMarksOnlyWhenItMay,
    ];
}

impl fmt::Display for TakeoverLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TakeoverLaw::PrecopyPullOnce => "SendPrecopyPull comes once, when the program asks, before it asks for the state",
            TakeoverLaw::PullOnce => "SendPull comes once, when the program asks, before this process is ready",
            TakeoverLaw::ReadyOnce => "SendReady comes once, when the program says so, and never before a state that was asked for",
            TakeoverLaw::RefuseOnlyWhenDecided => "SendRefuse comes when the program or an unusable state decides it, before the grant",
            TakeoverLaw::TellManagerOnce => "TellManager is for a first generation, once",
            TakeoverLaw::SaysWhatTheProgramSays => "what the program says is passed on at once",
            TakeoverLaw::KeepsWhatCanBeTaken => "what can still be taken of the state is not closed",
            TakeoverLaw::ClosesWhatNobodyTakes => "what nobody can take of the state any more is closed at once",
            TakeoverLaw::OpenOnce => "Open comes once for each Attach",
            TakeoverLaw::OpenOnlyWhenItMay => "Open is for a process that was granted the service, or is ready and alone",
            TakeoverLaw::NothingAfterGivenUp => "after GivenUp comes nothing but PredecessorGone",
            TakeoverLaw::TakeServiceOnce => "TakeService comes once for each Attach",
            TakeoverLaw::TakeServiceAfterOpen => "TakeService follows Open",
            TakeoverLaw::TakeServiceOnlyItsOwn => "the service is taken only when nobody can take it back",
            TakeoverLaw::NamesMainPidOnce => "the main PID is named once, by a process whose predecessor ended without a commit",
            TakeoverLaw::AnswersOnlyAlone => {
                "Answer comes when the predecessor does not answer any more, or nobody knows whether it does, and Sole when none lives"
            }
            TakeoverLaw::NoticeOnce => "each notice comes once",
            TakeoverLaw::NoticesAreTrue => "a notice tells what has happened",
            TakeoverLaw::NoVerdictTooSoon => "a predecessor that is dying or held up gets its time",
            TakeoverLaw::FreesMarks => "the marks of a generation that has ended are freed",
            TakeoverLaw::FreesMarksOnlyWhenItMay => "marks are freed by a process that serves",
            TakeoverLaw::GoneIsLast => "PredecessorGone is the last notice of the predecessor",
            TakeoverLaw::TellsWhatHappened => "what has happened is told",
            TakeoverLaw::TellsWhatHolds => "each restarter is told what holds",
            TakeoverLaw::RefusesWithTheReason => "the reason of a refusal says whose the service is",
            TakeoverLaw::ReadyWaitsForTheState => "ready is refused exactly while a state is on its way, waits or is unusable",
            TakeoverLaw::WakesInTime => "the machine is woken when a verdict or a look is due, and for nothing else",
        })
    }
}
