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
        match size.and_then(listed) {
            Some(numbers) => numbers.into_iter().for_each(|number| open.look_at(number)),
            None => (0..open.looked_at).for_each(|number| open.look_at(number)),
        }
        open
    }

    fn look_at(&mut self, number: RawFd) {
        // SAFETY: the call takes two numbers, and fails for one that is not open.
        match unsafe { libc::fcntl(number, libc::F_GETFD) } {
            -1 => {}
            flags if flags & libc::FD_CLOEXEC != 0 => self.closing.push(number),
            _ => self.staying.push(number),
        }
    }
}

/// An entry of `/proc` costs as much as so many looks at a number.
const ENTRY: u64 = 8;

/// The open numbers in rising order, as `/proc` lists them. `None`: in a table of that size it is
/// quicker to look at each number, or `/proc` does not tell how many are open (before Linux 6.2).
fn listed(size: RawFd) -> Option<Vec<RawFd>> {
    let directory = Path::new("/proc/thread-self/fd");
    let open = fs::metadata(directory).ok()?.len();
    if open == 0 || open.saturating_mul(ENTRY) >= u64::try_from(size).ok()? {
        return None;
    }
    let entries = fs::read_dir(directory).ok()?;
    let numbers = entries.map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<RawFd> = numbers.collect::<Option<_>>()?;
    numbers.sort_unstable();
    Some(numbers)
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
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_open_is_found_in_a_list_of_the_table_and_by_a_look_at_each_number() {
        // Other tests open and close what is theirs meanwhile.
        let file = fs::File::open("/dev/null").expect("a file");
        let number = file.as_raw_fd();
        let all = Descriptors::open(0);
        assert!(all.is_all && all.looked_at > number && all.closing.contains(&number) && !all.staying.contains(&number));
        assert!(all.closing.is_sorted() && all.staying.is_sorted());
        let Some(numbers) = listed(RawFd::MAX) else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        assert!(numbers.is_sorted() && numbers.contains(&number));
        assert_eq!(listed(1), None, "a table that is nearly full is looked through");
        drop(file);
    }

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
