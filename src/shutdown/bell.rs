//! What stands for a signal or a shutdown in a poll of somebody else's.
//!
//! Knows: one flag, made when it is first asked for. Does not know: what its moments mean, or when they come.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, OnceLock};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::sys::Flag;

use super::moments::{Moment, Moments};

pub(super) struct Bell {
    moments: Arc<Moments>,
    rings_for: &'static [Moment],
    /// The descriptor and its place in `moments`. One for each bell: an epoll takes a descriptor only once, and two bells may well meet in
    /// one. Kept until the bell goes, since it may be in several polls.
    hung: OnceLock<(Arc<Flag>, usize)>,
}

impl Bell {
    pub(super) fn new(moments: &Arc<Moments>, rings_for: &'static [Moment]) -> Self {
        Self { moments: Arc::clone(moments), rings_for, hung: OnceLock::new() }
    }

    /// An error in a forked child, whose poll may be the parent's as well.
    pub(super) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.moments.check_here()?;
        if let Some((flag, _)) = self.hung.get() {
            return Ok(flag.as_fd());
        }
        let made = self.moments.hang_bell(self.rings_for)?;
        if let Err((_, place)) = self.hung.set(made) {
            // Another thread was faster.
            self.moments.take_bell_down(place);
        }
        self.descriptor()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some((_, place)) = self.hung.get() {
            self.moments.take_bell_down(*place);
        }
    }
}

impl Source for Bell {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.descriptor()?.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.descriptor()?.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.descriptor()?.as_raw_fd()).deregister(registry)
    }
}
