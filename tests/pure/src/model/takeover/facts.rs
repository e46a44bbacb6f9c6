//! The model: one flat record that obeys the rows.

use std::collections::VecDeque;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{Inbound, Prompt, TakeoverInput, TakeoverNotice, TakeoverOutput, refusals};

use super::rows::{Out, TAKEOVER_ROWS, TakeoverRow, Then, Whom};
use super::{At, Contact, Setting, StageView};

/// All that is known. What has no meaning where the process stands is left over and ignored.
#[derive(Debug)]
pub struct TakeoverFacts {
    setting: Setting,
    at: At,
    state: Inbound,
    contact: Contact,
    ended: bool,
    until: Duration,
    /// A name for the service manager was taken back.
    unnamed: bool,
    prompts: VecDeque<Prompt>,
    outputs: VecDeque<TakeoverOutput>,
}

impl TakeoverFacts {
    pub fn new(setting: Setting) -> TakeoverFacts {
        TakeoverFacts {
            setting,
            at: if setting.has_predecessor() { At::Starting } else { At::Alone },
            state: Inbound::NotAsked,
            contact: Contact::Open,
            ended: false,
            until: Duration::ZERO,
            unnamed: false,
            prompts: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input, and says which row of the table it was.
    pub fn take(&mut self, now: Duration, input: TakeoverInput) -> Option<usize> {
        if input == TakeoverInput::Timeout && self.timeout().is_none_or(|until| now < until) {
            return None;
        }
        let index = TAKEOVER_ROWS.iter().position(|row| self.fits(row, input))?;
        let row = &TAKEOVER_ROWS[index];
        for then in row.then {
            self.change(now, *then);
        }
        for out in row.out {
            self.put(*out);
        }
        Some(index)
    }

    pub fn next_prompt(&mut self) -> Option<Prompt> {
        self.prompts.pop_front()
    }

    pub fn next_output(&mut self) -> Option<TakeoverOutput> {
        self.outputs.pop_front()
    }

    pub fn queue(&self) -> &VecDeque<TakeoverOutput> {
        &self.outputs
    }

    pub fn at(&self) -> At {
        self.at
    }

    pub fn timeout(&self) -> Option<Duration> {
        self.view().until
    }

    pub fn may_be_ready(&self) -> bool {
        match self.at {
            At::Starting => [Inbound::NotAsked, Inbound::Taken].contains(&self.state),
            At::Alone => self.state != Inbound::Arrived,
            _ => true,
        }
    }

    pub fn has_state(&self) -> bool {
        [At::Starting, At::Alone].contains(&self.at) && self.state == Inbound::Arrived
    }

    pub fn refusal(&self) -> Option<Refusal> {
        match self.at {
            At::Final | At::Serving => None,
            At::Granted => Some(refusals::on_probation(None)),
            At::Starting | At::ReadySent | At::Alone | At::GivenUp => Some(Refusal::NotReady),
        }
    }

    pub fn view(&self) -> StageView {
        let bare = StageView::bare(self.at);
        let until = match (self.at, self.contact) {
            (At::Starting | At::ReadySent | At::Granted, Contact::Lost) | (At::Granted, Contact::Open) => Some(self.until),
            _ => None,
        };
        match self.at {
            At::Starting => StageView { state: Some(self.state), contact: Some(self.contact), until, ..bare },
            At::ReadySent | At::Granted => StageView { contact: Some(self.contact), until, ..bare },
            At::Final | At::GivenUp => StageView { ended: Some(self.ended), ..bare },
            At::Alone => StageView { state: Some(self.state), ..bare },
            At::Serving => bare,
        }
    }

    fn fits(&self, row: &TakeoverRow, input: TakeoverInput) -> bool {
        let meant = match row.whom {
            Whom::Anyone => true,
            Whom::FirstGeneration => !self.setting.has_predecessor(),
            Whom::Successor => self.setting.has_predecessor(),
            Whom::OnProbation => self.setting.probation().is_some(),
            Whom::WithoutProbation => self.setting.probation().is_none(),
        };
        meant
            && row.on.contains(&input)
            && row.at.contains(&self.at)
            && (row.state.is_empty() || row.state.contains(&self.state))
            && (row.contact.is_empty() || row.contact.contains(&self.contact))
            && row.ended.is_none_or(|ended| ended == self.ended)
    }

    fn change(&mut self, now: Duration, then: Then) {
        let second = Duration::from_secs(1);
        let after = |wait: Duration| now.checked_add(wait).unwrap_or(Duration::MAX);
        match then {
            Then::To(at) => self.at = at,
            Then::State(state) => self.state = state,
            Then::Contact(contact) => self.contact = contact,
            Then::Ended => self.ended = true,
            Then::WaitForTheDying => self.until = after(second),
            Then::WaitForTheHeldUp => self.until = after(2 * second),
            Then::WaitForTheCommit => {
                let probation = self.setting.probation().unwrap_or(Duration::ZERO);
                self.until = after(probation.checked_add(second).unwrap_or(Duration::MAX));
            }
            Then::Postpone => self.until = self.until.max(after(second)),
        }
    }

    fn put(&mut self, out: Out) {
        let output = match out {
            Out::SendPrecopyPull => return self.prompts.push_back(Prompt::SendPrecopyPull),
            Out::SendPull => return self.prompts.push_back(Prompt::SendPull),
            Out::SendReady => return self.prompts.push_back(Prompt::SendReady),
            Out::SendRefuse => return self.prompts.push_back(Prompt::SendRefuse),
            Out::CloseUntaken => return self.prompts.push_back(Prompt::CloseUntaken),
            Out::TellManager => return self.prompts.push_back(Prompt::TellManager),
            Out::TakeBack => {
                self.unnamed = self.outputs.contains(&TakeoverOutput::TakeService { name_main_pid: true });
                return self.outputs.retain(|output| matches!(output, TakeoverOutput::Notice(_)));
            }
            Out::Open => TakeoverOutput::Open,
            Out::Sole => TakeoverOutput::Sole,
            Out::Answer => TakeoverOutput::Answer,
            Out::Take => TakeoverOutput::TakeService { name_main_pid: false },
            Out::TakeAndName => TakeoverOutput::TakeService { name_main_pid: true },
            Out::TakeAgain => TakeoverOutput::TakeService { name_main_pid: self.unnamed },
            Out::Granted => TakeoverOutput::Notice(TakeoverNotice::Granted),
            Out::Committed => TakeoverOutput::Notice(TakeoverNotice::Committed),
            Out::GivenUp => TakeoverOutput::Notice(TakeoverNotice::GivenUp),
            Out::LineLost => TakeoverOutput::Notice(TakeoverNotice::LineLost),
            Out::MarksFreed => TakeoverOutput::MarksFreed,
            Out::Gone => TakeoverOutput::Notice(TakeoverNotice::PredecessorGone),
        };
        if out != Out::MarksFreed || !self.outputs.contains(&output) {
            self.outputs.push_back(output);
        }
    }
}
