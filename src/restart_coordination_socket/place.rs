//! Where the server can be found: a path that only ever names somebody who answers.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::sys::socket::{SockType, listen};

use crate::sockets::{Directory, Found, PathLock, TEMPORARY, beside, find_stale, named, unix_socket};
use crate::sys;
use crate::wire::FileId;

/// A listener at `path` for this user alone, and the identity of its file. It is made under another name and moved there when it listens,
/// so that a client finds either nobody or somebody who answers. Its file opens to nobody else from the first moment on.
pub(super) fn bind_private(path: &Path) -> io::Result<(OwnedFd, FileId)> {
    let length = path.as_os_str().len();
    let longest = sys::LONGEST_PATH - TEMPORARY.len();
    if length > longest {
        let text = format!("the path has {length} bytes; that of a coordination socket may have {longest}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let (directory, name) = Directory::of(path)?;
    let _lock = PathLock::new(&directory, name, path)?;
    let stale = find_stale(&directory, name, path, SockType::Stream)?;
    let temporary = beside(path, TEMPORARY);
    let temporary_name = &beside(Path::new(name), TEMPORARY).into_os_string();
    // Left by one that died here, the lock says that nobody is at it now; or the path of another service.
    let in_the_way = |error| named(error, "the name under which it is made is taken:", &temporary);
    if let Some(left) = find_stale(&directory, temporary_name, &temporary, SockType::Stream).map_err(in_the_way)? {
        if !left.is_own() {
            let why = io::Error::new(io::ErrorKind::AlreadyExists, "another user's socket is there; it is left alone: move it away");
            return Err(in_the_way(why));
        }
        directory.remove(temporary_name, |found| *found == left)?;
    }
    let socket = unix_socket(SockType::Stream)?;
    sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
    sys::bind_private(&socket, &temporary)?;
    // The kernel binds by path alone, and that may lead to another directory by now.
    let made = directory.look_at(temporary_name)?.filter(|made| sys::identity_of(&temporary) == Some(made.identity));
    let made = made.filter(Found::is_socket).ok_or_else(swapped)?;
    let finish = || {
        sys::may_fail(&[libc::EADDRINUSE])?;
        listen(&socket, sys::BACKLOG).map_err(io::Error::from).map_err(sys::naming("listen"))?;
        if let Some(stale) = stale {
            directory.remove(name, |found| *found == stale)?;
        }
        sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
        directory.rename_to_free(temporary_name, name).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(error.kind(), "something was put there just now; it is left alone"),
            _ => error,
        })?;
        match directory.look_at(name)? {
            Some(found) if found.identity == made.identity => Ok(()),
            _ => Err(swapped()),
        }
    };
    finish().inspect_err(|_| drop(directory.remove(temporary_name, |found| found.identity == made.identity)))?;
    Ok((socket, made.identity))
}

fn swapped() -> io::Error {
    let why = "while the socket was made, its directory was moved or another file was put in its place: see who else writes there";
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

/// Whether the path names another file by now, or none. One that may not be looked at is believed to be there.
pub(super) fn is_taken_away(path: &Path, own: FileId) -> bool {
    match fs::symlink_metadata(path) {
        Ok(found) => FileId { device: found.dev(), inode: found.ino() } != own,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
