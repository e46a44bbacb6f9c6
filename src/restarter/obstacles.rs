//! What of the world around this process forbids a restart.

use std::os::fd::AsFd;

use crate::error::Refusal;
use crate::sys::Process;

use super::{Restarter, unwatch};

impl Restarter {
    pub(super) fn look_for_obstacles(&mut self) {
        self.forget_the_ended();
        let predecessor = self.link.as_ref().map(|link| link.process()).filter(|process| !process.has_ended());
        let count = self.draining.len() + usize::from(predecessor.is_some());
        let oldest = self.draining.first().or(predecessor).map_or(0, Process::pid);
        let draining = (count > self.max_draining).then_some(Refusal::Draining { count: count as u32, oldest });
        self.obstruct(self.forbidden.or(draining));
    }

    /// Lets go of earlier generations that have ended. No longer watched first: a successor may have their descriptors too.
    pub(super) fn forget_the_ended(&mut self) {
        let registry = self.poll.registry();
        self.draining.retain(|process| {
            let lives = !process.has_ended();
            if !lives {
                unwatch(registry, process.as_fd());
            }
            lives
        });
    }
}
