//! Bytes to acts and back. The first three bytes set the world up, then two bytes make an act: its kind, and what it says there.

use std::time::Duration;

use nix::sys::signal::Signal;
use pollflip::RestartConfig;
use pollflip::internals::machine::Limits;

use crate::model::{FREEZE, PROBATION, READY};

/// The restart signal, and that of the predecessor: not one that the fuzzer has a handler for.
pub const OURS: Signal = Signal::SIGHUP;
pub const THEIRS: Signal = Signal::SIGWINCH;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The loop polls until there is nothing more; or takes so many events.
    Poll,
    /// The program:
    Ready,
    Request,
    Cancel,
    Stop,
    Wait,
    /// The restart thread does what it has been told; or cannot, for a reason.
    Thread,
    ThreadLost,
    /// The successor:
    Says,
    Closes,
    Exits,
    /// It does not die of SIGKILL, or does again.
    Undying,
    /// The program, with a handover:
    Gives,
    Sends,
    Fails,
    Drops,
    /// The program, with what can go ahead:
    Copies,
    /// Time passes.
    Pass,
    /// Soon a call fails.
    Fault,
    /// A client of the coordination socket:
    Connects,
    Asks,
    Babbles,
    HangsUp,
    /// The predecessor:
    Predecessor,
    /// The program asks it for its state.
    Pulls,
    /// A restart signal comes, or a storm of them.
    Signal,
    /// The service manager:
    Manager,
}

const KINDS: [Kind; 27] = [
    Kind::Poll,
    Kind::Ready,
    Kind::Request,
    Kind::Cancel,
    Kind::Stop,
    Kind::Wait,
    Kind::Thread,
    Kind::ThreadLost,
    Kind::Says,
    Kind::Closes,
    Kind::Exits,
    Kind::Undying,
    Kind::Gives,
    Kind::Sends,
    Kind::Fails,
    Kind::Drops,
    Kind::Pass,
    Kind::Fault,
    Kind::Connects,
    Kind::Asks,
    Kind::Babbles,
    Kind::HangsUp,
    Kind::Predecessor,
    Kind::Pulls,
    Kind::Signal,
    Kind::Manager,
    Kind::Copies,
];

/// One act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    pub kind: Kind,
    pub what: u8,
}

impl Act {
    pub fn of_bytes([kind, what]: [u8; 2]) -> Act {
        Act { kind: KINDS[usize::from(kind) % KINDS.len()], what }
    }

    pub fn to_bytes(self) -> [u8; 2] {
        [KINDS.iter().position(|kind| *kind == self.kind).expect("all are listed") as u8, self.what]
    }
}

impl From<Kind> for Act {
    fn from(kind: Kind) -> Act {
        Act { kind, what: 0 }
    }
}

/// What the first bytes say: two for who is there, one for a call that fails before the program has its restarter.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub flags: u16,
    pub fault: u8,
}

impl Setting {
    pub const PLAIN: Setting = Setting::of(0);
    pub const PROBATION: Setting = Setting::of(1);
    pub const SUCCESSOR: Setting = Setting::of(1 << 2);
    pub const SOCKET: Setting = Setting::of(1 << 3);
    pub const ENDLESS: Setting = Setting::of(1 << 4);
    /// The program ends without waiting for anything.
    pub const GIVEN_UP: Setting = Setting::of(1 << 5);
    pub const SIGNAL: Setting = Setting::of(1 << 6);
    pub const MANAGER: Setting = Setting::of(1 << 7);
    pub const PID_FILE: Setting = Setting::of(1 << 8);
    /// The service has a socket.
    pub const NAMED: Setting = Setting::of(1 << 9);

    const fn of(flags: u16) -> Setting {
        Setting { flags, fault: 0 }
    }

    pub const fn and(self, other: Setting) -> Setting {
        Setting { flags: self.flags | other.flags, fault: self.fault | other.fault }
    }

    /// After so many calls one fails.
    pub fn with_fault(self, calls: u8, which: u8) -> Setting {
        Setting { fault: (calls << 2 | which & 3) + 1, ..self }
    }

    pub fn of_bytes([low, high, fault]: [u8; 3]) -> Setting {
        Setting { flags: u16::from_le_bytes([low, high]), fault }
    }

    pub fn to_bytes(self) -> [u8; 3] {
        let [low, high] = self.flags.to_le_bytes();
        [low, high, self.fault]
    }

    pub fn has(self, other: Setting) -> bool {
        self.flags & other.flags == other.flags
    }

    pub fn limits(self) -> Limits {
        let probation = [None, Some(PROBATION), Some(Duration::from_nanos(1)), Some(Duration::MAX)][usize::from(self.flags & 3)];
        Limits { ready: if self.has(Setting::ENDLESS) { Duration::MAX } else { READY }, freeze: FREEZE, probation }
    }

    pub fn may_have_to_prove_itself(self) -> bool {
        self.flags & 3 != 0
    }

    pub fn config(self) -> RestartConfig {
        let limits = self.limits();
        RestartConfig::new()
            .restart_signal(self.has(Setting::SIGNAL).then_some(OURS as i32))
            .program("/nowhere/service")
            .args(["--serve"])
            .ready_timeout(limits.ready)
            .freeze_timeout(limits.freeze)
            .probation(limits.probation.unwrap_or_default())
    }
}
