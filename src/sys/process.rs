//! A process held by a pidfd: it cannot be confused with a later one of the same number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::error::Exit;

/// A process, this one or a child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process of that number; the caller must know that it is still the one it means.
    pub(crate) fn open(pid: u32) -> io::Result<Process> {
        // SAFETY: pidfd_open takes two numbers and returns a new descriptor, CLOEXEC from birth, or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Process { pid, pidfd: unsafe { OwnedFd::from_raw_fd(raw as RawFd) } })
    }

    /// A child that ended before it could be opened, and was reaped by somebody else.
    pub(crate) fn gone(pid: u32) -> io::Result<Process> {
        // The read end of a pipe without a writer looks to poll as the pidfd of a process that has ended does.
        let (read, _) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Process { pid, pidfd: read })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL. That it is dead already is no error.
    pub(crate) fn kill(&self) {
        // SAFETY: pidfd_send_signal takes a descriptor that is open, a number, a null for the defaults, and no flags.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, ptr::null::<libc::siginfo_t>(), 0);
        }
    }

    /// Reaps the child if it has ended.
    pub(crate) fn try_wait(&self) -> Option<Exit> {
        loop {
            return match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
                Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
                Ok(_) => None,
                Err(Errno::EINTR) => continue,
                // Somebody else has reaped it, or will: gone is when its descriptor says so.
                Err(_) => self.has_ended().then_some(Exit::Unknown),
            };
        }
    }

    /// Waits at most so long for the child to end, and reaps it.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Exit> {
        self.ended_within(limit);
        self.try_wait()
    }

    /// Whether the process, child or not, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended_within(Duration::ZERO)
    }

    fn ended_within(&self, limit: Duration) -> bool {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, timeout), Ok(1..))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl From<(u32, OwnedFd)> for Process {
    /// A pidfd that somebody sent, with the number they gave it.
    fn from((pid, pidfd): (u32, OwnedFd)) -> Process {
        Process { pid, pidfd }
    }
}

/// Kills and reaps a child that cannot be held by a descriptor.
pub(crate) fn kill_and_reap(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    // If somebody else has reaped it, it is gone, which is what is wanted.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, None);
}
