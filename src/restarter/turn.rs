//! One turn of the loop: what is ready becomes input.

use std::time::Duration;

use crate::machine::{Input, State};

use super::Restarter;
use super::reactor::{DRAINING, earliest};

/// How often a lifeline is looked at for more when a deadline has passed: it holds some 300 messages, all of which have come in time.
const LOOKS: usize = 8;

/// How soon a timer that cannot be set is tried again.
const TIMER_RETRY: Duration = Duration::from_millis(100);

impl Restarter {
    /// Takes in what the inner poll has, and deals with it in a fixed order: the restart thread, the successor (its lifeline, its end), the
    /// predecessor, those who ask, the service manager, the clock. `false`: there was nothing.
    pub(super) fn turn(&mut self) -> bool {
        // The time by which deadlines are judged is that before anything is read: this process may be stopped at any point, and what has been
        // said meanwhile came in time.
        let now = self.reactor.now();
        let Some(ready) = self.reactor.collect() else { return false };
        self.look_at_successor(now);
        self.poll_ancestry();
        if ready.has(DRAINING) {
            self.ancestry.forget_the_ended(&self.reactor);
        }
        let mut inputs = Vec::new();
        self.requests.poll(&ready, &self.reactor, &mut inputs);
        self.take_up(&mut inputs);
        self.requests.admit(now, &ready, &self.reactor, &mut inputs);
        self.take_up(&mut inputs);
        self.look_at_manager();
        self.driver.feed(now, Input::Timeout);
        self.rearm();
        true
    }

    /// The restart thread, and the successor: what it has said until now, if there is a deadline that has passed.
    pub(super) fn look_at_successor(&mut self, now: Duration) {
        let mut inputs = Vec::new();
        self.succession.poll_thread(&self.reactor, &mut inputs);
        self.feed_all(inputs.drain(..));
        if let State::AwaitingReady { attempt, .. } = self.driver.state() {
            // At the latest before the grant; the sooner, the less is done for nothing.
            inputs.extend(self.lacks_sockets(attempt));
            self.feed_all(inputs.drain(..));
        }
        let looks = if self.driver.is_due(now) { LOOKS } else { 1 };
        for _ in 0..looks {
            let more = self.succession.poll(&self.reactor, &mut inputs);
            self.feed_all(inputs.drain(..));
            if !more {
                break;
            }
        }
    }

    pub(super) fn look_at_manager(&mut self) {
        let mut inputs = Vec::new();
        self.manager.poll(&self.reactor, &mut inputs);
        self.feed_all(inputs);
    }

    /// What those who ask want: restarts, or to know where the service stands.
    fn take_up(&mut self, requests: &mut Vec<Input>) {
        self.feed_all(requests.drain(..));
        if self.requests.wants_status() {
            let status = self.status();
            self.requests.answer_status(&status, &self.reactor);
        }
    }

    pub(super) fn poll_ancestry(&mut self) {
        if self.ancestry.poll() {
            while let Some(output) = self.ancestry.next_output() {
                self.carry_out_takeover(output);
            }
            self.requests.open(&self.reactor);
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        if let Input::Request(_) = input {
            self.look_for_obstacles();
        }
        self.driver.feed(self.reactor.now(), input);
    }

    pub(super) fn feed_all(&mut self, inputs: impl IntoIterator<Item = Input>) {
        inputs.into_iter().for_each(|input| self.feed(input));
    }

    /// Finds out what forbids a restart now.
    pub(super) fn look_for_obstacles(&mut self) {
        self.ancestry.forget_the_ended(&self.reactor);
        let (draining, oldest) = self.ancestry.draining();
        let obstacle = self.ancestry.refusal().or_else(|| self.preconditions.refusal(draining, oldest));
        self.driver.set_obstacle(obstacle);
    }

    pub(super) fn rearm(&mut self) {
        let now = self.reactor.now();
        let due = earliest([
            self.driver.next_deadline(),
            self.succession.next_deadline(now),
            self.ancestry.next_deadline(now),
            self.requests.next_deadline(),
            self.manager.next_deadline(now),
        ]);
        if !self.reactor.arm(due) {
            self.succession.wake_loop_in(due.map_or(TIMER_RETRY, |(at, _)| at.saturating_sub(now).min(TIMER_RETRY)));
        }
    }
}
