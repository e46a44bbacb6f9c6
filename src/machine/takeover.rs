//! The machine of a process that takes over: from its first instruction until the service is its own.
//!
//! Knows: the order in which things may happen between a process and its predecessor. Does not know:
//! lifelines, descriptors, clocks, threads, text. Time is a [`Duration`] since any fixed moment.
//!
//! The contract: call [`Takeover::handle`], then carry out what [`Takeover::poll_prompt`] returns before
//! anything else is handled; the loop takes [`Takeover::poll_output`] when it can. Call `handle` with
//! [`TakeoverInput::Timeout`] when [`Takeover::poll_timeout`] has passed. `handle` is total: a pair of
//! stage and input that is not a row of the table on [`Stage`] changes nothing and says nothing.

mod words;

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::Refusal;

pub use words::{Inbound, Line, Prompt, Stage, TakeoverInput, TakeoverNotice, TakeoverOutput};

/// How long a process lives on at most after its descriptors are closed, on a busy machine: a peer
/// that lives longer has closed its lifeline on purpose.
pub const DYING: Duration = Duration::from_secs(1);

/// After this time a successor that has lost its lifeline is not killed for it any more, unless the
/// predecessor is held up: that one waits for [`DYING`].
pub const LOST: Duration = DYING.saturating_mul(2);

/// The machine: where it stands, and what has yet to be carried out.
#[derive(Debug)]
pub struct Takeover {
    stage: Stage,
    /// How long the predecessor can take a grant back, if this process has one and it can.
    probation: Option<Duration>,
    has_predecessor: bool,
    prompts: VecDeque<Prompt>,
    outputs: VecDeque<TakeoverOutput>,
}

impl Takeover {
    /// A first generation.
    pub fn first() -> Takeover {
        Takeover::new(Stage::Alone { state: Inbound::NotAsked, ready: false }, None, false)
    }

    /// A successor, which can lose a grant again within that probation.
    pub fn successor(probation: Option<Duration>) -> Takeover {
        Takeover::new(Stage::Starting { line: Line::Open, state: Inbound::NotAsked }, probation, true)
    }

    fn new(stage: Stage, probation: Option<Duration>, has_predecessor: bool) -> Takeover {
        Takeover { stage, probation, has_predecessor, prompts: VecDeque::new(), outputs: VecDeque::new() }
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The next thing to do at once.
    pub fn poll_prompt(&mut self) -> Option<Prompt> {
        self.prompts.pop_front()
    }

    /// The next thing for the loop.
    pub fn poll_output(&mut self) -> Option<TakeoverOutput> {
        self.outputs.pop_front()
    }

    /// A restarter that is dropped has not told this: the next one does.
    pub fn put_back(&mut self, notice: TakeoverNotice) {
        self.tell(notice);
    }

    /// When `handle(TakeoverInput::Timeout)` is next needed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.stage {
            Stage::Granted { line: Line::Open, look_at } => Some(look_at),
            Stage::Starting { line: Line::Lost { until }, .. }
            | Stage::ReadySent { line: Line::Lost { until } }
            | Stage::Granted { line: Line::Lost { until }, .. } => Some(until),
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::Granted { .. } => None,
            Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => None,
        }
    }

    /// Whether `SayReady` is taken: not while a state that was asked for can come or waits to be taken.
    pub fn may_be_ready(&self) -> bool {
        match self.stage {
            Stage::Starting { state, .. } => matches!(state, Inbound::NotAsked | Inbound::Taken),
            Stage::Alone { state, .. } => state != Inbound::Arrived,
            Stage::ReadySent { .. } | Stage::Granted { .. } | Stage::Final { .. } | Stage::GivenUp { .. } => true,
        }
    }

    /// Whether the state is here and waits to be taken.
    pub fn has_state(&self) -> bool {
        matches!(self.stage, Stage::Starting { state: Inbound::Arrived, .. } | Stage::Alone { state: Inbound::Arrived, .. })
    }

    /// Why a request for a restart would be refused; `None` if nothing here forbids one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.stage {
            Stage::Final { .. } | Stage::Alone { ready: true, .. } => None,
            Stage::Granted { .. } => Some(Refusal::OnProbation { successor: None }),
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::Alone { ready: false, .. } | Stage::GivenUp { .. } => {
                Some(Refusal::NotReady)
            }
        }
    }

    /// Takes one thing in.
    pub fn handle(&mut self, now: Duration, input: TakeoverInput) {
        match input {
            TakeoverInput::Attach => self.attach(),
            TakeoverInput::PullPrecopy => self.pull_precopy(),
            TakeoverInput::PrecopyComplete => {
                if let Stage::Starting { line: Line::Open, state: state @ Inbound::Precopy } = &mut self.stage {
                    *state = Inbound::Precopied;
                }
            }
            TakeoverInput::Pull => self.pull(),
            TakeoverInput::StateComplete => self.state_complete(),
            TakeoverInput::StateUnusable => self.state_unusable(),
            TakeoverInput::StateTaken => self.state_taken(),
            TakeoverInput::SayReady => self.say_ready(),
            TakeoverInput::SayRefuse => self.say_refuse(),
            TakeoverInput::Granted => self.granted(now),
            TakeoverInput::Commit => {
                if let Stage::Granted { line: Line::Open, .. } = self.stage {
                    self.take_service_after_grant(false);
                }
            }
            TakeoverInput::GivenUp => self.given_up(),
            TakeoverInput::LineClosed { by_us } => self.line_closed(now, by_us),
            TakeoverInput::GenerationEnded => self.generation_ended(),
            TakeoverInput::PredecessorDying => {
                if let Some(Line::Lost { until }) = self.line_mut() {
                    *until = (*until).max(now.saturating_add(DYING));
                }
            }
            TakeoverInput::PredecessorEnded => self.predecessor_ended(),
            TakeoverInput::Timeout => {
                if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
                    self.timeout(now);
                }
            }
        }
    }

    /// What holds is said anew to each restarter. The main PID is named once: that is owed until a
    /// restarter has carried it out.
    fn attach(&mut self) {
        let name_main_pid = self.outputs.contains(&TakeoverOutput::TakeService { name_main_pid: true });
        self.outputs.retain(|output| matches!(output, TakeoverOutput::Notice(_)));
        match self.stage {
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::GivenUp { .. } => {}
            Stage::Granted { line, .. } => {
                self.outputs.push_back(TakeoverOutput::Open);
                if line == Line::Silent {
                    self.outputs.push_back(TakeoverOutput::Answer);
                }
            }
            Stage::Alone { ready: false, .. } => self.outputs.extend([TakeoverOutput::Sole, TakeoverOutput::Answer]),
            Stage::Alone { ready: true, .. } | Stage::Final { .. } => {
                self.outputs.push_back(TakeoverOutput::Open);
                self.take_service(name_main_pid);
            }
        }
    }

    fn pull_precopy(&mut self) {
        if let Stage::Starting { state: state @ Inbound::NotAsked, .. } = &mut self.stage {
            *state = Inbound::Precopy;
            self.prompts.push_back(Prompt::SendPrecopyPull);
        }
    }

    fn pull(&mut self) {
        if let Stage::Starting { state: state @ (Inbound::NotAsked | Inbound::Precopy | Inbound::Precopied), .. } = &mut self.stage {
            *state = Inbound::Asked;
            self.prompts.push_back(Prompt::SendPull);
        }
    }

    fn state_complete(&mut self) {
        if let Stage::Starting { line: Line::Open, state: state @ Inbound::Asked } = &mut self.stage {
            *state = Inbound::Arrived;
        }
    }

    fn state_unusable(&mut self) {
        if let Stage::Starting { line: Line::Open, state } = &mut self.stage
            && state.is_coming()
        {
            *state = Inbound::Unusable;
            // Nothing may be lost in silence: without all of the state this process does not take over.
            self.prompts.extend([Prompt::SendRefuse, Prompt::CloseUntaken]);
        }
    }

    fn state_taken(&mut self) {
        if let Stage::Starting { state, .. } | Stage::Alone { state, .. } = &mut self.stage
            && *state == Inbound::Arrived
        {
            *state = Inbound::Taken;
        }
    }

    fn say_ready(&mut self) {
        if !self.may_be_ready() {
            return;
        }
        match self.stage {
            Stage::Starting { line, .. } => {
                self.stage = Stage::ReadySent { line };
                self.prompts.push_back(Prompt::SendReady);
            }
            Stage::Alone { state, ready: false } => {
                if !self.has_predecessor {
                    self.prompts.push_back(Prompt::TellManager);
                }
                self.serve_alone(state);
            }
            Stage::ReadySent { .. } | Stage::Granted { .. } | Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => {}
        }
    }

    fn say_refuse(&mut self) {
        if let Stage::Starting { .. } | Stage::ReadySent { .. } = self.stage {
            self.prompts.push_back(Prompt::SendRefuse);
        }
    }

    fn granted(&mut self, now: Duration) {
        if let Stage::ReadySent { line: line @ Line::Open } = self.stage {
            let look_at = now.saturating_add(self.probation.unwrap_or_default()).saturating_add(DYING);
            self.stage = Stage::Granted { line, look_at };
            self.prompts.push_back(Prompt::CloseUntaken);
            self.outputs.push_back(TakeoverOutput::Open);
            self.tell(TakeoverNotice::Granted);
        }
    }

    fn given_up(&mut self) {
        if let Stage::Starting { .. } | Stage::ReadySent { .. } = self.stage {
            self.stage = Stage::GivenUp { predecessor_ended: false };
            self.prompts.push_back(Prompt::CloseUntaken);
            self.tell(TakeoverNotice::GivenUp);
        }
    }

    fn line_closed(&mut self, now: Duration, by_us: bool) {
        let ungranted = !matches!(self.stage, Stage::Granted { .. });
        if let Some(line @ Line::Open) = self.line_mut() {
            let patience = if ungranted && !by_us { DYING } else { LOST };
            *line = Line::Lost { until: now.saturating_add(patience) };
            if let Stage::Starting { state, .. } = self.stage
                && state.is_coming()
            {
                // The rest will not come, and the peers of what has must learn that nobody is here.
                self.prompts.push_back(Prompt::CloseUntaken);
            }
        }
    }

    /// Before the service is granted it is the predecessor that frees marks, and `Open` makes up for what it may have missed.
    fn generation_ended(&mut self) {
        match self.stage {
            Stage::Granted { .. } | Stage::Final { .. } | Stage::Alone { ready: true, .. } => self.free_marks(),
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::Alone { ready: false, .. } | Stage::GivenUp { .. } => {}
        }
    }

    /// One that waits is for all.
    fn free_marks(&mut self) {
        if !self.outputs.contains(&TakeoverOutput::MarksFreed) {
            self.outputs.push_back(TakeoverOutput::MarksFreed);
        }
    }

    fn predecessor_ended(&mut self) {
        match self.stage {
            Stage::Starting { state, .. } => {
                let state = if state.is_coming() { Inbound::NotAsked } else { state };
                self.stage = Stage::Alone { state, ready: false };
                if state == Inbound::NotAsked {
                    self.prompts.push_back(Prompt::CloseUntaken);
                }
                self.outputs.extend([TakeoverOutput::Sole, TakeoverOutput::Answer]);
                self.tell(TakeoverNotice::PredecessorGone);
            }
            Stage::ReadySent { .. } => {
                self.serve_alone(Inbound::NotAsked);
                self.tell(TakeoverNotice::PredecessorGone);
            }
            Stage::Granted { .. } => {
                self.take_service_after_grant(true);
                self.predecessor_ended();
            }
            Stage::Final { predecessor_ended: false } => {
                self.stage = Stage::Final { predecessor_ended: true };
                self.free_marks();
                self.tell(TakeoverNotice::PredecessorGone);
            }
            Stage::GivenUp { predecessor_ended: false } => {
                self.stage = Stage::GivenUp { predecessor_ended: true };
                self.tell(TakeoverNotice::PredecessorGone);
            }
            Stage::Final { .. } | Stage::GivenUp { .. } | Stage::Alone { .. } => {}
        }
    }

    fn timeout(&mut self, now: Duration) {
        match &mut self.stage {
            Stage::Starting { .. } | Stage::ReadySent { .. } => self.given_up(),
            Stage::Granted { line: Line::Open, look_at } => *look_at = now.saturating_add(DYING),
            Stage::Granted { line, .. } => {
                *line = Line::Silent;
                self.tell(TakeoverNotice::LineLost);
                match self.probation {
                    None => self.take_service_after_grant(false),
                    // The predecessor may be held up, and serves again if it finds this process dead
                    // when it goes on, although this process may have been replaced by then.
                    Some(_) => self.outputs.push_back(TakeoverOutput::Answer),
                }
            }
            Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => {}
        }
    }

    /// Nobody is left to grant the service.
    fn serve_alone(&mut self, state: Inbound) {
        self.stage = Stage::Alone { state, ready: true };
        if self.has_predecessor {
            self.prompts.push_back(Prompt::CloseUntaken);
        }
        self.outputs.push_back(TakeoverOutput::Open);
        self.take_service(self.has_predecessor);
    }

    fn take_service_after_grant(&mut self, name_main_pid: bool) {
        self.stage = Stage::Final { predecessor_ended: false };
        self.take_service(name_main_pid);
        self.tell(TakeoverNotice::Committed);
    }

    fn take_service(&mut self, name_main_pid: bool) {
        self.outputs.extend([TakeoverOutput::TakeService { name_main_pid }, TakeoverOutput::Answer]);
    }

    fn tell(&mut self, notice: TakeoverNotice) {
        self.outputs.push_back(TakeoverOutput::Notice(notice));
    }

    /// The lifeline, where it matters.
    fn line_mut(&mut self) -> Option<&mut Line> {
        match &mut self.stage {
            Stage::Starting { line, .. } | Stage::ReadySent { line } | Stage::Granted { line, .. } => Some(line),
            Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => None,
        }
    }
}
