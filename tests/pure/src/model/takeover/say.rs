//! Words to write tests in.

use std::time::Duration;

use pollflip::internals::machine::{Inbound, Prompt, TakeoverInput, TakeoverNotice, TakeoverOutput};

use super::rows::{TakeoverRow, Whom};
use super::{At, CheckedTakeover, Contact, Setting};
use crate::model::PROBATION;

pub const FIRST: Setting = Setting::First;
/// A successor that has the service finally as soon as it has it,
pub const SUCCESSOR: Setting = Setting::Successor(None);
/// and one that can lose it again.
pub const PROBATIONER: Setting = Setting::Successor(Some(PROBATION));
pub const SUCCESSORS: [Setting; 2] = [SUCCESSOR, PROBATIONER];

pub const STARTING: &[TakeoverInput] = &[TakeoverInput::Attach];
pub const COPYING: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::PullPrecopy];
pub const COPIED: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::PullPrecopy, TakeoverInput::PrecopyComplete];
pub const ASKED: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::Pull];
pub const ARRIVED: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::Pull, TakeoverInput::StateComplete];
pub const TAKEN: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::Pull, TakeoverInput::StateComplete, TakeoverInput::StateTaken];
pub const UNUSABLE: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::Pull, TakeoverInput::StateUnusable];
pub const READY_SENT: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::SayReady];
pub const GRANTED: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::SayReady, TakeoverInput::Granted];
pub const FINAL: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::SayReady, TakeoverInput::Granted, TakeoverInput::Commit];
pub const GIVEN_UP: &[TakeoverInput] = &[TakeoverInput::Attach, TakeoverInput::GivenUp];
/// The lifeline is closed by the other side, or by this one.
pub const CLOSED: TakeoverInput = TakeoverInput::LineClosed { by_us: false };
pub const CLOSED_BY_US: TakeoverInput = TakeoverInput::LineClosed { by_us: true };

pub const INSTANT: Duration = Duration::from_nanos(1);

/// What the service is taken with: the manager knows this process, or has to be told of it.
pub const TAKE: TakeoverOutput = TakeoverOutput::TakeService { name_main_pid: false };
pub const TAKE_AND_NAME: TakeoverOutput = TakeoverOutput::TakeService { name_main_pid: true };

/// What is done at once, and what the loop does.
pub type Carried = (Vec<Prompt>, Vec<TakeoverOutput>);
pub const NOTHING: Carried = (vec![], vec![]);

/// What the program is told.
pub const fn told(notice: TakeoverNotice) -> TakeoverOutput {
    TakeoverOutput::Notice(notice)
}

pub const TOLD_GRANTED: TakeoverOutput = told(TakeoverNotice::Granted);
pub const TOLD_COMMITTED: TakeoverOutput = told(TakeoverNotice::Committed);
pub const TOLD_GIVEN_UP: TakeoverOutput = told(TakeoverNotice::GivenUp);
pub const TOLD_LOST: TakeoverOutput = told(TakeoverNotice::LineLost);
pub const TOLD_GONE: TakeoverOutput = told(TakeoverNotice::PredecessorGone);

/// How a process gets there; with a state, a lifeline and a predecessor that are so.
pub fn way_to(setting: Setting, at: At, state: Inbound, contact: Contact, ended: bool) -> Vec<TakeoverInput> {
    let starting = match state {
        Inbound::NotAsked => STARTING,
        Inbound::Precopy => COPYING,
        Inbound::Precopied => COPIED,
        Inbound::Asked => ASKED,
        Inbound::Arrived => ARRIVED,
        Inbound::Taken => TAKEN,
        Inbound::Unusable => UNUSABLE,
    };
    let mut way = match at {
        At::Starting => starting,
        At::Alone | At::Serving if !setting.has_predecessor() => STARTING,
        At::Alone => starting,
        At::ReadySent | At::Serving => READY_SENT,
        At::Granted => GRANTED,
        At::Final => FINAL,
        At::GivenUp => GIVEN_UP,
    }
    .to_vec();
    match contact {
        Contact::Open => {}
        Contact::Lost => way.push(CLOSED),
        Contact::Silent => way.extend([CLOSED, TakeoverInput::Timeout]),
    }
    match at {
        At::Serving if !setting.has_predecessor() => way.push(TakeoverInput::SayReady),
        At::Alone if !setting.has_predecessor() => {}
        At::Alone | At::Serving => way.push(TakeoverInput::PredecessorEnded),
        _ if ended => way.push(TakeoverInput::PredecessorEnded),
        _ => {}
    }
    way
}

/// Who a row can be seen with, and how a process gets to where it holds.
pub fn way_to_row(row: &TakeoverRow) -> (Setting, Vec<TakeoverInput>) {
    let setting = match row.whom {
        Whom::FirstGeneration => FIRST,
        Whom::WithoutProbation => SUCCESSOR,
        Whom::Anyone | Whom::Successor | Whom::OnProbation => PROBATIONER,
    };
    let state = row.state.first().copied().unwrap_or(Inbound::NotAsked);
    let contact = row.contact.first().copied().unwrap_or(Contact::Open);
    (setting, way_to(setting, row.at[0], state, contact, false))
}

/// A process that this has happened to.
pub fn after(setting: Setting, path: &[TakeoverInput]) -> CheckedTakeover {
    CheckedTakeover::after(setting, path)
}
