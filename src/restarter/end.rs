//! How a restarter ends.

use std::time::Duration;

use crate::machine::{Input, Output, Phase, State};

use super::Restarter;
use super::commit::RETRY;

/// How long the kernel may take to take the last message to the successor when nobody will poll again. Without it the successor learns of
/// the commit by the end of this process.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

impl Restarter {
    /// Tells systemd that the service ends. As long as the predecessor can take it back it does not, nor does systemd listen to this process:
    /// then that is told when it is this one's.
    pub(super) fn tell_of_the_end(&mut self) {
        if self.ancestry.is_sole() {
            self.manager.stopping(self.reactor.now());
        }
    }

    /// Does what is still to be done of a restart that cannot be taken back any more, when nobody will poll again.
    pub(super) fn carry_out_the_rest(&mut self) {
        let deadline = self.reactor.now() + COMMIT_LIMIT;
        loop {
            self.see_commit_off(deadline);
            let Some(output) = self.driver.next_output() else { return };
            if let Output::Action(action) = output {
                self.carry_out(action);
            }
        }
    }

    /// A successor that is not ready is killed. Before the lifeline closes, so that it does not take this process for dead and the service
    /// for its own. Those who wait are told.
    fn give_up(&mut self) {
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        if let State::Killing { attempt, .. } = self.driver.state() {
            self.succession.kill_and_wait();
            self.feed(Input::Exited(attempt));
            self.carry_out_the_rest();
        }
        self.manager.still_here("the restart was given up");
    }

    fn hand_over(&mut self) {
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        self.manager.wait_for_barrier(&self.reactor, RETRY);
    }
}

impl Drop for Restarter {
    fn drop(&mut self) {
        if self.succession.is_anothers() {
            return;
        }
        self.requests.unblock_signal();
        self.poll_probation();
        // It may have committed, and nobody has looked since.
        self.poll_ancestry();
        match self.driver.state() {
            // It may have been called off just now, and the one who asked has yet to be told.
            State::Closed(_) | State::Idle => self.carry_out_the_rest(),
            State::Spawning { .. } | State::AwaitingReady { .. } | State::Killing { .. } => self.give_up(),
            State::Handoff { .. } => {
                self.hand_over();
                if let State::Handoff { phase: Phase::Committed, .. } = self.driver.state() {
                    self.claim.hand_over();
                }
                return;
            }
        }
        if self.ancestry.is_sole() {
            self.requests.remove_path();
            self.paths.remove();
        }
    }
}
