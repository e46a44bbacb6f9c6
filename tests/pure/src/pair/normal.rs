//! Which states are one: what has no meaning any more is as if it had never been.
//!
//! Knows: what decides nothing that can still happen. Does not know: what happens.

use std::hash::{Hash, Hasher};

use pollflip::internals::machine::Stage;

use super::automaton::{is_awaiting, is_final};
use super::room::Room;
use super::search::Run;
use super::world::{Held, Life, Manager, Messages, Old, Shortage, Successor, Which, World, Wrapper};

impl Run<'_> {
    pub fn normalise(&mut self) {
        let old = &mut self.world.old;
        if old.life != Life::Alive || old.dropped {
            let is_final = is_final(self.pair.restarts.facts(old.machine).room);
            let World { old: blank, .. } = World::new(0);
            let serves = old.serves && old.life == Life::Alive;
            let owed = if old.life == Life::Alive { old.owed } else { 0 };
            *old = Old {
                life: old.life,
                dropped: old.dropped && old.life == Life::Alive,
                committed: old.committed || is_final,
                serves,
                owed,
                stored: old.stored,
                lends: old.lends && old.life == Life::Alive,
                stopped: old.stopped && serves,
                ..blank
            };
        }
        if self.world.current.is_none() {
            (self.world.old.stalled, self.world.old.manager) = (false, Manager::Attends);
        }
        if self.room() != Room::Spawning {
            self.world.old.lineless = false;
        }
        self.world.old.unsteerable &= is_awaiting(self.room());
        if self.world.current.is_none_or(|current| current.held.closed) {
            self.world.old.shortage = Shortage::None;
        }
        for which in [Which::Current, Which::Earlier] {
            let knows = |of: &Successor| {
                let is_told = self.stage_of(of).is_some_and(|stage| matches!(stage, Stage::GivenUp { .. }));
                let is_killed = of.killed || of.wrapper != Wrapper::None;
                is_killed && (of.orphaned || (is_told && of.given_up))
            };
            let is_known = self.world.get(which).is_some_and(knows);
            let slot = match which {
                Which::Current => &mut self.world.current,
                Which::Earlier => &mut self.world.earlier,
            };
            let Some(of) = slot else { continue };
            let old = &self.world.old;
            let is_left = which == Which::Earlier || old.life == Life::Ended || old.dropped;
            // It does nothing any more, or nothing but end.
            let is_inert = of.life != Life::Alive && (of.life != Life::Unborn || old.life == Life::Ended) && !of.undying;
            if is_left && (is_inert || is_known) {
                *slot = None;
                continue;
            }
            of.normalise(old.life, old.dropped || which == Which::Earlier);
        }
    }
}

impl Successor {
    fn normalise(&mut self, old: Life, is_left: bool) {
        let blank = Successor::unborn();
        if old != Life::Alive || is_left {
            let granted = self.held.granted;
            self.held = Held { granted, ..blank.held };
        }
        if old.has_closed() || !self.line.old_end {
            // Nobody reads there: a helper with a copy does not.
            self.line.to_old = Messages::NONE;
            self.line.unsent_by_new = Messages::NONE;
            (self.line.stalled, self.line.mute, self.line.old_end) = (false, false, false);
        }
        if matches!(self.life, Life::Dying | Life::Closed | Life::Ended) {
            self.line.to_new = Messages::NONE;
            self.takeover = None;
            (self.machine, self.orphaned, self.asked, self.taken, self.refused) = (0, false, false, false, false);
            (self.garbled, self.progressed, self.took_service) = (false, false, false);
            (self.late, self.line.short) = (false, false);
            (self.precopied, self.sent_ahead, self.holds_ahead) = (false, false, false);
        }
    }
}

/// SplitMix64 over what is written, eight bytes at a time.
#[derive(Debug, Default)]
pub struct Fingerprint {
    state: u64,
    word: u64,
    bits: u32,
}

impl Fingerprint {
    fn take(&mut self, value: u64, bits: u32) {
        if self.bits + bits > 64 {
            self.mix();
        }
        self.word |= value << self.bits;
        self.bits += bits;
    }

    fn mix(&mut self) {
        (self.state, self.word, self.bits) = (self.mixed(), 0, 0);
    }

    fn mixed(&self) -> u64 {
        let z = (self.state ^ self.word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.mixed()
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.take(u64::from(*byte), 8));
    }

    fn write_u8(&mut self, value: u8) {
        self.take(u64::from(value), 8);
    }

    fn write_u16(&mut self, value: u16) {
        self.take(u64::from(value), 16);
    }

    fn write_u32(&mut self, value: u32) {
        self.take(u64::from(value), 32);
    }

    /// Which variant: there are never many.
    fn write_isize(&mut self, value: isize) {
        self.take(value as u64, 4);
    }
}

pub fn fingerprint(world: &World) -> u64 {
    let mut fingerprint = Fingerprint::default();
    world.hash(&mut fingerprint);
    fingerprint.finish()
}

/// A fingerprint needs no other hash.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
