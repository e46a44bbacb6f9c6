//! The inner poll: what it watches and under which token, the time, and the one timer.
//!
//! Knows: tokens, descriptors, the moment. Does not know: machines, and what stands behind a token.

mod timer;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::libc;

use crate::error::Error;
use crate::sys;

use timer::Timer;

const WAKER: Token = Token(0);
const TIMER: Token = Token(1);
pub(super) const SIGNALS: Token = Token(2);
pub(super) const COORDINATION: Token = Token(3);
pub(super) const LIFELINE: Token = Token(4);
pub(super) const SUCCESSOR: Token = Token(5);
pub(super) const PREDECESSOR: Token = Token(6);
pub(super) const BARRIER: Token = Token(7);
pub(super) const DRAINING: Token = Token(8);
pub(super) const FIRST_CLIENT: usize = 9;

/// How many events the inner poll takes at a time.
const CAPACITY: usize = 64;

/// For what the loop must turn although nothing is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The machine's: the successor must be ready, has proved itself, or must have ended; all others must know.
    Restart,
    /// A message to the successor that the kernel did not take is tried again.
    Unsent,
    /// A process that nobody here was allowed to kill is killed again.
    Kill,
    /// A child that waits to be reaped and cannot be watched is looked at.
    Unreaped,
    /// The next line of progress may be passed on.
    Progress,
    /// A client of the coordination socket must have spoken, or read; or its listener is tried again.
    Client,
    /// The takeover machine's.
    Takeover,
    /// A message to the predecessor that the kernel did not take is tried again.
    UnsentUp,
    /// systemd is told again that the end takes longer.
    Stopping,
    /// A message to systemd is tried again.
    Unnotified,
}

/// A deadline, and when.
pub(super) type Due = (Duration, Deadline);

/// The earliest of them.
pub(super) fn earliest(dues: impl IntoIterator<Item = Option<Due>>) -> Option<Due> {
    dues.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// What was ready.
#[derive(Debug, Default)]
pub(super) struct Ready {
    fixed: u32,
    clients: Vec<Token>,
}

impl Ready {
    pub(super) fn has(&self, token: Token) -> bool {
        self.fixed & 1 << token.0 != 0
    }

    /// The tokens from [`FIRST_CLIENT`] on.
    pub(super) fn clients(&self) -> &[Token] {
        &self.clients
    }

    fn is_any(&self) -> bool {
        self.fixed != 0 || !self.clients.is_empty()
    }

    fn add(&mut self, token: Token) {
        if token.0 < FIRST_CLIENT {
            self.fixed |= 1 << token.0;
        } else {
            self.clients.push(token);
        }
    }
}

/// The inner poll.
#[derive(Debug)]
pub(super) struct Reactor {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    timer: Timer,
    epoch: Instant,
}

impl Reactor {
    pub(super) fn new() -> Result<Reactor, Error> {
        let poll = sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])
            .and_then(|()| Poll::new())
            .map_err(Error::os("cannot make an epoll"))?;
        let waker = sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])
            .and_then(|()| Waker::new(poll.registry(), WAKER))
            .map_err(Error::os("cannot make a waker (eventfd2, epoll_ctl)"))?;
        let timer = Timer::new().map_err(Error::os("cannot make a timer (timerfd_create)"))?;
        let events = Events::with_capacity(CAPACITY);
        let reactor = Reactor { poll, events, waker: Arc::new(waker), timer, epoch: sys::now() };
        reactor.watch(reactor.timer.as_fd(), TIMER)?;
        Ok(reactor)
    }

    /// The time since this reactor was made.
    pub(super) fn now(&self) -> Duration {
        sys::now() - self.epoch
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    pub(super) fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Makes the descriptor readable.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("cannot wake the loop: {error}");
        }
    }

    /// Watches a descriptor.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: Token) -> Result<(), Error> {
        let interest = if token == LIFELINE || token == PREDECESSOR { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        sys::may_fail(&[libc::ENOMEM, libc::ENOSPC])
            .and_then(|()| SourceFd(&fd.as_raw_fd()).register(self.registry(), token, interest))
            .map_err(Error::os("cannot watch a descriptor"))
    }

    pub(super) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // It may never have been watched.
        let _ = SourceFd(&fd.as_raw_fd()).deregister(self.registry());
    }

    /// What is ready; `None`: nothing. Drains the inner poll: an outer edge-triggered one does not fire again for what is left in it.
    pub(super) fn collect(&mut self) -> Option<Ready> {
        let mut ready = Ready::default();
        loop {
            let polled = sys::may_fail(&[libc::EINTR]).and_then(|()| self.poll.poll(&mut self.events, Some(Duration::ZERO)));
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("cannot poll: {error}");
                    break;
                }
            }
            self.events.iter().for_each(|event| ready.add(event.token()));
            if self.events.iter().count() < CAPACITY {
                break;
            }
        }
        if ready.has(TIMER) {
            self.timer.fired();
        }
        ready.is_any().then_some(ready)
    }

    /// Has the descriptor become readable at that moment; a system call only if it is another one than before. `false`: no timer can be set
    /// for that.
    pub(super) fn arm(&mut self, due: Option<Due>) -> bool {
        let at = due.map(|(at, _)| at);
        if self.timer.is_armed(at) {
            return true;
        }
        let now = self.now();
        if let Some((at, deadline)) = due {
            log::trace!("{deadline:?} is due in {:?}", at.saturating_sub(now));
        }
        self.timer.arm(at, now)
    }

    /// In a simulation: time has passed.
    pub(super) fn time_has_passed(&mut self) {
        let now = self.now();
        self.timer.time_has_passed(now);
    }
}

impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
