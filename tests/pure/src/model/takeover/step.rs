//! Bytes to steps and back: what fuzzing, random walks and the corpus have in common.
//!
//! The first byte says what the process was born as, then two bytes make a step: what comes in; how much
//! time has passed, and how much of what comes out is carried out.

use pollflip::internals::machine::{DYING, TakeoverInput};

use super::checked::ALL;
use super::{CheckedTakeover, INPUTS, Setting};
use crate::model::operation::{After, DRAIN, at};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeoverStep {
    pub input: TakeoverInput,
    pub after: After,
    /// The clock was read a second ago: the process may have been stopped since.
    pub stale: bool,
    pub drain: usize,
}

impl TakeoverStep {
    /// At once (a timeout when it is due), and all of it carried out.
    pub fn plain(input: TakeoverInput) -> TakeoverStep {
        let after = if input == TakeoverInput::Timeout { After::AtDeadline } else { After::AtOnce };
        TakeoverStep { input, after, stale: false, drain: ALL }
    }

    pub fn of_bytes([what, when]: [u8; 2]) -> TakeoverStep {
        TakeoverStep {
            input: INPUTS[usize::from(what & 31) % INPUTS.len()],
            after: After::ALL[usize::from(when & 7)],
            stale: when >> 5 & 1 == 1,
            drain: DRAIN[usize::from(when >> 3 & 3)],
        }
    }

    pub fn to_bytes(self) -> [u8; 2] {
        let when = at(&After::ALL, self.after) | at(&DRAIN, self.drain) << 3 | u8::from(self.stale) << 5;
        [at(&INPUTS, self.input), when]
    }

    pub fn apply(self, checked: &mut CheckedTakeover) {
        checked.wait(self.after.time(checked.to_deadline()));
        let at = if self.stale { checked.now().saturating_sub(DYING) } else { checked.now() };
        checked.takes(at, self.input);
        checked.drain(self.drain);
    }
}

pub fn setting_of_byte(byte: u8) -> Setting {
    Setting::ALL[usize::from(byte) % Setting::ALL.len()]
}

pub fn setting_to_byte(setting: Setting) -> u8 {
    at(&Setting::ALL, setting)
}

/// The body of the fuzz target: any bytes are a life of the machine. Hands back the life.
pub fn takeover(data: &[u8]) -> CheckedTakeover {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let mut checked = CheckedTakeover::new(setting_of_byte(*first));
    for pair in rest.chunks_exact(2) {
        TakeoverStep::of_bytes([pair[0], pair[1]]).apply(&mut checked);
    }
    checked.drain(ALL);
    checked
}
