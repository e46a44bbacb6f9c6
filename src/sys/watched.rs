//! What a loop can watch besides sockets and processes: a flag, a deadline, signals, a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::pipe2;

/// Readable once it is raised, and from then on. Each time that it is raised is an edge of its own.
#[derive(Debug)]
pub(crate) struct Flag(EventFd);

impl Flag {
    pub(crate) fn new(is_raised: bool) -> io::Result<Flag> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Flag(EventFd::from_value_and_flags(u32::from(is_raised), flags)?))
    }

    pub(crate) fn raise(&self) {
        // Cannot fail: it is non-blocking, and the few times that it is raised do not overflow it.
        let _ = self.0.write(1);
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Readable when its time is over.
#[derive(Debug)]
pub(crate) struct Countdown(TimerFd);

impl Countdown {
    pub(crate) fn new() -> io::Result<Countdown> {
        Ok(Countdown(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?))
    }

    /// Its time is over when so much has passed from now on; `None`: never.
    pub(crate) fn set(&self, left: Option<Duration>) -> io::Result<()> {
        match left {
            // A time of zero would disarm it.
            Some(left) => {
                let left = left.clamp(Duration::from_nanos(1), Duration::from_secs(i32::MAX as u64));
                self.0.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
            }
            None => self.0.unset()?,
        }
        Ok(())
    }
}

impl AsFd for Countdown {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocked signals, read from a descriptor.
#[derive(Debug)]
pub(crate) struct SignalQueue(SignalFd);

impl SignalQueue {
    pub(crate) fn new(signals: &SigSet) -> io::Result<SignalQueue> {
        Ok(SignalQueue(SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The number and the code (`si_code`) of the next one; `None`: there is none now.
    pub(crate) fn next(&self) -> io::Result<Option<(i32, i32)>> {
        Ok(self.0.read_signal()?.map(|info| (info.ssi_signo as i32, info.ssi_code)))
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A pipe, its read end first. Both ends are CLOEXEC from birth.
pub(crate) fn pipe(is_nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let mode = if is_nonblocking { OFlag::O_NONBLOCK } else { OFlag::empty() };
    Ok(pipe2(OFlag::O_CLOEXEC | mode)?)
}

/// Descriptors that are watched for their end alone: what comes in on them wakes nobody. Readable
/// when one has hung up.
#[derive(Debug)]
pub(crate) struct HangUps(Epoll);

impl HangUps {
    pub(crate) fn new() -> io::Result<HangUps> {
        Ok(HangUps(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// `false`: it is of a kind that never hangs up.
    pub(crate) fn watch(&self, fd: &impl AsFd, key: u64) -> io::Result<bool> {
        match self.0.add(fd, EpollEvent::new(EpollFlags::empty(), key)) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// To be called before the descriptor is closed: others may have the same open file, and it is
    /// watched as long as that lives.
    pub(crate) fn unwatch(&self, fd: &impl AsFd) {
        // It may never have been watched.
        let _ = self.0.delete(fd);
    }

    /// The key of one that has hung up.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut events = [EpollEvent::empty()];
        match self.0.wait(&mut events, EpollTimeout::ZERO) {
            Ok(1..) => Some(events[0].data()),
            _ => None,
        }
    }
}

impl AsFd for HangUps {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}
