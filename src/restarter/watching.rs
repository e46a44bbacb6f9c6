//! What the inner poll watches, and under which number.

use std::os::fd::{AsRawFd, BorrowedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::libc;

use crate::error::Error;
use crate::sys;

pub(super) const WAKER: Token = Token(0);
pub(super) const TIMER: Token = Token(1);
pub(super) const SIGNALS: Token = Token(2);
pub(super) const COORDINATION: Token = Token(3);
pub(super) const LIFELINE: Token = Token(4);
pub(super) const SUCCESSOR: Token = Token(5);
pub(super) const PREDECESSOR: Token = Token(6);
pub(super) const BARRIER: Token = Token(7);
pub(super) const DRAINING: Token = Token(8);
pub(super) const FIRST_CLIENT: usize = 9;

/// Has the inner poll watch a descriptor.
pub(super) fn watch(registry: &Registry, fd: BorrowedFd<'_>, token: Token) -> Result<(), Error> {
    let interest = if token == LIFELINE || token == PREDECESSOR { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    sys::may_fail(&[libc::ENOMEM, libc::ENOSPC])
        .and_then(|()| SourceFd(&fd.as_raw_fd()).register(registry, token, interest))
        .map_err(Error::os("cannot watch a descriptor"))
}

pub(super) fn unwatch(registry: &Registry, fd: BorrowedFd<'_>) {
    // It may never have been watched.
    let _ = SourceFd(&fd.as_raw_fd()).deregister(registry);
}
