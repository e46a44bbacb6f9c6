//! All players, and how they go from one process to the next: the half of a restart that is this program's.
//!
//! Each player's connection goes as a descriptor named by its number. Their states go as what they are kept in, see `states.rs`. What
//! is left goes in a blob: the tick, and the buffers of those few that have something in them.

use super::player::Player;
use super::states::{RECORD, State, States};
use mio::net::TcpStream;
use pollflip::{Blob, Handover, Inheritance};
use slab::Slab;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net;

const WORLD: &str = "world.v2";
/// Either of these two: written down, or the file that they are kept in.
const STATES: &str = "states.v2";
const STATES_FILE: &str = "states.v2/file";
const PLAYER: &str = "player/";

pub(crate) struct World {
    pub(crate) tick: u64,
    pub(crate) players: Slab<Player>,
    states: States,
    /// Who has something in its buffers: nobody else need be looked at when the world is saved.
    unfinished: BTreeSet<usize>,
}

impl World {
    pub(crate) fn new(states: States) -> Self {
        Self { tick: 0, players: Slab::new(), states, unfinished: BTreeSet::new() }
    }

    pub(crate) fn add(&mut self, player: Player) -> io::Result<usize> {
        let key = self.players.vacant_key();
        self.states.set(key, State::default())?;
        Ok(self.players.insert(player))
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<Player> {
        self.unfinished.remove(&key);
        self.players.try_remove(key)
    }

    /// Does something with a player and its state, if it is still there. An error means that it is gone.
    pub(crate) fn visit(
        &mut self,
        key: usize,
        what: impl FnOnce(&mut Player, &mut State, u64) -> io::Result<()>,
    ) -> Option<io::Result<()>> {
        let player = self.players.get_mut(key)?;
        let mut state = match self.states.get(key) {
            Ok(state) => state,
            Err(error) => return Some(Err(error)),
        };
        let result = what(player, &mut state, self.tick);
        match player.has_buffers() {
            true => self.unfinished.insert(key),
            false => self.unfinished.remove(&key),
        };
        Some(result.and_then(|()| self.states.set(key, state)))
    }

    /// Gives everything, and sends it. An error needs no further care: it fails the attempt, and is its reason.
    pub(crate) fn save(&self, mut handover: Handover) -> io::Result<()> {
        let mut name = String::new();
        for (key, player) in &self.players {
            name.clear();
            name.push_str(PLAYER);
            name.push_str(&key.to_string());
            handover.fd(&name, &player.stream)?;
        }
        match &self.states {
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
        for key in &self.unfinished {
            blob.write_all(&(*key as u64).to_le_bytes())?;
            self.players[*key].save_buffers(&mut blob)?;
        }
        handover.blob(WORLD, blob)?;
        handover.send();
        Ok(())
    }

    pub(crate) fn load(mut from: Inheritance) -> io::Result<Self> {
        let blob = from.bytes(WORLD)?.ok_or_else(|| invalid("the world is missing"))?;
        let states = match from.fd::<File>(STATES_FILE) {
            Some(file) => States::Shared(file),
            None => {
                let records = from.bytes(STATES)?.ok_or_else(|| invalid("the states are missing"))?;
                States::InProcess(records.as_chunks::<RECORD>().0.iter().map(State::decode).collect())
            }
        };
        let mut keyed = Vec::new();
        for (name, descriptor) in from.drain() {
            let key = name.strip_prefix(PLAYER).and_then(|key| key.parse::<usize>().ok());
            let key = key.ok_or_else(|| invalid("a descriptor that is no player"))?;
            keyed.push((key, Player::new(TcpStream::from_std(net::TcpStream::from(descriptor)))));
        }
        let mut world = Self { tick: 0, players: keyed.into_iter().collect(), states, unfinished: BTreeSet::new() };

        let mut rest = blob.as_slice();
        world.tick = number(&mut rest)?;
        if number(&mut rest)? != world.players.len() as u64 {
            return Err(invalid("there are not as many connections as players"));
        }
        for _ in 0..number(&mut rest)? {
            let key = number(&mut rest)? as usize;
            let player = world.players.get_mut(key).ok_or_else(|| invalid("a player has no connection"))?;
            player.load_buffers(&mut rest).ok_or_else(|| invalid("the world ends early"))?;
            world.unfinished.insert(key);
        }
        Ok(world)
    }
}

fn number(from: &mut &[u8]) -> io::Result<u64> {
    let (number, rest) = from.split_first_chunk().ok_or_else(|| invalid("the world ends early"))?;
    *from = rest;
    Ok(u64::from_le_bytes(*number))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
