//! Telling the service manager, without ever waiting for it.
//!
//! Knows: what is to be told at which step. Does not know: when a step comes. sd-notify words the messages; they are sent from here, since
//! its own way of sending waits when the manager is busy, and the loop must not.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::libc;
use sd_notify::NotifyState;

use crate::sys::{self, PerProcess};
use crate::wire;

use super::environment::{NOTIFY_SOCKET, believed};
use super::unit::warn_of_deafness;

/// How often the manager is told that the end takes longer. Each time it is asked for twice that: a loop that hangs is killed.
pub(crate) const EXTENSION: Duration = Duration::from_secs(10);
/// How soon a message that the manager had no room for is sent again: a socket has room for ten, and a guard has read them by then.
const RETRY: Duration = Duration::from_micros(500);
/// How soon it is if the manager has read nothing meanwhile, again and again.
const LONGEST_RETRY: Duration = Duration::from_millis(20);

/// Whether there is a service manager to tell.
pub(crate) fn is_there() -> bool {
    address().is_some()
}

/// Whether the manager can be told anything: it may have been named wrongly.
pub(crate) fn listens() -> bool {
    let Some(address) = address() else { return false };
    let connected = socket().map(|socket| sys::manager_address(&address).and_then(|address| socket.connect_addr(&address)));
    // Without a socket to try with that is not known.
    connected.is_err() || connected.is_ok_and(|result| result.is_ok())
}

/// What the manager had no room for when the service became ready: the [`Notifier`] sends it, before anything else. A forked child owes it
/// nothing.
static READY_UNSENT: PerProcess<AtomicBool> = PerProcess::new(AtomicBool::default);

/// The service serves, for the first time: whichever thread says so, and whether or not there is a loop.
pub(crate) fn ready() {
    warn_of_deafness(is_there());
    READY_UNSENT.get().store(send_ready().is_err(), Ordering::Release);
}

/// A test goes on as another process would begin.
pub(crate) fn begin_anew() {
    READY_UNSENT.get().store(false, Ordering::Release);
}

/// An error: the manager is busy.
fn send_ready() -> io::Result<()> {
    match send(&Waiting { text: worded(&[NotifyState::Ready]), descriptors: Vec::new() }) {
        Err(error) if has_to_wait(&error) => return Err(error),
        Err(error) => unreachable_manager(&error),
        Ok(()) => {}
    }
    Ok(())
}

/// What the service manager has yet to be told.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    /// The manager knows processes by other numbers: it is told none.
    names_nobody: bool,
    waiting: VecDeque<Waiting>,
    tried: Option<Instant>,
    /// How soon it is tried again.
    retry: Duration,
}

#[derive(Debug)]
struct Waiting {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Notifier {
    pub(crate) fn new(names_nobody: bool) -> Notifier {
        Notifier { names_nobody, ..Notifier::default() }
    }

    /// A restart has begun, which may take so long, and then a while to end one that hangs.
    pub(crate) fn reloading(&mut self, limit: Duration) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.tell(&[NotifyState::Reloading, now, longer(limit.saturating_add(EXTENSION)), NotifyState::Status("restarting")])
            }
            Err(error) => log::warn!(target: "pollflip", "cannot read the clock for systemd: {error}"),
        }
    }

    /// How far the restart is. What comes while the manager is busy is left out: there will be more.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.waiting.is_empty() {
            self.tell(&[NotifyState::Status(&wire::line(text))]);
        }
    }

    /// The restart has failed, and this process keeps serving.
    pub(crate) fn still_here(&mut self, why: &str) {
        // A path can have line breaks in it, and what follows one would be a message of its own.
        self.tell(&[NotifyState::Ready, NotifyState::Status(&wire::line(why))]);
    }

    /// The service is another process from now on. One message, since the manager listens to its main process alone by default.
    pub(crate) fn handed_over(&mut self, to: u32) {
        let state = [NotifyState::MainPid(to), NotifyState::Ready, NotifyState::Status("")];
        self.tell(if self.names_nobody { &state[1..] } else { &state });
    }

    /// The service ends, which may take a while.
    pub(crate) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, longer(2 * EXTENSION)]);
    }

    /// It has not ended yet, and is at it.
    pub(crate) fn still_stopping(&mut self) {
        self.tell(&[longer(2 * EXTENSION)]);
    }

    /// Asks for a sign that all of this has been taken in; `None` without a manager, or if it cannot be asked.
    pub(crate) fn barrier(&mut self) -> Option<Barrier> {
        address()?;
        match sys::may_fail(&[libc::EMFILE, libc::ENFILE]).and_then(|()| sys::pipe(true)) {
            Ok((ours, theirs)) => {
                self.queue(Waiting { text: "BARRIER=1".into(), descriptors: vec![theirs] });
                Some(Barrier(ours))
            }
            Err(error) => {
                log::warn!(target: "pollflip", "cannot wait for systemd to take the new main process in: {error}");
                None
            }
        }
    }

    fn tell(&mut self, state: &[NotifyState<'_>]) {
        self.queue(Waiting { text: worded(state), descriptors: Vec::new() });
    }

    /// Sends a message that goes with descriptors, or is about such.
    pub(crate) fn send(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        self.queue(Waiting { text, descriptors });
    }

    fn queue(&mut self, message: Waiting) {
        if is_there() {
            self.waiting.push_back(message);
            self.flush();
        }
    }

    /// Sends what can be sent. Says whether something still waits.
    pub(crate) fn flush(&mut self) -> bool {
        if READY_UNSENT.get().load(Ordering::Acquire) {
            if send_ready().is_err() {
                return self.wait(false);
            }
            READY_UNSENT.get().store(false, Ordering::Release);
        }
        let before = self.waiting.len();
        while let Some(first) = self.waiting.front() {
            match send(first) {
                Err(error) if has_to_wait(&error) => return self.wait(self.waiting.len() < before),
                Err(error) => unreachable_manager(&error),
                Ok(()) => {}
            }
            self.waiting.pop_front();
        }
        self.tried = None;
        false
    }

    /// Something still waits. `was_room`: some of it was sent.
    fn wait(&mut self, was_room: bool) -> bool {
        self.retry = if was_room || self.tried.is_none() { RETRY } else { (self.retry * 2).min(LONGEST_RETRY) };
        self.tried = Some(sys::now());
        true
    }

    /// How long until [`Notifier::flush`] is needed.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.tried.map(|tried| self.retry.saturating_sub(sys::now() - tried))
    }
}

/// Answers, by hanging up, when the manager has taken in all that was told before.
#[derive(Debug)]
pub(crate) struct Barrier(OwnedFd);

impl Barrier {
    /// Whether the manager has hung up.
    pub(crate) fn has_answered(&self) -> bool {
        sys::is_readable_within(&self.0, Duration::ZERO)
    }
}

impl AsFd for Barrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// As it was when the first restarter of this process was built: what else tells the manager that the service is ready may take the variable
/// away at once.
fn address() -> Option<OsString> {
    static ADDRESS: PerProcess<Option<OsString>> = PerProcess::new(|| believed(NOTIFY_SOCKET));
    let known = || ADDRESS.get().clone();
    sys::simulation::manager().unwrap_or_else(known).filter(|address| !address.is_empty())
}

fn socket() -> io::Result<UnixDatagram> {
    sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS])?;
    UnixDatagram::unbound()
}

fn send(message: &Waiting) -> io::Result<()> {
    let Some(address) = address() else { return Ok(()) };
    let socket = socket()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&sys::manager_address(&address)?)?;
    let descriptors: Vec<_> = message.descriptors.iter().map(AsFd::as_fd).collect();
    sys::send(&socket, message.text.as_bytes(), &descriptors)
}

fn worded(state: &[NotifyState<'_>]) -> String {
    state.iter().map(|state| format!("{state}\n")).collect()
}

fn longer(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// The manager is busy, this process has no descriptor or memory left for a moment, or too many descriptors of this user are on their way
/// between processes for that of a barrier.
fn has_to_wait(error: &io::Error) -> bool {
    const WAIT: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS];
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error().is_some_and(|number| WAIT.contains(&number))
}

/// That the manager cannot be reached is worth a warning, and never an end of the service.
fn unreachable_manager(error: &io::Error) {
    log::warn!(target: "pollflip", "cannot notify systemd at {NOTIFY_SOCKET}={:?}: {error}", address().unwrap_or_default());
}
