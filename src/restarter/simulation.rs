//! What a test does in place of a restarter's thread and its timer, and what it sees of the machine.
//!
//! Knows: the simulated system. Does not know: what a test makes of it.

use std::time::Duration;

use crate::config::RestartConfig;
use crate::error::Error;
use crate::machine::State;
use crate::predecessor::begin_anew;

pub use super::driver::Step;
pub use crate::sys::simulation::{Seen, Simulation, Struck};

use super::Restarter;

/// A restarter on the simulated system of this thread, in a process that has just been born.
///
/// # Errors
///
/// Those of [`RestartConfig::build`].
pub fn build(_: &Simulation, config: &RestartConfig) -> Result<Restarter, Error> {
    begin_anew();
    let mut restarter = config.build()?;
    restarter.driver.record();
    Ok(restarter)
}

/// The process ends: what it keeps for as long as it lives is gone.
pub fn end_process() {
    begin_anew();
}

/// What has been done with its machine since the last time.
pub fn steps(restarter: &mut Restarter) -> Vec<Step> {
    restarter.driver.take_record()
}

/// Where its machine stands.
pub fn state(restarter: &Restarter) -> State {
    restarter.driver.state()
}

/// The restart thread does the next thing that it was told to; `false`: there is none.
pub fn run_thread(restarter: &mut Restarter) -> bool {
    let worked = restarter.succession.run_thread();
    // It may have waited.
    restarter.reactor.time_has_passed();
    worked
}

/// The restart thread is gone.
pub fn lose_thread(restarter: &mut Restarter) {
    restarter.succession.lose_thread();
}

/// Time passes.
pub fn pass(simulation: &Simulation, restarter: &mut Restarter, time: Duration) {
    simulation.pass(time);
    restarter.reactor.time_has_passed();
}
