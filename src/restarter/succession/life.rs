//! How far the end of a successor is.
//!
//! Knows: how it ends, and whether that began before this process killed it. Does not know: what is made of it.

use nix::libc;

use crate::error::Exit;

/// How far the end of a successor is, as this process has seen it. It only goes on, from variant to variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Life {
    /// Nothing is known of an end.
    #[default]
    Alive,
    /// The end has begun, but for a kill by this process: how it will be, as far as that can be seen.
    Dying(Exit),
    /// It has been reaped. What it said before may not have been read yet.
    Ended(End),
    /// All has been read, and the machine knows of the end.
    Over(End),
}

/// How a successor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    exit: Exit,
    /// The same, if the end had begun before this process could kill it: a kill may have come first at last.
    own: Option<Exit>,
}

impl Life {
    /// Its end has begun, and this is how it will have ended.
    pub(super) fn begins_to_end(&mut self, exit: Exit) {
        match self {
            Life::Alive | Life::Dying(_) => *self = Life::Dying(exit),
            Life::Ended(end) | Life::Over(end) => end.own = end.own.or(Some(end.exit)),
        }
    }

    /// It has been reaped.
    pub(super) fn ends(&mut self, exit: Exit) {
        let own = match *self {
            Life::Dying(begun @ (Exit::Code(_) | Exit::Signal(_))) => Some(begun),
            Life::Dying(_) => Some(exit),
            Life::Alive => {
                matches!(exit, Exit::Code(_) | Exit::Signal(_)).then_some(exit).filter(|exit| *exit != Exit::Signal(libc::SIGKILL))
            }
            Life::Ended(_) | Life::Over(_) => return,
        };
        *self = Life::Ended(End { exit, own });
    }

    /// The machine is about to know of the end.
    pub(super) fn closes(&mut self) {
        if let Life::Ended(end) = *self {
            *self = Life::Over(end);
        }
    }

    /// How it has ended, if it has been reaped.
    pub(super) fn exit(self) -> Option<Exit> {
        match self {
            Life::Alive | Life::Dying(_) => None,
            Life::Ended(end) | Life::Over(end) => Some(end.exit),
        }
    }

    /// How it has ended or is about to, if that is not the work of this process.
    pub(super) fn own_end(self) -> Option<Exit> {
        match self {
            Life::Alive => None,
            Life::Dying(begun @ (Exit::Code(_) | Exit::Signal(_))) => Some(begun),
            Life::Dying(_) => Some(Exit::Signal(libc::SIGKILL)),
            Life::Ended(end) | Life::Over(end) => end.own,
        }
    }
}
