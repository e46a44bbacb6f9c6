//! The pair: both machines over one lifeline, each with a driver that does with ideal means what
//! `src/restarter` and `src/predecessor` do.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `room` | where the restart machine stands: as in `model` |
//! | `automaton` | a machine as a table that fills while it is used |
//! | `world` | the pair as it stands |
//! | `setting` | what may happen in a search, and each thing that can |
//! | `acts` | which of them are possible where |
//! | `old`, `attempt` | the driver of the old process: its loop, and an attempt that is under way |
//! | `new` | the driver of a new process |
//! | `laws` | what must hold, and where |
//! | `plant` | faults for the laws to find |
//! | `normal` | which states are one |
//! | `search` | all that can happen, to a fixed point |
//! | `life` | one life that bytes choose: the fuzz target |
//!
//! Knows: what goes from one machine to the other. Does not know: what a machine does with it.

pub mod acts;
pub mod attempt;
pub mod automaton;
pub mod laws;
pub mod life;
pub mod new;
pub mod normal;
pub mod old;
pub mod plant;
pub use crate::model::room;
pub mod search;
pub mod setting;
pub mod world;

use std::time::Duration;

use pollflip::internals::machine::Limits;

pub use life::life;

/// The times of the machines, which here say only that there is a deadline.
pub const LIMITS: Limits = Limits { ready: Duration::from_secs(30), freeze: Duration::from_secs(8), probation: None };

pub fn on_probation(limits: Limits, probation: bool) -> Limits {
    Limits { probation: probation.then_some(Duration::from_secs(10)), ..limits }
}
