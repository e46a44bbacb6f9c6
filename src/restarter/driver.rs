//! The restart machine, and a record of what is done with it where a test wants one.
//!
//! Knows: inputs and outputs. Does not know: how an input comes about, or how an output is carried out.

#[cfg(test)]
mod tests;

use std::mem;
use std::time::Duration;

use crate::error::Refusal;
use crate::machine::{Action, Input, Limits, Machine, Output, State};

use super::reactor::{Deadline, Due};

/// What is done with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something comes in.
    In(Duration, Input),
    /// Something is about to be carried out, or told.
    Out(Output),
    /// Something outside forbids restarts from now on, or nothing does.
    Obstacle(Option<Refusal>),
}

#[derive(Debug)]
pub(super) struct Driver {
    machine: Machine,
    limits: Limits,
    record: Option<Vec<Step>>,
}

impl Driver {
    pub(super) fn new(limits: Limits) -> Driver {
        Driver { machine: Machine::new(limits), limits, record: None }
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        self.machine.state()
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Why a request that came now would be refused.
    pub(super) fn refusal(&self, now: Duration) -> Option<Refusal> {
        self.machine.refusal(now)
    }

    pub(super) fn feed(&mut self, now: Duration, input: Input) {
        log::trace!("{input:?} in {:?}", self.machine.state());
        self.note(|| Step::In(now, input));
        self.machine.handle(now, input);
    }

    pub(super) fn set_obstacle(&mut self, obstacle: Option<Refusal>) {
        self.note(|| Step::Obstacle(obstacle));
        self.machine.set_obstacle(obstacle);
    }

    pub(super) fn next_output(&mut self) -> Option<Output> {
        let output = self.machine.poll_output()?;
        self.note(|| Step::Out(output));
        Some(output)
    }

    /// Whether that is the next.
    pub(super) fn begins_with(&self, action: Action) -> bool {
        self.machine.first_output() == Some(action.into())
    }

    /// Whether the machine waits for that moment, or an earlier one.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.machine.poll_timeout().is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn next_deadline(&self) -> Option<Due> {
        Some((self.machine.poll_timeout()?, Deadline::Restart))
    }

    /// From now on there is a record.
    pub(super) fn record(&mut self) {
        self.record = Some(Vec::new());
    }

    /// What has been recorded since the last time.
    pub(super) fn take_record(&mut self) -> Vec<Step> {
        self.record.as_mut().map(mem::take).unwrap_or_default()
    }

    fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(record) = &mut self.record {
            record.push(step());
        }
    }
}
