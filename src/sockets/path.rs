//! Unix socket paths: two processes that want the same one at the same moment do not both get it, and what somebody serves, or what is
//! no socket, is left alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};

use crate::sys::{self, Origin};

/// How long to wait for another process that binds the same path: it takes that one some microseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// The longest path that the kernel binds a socket to.
pub(crate) const LONGEST_PATH: usize = 107;

/// What is added to a path while what it is to name is made, and while a socket is bound there.
pub(crate) const TEMPORARY: &str = ".new";
pub(crate) const LOCK: &str = ".lock";

/// The right to bind a path, held until dropped. The lock is a file beside it, which is there only meanwhile.
#[derive(Debug)]
pub(crate) struct PathLock {
    lock: PathBuf,
    /// There until it is dropped.
    held: Option<Flock<File>>,
    origin: Origin,
}

/// A path with something added to its last name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl PathLock {
    pub(crate) fn new(path: &Path) -> io::Result<PathLock> {
        let lock = beside(path, LOCK);
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            let is_last = Instant::now() >= deadline;
            let opened = sys::may_fail(&[libc::EACCES, libc::EMFILE, libc::ENOSPC]).and_then(|()| {
                // A pipe would keep whoever opens it waiting.
                let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&lock)
            });
            if fs::symlink_metadata(&lock).is_ok_and(|found| !found.is_file()) {
                let why = io::Error::new(io::ErrorKind::AlreadyExists, "it is no regular file, and left alone; move it away");
                return Err(named(why, "cannot use the lock file", &lock));
            }
            let file = opened.map_err(|error| {
                let what = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        "the directory must be there and writable: cannot open the lock file"
                    }
                    _ => "cannot open the lock file",
                };
                named(error, what, &lock)
            })?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The one who held it before has removed it: what is locked must be what is there.
                Ok(held) if same_file(&held.metadata()?, &lock) => return Ok(PathLock { lock, held: Some(held), origin: Origin::here() }),
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => thread::sleep(Duration::from_millis(2)),
                Err((_, error)) => return Err(named(error.into(), "cannot lock", &lock)),
            }
            if is_last {
                return Err(named(io::ErrorKind::TimedOut.into(), "another process holds the lock file", &lock));
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if !self.origin.is_here() {
            // A forked child has the same lock, and to drop it would unlock the path for all.
            return mem::forget(held);
        }
        // Ours is empty; a file with something in it was there before, and is somebody's.
        if held.metadata().is_ok_and(|held| held.len() == 0) {
            // Still locked: whoever waits for it sees that it is gone, and makes a new one.
            let _ = fs::remove_file(&self.lock);
        }
    }
}

/// Finds out whether a path can be had, while it is locked: it is free (`false`), or what is there is a socket of that type that nobody
/// serves (`true`).
pub(crate) fn is_stale(path: &Path, of: SockType) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there; it is left alone"));
        }
        Ok(_) => {}
    }
    let probe = unix_socket(of)?;
    match connect(probe.as_raw_fd(), &address(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(true),
        // It went away meanwhile.
        Err(Errno::ENOENT) => Ok(false),
        // Connected, its backlog is full, it is of another type, or not ours to connect to: somebody serves it.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it; is the service running already?")),
    }
}

/// A socket bound to a path, listening if it is of a type that does. Its file gets the mode that the umask leaves.
pub(crate) fn bind_unix(path: &Path, of: SockType) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let _lock = PathLock::new(path)?;
    if is_stale(path, of)? {
        fs::remove_file(path)?;
    }
    let socket = unix_socket(of)?;
    bind(socket.as_raw_fd(), &address)?;
    if of != SockType::Datagram {
        listen(&socket, Backlog::MAXALLOWABLE)?;
    }
    Ok(socket)
}

pub(crate) fn unix_socket(of: SockType) -> io::Result<OwnedFd> {
    sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS])?;
    Ok(socket(AddressFamily::Unix, of, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

/// A socket connected to `path`, non-blocking; waits until the deadline for room in the server's backlog.
pub(crate) fn unix_client(path: &Path, of: SockType, deadline: Option<Instant>) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let socket = unix_socket(of)?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::EINTR) => {}
            // The backlog is full; nothing announces that it is not any more.
            Err(Errno::EAGAIN) if deadline.is_none_or(|deadline| Instant::now() < deadline) => thread::sleep(Duration::from_millis(5)),
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    let length = path.as_os_str().len();
    if length == 0 {
        // The kernel would make up a name that nobody can know.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is empty"));
    }
    if length > LONGEST_PATH {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path has {length} bytes; a socket's may have {LONGEST_PATH}"),
        ));
    }
    Ok(UnixAddr::new(path)?)
}

fn same_file(held: &fs::Metadata, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()))
}

pub(crate) fn named(error: io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
