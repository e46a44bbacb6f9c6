//! When what happened, told to the one who runs the servers: one clock for all processes of the machine.

use nix::time::{ClockId, clock_gettime};
use std::io::{self, Write};
use std::process;
use std::time::Duration;

/// The steps of a restart, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    /// The old process begins to give players ahead of the freeze.
    Copying,
    /// It has given all that there were: a figure for the players, and one for each piece, which is
    /// how many nanoseconds it has held the loop.
    Copied,
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
    /// The process was killed, which the one who did it tells.
    Killed,
}

const NAMES: [(Moment, &str); 9] = [
    (Moment::Copying, "copying"),
    (Moment::Copied, "copied"),
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

/// A moment that was told of.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) moment: Moment,
    pub(crate) pid: u32,
    pub(crate) at: Duration,
    pub(crate) figures: Vec<u64>,
}

pub(crate) fn tell(moment: Moment) {
    tell_with(moment, &[]);
}

/// Prints `MOMENT PID NANOSECONDS FIGURES`.
pub(crate) fn tell_with(moment: Moment, figures: &[u64]) {
    let name = NAMES.iter().find(|(known, _)| *known == moment).map_or("", |(_, name)| name);
    let mut line = format!("{name} {} {}", process::id(), now().as_nanos());
    for figure in figures {
        line.push(' ');
        line.push_str(&figure.to_string());
    }
    // The reader of this may be gone.
    let _ = writeln!(io::stdout(), "{line}");
}

/// What [`tell_with`] has printed.
pub(crate) fn read(line: &str) -> Option<Told> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let (moment, _) = NAMES.iter().find(|(_, known)| *known == name)?;
    let mut numbers = words.map_while(|word| word.parse::<u64>().ok());
    let pid = numbers.next()?.try_into().ok()?;
    let at = Duration::from_nanos(numbers.next()?);
    Some(Told { moment: *moment, pid, at, figures: numbers.collect() })
}
