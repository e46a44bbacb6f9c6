//! The commit: the service is the successor's for good.
//!
//! Knows: in which order whom is told. Does not know: when a restart is final.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use log::Level;

use crate::machine::{Phase, State};
use crate::sys;
use crate::systemd;
use crate::wire::Message;

use super::attempt::Current;
use super::{BARRIER, Restarter, watch};

/// How soon it is tried again when nobody will poll again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

impl Restarter {
    /// Whether the successor has yet to be told that it is final. There is room for so small a packet if it has read what came before, so that
    /// this takes longer than a moment only if systemd is busy or the kernel lacks memory; it ends with the successor in any case.
    pub(super) fn commit_waits(&mut self) -> bool {
        self.tell_commit();
        let committed = matches!(self.machine.state(), State::Handoff { phase: Phase::Committed, .. });
        let waits = |current: &Current| !current.has_exited() && (current.commit_due.is_some() || current.lifeline.waiting() > 0);
        committed && self.current.as_ref().is_some_and(waits)
    }

    /// Tells the successor that it is final, once systemd has been sent its number: a later one could overtake that.
    fn tell_commit(&mut self) {
        let now = self.now();
        let Some(due) = self.current.as_ref().and_then(|current| current.commit_due) else { return };
        if self.manager.flush() && now < due {
            return;
        }
        // Until the successor is told, it takes nobody in.
        if let Some(server) = &mut self.server {
            server.hand_over(self.poll.registry());
        }
        if let Some(current) = &mut self.current {
            current.commit_due = None;
            if let Err(error) = current.lifeline.send(&Message::Commit, &[]) {
                // If it has gone, that is told by its end.
                let level = if error.kind() == io::ErrorKind::BrokenPipe { Level::Debug } else { Level::Warn };
                log::log!(target: "pollflip", level, "the successor cannot be told that the restart is final: {error}");
            }
        }
        self.rearm();
    }

    /// The service is the successor's for good. It is told so last: from then on it may do all this in its turn.
    pub(super) fn commit(&mut self) {
        if let Some(current) = &mut self.current
            && let Some(process) = &current.process
        {
            self.manager.handed_over(process.pid());
            current.supervised = systemd::is_there();
            if let Some(file) = &self.pid_file {
                file.write(process.pid());
            }
        }
        let due = self.now() + systemd::BARRIER_LIMIT;
        if let Some(barrier) = self.manager.barrier() {
            // Without that it is looked at when its time is over, or something else happens.
            if let Err(error) = watch(self.poll.registry(), barrier.as_fd(), BARRIER) {
                log::warn!(target: "pollflip", "the answer of systemd may be seen late: {error}");
            }
            self.barrier = Some((barrier, due));
        }
        if let Some(current) = &mut self.current {
            current.commit_due = Some(due);
        }
        self.tell_commit();
        // If it has yet to be told, the time for that.
        self.rearm();
    }

    /// Whoever waits is told of the end only when the successor is, and the lifeline closes after that.
    pub(super) fn see_commit_off(&mut self, deadline: Duration) {
        while self.commit_waits()
            && self.now() < deadline
            && self.current.as_ref().is_some_and(|current| current.commit_due.is_some() || current.lifeline.flush())
        {
            if !sys::has_waited(RETRY) {
                thread::sleep(RETRY);
            }
        }
        // Nobody will poll again, and systemd has had its time.
        if self.now() >= deadline
            && let Some(due) = self.current.as_mut().and_then(|current| current.commit_due.as_mut())
        {
            *due = deadline;
            self.tell_commit();
        }
    }
}
