//! What of the world around this process forbids a restart.
//!
//! Knows: what the world takes this process for, the terminal, a deaf service manager, and how many generations may drain. Does not know:
//! the loop.

#[cfg(test)]
mod tests;
mod world;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpid, getsid};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use crate::config::RestartConfig;
use crate::error::Refusal;
use crate::sys;
use crate::systemd;

pub(super) use world::World;

/// What has to hold for a restart to begin.
#[derive(Debug)]
pub(super) struct Preconditions {
    /// What has forbidden restarts from the start.
    forbidden: Option<Refusal>,
    /// A hang-up comes with the end of this process, to a successor that is not born deaf to it.
    leads_terminal: bool,
    max_draining: usize,
    /// The permanent reason for which somebody has been refused who has asked.
    told: Option<Refusal>,
}

impl Preconditions {
    /// `unstartable`: why nothing can be started; `is_deaf`: a service manager takes no notifications from this service; `mask`: the signals
    /// that a successor is born with blocked.
    pub(super) fn new(config: &RestartConfig, unstartable: Option<Refusal>, world: &World, is_deaf: bool, mask: &SigSet) -> Preconditions {
        let is_unheard = config.pid_file.is_none() && is_deaf || systemd::guard_is_deaf();
        let forbidden = forbidden(unstartable, world.refusal(config.trusts_parent), is_unheard);
        let leads_terminal = leads_terminal() && !mask.contains(Signal::SIGHUP);
        Preconditions { forbidden, leads_terminal, max_draining: config.max_draining, told: None }
    }

    /// Why no restart may begin, where so many earlier generations still finish their work. `full`: they leave none of the sockets of a UDP
    /// group.
    pub(super) fn refusal(&self, draining: usize, oldest: u32, full: bool) -> Option<Refusal> {
        // A successor is born with a signal ignored that this process ignores, and if this one handles it, so will that one.
        let terminal = || (self.leads_terminal && sys::is_at_default(Signal::SIGHUP)).then_some(Refusal::SessionLeader);
        let draining = || (draining > self.max_draining || full).then_some(Refusal::Draining { count: draining as u32, oldest });
        self.forbidden.or_else(terminal).or_else(draining)
    }

    /// Why no restart of this process is possible as long as it lives.
    pub(super) fn permanent(&self) -> Option<Refusal> {
        self.forbidden.filter(Refusal::is_permanent)
    }

    /// Somebody has asked, and has been refused for that reason.
    pub(super) fn asked_in_vain(&mut self, refusal: Refusal) {
        self.told = self.told.or(Some(refusal).filter(Refusal::is_permanent));
    }

    /// The permanent reason for which somebody has been refused who has asked.
    pub(super) fn told(&self) -> Option<Refusal> {
        self.told
    }
}

/// What forbids restarts for as long as the process lives: the first that holds.
fn forbidden(unstartable: Option<Refusal>, world: Option<Refusal>, is_unheard: bool) -> Option<Refusal> {
    unstartable.or(world).or(is_unheard.then_some(Refusal::NoNotifyAccess))
}

/// Whether the end of this process would hang a terminal up.
fn leads_terminal() -> bool {
    // Nothing is read from it; a line without a carrier would make the open wait.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    getsid(None) == Ok(getpid()) && !sys::is_simulated() && OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty").is_ok()
}
