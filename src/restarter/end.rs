//! How a restarter ends.

use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::exec::KILL_AGAIN;
use crate::machine::{Input, KILL_TIMEOUT, Output, Phase, State};
use crate::sys;
use crate::systemd::{self, BARRIER_LIMIT};

use super::Restarter;
use super::commit::RETRY;

/// How long the kernel may take to take the last message to the successor when nobody will poll again. Without it the successor learns of
/// the commit by the end of this process.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

impl Restarter {
    /// Tells systemd that the service ends. As long as the predecessor can take it back it does not, nor does systemd listen to this process:
    /// then that is told when it is this one's.
    pub(super) fn tell_of_the_end(&mut self) {
        if self.link.is_none() || self.heard.ours {
            self.manager.stopping();
            self.stopping = systemd::is_there().then(|| self.now() + systemd::EXTENSION);
        }
    }

    /// Does what is still to be done of a restart that cannot be taken back any more, when nobody will poll again.
    pub(super) fn carry_out_the_rest(&mut self) {
        let deadline = self.now() + COMMIT_LIMIT;
        loop {
            self.see_commit_off(deadline);
            let Some(output) = self.next_output() else { return };
            if let Output::Action(action) = output {
                self.act(action);
            }
        }
    }

    /// A successor that is not ready is killed. Before the lifeline closes, so that it does not take this process for dead and the service
    /// for its own. Whoever waits is told.
    fn give_up(&mut self) {
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        if let State::Killing { attempt, pid, .. } = self.machine.state()
            && let Some(current) = &mut self.current
            && let Some(process) = &current.process
        {
            if process.kill() {
                current.words.exit = process.wait(KILL_TIMEOUT);
            } else {
                // The restart thread has been told to, and tries again.
                let deadline = sys::now() + KILL_TIMEOUT;
                while current.words.exit.is_none() && sys::now() < deadline {
                    current.words.exit = process.wait(KILL_AGAIN);
                    self.exec.kill_again();
                }
            }
            if current.words.exit.is_none() {
                log::warn!(target: "pollflip", "the successor (process {pid}) does not die");
            }
            self.feed(Input::Exited(attempt));
            self.carry_out_the_rest();
        }
        self.still_here("the restart was given up");
    }

    fn hand_over(&mut self) {
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        if let Some((barrier, _)) = self.barrier.take() {
            let deadline = self.now() + BARRIER_LIMIT;
            loop {
                let is_over = self.now() >= deadline;
                // The manager may have been too busy to be asked yet.
                self.manager.flush();
                if barrier.answers_within(RETRY) || is_over {
                    break;
                }
            }
        }
    }
}

impl Drop for Restarter {
    fn drop(&mut self) {
        if self.exec.is_anothers() {
            return;
        }
        // It was blocked for the restart thread's sake; its handler stays and does nothing.
        if let Err(error) = self.signal.into_iter().collect::<SigSet>().thread_unblock() {
            log::warn!(target: "pollflip", "cannot unblock the restart signal: {error}");
        }
        self.look_at_probation();
        // It may have committed, and nobody has looked since.
        self.look_at_predecessor();
        match self.machine.state() {
            // It may have been called off just now, and whoever asked has yet to be told.
            State::Closed(_) | State::Idle => self.carry_out_the_rest(),
            State::Spawning { .. } | State::AwaitingReady { .. } | State::Killing { .. } => self.give_up(),
            State::Handoff { .. } => {
                self.hand_over();
                if let State::Handoff { phase: Phase::Committed, .. } = self.machine.state() {
                    self.claim.hand_over();
                }
                return;
            }
        }
        if self.link.is_none() || self.heard.ours {
            if let Some(server) = &mut self.server {
                server.remove_path();
            }
            if let Some(file) = &self.pid_file {
                file.remove(None);
            }
        }
    }
}
