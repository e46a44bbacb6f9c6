//! Children and signals, as any Unix has them: the ends of children, what a signal does here, and an
//! end like that of another.

use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};

use crate::error::Exit;

/// A child that has ended and is not reaped yet.
pub(crate) fn ended_child() -> Option<u32> {
    // SAFETY: an all-zero siginfo_t is a valid one.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the call writes nothing but `info`, and has filled in the fields of a child that has
    // ended or left zeroes.
    let pid = unsafe { if libc::waitid(libc::P_ALL, 0, &mut info, options) == 0 { info.si_pid() } else { 0 } };
    u32::try_from(pid).ok().filter(|pid| *pid > 0)
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: u32) -> Exit {
    let mut status = 0;
    loop {
        // SAFETY: the call writes nothing but `status`.
        if unsafe { libc::waitpid(pid as libc::pid_t, &mut status, libc::WNOHANG) } >= 0 {
            return Exit::of_wait_status(status);
        }
        if Errno::last() != Errno::EINTR {
            return Exit::Unknown;
        }
    }
}

/// Sends a signal by number to a child that is not reaped yet. It may have ended, or not take
/// signals from this process.
pub(crate) fn signal_child(pid: u32, signal: i32) {
    // SAFETY: two numbers; that of a child stays its own until it is reaped.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// The process group in the foreground of a terminal; -1: it is none of this process.
pub(crate) fn foreground_of(terminal: &impl AsFd) -> i32 {
    // SAFETY: the descriptor is open, and the call takes nothing else.
    unsafe { libc::tcgetpgrp(terminal.as_fd().as_raw_fd()) }
}

/// Has a signal do what it does of itself.
pub(crate) fn set_to_default(signal: i32) {
    // SAFETY: SIG_DFL is a valid disposition for each signal.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ignores a signal; says whether it was ignored before.
pub(crate) fn ignore(signal: i32) -> bool {
    // SAFETY: SIG_IGN is a valid disposition for each signal that can be ignored.
    unsafe { libc::signal(signal, libc::SIG_IGN) == libc::SIG_IGN }
}

/// Ends this process by that signal, without a core dump: there is one already. Returns if it does
/// not die of it.
pub(crate) fn end_by(signal: i32) {
    // If it cannot be set there is a core dump more.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // A program that core_pattern names gets one whatever the limit is.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
    set_to_default(signal);
    // SAFETY: an all-zero set is valid, and the calls take it and a number.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
        libc::raise(signal);
    }
}
