//! What a successor gets of the descriptors of this process, and what is closed in it before its
//! program is executed.
//!
//! Knows: what is open at the moment of the start, and what a successor is given. Does not know:
//! what any of it is for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use crate::config::{Launch, Program};
use crate::sys::{self, Descriptors};

use super::Job;

/// The first number that is no standard stream.
const FIRST: RawFd = 3;
/// The first number that a shell script cannot name a descriptor of its own by: a wrapper may stand
/// between.
const BEYOND_DIGITS: RawFd = 10;
/// So many numbers beyond the lifeline's are looked at where nothing tells how many there are. The
/// lifeline has the lowest one that was free.
const BEYOND: RawFd = 512;
/// So many descriptors are named in a warning.
const NAMED: usize = 5;

/// What becomes of the descriptors of this process in a successor.
#[derive(Debug)]
pub(super) struct Fate {
    /// The number that the successor knows its lifeline by: above all that it gets if it can be, so
    /// that all beyond is closed in one go.
    pub(super) lifeline: RawFd,
    /// Closed before anything holds the start up, in rising order.
    pub(super) closed: Vec<RawFd>,
    /// From this number on the successor needs nothing, if all that is open is known.
    pub(super) closed_from: Option<RawFd>,
    /// They go to the successor although they are not CLOEXEC and this crate does not pass them.
    pub(super) staying: Vec<RawFd>,
    /// How many are open here.
    pub(super) open: usize,
}

impl Fate {
    /// As things stand. What another thread opens after that, or closes and opens again under the
    /// same number, is not known: where nothing goes along but what is needed, each number in reach
    /// is closed, open or not.
    pub(super) fn now(launch: &Launch, program: &Program, job: &Job) -> Fate {
        let guess = job.lifeline.as_raw_fd().saturating_add(BEYOND);
        let Descriptors { closing, staying, is_all } = Descriptors::open(guess);
        let open = closing.len() + staying.len();
        let passed: Vec<RawFd> = job.passed.iter().map(|(.., number)| *number).collect();
        // A script is opened by its interpreter, after that was executed.
        let named: Vec<RawFd> = [Some(&*program.path), launch.directory()].into_iter().flatten().filter_map(sys::named_by).collect();
        let goes = |number: &RawFd| *number < FIRST || launch.inherit_descriptors;
        let staying: Vec<_> = staying.into_iter().filter(|number| !passed.contains(number) && goes(number)).collect();
        let highest = staying.iter().chain(&passed).chain(&named).copied().max().unwrap_or(0).max(FIRST - 1);
        let own = job.lifeline.as_raw_fd();
        // Its own number is one that this process may have: there can be a limit.
        let lifeline = if is_all { (highest + 1).max(BEYOND_DIGITS).min(own) } else { own };
        let is_needed = |number: &RawFd| *number == lifeline || passed.contains(number) || named.contains(number);
        let closed_from = is_all.then_some(highest.max(lifeline) + 1);
        let mut closed = closing;
        if !launch.inherit_descriptors {
            // The standard streams go along unless they are CLOEXEC.
            closed.retain(|number| *number < FIRST);
            closed.extend(FIRST..sys::descriptor_table_size().unwrap_or(guess));
        }
        closed.retain(|number| !is_needed(number));
        let staying = staying.into_iter().filter(|number| *number >= FIRST).collect();
        Fate { lifeline, closed, closed_from, staying, open }
    }

    /// What is given under which number: sockets of systemd first, since the number of the lifeline
    /// may be that of one of them here.
    pub(super) fn inherited<'a>(&self, job: &'a Job) -> Vec<(BorrowedFd<'a>, RawFd)> {
        let passed = job.passed.iter().map(|(_, socket, number)| (socket.as_fd(), *number));
        passed.chain([(job.lifeline.as_fd(), self.lifeline)]).collect()
    }

    /// Says so if a successor gets more than this process has got.
    pub(super) fn warn_of_growth(&self, launch: &Launch) {
        if self.staying.len() <= launch.inherited_descriptors {
            return;
        }
        let names: Vec<_> = self.staying.iter().rev().take(NAMED).map(|number| name(*number)).collect();
        let more = if self.staying.len() > NAMED { ", …" } else { "" };
        log::warn!(
            target: "pollflip",
            "{} descriptors beside the standard streams go to the successor because they are not CLOEXEC, and this process was born with {}: \
             each of them stays open from generation to generation, and so does the connection or file behind it: {}{more}; open them with \
             O_CLOEXEC (SOCK_CLOEXEC), or have RestartConfig::inherit_descriptors(false) close them",
            self.staying.len(),
            launch.inherited_descriptors,
            names.join(", ")
        );
    }
}

/// How many descriptors this process would pass on now.
pub(super) fn uncloexec() -> usize {
    Descriptors::open(BEYOND).staying.into_iter().filter(|number| *number >= FIRST).count()
}

fn name(number: RawFd) -> String {
    match sys::name_of(number) {
        Some(path) => format!("{number} ({})", public_name(&path)),
        None => number.to_string(),
    }
}

/// On one line.
fn public_name(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::sync::Arc;

    use crate::config::RestartConfig;
    use crate::machine::Attempt;

    use super::*;

    /// Where the numbers stand that a successor must not get, and the fate of all.
    fn fate(inherit: bool) -> (BTreeSet<RawFd>, Fate) {
        let launch = RestartConfig::new().inherit_descriptors(inherit).launch().expect("a launch");
        let lifeline = Arc::new(File::open("/dev/null").expect("a file").into());
        let job = Job { attempt: Attempt(1), lifeline, passed: Vec::new() };
        let fate = Fate::now(&launch, launch.program.as_ref().expect("a program"), &job);
        (fate.closed.iter().copied().collect(), fate)
    }

    #[test]
    fn what_is_opened_after_the_look_is_closed_where_nothing_goes_along() {
        let (closed, fate) = fate(false);
        let first = fate.closed_from.expect("a table of descriptors");
        // Many of these are not open now, and another thread may open them until the start.
        let left: Vec<_> = (FIRST..first.max(64)).filter(|number| !closed.contains(number)).collect();
        assert_eq!(left, [fate.lifeline]);
        assert!(fate.closed.is_sorted());
    }

    #[test]
    fn what_goes_along_is_not_closed() {
        // Other tests open files meanwhile, CLOEXEC as std has it.
        let file = File::open("/dev/null").expect("a file");
        let number = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(100)).expect("a descriptor");
        let (closed, fate) = fate(true);
        assert!(fate.staying.contains(&number) && !closed.contains(&number), "{fate:?}");
        assert!(fate.closed_from.is_some_and(|first| first > number));
        nix::unistd::close(number).expect("it is open");
    }
}
