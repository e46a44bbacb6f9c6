//! What of the world around this process forbids a restart.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getsid};

use crate::error::Refusal;
use crate::sys::{self, Process};

use super::{Restarter, unwatch};

/// Whether the end of this process would hang a terminal up.
pub(super) fn leads_terminal() -> bool {
    // Nothing is read from it; a line without a carrier would keep whoever opens it waiting.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    getsid(None) == Ok(getpid()) && !sys::is_simulated() && OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty").is_ok()
}

impl Restarter {
    pub(super) fn look_for_obstacles(&mut self) {
        self.forget_the_ended();
        let predecessor = self.link.as_ref().and_then(|link| link.living());
        let count = self.draining.len() + usize::from(predecessor.is_some());
        let oldest = self.draining.first().or(predecessor).map_or(0, Process::pid);
        let draining = (count > self.max_draining).then_some(Refusal::Draining { count: count as u32, oldest });
        // A successor is born with a signal ignored that this process ignores, and if this one handles it, so will that one.
        let terminal = (self.leads_terminal && sys::is_at_default(Signal::SIGHUP)).then_some(Refusal::Terminal);
        self.obstruct(self.forbidden.or(terminal).or(draining));
    }

    /// Lets go of earlier generations that have ended. No longer watched first: a successor may have their descriptors too.
    pub(super) fn forget_the_ended(&mut self) {
        let registry = self.poll.registry();
        self.guarded.look(registry);
        self.draining.retain(|process| {
            let lives = !process.has_ended();
            if !lives {
                unwatch(registry, process.as_fd());
            }
            lives
        });
    }
}
