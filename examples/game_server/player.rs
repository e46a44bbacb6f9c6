//! One player on the server: a connection, and how what is said there goes on.
//! Knows: the two ways to hold a player. Does not know: what either does.

use super::buffered::Buffered;
use super::kept::Kept;
use mio::net::TcpStream;

pub(crate) enum Player {
    /// Its state is in `states.rs`. What was half read or half written is in this process.
    Buffered(Buffered),
    /// All of it is in the account of the connection, which outlives this process.
    Kept(Kept),
}

/// Why a player is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Occasion {
    /// It is time to tell the player where it is.
    Tick,
    /// Its connection is ready.
    Ready,
}

impl Player {
    pub(crate) fn stream(&self) -> &TcpStream {
        match self {
            Self::Buffered(player) => &player.stream,
            Self::Kept(player) => player.stream(),
        }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Buffered(player) => &mut player.stream,
            Self::Kept(player) => player.stream_mut(),
        }
    }

    /// Whether the socket has to take more before all is said.
    pub(crate) fn has_more_to_say(&self) -> bool {
        match self {
            Self::Buffered(player) => player.has_more_to_say(),
            Self::Kept(player) => player.has_more_to_say(),
        }
    }

    /// Whether it has to be looked at when the world is saved.
    pub(crate) fn is_unfinished(&self) -> bool {
        match self {
            Self::Buffered(player) => player.has_buffers(),
            Self::Kept(player) => player.has_more_to_say(),
        }
    }
}
