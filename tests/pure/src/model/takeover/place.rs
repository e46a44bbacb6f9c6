//! Where a process that takes over stands: one flat list, and the facts that count there.

use std::time::Duration;

use pollflip::internals::machine::{Inbound, Line, Stage, Takeover};

use crate::model::PROBATION;

/// What a process was born as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// A first generation.
    First,
    /// A successor, which can lose a grant again within that probation.
    Successor(Option<Duration>),
}

impl Setting {
    pub const ALL: [Setting; 5] = [
        Setting::First,
        Setting::Successor(None),
        Setting::Successor(Some(PROBATION)),
        Setting::Successor(Some(Duration::ZERO)),
        Setting::Successor(Some(Duration::MAX)),
    ];

    pub fn machine(self) -> Takeover {
        match self {
            Setting::First => Takeover::first(),
            Setting::Successor(probation) => Takeover::successor(probation),
        }
    }

    pub fn has_predecessor(self) -> bool {
        self != Setting::First
    }

    pub fn probation(self) -> Option<Duration> {
        match self {
            Setting::First => None,
            Setting::Successor(probation) => probation,
        }
    }
}

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// It initialises,
    Starting,
    /// waits for the grant,
    ReadySent,
    /// has the service and may lose it again,
    Granted,
    /// has it.
    Final,
    /// It initialises, and no predecessor lives;
    Alone,
    /// it has the service, for none lived to grant it.
    Serving,
    /// It must not serve.
    GivenUp,
}

impl At {
    pub const ALL: [At; 7] = [At::Starting, At::ReadySent, At::Granted, At::Final, At::Alone, At::Serving, At::GivenUp];
}

/// How well the predecessor can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contact {
    Open,
    /// The lifeline is closed: a verdict is due.
    Lost,
    /// The verdict is that nothing more will be heard.
    Silent,
}

/// What can be seen of a stage: how far it is, and each fact that has a meaning there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageView {
    pub at: At,
    pub state: Option<Inbound>,
    pub contact: Option<Contact>,
    pub until: Option<Duration>,
    pub ended: Option<bool>,
}

impl StageView {
    pub const fn bare(at: At) -> StageView {
        StageView { at, state: None, contact: None, until: None, ended: None }
    }
}

impl From<Stage> for StageView {
    fn from(stage: Stage) -> StageView {
        match stage {
            Stage::Starting { line, state } => StageView { state: Some(state), ..with_line(At::Starting, line) },
            Stage::ReadySent { line } => with_line(At::ReadySent, line),
            Stage::Granted { line: Line::Open, look_at } => StageView { until: Some(look_at), ..with_line(At::Granted, Line::Open) },
            Stage::Granted { line, .. } => with_line(At::Granted, line),
            Stage::Final { predecessor_ended } => StageView { ended: Some(predecessor_ended), ..StageView::bare(At::Final) },
            Stage::GivenUp { predecessor_ended } => StageView { ended: Some(predecessor_ended), ..StageView::bare(At::GivenUp) },
            Stage::Alone { state, ready: false } => StageView { state: Some(state), ..StageView::bare(At::Alone) },
            Stage::Alone { ready: true, .. } => StageView::bare(At::Serving),
        }
    }
}

fn with_line(at: At, line: Line) -> StageView {
    let (contact, until) = match line {
        Line::Open => (Contact::Open, None),
        Line::Lost { until } => (Contact::Lost, Some(until)),
        Line::Silent => (Contact::Silent, None),
    };
    StageView { contact: Some(contact), until, ..StageView::bare(at) }
}
