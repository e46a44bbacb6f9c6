//! What must hold: at every point, and where nothing is left to deliver.
//!
//! Knows: what is seen from outside of both processes. Does not know: which step led there.

use std::fmt;

use pollflip::internals::machine::{Line, Stage};

use super::automaton::{is_final, is_killing};
use super::room::Room;
use super::search::Run;
use super::world::{Life, Successor, Which, Wrapper};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    TwoOwners,
    NoOwner,
    Ticket,
    Stray,
    GivenUpServes,
    AfterCommit,
    TakenTwice,
    Ungranted,
    DeadGranted,
    OnProbation,
    StateMissing,
    AheadMissing,
    AheadKept,
    OneAtATime,
    EndUnreported,
    FlowsAstray,
    Unheld,
    DrainedHeld,
    HeldForNobody,
    Stuck,
    Endless,
}

impl Law {
    pub const ALL: [Law; 21] = [
        Law::TwoOwners,
        Law::NoOwner,
        Law::Ticket,
        Law::Stray,
        Law::GivenUpServes,
        Law::AfterCommit,
        Law::TakenTwice,
        Law::Ungranted,
        Law::DeadGranted,
        Law::OnProbation,
        Law::StateMissing,
        Law::AheadMissing,
        Law::AheadKept,
        Law::OneAtATime,
        Law::EndUnreported,
        Law::FlowsAstray,
        Law::Unheld,
        Law::DrainedHeld,
        Law::HeldForNobody,
        Law::Stuck,
        Law::Endless,
    ];
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Law::TwoOwners => "never two owners",
            Law::NoOwner => "never none while a process lives that was not told to end",
            Law::Ticket => "every ticket is answered exactly once",
            Law::Stray => "every process that was born is killed, dead, awaited or handed off",
            Law::GivenUpServes => "a process that was given up never serves",
            Law::AfterCommit => "after the commit the old process never serves again",
            Law::TakenTwice => "the service is taken once",
            Law::Ungranted => "nobody serves before it was granted or left alone",
            Law::DeadGranted => "a process that has ended is granted nothing",
            Law::OnProbation => "nobody restarts while on probation",
            Law::StateMissing => "a state that was asked for is taken, or the process does not serve unless alone",
            Law::AheadMissing => "what has gone ahead is there when its state is",
            Law::AheadKept => "what has come ahead is closed when its state cannot come",
            Law::OneAtATime => "a successor is started only when the one before is gone or out of reach",
            Law::EndUnreported => "after the commit the end of the successor is reported",
            Law::FlowsAstray => "new flows go to the one that serves, or is about to be granted the service",
            Law::Unheld => "what the one that serves has is held, whenever a kill comes",
            Law::DrainedHeld => "what is drained is not held any more when the successor becomes the main process",
            Law::HeldForNobody => "nothing is held of a process that has not got the service",
            Law::Stuck => "nobody waits for what does not come",
            Law::Endless => "what is on its way arrives",
        })
    }
}

impl Run<'_> {
    pub fn breaks(&mut self, law: Law) {
        if !self.pair.setting.waived.contains(&law) {
            self.broken.get_or_insert(law);
        }
    }

    fn holds(&mut self, holds: bool, law: Law) {
        if !holds {
            self.breaks(law);
        }
    }

    /// What holds at every point.
    pub fn judge(&mut self) {
        let old = self.world.old;
        if old.life == Life::Alive && !old.dropped && !self.pair.refuses_once(old.machine) {
            self.breaks(Law::Ticket);
        }
        let new_owners = self.world.successors().filter(|(_, of)| self.serves(of)).count();
        self.holds(new_owners + usize::from(old.life == Life::Alive && old.serves) < 2, Law::TwoOwners);
        self.holds(!(old.life == Life::Alive && old.serves && old.committed), Law::AfterCommit);
        self.holds(!(old.life == Life::Alive && old.serves) || old.stored || old.stopped, Law::Unheld);
        for which in [Which::Current, Which::Earlier] {
            let Some(of) = self.world.get(which).copied() else { continue };
            let has_grant = of.granted && of.life == Life::Alive && !of.killed && !of.given_up;
            self.holds(!has_grant || of.steered || old.life == Life::Ended, Law::FlowsAstray);
            if self.serves(&of) {
                self.holds(of.granted || old.life == Life::Ended, Law::Ungranted);
                self.holds(!of.given_up, Law::GivenUpServes);
                let is_alone = matches!(self.stage_of(&of), Some(Stage::Alone { .. }));
                // One that was given up, and is left alone before it knows, has what it has held when it takes the service.
                self.holds(of.stored || (is_alone && !of.took_service), Law::Unheld);
                self.holds(is_alone || !(of.asked || of.precopied) || of.taken, Law::StateMissing);
            }
            if let Some(stage) = self.stage_of(&of).filter(|_| of.life == Life::Alive) {
                let may_come = match stage {
                    Stage::Starting { line: Line::Open, state } => state.is_coming(),
                    // It serves with its state, or `StateMissing` is broken.
                    Stage::ReadySent { .. } | Stage::Granted { .. } | Stage::Final { .. } => true,
                    Stage::Starting { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => false,
                };
                let is_here = of.taken || self.has_state(&of);
                self.holds(!of.holds_ahead || may_come || is_here, Law::AheadKept);
            }
            if of.life == Life::Alive && of.takeover.is_some() && self.would_restart(which) {
                let is_final = old.committed || is_final(self.pair.restarts.facts(old.machine).room);
                self.holds(old.life == Life::Ended || is_final, Law::OnProbation);
            }
        }
    }

    /// What holds where nothing is left to deliver.
    pub fn judge_at_rest(&mut self) {
        let old = self.world.old;
        let all: Vec<Successor> = self.world.successors().map(|(_, of)| *of).collect();
        let old_lives = old.life == Life::Alive;
        let old_goes_on = old_lives && !old.committed && (!old.dropped || old.serves);
        let new_goes_on = all.iter().any(|of| of.life == Life::Alive && !self.has_an_end_of_its_own(of));
        // One that was granted the service and does not die keeps it until it does.
        let owns = |of: &Successor| self.serves(of) || (of.held.granted && of.undying);
        let is_owned = (old_lives && old.serves) || all.iter().any(owns);
        self.holds(is_owned || !(old_goes_on || new_goes_on), Law::NoOwner);
        self.holds(!old_lives || old.owed == 0, Law::Ticket);
        self.holds(!(old_lives && old.serves && old.astray), Law::FlowsAstray);
        for of in &all {
            let is_right = if self.serves(of) { of.steered } else { !(of.steered && old_lives && old.serves) };
            self.holds(is_right, Law::FlowsAstray);
        }
        self.judge_what_is_held_at_rest(&all);
        if old_lives && !old.dropped {
            self.judge_the_old_at_rest();
        }
        for of in all {
            self.judge_the_new_at_rest(&of);
        }
    }

    /// What the next start would find.
    fn judge_what_is_held_at_rest(&mut self, all: &[Successor]) {
        let old = self.world.old;
        let awaits_an_end = is_killing(self.pair.restarts.facts(old.machine).room);
        if old.life == Life::Alive && old.serves && !awaits_an_end {
            self.holds(!old.lends && !all.iter().any(|of| of.stored), Law::HeldForNobody);
        }
        let is_taken = all.iter().any(|of| self.serves(of) && of.took_service);
        self.holds(!(is_taken && old.stored), Law::HeldForNobody);
    }

    fn has_state(&self, of: &Successor) -> bool {
        of.takeover.is_some_and(|node| self.pair.takeovers.facts(node).has_state)
    }

    /// Whether a new process was told to end, or ends for a reason of its own. What it makes of silence is not the word of the old one,
    /// unless its lifeline was broken before it was granted anything.
    fn has_an_end_of_its_own(&self, of: &Successor) -> bool {
        let is_broken = (of.line.shut || !of.line.new_end) && !of.granted;
        let has_given_itself_up = matches!(self.stage_of(of), Some(Stage::GivenUp { .. }));
        of.given_up || of.refused || of.orphaned || (is_broken && has_given_itself_up)
    }

    fn judge_the_old_at_rest(&mut self) {
        let old = self.world.old;
        let facts = self.pair.restarts.facts(old.machine);
        let (room, is_empty) = (facts.room, facts.queue.is_empty());
        let rests = matches!(room, Room::Stopping | Room::Broken | Room::Idle | Room::Committed | Room::Undying | Room::UndyingGranted);
        self.holds(rests && is_empty, Law::Stuck);
        if let Some(current) = self.world.current {
            let is_named = room == Room::Committed || is_killing(room);
            let is_counted = is_named || current.held.exited || current.life == Life::Unborn;
            let is_reaped = !current.child_has_ended() || current.held.exited;
            self.holds(is_counted && is_reaped, Law::Stray);
            self.holds(!(old.completed && current.child_has_ended() && !old.told_gone), Law::EndUnreported);
        }
        for which in [Which::Current, Which::Earlier] {
            let Some(of) = self.world.get(which) else { continue };
            let is_left = of.given_up && !of.killed && of.wrapper != Wrapper::Ended && of.life == Life::Alive;
            self.holds(!is_left, Law::Stray);
        }
    }

    fn judge_the_new_at_rest(&mut self, of: &Successor) {
        let old = self.world.old;
        let Some(stage) = self.stage_of(of).filter(|_| of.life == Life::Alive) else { return };
        let rests = match stage {
            Stage::Final { .. } | Stage::GivenUp { .. } => true,
            Stage::Alone { ready, .. } => ready || of.refused,
            // Until the end of the predecessor, of which nothing else can be heard.
            Stage::Granted { line, .. } => (line == Line::Silent || of.held.deaf) && old.life == Life::Alive,
            Stage::Starting { .. } | Stage::ReadySent { .. } => false,
        };
        // A request would be taken where the service cannot be taken back.
        let is_final = matches!(stage, Stage::Final { .. } | Stage::Alone { ready: true, .. });
        self.holds(rests && (!is_final || of.took_service), Law::Stuck);
    }
}
