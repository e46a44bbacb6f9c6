//! The table of transitions, as data. The first row that fits is the one that counts; where none fits nothing happens.

use super::{On, Room};

/// Whether a row depends on how the machine was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum If {
    Always,
    ProbationIsSet,
    NoProbation,
    /// The lifeline is closed,
    Lost,
    /// for so long that it is no matter of an end that has begun,
    LostForGood,
    /// or is not closed.
    Heard,
    /// The successor has a state.
    Gave,
}

/// Where it goes from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stay,
    To(Room),
    /// Where nothing is under way: idle, unless a stop or a lost thread is remembered.
    Rest,
}

/// What goes out, without the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    Restarting,
    /// Have the successor started.
    Spawn,
    /// Unless nobody has begun to start it: then the order is taken back.
    Abandon,
    Spawned,
    PrecopyRequested,
    PrecopyRoom,
    StateRequested,
    Progress,
    /// And a grant that nobody has carried out is taken back.
    Kill,
    /// New flows go to the successor,
    SteerThere,
    /// or to this process.
    SteerHere,
    Grant,
    /// Nothing; but a grant that nobody has carried out is taken back, or else new flows.
    Ungrant,
    HandedOff,
    Check,
    /// Nothing; but a check that nobody has carried out is taken back.
    Uncheck,
    Commit,
    TellCommit,
    Completed,
    Failed,
    Resumed,
    SuccessorGone,
    Broken,
    GenerationEnded,
    /// Something of the predecessor, as it came in,
    Predecessor,
    /// and if that is its end, what it has left is let go of when the program has been told.
    LetSurvivorsGo,
    /// To the service manager, before all that waits,
    TellStopping,
    /// the same after all that waits, where a service is taken back from a successor.
    TellStoppingLast,
    /// Nothing; but the end of the process is awaited for a second,
    HangUp,
    /// or the deadline put off.
    PutOff,
    /// What both have is held,
    HoldBoth,
    /// what this process has, unless the end was told,
    HoldThis,
    /// what it has once more,
    HoldReturned,
    /// until the program has been told, unless it ends,
    HoldThisAfter,
    /// or what the successor has.
    HoldSuccessor,
    /// To the asker of the attempt: the new process serves,
    ReplyCompleted,
    /// it does not,
    ReplyFailed,
    /// or it cannot be started at all.
    ReplyBroken,
    /// To whoever asks at the wrong time.
    Refuse,
}

#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub at: &'static [Room],
    pub on: &'static [On],
    pub only: If,
    pub then: Then,
    pub out: &'static [Out],
}

const fn row(name: &'static str, at: &'static [Room], on: &'static [On], then: Then, out: &'static [Out]) -> Row {
    Row { name, at, on, only: If::Always, then, out }
}

const fn row_if(only: If, row: Row) -> Row {
    Row { only, ..row }
}

/// The successor runs and is getting ready.
const AWAITING: &[Room] = &[Room::Waiting, Room::Copying, Room::Giving, Room::Given, Room::Granting];
/// It must be ready in time.
const UNREADY: &[Room] = &[Room::Waiting, Room::Copying, Room::Giving, Room::Given];
/// What it says, and its silence, matters.
const LISTENED_TO: &[Room] = &[Room::Waiting, Room::Copying, Room::Giving, Room::Given, Room::Granting, Room::Proving];
const BUSY: &[Room] = &[
    Room::NotReady,
    Room::Sole,
    Room::Stopping,
    Room::StoppingUntold,
    Room::Broken,
    Room::Spawning,
    Room::Waiting,
    Room::Copying,
    Room::Giving,
    Room::Given,
    Room::Granting,
    Room::Proving,
    Room::Checking,
    Room::Settled,
    Room::Untold,
    Room::UntoldManaged,
    Room::Telling,
    Room::TellingManaged,
    Room::Heard,
    Room::Left,
    Room::LettingGo,
    Room::Committed,
    Room::Killing,
    Room::KillingGranted,
    Room::Undying,
    Room::UndyingGranted,
];
const LOSS_CAN_WAIT: &[Room] = &[
    Room::NotReady,
    Room::Sole,
    Room::Waiting,
    Room::Copying,
    Room::Giving,
    Room::Given,
    Room::Granting,
    Room::Proving,
    Room::Checking,
    Room::Killing,
    Room::KillingGranted,
    Room::Undying,
    Room::UndyingGranted,
];
/// Out to the asker and the user when an attempt came to nothing.
const SORRY: &[Out] = &[Out::HoldThis, Out::ReplyFailed, Out::Failed];
const DONE: &[Out] = &[Out::ReplyCompleted, Out::Completed];
const GONE: &[Out] = &[Out::ReplyCompleted, Out::Completed, Out::SuccessorGone];
/// This process gets new flows.
const SERVING: &[Room] = &[
    Room::NotReady,
    Room::Sole,
    Room::Stopping,
    Room::StoppingUntold,
    Room::Broken,
    Room::Idle,
    Room::Spawning,
    Room::Waiting,
    Room::Copying,
    Room::Giving,
    Room::Given,
    Room::Killing,
    Room::Undying,
];
/// The successor gets them, or is about to.
const SERVED_BY_ANOTHER: &[Room] = &[
    Room::Granting,
    Room::Proving,
    Room::Checking,
    Room::Settled,
    Room::Untold,
    Room::UntoldManaged,
    Room::Telling,
    Room::TellingManaged,
    Room::Heard,
    Room::Left,
    Room::LettingGo,
    Room::Committed,
    Room::KillingGranted,
    Room::UndyingGranted,
];
/// The successor has the service and can lose it.
const ON_TRIAL: &[Room] = &[Room::Proving, Room::Checking];

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("sole", &[Room::NotReady], &[On::Sole], Then::To(Room::Sole), &[]),
    row("opened", &[Room::NotReady, Room::Sole], &[On::Opened], Then::Rest, &[]),
    row("stopped-before", &[Room::StoppingUntold], &[On::Sole, On::Opened], Then::To(Room::Stopping), &[Out::TellStopping]),
    row("predecessor", &Room::ALL, &[On::Predecessor], Then::Stay, &[Out::Predecessor, Out::LetSurvivorsGo]),
    row("request", &[Room::Idle], &[On::Request], Then::To(Room::Spawning), &[Out::Restarting, Out::HoldBoth, Out::Spawn]),
    row("refusal", BUSY, &[On::Request], Then::Stay, &[Out::Refuse]),
    row("spawned", &[Room::Spawning], &[On::Spawned], Then::To(Room::Waiting), &[Out::Spawned]),
    row("spawn-failed", &[Room::Spawning], &[On::SpawnFailed], Then::Rest, SORRY),
    row("abandoned", &[Room::Spawning], &[On::Timeout, On::Cancel], Then::Rest,
        &[Out::Abandon, Out::HoldThis, Out::ReplyFailed, Out::Failed]),
    row("stopped-spawning", &[Room::Spawning], &[On::Stop, On::Dropped], Then::To(Room::Stopping),
        &[Out::TellStopping, Out::Abandon, Out::HoldThis, Out::ReplyFailed, Out::Failed]),
    row("precopy-requested", &[Room::Waiting], &[On::PrecopyRequested], Then::To(Room::Copying), &[Out::PrecopyRequested]),
    row("precopy-room", &[Room::Copying], &[On::PrecopyRoom], Then::Stay, &[Out::PrecopyRoom]),
    row("precopy-requested-twice", &[Room::Copying, Room::Giving, Room::Given], &[On::PrecopyRequested], Then::To(Room::Killing), &[Out::Kill]),
    row("ready-without-the-state", &[Room::Copying], &[On::Ready], Then::To(Room::Killing), &[Out::Kill]),
    row("state-requested", &[Room::Waiting, Room::Copying], &[On::StateRequested], Then::To(Room::Giving), &[Out::StateRequested]),
    row("handover-sent", &[Room::Giving], &[On::HandoverSent], Then::To(Room::Given), &[]),
    row("asked-twice", &[Room::Giving, Room::Given], &[On::StateRequested], Then::To(Room::Killing), &[Out::Kill]),
    row("ready-too-soon", &[Room::Giving], &[On::Ready], Then::To(Room::Killing), &[Out::Kill]),
    row("wrong-pid", AWAITING, &[On::HereAnother], Then::To(Room::Killing), &[Out::Kill]),
    row("garbage", AWAITING, &[On::Garbage], Then::To(Room::Killing), &[Out::Kill]),
    row("given-up", AWAITING, &[On::HandoverFailed, On::Refused, On::Cancel], Then::To(Room::Killing), &[Out::Kill]),
    row_if(If::Heard, row("unread", LISTENED_TO, &[On::Unread], Then::Stay, &[Out::PutOff])),
    row("closed", LISTENED_TO, &[On::LifelineClosed], Then::Stay, &[Out::HangUp]),
    row_if(If::LostForGood, row("hung-up", AWAITING, &[On::Timeout], Then::To(Room::Killing), &[Out::Kill])),
    row_if(If::Lost, row("not-proved", &[Room::Proving], &[On::Timeout, On::Stop, On::Dropped], Then::To(Room::KillingGranted),
        &[Out::Kill])),
    row("not-ready-in-time", UNREADY, &[On::Timeout], Then::To(Room::Killing), &[Out::Kill]),
    row("stopped-awaiting", AWAITING, &[On::Stop, On::Dropped], Then::To(Room::Killing), &[Out::TellStopping, Out::Kill]),
    row("progress", UNREADY, &[On::Progress], Then::Stay, &[Out::Progress]),
    row("exited-early", UNREADY, &[On::Exited], Then::Rest, SORRY),
    row("exited-ungranted", &[Room::Granting], &[On::Exited], Then::Rest, &[Out::Ungrant, Out::HoldThis, Out::ReplyFailed, Out::Failed]),
    row("ready", &[Room::Waiting, Room::Given], &[On::Ready], Then::To(Room::Granting), &[Out::SteerThere, Out::Grant]),
    row("not-steered", &[Room::Granting], &[On::SteeringFailed], Then::To(Room::Killing), &[Out::Kill]),
    row("marks-freed", SERVING, &[On::MarksFreed], Then::Stay, &[Out::SteerHere, Out::GenerationEnded]),
    row("marks-freed-by-another", SERVED_BY_ANOTHER, &[On::MarksFreed], Then::Stay, &[Out::GenerationEnded]),
    row_if(If::ProbationIsSet, row("granted", &[Room::Granting], &[On::Granted], Then::To(Room::Proving), &[Out::HandedOff])),
    row_if(If::NoProbation, row("granted-for-good", &[Room::Granting], &[On::Granted], Then::To(Room::Settled),
        &[Out::HandedOff, Out::HoldSuccessor, Out::Commit])),
    row("grant-not-taken", &[Room::Granting], &[On::Timeout, On::Dying], Then::To(Room::Killing), &[Out::Kill]),
    row("proved", &[Room::Proving], &[On::Timeout, On::Stop, On::Dropped], Then::To(Room::Checking), &[Out::Check]),
    row("sound", &[Room::Checking], &[On::Sound], Then::To(Room::Settled), &[Out::HoldSuccessor, Out::Commit]),
    row("died-on-probation", ON_TRIAL, &[On::Exited], Then::Rest,
        &[Out::Uncheck, Out::SteerHere, Out::HoldReturned, Out::ReplyFailed, Out::Resumed, Out::HoldThisAfter, Out::TellStoppingLast]),
    row("dying-on-probation", ON_TRIAL, &[On::Dying], Then::To(Room::KillingGranted), &[Out::Kill]),
    row("closed-when-looked-at", &[Room::Checking], &[On::LifelineClosed], Then::To(Room::KillingGranted), &[Out::Kill]),
    row("garbage-on-probation", ON_TRIAL, &[On::Garbage], Then::To(Room::KillingGranted), &[Out::Kill]),
    row("manager-asked", &[Room::Settled], &[On::ManagerAsked], Then::To(Room::Untold), &[]),
    row("manager-told-late", &[Room::Left], &[On::ManagerTold], Then::To(Room::Left), &[]),
    row("given-up-untold", &[Room::Settled, Room::Untold, Room::UntoldManaged], &[On::GivingUp], Then::To(Room::Committed),
        &[Out::TellCommit, Out::ReplyCompleted, Out::Completed]),
    row("given-up-told", &[Room::Telling, Room::TellingManaged, Room::Heard], &[On::GivingUp], Then::To(Room::Committed), DONE),
    row("given-up-gone", &[Room::Left], &[On::GivingUp], Then::To(Room::Committed), GONE),
    row("manager-told", &[Room::Untold], &[On::ManagerTold], Then::To(Room::Telling), &[Out::TellCommit]),
    row("manager-told-last", &[Room::UntoldManaged], &[On::ManagerTold, On::Timeout], Then::To(Room::TellingManaged), &[Out::TellCommit]),
    row("manager-knows", &[Room::Untold], &[On::BarrierPassed], Then::To(Room::UntoldManaged), &[]),
    row("manager-knows-first", &[Room::Telling], &[On::BarrierPassed, On::Timeout], Then::To(Room::TellingManaged), &[]),
    row("manager-given-up", &[Room::Untold], &[On::Timeout], Then::To(Room::TellingManaged), &[Out::TellCommit]),
    row("successor-knows-first", &[Room::Telling], &[On::CommitTaken], Then::To(Room::Heard), &[]),
    row_if(If::Gave, row("successor-knows-and-has-a-state", &[Room::TellingManaged], &[On::CommitTaken], Then::To(Room::LettingGo),
        &[Out::ReplyCompleted])),
    row("successor-knows", &[Room::TellingManaged], &[On::CommitTaken], Then::To(Room::Committed), DONE),
    row_if(If::Gave, row("all-know-and-it-has-a-state", &[Room::Heard], &[On::BarrierPassed, On::Timeout], Then::To(Room::LettingGo),
        &[Out::ReplyCompleted])),
    row("lets-go", &[Room::LettingGo], &[On::Timeout, On::Stop, On::Dropped, On::GivingUp], Then::To(Room::Committed), &[Out::Completed]),
    row("gone-before-it-lets-go", &[Room::LettingGo], &[On::Exited], Then::To(Room::Committed), &[Out::Completed, Out::SuccessorGone]),
    row("all-know", &[Room::Heard], &[On::BarrierPassed, On::Timeout], Then::To(Room::Committed), DONE),
    row("gone-untold", &[Room::Untold], &[On::Exited], Then::To(Room::Left), &[Out::TellCommit]),
    row("gone-untold-at-last", &[Room::Settled, Room::UntoldManaged], &[On::Exited], Then::To(Room::Committed),
        &[Out::TellCommit, Out::ReplyCompleted, Out::Completed, Out::SuccessorGone]),
    row("gone-while-told", &[Room::Telling, Room::Heard], &[On::Exited], Then::To(Room::Left), &[]),
    row("gone-while-told-at-last", &[Room::TellingManaged], &[On::Exited], Then::To(Room::Committed), GONE),
    row("gone-and-all-know", &[Room::Left], &[On::BarrierPassed, On::Timeout], Then::To(Room::Committed), GONE),
    row("killed", &[Room::Killing], &[On::Exited, On::GivingUp], Then::Rest, SORRY),
    row("killed-after-grant", &[Room::KillingGranted], &[On::Exited, On::GivingUp], Then::Rest,
        &[Out::SteerHere, Out::HoldReturned, Out::ReplyFailed, Out::Resumed, Out::HoldThisAfter, Out::TellStoppingLast]),
    row("will-not-die", &[Room::Killing], &[On::Timeout], Then::To(Room::Undying), &[Out::ReplyFailed, Out::Failed]),
    row("will-not-die-after-grant", &[Room::KillingGranted], &[On::Timeout], Then::To(Room::UndyingGranted), &[Out::ReplyFailed]),
    row("died-at-last", &[Room::Undying], &[On::Exited, On::GivingUp], Then::Rest, &[Out::HoldThis]),
    row("died-at-last-after-grant", &[Room::UndyingGranted], &[On::Exited, On::GivingUp], Then::Rest,
        &[Out::SteerHere, Out::HoldReturned, Out::Resumed, Out::HoldThisAfter, Out::TellStoppingLast]),
    row("successor-gone", &[Room::Committed], &[On::Exited], Then::Stay, &[Out::SuccessorGone]),
    row("stopped", &[Room::Sole, Room::Idle, Room::Broken], &[On::Stop, On::Dropped], Then::To(Room::Stopping), &[Out::TellStopping]),
    row("stopped-too-early", &[Room::NotReady], &[On::Stop, On::Dropped], Then::To(Room::StoppingUntold), &[]),
    row("stopped-killing", &[Room::Killing, Room::Undying], &[On::Stop, On::Dropped], Then::Stay, &[Out::TellStopping]),
    row("stopped-killing-after-grant", &[Room::KillingGranted, Room::UndyingGranted], &[On::Stop, On::Dropped], Then::Stay, &[]),
    row("broken", &[Room::Idle], &[On::ThreadLost], Then::To(Room::Broken), &[Out::Broken]),
    row("broken-spawning", &[Room::Spawning], &[On::ThreadLost], Then::To(Room::Broken),
        &[Out::Abandon, Out::HoldThis, Out::ReplyBroken, Out::Failed, Out::Broken]),
    row("broken-later", LOSS_CAN_WAIT, &[On::ThreadLost], Then::Stay, &[]),
];
