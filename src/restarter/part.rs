//! What the parts have in common that wait for something outside: `Succession`, `Ancestry`, `Requests` and `Manager`.
//!
//! Knows: the reactor, and that there are inputs. Does not know: what any part waits for.

use std::time::Duration;

use crate::machine::Input;

use super::reactor::{Due, Reactor, Ready};

/// What a part is polled with.
#[derive(Debug, Default)]
pub(super) struct Moment {
    /// The time before anything was read. Deadlines are judged by it: this process may be stopped at any point, and what has come
    /// meanwhile came in time.
    pub(super) now: Duration,
    /// What was ready then.
    pub(super) ready: Ready,
    /// A deadline of the machine has passed: it is judged by all that had come by then.
    pub(super) is_late: bool,
}

impl Moment {
    /// Nothing is ready.
    pub(super) fn at(now: Duration) -> Moment {
        Moment { now, ..Moment::default() }
    }
}

/// A part of the restarter that waits for something outside.
pub(super) trait Part {
    /// Takes in what has come. Never blocks.
    fn poll(&mut self, moment: &Moment, reactor: &Reactor, inputs: &mut Vec<Input>);

    /// When it must be polled although nothing comes, and for what.
    fn next_deadline(&self, now: Duration) -> Option<Due>;
}
