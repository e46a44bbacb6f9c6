//! What systemd is told, and what it gives.
//!
//! Knows: the notification protocol, and the environment that socket activation uses. Does not know: why anything is told, or what
//! the sockets are for. Without systemd (no NOTIFY_SOCKET, no LISTEN_FDS) all of it does nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use sd_notify::NotifyState;

use crate::error::Error;
use crate::sys;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// The variables of socket activation.
pub(crate) const LISTEN_VARIABLES: [&str; 3] = [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES];
/// The number of the first socket that is passed.
const FIRST: RawFd = 3;
/// What a predecessor writes into LISTEN_PID: it cannot know the number of the process it is about to start.
const AUTO: &str = "auto";

/// Tells the service manager. That it cannot be reached is worth a warning, and never an end of the service.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot notify systemd: {error}");
    }
}

/// The service serves.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Whether there is a service manager to tell.
pub(crate) fn is_there() -> bool {
    std::env::var_os(NOTIFY_SOCKET).is_some()
}

/// A restart has begun, which may take so long.
pub(crate) fn reloading(limit: Duration) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, longer(limit), NotifyState::Status("restarting")]),
        Err(error) => log::warn!("cannot notify systemd: {error}"),
    }
}

/// How far the restart is.
pub(crate) fn progress(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// The restart has failed, and this process serves on.
pub(crate) fn still_here(why: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(why)]);
}

/// The service is another process from now on. One message, since the manager listens to its main process alone by default.
pub(crate) fn handed_over(to: u32) {
    notify(&[NotifyState::MainPid(to), NotifyState::Ready, NotifyState::Status("")]);
}

/// The service ends, which may take a while.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, longer(2 * EXTENSION)]);
}

/// It has not ended yet, and is at it.
pub(crate) fn still_stopping() {
    notify(&[longer(2 * EXTENSION)]);
}

/// How often the manager is told that the end takes longer. Each time it grants twice that: a loop that hangs is killed.
pub(crate) const EXTENSION: Duration = Duration::from_secs(10);

fn longer(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// Answers, by hanging up, when the manager has taken in all that was told before.
#[derive(Debug)]
pub(crate) struct Barrier(OwnedFd);

/// How long a [`Barrier`] is waited for.
pub(crate) const BARRIER_LIMIT: Duration = Duration::from_secs(5);

impl Barrier {
    /// Asks for the answer; `None` without systemd, or if it cannot be asked.
    pub(crate) fn new() -> Option<Barrier> {
        std::env::var_os(NOTIFY_SOCKET)?;
        let ask = || {
            let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
            sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
            Ok::<_, io::Error>(Barrier(ours))
        };
        ask().map_err(|error| log::warn!("cannot wait for systemd to take the new main process in: {error}")).ok()
    }
}

impl Barrier {
    /// Whether the manager has hung up.
    pub(crate) fn has_answered(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }
}

impl AsFd for Barrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that was passed by socket activation.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) name: String,
    pub(crate) number: RawFd,
}

/// The sockets that were passed to this process. `successor` says whether a predecessor started it: then `auto` means this one.
pub(crate) fn passed(successor: bool) -> Vec<Passed> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let meant_for_us = match std::env::var(LISTEN_PID) {
        Ok(pid) if pid == AUTO => successor,
        Ok(pid) => pid.parse() == Ok(std::process::id()),
        Err(_) => false,
    };
    let count = if meant_for_us { number(LISTEN_FDS).unwrap_or(0) } else { 0 };
    let names = std::env::var(LISTEN_FDNAMES).unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut passed = Vec::new();
    for number in (FIRST..).take(count as usize) {
        // The manual gives this name to a socket without one.
        let name = names.next().unwrap_or("unknown").to_string();
        if sys::identity(number).is_none() {
            log::warn!("{LISTEN_FDS}={count}, but descriptor {number} is not open: it and what comes after it are left out");
            break;
        }
        passed.push(Passed { name, number });
    }
    passed
}

/// The environment that passes sockets of these names on to a successor.
pub(crate) fn pass_on(names: &[String]) -> [(&'static str, OsString); 3] {
    [(LISTEN_PID, AUTO.into()), (LISTEN_FDS, names.len().to_string().into()), (LISTEN_FDNAMES, names.join(":").into())]
}

/// Puts LISTEN_PID right for libraries that take the sockets of systemd by themselves, such as `listenfd`: a predecessor could only
/// write `auto` into it.
///
/// Call it first in `main`: it changes the environment, which is sound only while there is one thread, and is skipped with a debug
/// log when there are more. A program that takes its sockets from [`Sockets`](crate::Sockets) does not need it.
///
/// # Errors
///
/// The number of threads cannot be found out: /proc is not mounted.
pub fn fixup_systemd_env() -> Result<(), Error> {
    if std::env::var(LISTEN_PID).as_deref() != Ok(AUTO) {
        return Ok(());
    }
    let own = OsString::from(std::process::id().to_string());
    if !sys::set_variable_if_alone(LISTEN_PID, &own).map_err(Error::os("cannot count the threads of this process"))? {
        log::debug!("{LISTEN_PID}=auto is left as it is: other threads run already");
    }
    Ok(())
}
