//! What was kept, as the program takes it: of the process before, or of this one when the service comes back to it.
//!
//! Knows: how the process before has ended, and the connections. Does not know: where they lay.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Exit;
use crate::position::Position;

use super::Keeper;

/// What the process before this one has left, which was killed or has crashed: from
/// [`Restarter::survivors`](crate::Restarter::survivors).
///
/// What is not taken from here is closed, and kept no more once the service is this process's. Until
/// then all of it is still held: if this process is killed too, the next one finds the same.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut restarter = pollflip::RestartConfig::new().keep(true).build()?;
/// let keeper = restarter.keeper();
/// if let Some(mut survivors) = restarter.survivors() {
///     println!("the process before {}, with {} connections", survivors.cause(), survivors.len());
///     for survivor in survivors.streams() {
///         match survivor.position()? {
///             Some(at) if at.read == 0 && at.written == 0 => {} // to be served as a new one
///             _ => keeper.forget_stream(&survivor), // its state is lost, and it is closed
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Survivors {
    pub(super) keeper: Keeper,
    pub(super) exit: Exit,
    pub(super) strikes: u32,
    pub(super) streams: Vec<OwnedFd>,
}

impl Survivors {
    /// How the process before has ended. A guard tells it; under systemd it is [`Exit::Unknown`].
    pub fn cause(&self) -> Exit {
        self.exit
    }

    /// How many ends count as strikes now, the last one included; 0 under systemd.
    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    /// What was kept under that name: as [`Keeper::take`].
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.keeper.take(name)
    }

    /// How many connections [`streams`](Survivors::streams) still returns.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether it returns no more.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The connections that were kept and were not over when
    /// [`Restarter::survivors`](crate::Restarter::survivors) was called, the oldest first. Each is
    /// kept on from the moment at which it is returned: what the program does not go on with, it
    /// [forgets](Keeper::forget_stream).
    pub fn streams(&mut self) -> impl Iterator<Item = KeptStream> + use<'_> {
        KeptStream::kept_by(self.keeper.clone(), self.streams.drain(..))
    }

    /// Says to the guard that the last end is no strike: the program has found what the process died
    /// of, and goes on without that. systemd does not know this.
    pub fn absolve(&self) {
        self.keeper.absolve();
    }
}

/// A connection that was kept: by a process that has ended, or by this one before a restart that has failed.
#[derive(Debug)]
pub struct KeptStream {
    descriptor: OwnedFd,
}

impl KeptStream {
    /// Each is kept on from the moment at which it is returned.
    pub(super) fn kept_by(keeper: Keeper, streams: impl IntoIterator<Item = OwnedFd>) -> impl Iterator<Item = KeptStream> {
        streams.into_iter().map(move |descriptor| {
            if let Err(error) = keeper.keep_stream(&descriptor) {
                log::warn!(target: "pollflip", "a connection that was kept is kept no more: {error}");
            }
            KeptStream { descriptor }
        })
    }

    /// How far it was read and written; `None`: it is no TCP connection.
    ///
    /// # Errors
    ///
    /// Those of [`Position::of`].
    pub fn position(&self) -> io::Result<Option<Position>> {
        Position::of(&self.descriptor)
    }
}

impl AsFd for KeptStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<KeptStream> for OwnedFd {
    fn from(stream: KeptStream) -> OwnedFd {
        stream.descriptor
    }
}

impl From<KeptStream> for TcpStream {
    fn from(stream: KeptStream) -> TcpStream {
        stream.descriptor.into()
    }
}
