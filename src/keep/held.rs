//! What a process is given that a keeper has held.
//!
//! Knows: what the names mean. Does not know: what becomes of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::notify::is_fit_name;

use super::names::{self, Meaning, Slot};

/// What this process is given: by a keeper, or by a predecessor in whose name one holds it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Listeners, and sockets of a manager.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    /// What a process before has kept by name.
    pub(super) kept: BTreeMap<String, Versions>,
    /// The ends of the queues of processes before, with their full names.
    pub(super) queues: Vec<(String, OwnedFd)>,
    /// The parts of UDP groups, by the names of the groups.
    pub(crate) groups: BTreeMap<String, HeldGroup>,
    /// The queue that the predecessor has made for this process, and its name.
    pub(super) lent: Option<(String, Vec<OwnedFd>)>,
}

/// What has come of a UDP group.
#[derive(Debug, Default)]
pub(crate) struct HeldGroup {
    /// The memory file that says who reads which socket.
    pub(crate) roster: Option<OwnedFd>,
    /// With their slots.
    pub(crate) sockets: Vec<(u8, OwnedFd)>,
}

impl HeldGroup {
    /// How long the name of a group may be that is held.
    pub(crate) const LONGEST_NAME: usize = names::LONGEST_GROUP;

    /// Whether a group of that name can be held.
    pub(crate) fn is_fit_name(group: &str) -> bool {
        is_fit_name(group) && group.len() <= HeldGroup::LONGEST_NAME
    }

    /// The name under which the memory file of a group is held, and goes to successors.
    pub(crate) fn roster_name(group: &str) -> String {
        names::of_roster(group)
    }

    /// The name under which a socket of a group is held.
    pub(crate) fn member_name(group: &str, slot: usize) -> String {
        names::of_member(group, slot)
    }
}

/// All that is held under one name of the program: two, if a process was killed while it kept something else there.
#[derive(Debug)]
pub(super) struct Versions {
    pub(super) latest: OwnedFd,
    /// The slots in which something is, the latest last.
    pub(super) slots: Vec<Slot>,
}

impl Held {
    /// What came by a keeper, and what came by a predecessor.
    pub(crate) fn and(mut self, other: Held) -> Held {
        self.sockets.extend(other.sockets);
        self.kept.extend(other.kept);
        self.queues.extend(other.queues);
        self.groups.extend(other.groups);
        // A predecessor lends, and nobody else.
        self.lent = other.lent;
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
                Meaning::Roster(group) => held.groups.entry(group.into()).or_default().roster = Some(descriptor),
                Meaning::Member(slot, group) => held.groups.entry(group.into()).or_default().sockets.push((slot, descriptor)),
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
