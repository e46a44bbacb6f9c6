//! The UDP groups that are held: all parts of one, or none.
//!
//! Knows: the names of the parts. Does not know: what a part is for.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use crate::sys;

use super::order::Order;

/// A UDP group that is to outlive this process.
#[derive(Debug)]
pub(crate) struct KeptGroup<'a> {
    pub(crate) name: &'a str,
    /// A keeper has given it, and holds it on.
    pub(crate) is_held: bool,
    /// Its memory file and its sockets, each under a name of its own.
    pub(crate) parts: Vec<(String, BorrowedFd<'a>)>,
}

impl KeptGroup<'_> {
    pub(super) fn names(&self) -> Vec<String> {
        self.parts.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// By the names of the groups: under which names their parts are held.
#[derive(Debug, Default)]
pub(super) struct Groups {
    held: BTreeMap<String, Vec<String>>,
}

impl Groups {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.held.values().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.names().count()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// So many bytes the names of the parts are, each with a colon.
    pub(super) fn length_of_names(&self) -> usize {
        self.names().map(|name| name.len() + 1).sum()
    }

    /// A keeper holds it already.
    pub(super) fn add(&mut self, group: &KeptGroup<'_>) {
        self.held.insert(group.name.into(), group.names());
    }

    /// Has it held.
    pub(super) fn hold(&mut self, group: &KeptGroup<'_>, orders: &mut Vec<Order>) -> io::Result<()> {
        // Watched, a socket would go as soon as there is something in its error queue.
        let order = |(name, part): &(String, BorrowedFd<'_>)| Ok(Order::store(name, false, vec![sys::duplicate(part, 3)?]));
        let all: Vec<_> = group.parts.iter().map(order).collect::<io::Result<_>>()?;
        orders.extend(all);
        self.add(group);
        Ok(())
    }

    /// Has it held no more. Says whether it was.
    pub(super) fn remove(&mut self, name: &str, orders: &mut Vec<Order>) -> bool {
        let names = self.held.remove(name);
        let was_there = names.is_some();
        orders.extend(names.iter().flatten().map(|name| Order::remove(name)));
        was_there
    }

    pub(super) fn clear(&mut self, orders: &mut Vec<Order>) {
        orders.extend(mem::take(&mut self.held).values().flatten().map(|name| Order::remove(name)));
    }
}
