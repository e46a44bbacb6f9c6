//! What systemd is told, and what it gives.
//!
//! Knows: the notification protocol, and the environment that socket activation uses. Does not know: why anything is told, or what
//! the sockets are for. Without systemd (no NOTIFY_SOCKET, no LISTEN_FDS) all of it does nothing.

mod environment;
mod manager;
mod unit;

use std::ffi::OsString;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};

use crate::error::Error;
use crate::notify::{LAST_END, STRIKES};
use crate::sys::{self, PerProcess};
use crate::wire::{self, LIFELINE_VARIABLE, Place};

pub(crate) use environment::{GUARDED, NOTIFY_SOCKET, guard, handed_down};
pub(crate) use manager::{Barrier, EXTENSION, Notifier, begin_anew, is_there, ready};

pub(crate) const LISTEN_PID: &str = "LISTEN_PID";
pub(crate) const LISTEN_FDS: &str = "LISTEN_FDS";
pub(crate) const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// What newer versions set beside [`LISTEN_PID`]: the process by its pidfd. The library of systemd takes no sockets if that is another one.
const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";
/// The variables that are about one process, and not handed down as they are: those of socket activation, and the one by which a program
/// knows whether the watchdog is waiting for it. Without it, that is each process that reads WATCHDOG_USEC.
pub(crate) const FOR_ONE_PROCESS: [&str; 7] = [LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES, "WATCHDOG_PID", LAST_END, STRIKES];
/// The number of the first socket that is passed.
pub(crate) const FIRST_PASSED: RawFd = 3;
/// What a predecessor writes into LISTEN_PID: it cannot know the number of the process it is about to start.
const AUTO: &str = "auto";

/// Whether this process is a service whose manager does not listen to it, and would end it with this process.
pub(crate) fn is_deaf() -> bool {
    unit::is_deaf(manager::listens())
}

/// Whether the guard above this process cannot be told anything, and would end the service with this process.
pub(crate) fn guard_is_deaf() -> bool {
    unit::guard_is_deaf(manager::listens)
}

/// Whether there is a manager that knows processes by other numbers than this process does.
pub(crate) fn numbers_differ() -> bool {
    is_there() && unit::numbers_differ()
}

/// A socket that was passed by socket activation.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) name: String,
    pub(crate) number: RawFd,
}

/// The sockets that were passed to this process. `successor` says whether a predecessor started it: then `auto` means this one.
///
/// A process with more rights than its caller (setuid, capabilities of its file) takes a socket
/// only if root has made it, unless a proven predecessor passes it. A caller without rights has no
/// such socket, except one that a service manager has given it.
pub(crate) fn passed(successor: bool) -> Vec<Passed> {
    let meant_for_us = match std::env::var(LISTEN_PID) {
        Ok(pid) if pid == AUTO => successor,
        Ok(pid) if pid.parse() == Ok(std::process::id()) => true,
        // What is not said to be this process's, or to be another's, is judged and told once.
        other => *TAKES_UNADDRESSED.get().get_or_init(|| !successor && takes_unaddressed(other.ok())),
    };
    let count = if meant_for_us { count() } else { 0 };
    let names = std::env::var(LISTEN_FDNAMES).unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in (FIRST_PASSED..).take(count as usize) {
        // The manual gives this name to a socket without one.
        let name = names.next().filter(|name| wire::check_name(name).is_ok()).unwrap_or("unknown").to_string();
        if sys::identity(number).is_none() {
            log::warn!(target: "pollflip", "{LISTEN_FDS}={count}, but descriptor {number} is not open: it and the rest are left out");
            break;
        }
        if is_our_own(number) {
            log::warn!(target: "pollflip", "{LISTEN_FDS}={count}, but descriptor {number} was not passed: it and the rest are left out");
            break;
        }
        if sys::has_gained_rights() && !successor && !is_of_root(number) {
            log::warn!(
                target: "pollflip",
                "socket {name:?} of {LISTEN_FDS} is left alone: this process has rights that its caller need not have, and root has not made that \
                 socket: have it passed by a service manager that is root, or give the process its capabilities by AmbientCapabilities= and not \
                 by its file"
            );
            continue;
        }
        passed.push(Passed { name, number });
    }
    passed
}

/// Whether this process takes sockets that no number says are its own.
static TAKES_UNADDRESSED: PerProcess<OnceLock<bool>> = PerProcess::new(OnceLock::new);

/// The same, with a word on what is not taken. Without a number (a runner in development that has something between leaves it away) it is
/// safe where each of them is a socket that somebody has bound and passed: nothing that this process has opened, and no connection.
fn takes_unaddressed(addressee: Option<String>) -> bool {
    let Some(count) = std::env::var_os(LISTEN_FDS).map(|_| count()).filter(|count| *count > 0) else { return false };
    let own = std::process::id();
    let why = match addressee {
        Some(pid) => format!("{LISTEN_PID}={pid} is another process than this one ({own})"),
        None if sys::has_gained_rights() => format!("there is no {LISTEN_PID}, and this process has rights that its caller need not have"),
        None => match (FIRST_PASSED..).take(count as usize).find(|number| !was_passed_bound(*number)) {
            Some(number) => format!("there is no {LISTEN_PID}, and descriptor {number} is no bound socket that was passed"),
            None => {
                log::info!(target: "pollflip", "{LISTEN_FDS}={count} without {LISTEN_PID}: they are taken, since all are bound sockets");
                return true;
            }
        },
    };
    log::warn!(
        target: "pollflip",
        "{LISTEN_FDS}={count}, but {why}: none is taken; what starts this process must set {LISTEN_PID} to {own}, or leave it away and \
         pass bound sockets from descriptor {FIRST_PASSED} on"
    );
    false
}

/// Whether it is a socket with an address and without a peer that this process was born with.
fn was_passed_bound(number: RawFd) -> bool {
    sys::peek(number, |fd| {
        let flags = fcntl(fd, FcntlArg::F_GETFD).map_or(FdFlag::FD_CLOEXEC, FdFlag::from_bits_retain);
        let address = getsockname::<SockaddrStorage>(fd.as_raw_fd());
        // An unnamed unix socket has an address of the family alone.
        let is_bound = address.is_ok_and(|address| match address.as_unix_addr() {
            Some(address) => sys::is_named(address),
            None => true,
        });
        !flags.contains(FdFlag::FD_CLOEXEC) && is_bound && getpeername::<SockaddrStorage>(fd.as_raw_fd()) == Err(Errno::ENOTCONN)
    })
    .unwrap_or(false)
}

/// How many were passed, as is said.
fn count() -> u32 {
    let Some(text) = std::env::var_os(LISTEN_FDS) else { return 0 };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        log::warn!(
            target: "pollflip",
            "{LISTEN_FDS}={text:?} is no count of sockets: none is taken; what starts this process must set it right"
        );
        0
    })
}

/// Whether this process has opened it: what is passed is born without CLOEXEC, and a library that takes sockets may have set that since.
fn is_our_own(number: RawFd) -> bool {
    sys::peek(number, |fd| {
        let flags = fcntl(fd, FcntlArg::F_GETFD).map_or(FdFlag::empty(), FdFlag::from_bits_retain);
        flags.contains(FdFlag::FD_CLOEXEC) && getsockopt(&fd, sockopt::SockType).is_err()
    })
    .unwrap_or(false)
}

/// Whether it is a socket that root has made, and that nobody is at the other end of. The kernel
/// keeps the user who has made a socket as the owner of its inode.
fn is_of_root(number: RawFd) -> bool {
    sys::peek(number, |fd| {
        let is_socket = |mode| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
        fstat(fd).is_ok_and(|found| is_socket(found.st_mode) && found.st_uid == 0)
            && getpeername::<SockaddrStorage>(fd.as_raw_fd()) == Err(Errno::ENOTCONN)
    })
    .unwrap_or(false)
}

/// The environment that passes sockets of these names on to a successor.
pub(crate) fn pass_on(names: &[String]) -> [(&'static str, OsString); 3] {
    [(LISTEN_PID, AUTO.into()), (LISTEN_FDS, names.len().to_string().into()), (LISTEN_FDNAMES, names.join(":").into())]
}

/// Writes the number of this process into LISTEN_PID, for libraries that take the sockets of systemd
/// themselves, such as `listenfd`. A predecessor does not know the number of its successor, and writes
/// `auto`.
///
/// Call it first in `main`. It changes the environment, which is sound only while there is one thread:
/// with more threads it does nothing and says so in a debug log. It does the same in a process that
/// no predecessor has started and that has only inherited the environment of one. A program that
/// takes its sockets from [`Sockets`](crate::Sockets) does not need it.
///
/// # Errors
///
/// The number of threads cannot be found out: /proc is not mounted.
pub fn fixup_systemd_env() -> Result<(), Error> {
    if std::env::var(LISTEN_PID).as_deref() != Ok(AUTO) {
        return Ok(());
    }
    if !has_lifeline() {
        log::debug!("{LISTEN_PID}=auto is left as it is: no predecessor has started this process");
        return Ok(());
    }
    let own = OsString::from(std::process::id().to_string());
    if !sys::set_variable_if_alone(LISTEN_PID, &own).map_err(Error::os("cannot count the threads of this process"))? {
        log::debug!("{LISTEN_PID}=auto is left as it is: other threads run already");
    }
    Ok(())
}

/// Whether the descriptor is here that a predecessor names in the environment of its successor: a helper has the variable alone.
fn has_lifeline() -> bool {
    let place = std::env::var(LIFELINE_VARIABLE).ok().and_then(|text| Place::parse(&text));
    place.is_some_and(|place| sys::identity(place.number) == Some(place.identity))
}
