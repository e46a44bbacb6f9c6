//! A file that names the process which serves: always a live and ready one, since it is written by the process before it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::sockets::{Directory, Found, named, temporary_name};
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
        if let Err(error) = Directory::of(&self.0).and_then(|(directory, name)| write(&directory, name, pid)) {
            log::warn!(target: "pollflip", "cannot write the pid file {}, which still names another process or none: {error} (as user {})", self.0.display(), geteuid());
        }
    }

    /// Whether both are there, and one file by two names.
    pub(super) fn is_the_same_as(&self, other: &PidFile) -> bool {
        sys::identity_behind(&self.0).is_some_and(|own| Some(own) == sys::identity_behind(&other.0))
    }

    /// Takes it away, if it names this process.
    pub(super) fn remove(&self) {
        self.remove_if(|_, pid| pid == std::process::id());
    }

    /// Removes a pid file that only the predecessor was configured with, if it belongs to this user
    /// and has the process id of one of the two in it. The check is there because the path came
    /// from outside, and could be that of any file.
    pub(super) fn remove_retired(&self, predecessor: u32) {
        self.remove_if(|found, pid| [std::process::id(), predecessor].contains(&pid) && found.is_own() && found.has_one_name());
    }

    fn remove_if(&self, is_ours: impl FnOnce(&Found, u32) -> bool) {
        let remove = || {
            let (directory, name) = Directory::of(&self.0)?;
            match read(&directory, name) {
                Some((read, text)) if number(&text).is_some_and(|pid| is_ours(&read, pid)) => {
                    directory.remove(name, |found| *found == read)
                }
                _ => Ok(false),
            }
        };
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!(target: "pollflip", "cannot remove the pid file {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

fn write(directory: &Directory, name: &OsStr, pid: u32) -> io::Result<()> {
    if read(directory, name).is_some_and(|(_, text)| number(&text) == Some(pid)) {
        return Ok(());
    }
    // A pipe, a socket, a device: it is not there to keep a number in.
    if directory.look_at(name)?.is_some_and(|found| !found.is_file() && !found.is_link()) {
        let text = "something that is no regular file is there; it is left alone: move it away, or set another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let text = format!("{pid}\n");
    sys::may_grow_to(|| Ok(text.len() as u64))?;
    let temporary = &temporary_name(name);
    if let Some(left) = read(directory, temporary).filter(|(found, text)| is_left_over(found, text)) {
        directory.remove(temporary, |found| *found == left.0)?;
    }
    sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
    // A user who may write to it decides which process is stopped by it; many a program has a umask of zero, or a caller who chose that.
    let mut file = directory.create(temporary, Mode::from_bits_truncate(0o644)).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let why = io::Error::new(error.kind(), "it was not left by this service; it is left alone: move it away");
            named(why, "the name under which it is made is taken:", Path::new(temporary))
        }
        _ => error,
    })?;
    let made = Found::of(&file)?.identity;
    let mut finish = || {
        file.write_all(text.as_bytes())?;
        sys::may_fail(&[libc::EACCES, libc::ENOSPC])?;
        directory.rename(temporary, name)
    };
    finish().inspect_err(|_| {
        // It is of no use to anybody.
        let _ = directory.remove(temporary, |found| found.identity == made);
    })
}

/// Whether that is what a process of this service leaves that dies while it writes: a file of its own with a number in it, or a part of one.
fn is_left_over(found: &Found, text: &str) -> bool {
    found.is_own() && found.has_one_name() && text.len() < LONGEST as usize && text.trim_end().bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// The beginning of what is there, if that is a file. Anybody may have put something else there by now, and to open or to read that must
/// neither wait nor go on for ever.
fn read(directory: &Directory, name: &OsStr) -> Option<(Found, String)> {
    let file = directory.open(name, OFlag::O_RDONLY).ok()?;
    let found = Found::of(&file).ok().filter(Found::is_file)?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some((found, text))
}
