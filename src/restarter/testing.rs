//! What the tests of the parts share.

use std::time::{Duration, Instant};

use crate::sys;

use super::reactor::{Reactor, Ready};

/// How long anything is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// What the reactor has, as soon as it has what is wanted.
pub(super) fn collect_until(reactor: &mut Reactor, is_wanted: impl Fn(&Ready) -> bool) -> Ready {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(ready) = reactor.collect()
            && is_wanted(&ready)
        {
            return ready;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(sys::is_readable_within(&*reactor, left), "nothing is ready");
    }
}
