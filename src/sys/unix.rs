//! What any Unix has: looks at descriptors and files, and waiting for one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{FileStat, fstat};

use crate::wire::FileId;

use super::may_fail;

/// Most files of `/proc` that are read here are shorter.
const PROC_FILE: usize = 4096;

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
            Err(Errno::EINTR) => {}
            // Looked at after the time is over: this process may have been stopped until then, and
            // what came meanwhile came in time.
            _ if left.is_zero() => return false,
            Ok(_) => {}
            // The kernel lets nobody wait, and this one is not to spin.
            Err(_) => thread::sleep(left.min(Duration::from_millis(10))),
        }
        left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    }
}

/// Whether a connection is over: reset, or ended both ways.
pub(crate) fn is_over(socket: &impl AsFd) -> bool {
    // These are told without being asked for.
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let over = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut fds, PollTimeout::ZERO) == Ok(1) && fds[0].revents().is_some_and(|found| found.intersects(over))
}

/// Lends the open descriptor of that number for one look; `None` if there is none.
pub(crate) fn peek<T>(raw: RawFd, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    borrow(raw).filter(|fd| fstat(fd).is_ok()).map(look)
}

/// The descriptor of that number, if there can be one, for a look that fails where it is not open.
fn borrow<'a>(raw: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: the number is not -1, and a look with it can only get an error from one that is not open: system calls that read
    // a descriptor's properties fail cleanly.
    (raw >= 0).then(|| unsafe { BorrowedFd::borrow_raw(raw) })
}

/// The file of an open descriptor, given by number; `None` if there is none of that number.
pub(crate) fn identity(raw: RawFd) -> Option<FileId> {
    borrow(raw).and_then(|fd| fstat(fd).ok()).map(|stat| file_id(&stat))
}

/// The file that this process executes; `None` if that cannot be seen. It stays the same.
pub(crate) fn own_program() -> Option<FileId> {
    static OWN: OnceLock<FileId> = OnceLock::new();
    OWN.get().copied().or_else(|| identity_behind(Path::new("/proc/self/exe")).map(|found| *OWN.get_or_init(|| found)))
}

/// The file of which the kernel has told this.
#[allow(clippy::unnecessary_cast, reason = "of another type on other machines and systems")]
pub(crate) fn file_id(stat: &FileStat) -> FileId {
    FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
}

/// What a path names, be it a link; `None` if nothing can be seen there.
pub(crate) fn identity_of(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|found| FileId { device: found.dev(), inode: found.ino() })
}

/// The same with links followed.
pub(crate) fn identity_behind(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|found| FileId { device: found.dev(), inode: found.ino() })
}

/// Reads a file of `/proc`, whose size nothing tells: with room for most of them, so that one call
/// brings all of it. Without memory that is an error.
pub(crate) fn read_proc(path: &str) -> io::Result<String> {
    let mut text = String::new();
    text.try_reserve(PROC_FILE)?;
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
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

/// An error if a file may not become so large (RLIMIT_FSIZE): the kernel would kill the process for trying.
pub(crate) fn may_grow_to(length: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
    #[allow(clippy::unnecessary_cast, reason = "of another type on other machines and systems")]
    let limit = getrlimit(Resource::RLIMIT_FSIZE)?.0 as u64;
    if limit < i64::MAX as u64 && length()? > limit {
        let why = format!("it would become larger than this process may make a file ({limit} bytes, RLIMIT_FSIZE)");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(())
}

/// Whether a signal does what the kernel does of itself: this process neither handles nor ignores it.
pub(crate) fn is_at_default(signal: Signal) -> bool {
    // SAFETY: an all-zero sigaction is a valid one.
    let mut now: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: without a new action nothing changes, and the call writes nothing but `now`.
    unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_DFL }
}
