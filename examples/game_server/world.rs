//! All players, and how they go from one process to the next: the half of a restart that is this program's.
//!
//! Each player's connection goes as a descriptor named by its number. Their states go as what they are kept in, see `states.rs` and
//! `keeping.rs`. What is left goes in a blob: the tick, and the buffers of those few that have something in them.

use super::buffered::Buffered;
use super::copying::Copying;
use super::keeping::Keeping;
use super::player::{Occasion, Player};
use super::seats::Seats;
use super::states::{RECORD, State, States};
use mio::net::TcpStream;
use pollflip::{Blob, Handover, Inheritance, Precopy, Restarter, hang_up};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net;
use std::os::fd::OwnedFd;

const WORLD: &str = "world.v2";
/// Either of these two: written down, or the file that they are kept in.
const STATES: &str = "states.v2";
const STATES_FILE: &str = "states.v2/file";
const PLAYER: &str = "player/";

pub(crate) struct World {
    pub(crate) tick: u64,
    pub(crate) players: Seats<Player>,
    states: States,
    /// The players outlive this process.
    keeping: Option<Keeping>,
    /// Who has something in its buffers: nobody else need be looked at when the world is saved.
    pub(crate) unfinished: BTreeSet<usize>,
}

impl World {
    pub(crate) fn new(states: States, keeping: Option<Keeping>) -> Self {
        let tick = keeping.as_ref().map_or(0, Keeping::tick);
        Self { tick, players: Seats::new(), states, keeping, unfinished: BTreeSet::new() }
    }

    /// A new player, and its number.
    pub(crate) fn add(&mut self, stream: TcpStream) -> io::Result<usize> {
        let player = match &self.keeping {
            Some(keeping) => Player::Kept(keeping.begin(stream)?),
            None => Player::Buffered(Buffered::new(stream)),
        };
        let number = self.players.vacant();
        if self.keeping.is_none() {
            self.states.set(number, State::default())?;
        }
        self.players.take(number, player);
        Ok(number)
    }

    pub(crate) fn remove(&mut self, number: usize) -> Option<Player> {
        self.unfinished.remove(&number);
        self.players.leave(number)
    }

    /// Ends the connection of a player who was removed. Another process may have it too.
    pub(crate) fn end(&self, player: Player) {
        match (player, &self.keeping) {
            (Player::Kept(player), Some(keeping)) => keeping.end(Ok(player)),
            (Player::Buffered(player), Some(keeping)) => keeping.end(Err(player.stream)),
            (player, None) => hang_up(player.stream()),
        }
    }

    pub(crate) fn set_tick(&mut self, tick: u64) -> io::Result<()> {
        self.tick = tick;
        self.keeping.as_ref().map_or(Ok(()), |keeping| keeping.set_tick(tick))
    }

    /// Does what there is to do with a player, if it is still there. An error means that it is gone.
    pub(crate) fn visit(&mut self, number: usize, occasion: Occasion) -> Option<io::Result<()>> {
        if let Some(Player::Buffered(_)) = self.players.get(number)
            && self.keeping.is_some()
            && let Err(error) = self.resume(number)
        {
            return Some(Err(error));
        }
        let tick = self.tick;
        let player = self.players.get_mut(number)?;
        let result = match player {
            Player::Kept(player) => player.visit(occasion, tick),
            Player::Buffered(player) => self.states.get(number).and_then(|mut state| {
                player.visit(occasion, &mut state, tick)?;
                self.states.set(number, state)
            }),
        };
        match player.is_unfinished() {
            true => self.unfinished.insert(number),
            false => self.unfinished.remove(&number),
        };
        Some(result)
    }

    /// Goes on with a player who was handed over, and whose state is kept.
    fn resume(&mut self, number: usize) -> io::Result<()> {
        let (Some(keeping), Some(Player::Buffered(player))) = (&self.keeping, self.players.leave(number)) else { return Ok(()) };
        let (player, result) = match keeping.resume(player.stream)? {
            Ok(player) => (Player::Kept(player), Ok(())),
            Err(stream) => (Player::Buffered(Buffered::new(stream)), Err(io::Error::other("its state is lost"))),
        };
        self.players.take(number, player);
        result
    }

    /// Goes on with the players of a process that was killed.
    pub(crate) fn recover(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let Some(keeping) = &self.keeping else { return Ok(()) };
        let Some(survivors) = keeping.survivors(restarter)? else { return Ok(()) };
        // Of a predecessor that was killed while it handed over, some are here already.
        let handed_over: Vec<_> = self.players.iter().map(|(number, _)| number).collect();
        for player in survivors {
            self.players.take(self.players.vacant(), Player::Kept(player));
        }
        for number in handed_over {
            if let Err(error) = self.resume(number) {
                // It is found to be gone when it is visited.
                log::debug!("player {number}: {error}");
            }
        }
        self.keeping.as_ref().map_or(Ok(()), Keeping::close_the_rest)
    }

    /// Of those who are kept, who may have something to say that nobody asks for again.
    pub(crate) fn left_undone(&self) -> Vec<usize> {
        let survivors = self.players.iter().filter(|(_, player)| matches!(player, Player::Kept(_))).map(|(number, _)| number);
        let handed_over = self.unfinished.iter().copied().filter(|_| self.keeping.is_some());
        survivors.chain(handed_over).collect()
    }

    pub(crate) fn serves(&self) {
        if let Some(keeping) = &self.keeping {
            keeping.serves();
        }
    }

    /// What came of a predecessor that has ended: only what is kept can be gone on with.
    pub(crate) fn drop_what_is_not_kept(&mut self) -> io::Result<()> {
        if self.keeping.is_none() {
            self.players = Seats::new();
            self.states = self.states.anew()?;
        }
        Ok(())
    }

    /// Gives the file of the states ahead, which this process goes on writing until it freezes.
    pub(crate) fn give_states(&self, precopy: &mut Precopy) -> io::Result<()> {
        match &self.states {
            States::Shared(file) => precopy.fd(STATES_FILE, file),
            States::InProcess(_) => Ok(()),
        }
    }

    /// Those players with their names, as they are handed over.
    pub(crate) fn named(&self, numbers: &[usize]) -> impl Iterator<Item = (String, &TcpStream)> {
        numbers.iter().filter_map(|number| Some((Self::name(*number), self.players.get(*number)?.stream())))
    }

    pub(crate) fn name(number: usize) -> String {
        format!("{PLAYER}{number}")
    }

    /// Gives what has not gone ahead, and sends all. An error needs no further care: it fails the attempt, and is its reason.
    pub(crate) fn save(&self, mut handover: Handover, ahead: Option<Copying>) -> io::Result<()> {
        let (left, went_ahead) = match ahead {
            Some(copying) => (copying.left(self), true),
            None => ((0..self.players.end()).collect(), false),
        };
        handover.fds(self.named(&left))?;
        match &self.states {
            States::Shared(_) if went_ahead => {}
            States::Shared(file) => handover.fd(STATES_FILE, file)?,
            States::InProcess(states) => {
                let records: Vec<_> = states.iter().flat_map(State::encode).collect();
                handover.bytes(STATES, &records)?;
            }
        }
        let mut blob = Blob::new()?;
        for number in [self.tick, self.players.len() as u64, self.unfinished.len() as u64] {
            blob.write_all(&number.to_le_bytes())?;
        }
        for number in &self.unfinished {
            blob.write_all(&(*number as u64).to_le_bytes())?;
            if let Some(Player::Buffered(player)) = self.players.get(*number) {
                player.save_buffers(&mut blob)?;
            }
        }
        handover.blob(WORLD, blob)?;
        handover.send();
        Ok(())
    }

    /// Takes what the predecessor has given. The number of a player is returned.
    pub(crate) fn take(&mut self, name: &str, descriptor: OwnedFd) -> io::Result<Option<usize>> {
        if name == STATES_FILE {
            self.states = States::Shared(File::from(descriptor));
            return Ok(None);
        }
        let number = Self::number_of(name).ok_or_else(|| invalid(&format!("{name:?} is no player")))?;
        let stream = TcpStream::from_std(net::TcpStream::from(descriptor));
        if let Some(keeping) = &self.keeping {
            keeping.keep(&stream);
        }
        match self.players.take(number, Player::Buffered(Buffered::new(stream))) {
            true => Ok(Some(number)),
            false => Err(invalid(&format!("{name:?} has come twice"))),
        }
    }

    /// The number of a player that has gone since it was given.
    pub(crate) fn number_of(name: &str) -> Option<usize> {
        name.strip_prefix(PLAYER)?.parse().ok()
    }

    /// Makes it whole: the connections are here.
    pub(crate) fn complete(&mut self, mut from: Inheritance) -> io::Result<()> {
        let blob = from.bytes(WORLD)?.ok_or_else(|| invalid("the world is missing"))?;
        if let Some(records) = from.bytes(STATES)? {
            self.states = States::InProcess(records.as_chunks::<RECORD>().0.iter().map(State::decode).collect());
        }
        let mut rest = blob.as_slice();
        self.tick = next(&mut rest)?;
        if next(&mut rest)? != self.players.len() as u64 {
            return Err(invalid("there are not as many connections as players"));
        }
        for _ in 0..next(&mut rest)? {
            let number = next(&mut rest)? as usize;
            let player = self.players.get_mut(number).ok_or_else(|| invalid("a player has no connection"))?;
            if let (Player::Buffered(player), None) = (player, &self.keeping) {
                player.load_buffers(&mut rest).ok_or_else(|| invalid("the world ends early"))?;
            }
            self.unfinished.insert(number);
        }
        Ok(())
    }
}

fn next(from: &mut &[u8]) -> io::Result<u64> {
    let (number, rest) = from.split_first_chunk().ok_or_else(|| invalid("the world ends early"))?;
    *from = rest;
    Ok(u64::from_le_bytes(*number))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
