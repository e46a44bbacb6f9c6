//! A deadline that an epoll can see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Armed for one moment at a time.
#[derive(Debug)]
pub(super) struct Timer {
    timer: TimerFd,
    armed: Option<Duration>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Timer> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        Ok(Timer { timer, armed: None })
    }

    /// Arms it for that moment; a system call only if it is another one than before.
    pub(super) fn arm(&mut self, at: Option<Duration>, now: Duration) {
        if self.armed == at {
            return;
        }
        let result = match at {
            // A time of zero would disarm it.
            Some(at) => {
                let left = at.saturating_sub(now).clamp(Duration::from_nanos(1), Duration::from_secs(i32::MAX as u64));
                self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
        match result {
            Ok(()) => self.armed = at,
            Err(error) => log::warn!("cannot set the timer: {error}"),
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
