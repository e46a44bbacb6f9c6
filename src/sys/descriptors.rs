//! The descriptors that are open in this thread, as they are at one moment.
//!
//! Knows: the table of descriptors. Does not know: what any of them is for.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Whence, lseek};

use super::{read_proc, simulation};

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
        let mut next = 0;
        if let Some(table) = Table::open() {
            // The lowest number is given out first: most processes have these and no others.
            while open.len() < table.in_all && next < 2 * table.in_all + FEW {
                if next as RawFd != table.directory.as_raw_fd() {
                    open.look_at(next as RawFd);
                }
                next += 1;
            }
            let beyond = table.in_all - open.len();
            if beyond <= FEW
                && let Some(numbers) = table.list_from(next)
                && numbers.len() == beyond
            {
                numbers.into_iter().for_each(|number| open.look_at(number));
                return open;
            }
        }
        // Others are opened and closed just now, or there are many of high numbers.
        let size = descriptor_table_size();
        open.is_all = size.is_some();
        let table = Table::open().filter(|table| size.is_some_and(|size| table.in_all * ENTRY < size as usize));
        let next = next as RawFd;
        match table.and_then(|table| table.list_from(0)) {
            Some(all) => all.into_iter().filter(|number| *number >= next).for_each(|number| open.look_at(number)),
            None => (next..size.unwrap_or(guess)).for_each(|number| open.look_at(number)),
        }
        open
    }

    fn len(&self) -> usize {
        self.closing.len() + self.staying.len()
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
const ENTRY: usize = 8;
/// So many numbers more than it has to are looked at in a table with gaps, and so many entries are
/// listed before it is asked how large the table is.
const FEW: usize = 64;

/// The table of this thread, as `/proc` shows it.
struct Table {
    directory: OwnedFd,
    /// How many are open, without this directory.
    in_all: usize,
}

impl Table {
    /// `None`: `/proc` does not tell how many are open (before Linux 6.2 it says 0).
    fn open() -> Option<Table> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(c"/proc/thread-self/fd", flags, Mode::empty()).ok()?;
        let in_all = usize::try_from(fstat(&directory).ok()?.st_size).ok()?.checked_sub(1)?;
        Some(Table { directory, in_all })
    }

    /// The open numbers from `first` on, in rising order. An entry costs most when it is listed for
    /// the first time.
    fn list_from(self, first: usize) -> Option<Vec<RawFd>> {
        if first > 0 {
            // The kernel takes a place in this directory for a number, after the two names that
            // each directory has. If it took it for anything else, their number would tell.
            lseek(&self.directory, (first + 2).try_into().ok()?, Whence::SeekSet).ok()?;
        }
        let own = self.directory.as_raw_fd();
        let mut numbers = Vec::new();
        for entry in Dir::from_fd(self.directory).ok()?.iter() {
            let entry = entry.ok()?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => numbers.push(std::str::from_utf8(name).ok()?.parse().ok()?),
            }
        }
        numbers.retain(|number| *number != own);
        numbers.sort_unstable();
        Some(numbers)
    }
}

/// How many numbers the table of descriptors of this thread has room for. `None`: `/proc` does not
/// tell.
pub(crate) fn descriptor_table_size() -> Option<RawFd> {
    let status = read_proc("/proc/thread-self/status").ok()?;
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
    use super::super::duplicate;
    use super::*;

    #[test]
    fn what_is_open_is_found_in_a_list_of_the_table_and_by_a_look_at_each_number() {
        // Other tests open and close what is theirs meanwhile.
        let file = fs::File::open("/dev/null").expect("a file");
        let number = file.as_raw_fd();
        let all = Descriptors::open(0);
        assert!(all.is_all && all.closing.contains(&number) && !all.staying.contains(&number));
        assert!(all.closing.is_sorted() && all.staying.is_sorted());
        let Some(table) = Table::open() else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        let listed = table.list_from(0).expect("a list");
        assert!(listed.is_sorted() && listed.contains(&number));
        drop(file);
    }

    #[test]
    fn descriptors_of_high_numbers_are_found_too() {
        let file = fs::File::open("/dev/null").expect("a file");
        let high: Vec<_> = [100, 101, 300, 1000].map(|at| duplicate(&file, at).expect("a descriptor")).into();
        let open = Descriptors::open(0);
        assert!(open.is_all && open.closing.is_sorted());
        for number in high.iter().map(AsRawFd::as_raw_fd) {
            assert!(open.closing.contains(&number), "{number} is not in {open:?}");
        }
    }

    #[test]
    fn a_table_that_is_nearly_full_is_looked_through_up_to_the_last_that_is_open() {
        let file = fs::File::open("/dev/null").expect("a file");
        // With a gap, and one far beyond all others.
        let all: Vec<_> = (100..700).chain([900]).filter_map(|at| duplicate(&file, at).ok()).collect();
        let Some(last) = all.last().map(AsRawFd::as_raw_fd).filter(|last| *last >= 900) else {
            return eprintln!("SKIPPED: too few allowed");
        };
        let open = Descriptors::open(0);
        assert!(open.is_all && open.closing.is_sorted());
        for number in all.iter().map(AsRawFd::as_raw_fd) {
            assert!(open.closing.contains(&number), "{number} of {last} is not in {open:?}");
        }
        let Some(table) = Table::open() else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        assert_eq!(table.list_from(RawFd::MAX as usize / 2), Some(Vec::new()));
    }

    #[test]
    fn the_kernel_lists_from_a_number_on() {
        let file = fs::File::open("/dev/null").expect("a file");
        let held = duplicate(&file, 300).expect("a descriptor");
        let high = held.as_raw_fd();
        let Some(table) = Table::open() else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        assert_eq!(table.list_from(high as usize).expect("a list").first(), Some(&high));
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
