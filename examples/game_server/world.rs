//! All players, and how they go from one process to the next: the half of a restart that is this program's.
//!
//! Each player's connection goes as a descriptor named by its number, and all else of all players in one blob, in the order of the
//! numbers. The connections come first: while this process writes the blob, the successor takes them in.

use crate::player::Player;
use mio::net::TcpStream;
use pollflip::{Blob, Handover, Inheritance};
use slab::Slab;
use std::io::{self, ErrorKind, Write};
use std::net;

const STATE: &str = "world.v1";
const PLAYER: &str = "player/";

#[derive(Default)]
pub(crate) struct World {
    pub(crate) tick: u64,
    pub(crate) players: Slab<Player>,
}

impl World {
    /// Gives everything, and sends it. An error needs no further care: it fails the attempt, and is its reason.
    pub(crate) fn save(&self, mut handover: Handover) -> io::Result<()> {
        let mut name = String::new();
        for (key, player) in &self.players {
            name.clear();
            name.push_str(PLAYER);
            name.push_str(&key.to_string());
            handover.fd(&name, &player.stream)?;
        }
        let mut blob = Blob::new()?;
        blob.write_all(&self.tick.to_le_bytes())?;
        blob.write_all(&(self.players.len() as u64).to_le_bytes())?;
        for (key, player) in &self.players {
            blob.write_all(&(key as u64).to_le_bytes())?;
            player.save(&mut blob)?;
        }
        handover.blob(STATE, blob)?;
        handover.send();
        Ok(())
    }

    pub(crate) fn load(mut from: Inheritance) -> io::Result<Self> {
        let state = from.bytes(STATE)?.ok_or_else(|| invalid("the state is missing"))?;
        let mut keyed = Vec::new();
        for (name, descriptor) in from.drain() {
            let key = name.strip_prefix(PLAYER).and_then(|key| key.parse::<usize>().ok());
            keyed.push((key.ok_or_else(|| invalid("a descriptor that is no player"))?, descriptor));
        }
        keyed.sort_unstable_by_key(|(key, _)| *key);

        let mut rest = state.as_slice();
        let tick = number(&mut rest)?;
        if number(&mut rest)? != keyed.len() as u64 {
            return Err(invalid("there are not as many connections as players"));
        }
        let mut players = Vec::with_capacity(keyed.len());
        for (key, descriptor) in keyed {
            if number(&mut rest)? != key as u64 {
                return Err(invalid("a player has no connection"));
            }
            let stream = TcpStream::from_std(net::TcpStream::from(descriptor));
            players.push((key, Player::load(stream, &mut rest).ok_or_else(|| invalid("the state ends early"))?));
        }
        Ok(Self { tick, players: players.into_iter().collect() })
    }
}

fn number(from: &mut &[u8]) -> io::Result<u64> {
    let (number, rest) = from.split_first_chunk().ok_or_else(|| invalid("the state ends early"))?;
    *from = rest;
    Ok(u64::from_le_bytes(*number))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
