//! The driver: the code, the model and the laws in step. The first difference ends the test with the
//! whole history.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use pollflip::internals::machine::{Prompt, Stage, Takeover, TakeoverInput, TakeoverOutput};

use super::laws::Answers;
use super::say::Carried;
use super::tampered::{Tamper, Tampered};
use super::{At, Setting, StageView, TakeoverFacts, TakeoverLaw, TakeoverLaws};

/// All of it.
pub use crate::model::checked::ALL;

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judges {
    Both,
    Laws,
    Model,
}

/// What was found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Law(TakeoverLaw),
    Model(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Law(law) => write!(f, "a law is broken: {law}"),
            Wrong::Model(how) => f.write_str(how),
        }
    }
}

/// One thing that came in, and what was carried out thereafter.
#[derive(Debug)]
struct Step {
    now: Duration,
    input: TakeoverInput,
    stage: Stage,
    prompts: Vec<Prompt>,
    outputs: Vec<TakeoverOutput>,
}

pub struct CheckedTakeover {
    setting: Setting,
    judges: Judges,
    machine: Tampered,
    model: TakeoverFacts,
    laws: TakeoverLaws,
    now: Duration,
    history: Vec<Step>,
    /// The rows of the table that were used, with where they were.
    cells: Vec<(usize, At)>,
}

impl CheckedTakeover {
    pub fn new(setting: Setting) -> CheckedTakeover {
        CheckedTakeover::with_fault(setting, None, Judges::Both)
    }

    pub fn with_fault(setting: Setting, fault: Option<Tamper>, judges: Judges) -> CheckedTakeover {
        CheckedTakeover {
            setting,
            judges,
            machine: Tampered::new(setting, fault),
            model: TakeoverFacts::new(setting),
            laws: TakeoverLaws::new(setting),
            now: Duration::ZERO,
            history: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// Brought to where these inputs lead, each carried out at once; a timeout comes when it is due.
    pub fn after(setting: Setting, path: &[TakeoverInput]) -> CheckedTakeover {
        let mut checked = CheckedTakeover::new(setting);
        path.iter().for_each(|input| drop(checked.meets(*input)));
        checked
    }

    /// One more of the same kind.
    pub fn meets(&mut self, input: TakeoverInput) -> Carried {
        if input == TakeoverInput::Timeout {
            self.now += self.to_deadline();
        }
        let prompts = self.takes(self.now, input);
        (prompts, self.drain(ALL))
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
    }

    /// Hands in one input at a time that may have passed, and carries out the prompts.
    pub fn takes(&mut self, at: Duration, input: TakeoverInput) -> Vec<Prompt> {
        let taken = self.try_take(at, input).and_then(|prompts| self.try_ask().map(|()| prompts));
        taken.unwrap_or_else(|wrong| panic!("{wrong}\n{self}"))
    }

    /// Carries out so many outputs.
    pub fn drain(&mut self, most: usize) -> Vec<TakeoverOutput> {
        self.try_drain(most).unwrap_or_else(|wrong| panic!("{wrong}\n{self}"))
    }

    pub fn try_take(&mut self, at: Duration, input: TakeoverInput) -> Result<Vec<Prompt>, Wrong> {
        self.laws.goes_in(at, input);
        self.machine.handle(at, input);
        let place = self.model.at();
        let row = self.model.take(at, input);
        self.cells.extend(row.map(|row| (row, place)));
        self.history.push(Step { now: at, input, stage: self.stage(), prompts: Vec::new(), outputs: Vec::new() });
        let mut prompts = Vec::new();
        loop {
            let (prompt, expected) = (self.machine.poll_prompt(), self.model.next_prompt());
            if prompt != expected {
                self.differs(|| format!("it prompts {prompt:?}, the model {expected:?}"))?;
            }
            let Some(prompt) = prompt else { break };
            prompts.push(prompt);
            self.history.last_mut().expect("a step").prompts.push(prompt);
            let verdict = self.laws.prompts(prompt);
            self.judge(verdict)?;
        }
        let verdict = self.laws.has_prompted();
        self.judge(verdict)?;
        let overdue = self.machine.poll_timeout().is_some_and(|deadline| deadline <= at && deadline != Duration::MAX);
        if input == TakeoverInput::Timeout && overdue {
            self.differs(|| "a timeout that has passed is asked for again".into())?;
        }
        Ok(prompts)
    }

    /// Compares what the machine says of itself.
    pub fn try_ask(&self) -> Result<(), Wrong> {
        let machine = self.machine();
        let answers = Answers {
            refusal: self.machine.refusal(),
            may_be_ready: self.machine.may_be_ready(),
            has_state: machine.has_state(),
            timeout: self.machine.poll_timeout(),
        };
        self.judge(self.laws.says(answers))?;
        let (view, expected) = (StageView::from(machine.stage()), self.model.view());
        if view != expected {
            self.differs(|| format!("it stands at {view:?}, the model at {expected:?}"))?;
        }
        let told = (answers.timeout, answers.refusal, answers.may_be_ready, answers.has_state);
        let expected = (self.model.timeout(), self.model.refusal(), self.model.may_be_ready(), self.model.has_state());
        if told != expected {
            self.differs(|| format!("it says {told:?} of itself (timeout, refusal, may be ready, has state), the model {expected:?}"))?;
        }
        Ok(())
    }

    pub fn try_drain(&mut self, most: usize) -> Result<Vec<TakeoverOutput>, Wrong> {
        let mut outputs = Vec::new();
        while outputs.len() < most {
            let (output, expected) = (self.machine.poll_output(), self.model.next_output());
            if output != expected {
                self.differs(|| format!("it puts out {output:?}, the model {expected:?}"))?;
            }
            let Some(output) = output else {
                self.judge(self.laws.rests())?;
                break;
            };
            outputs.push(output);
            if let Some(step) = self.history.last_mut() {
                step.outputs.push(output);
            }
            let verdict = self.laws.comes_out(output);
            self.judge(verdict)?;
        }
        Ok(outputs)
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    /// How long until the next timeout is due.
    pub fn to_deadline(&self) -> Duration {
        self.machine.poll_timeout().map_or(Duration::ZERO, |deadline| deadline.saturating_sub(self.now))
    }

    /// The same; of one that never comes there is nothing left.
    pub fn to_deadline_of_this_age(&self) -> Duration {
        if self.machine.poll_timeout() == Some(Duration::MAX) { Duration::ZERO } else { self.to_deadline() }
    }

    pub fn machine(&self) -> &Takeover {
        self.machine.machine()
    }

    pub fn stage(&self) -> Stage {
        self.machine().stage()
    }

    pub fn at(&self) -> At {
        StageView::from(self.stage()).at
    }

    pub fn steps(&self) -> usize {
        self.history.len()
    }

    pub fn cells(&self) -> &[(usize, At)] {
        &self.cells
    }

    /// All that decides what comes next, free of the time of day: two histories with the same key have
    /// the same future.
    pub fn key(&self) -> u128 {
        let view = StageView::from(self.stage());
        let left = view.until.map(|until| if until == Duration::MAX { until } else { until.saturating_sub(self.now) });
        let state = view.state.map(|state| state as u8);
        let mut hasher = DefaultHasher::new();
        (self.setting, view.at, state, view.contact, left, view.ended).hash(&mut hasher);
        self.laws.relative(self.now).hash(&mut hasher);
        self.model.queue().iter().for_each(|output| number(*output).hash(&mut hasher));
        let first = hasher.finish();
        first.hash(&mut hasher);
        u128::from(first) << 64 | u128::from(hasher.finish())
    }

    fn judge(&self, verdict: Result<(), TakeoverLaw>) -> Result<(), Wrong> {
        verdict.map_err(Wrong::Law).or_else(|wrong| if self.judges == Judges::Model { Ok(()) } else { Err(wrong) })
    }

    fn differs(&self, how: impl FnOnce() -> String) -> Result<(), Wrong> {
        if self.judges == Judges::Laws { Ok(()) } else { Err(Wrong::Model(how())) }
    }
}

impl fmt::Display for CheckedTakeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "history of a process that was born as {:?}:", self.setting)?;
        for Step { now, input, stage, prompts, outputs } in &self.history {
            writeln!(f, "  {now:?} {input:?} → {stage:?}")?;
            prompts.iter().try_for_each(|prompt| writeln!(f, "      {prompt:?}"))?;
            outputs.iter().try_for_each(|output| writeln!(f, "      {output:?}"))?;
        }
        Ok(())
    }
}

fn number(output: TakeoverOutput) -> u8 {
    match output {
        TakeoverOutput::Open => 0,
        TakeoverOutput::Answer => 1,
        TakeoverOutput::TakeService { name_main_pid } => 2 + u8::from(name_main_pid),
        TakeoverOutput::Sole => 4,
        TakeoverOutput::MarksFreed => 5,
        TakeoverOutput::Notice(notice) => 6 + notice as u8,
    }
}
