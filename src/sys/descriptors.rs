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
        (0..FEW).for_each(|number| open.look_at(number));
        let few = open.closing.len() + open.staying.len();
        // A kernel that lists others than those from that number on tells it by the sum.
        if let Some(listed) = list(FEW, FEW).filter(|listed| few + listed.numbers.len() == listed.in_all) {
            listed.numbers.into_iter().for_each(|number| open.look_at(number));
            return open;
        }
        let size = descriptor_table_size();
        open.is_all = size.is_some();
        match size.and_then(|size| list(0, size / ENTRY)) {
            Some(all) => all.numbers.into_iter().filter(|number| *number >= FEW).for_each(|number| open.look_at(number)),
            None => open.look_through(size.unwrap_or(guess)),
        }
        open
    }

    /// Looks at each number from the first [`FEW`] on, and ends with the last that is open: a table
    /// has up to twice as many places.
    fn look_through(&mut self, size: RawFd) {
        let mut table = directory();
        let own = table.as_ref().map(|(directory, _)| directory.as_raw_fd());
        for number in (FEW..size).filter(|number| Some(*number) != own) {
            self.look_at(number);
            let found = self.closing.len() + self.staying.len();
            // Others may have been opened and closed meanwhile: the sum alone does not tell.
            if let Some((directory, _)) = table.take_if(|(_, in_all)| found == *in_all)
                && lists_nothing(directory, number + 1)
            {
                return;
            }
        }
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
const ENTRY: RawFd = 8;
/// So many numbers are looked at in any case: most processes have no others, and to look at them
/// takes less time than to list a few.
const FEW: RawFd = 64;

/// What `/proc` lists.
struct List {
    /// In rising order.
    numbers: Vec<RawFd>,
    /// How many are open, with those that are not listed.
    in_all: usize,
}

/// The open numbers from `first` on. `None`: more than `most` are open in all, or `/proc` does not
/// tell how many (before Linux 6.2 it says 0).
fn list(first: RawFd, most: RawFd) -> Option<List> {
    let (directory, in_all) = directory()?;
    if in_all > usize::try_from(most).ok()? {
        return None;
    }
    if first > 0 {
        // An entry costs most when it is listed for the first time.
        seek(&directory, first)?;
    }
    let own = directory.as_raw_fd();
    let mut numbers = Vec::new();
    for entry in Dir::from_fd(directory).ok()?.iter() {
        let entry = entry.ok()?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => numbers.push(std::str::from_utf8(name).ok()?.parse().ok()?),
        }
    }
    numbers.retain(|number| *number != own);
    numbers.sort_unstable();
    Some(List { numbers, in_all })
}

/// The directory that lists what is open, and how many that are besides itself.
fn directory() -> Option<(OwnedFd, usize)> {
    let directory = open(c"/proc/thread-self/fd", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let in_all = usize::try_from(fstat(&directory).ok()?.st_size).ok()?.checked_sub(1)?;
    Some((directory, in_all))
}

/// Has the directory list from that number on. The kernel takes a place in it for a number, after
/// the two names that each directory has.
fn seek(directory: &OwnedFd, first: RawFd) -> Option<()> {
    lseek(directory, (first + 2).into(), Whence::SeekSet).ok().map(drop)
}

/// Whether nothing is open from that number on but, maybe, the directory itself.
fn lists_nothing(directory: OwnedFd, first: RawFd) -> bool {
    let own = directory.as_raw_fd().to_string();
    let is_own = |entry: nix::Result<nix::dir::Entry>| entry.is_ok_and(|entry| entry.file_name().to_bytes() == own.as_bytes());
    seek(&directory, first).is_some() && Dir::from_fd(directory).is_ok_and(|mut directory| directory.iter().all(is_own))
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
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_open_is_found_in_a_list_of_the_table_and_by_a_look_at_each_number() {
        // Other tests open and close what is theirs meanwhile.
        let file = fs::File::open("/dev/null").expect("a file");
        let number = file.as_raw_fd();
        let all = Descriptors::open(0);
        assert!(all.is_all && all.closing.contains(&number) && !all.staying.contains(&number));
        assert!(all.closing.is_sorted() && all.staying.is_sorted());
        let Some(list) = list(0, RawFd::MAX) else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        assert!(list.numbers.is_sorted() && list.numbers.contains(&number));
        assert!(super::list(0, 1).is_none(), "a table that is nearly full is looked through");
        drop(file);
    }

    #[test]
    fn descriptors_of_high_numbers_are_found_one_by_one_too() {
        let file = fs::File::open("/dev/null").expect("a file");
        // Beyond the few, on both sides of the place from which on is listed, and far beyond.
        let high: Vec<_> = [FEW - 1, FEW, FEW + 1, 4 * FEW, 700].map(|at| super::super::duplicate(&file, at).expect("a descriptor")).into();
        let open = Descriptors::open(0);
        assert!(open.is_all && open.closing.is_sorted());
        for number in high.iter().map(AsRawFd::as_raw_fd) {
            assert!(open.closing.contains(&number), "{number} is not in {open:?}");
        }
    }

    #[test]
    fn the_kernel_lists_from_a_number_on() {
        let file = fs::File::open("/dev/null").expect("a file");
        let high = super::super::duplicate(&file, 4 * FEW).expect("a descriptor");
        let Some(list) = list(high.as_raw_fd(), RawFd::MAX) else { return eprintln!("SKIPPED: /proc does not tell how many are open") };
        assert_eq!(list.numbers.first(), Some(&high.as_raw_fd()));
    }

    #[test]
    fn a_table_that_is_nearly_full_is_looked_through_up_to_the_last_that_is_open() {
        let file = fs::File::open("/dev/null").expect("a file");
        // With a gap, and one far beyond all others.
        let all: Vec<_> = (100..700).chain([900]).filter_map(|at| super::super::duplicate(&file, at).ok()).collect();
        let Some(last) = all.last().map(AsRawFd::as_raw_fd).filter(|last| *last >= 900) else {
            return eprintln!("SKIPPED: too few allowed");
        };
        let open = Descriptors::open(0);
        assert!(open.is_all && open.closing.is_sorted());
        for number in all.iter().map(AsRawFd::as_raw_fd) {
            assert!(open.closing.contains(&number), "{number} of {last} is not in {open:?}");
        }
        let (directory, _) = directory().expect("a table");
        assert!(lists_nothing(directory, RawFd::MAX / 2));
        let (directory, _) = super::directory().expect("a table");
        assert!(!lists_nothing(directory, last));
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
