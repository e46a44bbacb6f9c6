//! All players, and how they go from one process to the next: the half of a restart that is this program's.
//!
//! Each player's connection goes as a descriptor named by its number. Their states go as what they are kept in, see `states.rs`. What
//! is left goes in a blob: the tick, and the buffers of those few that have something in them.

use super::copying::Copying;
use super::player::Player;
use super::seats::Seats;
use super::states::{RECORD, State, States};
use mio::net::TcpStream;
use pollflip::{Blob, Handover, Inheritance, Precopy};
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
    /// Who has something in its buffers: nobody else need be looked at when the world is saved.
    pub(crate) unfinished: BTreeSet<usize>,
}

impl World {
    pub(crate) fn new(states: States) -> Self {
        Self { tick: 0, players: Seats::new(), states, unfinished: BTreeSet::new() }
    }

    /// A new player, and its number.
    pub(crate) fn add(&mut self, player: Player) -> io::Result<usize> {
        let number = self.players.vacant();
        self.states.set(number, State::default())?;
        self.players.take(number, player);
        Ok(number)
    }

    pub(crate) fn remove(&mut self, number: usize) -> Option<Player> {
        self.unfinished.remove(&number);
        self.players.leave(number)
    }

    /// Does something with a player and its state, if it is still there. An error means that it is gone.
    pub(crate) fn visit(
        &mut self,
        number: usize,
        what: impl FnOnce(&mut Player, &mut State, u64) -> io::Result<()>,
    ) -> Option<io::Result<()>> {
        let player = self.players.get_mut(number)?;
        let mut state = match self.states.get(number) {
            Ok(state) => state,
            Err(error) => return Some(Err(error)),
        };
        let result = what(player, &mut state, self.tick);
        match player.has_buffers() {
            true => self.unfinished.insert(number),
            false => self.unfinished.remove(&number),
        };
        Some(result.and_then(|()| self.states.set(number, state)))
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
        numbers.iter().filter_map(|number| Some((Self::name(*number), &self.players.get(*number)?.stream)))
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
            self.players.get(*number).map_or(Ok(()), |player| player.save_buffers(&mut blob))?;
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
        match self.players.take(number, Player::new(stream)) {
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
            player.load_buffers(&mut rest).ok_or_else(|| invalid("the world ends early"))?;
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
