//! What the program keeps by name, and what of that a keeper holds.
//!
//! Knows: which slot is whose, and in which order a keeper is told so that a kill in between loses nothing. Does not know: when
//! the service is this process's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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
    /// `None`: it was forgotten, and is still held.
    descriptor: Option<OwnedFd>,
    /// The program has it; otherwise it is there to be taken.
    is_kept: bool,
    /// Under which it is held, or will be.
    slot: Slot,
    /// In which something is held, the latest last.
    held: Vec<Slot>,
    /// The successor under way knows of something under this name.
    is_given: bool,
}

impl Entry {
    fn kept(&self) -> Option<&OwnedFd> {
        self.descriptor.as_ref().filter(|_| self.is_kept)
    }
}

impl Named {
    pub(super) fn new(held: BTreeMap<String, Versions>) -> Named {
        let entry = |Versions { latest, slots }| Entry {
            descriptor: Some(latest),
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
        self.entries.values().filter(|entry| entry.descriptor.is_some() && !entry.is_kept).count()
    }

    /// What the program keeps.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, entry)| entry.kept().is_some()).map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.kept().is_some())
    }

    /// Whether the program keeps that very file under that name.
    pub(super) fn is_same(&self, name: &str, descriptor: &impl AsFd) -> bool {
        self.entries.get(name).and_then(Entry::kept).is_some_and(|kept| is_same(kept, descriptor))
    }

    /// Keeps that under a name, and what was there no more. `orders`, if the service is this process's: what a kill finds is the
    /// one or the other.
    pub(super) fn keep(&mut self, name: &str, own: OwnedFd, orders: Option<&mut Vec<Order>>) -> io::Result<()> {
        let copy = orders.as_ref().map(|_| sys::duplicate(&own, 3)).transpose()?;
        let entry = self.entries.entry(name.into()).or_default();
        if entry.held.contains(&entry.slot) {
            entry.slot = entry.slot.next();
        }
        if let (Some(orders), Some(copy)) = (orders, copy) {
            orders.push(Order::store(&entry.slot.full_name(name), false, vec![copy]));
            orders.extend(entry.held.drain(..).map(|slot| Order::remove(&slot.full_name(name))));
            entry.held.push(entry.slot);
        }
        (entry.descriptor, entry.is_kept) = (Some(own), true);
        Ok(())
    }

    /// What a process before has kept under that name, once. It is kept on.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let entry = self.entries.get_mut(name).filter(|entry| !entry.is_kept)?;
        let descriptor = entry.descriptor.take()?;
        match sys::duplicate(&descriptor, 3) {
            Ok(own) => (entry.descriptor, entry.is_kept) = (Some(own), true),
            Err(error) => log::warn!(target: "pollflip", "{name:?} was kept, and is no more: {error}"),
        }
        Some(descriptor)
    }

    /// Keeps that name no more. Says whether there was something.
    pub(super) fn forget(&mut self, name: &str, orders: Option<&mut Vec<Order>>) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        let was_there = entry.descriptor.take().is_some();
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
    /// Of what is held under a name all but the latest is removed first: with something in all three slots nobody could tell which
    /// is that.
    pub(super) fn hold(&mut self, follows: bool, orders: &mut Vec<Order>) {
        for (name, entry) in &mut self.entries {
            if let Some(latest) = entry.held.pop() {
                let others = Slot::all().filter(|slot| *slot != latest && (follows || entry.held.contains(slot)));
                orders.extend(others.map(|slot| Order::remove(&slot.full_name(name))));
                entry.held = vec![latest];
            }
            let Some(kept) = entry.kept() else { continue };
            match sys::duplicate(kept, 3) {
                // What is held already stays as it is.
                Ok(copy) => orders.push(Order::store(&entry.slot.full_name(name), false, vec![copy])),
                Err(error) => log::warn!(target: "pollflip", "{name:?} is not kept: {error}"),
            }
        }
    }

    /// And nothing else is.
    pub(super) fn hold_nothing_else(&mut self, orders: &mut Vec<Order>) {
        self.entries.retain(|name, entry| {
            let is_kept = entry.kept().is_some();
            let others = entry.held.iter().filter(|slot| !is_kept || **slot != entry.slot);
            orders.extend(others.map(|slot| Order::remove(&slot.full_name(name))));
            entry.held = vec![entry.slot];
            is_kept
        });
    }

    /// The service is a successor's for good, which does not know of what came later.
    pub(super) fn let_go(&mut self, orders: &mut Vec<Order>) {
        self.remove(|entry| !entry.is_given, orders);
    }

    /// Nothing is held any more.
    pub(super) fn clear(&mut self, orders: &mut Vec<Order>) {
        self.remove(|_| true, orders);
    }

    fn remove(&mut self, is_meant: impl Fn(&Entry) -> bool, orders: &mut Vec<Order>) {
        for (name, entry) in std::mem::take(&mut self.entries).into_iter().filter(|(_, entry)| is_meant(entry)) {
            orders.extend(entry.held.iter().map(|slot| Order::remove(&slot.full_name(&name))));
        }
    }

    /// What a successor is given, by its full name.
    pub(super) fn give(&mut self) -> Vec<(String, OwnedFd)> {
        let all = self.entries.iter_mut().filter_map(|(name, entry)| {
            entry.is_given = true;
            // Without one of them the successor begins without it, as a first start does.
            Some((entry.slot.full_name(name), sys::duplicate(entry.kept()?, 3).ok()?))
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
fn is_same(one: &OwnedFd, other: &impl AsFd) -> bool {
    let is_file = || fstat(one).is_ok_and(|found| found.st_mode & libc::S_IFMT != 0);
    sys::identity(one.as_raw_fd()) == sys::identity(other.as_fd().as_raw_fd())
        && sys::is_same_open_file(one, other).unwrap_or_else(|_| is_file())
}
