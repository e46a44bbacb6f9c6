//! The rules by which a service that dies of what it has kept comes back without that.
//!
//! Knows: how the last process has ended, whether a connection was in hand then, and how often
//! before. Does not know: processes, connections, memory, clocks. Time is a [`Duration`] since any
//! fixed moment, handed in.
//!
//! It stands here, and not beside the ledger: it is policy, and the only thing that the ledger and
//! a guard have to agree on. The ledger feeds it, since who was in hand stands there.

use std::time::Duration;

use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::error::Exit;

/// Strikes that are further apart do not belong together. As long as the guard counts them.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Whose doing the end of a process was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Its own: a fault, an abort, a panic, an exit status that says so, a start that hung.
    Own,
    /// The kernel has ended it because memory was short: its own doing, but not surely that of what
    /// was in hand just then.
    Memory,
    /// It was told to end, or somebody has killed it.
    Outside,
    /// Nobody knows.
    Unknown,
}

impl From<Exit> for Doing {
    fn from(exit: Exit) -> Doing {
        match exit {
            Exit::Code(0) => Doing::Outside,
            Exit::Signal(signal) if [SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2].contains(&signal) => Doing::Outside,
            // Nobody outside has ended a start that hung.
            Exit::Code(_) | Exit::Signal(_) | Exit::NotReady => Doing::Own,
            Exit::OutOfMemory => Doing::Memory,
            Exit::Unknown => Doing::Unknown,
        }
    }
}

/// What was in hand when the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspects {
    /// Nothing.
    None,
    /// Connections that were in hand at no end before, or whose work of then was done since.
    New,
    /// One that was in hand at an earlier end too, and whose work of then was not done since.
    Again,
    /// Connections that were in hand at the end before this one, which nobody has judged: the start after it has ended first, and its
    /// end is what is judged.
    Unjudged,
}

/// With what of that which was kept the next process goes on. The listeners stay in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// All of it.
    All,
    /// All but the connections that were in hand.
    NotSuspects,
    /// No connection and no state; other descriptors that were kept by name.
    NotStreams,
    /// The listeners alone.
    Listeners,
}

/// What the rules say of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// With what the next process goes on.
    pub scope: Scope,
    /// The end is counted.
    pub is_strike: bool,
    /// Who was in hand is remembered: at another such end they are dropped.
    pub remember: bool,
}

/// The rules, with what they remember.
///
// table:begin
/// | whose doing | in hand  | had served | strikes    | goes on with                         | remembered |
/// | ---         | ---      | ---        | ---        | ---                                  | --- |
/// | Own         | None     |            | one more   | All, then NotStreams, then Listeners | |
/// | Own         | New      |            |            | NotSuspects                          | |
/// | Own         | Again    |            |            | NotSuspects                          | |
/// | Own         | Unjudged |            | one more   | All, then NotStreams, then Listeners | yes |
/// | Memory      | None     |            | one more   | All, then NotStreams, then Listeners | |
/// | Memory      | New      |            | one more   | All, then NotStreams, then Listeners | yes |
/// | Memory      | Again    |            |            | NotSuspects                          | |
/// | Memory      | Unjudged |            | one more   | All, then NotStreams, then Listeners | yes |
/// | Outside     | None     |            |            | All                                  | |
/// | Outside     | New      |            |            | All                                  | |
/// | Outside     | Again    |            |            | All                                  | |
/// | Outside     | Unjudged |            |            | All                                  | |
/// | Unknown     | None     | no         | one more   | All, then NotStreams, then Listeners | |
/// | Unknown     | None     | yes        | begin anew | All                                  | |
/// | Unknown     | New      |            |            | All                                  | yes |
/// | Unknown     | Again    |            |            | NotSuspects                          | |
/// | Unknown     | Unjudged | no         | one more   | All, then NotStreams, then Listeners | yes |
/// | Unknown     | Unjudged | yes        | begin anew | All                                  | yes |
// table:end
///
/// A strike leads on: the first keeps all, since nobody is to blame; the second drops connections
/// and state; the third leaves the listeners alone. Strikes further apart than [`WINDOW`] begin
/// anew. A guard allows more of them than there are stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Poison {
    strikes: u32,
    last: Duration,
}

impl Poison {
    /// With what was remembered before.
    pub fn new(strikes: u32, last: Duration) -> Poison {
        Poison { strikes, last }
    }

    /// So many strikes are counted.
    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    /// When the last of them was.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// Judges an end. `has_served`: the process that has ended had come so far that it served.
    pub fn judge(&mut self, now: Duration, doing: Doing, suspects: Suspects, has_served: bool) -> Ruling {
        let ruling = |scope, remember| Ruling { scope, is_strike: false, remember };
        match (doing, suspects) {
            // It says nothing about anybody.
            (Doing::Outside, _) => ruling(Scope::All, false),
            // Nobody knows of what the process ended that had them in hand.
            (_, Suspects::Unjudged) => Ruling { remember: true, ..self.judge(now, doing, Suspects::None, has_served) },
            (Doing::Own, Suspects::New | Suspects::Again) => ruling(Scope::NotSuspects, false),
            // Twice is no chance.
            (Doing::Memory | Doing::Unknown, Suspects::Again) => ruling(Scope::NotSuspects, false),
            (Doing::Unknown, Suspects::New) => ruling(Scope::All, true),
            (Doing::Unknown, Suspects::None) if has_served => {
                // What is kept can be served.
                self.strikes = 0;
                ruling(Scope::All, false)
            }
            (Doing::Own | Doing::Unknown, Suspects::None) => self.strike(now, false),
            // It may be another one each time, and none of them to blame.
            (Doing::Memory, Suspects::None | Suspects::New) => self.strike(now, suspects == Suspects::New),
        }
    }

    fn strike(&mut self, now: Duration, remember: bool) -> Ruling {
        let is_apart = now.saturating_sub(self.last) >= WINDOW;
        self.strikes = if is_apart { 1 } else { self.strikes.saturating_add(1) };
        self.last = now;
        let scope = match self.strikes {
            0 | 1 => Scope::All,
            2 => Scope::NotStreams,
            _ => Scope::Listeners,
        };
        Ruling { scope, is_strike: true, remember }
    }
}
