//! Variants with fields: outside of the crate nobody can make them but its tests, by these.

use std::time::Duration;

use super::Refusal;

/// A restart was asked for so long ago.
pub const fn under_way(since: Duration) -> Refusal {
    Refusal::UnderWay { since }
}

/// That successor is on probation; `None`: this process is.
pub const fn on_probation(successor: Option<u32>) -> Refusal {
    Refusal::OnProbation { successor }
}

/// That process serves.
pub const fn handed_off(successor: u32) -> Refusal {
    Refusal::HandedOff { successor }
}

/// So many earlier generations are there, and that one is the oldest.
pub const fn draining(count: u32, oldest: u32) -> Refusal {
    Refusal::Draining { count, oldest }
}
