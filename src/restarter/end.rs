//! How a restarter ends.

use std::thread;
use std::time::Duration;

use crate::machine::{COMMIT_TIMEOUT, Input, Output, Phase, State};
use crate::sys;

use super::Restarter;

/// How long a restart that is final may take to its end when nobody will poll again: longer than the service manager is waited for. A successor that the kernel cannot tell learns of the commit by the end of this process.
const END_LIMIT: Duration = COMMIT_TIMEOUT.saturating_add(Duration::from_millis(100));
/// How soon it is tried again.
const RETRY: Duration = Duration::from_millis(10);

impl Restarter {
    /// Tells systemd that the service ends. As long as the predecessor can take it back it does not, nor does systemd listen to this process:
    /// then that is told when it is this one's.
    pub(super) fn tell_of_the_end(&mut self) {
        if self.ancestry.is_sole() {
            self.manager.stopping(self.reactor.now());
        }
    }

    /// Does what is still to be done, when nobody will poll again: a restart that cannot be taken back any more comes to its end, and
    /// those who asked for it are told.
    pub(super) fn carry_out_the_rest(&mut self) {
        let mut looked_at = Duration::ZERO;
        let mut deadline = None;
        loop {
            self.carry_out_actions();
            if !matches!(self.driver.state(), State::Handoff { phase: Phase::Committing { .. }, .. }) {
                return;
            }
            if looked_at >= *deadline.get_or_insert_with(|| self.reactor.now() + END_LIMIT) {
                // The service manager is not waited for any longer: to the machine that is as if it had answered.
                self.feed_all([Input::ManagerTold, Input::BarrierPassed]);
                self.carry_out_actions();
                // What the kernel has not taken by now it never will, since the lifeline goes with this restarter.
                self.succession.give_up_unsent();
                self.feed_successor();
                return self.carry_out_actions();
            }
            if !sys::has_waited(RETRY) {
                thread::sleep(RETRY);
            }
            // The machine's own deadline is earlier, and is met before this gives up: this process may be stopped at any point.
            looked_at = self.reactor.now();
            self.feed_successor();
            let mut inputs = Vec::new();
            self.manager.poll(&self.reactor, &mut inputs);
            self.feed_all(inputs);
            self.driver.feed(looked_at, Input::Timeout);
        }
    }

    fn feed_successor(&mut self) {
        let mut inputs = Vec::new();
        self.succession.poll(&self.reactor, &mut inputs);
        self.feed_all(inputs);
    }

    /// Nobody is left to hear of events.
    fn carry_out_actions(&mut self) {
        while let Some(output) = self.driver.next_output() {
            if let Output::Action(action) = output {
                self.carry_out(action);
            }
        }
    }

    /// Ends what is under way, when nobody will poll again. A successor that is not ready is killed: before the lifeline closes, so that it
    /// does not take this process for dead and the service for its own. Those who wait are told.
    fn end(&mut self) {
        let is_under_way = self.driver.state().under_way_since().is_some();
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        if let State::Killing { attempt, .. } = self.driver.state() {
            self.succession.kill_and_wait();
            self.feed(Input::Exited(attempt));
            self.carry_out_the_rest();
        }
        if is_under_way && !matches!(self.driver.state(), State::Handoff { .. }) {
            self.manager.still_here("the restart was given up");
        }
    }
}

impl Drop for Restarter {
    fn drop(&mut self) {
        if self.is_anothers() {
            return self.requests.forget_handler();
        }
        self.requests.unblock_signal();
        // It may have committed, and nobody has looked since.
        self.poll_ancestry();
        self.end();
        if let State::Handoff { .. } = self.driver.state() {
            return self.claim.hand_over();
        }
        if self.ancestry.is_sole() {
            self.requests.remove_path();
            self.paths.remove();
        }
    }
}
