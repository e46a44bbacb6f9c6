//! The descriptors that are open in this thread, as they are at one moment.
//!
//! Knows: the table of descriptors. Does not know: what any of them is for.

use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::libc;

use super::simulation;

/// What is open, by number, in rising order.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    /// What an executed program does not get: CLOEXEC.
    pub(crate) closing: Vec<RawFd>,
    /// What an executed program gets.
    pub(crate) staying: Vec<RawFd>,
    /// Nothing else was open. Where `/proc` does not tell the size of the table, that is unknown.
    pub(crate) is_all: bool,
    /// So many numbers were looked at, from 0 on.
    pub(crate) looked_at: RawFd,
}

impl Descriptors {
    /// What is open now. `guess`: so many numbers are looked at if the size of the table is
    /// unknown.
    pub(crate) fn open(guess: RawFd) -> Descriptors {
        let mut open = Descriptors { is_all: true, ..Descriptors::default() };
        if simulation::is_simulated() {
            return open;
        }
        let size = table_size();
        open.is_all = size.is_some();
        open.looked_at = size.unwrap_or(guess);
        for number in 0..open.looked_at {
            // SAFETY: the call takes two numbers, and fails for one that is not open.
            match unsafe { libc::fcntl(number, libc::F_GETFD) } {
                -1 => {}
                flags if flags & libc::FD_CLOEXEC != 0 => open.closing.push(number),
                _ => open.staying.push(number),
            }
        }
        open
    }
}

/// How many numbers the table of this thread has room for.
fn table_size() -> Option<RawFd> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()
}

/// What a descriptor is open to, as `/proc` tells it.
pub(crate) fn name_of(number: RawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/thread-self/fd/{number}")).ok()
}

/// The descriptor of this process that a path begins with, if it does: the file itself, or a
/// directory that the rest of the path is in.
pub(crate) fn named_by(path: &Path) -> Option<RawFd> {
    path.ancestors().find_map(|path| {
        let number = path.file_name()?.to_str()?.parse().ok()?;
        is_own_table(path.parent()?).then_some(number)
    })
}

/// Whether the descriptors of this process, or of a thread of it, are in that directory, by whatever
/// name.
fn is_own_table(directory: &Path) -> bool {
    let (Ok(directory), Ok(own)) = (fs::canonicalize(directory), fs::canonicalize("/proc/self")) else { return false };
    let below = directory.strip_prefix(own).ok().and_then(Path::to_str);
    below.is_some_and(|below| below == "fd" || (below.starts_with("task/") && below.ends_with("/fd")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_descriptor_of_this_process_or_none() {
        let own = format!("/proc/{}/fd/7", std::process::id());
        let names = ["/dev/fd/7", "/proc/self/fd/7", "/proc/thread-self/fd/7", &own, "/proc/self/./fd/7/bin/12/server", "/dev/fd/7/.."];
        for path in names {
            assert_eq!(named_by(Path::new(path)), Some(7), "{path}");
        }
        for path in ["/proc/1/fd/7", "/dev/fd/x", "/dev/fd", "/srv/fd/7", "/srv/7/server", "/proc/self/fd", "7"] {
            assert_eq!(named_by(Path::new(path)), None, "{path}");
        }
    }
}
