//! The commit: the service is the successor's.
//!
//! Knows: in which order whom is told. Does not know: when a restart is final.

use std::thread;
use std::time::Duration;

use crate::machine::{Phase, State};
use crate::sys;
use crate::systemd;

use super::Restarter;

/// How soon it is tried again when nobody will poll again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

impl Restarter {
    /// The service is the successor's. It is told so last: from then on it may do all this itself.
    pub(super) fn commit(&mut self) {
        let due = self.reactor.now() + systemd::BARRIER_LIMIT;
        if let Some(pid) = self.succession.begin_commit(systemd::is_there(), due) {
            self.manager.name_main_pid(pid);
            self.paths.name(pid);
        }
        self.manager.begin_barrier(&self.reactor);
        self.tell_commit();
        // If it has yet to be told, the time for that.
        self.rearm();
    }

    /// The successor must have been told that it is final, and systemd must know the new main process, before this one may end: nothing
    /// more comes out until then.
    pub(super) fn is_held_up(&mut self) -> bool {
        self.commit_waits() || self.manager.awaits_barrier(&self.reactor)
    }

    /// Whether the successor has yet to be told that it is final. There is room for so small a packet if it has read what came before, so that
    /// this takes longer than a moment only if systemd is busy or the kernel lacks memory; it ends with the successor in any case.
    fn commit_waits(&mut self) -> bool {
        self.tell_commit();
        matches!(self.driver.state(), State::Handoff { phase: Phase::Committed, .. }) && self.succession.commit_waits()
    }

    /// Tells the successor that it is final, once systemd has been sent its number: a later one could overtake that.
    fn tell_commit(&mut self) {
        let Some(due) = self.succession.commit_due() else { return };
        if self.manager.flush() && self.reactor.now() < due {
            return;
        }
        // Until the successor is told, it takes nobody in.
        self.requests.hand_over(&self.reactor);
        self.succession.send_commit();
        self.rearm();
    }

    /// Those who wait are told of the end only when the successor is, and the lifeline closes after that.
    pub(super) fn see_commit_off(&mut self, deadline: Duration) {
        while self.commit_waits() && self.reactor.now() < deadline && self.succession.flush_commit() {
            if !sys::has_waited(RETRY) {
                thread::sleep(RETRY);
            }
        }
        // Nobody will poll again, and systemd has had its time.
        if self.reactor.now() >= deadline && self.succession.commit_due().is_some() {
            self.requests.hand_over(&self.reactor);
            self.succession.send_commit();
        }
    }
}
