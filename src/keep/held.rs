//! What a process is given that a keeper has held.
//!
//! Knows: what the names mean. Does not know: what becomes of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::names::{Meaning, Slot};

/// What this process is given: by a keeper, or by a predecessor in whose name one holds it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Listeners, and sockets of a manager.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    /// What a process before has kept by name.
    pub(super) kept: BTreeMap<String, Versions>,
    /// The ends of the queues of processes before, with their full names.
    pub(super) queues: Vec<(String, OwnedFd)>,
    /// The queue that the predecessor has made for this process, and its name.
    pub(super) lent: Option<(String, Vec<OwnedFd>)>,
}

/// All that is held under one name of the program: two, if a process was killed while it kept something else there.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) latest: OwnedFd,
    /// The slots in which something is, the latest last.
    pub(super) slots: Vec<Slot>,
}

impl Held {
    /// What came by a keeper and what came by a predecessor.
    pub(crate) fn and(mut self, other: Held) -> Held {
        self.sockets.extend(other.sockets);
        self.kept.extend(other.kept);
        self.queues.extend(other.queues);
        self.lent = other.lent.or(self.lent);
        self
    }

    /// Whether a keeper has given what has that name, and not the manager of a socket.
    pub(crate) fn has_its_form(name: &str) -> bool {
        Meaning::of(name) != Meaning::Other
    }

    /// Told apart by their names.
    pub(crate) fn sort(given: impl IntoIterator<Item = (String, OwnedFd)>) -> Held {
        let mut held = Held::default();
        for (full_name, descriptor) in given {
            match Meaning::of(&full_name) {
                Meaning::Kept(slot, name) => held.add(name, slot, descriptor),
                Meaning::Queue => held.queues.push((full_name, descriptor)),
                Meaning::Lent(name) => held.lent.get_or_insert_with(|| (name, Vec::new())).1.push(descriptor),
                Meaning::Other => held.sockets.push((full_name, descriptor)),
            }
        }
        held
    }

    fn add(&mut self, name: &str, slot: Slot, descriptor: OwnedFd) {
        match self.kept.get_mut(name) {
            Some(versions) => {
                // A keeper gives them in an order of its own.
                if versions.slots.last().is_some_and(|last| slot == last.next()) {
                    versions.latest = descriptor;
                    versions.slots.push(slot);
                } else {
                    versions.slots.insert(0, slot);
                }
            }
            None => _ = self.kept.insert(name.into(), Versions { latest: descriptor, slots: vec![slot] }),
        }
    }
}
