//! The service manager: what it has to be told, and what it has to answer.
//!
//! Knows: its protocol and deadlines. Does not know: states, and why anything is told.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::systemd::{self, BARRIER_LIMIT, Barrier, EXTENSION, Notifier};

use super::reactor::{BARRIER, Deadline, Due, Reactor, earliest};

/// The service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    notifier: Notifier,
    /// It has been asked to say that it knows the new main PID, and how long it is waited for.
    barrier: Option<(Barrier, Duration)>,
    /// This process is ending: when the manager is told next that it takes longer.
    stopping: Option<Duration>,
}

impl Manager {
    /// As long as the loop turns, the end of this process may take longer.
    pub(super) fn poll(&mut self, now: Duration) {
        if let Some(at) = &mut self.stopping
            && now >= *at
        {
            *at = now + EXTENSION;
            self.notifier.still_stopping();
        }
        self.notifier.flush();
    }

    /// Sends what can be sent. Says whether something still waits.
    pub(super) fn flush(&mut self) -> bool {
        self.notifier.flush()
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

    /// Asks for a sign that it knows. Returns until when that is waited for at the most.
    pub(super) fn begin_barrier(&mut self, reactor: &Reactor) -> Duration {
        let limit = reactor.now() + BARRIER_LIMIT;
        if let Some(barrier) = self.notifier.barrier()
            && reactor.watch(barrier.as_fd(), BARRIER).is_ok()
        {
            self.barrier = Some((barrier, limit));
        }
        limit
    }

    /// Whether that sign is still to come.
    pub(super) fn awaits_barrier(&mut self, reactor: &Reactor) -> bool {
        let Some((barrier, limit)) = &self.barrier else { return false };
        // The manager may have been too busy to be asked yet, and this process stopped since.
        self.notifier.flush();
        if !barrier.has_answered() {
            if reactor.now() < *limit {
                return true;
            }
            log::warn!(target: "pollflip", "systemd has not answered in time; it may not know the new main process");
        }
        reactor.unwatch(barrier.as_fd());
        self.barrier = None;
        false
    }

    /// Waits for it, since nobody will poll again; looks every so often.
    pub(super) fn wait_for_barrier(&mut self, reactor: &Reactor, interval: Duration) {
        let Some((barrier, _)) = self.barrier.take() else { return };
        let deadline = reactor.now() + BARRIER_LIMIT;
        loop {
            let is_over = reactor.now() >= deadline;
            // The manager may have been too busy to be asked yet.
            self.notifier.flush();
            if barrier.answers_within(interval) || is_over {
                return;
            }
        }
    }

    pub(super) fn next_deadline(&self, now: Duration) -> Option<Due> {
        earliest([
            self.barrier.as_ref().map(|(_, limit)| (*limit, Deadline::Barrier)),
            self.stopping.map(|at| (at, Deadline::Stopping)),
            self.notifier.next_timeout().map(|left| (now + left, Deadline::Unnotified)),
        ])
    }
}
