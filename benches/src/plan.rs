//! What is measured how often, and beside whom.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Whose work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    Limit,
    Ours,
    Shellflip,
    Ecdysis,
}

impl Peer {
    pub const ALL: [Peer; 4] = [Peer::Limit, Peer::Ours, Peer::Shellflip, Peer::Ecdysis];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Limit => "limit",
            Peer::Ours => "pollflip",
            Peer::Shellflip => "shellflip",
            Peer::Ecdysis => "ecdysis",
        }
    }

    /// Whether this program was built with it.
    pub fn is_built(self) -> bool {
        match self {
            Peer::Limit | Peer::Ours => true,
            Peer::Shellflip => cfg!(feature = "shellflip"),
            Peer::Ecdysis => cfg!(feature = "ecdysis"),
        }
    }
}

/// How thoroughly.
#[derive(Clone, Debug)]
pub struct Plan {
    pub quick: bool,
}

impl Plan {
    pub fn new(quick: bool) -> Result<Plan, String> {
        // Generations whose parent has ended come to this process, which reaps them.
        nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("cannot adopt orphans: {error}"))?;
        Ok(Plan { quick })
    }

    /// The peers out of these that were built.
    pub fn peers(&self, wanted: &[Peer]) -> Vec<Peer> {
        wanted.iter().copied().filter(|peer| peer.is_built()).collect()
    }

    /// So many rounds with `--quick`, and so many without; after the fewest no more when that time is over.
    pub fn rounds(&self, quick: usize, full: usize, seconds: u64) -> Rounds {
        Rounds { wanted: self.choose(quick, full), done: 0, end: Instant::now() + Duration::from_secs(seconds) }
    }

    /// One number with `--quick`, the other without.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// How many rounds a row gets at the least, however long they take.
const FEWEST: usize = 3;

/// The rounds of a row. Medians of fewer rounds are rougher; a run that does not end is stopped, and has none.
#[derive(Debug)]
pub struct Rounds {
    wanted: usize,
    done: usize,
    end: Instant,
}

impl Iterator for Rounds {
    type Item = ();

    fn next(&mut self) -> Option<()> {
        if self.done >= self.wanted || self.done >= FEWEST && Instant::now() >= self.end {
            return None;
        }
        self.done += 1;
        Some(())
    }
}
