//! What the server knows of each player beside the connection and its buffers: a record of 32 bytes.
//!
//! In the memory of the process, the records are written down at the freeze. In a memory file, they
//! are the successor's as they are: what is handed over is the file. Nobody maps it: a record is
//! read and written whole, by one system call, so two processes that have the file see no half of
//! one. The successor writes none before it has been granted the service.
//!
//! With `--keep` they are in accounts of a ledger instead: see `kept.rs`.
//! Knows: records by the numbers of players. Does not know: players, restarts.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A player moves from tick to tick without being touched: the position is a function of the tick.
#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    pub(crate) sequence: u64,
    /// Where the player was at that tick.
    pub(crate) position: i64,
    pub(crate) since: u64,
    pub(crate) velocity: i32,
    pub(crate) score: u32,
}

pub(crate) const RECORD: usize = 32;

impl State {
    pub(crate) fn position_at(&self, tick: u64) -> i64 {
        self.position + tick.wrapping_sub(self.since).cast_signed() * i64::from(self.velocity)
    }

    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.since.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.velocity.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.score.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECORD]) -> Self {
        let [a, b, c, d] = [0, 8, 16, 24].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        Self { sequence: a, position: b.cast_signed(), since: c, velocity: (d as u32).cast_signed(), score: (d >> 32) as u32 }
    }
}

pub(crate) enum States {
    InProcess(Vec<State>),
    Shared(File),
}

impl States {
    pub(crate) fn shared() -> io::Result<Self> {
        Ok(Self::Shared(memfd_create("states", MFdFlags::MFD_CLOEXEC)?.into()))
    }

    /// The same kind, with nobody in it.
    pub(crate) fn anew(&self) -> io::Result<Self> {
        match self {
            Self::InProcess(_) => Ok(Self::InProcess(Vec::new())),
            Self::Shared(_) => Self::shared(),
        }
    }

    pub(crate) fn get(&self, key: usize) -> io::Result<State> {
        match self {
            Self::InProcess(states) => Ok(states.get(key).copied().unwrap_or_default()),
            Self::Shared(file) => {
                let mut record = [0; RECORD];
                file.read_exact_at(&mut record, (key * RECORD) as u64)?;
                Ok(State::decode(&record))
            }
        }
    }

    pub(crate) fn set(&mut self, key: usize, state: State) -> io::Result<()> {
        match self {
            Self::InProcess(states) => {
                if states.len() <= key {
                    states.resize(key + 1, State::default());
                }
                states[key] = state;
                Ok(())
            }
            Self::Shared(file) => file.write_all_at(&state.encode(), (key * RECORD) as u64),
        }
    }
}
