//! Players go to the successor ahead of the freeze, while this process serves them.
//!
//! A piece at a time, so that the loop is never held up. Who comes meanwhile is given too, and who
//! goes is taken back; what is left for the freeze is those few whose turn has not come.
//! Knows: how far the copy has come. Does not know: the poll, and how players are named.

use super::clock::{self, Moment};
use super::world::World;
use pollflip::Precopy;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

pub(crate) struct Copying {
    precopy: Precopy,
    /// Who has a lower number has been given, but for the fresh ones.
    reached: usize,
    /// Who has come since, with a lower number.
    fresh: BTreeSet<usize>,
    is_complete: bool,
    given: usize,
    /// How long each piece has held the loop.
    pieces: Vec<Duration>,
}

impl Copying {
    pub(crate) fn begin(mut precopy: Precopy, world: &World) -> io::Result<Self> {
        clock::tell(Moment::Copying);
        world.give_states(&mut precopy)?;
        Ok(Self { precopy, reached: 0, fresh: BTreeSet::new(), is_complete: false, given: 0, pieces: Vec::new() })
    }

    /// Gives as many as there is room for. If more are left, the restarter tells when there is room
    /// again. An error has failed the attempt, and that is told too.
    pub(crate) fn go_on(&mut self, world: &World) -> io::Result<()> {
        let begun = clock::now();
        let room = self.precopy.room();
        let all = self.fresh.iter().copied().chain(self.reached..world.players.end());
        let piece: Vec<_> = all.filter(|number| world.players.get(*number).is_some()).take(room).collect();
        self.precopy.fds(world.named(&piece))?;
        self.given += piece.len();
        for number in &piece {
            self.fresh.remove(number);
            self.reached = self.reached.max(number + 1);
        }
        let is_all = piece.len() < room;
        if is_all {
            self.reached = world.players.end();
        }
        if !self.is_complete {
            self.is_complete = is_all;
            if is_all {
                self.precopy.complete();
            }
            self.pieces.push(clock::now() - begun);
            if self.is_complete {
                let pieces = self.pieces.iter().map(|piece| piece.as_nanos() as u64);
                let figures: Vec<_> = [self.given as u64].into_iter().chain(pieces).collect();
                clock::tell_with(Moment::Copied, &figures);
            }
        }
        Ok(())
    }

    pub(crate) fn came(&mut self, number: usize, world: &World) -> io::Result<()> {
        if number < self.reached {
            self.fresh.insert(number);
        }
        // As long as there are others, its turn comes with theirs.
        if self.is_complete { self.go_on(world) } else { Ok(()) }
    }

    pub(crate) fn gone(&mut self, number: usize) {
        self.fresh.remove(&number);
        self.precopy.gone(&World::name(number));
    }

    /// Who has not been given when the world freezes.
    pub(crate) fn left(self, world: &World) -> Vec<usize> {
        self.fresh.into_iter().chain(self.reached..world.players.end()).collect()
    }
}
