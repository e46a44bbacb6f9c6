//! The queues of connections: that of this process, those of the processes before and after it, and which of them a keeper holds.
//!
//! Knows: the names of the queues, and in which order a keeper is told so that a kill in between loses nothing. Does not know: when
//! the service is whose.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process;

use crate::sys;

use super::names;
use super::order::Order;
use super::queue::{self, Queue};

#[derive(Debug, Default)]
pub(super) struct Streams {
    own: Option<Own>,
    /// The queue of the successor under way.
    successor: Option<Lent>,
    /// The name of the queue of before the service came back, until the program has gone on with what it wants of that.
    former: Option<String>,
    /// What lay in it.
    returned: Option<Vec<OwnedFd>>,
    /// The ends of the queues of processes before, with the names under which they are held.
    before: Vec<(String, OwnedFd)>,
    /// So many this process has made.
    made: u32,
}

#[derive(Debug)]
struct Own {
    name: String,
    queue: Queue,
}

#[derive(Debug)]
struct Lent {
    name: String,
    /// Until it is given.
    queue: Option<Queue>,
}

impl Streams {
    /// `lent`: the queue that a predecessor has made for this process.
    pub(super) fn new(before: Vec<(String, OwnedFd)>, lent: Option<(String, Vec<OwnedFd>)>) -> Streams {
        let own = lent.and_then(|(name, ends)| Some(Own { name, queue: Queue::of_ends(ends)? }));
        Streams { own, before, ..Streams::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.queue.len())
    }

    pub(super) fn has(&self, cookie: u64) -> bool {
        self.own.as_ref().is_some_and(|own| own.queue.has(cookie))
    }

    pub(super) fn put(&mut self, cookie: u64, connection: BorrowedFd<'_>) -> io::Result<()> {
        self.make_own()?.queue.put(cookie, connection)
    }

    pub(super) fn forget(&mut self, cookie: u64) {
        if let Some(own) = &mut self.own {
            own.queue.forget(cookie);
        }
    }

    /// Whether there are queues of processes before.
    pub(super) fn follow_others(&self) -> bool {
        !self.before.is_empty()
    }

    /// What lies in the queues of processes before and is not in this one's, each once.
    pub(super) fn look(&self) -> Vec<OwnedFd> {
        let (mut known, mut found) = (HashSet::new(), Vec::new());
        for (name, end) in &self.before {
            if let Err(error) = queue::look_into(end, &mut known, &mut found) {
                log::error!(target: "pollflip", "some of what was kept as {name:?} cannot be had: {error}");
            }
        }
        found.retain(|stream| !sys::socket_cookie(stream).is_ok_and(|cookie| self.has(cookie)));
        found
    }

    /// What lay in the queue of this process when the service came back to it, once.
    pub(super) fn take_returned(&mut self) -> Option<Vec<OwnedFd>> {
        self.returned.take()
    }

    /// The service is this process's: its queue is held.
    pub(super) fn hold(&mut self, orders: &mut Vec<Order>) {
        let order = self.make_own().and_then(|own| own.order());
        match order {
            Ok(order) => orders.push(order),
            Err(error) => log::warn!(target: "pollflip", "connections are not kept, and end with this process: {error}"),
        }
    }

    /// And those of the processes before are not.
    pub(super) fn hold_no_others(&mut self, orders: &mut Vec<Order>) {
        let mut names: Vec<String> = mem::take(&mut self.before).into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        orders.extend(names.iter().map(|name| Order::remove(name)));
    }

    /// A successor is about to be started, which has a queue from the start.
    pub(super) fn lend(&mut self, orders: &mut Vec<Order>) {
        let name = self.new_name();
        let lent = Queue::new().map(|queue| Own { name, queue }).and_then(|lent| Ok((lent.order()?, lent)));
        match lent {
            Ok((order, Own { name, queue })) => {
                orders.push(order);
                self.successor = Some(Lent { name, queue: Some(queue) });
            }
            // It makes its own when the service is its own.
            Err(error) => log::warn!(target: "pollflip", "a successor keeps no connections before the restart is final: {error}"),
        }
    }

    /// What a successor is given, by its full name: where the connections lie, should this process end before it hands them over,
    /// and where its own will.
    pub(super) fn give(&mut self) -> Vec<(String, OwnedFd)> {
        let mut given = Vec::new();
        let mut add = |name: &str, queue: &Queue| {
            // Without one of the ends the queue is none.
            let ends = queue.ends().map(|end| sys::duplicate(end, 3));
            given.extend(ends.into_iter().filter_map(|end| Some((name.to_owned(), end.ok()?))));
        };
        if let Some(own) = &self.own {
            add(&own.name, &own.queue);
        }
        if let Some(lent) = &mut self.successor
            && let Some(queue) = lent.queue.take()
        {
            add(&names::as_lent(&lent.name), &queue);
        }
        given
    }

    /// The successor is gone, and so is what was asked of the program when the service came back.
    pub(super) fn settle(&mut self, orders: &mut Vec<Order>) {
        self.returned = None;
        orders.extend(self.successor.take().map(|lent| Order::remove(&lent.name)));
        orders.extend(self.former.take().map(|name| Order::remove(&name)));
    }

    /// The service has come back: the program keeps anew what it goes on with. What it has kept stays held until then.
    pub(super) fn come_back(&mut self, orders: &mut Vec<Order>) {
        orders.extend(self.successor.take().map(|lent| Order::remove(&lent.name)));
        self.returned = Some(Vec::new());
        // An empty one stays.
        let Some(own) = self.own.take_if(|own| own.queue.len() > 0) else { return };
        match own.queue.all() {
            Ok(streams) => self.returned = Some(streams),
            Err(error) => log::warn!(target: "pollflip", "connections that were handed over are lost: {error}"),
        }
        self.former = Some(own.name);
        self.hold(orders);
    }

    /// The restart is final. The successor's own queue was held all the while.
    pub(super) fn let_go(&mut self, orders: &mut Vec<Order>) {
        self.successor = None;
        orders.extend(self.own.as_ref().map(|own| Order::remove(&own.name)));
    }

    /// Nothing is held any more.
    pub(super) fn clear(&mut self, orders: &mut Vec<Order>) {
        self.settle(orders);
        self.let_go(orders);
        self.hold_no_others(orders);
        self.close();
    }

    /// The queue of this process is emptied. A connection that lay in it ends when its other owners close it, although others still
    /// have the queue open.
    pub(super) fn close(&mut self) {
        if let Some(mut own) = self.own.take() {
            own.queue.clear();
        }
    }

    fn make_own(&mut self) -> io::Result<&mut Own> {
        if self.own.is_none() {
            let name = self.new_name();
            self.own = Some(Own { name, queue: Queue::new()? });
        }
        self.own.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// One that nothing is held under. A process before may have had the same number.
    fn new_name(&mut self) -> String {
        loop {
            let name = names::of_queue(process::id(), self.made);
            self.made += 1;
            let own = self.own.iter().map(|own| &own.name);
            let others = self.before.iter().map(|(name, _)| name).chain(&self.former);
            if !own.chain(others).any(|taken| *taken == name) {
                return name;
            }
        }
    }
}

impl Own {
    fn order(&self) -> io::Result<Order> {
        let ends = self.queue.ends().into_iter().map(|end| sys::duplicate(end, 3)).collect::<io::Result<_>>()?;
        Ok(Order::store(&self.name, false, ends))
    }
}
