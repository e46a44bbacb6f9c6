//! What the program keeps by name, and what of that a keeper holds.
//!
//! Knows: which slot is whose, and in which order a keeper is told so that a kill in between loses nothing. Does not know: when
//! the service is this process's.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::libc;
use nix::sys::stat::fstat;

use crate::sys;

use super::held::Versions;
use super::names::{self, Slot};
use super::order::Order;

/// By their names.
#[derive(Debug, Default)]
pub(super) struct Named {
    entries: BTreeMap<String, Entry>,
}

/// What is under one name.
#[derive(Debug, Default)]
struct Entry {
    /// What the program keeps.
    kept: Option<Arc<OwnedFd>>,
    /// What is in the latest slot that is held, until the service is this process's.
    found: Option<Arc<OwnedFd>>,
    /// That is there to be taken.
    is_offered: bool,
    /// Under which it is held, or will be.
    slot: Slot,
    /// In which something is held, the latest last.
    held: Vec<Slot>,
    /// The slot of what the successor under way was given.
    given: Option<Slot>,
}

impl Entry {
    /// Where what comes next goes. What a successor takes for its own in the slot that it was given is that and nothing else.
    fn next_slot(&self) -> Slot {
        let next = self.slot.next();
        if self.given == Some(next) { next.next() } else { next }
    }

    fn has_found(&self, descriptor: &impl AsFd) -> bool {
        self.found.as_ref().is_some_and(|found| is_same(found, descriptor))
    }
}

impl Named {
    pub(super) fn new(held: BTreeMap<String, Versions>) -> Named {
        let entry = |Versions { latest, slots }| Entry {
            found: Some(Arc::new(latest)),
            is_offered: true,
            slot: slots.last().copied().unwrap_or_default(),
            held: slots,
            ..Entry::default()
        };
        Named { entries: held.into_iter().map(|(name, versions)| (name, entry(versions))).collect() }
    }

    /// How many the program keeps.
    pub(super) fn len(&self) -> usize {
        self.names().count()
    }

    /// How many are there to be taken.
    pub(super) fn untaken(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_offered).count()
    }

    /// What the program keeps.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.kept.is_some()).map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.kept.is_some())
    }

    /// The name under which the program keeps that very file.
    pub(super) fn name_of(&self, descriptor: &impl AsFd) -> Option<&str> {
        let is_it = |entry: &Entry| entry.kept.as_ref().is_some_and(|kept| is_same(kept, descriptor));
        self.entries.iter().find(|(_, entry)| is_it(entry)).map(|(name, _)| name.as_str())
    }

    /// Keeps that under a name, and what was there no more. `orders`, if the service is this process's: what a kill finds is the
    /// one or the other. `follows`: a predecessor that was killed may have kept something under that name of which this process
    /// knows nothing.
    pub(super) fn keep(&mut self, name: &str, own: OwnedFd, orders: Option<&mut Vec<Order>>, follows: bool) -> io::Result<()> {
        let copy = orders.as_ref().map(|_| sys::duplicate(&own, 3)).transpose()?;
        let entry = self.entries.entry(name.into()).or_default();
        if let Some(latest) = entry.held.last().filter(|_| entry.has_found(&own)) {
            // A keeper does not hold it in another slot as well.
            entry.slot = *latest;
        } else if entry.held.contains(&entry.slot) {
            entry.slot = entry.next_slot();
        }
        if let (Some(orders), Some(copy)) = (orders, copy) {
            if follows && entry.held.is_empty() {
                // Two of one name a keeper would give both, and nobody could tell which is the latest.
                orders.extend(Slot::all().map(|slot| Order::remove(&slot.full_name(name))));
            }
            orders.push(Order::store(&entry.slot.full_name(name), false, vec![copy]));
            orders.extend(entry.held.drain(..).map(|slot| Order::remove(&slot.full_name(name))));
            entry.held.push(entry.slot);
        }
        (entry.kept, entry.is_offered) = (Some(Arc::new(own)), false);
        Ok(())
    }

    /// What a process before has kept under that name, once. It is kept on.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let entry = self.entries.get_mut(name).filter(|entry| entry.is_offered)?;
        entry.is_offered = false;
        let found = entry.found.as_ref()?;
        match sys::duplicate(found, 3) {
            Ok(copy) => {
                entry.kept = Some(found.clone());
                Some(copy)
            }
            Err(error) => {
                log::warn!(target: "pollflip", "{name:?} was kept, and is no more: {error}");
                entry.found.take().and_then(Arc::into_inner)
            }
        }
    }

    /// Keeps that name no more. Says whether there was something. `follows`: as for [`keep`](Named::keep).
    pub(super) fn forget(&mut self, name: &str, orders: Option<&mut Vec<Order>>, follows: bool) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            if let (Some(orders), true) = (orders, follows) {
                orders.extend(Slot::all().map(|slot| Order::remove(&slot.full_name(name))));
            }
            return false;
        };
        let was_kept = entry.kept.take().is_some();
        let was_there = mem::take(&mut entry.is_offered) || was_kept;
        if let Some(orders) = orders {
            orders.extend(entry.held.drain(..).map(|slot| Order::remove(&slot.full_name(name))));
        }
        if entry.held.is_empty() {
            self.entries.remove(name);
        }
        was_there
    }

    /// The service is this process's: what it keeps is held. `follows`: a predecessor may have kept something else under a name
    /// since it started this process.
    ///
    /// Of what is held under a name all but what was found is removed first: with something in all three slots nobody could tell
    /// which is the latest. A predecessor may have removed what was found, so that is held again before. Each name is done with
    /// before the next one, so that a keeper needs room for one more, and not for two of each.
    pub(super) fn hold(&mut self, follows: bool, orders: &mut Vec<Order>) {
        let store = |name: &str, slot: Slot, descriptor: &OwnedFd, orders: &mut Vec<Order>| match sys::duplicate(descriptor, 3) {
            // What is held already stays as it is.
            Ok(copy) => orders.push(Order::store(&slot.full_name(name), false, vec![copy])),
            Err(error) => log::warn!(target: "pollflip", "{name:?} is not kept: {error}"),
        };
        self.let_moved_go(orders);
        for (name, entry) in &mut self.entries {
            let latest = entry.held.pop();
            if let (Some(latest), Some(found), Some(_)) = (latest, entry.found.as_ref().filter(|_| follows), &entry.kept) {
                store(name, latest, found, orders);
            }
            let others = Slot::all().filter(|slot| Some(*slot) != latest && (follows || entry.held.contains(slot)));
            orders.extend(others.map(|slot| Order::remove(&slot.full_name(name))));
            entry.held = latest.into_iter().collect();
            entry.found = None;
        }
        for (name, entry) in &mut self.entries {
            let Some(kept) = &entry.kept else { continue };
            store(name, entry.slot, kept, orders);
            let before = entry.held.drain(..).filter(|slot| *slot != entry.slot);
            orders.extend(before.map(|slot| Order::remove(&slot.full_name(name))));
            entry.held = vec![entry.slot];
        }
    }

    /// What was found under one name and is kept under another one: a keeper holds an open file once, so it has to let it go first.
    fn let_moved_go(&mut self, orders: &mut Vec<Order>) {
        let has_moved = |name: &str, entry: &Entry| {
            let now = entry.found.as_ref().and_then(|found| self.name_of(found));
            now.is_some_and(|now| now != name)
        };
        let moved: Vec<_> = self.entries.iter().filter(|(name, entry)| has_moved(name, entry)).map(|(name, _)| name.clone()).collect();
        for name in moved {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.found = None;
            orders.extend(entry.held.drain(..).map(|slot| Order::remove(&slot.full_name(&name))));
        }
    }

    /// Keeps that very file by no name any more. Returns the full names under which it may be held.
    pub(super) fn give_up(&mut self, descriptor: &impl AsFd) -> Vec<String> {
        let mut names = Vec::new();
        for (name, entry) in &mut self.entries {
            let is_kept = entry.kept.take_if(|kept| is_same(kept, descriptor)).is_some();
            if is_kept || entry.has_found(descriptor) {
                (entry.found, entry.is_offered) = (None, false);
                entry.held.clear();
                // A predecessor may have something else there by now.
                names.extend(Slot::all().map(|slot| slot.full_name(name)));
            }
        }
        self.entries.retain(|_, entry| entry.kept.is_some() || !entry.held.is_empty());
        names
    }

    /// And nothing else is.
    pub(super) fn hold_nothing_else(&mut self, orders: &mut Vec<Order>) {
        self.entries.retain(|name, entry| {
            let is_kept = entry.kept.is_some();
            let held = entry.held.iter().filter(|_| !is_kept);
            orders.extend(held.map(|slot| Order::remove(&slot.full_name(name))));
            is_kept
        });
    }

    /// The restart is final. The successor does not know of what came after its start.
    pub(super) fn let_go(&mut self, orders: &mut Vec<Order>) {
        self.remove(|entry| entry.given.is_none(), orders);
    }

    /// Nothing is held any more.
    pub(super) fn clear(&mut self, orders: &mut Vec<Order>) {
        self.remove(|_| true, orders);
    }

    fn remove(&mut self, is_meant: impl Fn(&Entry) -> bool, orders: &mut Vec<Order>) {
        for (name, entry) in mem::take(&mut self.entries).into_iter().filter(|(_, entry)| is_meant(entry)) {
            orders.extend(entry.held.iter().map(|slot| Order::remove(&slot.full_name(&name))));
        }
    }

    /// What a successor is given, by its full name.
    pub(super) fn give(&mut self) -> Vec<(String, OwnedFd)> {
        let all = self.entries.iter_mut().filter_map(|(name, entry)| {
            entry.given = Some(entry.slot);
            // Without one of them the successor begins without it, as a first start does.
            Some((entry.slot.full_name(name), sys::duplicate(entry.kept.as_ref()?, 3).ok()?))
        });
        all.collect()
    }

    /// So many bytes the full names are, each with a colon.
    pub(super) fn length_of_names(&self) -> usize {
        self.names().map(|name| names::length_of(name) + 1).sum()
    }
}

/// Whether the two are one open file. Where the kernel does not tell, they are if they are one file:
/// eventfds and the like are none, and have one number all together.
fn is_same(one: &impl AsFd, other: &impl AsFd) -> bool {
    let is_file = || fstat(one).is_ok_and(|found| found.st_mode & libc::S_IFMT != 0);
    sys::identity(one.as_fd().as_raw_fd()) == sys::identity(other.as_fd().as_raw_fd())
        && sys::is_same_open_file(one, other).unwrap_or_else(|_| is_file())
}
