//! A process held by a pidfd: it cannot be confused with a later one of the same number.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::error::Exit;

use super::{dying, is_readable_within, may_fail, pipe, simulation};

/// A process, this one or a child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process of that number; the caller must know that it is still the one it means.
    pub(crate) fn open(pid: u32) -> io::Result<Process> {
        may_fail(&[libc::EMFILE, libc::ENOMEM])?;
        if let Some(result) = simulation::open(pid) {
            return result.map(|pidfd| Process { pid, pidfd });
        }
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
        let (read, _) = pipe(false)?;
        Ok(Process { pid, pidfd: read })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL. That it is dead already is no error; `false`: this thread may not, or cannot.
    pub(crate) fn kill(&self) -> bool {
        if simulation::kill(self.pid).is_some() {
            return true;
        }
        // SAFETY: pidfd_send_signal takes a descriptor that is open, a number, a null for the defaults, and no flags.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, ptr::null::<libc::siginfo_t>(), 0) };
        result == 0 || Errno::last() == Errno::ESRCH
    }

    /// Sends it a signal by number.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        // SAFETY: pidfd_send_signal takes a descriptor that is open, a number, a null for the defaults, and no flags.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), number, ptr::null::<libc::siginfo_t>(), 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reaps the child if it has ended.
    pub(crate) fn try_wait(&self) -> Option<Exit> {
        self.status(0)
    }

    /// Reaps the child only if it has ended in order. One that has crashed is left to the process that becomes its parent when this process ends:
    /// a service manager, to which that end says more.
    pub(crate) fn try_wait_leaving_failures(&self) -> Option<Exit> {
        match self.status(libc::WNOWAIT)? {
            Exit::Code(0) => self.try_wait(),
            failure => Some(failure),
        }
    }

    /// libc rather than nix, which reaps a child that died of a real-time signal and loses the status.
    fn status(&self, option: i32) -> Option<Exit> {
        if let Some(exit) = simulation::try_wait(self.pid) {
            return exit;
        }
        let had_ended = self.has_ended();
        match self.reap(option) {
            Ok(Some(exit)) => Some(exit),
            // A debugger has it, and does not let its parent have it yet: it has ended all the same.
            Ok(None) => had_ended.then(|| self.dying().unwrap_or(Exit::Unknown)),
            // Somebody else has reaped it, or will: gone is when its descriptor says so.
            Err(_) => self.has_ended().then_some(Exit::Unknown),
        }
    }

    /// Reaps the child, and says how it has ended, if it has and no debugger has it.
    fn reap(&self, option: i32) -> Result<Option<Exit>, Errno> {
        // SAFETY: an all-zero siginfo_t is a valid one.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        loop {
            let id = self.pidfd.as_raw_fd() as libc::id_t;
            // SAFETY: the descriptor is open, and the call writes nothing but `info`.
            if unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, libc::WEXITED | libc::WNOHANG | option) } == 0 {
                break;
            }
            if Errno::last() != Errno::EINTR {
                return Err(Errno::last());
            }
        }
        // SAFETY: waitid has filled in the fields of a child that has changed its state, or left zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok(match (pid, info.si_code) {
            (0, _) => None,
            (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        })
    }

    /// Whether the end of a process could be waited for, if it were a child.
    pub(super) fn can_be_waited_for(&self) -> io::Result<()> {
        match self.reap(libc::WNOWAIT) {
            Ok(_) | Err(Errno::ECHILD) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it is a child of this process that nobody has reaped.
    pub(crate) fn is_child(&self) -> bool {
        simulation::is_simulated() || self.reap(libc::WNOWAIT) != Err(Errno::ECHILD)
    }

    /// Whether a child that nobody waits for any more is still to be reaped: it does not die, or a debugger has it. Reaps it if it can be.
    pub(crate) fn is_held(&self) -> bool {
        simulation::try_wait(self.pid).map_or_else(|| self.reap(0) == Ok(None), |exit| exit.is_none())
    }

    /// Waits at most so long for the child to end, and reaps it.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Exit> {
        if simulation::wait(self.pid, limit).is_none() {
            is_readable_within(&self.pidfd, limit);
        }
        self.try_wait()
    }

    /// How this child is about to end, if its end has begun, of which nothing else tells until it is over. Where that cannot be seen, it has
    /// not.
    pub(crate) fn dying(&self) -> Option<Exit> {
        if simulation::is_simulated() { None } else { dying::exit_of(self.pid) }
    }

    /// Whether this is the parent: then `/proc` knows it by the same number.
    pub(crate) fn is_parent(&self) -> bool {
        nix::unistd::getppid().as_raw() as u32 == self.pid
    }

    /// Whether the end of a process that was the parent has begun, and is not over. Where that cannot
    /// be seen, it has not; where it cannot be seen for a moment, it may have.
    pub(crate) fn may_have_begun_to_die(&self) -> bool {
        // Only if it has not ended by now was the number its own.
        !simulation::is_simulated() && dying::may_have_begun(self.pid) && !self.has_ended()
    }

    /// Whether the process, child or not, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        is_readable_within(&self.pidfd, Duration::ZERO)
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

/// Kills and reaps a child that cannot be held by a descriptor. `false`: this thread may not kill it,
/// and does not wait for its end.
pub(crate) fn kill_and_reap(pid: u32) -> bool {
    if simulation::kill(pid).is_some() {
        simulation::wait(pid, Duration::MAX);
        simulation::try_wait(pid);
        return true;
    }
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    let looking = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::Pid(pid), looking) == Err(Errno::ECHILD) {
        // Somebody else has reaped it, and its number can be anybody's.
        return true;
    }
    // If somebody else has reaped it, it is gone, which is what is wanted.
    if nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) == Err(Errno::EPERM) {
        return false;
    }
    let _ = nix::sys::wait::waitpid(pid, None);
    true
}
