//! Faults for the laws to find: what a wrapper around a machine, the driver or the lifeline does wrong.
//!
//! Knows: where each tampers. Does not know: which law finds it.

use pollflip::internals::machine::{
    Action, Cause, Inbound, Input, Notice, Output, Reply, Side, Stage, Takeover, TakeoverInput, TakeoverNotice, TakeoverOutput, Whose,
};

use super::automaton::Move;
use super::laws::Law;
use super::room::Room;
use super::setting::Power;
use super::world::Message;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    // The takeover machine.
    ReadyIsGranted,
    ClosedIsGranted,
    CommitUnheard,
    EndUnheard,
    GivenUpUnheard,
    GrantUnheard,
    ClosedIsEnded,
    DyingUnseen,
    ReadyWithoutTheState,
    UnusableIsUsed,
    TakesWithTheGrant,
    TakesTwice,
    NeverTakes,
    PermitsOnProbation,
    KeepsWhatCameAhead,
    ServesWithoutTheRest,
    EndBeforeWords,
    // The restart machine.
    RepliesTwice,
    NeverReplies,
    ResumesAfterCommit,
    NoHandOff,
    LineAfterTheGrant,
    NeverKills,
    NeverAbandons,
    NeverCommits,
    NeverTellsCommit,
    GoneUntold,
    GrantsBeforeFlows,
    KeepsFlowsThere,
    RefusesTwice,
    HoldsNoSuccessor,
    HoldsWhatIsDrained,
    HoldsTheFailed,
    // The driver of the old process.
    KilledIsEnded,
    GrantsTheDead,
    GrantsLate,
    ChecksBlindly,
    GivesUpInSilence,
    TurnsWithoutTelling,
    ExitUnheard,
    TakenUnheard,
    CloseForgotten,
    LostIsFine,
    LeavesTheLate,
    GivesUpUnheard,
    AskedUnheard,
    HoldsThePredecessors,
    // The lifeline.
    LosesGrant,
    LosesCommit,
    CommitOvertakes,
    StateOvertakes,
}

/// Each with what it does wrong, in which search, and the law that finds it.
pub const PLANTS: &[(Plant, &str, &[Power], bool, Law)] = {
    use Plant::*;
    use Power::*;
    &[
        (ReadyIsGranted, "takeover: its own word is the grant", &[], false, Law::TwoOwners),
        (ClosedIsGranted, "takeover: a lifeline that closes is the grant", &[SlowEnds], false, Law::Ungranted),
        (CommitUnheard, "takeover: the commit is not heard", &[], true, Law::Stuck),
        (EndUnheard, "takeover: the end of the predecessor is not heard", &[], false, Law::NoOwner),
        (GivenUpUnheard, "takeover: it is not heard that it is given up", &[Wrapper], false, Law::GivenUpServes),
        (GrantUnheard, "takeover: the grant is not heard", &[], false, Law::NoOwner),
        (ClosedIsEnded, "takeover: a closed lifeline is the end of the predecessor", &[Closes], false, Law::TwoOwners),
        (DyingUnseen, "takeover: a dying predecessor puts nothing off", &[SlowEnds], false, Law::NoOwner),
        (ReadyWithoutTheState, "takeover: ready while the state is on its way", &[State], false, Law::StateMissing),
        (UnusableIsUsed, "takeover: a state that cannot be used is taken for none", &[State], false, Law::StateMissing),
        (TakesWithTheGrant, "takeover: the grant is the commit", &[], true, Law::OnProbation),
        (TakesTwice, "takeover: the service is taken twice", &[], false, Law::TakenTwice),
        (NeverTakes, "takeover: the service is not taken", &[], false, Law::Stuck),
        (
            KeepsWhatCameAhead,
            "takeover: what has come ahead is kept when its state does not come",
            &[Precopy, State],
            false,
            Law::AheadKept,
        ),
        (ServesWithoutTheRest, "both: ready with what has come ahead, and without its state", &[Precopy, State], false, Law::StateMissing),
        (PermitsOnProbation, "takeover: a restart is permitted on probation", &[], true, Law::OnProbation),
        (
            EndBeforeWords,
            "takeover: the predecessor has ended, although its last word cannot be read yet",
            &[Shortages, Wrapper],
            false,
            Law::GivenUpServes,
        ),
        (RepliesTwice, "restart: a failure is answered twice", &[], false, Law::Ticket),
        (NeverReplies, "restart: a success is not answered", &[], false, Law::Ticket),
        (RefusesTwice, "restart: who asks too late is answered twice", &[], false, Law::Ticket),
        (ResumesAfterCommit, "restart: the end of the successor takes a commit back", &[], false, Law::AfterCommit),
        (NoHandOff, "restart: the program does not learn that the service is another's", &[], true, Law::AfterCommit),
        (LineAfterTheGrant, "restart: a line of progress is told between the grant and the handoff", &[], false, Law::TwoOwners),
        (NeverKills, "restart: nothing is killed", &[], false, Law::Stray),
        (NeverAbandons, "restart: what is being started is not given up", &[], false, Law::OneAtATime),
        (NeverCommits, "restart: nobody is told that it is final", &[], true, Law::Ticket),
        (NeverTellsCommit, "restart: the successor is not told that it is final", &[], true, Law::Ticket),
        (GrantsBeforeFlows, "restart: the service is granted, and new flows stay here", &[], false, Law::FlowsAstray),
        (KeepsFlowsThere, "restart: new flows stay with a successor that has failed", &[Wrapper], false, Law::FlowsAstray),
        (HoldsNoSuccessor, "restart: a successor is started, and nothing that it will have is held", &[], false, Law::Unheld),
        (HoldsWhatIsDrained, "restart: what is drained stays held after the commit", &[], false, Law::DrainedHeld),
        (HoldsTheFailed, "restart: what a successor had stays held when it has failed", &[], true, Law::HeldForNobody),
        (GoneUntold, "restart: the end of the successor is not told", &[], false, Law::EndUnreported),
        (KilledIsEnded, "driver: what is killed is taken for ended", &[], false, Law::OneAtATime),
        (GrantsTheDead, "driver: nobody looks whether the successor lives that is granted the service", &[], false, Law::DeadGranted),
        (
            GrantsLate,
            "driver: a grant that waits goes to what a helper has of one that has ended",
            &[Helpers, Stalls],
            true,
            Law::DeadGranted,
        ),
        (ChecksBlindly, "driver: nobody looks whether the successor lives whose probation is over", &[], true, Law::DeadGranted),
        (GivesUpInSilence, "driver: a successor that is given up is not told", &[Wrapper], false, Law::GivenUpServes),
        (TurnsWithoutTelling, "driver: the program goes on before it is told what a turn has brought", &[Stalls], false, Law::TwoOwners),
        (ExitUnheard, "driver: the end of the successor is not fed", &[], false, Law::EndUnreported),
        (TakenUnheard, "driver: nobody sees that the kernel has taken the commit", &[], false, Law::Ticket),
        (CloseForgotten, "driver: a closed lifeline is forgotten and found again and again", &[Breaks], false, Law::Endless),
        (LostIsFine, "restart: a successor whose lifeline is lost is waited for without a limit", &[Breaks], false, Law::Ticket),
        (LeavesTheLate, "driver: one that comes too late is left alone", &[LateThread], false, Law::Stray),
        (GivesUpUnheard, "driver: a drop leaves the commit to a kernel that does not take it", &[Stalls], false, Law::Ticket),
        (AskedUnheard, "driver: nobody hears that the service manager is being told", &[], false, Law::Ticket),
        (HoldsThePredecessors, "driver: what a predecessor had stays held when it has ended", &[], false, Law::HeldForNobody),
        (LosesGrant, "lifeline: the grant is lost", &[], false, Law::NoOwner),
        (LosesCommit, "lifeline: the commit is lost", &[], true, Law::Stuck),
        (StateOvertakes, "lifeline: the state overtakes what goes ahead of it", &[Precopy, State], false, Law::AheadMissing),
        (CommitOvertakes, "lifeline: the commit overtakes the grant", &[], false, Law::Stuck),
    ]
};

impl Plant {
    pub fn takeover_inputs(plant: Option<Plant>, stage: Stage, input: TakeoverInput) -> Vec<TakeoverInput> {
        match (plant, input) {
            (Some(Plant::ReadyIsGranted), TakeoverInput::SayReady) => vec![input, TakeoverInput::Granted],
            (Some(Plant::ClosedIsGranted), TakeoverInput::LineClosed { .. }) => vec![TakeoverInput::Granted, input],
            (Some(Plant::CommitUnheard), TakeoverInput::Commit) => vec![],
            (Some(Plant::EndUnheard), TakeoverInput::PredecessorEnded) => vec![],
            (Some(Plant::GivenUpUnheard), TakeoverInput::GivenUp) => vec![],
            (Some(Plant::GrantUnheard), TakeoverInput::Granted) => vec![],
            (Some(Plant::ClosedIsEnded), TakeoverInput::LineClosed { .. }) => vec![input, TakeoverInput::PredecessorEnded],
            (Some(Plant::DyingUnseen), TakeoverInput::PredecessorDying) => vec![],
            (Some(Plant::ReadyWithoutTheState), TakeoverInput::SayReady)
                if matches!(stage, Stage::Starting { state: Inbound::Asked, .. }) =>
            {
                vec![TakeoverInput::StateComplete, TakeoverInput::StateTaken, input]
            }
            (Some(Plant::ReadyWithoutTheState), TakeoverInput::SayReady) => vec![TakeoverInput::StateTaken, input],
            (Some(Plant::ServesWithoutTheRest), TakeoverInput::SayReady)
                if matches!(stage, Stage::Starting { state: Inbound::Precopied, .. }) =>
            {
                vec![TakeoverInput::Pull, TakeoverInput::StateComplete, TakeoverInput::StateTaken, input]
            }
            (Some(Plant::UnusableIsUsed), TakeoverInput::StateUnusable) => {
                vec![TakeoverInput::StateComplete, TakeoverInput::StateTaken]
            }
            (Some(Plant::TakesWithTheGrant), TakeoverInput::Granted) => vec![input, TakeoverInput::Commit],
            _ => vec![input],
        }
    }

    pub fn takeover_output(plant: Option<Plant>, output: TakeoverOutput) -> Vec<TakeoverOutput> {
        match (plant, output) {
            (Some(Plant::TakesTwice), TakeoverOutput::TakeService { .. }) => vec![output, output],
            (Some(Plant::NeverTakes), TakeoverOutput::TakeService { .. }) => vec![],
            (Some(Plant::PermitsOnProbation), TakeoverOutput::Notice(TakeoverNotice::Granted)) => {
                vec![output, TakeoverOutput::TakeService { name_main_pid: false }]
            }
            _ => vec![output],
        }
    }

    /// Whether the takeover machine has nothing against a restart.
    pub fn permits(plant: Option<Plant>, takeover: &Takeover) -> bool {
        takeover.refusal().is_none() || plant == Some(Plant::PermitsOnProbation)
    }

    pub fn machine_inputs(plant: Option<Plant>, room: Room, input: Input) -> Vec<Input> {
        match (plant, room, input) {
            (Some(Plant::ServesWithoutTheRest), Room::Giving, Input::Ready(attempt)) => vec![Input::HandoverSent(attempt), input],
            _ => vec![input],
        }
    }

    pub fn machine_output(plant: Option<Plant>, output: Output) -> Vec<Output> {
        match (plant, output) {
            (Some(Plant::RepliesTwice), Output::Action(Action::Reply(_, Reply::Failed(_)))) => vec![output, output],
            (Some(Plant::RefusesTwice), Output::Action(Action::Reply(_, Reply::Refused(_)))) => vec![output, output],
            (Some(Plant::NeverReplies), Output::Action(Action::Reply(_, Reply::Completed(_)))) => vec![],
            (Some(Plant::NoHandOff), Output::Notice(Notice::HandedOff(_))) => vec![],
            (Some(Plant::LineAfterTheGrant), Output::Action(Action::Grant(attempt))) => vec![output, Notice::Progress(attempt).into()],
            (Some(Plant::NeverKills), Output::Action(Action::Kill(_))) => vec![],
            (Some(Plant::NeverAbandons), Output::Action(Action::Abandon(_))) => vec![],
            (Some(Plant::NeverCommits), Output::Action(Action::Commit(_))) => vec![],
            (Some(Plant::NeverTellsCommit), Output::Action(Action::TellCommit(_))) => vec![],
            (Some(Plant::GrantsBeforeFlows), Output::Action(Action::Steer(Side::Successor))) => vec![],
            (Some(Plant::KeepsFlowsThere), Output::Action(Action::Steer(Side::This))) => vec![],
            (Some(Plant::HoldsNoSuccessor), Output::Action(Action::Hold(Whose::Both))) => vec![],
            (Some(Plant::HoldsWhatIsDrained), Output::Action(Action::Hold(Whose::Successor))) => vec![],
            (Some(Plant::HoldsTheFailed), Output::Action(Action::Hold(Whose::This | Whose::Returned))) => vec![],
            (Some(Plant::GoneUntold), Output::Notice(Notice::SuccessorGone(_))) => vec![],
            (Some(Plant::ResumesAfterCommit), Output::Notice(Notice::SuccessorGone(_))) => {
                vec![output, Notice::Resumed(Cause::Exited).into()]
            }
            _ => vec![output],
        }
    }

    /// What the driver feeds of what the successor has said and done.
    pub fn driver_says(plant: Option<Plant>, said: Vec<Move>) -> Vec<Move> {
        match plant {
            Some(Plant::ExitUnheard) => said.into_iter().filter(|said| *said != Move::Exited).collect(),
            _ => said,
        }
    }

    pub fn loses(plant: Option<Plant>, message: Message) -> bool {
        matches!((plant, message), (Some(Plant::LosesGrant), Message::Granted) | (Some(Plant::LosesCommit), Message::Commit))
    }

    pub fn overtakes(plant: Option<Plant>, message: Message) -> bool {
        matches!((plant, message), (Some(Plant::CommitOvertakes), Message::Commit) | (Some(Plant::StateOvertakes), Message::State))
    }
}
