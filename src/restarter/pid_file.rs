//! A file that names the process which serves: always a live and ready one, since it is written by the process before it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::sys;

/// The file, as far as it is kept.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn new(path: PathBuf) -> PidFile {
        PidFile(path)
    }

    /// Names that process, by rename: a reader finds either the old number or the new one.
    pub(super) fn write(&self, pid: u32) {
        if names(&self.0) == Some(pid) {
            return;
        }
        let mut temporary = self.0.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = Path::new(&temporary);
        let write = || -> io::Result<()> {
            // Left by one that died here, or put there by somebody else: never followed, never written to.
            if let Err(error) = fs::remove_file(temporary)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
            File::create_new(temporary)?.write_all(format!("{pid}\n").as_bytes())?;
            sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
            fs::rename(temporary, &self.0)
        };
        if let Err(error) = write() {
            // It is of no use to anybody.
            let _ = fs::remove_file(temporary);
            log::warn!(target: "pollflip", "cannot write the pid file {}: {error}", self.0.display());
        }
    }

    /// Takes it away, if it names this process.
    pub(super) fn remove(&self) {
        if names(&self.0) == Some(std::process::id())
            && let Err(error) = fs::remove_file(&self.0)
        {
            log::warn!(target: "pollflip", "cannot remove the pid file {}: {error}", self.0.display());
        }
    }
}

fn names(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
