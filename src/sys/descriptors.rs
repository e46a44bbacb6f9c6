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
        for number in 0..size.unwrap_or(guess) {
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

/// The descriptor of this process that a path names, if it names one.
pub(crate) fn named_by(path: &Path) -> Option<RawFd> {
    let directory = path.parent()?;
    let own = format!("/proc/{}/fd", std::process::id());
    let is_own = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", &own].iter().any(|own| directory == Path::new(own));
    path.file_name()?.to_str()?.parse().ok().filter(|_| is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_descriptor_of_this_process_or_none() {
        let own = format!("/proc/{}/fd/7", std::process::id());
        for (path, number) in [("/dev/fd/7", Some(7)), ("/proc/self/fd/7", Some(7)), (&*own, Some(7))] {
            assert_eq!(named_by(Path::new(path)), number, "{path}");
        }
        for path in ["/proc/1/fd/7", "/dev/fd/x", "/dev/fd", "/srv/fd/7", "7"] {
            assert_eq!(named_by(Path::new(path)), None, "{path}");
        }
    }
}
