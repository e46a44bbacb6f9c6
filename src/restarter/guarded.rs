//! Under a [guard](crate::guard): this process ends with it, so that no orphan keeps the addresses of a service that is started again.
//!
//! Knows: which process is the guard, as the environment says. Does not know: what a guard does.

use std::env;
use std::process;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, getppid};

use crate::sys;
use crate::systemd::GUARDED;

/// The guard above this process, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Guarded(Option<u32>);

impl Guarded {
    /// Looks for it among the ancestors of this process: others may have the variable too.
    pub(super) fn new() -> Guarded {
        let guard = env::var(GUARDED).ok().and_then(|pid| pid.parse().ok());
        Guarded(guard.filter(|guard| !sys::is_simulated() && sys::descends_from(process::id(), *guard)))
    }

    /// Asks for SIGTERM at the end of the guard, if that is the parent of this process: before, the predecessor is. A change of user
    /// takes that away, and whoever has asked for a signal before gets that one.
    pub(super) fn stay(self) {
        let Some(guard) = self.0 else { return };
        if !is_parent(guard) || !matches!(prctl::get_pdeathsig(), Ok(None)) {
            return;
        }
        if let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM) {
            log::warn!(target: "pollflip", "cannot ask for a signal at the end of the guard (process {guard}): {error}");
        }
        if !is_parent(guard) {
            end(guard);
        }
    }

    /// The same once the predecessor has ended. If the guard is no ancestor any more, it has ended before it could be stayed with.
    pub(super) fn stay_alone(self) {
        self.stay();
        if let Some(guard) = self.0
            && !sys::descends_from(process::id(), guard)
            && sys::parent_of(process::id()).is_some()
        {
            end(guard);
        }
    }
}

fn is_parent(guard: u32) -> bool {
    getppid().as_raw() as u32 == guard
}

fn end(guard: u32) {
    log::error!(target: "pollflip", "the guard (process {guard}) is gone, and with it what would start this service again: SIGTERM");
    // A signal to oneself is always allowed.
    let _ = kill(getpid(), Signal::SIGTERM);
}
