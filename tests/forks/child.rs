//! Forked children: what they do is judged by how they end, and they must end.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use pollflip_kit::group::{DEADLINE, wait_until};
use pollflip_kit::procfs;

/// Who forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The C library, which tells whom it knows.
    Library,
    /// The kernel, of which the C library hears nothing.
    Kernel,
    /// The C library, and the child is the first process of a namespace.
    LibraryIntoNamespace,
    /// The kernel, and the child is that too.
    KernelIntoNamespace,
}

/// The ways that need no rights.
pub(crate) const BOTH: [Fork; 2] = [Fork::Library, Fork::Kernel];

/// What a child has found: an error says what does not hold.
pub(crate) type Verdict = Result<(), &'static str>;

/// A claim of a child, which has nobody to panic to: other threads may have had any lock.
pub(crate) fn claim(holds: bool, what: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(what) }
}

/// Has a child do that, and waits for its end.
#[track_caller]
pub(crate) fn in_child(how: Fork, work: impl FnOnce() -> Verdict) {
    let child = fork(how, work).expect("a child");
    assert_eq!(end(child), Some(WaitStatus::Exited(child, 0)), "forked by {how:?}");
}

/// Starts a child that does that, and then ends without a word to anybody.
#[allow(unsafe_code, reason = "these tests are about that")]
pub(crate) fn fork(how: Fork, work: impl FnOnce() -> Verdict) -> nix::Result<Pid> {
    // A lock that another thread has amid its work stays locked in the child: that of a thread that starts, which the standard library has,
    // and, where the C library hears nothing of the fork, that of the allocator.
    wait_until("the other threads to sleep", || procfs::threads_awake() == 1);
    // SAFETY: the child has one thread, asks for no lock that another thread of its parent may hold, unless that is the test, and leaves by
    // `_exit`. Zeroes ask for what a fork does.
    let pid = unsafe {
        match how {
            Fork::Library => libc::c_long::from(libc::fork()),
            Fork::Kernel => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
            Fork::LibraryIntoNamespace => match libc::unshare(libc::CLONE_NEWPID) {
                0 => libc::c_long::from(libc::fork()),
                error => libc::c_long::from(error),
            },
            Fork::KernelIntoNamespace => libc::syscall(libc::SYS_clone, libc::SIGCHLD | libc::CLONE_NEWPID, 0, 0, 0, 0),
        }
    };
    if pid != 0 {
        return Errno::result(pid).map(|pid| Pid::from_raw(pid as i32));
    }
    let verdict = work();
    if let Err(what) = verdict {
        // SAFETY: the bytes are there.
        unsafe { libc::write(2, what.as_ptr().cast(), what.len()) };
    }
    // SAFETY: nothing is to be done after it.
    unsafe { libc::_exit(i32::from(verdict.is_err())) }
}

/// Waits for a child to end well.
#[track_caller]
pub(crate) fn ends(child: Pid) {
    assert_eq!(end(child), Some(WaitStatus::Exited(child, 0)));
}

/// How it ends; `None`: it had to be killed.
fn end(child: Pid) -> Option<WaitStatus> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("a child") {
            WaitStatus::StillAlive => {}
            end => return Some(end),
        }
        if Instant::now() >= deadline {
            kill(child, Signal::SIGKILL).expect("a child");
            waitpid(child, None).expect("a child");
            eprintln!("the child hangs, and has been killed");
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
