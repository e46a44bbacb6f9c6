//! What a process is given that a keeper has held.
//!
//! Knows: the names that tell its kinds apart. Does not know: what becomes of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::{KEPT, STREAMS};

/// What this process is given that a keeper has held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What is neither kept by the program nor a queue: listeners, and sockets of a manager.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    pub(super) kept: BTreeMap<String, OwnedFd>,
    pub(super) leftover: Vec<(String, OwnedFd)>,
}

impl Held {
    /// What came by a keeper and what came by a predecessor.
    pub(crate) fn and(mut self, other: Held) -> Held {
        self.sockets.extend(other.sockets);
        self.kept.extend(other.kept);
        self.leftover.extend(other.leftover);
        self
    }

    /// Whether a keeper has given what has that name, and not the manager of a socket.
    pub(crate) fn has_its_form(name: &str) -> bool {
        name.starts_with(STREAMS) || name.starts_with(KEPT)
    }

    /// Told apart by their names.
    pub(crate) fn sort(given: impl IntoIterator<Item = (String, OwnedFd)>) -> Held {
        let mut held = Held::default();
        for (name, descriptor) in given {
            if name.starts_with(STREAMS) {
                held.leftover.push((name, descriptor));
            } else if let Some(name) = name.strip_prefix(KEPT) {
                held.kept.insert(name.into(), descriptor);
            } else {
                held.sockets.push((name, descriptor));
            }
        }
        held
    }
}
