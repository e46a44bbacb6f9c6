//! The service manager: what it has to be told, and what it has to answer.
//!
//! Knows: its protocol and deadlines. Does not know: states, and why anything is told.

#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::time::Duration;

use crate::keep::Order;
use crate::machine::Input;
use crate::systemd::{self, Barrier, EXTENSION, Notifier};

use super::part::{Moment, Part};
use super::reactor::{BARRIER, Deadline, Due, Reactor, earliest};

/// The service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    notifier: Notifier,
    /// It is being told the new main PID, and that is not known yet to have been sent.
    is_naming: bool,
    /// It has been asked to say that it knows that, and has not.
    barrier: Option<Barrier>,
    is_barred: bool,
    /// This process is ending: when the manager is told next that it takes longer.
    stopping: Option<Duration>,
}

impl Manager {
    /// `names_nobody`: it knows processes by other numbers.
    pub(super) fn new(names_nobody: bool) -> Manager {
        Manager { notifier: Notifier::new(names_nobody), ..Manager::default() }
    }

    /// A restart has begun, which may take so long.
    pub(super) fn reloading(&mut self, limit: Duration) {
        self.notifier.reloading(limit);
    }

    /// How far the restart is.
    pub(super) fn progress(&mut self, text: &str) {
        self.notifier.progress(text);
    }

    /// A restart is over, and this process serves. The manager goes by what it was told last: if this process is ending, it is told so once
    /// more.
    pub(super) fn still_here(&mut self, why: &str) {
        self.notifier.still_here(why);
        if self.stopping.is_some() {
            self.notifier.stopping();
        }
    }

    /// The service ends, which may take a while.
    pub(super) fn stopping(&mut self, now: Duration) {
        self.notifier.stopping();
        self.stopping = systemd::is_there().then(|| now + EXTENSION);
    }

    /// That process is the main one.
    pub(super) fn name_main_pid(&mut self, pid: u32) {
        self.notifier.handed_over(pid);
    }

    /// What this service keeps has changed.
    pub(super) fn store(&mut self, orders: Vec<Order>) {
        for Order { text, descriptors } in orders {
            self.notifier.send(text, descriptors);
        }
    }

    /// Sends what can be sent. Whether that was not all.
    pub(super) fn has_more_to_tell(&mut self) -> bool {
        self.notifier.flush()
    }

    /// It has to be sent the main PID, and asked for a sign that it knows that.
    pub(super) fn begin_commit(&mut self, reactor: &Reactor) {
        (self.is_naming, self.is_barred) = (true, true);
        self.barrier = self.notifier.barrier();
        if let Some(barrier) = &self.barrier
            // Without that it is looked at when its time is over, or something else happens.
            && let Err(error) = reactor.watch(barrier.as_fd(), BARRIER)
        {
            log::warn!(target: "pollflip", "the answer of systemd may be seen late: {error}");
        }
    }

    /// It is not waited for any longer.
    pub(super) fn end_commit(&mut self, reactor: &Reactor) {
        if let Some(barrier) = self.barrier.take() {
            reactor.unwatch(barrier.as_fd());
            if self.is_barred {
                log::warn!(target: "pollflip", "systemd has not answered in time; it may not know the new main process");
            }
        }
        (self.is_naming, self.is_barred) = (false, false);
    }
}

impl Part for Manager {
    /// Sends what can be sent, and looks for answers. As long as the loop turns, the end of this process may take longer.
    fn poll(&mut self, moment: &Moment, _: &Reactor, inputs: &mut Vec<Input>) {
        if let Some(at) = &mut self.stopping
            && moment.now >= *at
        {
            *at = moment.now + EXTENSION;
            self.notifier.still_stopping();
        }
        let waits = self.notifier.flush();
        if self.is_naming && !waits {
            self.is_naming = false;
            inputs.push(Input::ManagerTold);
        }
        if self.is_barred && self.barrier.as_ref().is_none_or(Barrier::has_answered) {
            self.is_barred = false;
            inputs.push(Input::BarrierPassed);
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Due> {
        earliest([
            self.stopping.map(|at| (at, Deadline::Stopping)),
            self.notifier.next_timeout().map(|left| (now + left, Deadline::Unnotified)),
        ])
    }
}
