//! The processes before this one: the predecessor, and those that still finish their work.
//!
//! Knows: the predecessor, the takeover machine, and the pidfds of those that drain. Does not know: what the service consists of.

mod guarded;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Refusal};
use crate::handover::Inheritance;
use crate::machine::{Input, Stage, TakeoverInput, TakeoverNotice, TakeoverOutput};
use crate::predecessor::{Ahead, Link, Predecessor, SharedTakeover, say_ready};
use crate::sys::Process;
use crate::wire::Outcome;

pub(super) use guarded::Guarded;

use super::part::{Moment, Part};
use super::reactor::{DRAINING, Deadline, Due, PREDECESSOR, Reactor, earliest};

/// Who came before.
#[derive(Debug)]
pub(super) struct Ancestry {
    link: Option<Arc<Link>>,
    takeover: Arc<SharedTakeover>,
    /// Processes before the predecessor that still finish their work, the oldest first.
    draining: Vec<Process>,
    /// Those of them that have ended, and the program has not been told of.
    ended: VecDeque<u32>,
    guarded: Guarded,
    /// What the predecessor has left undone, and this process cannot do.
    problem: Option<String>,
}

impl Ancestry {
    pub(super) fn new(link: Option<Arc<Link>>, takeover: Arc<SharedTakeover>, draining: Vec<Process>, guarded: Guarded) -> Ancestry {
        Ancestry { link, takeover, draining, ended: VecDeque::new(), guarded, problem: None }
    }

    /// Has the reactor watch all of them.
    pub(super) fn watch(link: Option<&Link>, draining: &[Process], reactor: &Reactor) -> Result<(), Error> {
        if let Some(link) = link {
            reactor.watch(link.line().as_fd(), PREDECESSOR)?;
            reactor.watch(link.process().as_fd(), PREDECESSOR)?;
        }
        draining.iter().try_for_each(|process| reactor.watch(process.as_fd(), DRAINING))
    }

    /// The next thing that the takeover machine has for the loop.
    pub(super) fn next_output(&mut self) -> Option<TakeoverOutput> {
        self.takeover.poll_output()
    }

    /// This has not been told, and the restarter is dropped.
    pub(super) fn put_back(&self, notice: TakeoverNotice) {
        self.takeover.put_back(notice);
    }

    /// What has come ahead of the state, if the loop is to tell it.
    pub(super) fn next_arrival(&self) -> Option<Ahead> {
        self.link.as_ref()?.next_arrival()
    }

    /// The state, when it has come.
    pub(super) fn inherited(&self) -> Option<Inheritance> {
        self.link.as_ref()?.inherited()
    }

    /// Asks anew to end with the guard, if there is one: a change of user has taken that away, or the end of the predecessor has made the
    /// guard the parent.
    pub(super) fn stay_with_guard(&self) {
        self.guarded.stay();
    }

    /// Says that this process can serve, if it may.
    pub(super) fn say_ready(&self) {
        say_ready(&self.takeover, self.link.as_deref());
    }

    /// Lets go of earlier generations that have ended. No longer watched first: a successor may have their descriptors too.
    pub(super) fn forget_the_ended(&mut self, reactor: &Reactor) {
        self.guarded.look(reactor);
        // The process that serves is told.
        let is_granted = self.is_granted();
        self.draining.retain(|process| {
            let lives = !process.has_ended();
            if !lives {
                reactor.unwatch(process.as_fd());
                self.takeover.feed_now(TakeoverInput::GenerationEnded);
                if is_granted {
                    self.ended.push_back(process.pid());
                    // What comes of it is taken up by the next turn.
                    reactor.wake();
                }
            }
            lives
        });
    }

    /// The generation of which the program is told that it has ended. One notice may be for several: then there is another one.
    pub(super) fn next_ended(&mut self, reactor: &Reactor) -> Option<u32> {
        let ended = self.ended.pop_front();
        if !self.ended.is_empty() {
            self.takeover.feed_now(TakeoverInput::GenerationEnded);
            reactor.wake();
        }
        ended
    }

    /// How many earlier generations still finish their work, and the oldest of them.
    pub(super) fn draining(&self) -> (usize, u32) {
        let predecessor = self.predecessor_process();
        let oldest = self.draining.first().or(predecessor).map_or(0, Process::pid);
        (self.draining.len() + usize::from(predecessor.is_some()), oldest)
    }

    /// Those of them that live, the oldest first.
    pub(super) fn living(&self) -> impl Iterator<Item = &Process> {
        self.draining.iter().filter(|process| !process.has_ended()).chain(self.predecessor_process())
    }

    /// The process ids of those, and no others.
    pub(super) fn living_pids(&self) -> Vec<u32> {
        self.living().map(Process::pid).collect()
    }

    fn predecessor_process(&self) -> Option<&Process> {
        self.link.as_ref().and_then(|link| link.living())
    }

    pub(super) fn predecessor_lives(&self) -> bool {
        self.predecessor_process().is_some()
    }

    pub(super) fn predecessor(&self) -> Option<Predecessor> {
        self.link.clone().map(Predecessor::new)
    }

    /// The process id of the predecessor, if there was one.
    pub(super) fn predecessor_pid(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.pid())
    }

    /// How many restarts lie behind this process.
    pub(super) fn generation(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.generation())
    }

    /// How the last restarts have ended.
    pub(super) fn outcomes(link: Option<&Link>) -> Vec<Outcome> {
        link.map(Link::outcomes).unwrap_or_default()
    }

    /// Why a request for a restart would be refused.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.takeover.refusal()
    }

    /// Whether the predecessor has granted the service and can still take it back.
    pub(super) fn is_on_probation(&self) -> bool {
        matches!(self.takeover.stage(), Stage::Granted { .. })
    }

    /// Whether nobody before this process can grant the service, as it is now: there was no predecessor, or it has ended.
    pub(super) fn has_ended_before_the_grant(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.has_ended() && self.is_alone())
    }

    /// Whether the predecessor had ended before it granted the service.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.takeover.stage(), Stage::Alone { .. })
    }

    /// Whether the service is this process's, be it on probation.
    pub(super) fn is_granted(&self) -> bool {
        match self.takeover.stage() {
            Stage::Granted { .. } | Stage::Final { .. } | Stage::Alone { ready: true, .. } => true,
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::Alone { ready: false, .. } | Stage::GivenUp { .. } => false,
        }
    }

    /// The service is this process's: where the predecessor has ended before that, or could not set it back, this process is still the
    /// first that the kernel ends when memory is short.
    pub(super) fn settle_memory(&mut self) {
        let Some(score) = self.link.as_ref().and_then(|link| link.take_score()) else { return };
        match score.restore() {
            Ok(None) => {}
            Ok(Some(before)) => {
                log::info!(target: "pollflip", "the oom_score_adj of this process is {before} again, not by its predecessor")
            }
            Err(error) => {
                let problem = format!(
                    "the kernel ends this process first when memory is short: its oom_score_adj is still 1000, as before the restart was \
                     final, and cannot be set back: {error}"
                );
                log::warn!(target: "pollflip", "{problem}");
                self.problem = Some(problem);
            }
        }
    }

    /// What an operator has to know.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The path of this program, if it is the very file that the predecessor executes.
    pub(super) fn same_program(&self) -> Option<&str> {
        self.link.as_ref()?.again()
    }

    /// Whether nobody before this process has a claim to the service.
    pub(super) fn is_sole(&self) -> bool {
        self.takeover.is_sole()
    }
}

impl Part for Ancestry {
    /// Reads what the predecessor has said, unless another thread waits for it, which wakes the loop when it is done. What comes of it is
    /// the takeover machine's, and no input.
    fn poll(&mut self, moment: &Moment, reactor: &Reactor, _: &mut Vec<Input>) {
        if let Some(link) = &self.link {
            link.look();
        }
        if moment.ready.has(DRAINING) {
            self.forget_the_ended(reactor);
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Due> {
        let link = self.link.as_ref()?;
        earliest([
            link.next_timeout().map(|left| (now + left, Deadline::Takeover)),
            link.line().retry_in().map(|left| (now + left, Deadline::UnsentUp)),
        ])
    }
}
