//! One turn of the loop: what is ready becomes input.

use std::time::Duration;

use crate::machine::{Input, State};

use super::Restarter;
use super::part::{Moment, Part};
use super::reactor::earliest;

/// How soon a timer that cannot be set is tried again.
const TIMER_RETRY: Duration = Duration::from_millis(100);

impl Restarter {
    /// Takes in what the inner poll has, and deals with it in a fixed order: the restart thread and the successor (its lifeline, its end), the
    /// predecessor, those who ask, the service manager, the clock. `false`: there was nothing.
    pub(super) fn turn(&mut self) -> bool {
        let now = self.reactor.now();
        let Some(ready) = self.reactor.collect() else { return false };
        let moment = Moment { now, ready, is_late: self.driver.is_due(now) };
        self.poll_succession(&moment);
        self.poll_ancestry(&moment);
        self.poll_requests(&moment);
        self.poll_manager(&moment);
        self.driver.feed(now, Input::Timeout);
        self.rearm();
        true
    }

    pub(super) fn poll_succession(&mut self, moment: &Moment) {
        let mut inputs = Vec::new();
        if let State::AwaitingReady { attempt, .. } = self.driver.state() {
            // At the latest before the grant; the sooner, the less is done for nothing.
            inputs.extend(self.lacks_sockets(attempt));
        }
        self.succession.poll(moment, &self.reactor, &mut inputs);
        self.feed_all(inputs);
    }

    /// What comes of it is the takeover machine's, which has outputs of its own.
    pub(super) fn poll_ancestry(&mut self, moment: &Moment) {
        let mut inputs = Vec::new();
        self.ancestry.poll(moment, &self.reactor, &mut inputs);
        self.feed_all(inputs);
        while let Some(output) = self.ancestry.next_output() {
            self.carry_out_takeover(output);
        }
        self.requests.open(&self.reactor);
    }

    /// Those who are there are answered before others are admitted: that makes room.
    fn poll_requests(&mut self, moment: &Moment) {
        let mut inputs = Vec::new();
        self.requests.poll(moment, &self.reactor, &mut inputs);
        self.take_up(inputs.drain(..));
        self.requests.admit(moment, &self.reactor, &mut inputs);
        self.take_up(inputs.drain(..));
    }

    pub(super) fn poll_manager(&mut self, moment: &Moment) {
        self.tell_keeper();
        let mut inputs = Vec::new();
        self.manager.poll(moment, &self.reactor, &mut inputs);
        self.feed_all(inputs);
    }

    /// What those who ask want: restarts, or to know where the service stands.
    fn take_up(&mut self, requests: impl IntoIterator<Item = Input>) {
        self.feed_all(requests);
        if self.requests.wants_status() {
            let status = self.status();
            self.requests.answer_status(&status, &self.reactor);
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
        let living = self.ancestry.living_pids();
        let full = !self.sockets.have_room(|pid| living.contains(&pid));
        let obstacle = self.ancestry.refusal().or_else(|| self.preconditions.refusal(draining, oldest, full));
        self.driver.set_obstacle(obstacle);
    }

    pub(super) fn rearm(&mut self) {
        let now = self.reactor.now();
        let due = earliest([
            self.driver.next_deadline(),
            self.succession.next_deadline(now),
            self.ancestry.next_deadline(now),
            self.requests.next_deadline(now),
            self.manager.next_deadline(now),
        ]);
        if !self.reactor.arm(due) {
            self.succession.wake_loop_in(due.map_or(TIMER_RETRY, |(at, _)| at.saturating_sub(now).min(TIMER_RETRY)));
        }
    }
}
