//! Where the server can be found: a path that only ever names somebody who answers.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::libc;
use nix::sys::socket::{Backlog, SockType, UnixAddr, bind, listen};

use crate::sockets::{LONGEST_PATH, PathLock, TEMPORARY, beside, is_stale, named, unix_socket};
use crate::sys;

/// A listener at `path` for this user alone. It is made under another name and moved there when it listens, so that a client finds
/// either nobody or somebody who answers, and the path never opens to others.
pub(super) fn bind_private(path: &Path) -> io::Result<OwnedFd> {
    let length = path.as_os_str().len();
    let longest = LONGEST_PATH - TEMPORARY.len();
    if length > longest {
        let text = format!("the path has {length} bytes; that of a coordination socket may have {longest}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let _lock = PathLock::new(path)?;
    is_stale(path, SockType::Stream)?;
    let temporary = beside(path, TEMPORARY);
    // Left by one that died here, the lock says that nobody is at it now; or the path of another service.
    let in_the_way = |error| named(error, "the name under which it is made is taken:", &temporary);
    if is_stale(&temporary, SockType::Stream).map_err(in_the_way)? {
        fs::remove_file(&temporary)?;
    }
    let socket = unix_socket(SockType::Stream)?;
    sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&temporary)?)?;
    let finish = || {
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        sys::may_fail(&[libc::EADDRINUSE])?;
        listen(&socket, Backlog::MAXALLOWABLE)?;
        sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
        fs::rename(&temporary, path)
    };
    finish().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(socket)
}

/// Whether the path names another file by now, or none. One that may not be looked at is believed to be there.
pub(super) fn is_taken_away(path: &Path, own: (u64, u64)) -> bool {
    match fs::symlink_metadata(path) {
        Ok(found) => (found.dev(), found.ino()) != own,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
