//! A directory that is held open, and the names in it: what is put into the place of the directory meanwhile, or of a link on the way to
//! it, is not what this process then changes. The last name is never followed if it is a link.
//!
//! Knows: how to look at a name, and how to change what it names. Does not know: what for.
//!
//! The kernel removes by name, not by file. So one gap stays between the look at a name and its removal: someone who may write to that
//! very directory can put another file under that name within it, and that file goes in the place of the one that was seen.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::sys;
use crate::wire::FileId;

/// The directory.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

/// What a name names, or what a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) identity: FileId,
    /// The type alone.
    kind: libc::mode_t,
    owner: u32,
    /// By how many names it can be had.
    names: u64,
}

impl Directory {
    /// The directory of a path, and the name of the path in it. Links on the way to the directory are followed.
    pub(crate) fn of(path: &Path) -> io::Result<(Directory, &OsStr)> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path ends with no name of a file"));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = sys::PATH_ALONE | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(AT_FDCWD, parent, flags, Mode::empty()).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("cannot open the directory {}: {error}", parent.display()))
        })?;
        Ok((Directory(directory), name))
    }

    /// What is there under that name; `None`: nothing.
    pub(crate) fn look_at(&self, name: &OsStr) -> io::Result<Option<Found>> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found::from(stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens what is there. A pipe keeps nobody waiting.
    pub(crate) fn open(&self, name: &OsStr, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Makes a file, where nothing is.
    pub(crate) fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, mode)?.into())
    }

    /// Removes the name if what is there is what is meant; says whether it was.
    pub(crate) fn remove(&self, name: &OsStr, is_meant: impl FnOnce(&Found) -> bool) -> io::Result<bool> {
        match self.look_at(name)? {
            Some(found) if is_meant(&found) => match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) => Ok(true),
                // Somebody else has removed it just now.
                Err(Errno::ENOENT) => Ok(false),
                Err(error) => Err(error.into()),
            },
            _ => Ok(false),
        }
    }

    /// Moves it to another name, and over what is there.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Moves it to a name under which nothing is: an error if there is something.
    pub(crate) fn rename_to_free(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match sys::rename_to_free(&self.0, from, to) {
            // The file system, or what stands for the kernel here, cannot do that in one step.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => match self.look_at(to)? {
                Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                None => self.rename(from, to),
            },
            result => result,
        }
    }
}

impl Found {
    pub(crate) fn of(file: &File) -> io::Result<Found> {
        Ok(Found::from(fstat(file)?))
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    pub(crate) fn is_link(&self) -> bool {
        self.kind == libc::S_IFLNK
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.kind == libc::S_IFSOCK
    }

    /// Whether it belongs to the user that this process acts as.
    pub(crate) fn is_own(&self) -> bool {
        self.owner == geteuid().as_raw()
    }

    /// Whether no other name leads to it.
    pub(crate) fn has_one_name(&self) -> bool {
        self.names == 1
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "narrower on 32-bit machines")]
impl From<FileStat> for Found {
    fn from(stat: FileStat) -> Found {
        let identity = sys::file_id(&stat);
        Found { identity, kind: stat.st_mode & libc::S_IFMT, owner: stat.st_uid, names: stat.st_nlink as u64 }
    }
}
