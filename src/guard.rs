//! A pid that stays: a small process that starts the service, and lives as long as any generation
//! of it does.
//!
//! A container ends with the process that it was started with. runit, s6, supervisord, foreman and
//! a terminal know one pid. A service that replaces itself has another pid after each restart. The
//! guard is the pid that they know: it passes signals on, takes orphans in, and ends as the last
//! generation of the service did. It speaks the part of a manager in systemd's notify protocol, so
//! that a program needs nothing but what it has for systemd.
//!
//! ```no_run
//! use pollflip::guard::Guard;
//!
//! fn main() -> std::process::ExitCode {
//!     use std::process::{ExitCode, Termination};
//!     match Guard::from_env().and_then(Guard::enter) {
//!         // This process was the guard.
//!         Ok(Some(ended)) => return ended.report(),
//!         // This process is the service.
//!         Ok(None) => {}
//!         Err(error) => {
//!             eprintln!("{error}");
//!             return ExitCode::FAILURE;
//!         }
//!     }
//!     // … the service …
//!     ExitCode::SUCCESS
//! }
//! ```
//!
//! The program `pollflip` of this crate does the same for a service whose source stays as it is:
//! `pollflip guard -- PROGRAM ARGUMENT…`.
//!
//! # What it does
//!
//! - It forks and executes the service, a process of its own, with the environment, the signal mask
//!   and the descriptors that the guard was started with.
//! - Signals that are sent to the guard go on to the main process. SIGTERM, SIGINT and SIGQUIT tell
//!   the service to end: all generations that live are sent them, and so is each process that
//!   becomes the main process later. What a terminal sends to the guard and the service alike is
//!   not sent twice.
//! - Without a terminal, or in its background, the service has a process group of its own: who
//!   signals the group of the guard signals the guard alone. In the foreground of a terminal both
//!   are one job, and who signals the group reaches the service twice: signal the guard.
//! - A service that is stopped (SIGSTOP) has not ended. What it is sent waits until it goes on, and
//!   SIGCONT that is sent to the guard goes on to it like other signals.
//! - When the main process ends in the middle of a restart, the guard waits until the successor
//!   names itself. When the main process ends at another time, the guard sends SIGTERM to the
//!   processes that it has left behind, and SIGKILL after 5 s. That ends a program which puts itself
//!   into the background: start it in the foreground.
//! - Then the [`Policy`] says whether the guard starts the service again. It is started by the same
//!   path, even if the file there is broken: [strikes](Guard::strikes) set a limit to that.
//! - What the service stores (FDSTORE) the guard keeps while the service is dead, and gives it to
//!   the next start, as systemd does: sockets from number 3 on, by name. What has hung up goes.
//!   When the guard is told to end, or starts the service no more, the store is emptied. The next
//!   start also learns how the service has ended before, and how many strikes there are.
//! - The guard ends when no generation is left: with the status of the last one, or by the same
//!   signal. PID 1 cannot die of a signal, and ends with 128 and its number.
//! - Before Linux 6.15 only the parent of a process learns how it ended. The parent of the last
//!   generation is the one before, as long as that lives. If its program ignores SIGCHLD or reaps
//!   every child, the guard never learns the status: it takes that end for a failure, unless the
//!   guard was told to end.
//! - Each generation is sent SIGTERM when the guard is killed: see
//!   [`Restarter::ready`](crate::Restarter::ready). It knows the guard by `POLLFLIP_GUARDED`, the
//!   process id of the guard, in its environment. Of a program without this crate, the process that
//!   the guard has started is sent SIGTERM; its successors go on.
//!
//! Under a real service manager (NOTIFY_SOCKET is set), the guard passes on to it what the service
//! says. It keeps back what concerns the guard alone: MAINPID, BARRIER and stored descriptors. The
//! unit needs `KillMode=mixed`.
//!
//! Knows: the order of a guard's life, and its settings. Does not know: what the service is for.

mod command;
mod driver;
mod family;
mod generations;
mod inbox;
mod manager;
mod store;
mod strays;

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::{self, ExitCode, Termination};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Exit};
use crate::machine::supervision::{Rules, Strikes};
use crate::sys;
use crate::systemd;
use crate::wire::LIFELINE_VARIABLE;

use command::Command;
use driver::Driver;

pub use crate::machine::supervision::Policy;

/// Asks a program for its guard: `1`. PID 1 has one without it, unless it is `0`.
const ASKED: &str = "POLLFLIP_GUARD";

/// The settings of a guard, and whether this process becomes one.
///
/// ```no_run
/// use std::process::{ExitCode, Termination};
/// use std::time::Duration;
/// use pollflip::guard::{Guard, Policy};
///
/// /// Guards another program, and starts it again when it has crashed.
/// fn main() -> ExitCode {
///     let guard = Guard::new()
///         .program("echo-server", ["--listen", "0.0.0.0:7000"])
///         .policy(Policy::OnFailure)
///         .delay(Duration::from_millis(10))
///         .ready_timeout(Duration::from_secs(60));
///     match guard.enter() {
///         Ok(Some(ended)) => ended.report(),
///         Ok(None) => unreachable!("this program is not the service"),
///         Err(error) => {
///             eprintln!("{error}");
///             ExitCode::FAILURE
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Guard {
    active: bool,
    /// Another program than this one, with its arguments.
    command: Option<(OsString, Vec<OsString>)>,
    rules: Rules,
    store: Option<usize>,
}

impl Guard {
    /// A guard for this program, in any case: the program decides.
    pub fn new() -> Guard {
        let strikes = Strikes { count: 5, within: Duration::from_secs(60) };
        let rules = Rules { policy: Policy::No, strikes, delay: Duration::from_millis(100), ready: None };
        Guard { active: true, command: None, rules, store: None }
    }

    /// A guard if this process is PID 1, or `POLLFLIP_GUARD` is `1` in its environment.
    /// `POLLFLIP_GUARD=0` keeps PID 1 from it. In a program with more rights than its caller (setuid,
    /// setgid, capabilities of its file) there is no guard: the caller chooses the environment and
    /// all else that a guard goes by.
    ///
    /// # Errors
    ///
    /// `POLLFLIP_GUARD` is something else.
    pub fn from_env() -> Result<Guard, Error> {
        if sys::has_gained_rights() {
            return Ok(Guard { active: false, ..Guard::new() });
        }
        let asked = env::var_os(ASKED).filter(|value| !value.is_empty());
        let active = match asked.as_deref().and_then(OsStr::to_str) {
            Some("1") => true,
            Some("0") => false,
            None if asked.is_none() => process::id() == 1,
            _ => {
                let value = asked.unwrap_or_default();
                return Err(Error::setting(format!("{ASKED}={value:?} is neither 0 nor 1: set it to 1 for a guard, or leave it away")));
            }
        };
        Ok(Guard { active, ..Guard::new() })
    }

    /// Guards that program, in the place of this one. A name without a slash is looked for in PATH,
    /// at each start.
    pub fn program(mut self, program: impl Into<OsString>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Guard {
        self.command = Some((program.into(), arguments.into_iter().map(Into::into).collect()));
        self
    }

    /// When a service that has ended is started again; never, unless this is set.
    pub fn policy(mut self, policy: Policy) -> Guard {
        self.rules.policy = policy;
        self
    }

    /// A service that has ended so often within so long is not started again; five times in a
    /// minute, unless this is set. An end by SIGKILL, SIGTERM, SIGINT or SIGHUP does not count, unless
    /// the guard has sent that itself or the kernel ended the process for memory: somebody wanted it.
    pub fn strikes(mut self, count: u32, within: Duration) -> Guard {
        self.rules.strikes = Strikes { count, within };
        self
    }

    /// How long after its end a service is started again; 100 ms, unless this is set.
    pub fn delay(mut self, delay: Duration) -> Guard {
        self.rules.delay = delay;
        self
    }

    /// Kills a service that has not said within this time that it is ready. A service that asks for
    /// more time (EXTEND_TIMEOUT_USEC) gets it. Such an end is a strike, and the next start learns of
    /// it as [`Exit::NotReady`]. There is no limit unless this is set.
    pub fn ready_timeout(mut self, limit: Duration) -> Guard {
        self.rules.ready = Some(limit);
        self
    }

    /// How many descriptors the service can store here (FDSTORE of systemd's protocol), to get them
    /// back when it is started again: 512 unless this is set, or fewer if the guard may not have so
    /// many. A service that is never started again ([`Policy::No`]) can store none.
    pub fn store(mut self, size: usize) -> Guard {
        self.store = Some(size);
        self
    }

    /// Call this on the first line of `main`. In the service it returns `None` at once. In the guard
    /// it returns when the service has ended, and says how the service has ended.
    ///
    /// Call it while there is one thread. From here on the guard is a subreaper, ignores SIGPIPE
    /// and SIGXFSZ, and all signals but those that stop a process or tell of a fault in it are
    /// blocked in it.
    ///
    /// # Errors
    ///
    /// The operating system is not Linux; the service cannot be started at all; this program has more rights than its caller; this
    /// process has more threads; `/proc` is not there, or is that of another PID namespace; the
    /// [store](Guard::store) is to hold more descriptors than this process may have; a system call
    /// that a guard needs fails.
    pub fn enter(self) -> Result<Option<Ended>, Error> {
        if !self.active || self.command.is_none() && is_guarded() {
            return Ok(None);
        }
        if sys::has_gained_rights() {
            let why = "a guard starts what its caller has named, and this program has more rights than its caller (setuid, capabilities of its \
                       file): have a service manager start it";
            return Err(Error::Unsuitable(why.into()));
        }
        if !sys::CAN_RESTART {
            return Err(Error::Unsuitable("a guard needs Linux, and this operating system is another one".into()));
        }
        if !sys::proc_is_ours() {
            let why = "a guard needs /proc of its own PID namespace, and there is none: mount it (unshare --mount-proc)";
            return Err(Error::Unsuitable(why.into()));
        }
        if family::threads() != Some(1) {
            return Err(Error::TooLate("a guard forks, and other threads run already: call Guard::enter first in main".into()));
        }
        let own = SigSet::thread_get_mask().map_err(|error| Error::os("cannot read the signal mask")(error.into()))?;
        let entered = self.watch_over(own);
        if entered.is_err() {
            // The program goes on to tell why.
            let _ = own.thread_set_mask();
        }
        entered.map(Some)
    }

    fn watch_over(self, mask: SigSet) -> Result<Ended, Error> {
        // Where what it writes goes nowhere any more, the guard lives on.
        let limit_was_ignored = sys::ignore(libc::SIGXFSZ);
        sys::ignore(libc::SIGPIPE);
        let mut command = Command::new(self.command, mask)?;
        if !limit_was_ignored {
            command.set_to_default(libc::SIGXFSZ);
        }
        watched_signals().thread_set_mask().map_err(|error| Error::os("cannot block signals")(error.into()))?;
        // An ignored one would take the status of each child away.
        sys::set_to_default(libc::SIGCHLD);
        sys::take_orphans_in().map_err(Error::os("cannot become a subreaper"))?;
        Driver::new(command, self.rules, self.store)?.run()
    }
}

impl Default for Guard {
    fn default() -> Guard {
        Guard::new()
    }
}

/// All signals that say something to a service. Left out: those of job control, without which the
/// guard could not be stopped with it; those of faults; and those that what the guard itself writes
/// can bring it.
fn watched_signals() -> SigSet {
    let mut set = SigSet::all();
    [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].into_iter().for_each(|signal| set.remove(signal));
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP, Signal::SIGSYS]
        .into_iter()
        .for_each(|signal| set.remove(signal));
    [Signal::SIGPIPE, Signal::SIGXFSZ].into_iter().for_each(|signal| set.remove(signal));
    set
}

/// Whether this process is the service of a guard, or was started by one that is.
fn is_guarded() -> bool {
    env::var_os(LIFELINE_VARIABLE).is_some() || systemd::guard().is_some_and(|guard| sys::descends_from(process::id(), guard))
}

/// How the service has ended. Returned from `main`, it ends this process in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    exit: Exit,
    was_told: bool,
}

impl Ended {
    /// How the last generation has ended. [`Exit::Unknown`]: its predecessor has taken its status,
    /// and the kernel does not tell it to others (before Linux 6.15).
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl Termination for Ended {
    /// Ends this process by the signal that has killed the service, or returns the status with
    /// which the service has ended. A signal does not end PID 1: there it returns 128 and the
    /// number of the signal. If nobody knows how the service has ended, it returns success if the
    /// guard was told to end, and failure otherwise.
    fn report(self) -> ExitCode {
        let signal = match self.exit {
            Exit::Code(code) => return ExitCode::from(code as u8),
            Exit::Unknown if self.was_told => return ExitCode::SUCCESS,
            Exit::Unknown => return ExitCode::FAILURE,
            Exit::Signal(signal) => signal,
            Exit::OutOfMemory | Exit::NotReady => libc::SIGKILL,
        };
        if process::id() != 1 {
            sys::end_by(signal);
        }
        ExitCode::from(128_u8.saturating_add(signal as u8))
    }
}
