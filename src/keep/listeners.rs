//! The listeners that are held.
//!
//! Knows: their names, and how many have one. Does not know: what else the process listens on.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;

use nix::sys::socket::{getsockopt, sockopt};

use crate::notify::is_fit_name;
use crate::sys;

use super::order::Order;

/// A listener that is to outlive this process.
#[derive(Debug)]
pub(crate) enum Listener<'a> {
    /// A keeper has given it, and holds it on.
    Held,
    /// The keeper has yet to be sent it.
    New(BorrowedFd<'a>),
}

/// By their names: how many of each are held.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    held: BTreeMap<String, usize>,
}

impl Listeners {
    pub(super) fn len(&self) -> usize {
        self.held.values().sum()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// So many bytes their names are, each with a colon.
    pub(super) fn length_of_names(&self) -> usize {
        self.held.keys().map(|name| name.len() + 1).sum()
    }

    /// A keeper holds one of that name already.
    pub(super) fn add(&mut self, name: &str) {
        *self.held.entry(name.into()).or_default() += 1;
    }

    /// Has one held.
    pub(super) fn hold(&mut self, name: &str, listener: BorrowedFd<'_>, orders: &mut Vec<Order>) -> io::Result<()> {
        if !is_fit_name(name) || name.starts_with("pollflip.") {
            return Err(io::Error::other(
                "its name has other characters than printable ASCII in it, a colon, or begins with \"pollflip.\": give it another one",
            ));
        }
        let own = sys::duplicate(listener, 3)?;
        // One that is shut down is held no more. A socket for datagrams would go as soon as there is something in its error queue.
        let watched = getsockopt(&own, sockopt::AcceptConn).unwrap_or(false);
        orders.push(Order::store(name, watched, vec![own]));
        self.add(name);
        Ok(())
    }

    /// Has none of that name held any more. Says whether there were some.
    pub(super) fn remove(&mut self, name: &str, orders: &mut Vec<Order>) -> bool {
        let was_there = self.held.remove(name).is_some();
        orders.extend(was_there.then(|| Order::remove(name)));
        was_there
    }

    pub(super) fn clear(&mut self, orders: &mut Vec<Order>) {
        orders.extend(mem::take(&mut self.held).keys().map(|name| Order::remove(name)));
    }
}
