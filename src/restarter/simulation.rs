//! What a test sees of a restarter, and does in place of its thread and its timer.
//!
//! Knows: the machine's side of the loop, and the simulated system. Does not know: what a test makes of it.

use std::mem;
use std::time::Duration;

use crate::config::RestartConfig;
use crate::error::{Error, Refusal};
use crate::machine::{Input, Output, State};
use crate::predecessor::begin_anew;

pub use crate::sys::simulation::{Seen, Simulation, Struck};

use super::Restarter;

/// What the loop does with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something comes in.
    In(Duration, Input),
    /// Something is about to be carried out, or told.
    Out(Output),
    /// Something outside forbids restarts from now on, or nothing does.
    Obstacle(Option<Refusal>),
}

impl Restarter {
    pub(super) fn take_in(&mut self, now: Duration, input: Input) {
        self.notes(|| Step::In(now, input));
        self.machine.handle(now, input);
    }

    pub(super) fn next_output(&mut self) -> Option<Output> {
        let output = self.machine.poll_output()?;
        self.notes(|| Step::Out(output));
        Some(output)
    }

    pub(super) fn obstruct(&mut self, obstacle: Option<Refusal>) {
        self.notes(|| Step::Obstacle(obstacle));
        self.machine.set_obstacle(obstacle);
    }

    fn notes(&mut self, step: impl FnOnce() -> Step) {
        if let Some(witness) = &mut self.witness {
            witness.push(step());
        }
    }
}

/// A restarter on the simulated system of this thread, in a process that has just been born.
///
/// # Errors
///
/// Those of [`RestartConfig::build`].
pub fn build(_: &Simulation, config: &RestartConfig) -> Result<Restarter, Error> {
    begin_anew();
    let mut restarter = config.build()?;
    restarter.witness = Some(Vec::new());
    Ok(restarter)
}

/// The process ends: what it keeps for as long as it lives is gone.
pub fn end_process() {
    begin_anew();
}

/// What has been done with its machine since the last time.
pub fn steps(restarter: &mut Restarter) -> Vec<Step> {
    restarter.witness.as_mut().map(mem::take).unwrap_or_default()
}

/// Where its machine stands.
pub fn state(restarter: &Restarter) -> State {
    restarter.machine.state()
}

/// The restart thread does the next thing that it was told to; `false`: there is none.
pub fn run_thread(restarter: &mut Restarter) -> bool {
    let worked = restarter.exec.carry_out_one();
    // It may have waited.
    let now = restarter.now();
    restarter.timer.time_has_passed(now);
    worked
}

/// The restart thread is gone.
pub fn lose_thread(restarter: &mut Restarter) {
    restarter.exec.lose();
}

/// Time passes.
pub fn pass(simulation: &Simulation, restarter: &mut Restarter, time: Duration) {
    simulation.pass(time);
    let now = restarter.now();
    restarter.timer.time_has_passed(now);
}
