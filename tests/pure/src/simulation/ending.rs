//! How a life ends: everything comes to rest, a restart works, and nothing is left behind.

use std::time::Duration;

use nix::libc;
use pollflip::internals::machine::{LET_GO, Phase, State};
use pollflip::internals::simulation::{self, Struck};

use crate::model::{PROBATION, READY};

use super::act::{OURS, Setting};
use super::client::Client;
use super::manager::Manager;
use super::successor;
use super::surroundings::{strike, wants_to_be_polled};
use super::world::{Life, World};

/// What could not be done for want of something is tried again within that.
const RETRIES: Duration = Duration::from_millis(200);

impl World {
    /// Nothing fails any more, everything that can end ends, and time passes. The program does what it must: it polls when it is told to.
    fn come_to_rest(&mut self) {
        self.around.simulation.calm();
        for successor in &self.successors {
            self.around.simulation.undying(successor.pid, false);
        }
        // Even if the loop has not been woken for them.
        self.clients_must_be_seen();
        self.poll_empty();
        for _ in 0..8 {
            while simulation::run_thread(&mut self.restarter) {}
            self.poll_as_told();
            self.pass(RETRIES);
            self.poll_as_told();
            self.pass(READY.max(PROBATION) * 2);
        }
        self.poll_as_told();
        let deadlines = self.setting.limits();
        let endless = deadlines.ready == Duration::MAX || deadlines.probation == Some(Duration::MAX);
        if endless && !at_rest(self.state()) {
            self.restarter.stop();
            self.pass(READY);
            self.poll_as_told();
        }
        assert!(at_rest(self.state()), "it is stuck\n{}", self.judge.checked);
        // One that was hung up on has lost nothing if that is what a call of the server's has failed with: at once, unless it was being told
        // something, which can be long after it has asked, or could not be taken in before.
        let struck = self.around.simulation.struck();
        let tells = |struck: &Struck| [libc::EPIPE, libc::ENOBUFS].contains(&struck.error);
        let takes_in = |struck: &Struck| struck.file.ends_with("restart_coordination_socket/server.rs");
        let at_once = !struck.iter().any(|struck| tells(struck) || takes_in(struck));
        let dropped = |client: &Client| !struck.is_empty() && client.was_dropped(at_once) || client.has_to_ask_again(self.committed);
        let waiting: Vec<_> = self.clients.iter().filter(|client| client.waits() && !dropped(client)).collect();
        assert!(waiting.is_empty(), "a reply was lost: {waiting:?}, after {struck:?}\n{}", self.judge.checked);
        let heard = self.heard_all();
        if let Some(manager) = self.around.manager.as_ref().filter(|_| heard) {
            assert!(!manager.believes_in_a_reload(), "the unit sticks: {manager:?}\n{}", self.judge.checked);
        }
    }

    fn poll_as_told(&mut self) {
        while wants_to_be_polled(&self.restarter) {
            self.poll_empty();
        }
        self.around.manager.iter_mut().for_each(Manager::attends);
        while wants_to_be_polled(&self.restarter) {
            self.poll_empty();
        }
        self.clients_listen();
    }

    /// Whatever has happened before: the next restart works.
    fn restart_once_more(&mut self) {
        // In a storm: the first of them asks, the others are refused.
        match self.setting.has(Setting::SIGNAL) {
            true => self.signal(5),
            false => self.request().expect("it is idle"),
        }
        self.poll_as_told();
        simulation::run_thread(&mut self.restarter);
        self.look_for_children();
        self.poll_as_told();
        self.successor(|successor| {
            successor.say(successor::HERE);
            successor.say(successor::PULL);
        });
        self.poll_as_told();
        self.handover.take().expect("it was asked for").send();
        self.poll_as_told();
        self.successor(|successor| successor.say(successor::READY));
        self.poll_as_told();
        self.restarter.stop();
        self.poll_as_told();
        // The program lets go of what it has handed over a moment later.
        self.pass(LET_GO);
        self.poll_as_told();
        let last = self.successors.last().expect("it was started");
        assert!(self.completed && last.committed && last.served, "the next restart fails\n{}", self.judge.checked);
    }

    pub(super) fn end(mut self) -> Life {
        if !self.setting.has(Setting::GIVEN_UP) {
            self.come_to_rest();
            if self.state() == State::Idle {
                self.restart_once_more();
            }
        }
        self.around.simulation.calm();
        let committed = matches!(self.state(), State::Handoff { .. });
        let lost_for_good = self.has_lost_for_good();
        drop(self.restarter);
        simulation::end_process();
        if !committed && self.around.predecessor.is_none() {
            self.around.are_clean(&self.judge.checked);
        }
        self.around.clear();
        if self.setting.has(Setting::SIGNAL) {
            // It does nothing any more.
            strike(OURS, 2);
        }
        for successor in &mut self.successors {
            successor.listen();
        }
        // Whatever still waited for it was told before the end.
        if let Some(last) = self.successors.last().filter(|_| committed) {
            self.judge.lost_for_good = lost_for_good;
            self.judge.is_final(last.pid, &self.around.simulation.children(), &self.successors);
        }
        for (child, successor) in self.around.simulation.children().iter().zip(&self.successors) {
            let kept = successor.committed || child.ended && child.reaped || child.killed && !child.ended;
            let last = successor.pid == self.successors.last().map_or(0, |last| last.pid);
            assert!(
                kept || committed && last,
                "a child is left to itself: {child:?}, which said {:?}\n{}",
                successor.said,
                self.judge.checked
            );
        }
        let (now, struck) = (self.around.simulation.passed(), self.around.simulation.struck());
        self.clients.iter_mut().for_each(|client| client.listen(now, !struck.is_empty()));
        Life { checked: self.judge.checked, struck, happened: self.happened }
    }
}

fn at_rest(state: State) -> bool {
    matches!(state, State::Idle | State::Closed(_) | State::Handoff { phase: Phase::Committed, .. })
}
