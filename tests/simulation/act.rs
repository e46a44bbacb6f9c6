//! Bytes to acts and back. The first byte sets the world up, then two bytes make an act: its kind, and what it says there.

use std::time::Duration;

use pollflip::RestartConfig;
use pollflip::internals::machine::Limits;

use crate::model::{PROBATION, READY};

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
}

const KINDS: [Kind; 24] = [
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

/// What the first byte says.
#[derive(Debug, Clone, Copy)]
pub struct Setting(pub u8);

impl Setting {
    pub const PLAIN: Setting = Setting(0);
    pub const PROBATION: Setting = Setting(1);
    pub const SUCCESSOR: Setting = Setting(4);
    pub const SOCKET: Setting = Setting(8);

    pub fn limits(self) -> Limits {
        let probation = [None, Some(PROBATION), Some(Duration::from_nanos(1)), Some(Duration::MAX)][usize::from(self.0 & 3)];
        Limits { ready: if self.0 & 16 == 0 { READY } else { Duration::MAX }, probation }
    }

    pub fn has_predecessor(self) -> bool {
        self.0 & 4 != 0
    }

    pub fn has_socket(self) -> bool {
        self.0 & 8 != 0
    }

    pub fn config(self) -> RestartConfig {
        let limits = self.limits();
        RestartConfig::new()
            .restart_signal(None)
            .program("/nowhere/service")
            .args(["--serve"])
            .ready_timeout(limits.ready)
            .probation(limits.probation.unwrap_or_default())
    }
}
