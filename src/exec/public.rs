//! What everybody may know of a file.
//!
//! Knows: modes of files and of the directories on the way to them. Does not know: what is said of
//! a file. That goes to those who ask for a restart, to the log and to `systemctl status`: no byte
//! of it may come from what only some users may read.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use crate::sys;

/// The owner, the group and all others may search such a directory.
const SEARCH: Mode = Mode::S_IXUSR.union(Mode::S_IXGRP).union(Mode::S_IXOTH);
/// They may read such a file.
const READ: Mode = Mode::S_IRUSR.union(Mode::S_IRGRP).union(Mode::S_IROTH);

/// Opens a regular file that everybody may read, reached through directories that everybody may
/// search. `None`: it is no such file, or this process has gained rights, and what it sees is not
/// its caller's to see.
pub(super) fn open(path: &Path) -> Option<File> {
    let path = fs::canonicalize(path).ok()?;
    let directory = open_directory(path.parent()?)?;
    let name = path.file_name()?;
    let is_readable = |found: FileStat| is_of(&found, SFlag::S_IFREG) && allows(&found, READ);
    // To open what is no file can do something, and it can be another one by then.
    fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().filter(|found| is_readable(*found))?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = openat(&directory, name, flags, Mode::empty()).ok()?;
    fstat(&file).ok().filter(|found| is_readable(*found))?;
    Some(file.into())
}

/// Where a symbolic link leads, if everybody may see that.
pub(super) fn target(link: &Path) -> Option<PathBuf> {
    open_directory(&fs::canonicalize(link.parent()?).ok()?)?;
    fs::read_link(link).ok()
}

/// Opens a directory that everybody may reach and search, given by a path without links.
fn open_directory(path: &Path) -> Option<OwnedFd> {
    if sys::has_gained_rights() {
        return None;
    }
    let flags = sys::PATH_ALONE | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory: Option<OwnedFd> = None;
    for component in path.components() {
        let next = match (&directory, component) {
            (None, Component::RootDir) => openat(AT_FDCWD, "/", flags, Mode::empty()),
            (Some(directory), Component::Normal(name)) => openat(directory, name, flags, Mode::empty()),
            _ => return None,
        };
        let next = next.ok()?;
        fstat(&next).ok().filter(|found| allows(found, SEARCH))?;
        directory = Some(next);
    }
    directory
}

fn is_of(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

fn allows(found: &FileStat, wanted: Mode) -> bool {
    Mode::from_bits_truncate(found.st_mode).contains(wanted)
}
