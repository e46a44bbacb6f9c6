//! How a restarter ends.

use std::thread;
use std::time::Duration;

use crate::machine::{COMMIT_TIMEOUT, Input, Notice, Output, Phase, State};
use crate::sys;

use super::Restarter;
use super::part::Moment;

/// How long what is under way may take to its end when nobody will poll again: longer than the machine waits for anybody, since this
/// process may be stopped at any point. A successor that the kernel cannot tell learns of the commit by the end of this process.
const END_LIMIT: Duration = COMMIT_TIMEOUT.saturating_add(Duration::from_millis(100));
/// How soon is looked again although nothing came.
const RETRY: Duration = Duration::from_millis(10);

impl Restarter {
    /// Does what is still to be done, when nobody will poll again: a restart that cannot be taken back any more comes to its end, a child
    /// that was given up too, and those who asked are told.
    pub(super) fn carry_out_the_rest(&mut self) {
        let mut now = Duration::ZERO;
        let mut deadline = None;
        loop {
            self.carry_out_actions();
            match self.driver.state() {
                State::Killing { .. } | State::Handoff { phase: Phase::Committing { .. }, .. } => {}
                State::Handoff { phase: Phase::LettingGo { .. }, .. } => {
                    self.feed(Input::GivingUp);
                    return self.carry_out_actions();
                }
                _ => return,
            }
            if now >= *deadline.get_or_insert_with(|| self.reactor.now() + END_LIMIT) {
                if let State::Killing { pid, .. } = self.driver.state() {
                    log::warn!(target: "pollflip", "the successor (process {pid}) does not die");
                }
                self.feed(Input::GivingUp);
                return self.carry_out_actions();
            }
            if !sys::has_waited(RETRY) {
                self.wait_for_news();
            }
            now = self.reactor.now();
            let moment = Moment { is_late: self.driver.is_due(now), ..Moment::at(now) };
            self.poll_succession(&moment);
            self.poll_manager(&moment);
            self.driver.feed(now, Input::Timeout);
        }
    }

    /// An end is heard of at once; what the kernel or the service manager has no room for is tried again.
    fn wait_for_news(&mut self) {
        if let State::Killing { .. } = self.driver.state() {
            sys::is_readable_within(&self.reactor, RETRY);
            self.reactor.collect();
        } else {
            thread::sleep(RETRY);
        }
    }

    /// Nobody is left to hear of events, but for those of the predecessor: there may be another restarter.
    fn carry_out_actions(&mut self) {
        while let Some(output) = self.driver.next_output() {
            match output {
                Output::Action(action) => self.carry_out(action),
                Output::Notice(Notice::Predecessor(notice)) => self.ancestry.put_back(notice),
                Output::Notice(_) => {}
            }
        }
    }

    /// Ends what is under way, when nobody will poll again. A successor that is not ready is killed: before the lifeline closes, so that it
    /// does not take this process for dead and the service for its own. Those who wait are told.
    fn end(&mut self) {
        let is_under_way = self.driver.state().under_way_since().is_some();
        self.feed(Input::Dropped);
        self.carry_out_the_rest();
        if is_under_way && !matches!(self.driver.state(), State::Handoff { .. }) {
            self.manager.still_here("the restart was given up");
        }
        self.tell_the_rest();
    }

    /// What the service manager had no room for. What it keeps, and should not keep any more, the next start would find.
    fn tell_the_rest(&mut self) {
        let deadline = self.reactor.now() + END_LIMIT;
        while self.manager.has_more_to_tell() && self.reactor.now() < deadline {
            if !sys::has_waited(RETRY) {
                // Nothing that comes matters any more. A loop that is confined may poll, and not sleep.
                sys::is_readable_within(&self.reactor, RETRY);
                self.reactor.collect();
            }
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
        self.poll_ancestry(&Moment::default());
        self.end();
        if let State::Handoff { .. } = self.driver.state() {
            self.keeper.close();
            return self.claim.hand_over();
        }
        if self.ancestry.is_sole() {
            self.requests.remove_path();
            self.paths.remove();
        }
    }
}
