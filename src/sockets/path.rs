//! Unix socket paths: two processes that want the same one at the same moment do not both get it, and what somebody serves, or what is
//! no socket, is left alone.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::libc;
use nix::sys::socket::{SockType, UnixAddr, bind, connect, listen};
use nix::sys::stat::Mode;

use crate::sys::{self, LONGEST_PATH, Origin};

use super::directory::{Directory, Found};

/// How long to wait for another process that binds the same path: it takes that one some microseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// The longest name that file systems have, in bytes.
const LONGEST_NAME: usize = 255;

/// What is added to the path of a socket while that is made under another name.
pub(crate) const TEMPORARY: &str = ".new";

/// A path with something added to its last name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The name of the lock file of a socket of that name. A lock of another program, on `NAME.lock` say, is that program's.
pub(crate) fn lock_name(name: &OsStr) -> OsString {
    hidden(name, ".pollflip-lock")
}

/// The name under which a file of that name is made. Nobody but this crate takes such a name.
pub(crate) fn temporary_name(name: &OsStr) -> OsString {
    hidden(name, ".pollflip-new")
}

fn hidden(name: &OsStr, ending: &str) -> OsString {
    // What is too long for one name with all of it is cut.
    let room = LONGEST_NAME - ending.len() - 1;
    let name = OsStr::from_bytes(&name.as_bytes()[..name.len().min(room)]);
    [OsStr::new("."), name, OsStr::new(ending)].into_iter().collect()
}

/// The right to bind a name in a directory, held until dropped. The lock is a file beside it. The process that has made that file removes
/// it; one that was there before stays.
#[derive(Debug)]
pub(crate) struct PathLock<'a> {
    directory: &'a Directory,
    name: OsString,
    /// There until it is dropped.
    held: Option<Flock<File>>,
    is_made_here: bool,
    origin: Origin,
}

/// A lock file that is open.
struct Opened {
    file: File,
    found: Found,
    is_made_here: bool,
}

impl PathLock<'_> {
    /// `path` leads to the name.
    pub(crate) fn new<'a>(directory: &'a Directory, name: &OsStr, path: &Path) -> io::Result<PathLock<'a>> {
        let name = lock_name(name);
        let shown = &path.with_file_name(&name);
        let deadline = Instant::now() + LOCK_LIMIT;
        let mut made = None;
        loop {
            // Looked at before the try: a lock that is free then came in time.
            let is_last = Instant::now() >= deadline;
            let opened = sys::may_fail(&[libc::EACCES, libc::EMFILE, libc::ENOSPC]).and_then(|()| Opened::new(directory, &name));
            if directory.look_at(&name).is_ok_and(|found| found.is_some_and(|found| !found.is_file())) {
                let why = io::Error::new(io::ErrorKind::AlreadyExists, "it is no regular file, and left alone; move it away");
                return Err(named(why, "cannot use the lock file", shown));
            }
            let Opened { file, found, is_made_here } = match opened {
                Ok(Some(opened)) => opened,
                Ok(None) if !is_last => continue,
                Ok(None) => return Err(named(io::ErrorKind::TimedOut.into(), "other processes make and remove the lock file", shown)),
                Err(error) => {
                    let what = match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                            "the directory must be there and writable: cannot open the lock file"
                        }
                        _ => "cannot open the lock file",
                    };
                    return Err(named(error, what, shown));
                }
            };
            if is_made_here {
                made = Some(found.identity);
            }
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // The one that held it before may have removed it: what is locked must be what is there.
                Ok(held) if directory.look_at(&name)?.is_some_and(|there| there.identity == found.identity) => {
                    // Another process may have had it first.
                    let is_made_here = made == Some(found.identity);
                    return Ok(PathLock { directory, name, held: Some(held), is_made_here, origin: Origin::here() });
                }
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => thread::sleep(Duration::from_millis(2)),
                Err((_, error)) => return Err(named(sys::naming("flock")(error.into()), "cannot lock", shown)),
            }
            if is_last {
                return Err(named(io::ErrorKind::TimedOut.into(), "another process holds the lock file", shown));
            }
        }
    }
}

impl Opened {
    /// `None`: it was there, and the process that had made it has removed it meanwhile.
    fn new(directory: &Directory, name: &OsStr) -> io::Result<Option<Opened>> {
        let made = directory.create(name, Mode::S_IRUSR | Mode::S_IWUSR);
        let (file, is_made_here) = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match directory.open(name, OFlag::O_WRONLY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                there => (there?, false),
            },
            made => (made?, true),
        };
        Ok(Some(Opened { found: Found::of(&file)?, file, is_made_here }))
    }
}

impl Drop for PathLock<'_> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if !self.origin.is_here() {
            // A forked child has the same lock, and to drop it would unlock the path for all.
            return mem::forget(held);
        }
        if self.is_made_here
            && let Ok(held) = Found::of(&held)
        {
            // Still locked: a process that waits for it sees that it is gone, and makes a new one.
            let _ = self.directory.remove(&self.name, |found| found.identity == held.identity);
        }
    }
}

/// Finds out whether a name can be had, while it is locked. `None`: it is free. Otherwise what is there is a socket of that type that
/// nobody serves. `path` leads to the same name.
pub(crate) fn find_stale(directory: &Directory, name: &OsStr, path: &Path, of: SockType) -> io::Result<Option<Found>> {
    let Some(found) = directory.look_at(name)? else { return Ok(None) };
    if !found.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there; it is left alone"));
    }
    let probe = unix_socket(of)?;
    match connect(probe.as_raw_fd(), &address(path)?) {
        // What was connected to is what was seen.
        Err(Errno::ECONNREFUSED) if directory.look_at(name)? == Some(found) => Ok(Some(found)),
        // It went away meanwhile.
        Err(Errno::ENOENT) => Ok(None),
        // Connected, its backlog is full, it is of another type, or not ours to connect to: somebody serves it.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it; is the service running already?")),
    }
}

/// A socket bound to a path, listening if it is of a type that does. Its file gets the mode that the umask leaves.
pub(crate) fn bind_unix(path: &Path, of: SockType) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let (directory, name) = Directory::of(path)?;
    let _lock = PathLock::new(&directory, name, path)?;
    if let Some(stale) = find_stale(&directory, name, path, of)? {
        directory.remove(name, |found| *found == stale)?;
    }
    let socket = unix_socket(of)?;
    bind(socket.as_raw_fd(), &address)?;
    if of != SockType::Datagram {
        listen(&socket, sys::BACKLOG)?;
    }
    Ok(socket)
}

pub(crate) fn unix_socket(of: SockType) -> io::Result<OwnedFd> {
    sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS])?;
    sys::unix_socket(of)
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

pub(crate) fn named(error: io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}
