//! A deadline that an epoll can see.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::{self, Countdown};

/// Armed for one moment at a time.
#[derive(Debug)]
pub(super) struct Timer {
    timer: Countdown,
    armed: Option<Duration>,
    /// It has been said that it cannot be set.
    is_told: bool,
}

impl Timer {
    pub(super) fn new() -> io::Result<Timer> {
        sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])?;
        Ok(Timer { timer: Countdown::new()?, armed: None, is_told: false })
    }

    /// Whether it is armed for that moment.
    pub(super) fn is_armed(&self, at: Option<Duration>) -> bool {
        self.armed == at
    }

    /// Arms it for that moment. `false`: it cannot be set, and stays as it was.
    pub(super) fn arm(&mut self, at: Option<Duration>, now: Duration) -> bool {
        if sys::is_simulated() {
            self.armed = at;
            self.time_has_passed(now);
            return true;
        }
        let result = self.timer.set(at.map(|at| at.saturating_sub(now)));
        match &result {
            Ok(()) => (self.armed, self.is_told) = (at, false),
            Err(error) => {
                if !mem::replace(&mut self.is_told, true) {
                    log::warn!("cannot set the timer: {error}; it is tried again, and the restart thread wakes the loop meanwhile");
                }
            }
        }
        result.is_ok()
    }

    /// In a simulation, whose time it does not know, it fires when it is told.
    pub(super) fn time_has_passed(&mut self, now: Duration) {
        if self.armed.is_some_and(|at| at <= now) {
            let fired = self
                .timer
                .set(Some(Duration::ZERO))
                .and_then(|()| Ok(poll(&mut [PollFd::new(self.timer.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?));
            if let Err(error) = fired {
                log::warn!("cannot set the timer: {error}");
            }
        }
    }

    /// It has fired.
    pub(super) fn fired(&mut self) {
        self.armed = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
