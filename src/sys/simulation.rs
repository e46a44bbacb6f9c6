//! A system that a test plays, for the thread that wants one: time, the processes that this thread starts, and calls that fail.
//!
//! Knows: what the rest of this room asks the kernel for. Does not know: what it is asked for. Threads without a simulation have the real
//! system, and what users build has no other: there [`POSSIBLE`] is false, and all of this comes to nothing.
//!
//! A call can be made to fail where it stands ([`may_fail`]), be it outside of this room: what fails there is a library's (mio's, nix's,
//! that of the signals), and to wrap each of them here would be more than it hides.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::time::{Duration, Instant};

use nix::libc;

use crate::error::Exit;

use super::pipe;

/// Whether this build has simulations.
const POSSIBLE: bool = cfg!(any(test, all(feature = "simulation", debug_assertions)));
/// Above the numbers that the kernel gives to processes.
const FIRST_PID: u32 = 1 << 30;

thread_local! {
    static SYSTEM: RefCell<Option<System>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct System {
    began: Instant,
    passed: Duration,
    children: Vec<Child>,
    /// What keeps the next children from being started.
    obstacle: Option<i32>,
    /// In how many calls one fails, and with which of the errors it can fail with.
    fault: Option<(u32, usize)>,
    struck: Vec<Struck>,
    /// A write of these many bytes finds no room: they are what is left of one.
    full: Option<usize>,
    /// Where the service manager listens.
    manager: Option<OsString>,
    /// What this process was born with.
    lifeline: Option<OwnedFd>,
}

/// A process that is none.
#[derive(Debug)]
struct Child {
    pid: u32,
    /// What stands for its pidfd, and what makes that one readable when it is closed.
    pidfd: OwnedFd,
    life: Option<OwnedFd>,
    lifeline: Option<OwnedFd>,
    exit: Exit,
    undying: bool,
    killed: bool,
    reaped: bool,
}

/// What a test can see of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its process id.
    pub pid: u32,
    /// SIGKILL has been sent to it.
    pub killed: bool,
    /// It has ended,
    pub ended: bool,
    /// in this way.
    pub exit: Exit,
    /// Somebody has been told how.
    pub reaped: bool,
}

/// A call that has failed because a test wanted it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Struck {
    /// Where it is made,
    pub file: &'static str,
    /// in which line.
    pub line: u32,
    /// What it has failed with.
    pub error: i32,
}

/// While it lives, the thread that made it has a system of its own.
#[derive(Debug)]
pub struct Simulation(());

impl Simulation {
    /// Begins one. `lifeline`: what this process was born with; `manager`: where its service manager listens, if it has one.
    ///
    /// # Panics
    ///
    /// But for unit tests, there are none without `tests/simulated` and in a release build; a thread has one at a time.
    pub fn new(lifeline: Option<OwnedFd>, manager: Option<OsString>) -> Simulation {
        if !POSSIBLE {
            panic!("this build has no simulations");
        }
        let system = System {
            began: Instant::now(),
            passed: Duration::ZERO,
            children: Vec::new(),
            obstacle: None,
            fault: None,
            struck: Vec::new(),
            full: None,
            manager,
            lifeline,
        };
        assert!(SYSTEM.replace(Some(system)).is_none(), "this thread has a simulation already");
        Simulation(())
    }

    /// Lets time pass. What has set a timer has yet to hear of it.
    pub fn pass(&self, time: Duration) {
        with(|system| system.passed = system.passed.saturating_add(time));
    }

    /// How much has passed since it began: by [`pass`](Simulation::pass), or in calls that wait.
    pub fn passed(&self) -> Duration {
        with(|system| system.passed).unwrap_or_default()
    }

    /// After so many more calls that can fail one does, with one of the errors that the system has for it.
    pub fn fail_after(&self, calls: u32, which: usize) {
        with(|system| system.fault = Some((calls, which)));
    }

    /// From now on none fails.
    pub fn calm(&self) {
        with(|system| system.fault = None);
    }

    /// Those that have failed.
    pub fn struck(&self) -> Vec<Struck> {
        with(|system| system.struck.clone()).unwrap_or_default()
    }

    /// Some have in an earlier one, which this one goes on from.
    pub fn remember(&self, earlier: Vec<Struck>) {
        with(|system| system.struck = earlier);
    }

    /// From now on nothing can be started, for that reason; `None`: it can.
    pub fn obstruct(&self, errno: Option<i32>) {
        with(|system| system.obstacle = errno);
    }

    /// The children in the order of their births.
    pub fn children(&self) -> Vec<Seen> {
        let seen = |child: &Child| {
            let &Child { pid, killed, reaped, exit, .. } = child;
            Seen { pid, killed, ended: child.life.is_none(), exit, reaped }
        };
        with(|system| system.children.iter().map(seen).collect()).unwrap_or_default()
    }

    /// What a child was born with: it has been closed, or taken before, if it is `None`.
    pub fn lifeline(&self, pid: u32) -> Option<OwnedFd> {
        with_child(pid, |child| child.lifeline.take()).flatten()
    }

    /// A child ends.
    pub fn exit(&self, pid: u32, exit: Exit) {
        with_child(pid, |child| child.end(exit));
    }

    /// A child does not die of SIGKILL, or does again: then of one that came before, too.
    pub fn undying(&self, pid: u32, undying: bool) {
        with_child(pid, |child| {
            child.undying = undying;
            if !undying && child.killed {
                child.end(Exit::Signal(libc::SIGKILL));
            }
        });
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        SYSTEM.set(None);
    }
}

impl Child {
    fn end(&mut self, exit: Exit) {
        if self.life.take().is_some() {
            self.exit = exit;
            self.lifeline = None;
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        if !self.undying {
            self.end(Exit::Signal(libc::SIGKILL));
        }
    }
}

fn with<T>(what: impl FnOnce(&mut System) -> T) -> Option<T> {
    if !POSSIBLE {
        return None;
    }
    // At the end of a thread it may be gone before what asks for it.
    SYSTEM.try_with(|system| system.borrow_mut().as_mut().map(what)).ok().flatten()
}

fn with_child<T>(pid: u32, what: impl FnOnce(&mut Child) -> T) -> Option<T> {
    with(|system| system.children.iter_mut().find(|child| child.pid == pid).map(what)).flatten()
}

/// Whether this thread has a simulation.
pub(crate) fn is_simulated() -> bool {
    with(|_| ()).is_some()
}

/// The time.
pub(crate) fn now() -> Instant {
    with(|system| system.began + system.passed).unwrap_or_else(Instant::now)
}

/// What this process was born with, if that is for a test to say.
pub(crate) fn born_with() -> Option<Option<OwnedFd>> {
    with(|system| system.lifeline.take())
}

/// Where the service manager listens, if that is for a test to say.
pub(crate) fn manager() -> Option<Option<OsString>> {
    with(|system| system.manager.clone())
}

/// A wait of so long comes now. In a simulation it is over: time has passed. `false`: there is none.
pub(crate) fn has_waited(time: Duration) -> bool {
    with(|system| system.passed = system.passed.saturating_add(time)).is_some()
}

/// A call that can fail with these errors comes now; a test may want it to.
#[track_caller]
pub(crate) fn may_fail(errors: &[i32]) -> io::Result<()> {
    let caller = Location::caller();
    let failed = with(|system| match &mut system.fault {
        Some((0, which)) => {
            let error = errors[*which % errors.len()];
            system.fault = None;
            system.struck.push(Struck { file: caller.file(), line: caller.line(), error });
            Some(error)
        }
        Some((left, _)) => {
            *left -= 1;
            None
        }
        None => None,
    });
    failed.flatten().map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
}

/// These bytes are to be written to a stream. How many of them there is room for: all, or in a simulation one, and for the rest when the
/// other side has read that one, as an epoll then tells.
pub(crate) fn writable_part(bytes: &[u8]) -> io::Result<&[u8]> {
    if with(|system| system.full.take() == Some(bytes.len())) == Some(true) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    match may_fail(&[libc::EPIPE, libc::ENOBUFS, libc::EAGAIN]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && bytes.len() > 1 => {
            with(|system| system.full = Some(bytes.len() - 1));
            Ok(&bytes[..1])
        }
        result => result.map(|()| bytes),
    }
}

/// A child is started that has this lifeline.
pub(super) fn spawn(lifeline: Option<BorrowedFd<'_>>) -> Option<io::Result<u32>> {
    with(|system| {
        if let Some(errno) = system.obstacle {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let (pidfd, life) = pipe(false)?;
        let pid = FIRST_PID + system.children.len() as u32;
        let lifeline = lifeline.map(|lifeline| lifeline.try_clone_to_owned()).transpose()?;
        let exit = Exit::Unknown;
        system.children.push(Child { pid, pidfd, life: Some(life), lifeline, exit, undying: false, killed: false, reaped: false });
        Ok(pid)
    })
}

/// A pidfd.
pub(super) fn open(pid: u32) -> Option<io::Result<OwnedFd>> {
    with_child(pid, |child| child.pidfd.as_fd().try_clone_to_owned())
}

/// SIGKILL; `None`: there is no such child.
pub(super) fn kill(pid: u32) -> Option<()> {
    with_child(pid, Child::kill)
}

/// Reaps it if it has ended.
pub(super) fn try_wait(pid: u32) -> Option<Option<Exit>> {
    with_child(pid, |child| {
        let first = child.life.is_none() && !std::mem::replace(&mut child.reaped, child.life.is_none());
        child.life.is_none().then_some(if first { child.exit } else { Exit::Unknown })
    })
}

/// The end of a child is waited for: time passes, or the child ends.
pub(super) fn wait(pid: u32, limit: Duration) -> Option<()> {
    let lives = with_child(pid, |child| child.life.is_some())?;
    match limit {
        Duration::MAX => with_child(pid, |child| child.end(Exit::Signal(libc::SIGKILL))),
        _ if lives => with(|system| system.passed = system.passed.saturating_add(limit)),
        _ => Some(()),
    }
}
