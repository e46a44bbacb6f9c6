//! What a loop can watch: a flag is a pipe, a deadline a kqueue, and there is no queue of signals.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::SigSet;
use nix::unistd::write;

use super::unsupported;

/// Readable once it is raised, and from then on. Each time that it is raised is an edge of its own.
#[derive(Debug)]
pub(crate) struct Flag {
    read: OwnedFd,
    write: OwnedFd,
}

impl Flag {
    pub(crate) fn new(is_raised: bool) -> io::Result<Flag> {
        let (read, write) = pipe(true)?;
        let flag = Flag { read, write };
        if is_raised {
            flag.raise();
        }
        Ok(flag)
    }

    pub(crate) fn raise(&self) {
        // Full, it is raised.
        let _ = write(&self.write, &[1]);
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Readable when its time is over.
#[derive(Debug)]
pub(crate) struct Countdown(Kqueue);

impl Countdown {
    pub(crate) fn new() -> io::Result<Countdown> {
        Ok(Countdown(Kqueue::new()?))
    }

    /// Its time is over when so much has passed from now on; `None`: never.
    pub(crate) fn set(&self, left: Option<Duration>) -> io::Result<()> {
        // One that has fired stays in the queue, and the descriptor readable, until it is deleted.
        match self.change(EvFlags::EV_DELETE, 0) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(left) = left else { return Ok(()) };
        // In milliseconds, rounded up.
        let left = left.saturating_add(Duration::from_micros(999)).as_millis().clamp(1, i32::MAX as u128);
        Ok(self.change(EvFlags::EV_ADD | EvFlags::EV_ONESHOT, left as isize)?)
    }

    fn change(&self, what: EvFlags, left: isize) -> nix::Result<()> {
        let timer = KEvent::new(0, EventFilter::EVFILT_TIMER, what, FilterFlag::empty(), left as _, 0);
        self.0.kevent(&[timer], &mut [], None).map(drop)
    }
}

impl AsFd for Countdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Signals read from a descriptor, of which there is none.
#[derive(Debug)]
pub(crate) struct SignalQueue(Infallible);

impl SignalQueue {
    pub(crate) fn new(_signals: &SigSet) -> io::Result<SignalQueue> {
        Err(unsupported())
    }

    pub(crate) fn next(&self) -> io::Result<Option<(i32, i32)>> {
        match self.0 {}
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// A pipe, its read end first. Both ends are CLOEXEC.
pub(crate) fn pipe(is_nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
    if is_nonblocking {
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((read, write))
}
