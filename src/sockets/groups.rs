//! The UDP groups of a service, by name.
//!
//! Knows: which of them the program has asked for. Does not know: what else has a name.

use std::sync::{Arc, Weak};

use crate::error::Error;
use crate::predecessor::GroupGift;

use super::Kind;
use super::group::{Group, Member};

/// The groups that there are.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<Named>);

#[derive(Debug)]
struct Named {
    name: String,
    /// As long as it is passed on.
    kept: Option<Arc<Group>>,
    /// As long as anybody in this process has it: what it leads to has to be told to the kernel.
    group: Weak<Group>,
    /// It came with this process.
    inherited: bool,
    claimed: bool,
}

impl Groups {
    pub(super) fn inherited(gifts: Vec<GroupGift>) -> Groups {
        let mut groups = Groups::default();
        for gift in gifts {
            groups.push(gift.name.clone(), Group::inherited(gift), true);
        }
        groups
    }

    fn push(&mut self, name: String, group: Group, inherited: bool) -> Arc<Group> {
        let group = Arc::new(group);
        self.0.push(Named { name, group: Arc::downgrade(&group), kept: Some(group.clone()), inherited, claimed: !inherited });
        group
    }

    /// One that was bound here.
    pub(super) fn insert(&mut self, name: &str, group: Group) -> Arc<Group> {
        self.push(name.into(), group, false)
    }

    /// Those that are passed on, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Arc<Group>)> {
        self.kept().map(|(named, group)| (named.name.as_str(), group))
    }

    fn kept(&self) -> impl Iterator<Item = (&Named, &Arc<Group>)> {
        self.0.iter().filter_map(|named| named.kept.as_ref().map(|group| (named, group)))
    }

    fn find(&self, name: &str) -> Option<(&Named, &Arc<Group>)> {
        self.kept().find(|(named, _)| named.name == name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Group>> {
        self.find(name).map(|(_, group)| group)
    }

    /// The name under which such a socket is kept.
    pub(super) fn name_of(&self, wanted: &Kind) -> Option<&str> {
        self.kept().find(|(_, group)| group.kind().serves_as(wanted)).map(|(named, _)| named.name.as_str())
    }

    /// The program asks for it. What is inherited is looked at once: whether this process may steer it, and then it moves into its slot.
    pub(super) fn claim(&mut self, name: &str) -> Option<Result<Arc<Group>, Error>> {
        let named = self.0.iter_mut().find(|named| named.name == name && named.kept.is_some())?;
        let group = named.kept.clone()?;
        if !named.claimed {
            let looked_at =
                group.check().and_then(|()| group.move_in().map_err(Error::os(format!("cannot empty the UDP socket {name:?}"))));
            if let Err(error) = looked_at {
                return Some(Err(error));
            }
            named.claimed = true;
        }
        Some(Ok(group))
    }

    pub(super) fn is_inherited(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(named, _)| named.inherited)
    }

    pub(super) fn unclaimed(&self) -> impl Iterator<Item = &str> {
        self.all_unclaimed().map(|(name, _)| name)
    }

    pub(super) fn all_unclaimed(&self) -> impl Iterator<Item = (&str, &Arc<Group>)> {
        self.kept().filter(|(named, _)| !named.claimed).map(|(named, group)| (named.name.as_str(), group))
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.0.iter_mut().find(|named| named.name == name && named.kept.is_some());
        found.and_then(|named| named.kept.take()).is_some()
    }

    pub(super) fn close_unclaimed(&mut self) {
        self.0.retain(|named| {
            if !named.claimed {
                log::info!("UDP group {:?} was inherited and is not used any more: closed", named.name);
            }
            named.claimed
        });
    }

    /// There will be no successor: what the program still has stays until it lets go of it.
    pub(super) fn let_go(&mut self) {
        self.0.iter_mut().for_each(|named| named.kept = None);
    }

    /// Chooses the slot that the next successor has of each.
    pub(super) fn reserve(&self, lives: impl Fn(u32) -> bool) {
        for (named, group) in self.kept() {
            if group.reserve(&lives).is_none() {
                log::warn!(target: "pollflip", "UDP group {:?} has no socket for one more generation", named.name);
            }
        }
    }

    /// Whether each has a slot for a successor.
    pub(super) fn have_room(&self, lives: impl Fn(u32) -> bool) -> bool {
        self.kept().all(|(_, group)| group.has_room(&lives))
    }

    /// All of their sockets, for the successor.
    pub(super) fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.kept().flat_map(|(_, group)| group.members())
    }

    /// What is unmarked goes to the successor. An error says why that cannot be, and of which group.
    pub(super) fn steer_to_successor(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        self.kept().try_for_each(|(_, group)| group.steer_to_successor(&lives))
    }

    /// It goes to this process. All are tried; an error says why the first cannot be.
    pub(super) fn steer_to_this(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        let all = self.0.iter().filter_map(|named| named.group.upgrade());
        all.map(|group| group.steer_to_this(&lives)).fold(Ok(()), Result::and)
    }
}
