//! Bytes to steps and back: what fuzzing, random walks and the corpus have in common.
//!
//! The first byte sets the machine up, then two bytes make a step: what comes in and of which attempt; how much time has passed, and how
//! much of what comes out is carried out.

use std::time::Duration;

use pollflip::internals::machine::{Attempt, Limits};

use super::checked::ALL;
use super::{Checked, FREEZE, On, PROBATION, READY};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub on: On,
    pub whose: Whose,
    pub after: After,
    pub drain: usize,
}

/// Which attempt an input belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Current,
    Past,
    Future,
}

/// When it comes, counted from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    AtOnce,
    Nanosecond,
    Second,
    JustBeforeDeadline,
    AtDeadline,
    JustAfterDeadline,
    Hour,
    Eternity,
}

impl After {
    pub const ALL: [After; 8] = [
        After::AtOnce,
        After::Nanosecond,
        After::Second,
        After::JustBeforeDeadline,
        After::AtDeadline,
        After::JustAfterDeadline,
        After::Hour,
        After::Eternity,
    ];

    /// How long that is, with so long left until the deadline.
    pub fn time(self, left: Duration) -> Duration {
        match self {
            After::AtOnce => Duration::ZERO,
            After::Nanosecond => Duration::from_nanos(1),
            After::Second => Duration::from_secs(1),
            After::JustBeforeDeadline => left.saturating_sub(Duration::from_nanos(1)),
            After::AtDeadline => left,
            After::JustAfterDeadline => left.saturating_add(Duration::from_nanos(1)),
            After::Hour => Duration::from_secs(3600),
            After::Eternity => Duration::MAX,
        }
    }
}

const WHOSE: [Whose; 4] = [Whose::Current, Whose::Current, Whose::Past, Whose::Future];
pub const DRAIN: [usize; 4] = [ALL, 0, 1, 2];
const TIMES: [Duration; 4] = [READY, Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
const FREEZES: [Duration; 4] = [FREEZE, Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
const PROBATIONS: [Option<Duration>; 4] = [None, Some(PROBATION), Some(Duration::ZERO), Some(Duration::MAX)];

impl Operation {
    /// Of the current attempt, at once (a timeout when it is due), and all of it carried out.
    pub fn plain(on: On) -> Operation {
        let after = if on == On::Timeout { After::AtDeadline } else { After::AtOnce };
        Operation { on, whose: Whose::Current, after, drain: ALL }
    }

    pub fn of_bytes([what, when]: [u8; 2]) -> Operation {
        Operation {
            on: On::ALL[usize::from(what & 63) % On::ALL.len()],
            whose: WHOSE[usize::from(what >> 6 & 3)],
            after: After::ALL[usize::from(when & 7)],
            drain: DRAIN[usize::from(when >> 3 & 3)],
        }
    }

    pub fn to_bytes(self) -> [u8; 2] {
        let what = at(&On::ALL, self.on) | at(&WHOSE, self.whose) << 6;
        let when = at(&After::ALL, self.after) | at(&DRAIN, self.drain) << 3;
        [what, when]
    }

    pub fn apply(self, checked: &mut Checked) {
        let Attempt(current) = checked.attempt();
        let attempt = match self.whose {
            Whose::Current => current,
            Whose::Past => current.wrapping_sub(1),
            Whose::Future => current + 1,
        };
        let after = self.after.time(checked.to_deadline());
        let input = checked.input(self.on, Attempt(attempt));
        checked.step(after, input, self.drain);
    }
}

pub fn limits_of_byte(byte: u8) -> Limits {
    Limits {
        ready: TIMES[usize::from(byte >> 2 & 3)],
        freeze: FREEZES[usize::from(byte >> 4 & 3)],
        probation: PROBATIONS[usize::from(byte & 3)],
    }
}

pub fn limits_to_byte(limits: Limits) -> u8 {
    at(&PROBATIONS, limits.probation) | at(&TIMES, limits.ready) << 2 | at(&FREEZES, limits.freeze) << 4
}

/// The body of the fuzz target: any bytes are a life of the machine. Hands back the life.
pub fn machine(data: &[u8]) -> Checked {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let mut checked = Checked::new(limits_of_byte(*first));
    for pair in rest.chunks_exact(2) {
        Operation::of_bytes([pair[0], pair[1]]).apply(&mut checked);
    }
    checked.drain(ALL);
    checked
}

/// Where it stands in the list.
pub fn at<T: PartialEq>(list: &[T], item: T) -> u8 {
    list.iter().position(|listed| *listed == item).expect("only what is listed is written") as u8
}
