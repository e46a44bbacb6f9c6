//! What can happen next.
//!
//! Knows: which acts are possible where, and which of them come without anybody doing anything new. Does not know: what an act does.

use super::automaton::{is_awaiting, is_final};
use super::room::Room;
use super::search::Run;
use super::setting::{Act, Power, Step};
use super::world::{Barrier, Copying, Handover, Life, Manager, Shortage, Thread, World};

/// Whether it comes without anybody doing anything new.
pub fn is_due(world: &World, act: Act) -> bool {
    let has_begun = |life: Life| matches!(life, Life::Dying | Life::Closed);
    match act {
        Act::OldEnds => has_begun(world.old.life),
        Act::New(which, Step::Ends) => world.get(which).is_some_and(|of| has_begun(of.life)),
        Act::New(which, Step::WrapperEnds) => world.get(which).is_some_and(|of| of.life == Life::Ended),
        _ => act.is_due(),
    }
}

impl Run<'_> {
    pub fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::with_capacity(24);
        let old = self.world.old;
        if old.life != Life::Ended {
            acts.push(Act::OldEnds);
        }
        if old.life == Life::Alive {
            self.acts_of_the_old(&mut acts);
        }
        let mut steps = Vec::new();
        for (which, of) in self.world.successors() {
            if of.life != Life::Unborn {
                self.steps_of(which, of, &mut steps);
                acts.extend(steps.drain(..).map(|step| Act::New(which, step)));
            }
        }
        acts
    }

    fn acts_of_the_old(&self, acts: &mut Vec<Act>) {
        let World { old, current, earlier } = &self.world;
        let setting = &self.pair.setting;
        if old.dropped {
            return;
        }
        let facts = self.pair.restarts.facts(old.machine);
        acts.push(Act::Poll);
        if facts.waits {
            acts.push(Act::PollAtDeadline);
        }
        if facts.willing && facts.queue.len() < 4 {
            acts.push(Act::Request);
        }
        if setting.has(Power::Predecessor) && !facts.queue.iter().any(|output| output == "Predecessor") {
            acts.push(Act::Hear);
        }
        if facts.room == Room::Spawning || is_awaiting(facts.room) {
            acts.push(Act::Cancel);
        }
        if !matches!(facts.room, Room::Stopping | Room::Broken) && !is_final(facts.room) {
            acts.push(Act::Stop);
        }
        acts.push(Act::Drop);
        if facts.queue.iter().any(|output| output == "Spawn(0)") && !old.lineless {
            acts.push(Act::NoLifeline);
        }
        if setting.has(Power::Steering) && is_awaiting(facts.room) && !old.unsteerable {
            acts.push(Act::Unsteerable);
        }
        let is_busy = earlier.is_some_and(|earlier| earlier.late) || current.is_some_and(|current| current.late);
        match old.thread {
            Thread::Ordered if !is_busy => {
                acts.extend([Act::ThreadStarts, Act::ThreadFails]);
                if setting.has(Power::Wrapper) && earlier.is_none() {
                    acts.push(Act::ThreadStartsWrapper);
                }
            }
            Thread::Starting => acts.push(Act::ThreadReports),
            _ => {}
        }
        if !old.thread_lost && old.thread != Thread::Starting && !is_busy {
            acts.push(Act::ThreadLost);
        }
        if let Some(current) = current {
            if current.held.handover == Handover::Open {
                acts.extend([Act::Give, Act::FailToGive]);
            }
            if current.held.copy != Copying::None {
                acts.extend([Act::EndAhead, Act::FailAhead]);
            }
            if current.held.copy == Copying::Open && !current.sent_ahead {
                acts.push(Act::GiveAhead);
            }
            if setting.has(Power::Helpers) && !current.line.old_copied && current.line.old_end {
                acts.push(Act::OldHelper);
            }
            if setting.has(Power::Refusals) && !current.line.unsent_by_old.is_empty() {
                acts.push(Act::KernelRefuses);
            }
            if setting.has(Power::Stalls) {
                acts.push(if old.stalled { Act::OldGoesOn } else { Act::OldStalls });
            }
            if setting.has(Power::Shortages) {
                match old.shortage {
                    // It matters where there is something to read.
                    Shortage::None if !current.held.process || current.held.closed => {}
                    Shortage::None if current.line.to_old.is_empty() && !current.new_end_is_closed() => {}
                    Shortage::None => acts.push(Act::OldShort),
                    Shortage::Short => acts.extend([Act::OldReads, Act::OldStaysShort]),
                    Shortage::Long => acts.push(Act::OldReads),
                }
            }
            if setting.has(Power::Manager) {
                // It is told nothing before that could be late.
                match old.manager {
                    Manager::Attends if current.held.granted && !matches!(facts.room, Room::LettingGo | Room::Committed) => {
                        acts.extend([Act::ManagerBusy, Act::ManagerShort]);
                    }
                    Manager::Attends => {}
                    Manager::Busy | Manager::Short => acts.push(Act::ManagerAttends),
                }
                if old.barrier == Barrier::Asked && !old.naming {
                    acts.push(Act::ManagerAnswers);
                }
            }
        }
    }
}
