//! What the clients count.

use std::collections::BTreeMap;
use std::time::Duration;

/// With what a failure begins if there is no connection.
pub(crate) const CONNECTING: &str = "connecting";

/// What the clients have seen so far.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) keep_alive: u64,
    pub(crate) one_shot: u64,
    pub(crate) connections: u64,
    /// Keep-alive connections that the server announced to close, and those it closed while idle.
    pub(crate) told_to_close: u64,
    pub(crate) closed_idle: u64,
    pub(crate) slowest: Duration,
    pub(crate) by_generation: BTreeMap<u32, u64>,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections that were broken by the death of a release that is known to have died.
    pub(crate) lost: u64,
}

impl Tally {
    pub(crate) fn answered(&self) -> u64 {
        self.keep_alive + self.one_shot
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Connections that could not be made.
    pub(crate) fn refused(&self) -> u64 {
        let refused = |reason: &&String| reason.contains(CONNECTING);
        self.failures.iter().filter(|(reason, _)| refused(reason)).map(|(_, count)| count).sum()
    }
}
