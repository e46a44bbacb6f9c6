//! The one room with `unsafe` in it: what neither std nor nix offer as safe calls, and what goes with that.
//!
//! Knows: system calls. Does not know: what they are for. Every descriptor leaves here owned or borrowed, never as a bare number.
#![allow(unsafe_code, reason = "this is the room for it; each block says why it is sound")]

mod descriptors;
mod dying;
mod fork;
mod guarding;
mod memory;
mod oom;
mod packet;
mod probe;
mod process;
mod rights;
pub(crate) mod simulation;
mod spawn;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{fstat, fstatat};

use crate::wire::FileId;

pub(crate) use descriptors::{Descriptors, name_of, named_by};
pub(crate) use dying::{ProcessKey, descends_from, has_ancestor, is_first_child_of, parent_of, proc_is_ours, process_key};
pub(crate) use fork::{Origin, PerProcess};
pub(crate) use guarding::{
    Datagram, Execution, end_by, ended_child, exit_of_another, foreground_of, fork_and_execute, ignore, pass_credentials, reap,
    receive_datagram, set_to_default, signal_child,
};
pub(crate) use memory::{Mapping, memory_file, seal};
pub(crate) use oom::{OomKills, OomScore, OwnOomScore, own_oom_score};
pub(crate) use packet::{receive, send};
pub(crate) use probe::{missing_call, naming};
pub(crate) use process::{Process, kill_and_reap};
pub(crate) use rights::{Maker, Thread, own_capabilities, threads_with};
pub(crate) use simulation::{has_waited, is_simulated, may_fail, now, writable_part};
pub(crate) use spawn::{Spawn, may_enter, spawn};

/// Waits at most so long for the descriptor to become readable, which it also is at its end; says whether it is.
pub(crate) fn is_readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let deadline = Instant::now().checked_add(limit);
    let mut left = limit;
    loop {
        // Rounded up, so as not to spin through the last millisecond.
        let whole = if left.is_zero() { left } else { left.saturating_add(Duration::from_micros(999)) };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX)) {
            Ok(1..) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            // The kernel lets nobody wait, and this one is not to spin.
            Err(_) => thread::sleep(left.min(Duration::from_millis(10))),
        }
        left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
    }
}

/// So many descriptors there is room for in any case.
const SPARE: RawFd = 512;

/// Lends the open descriptor of that number for one look; `None` if there is none.
pub(crate) fn peek<T>(raw: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    if raw < 0 {
        return None;
    }
    // SAFETY: the number is not -1, and a look with it can only get an error from one that is not open: system calls that read
    // a descriptor's properties fail cleanly.
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    fstat(fd).is_ok().then(|| look(fd))
}

/// The file of an open descriptor, given by number; `None` if there is none of that number.
#[allow(clippy::useless_conversion, reason = "narrower on 32-bit machines")]
pub(crate) fn identity(raw: RawFd) -> Option<FileId> {
    peek(raw, |fd| fstat(fd).ok().map(|stat| FileId { device: u64::from(stat.st_dev), inode: u64::from(stat.st_ino) }))?
}

/// What a path names, be it a link; `None` if nothing can be seen there.
pub(crate) fn identity_of(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|found| FileId { device: found.dev(), inode: found.ino() })
}

/// The same with links followed.
pub(crate) fn identity_behind(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|found| FileId { device: found.dev(), inode: found.ino() })
}

/// The working directory of this process, which it need not be able to enter anew.
#[allow(clippy::useless_conversion, reason = "narrower on 32-bit machines")]
pub(crate) fn working_directory() -> Option<FileId> {
    fstatat(AT_FDCWD, c"", AtFlags::AT_EMPTY_PATH).ok().map(|stat| FileId { device: u64::from(stat.st_dev), inode: u64::from(stat.st_ino) })
}

/// Takes over a descriptor that this process was born with, and makes it CLOEXEC again.
pub(crate) fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    if identity(raw).is_none() {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, as was just seen; the callers take each inherited number once, and nobody else was told of it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// A duplicate, CLOEXEC, numbered `at_least` or above.
pub(crate) fn duplicate(fd: impl AsFd, at_least: RawFd) -> io::Result<OwnedFd> {
    may_fail(&[libc::EMFILE])?;
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(at_least))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// How much of what was sent on a unix socket has not been read, as the kernel counts it.
pub(crate) fn unread(socket: &impl AsFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes nothing but one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).ok().filter(|_| result == 0)
}

/// Whether a socket reads nothing any more because somebody has shut it down.
pub(crate) fn is_shut_down(socket: &impl AsFd) -> bool {
    let mut looked_at = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the descriptor is open, and the call writes nothing but what it has found of that one.
    unsafe { libc::poll(&mut looked_at, 1, 0) == 1 && looked_at.revents & libc::POLLRDHUP != 0 }
}

/// Has the kernel enlarge the table of descriptors to hold so many and [`SPARE`] more, or as many as it may. In a process with threads
/// that takes it some ten milliseconds, whichever thread it was that needed one more.
pub(crate) fn enlarge_descriptor_table(descriptors: RawFd) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let last = RawFd::try_from(limit).unwrap_or(RawFd::MAX).saturating_sub(1).min(descriptors.saturating_add(SPARE));
    // If there is none to be had, the same will be said to who needs one.
    let _ = memory_file().and_then(|file| duplicate(&file, last));
}

/// An error if a file may not become so large (RLIMIT_FSIZE): the kernel would kill the process for trying.
pub(crate) fn may_grow_to(length: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
    #[allow(clippy::useless_conversion, reason = "narrower on 32-bit machines")]
    let limit = u64::from(getrlimit(Resource::RLIMIT_FSIZE)?.0);
    if limit < i64::MAX as u64 && length()? > limit {
        let why = format!("it would become larger than this process may make a file ({limit} bytes, RLIMIT_FSIZE)");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(())
}

/// The path by which this program was executed, as the kernel was given it.
pub(crate) fn executed_path() -> Option<PathBuf> {
    // SAFETY: getauxval has no preconditions.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if address == 0 {
        return None;
    }
    // SAFETY: the kernel put a NUL-terminated string there when it started this process, and it stays for the life of it.
    let path = unsafe { CStr::from_ptr(address as *const libc::c_char) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Whether this process has rights that the one which executed its program need not have: the
/// program is setuid or setgid, or the file has capabilities, or a security module says so.
pub(crate) fn has_gained_rights() -> bool {
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether a signal does what the kernel does of itself: this process neither handles nor ignores it.
pub(crate) fn is_at_default(signal: Signal) -> bool {
    // SAFETY: an all-zero sigaction is a valid one.
    let mut now: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: without a new action nothing changes, and the call writes nothing but `now`.
    unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_DFL }
}

/// Gives what one name of a directory names another name, under which nothing may be.
pub(crate) fn rename_to_free(directory: impl AsFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    let [from, to] = [CString::new(from.as_bytes())?, CString::new(to.as_bytes())?];
    let directory = directory.as_fd().as_raw_fd();
    // By its number: not every C library has it.
    // SAFETY: the descriptor is open, and both names are NUL-terminated and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, directory, from.as_ptr(), directory, to.as_ptr(), libc::RENAME_NOREPLACE) };
    Ok(Errno::result(result).map(drop)?)
}

/// Sets an environment variable if this process has one thread only; says whether it did.
pub(crate) fn set_variable_if_alone(name: &str, value: &OsString) -> io::Result<bool> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Ok(false);
    }
    // SAFETY: no other thread exists that could read the environment meanwhile, as was just counted.
    unsafe { std::env::set_var(name, value) };
    Ok(true)
}
