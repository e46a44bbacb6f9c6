//! The table of transitions, as data. The first row that fits is the one that counts; where none fits
//! nothing happens.

use pollflip::internals::machine::{Inbound, TakeoverInput};

use super::{At, Contact};

/// Whom a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Anyone,
    FirstGeneration,
    Successor,
    OnProbation,
    WithoutProbation,
}

/// What changes in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    To(At),
    State(Inbound),
    Contact(Contact),
    Ended,
    /// One second from now on it is time to act,
    WaitForTheDying,
    /// two,
    WaitForTheHeldUp,
    /// one after the probation,
    WaitForTheCommit,
    /// or no sooner than in one.
    Postpone,
}

/// What goes out: prompts and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    SendPrecopyPull,
    SendPull,
    SendReady,
    SendRefuse,
    CloseUntaken,
    TellManager,
    /// What a restarter of before has not carried out is taken back; the notices stay.
    TakeBack,
    Sole,
    Open,
    Answer,
    /// The service is taken, and its manager knows by whom,
    Take,
    /// does not know it,
    TakeAndName,
    /// or does not know it if that was taken back.
    TakeAgain,
    Granted,
    Committed,
    GivenUp,
    LineLost,
    /// Once for several that wait.
    MarksFreed,
    Gone,
}

/// A row: where all that it names holds, the input has the effect. An empty list names nothing.
#[derive(Debug)]
pub struct TakeoverRow {
    pub name: &'static str,
    pub on: &'static [TakeoverInput],
    pub at: &'static [At],
    pub state: &'static [Inbound],
    pub contact: &'static [Contact],
    pub ended: Option<bool>,
    pub whom: Whom,
    pub then: &'static [Then],
    pub out: &'static [Out],
}

const fn row(name: &'static str, on: &'static [TakeoverInput], at: &'static [At]) -> TakeoverRow {
    TakeoverRow { name, on, at, state: &[], contact: &[], ended: None, whom: Whom::Anyone, then: &[], out: &[] }
}

impl TakeoverRow {
    const fn state(self, state: &'static [Inbound]) -> TakeoverRow {
        TakeoverRow { state, ..self }
    }

    const fn contact(self, contact: &'static [Contact]) -> TakeoverRow {
        TakeoverRow { contact, ..self }
    }

    const fn living(self) -> TakeoverRow {
        TakeoverRow { ended: Some(false), ..self }
    }

    const fn whom(self, whom: Whom) -> TakeoverRow {
        TakeoverRow { whom, ..self }
    }

    const fn then(self, then: &'static [Then]) -> TakeoverRow {
        TakeoverRow { then, ..self }
    }

    const fn out(self, out: &'static [Out]) -> TakeoverRow {
        TakeoverRow { out, ..self }
    }
}

const STARTING: &[At] = &[At::Starting];
const UNGRANTED: &[At] = &[At::Starting, At::ReadySent];
const GRANTED: &[At] = &[At::Granted];
const ALONE: &[At] = &[At::Alone];
const OPEN: &[Contact] = &[Contact::Open];
const LOST: &[Contact] = &[Contact::Lost];
const CLOSED: &[TakeoverInput] = &[TakeoverInput::LineClosed { by_us: false }];
const CLOSED_BY_US: &[TakeoverInput] = &[TakeoverInput::LineClosed { by_us: true }];
const CLOSED_BY_ANYONE: &[TakeoverInput] = &[TakeoverInput::LineClosed { by_us: false }, TakeoverInput::LineClosed { by_us: true }];
/// Something of the state may be here, and the rest has yet to come.
const COMING: &[Inbound] = &[Inbound::Precopy, Inbound::Precopied, Inbound::Asked];
const ENDED: &[TakeoverInput] = &[TakeoverInput::PredecessorEnded];

#[rustfmt::skip]
pub const TAKEOVER_ROWS: &[TakeoverRow] = &[
    row("attach-before-the-grant", &[TakeoverInput::Attach], &[At::Starting, At::ReadySent, At::GivenUp]).out(&[Out::TakeBack]),
    row("attach-granted", &[TakeoverInput::Attach], GRANTED).contact(&[Contact::Open, Contact::Lost]).out(&[Out::TakeBack, Out::Open]),
    row("attach-silent", &[TakeoverInput::Attach], GRANTED).contact(&[Contact::Silent]).out(&[Out::TakeBack, Out::Open, Out::Answer]),
    row("attach-alone", &[TakeoverInput::Attach], ALONE).out(&[Out::TakeBack, Out::Sole, Out::Answer]),
    row("attach-serving", &[TakeoverInput::Attach], &[At::Serving, At::Final]).out(&[Out::TakeBack, Out::Open, Out::TakeAgain, Out::Answer]),
    row("pull-precopy", &[TakeoverInput::PullPrecopy], STARTING).state(&[Inbound::NotAsked])
        .then(&[Then::State(Inbound::Precopy)]).out(&[Out::SendPrecopyPull]),
    row("precopy-complete", &[TakeoverInput::PrecopyComplete], STARTING).state(&[Inbound::Precopy]).contact(OPEN)
        .then(&[Then::State(Inbound::Precopied)]),
    row("pull", &[TakeoverInput::Pull], STARTING).state(&[Inbound::NotAsked, Inbound::Precopy, Inbound::Precopied]).then(&[Then::State(Inbound::Asked)]).out(&[Out::SendPull]),
    row("state-complete", &[TakeoverInput::StateComplete], STARTING).state(&[Inbound::Asked]).contact(OPEN)
        .then(&[Then::State(Inbound::Arrived)]),
    row("state-unusable", &[TakeoverInput::StateUnusable], STARTING).state(COMING).contact(OPEN)
        .then(&[Then::State(Inbound::Unusable)]).out(&[Out::SendRefuse, Out::CloseUntaken]),
    row("state-taken", &[TakeoverInput::StateTaken], &[At::Starting, At::Alone]).state(&[Inbound::Arrived])
        .then(&[Then::State(Inbound::Taken)]),
    row("ready", &[TakeoverInput::SayReady], STARTING).state(&[Inbound::NotAsked, Inbound::Taken])
        .then(&[Then::To(At::ReadySent)]).out(&[Out::SendReady]),
    row("ready-first", &[TakeoverInput::SayReady], ALONE).whom(Whom::FirstGeneration)
        .then(&[Then::To(At::Serving)]).out(&[Out::TellManager, Out::Open, Out::Take, Out::Answer]),
    row("ready-alone", &[TakeoverInput::SayReady], ALONE).whom(Whom::Successor).state(&[Inbound::NotAsked, Inbound::Taken, Inbound::Unusable])
        .then(&[Then::To(At::Serving)]).out(&[Out::CloseUntaken, Out::Open, Out::TakeAndName, Out::Answer]),
    row("refuse", &[TakeoverInput::SayRefuse], UNGRANTED).out(&[Out::SendRefuse]),
    row("granted", &[TakeoverInput::Granted], &[At::ReadySent]).contact(OPEN)
        .then(&[Then::To(At::Granted), Then::WaitForTheCommit]).out(&[Out::CloseUntaken, Out::Open, Out::Granted]),
    row("commit", &[TakeoverInput::Commit], GRANTED).contact(OPEN)
        .then(&[Then::To(At::Final)]).out(&[Out::Take, Out::Answer, Out::Committed]),
    row("given-up", &[TakeoverInput::GivenUp], UNGRANTED).then(&[Then::To(At::GivenUp)]).out(&[Out::CloseUntaken, Out::GivenUp]),
    row("closed-amid-the-state", CLOSED, STARTING).state(COMING).contact(OPEN)
        .then(&[Then::Contact(Contact::Lost), Then::WaitForTheDying]).out(&[Out::CloseUntaken]),
    row("closed", CLOSED, UNGRANTED).contact(OPEN).then(&[Then::Contact(Contact::Lost), Then::WaitForTheDying]),
    row("closed-by-us-amid-the-state", CLOSED_BY_US, STARTING).state(COMING).contact(OPEN)
        .then(&[Then::Contact(Contact::Lost), Then::WaitForTheHeldUp]).out(&[Out::CloseUntaken]),
    row("closed-by-us", CLOSED_BY_US, UNGRANTED).contact(OPEN).then(&[Then::Contact(Contact::Lost), Then::WaitForTheHeldUp]),
    row("closed-after-the-grant", CLOSED_BY_ANYONE, GRANTED).contact(OPEN).then(&[Then::Contact(Contact::Lost), Then::WaitForTheHeldUp]),
    row("dying", &[TakeoverInput::PredecessorDying], &[At::Starting, At::ReadySent, At::Granted]).contact(LOST).then(&[Then::Postpone]),
    row("ended-before-the-state", ENDED, STARTING).state(&[Inbound::NotAsked, Inbound::Precopy, Inbound::Precopied, Inbound::Asked])
        .then(&[Then::To(At::Alone), Then::State(Inbound::NotAsked)]).out(&[Out::CloseUntaken, Out::Sole, Out::Answer, Out::Gone]),
    row("ended-after-the-state", ENDED, STARTING).state(&[Inbound::Arrived, Inbound::Taken, Inbound::Unusable])
        .then(&[Then::To(At::Alone)]).out(&[Out::Sole, Out::Answer, Out::Gone]),
    row("ended-before-the-grant", ENDED, &[At::ReadySent])
        .then(&[Then::To(At::Serving)]).out(&[Out::CloseUntaken, Out::Open, Out::TakeAndName, Out::Answer, Out::Gone]),
    row("ended-before-the-commit", ENDED, GRANTED)
        .then(&[Then::To(At::Final), Then::Ended]).out(&[Out::TakeAndName, Out::Answer, Out::Committed, Out::MarksFreed, Out::Gone]),
    row("ended-at-last", ENDED, &[At::Final]).living().then(&[Then::Ended]).out(&[Out::MarksFreed, Out::Gone]),
    row("ended-at-last-given-up", ENDED, &[At::GivenUp]).living().then(&[Then::Ended]).out(&[Out::Gone]),
    row("earlier-ended", &[TakeoverInput::GenerationEnded], &[At::Granted, At::Final, At::Serving]).out(&[Out::MarksFreed]),
    row("lost-before-the-grant", &[TakeoverInput::Timeout], UNGRANTED).contact(LOST)
        .then(&[Then::To(At::GivenUp)]).out(&[Out::CloseUntaken, Out::GivenUp]),
    row("looked", &[TakeoverInput::Timeout], GRANTED).contact(OPEN).then(&[Then::WaitForTheDying]),
    row("lost-after-the-grant", &[TakeoverInput::Timeout], GRANTED).contact(LOST).whom(Whom::WithoutProbation)
        .then(&[Then::To(At::Final)]).out(&[Out::LineLost, Out::Take, Out::Answer, Out::Committed]),
    row("lost-on-probation", &[TakeoverInput::Timeout], GRANTED).contact(LOST).whom(Whom::OnProbation)
        .then(&[Then::Contact(Contact::Silent)]).out(&[Out::LineLost, Out::Answer]),
];
