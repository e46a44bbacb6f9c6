//! What the program hears, and whether it is true.

use std::fs;
use std::time::Duration;

use nix::libc;
use pollflip::internals::machine::{Action, Input, Output, State};
use pollflip::internals::simulation::{self, Step};
use pollflip::{Event, Failure};

use super::manager::Manager;
use super::predecessor::Predecessor;
use super::successor::Successor;
use super::world::{BUSY, Happening, World};

/// Why something cannot be sent for a while.
const FOR_A_WHILE: [i32; 3] = [libc::EAGAIN, libc::ENOBUFS, libc::ETOOMANYREFS];
/// How long the service manager is waited for.
const BARRIER_LIMIT: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn hear(&mut self, event: Option<Event>) -> bool {
        self.judge();
        self.judge.hears(event.as_ref());
        let any = event.is_some();
        self.at_it = any;
        if self.completed {
            assert!(
                matches!(
                    event,
                    None | Some(
                        Event::SuccessorGone(_) | Event::PredecessorGone | Event::Inherited(_) | Event::Arrived(_) | Event::ArrivedAll
                    )
                ),
                "{event:?}"
            );
        }
        let now = self.now();
        match event {
            Some(Event::PrecopyRequested(precopy)) => self.precopy = Some(precopy),
            Some(Event::StateRequested(handover)) => {
                (self.handover, self.incomplete, self.frozen) = (Some(handover), self.incomplete_ahead, true);
            }
            Some(Event::Failed(Failure::Spawn(error))) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                assert!(now - self.began >= BUSY, "it is not tried again: {error}\n{}", self.judge.checked);
            }
            Some(Event::Restarting) => {
                self.began = now;
                (self.precopy, self.incomplete_ahead, self.frozen) = (None, false, false);
            }
            Some(Event::Completed(pid)) => {
                self.completed = true;
                self.is_known_to_all(pid);
            }
            Some(Event::Inherited(_)) => self.pulled = false,
            Some(Event::GivenUp(_)) => {
                assert!(!self.hears_predecessor(), "nobody has given it up\n{}", self.judge.checked);
            }
            _ => {}
        }
        if !any {
            self.clients_must_be_seen();
        }
        self.clients_listen();
        if !any && let Some(before) = self.signalled.take() {
            assert!(self.asks > before, "a signal was lost\n{}", self.judge.checked);
            self.happened.insert(Happening::Signal);
        }
        any
    }

    /// Whether the lifeline to the predecessor is whole, so that only a word of that one can give this process up.
    pub(super) fn hears_predecessor(&self) -> bool {
        self.around.predecessor.as_ref().is_some_and(Predecessor::is_open) && !self.has_lost_a_lifeline()
    }

    pub(super) fn judge(&mut self) {
        self.look_for_children();
        let steps = simulation::steps(&mut self.restarter);
        let now = self.now();
        for step in &steps {
            match step {
                Step::In(_, Input::Request(_)) => self.asks += 1,
                Step::Out(Output::Action(Action::Spawn(_))) => self.wants_one = true,
                Step::Out(Output::Action(Action::Abandon(_))) => self.wants_one = false,
                Step::Out(Output::Action(Action::Commit(_))) => self.committed = Some(now),
                _ => {}
            }
        }
        assert!(self.asks <= self.may_ask, "nobody asked\n{}", self.judge.checked);
        let state = simulation::state(&self.restarter);
        self.successors.iter_mut().for_each(Successor::listen);
        self.judge.lost_for_good = self.has_lost_for_good();
        self.judge.unreadable = self.has_lost_a_lifeline();
        self.judge.sees(steps, state, &self.around.simulation.children(), &self.successors);
        let served = self.successors.last().is_some_and(|last| last.served);
        assert!(!(self.incomplete && served), "something is missing from the state\n{}", self.judge.checked);
    }

    pub(super) fn look_for_children(&mut self) {
        for child in self.around.simulation.children().iter().skip(self.successors.len()) {
            match self.around.simulation.lifeline(child.pid) {
                Some(line) => self.successors.push(Successor::new(child.pid, line)),
                None => self.successors.push(Successor::stillborn(child.pid)),
            }
        }
        for (successor, child) in self.successors.iter_mut().zip(self.around.simulation.children()) {
            if child.ended {
                successor.listen();
                successor.close();
            }
        }
    }

    pub(super) fn clients_listen(&mut self) {
        let now = self.now();
        self.clients.iter_mut().for_each(|client| client.listen(now, self.faulty));
    }

    /// The loop has turned, or must have, and takes clients in.
    pub(super) fn clients_must_be_seen(&mut self) {
        self.serves |= self.around.predecessor.as_ref().is_none_or(Predecessor::is_gone) || self.state() == State::Idle;
        let now = self.now();
        if self.serves && !self.completed {
            self.clients.iter_mut().for_each(|client| client.has_been_seen(now));
        }
    }

    /// Whoever has to know which process serves does.
    fn is_known_to_all(&mut self, pid: u32) {
        let given_up_on = self.committed.is_some_and(|at| self.now() >= at + BARRIER_LIMIT);
        let heard = self.heard_all() && !given_up_on;
        self.happened.extend(self.around.manager.as_ref().map(|manager| match manager {
            Manager { hears_all: false, .. } => Happening::ManagerGone,
            Manager { answered: true, .. } => Happening::Answered,
            _ => Happening::Unanswered,
        }));
        if let Some(manager) = self.around.manager.as_ref().filter(|_| heard) {
            assert!(manager.answered && manager.follows(pid), "it goes on without {manager:?}\n{}", self.judge.checked);
        }
        if let Some(path) = self.around.pid_file.as_ref().filter(|_| !self.faulty) {
            assert_eq!(fs::read_to_string(path).ok(), Some(format!("{pid}\n")));
        }
    }

    /// A packet that the kernel will not take at any time.
    pub(super) fn has_lost_for_good(&self) -> bool {
        self.around.simulation.struck().iter().any(|struck| struck.error == libc::EPERM)
    }

    /// A lifeline that cannot be read at any time.
    fn has_lost_a_lifeline(&self) -> bool {
        self.around.simulation.struck().iter().any(|struck| struck.error == libc::EBADF)
    }

    /// Nothing that was meant for the service manager has been lost: a call that failed is tried again.
    pub(super) fn heard_all(&self) -> bool {
        let lossless = self.around.simulation.struck().iter().all(|struck| FOR_A_WHILE.contains(&struck.error));
        lossless && self.around.manager.as_ref().is_some_and(|manager| manager.hears_all)
    }
}
