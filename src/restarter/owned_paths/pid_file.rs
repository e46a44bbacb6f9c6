//! A file that names the process which serves: always a live and ready one, since it is written by the process before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::sockets::{TEMPORARY, beside};
use crate::sys;

/// More bytes than a number has.
const LONGEST: u64 = 32;

/// The file, as far as it is kept.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn new(path: &Path) -> PidFile {
        PidFile(path.into())
    }

    /// The path, if it is fit to be handed down.
    pub(super) fn as_text(&self) -> Option<&str> {
        self.0.to_str().filter(|path| !path.contains(char::is_control))
    }

    /// Names that process, by rename: a reader finds either the old number or the new one.
    pub(super) fn write(&self, pid: u32) {
        if names(&self.0) == Some(pid) {
            return;
        }
        let temporary = &beside(&self.0, TEMPORARY);
        let write = || -> io::Result<()> {
            // A pipe, a socket, a device: whoever put it there, not to keep a number in.
            if fs::symlink_metadata(&self.0).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
                let text = "something that is no regular file is there; it is left alone: move it away, or set another path";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            let text = format!("{pid}\n");
            sys::may_grow_to(|| Ok(text.len() as u64))?;
            // Left by one that died here, or put there by somebody else: never followed, never written to.
            if let Err(error) = fs::remove_file(temporary)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
            File::create_new(temporary)?.write_all(text.as_bytes())?;
            sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
            fs::rename(temporary, &self.0)
        };
        if let Err(error) = write() {
            // It is of no use to anybody.
            let _ = fs::remove_file(temporary);
            log::warn!(target: "pollflip", "cannot write the pid file {}: {error}", self.0.display());
        }
    }

    /// Whether both are there, and one file by two names.
    pub(super) fn is_the_same_as(&self, other: &PidFile) -> bool {
        sys::identity_behind(&self.0).is_some_and(|own| Some(own) == sys::identity_behind(&other.0))
    }

    /// Takes it away, if it names this process, or its predecessor.
    pub(super) fn remove(&self, predecessor: Option<u32>) {
        let named = names(&self.0);
        if (named == Some(std::process::id()) || (named.is_some() && named == predecessor))
            && let Err(error) = fs::remove_file(&self.0)
        {
            log::warn!(target: "pollflip", "cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}

/// Whom it names. Anybody may have put something else there by now, and to open or to read that must neither wait nor go on for ever.
fn names(path: &Path) -> Option<u32> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
