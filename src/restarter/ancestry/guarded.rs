//! Under a [guard](crate::guard): this process ends with it, so that no orphan keeps the addresses
//! of a service that is started again.
//!
//! Knows: which process is the guard, as the environment says. Does not know: what a guard does.
//!
//! The kernel sends a signal at the end of a parent, whatever the program does at that moment. The
//! guard is the parent of the first generation, and of a later one when its predecessor has ended.
//! Until then the loop watches the guard.

use std::os::fd::AsFd;
use std::process;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, getppid};

use crate::error::Error;
use crate::sys::{self, Process};
use crate::systemd;

use super::super::reactor::{DRAINING, Reactor};

/// The guard above this process, if there is one that lives.
#[derive(Debug, Default)]
pub(in crate::restarter) struct Guarded(Option<Process>);

impl Guarded {
    /// Looks for it among the ancestors of this process: others may have the variable too.
    pub(in crate::restarter) fn new(reactor: &Reactor) -> Result<Guarded, Error> {
        let guard = systemd::guard().filter(|_| !sys::is_simulated());
        let Some(process) = guard.map(Process::open).transpose().ok().flatten() else { return Ok(Guarded(None)) };
        // Looked for after it was opened: if it is an ancestor by then, it is the one that was
        // opened.
        if !sys::descends_from(process::id(), process.pid()) {
            return Ok(Guarded(None));
        }
        reactor.watch(process.as_fd(), DRAINING)?;
        let guarded = Guarded(Some(process));
        guarded.stay();
        Ok(guarded)
    }

    /// Asks for SIGTERM at the end of the guard, if that is the parent of this process. A change of user
    /// takes the request away. A program that has asked for another signal keeps that one.
    pub(super) fn stay(&self) {
        let is_parent = self.0.as_ref().is_some_and(|guard| getppid().as_raw() as u32 == guard.pid());
        if is_parent
            && matches!(sys::death_signal(), Ok(None))
            && let Err(error) = sys::set_death_signal(Signal::SIGTERM)
        {
            log::warn!(target: "pollflip", "cannot ask for a signal at the end of the guard: {error}");
        }
    }

    /// Ends this process if the guard has ended.
    pub(super) fn look(&mut self, reactor: &Reactor) {
        if let Some(guard) = self.0.take_if(|guard| guard.has_ended()) {
            reactor.unwatch(guard.as_fd());
            let pid = guard.pid();
            log::error!(target: "pollflip", "the guard (process {pid}) is gone, and with it what would start this service again: SIGTERM");
            // A signal to oneself is always allowed.
            let _ = kill(getpid(), Signal::SIGTERM);
        }
    }
}
