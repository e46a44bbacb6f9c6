//! How a restarter ends.

use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::machine::{Input, KILL_TIMEOUT, Output, Phase, State};
use crate::systemd::BARRIER_LIMIT;

use super::Restarter;

impl Restarter {
    /// Does what is still to be done of a restart that cannot be taken back any more, when nobody will poll again.
    pub(super) fn carry_out_the_rest(&mut self) {
        while let Some(output) = self.next_output() {
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
            && let Some(process) = self.current.as_ref().and_then(|current| current.process.as_ref())
        {
            process.kill();
            if process.wait(KILL_TIMEOUT).is_none() {
                log::warn!(target: "pollflip", "the successor (process {pid}) does not die");
            }
            self.feed(Input::Exited(attempt));
            self.carry_out_the_rest();
        }
        self.manager.still_here("the restart was given up");
    }

    fn hand_over(&mut self) {
        self.feed(Input::Stop);
        self.carry_out_the_rest();
        if let Some((barrier, _)) = self.barrier.take() {
            let deadline = self.now() + BARRIER_LIMIT;
            // The manager may have been too busy to be asked yet.
            while !barrier.answers_within(Duration::from_millis(10)) && self.now() < deadline {
                self.manager.flush();
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
                file.remove();
            }
        }
    }
}
