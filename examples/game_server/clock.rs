//! When what happened, told to the one who runs the servers: one clock for all processes of the machine.

use nix::time::{ClockId, clock_gettime};
use std::io::{self, Write};
use std::process;
use std::time::Duration;

/// The steps of a restart, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    /// The old process: the state was asked for, and nothing moves any more.
    Frozen,
    /// The old process has given everything.
    Collected,
    /// The new process has received everything.
    Received,
    /// The new process has made a world of it.
    Adopted,
    /// The new process watches all connections.
    Registered,
    /// The new process may touch them.
    Granted,
    /// The old process goes on, after a try that failed.
    Thawed,
}

const NAMES: [(Moment, &str); 7] = [
    (Moment::Frozen, "frozen"),
    (Moment::Collected, "collected"),
    (Moment::Received, "received"),
    (Moment::Adopted, "adopted"),
    (Moment::Registered, "registered"),
    (Moment::Granted, "granted"),
    (Moment::Thawed, "thawed"),
];

pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Prints `MOMENT PID NANOSECONDS`.
pub(crate) fn tell(moment: Moment) {
    let name = NAMES.iter().find(|(known, _)| *known == moment).map_or("", |(_, name)| name);
    // The reader of this may be gone.
    let _ = writeln!(io::stdout(), "{name} {} {}", process::id(), now().as_nanos());
}

/// What [`tell`] has printed.
pub(crate) fn read(line: &str) -> Option<(Moment, Duration)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let (moment, _) = NAMES.iter().find(|(_, known)| *known == name)?;
    let nanoseconds = words.nth(1)?;
    Some((*moment, Duration::from_nanos(nanoseconds.parse().ok()?)))
}
