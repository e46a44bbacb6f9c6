//! What the restarter has of a keeper: whose connections and descriptors are held at which moment.
//!
//! Knows: what each word of the machines means for the keeper. Does not know: when the machines say it; who sends the orders.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::error::Exit;
use crate::machine::Whose;
use crate::sys;

use super::{Inner, Keeper, KeptGroup, KeptStream, Listener, Order, Sort, Survivors};

impl Keeper {
    /// The service is this process's: what it has is held, and what those before it had is not. What is stored comes before what it
    /// stands for is removed: a kill in between leaves both. `is_alone`: nobody has granted it. Then the program may have yet to learn that
    /// a predecessor has ended, and what that one had stays until then.
    pub(crate) fn take_service<'a>(
        &self,
        is_alone: bool,
        listeners: impl Iterator<Item = (&'a str, Listener<'a>)>,
        groups: impl Iterator<Item = KeptGroup<'a>>,
    ) {
        let is_active = self.is_active();
        let Some(mut inner) = self.inner() else { return };
        let inner = &mut *inner;
        if inner.whose.is_some() || inner.has_stopped {
            return;
        }
        inner.whose = Some(Whose::This);
        // First: there may be something else under such a name by now.
        inner.orders.extend(mem::take(&mut inner.unused).iter().map(|name| Order::remove(name)));
        if is_active {
            inner.streams.hold(&mut inner.orders);
        }
        for (name, listener) in listeners {
            match listener {
                Listener::Held => inner.listeners.add(name),
                Listener::New(listener) => self.hold_listener(inner, name, listener),
            }
        }
        groups.for_each(|group| self.hold_group(inner, &group));
        inner.named.hold(inner.is_successor, &mut inner.orders);
        if !is_alone || !inner.is_successor || inner.is_end_told || inner.is_recovered {
            inner.streams.hold_no_others(&mut inner.orders);
        }
        inner.named.hold_nothing_else(&mut inner.orders);
    }

    /// What a predecessor had, and the program has not asked for, is held no more.
    pub(crate) fn let_survivors_go(&self) {
        let Some(mut inner) = self.inner() else { return };
        let inner = &mut *inner;
        inner.is_end_told = true;
        // Before that the program can still ask for it.
        if inner.whose.is_some() {
            inner.streams.hold_no_others(&mut inner.orders);
        }
    }

    /// From now on that is held, and nothing else.
    pub(crate) fn hold(&self, whose: Whose) {
        let is_active = self.is_active();
        let Some(mut inner) = self.inner() else { return };
        let inner = &mut *inner;
        inner.whose = Some(whose);
        let (streams, orders) = (&mut inner.streams, &mut inner.orders);
        match whose {
            Whose::Both if is_active => streams.lend(orders),
            Whose::Both => {}
            Whose::This => streams.settle(orders),
            Whose::Returned => streams.come_back(orders),
            Whose::Successor => {
                streams.let_go(orders);
                inner.named.let_go(orders);
            }
        }
    }

    /// The service ends: nothing is to outlive it.
    pub(crate) fn stop(&self) {
        let Some(mut inner) = self.inner() else { return };
        let inner = &mut *inner;
        inner.has_stopped = true;
        inner.listeners.clear(&mut inner.orders);
        inner.groups.clear(&mut inner.orders);
        inner.named.clear(&mut inner.orders);
        inner.streams.clear(&mut inner.orders);
    }

    /// This process has what it drains for itself. It takes processor time to close all of it, so it comes after others have been told.
    pub(crate) fn close(&self) {
        if let Some(mut inner) = self.inner() {
            inner.streams.close();
        }
    }

    /// A socket of the service, which is held under that name or as a part of the group of that name, as soon as anything is.
    pub(crate) fn has_socket(&self, name: &str, socket: BorrowedFd<'_>) {
        let (Some(mut inner), Some(file)) = (self.inner(), sys::identity(socket.as_raw_fd())) else { return };
        let inner = &mut *inner;
        inner.sockets.insert(file, name.into());
        // Another release may have kept it by a name of its own. A keeper holds it once, so it has to let that go first.
        let names = inner.named.give_up(&socket);
        if names.is_empty() {
            return;
        }
        log::warn!(target: "pollflip", "socket {name:?} was kept by a name of its own too: it is kept as {name:?} alone");
        if inner.whose.is_none() {
            inner.unused.extend(names);
        } else if inner.is_holding() {
            inner.orders.extend(names.iter().map(|name| Order::remove(name)));
            self.wake();
        }
    }

    /// A listener was bound, or came under another name.
    pub(crate) fn listens(&self, name: &str, listener: BorrowedFd<'_>) {
        if let Some(mut inner) = self.inner().filter(|inner| inner.is_holding()) {
            self.hold_listener(&mut inner, name, listener);
            self.wake();
        }
    }

    /// A listener is this service's no more.
    pub(crate) fn listens_no_more(&self, name: &str) {
        if let Some(mut inner) = self.inner() {
            let inner = &mut *inner;
            inner.sockets.retain(|_, known| known != name);
            if inner.listeners.remove(name, &mut inner.orders) {
                self.wake();
            } else {
                self.hold_no_more(inner, vec![name.into()]);
            }
        }
    }

    /// A UDP group was bound, or came of a predecessor that did not keep it.
    pub(crate) fn has_group(&self, group: &KeptGroup<'_>) {
        if let Some(mut inner) = self.inner().filter(|inner| inner.is_holding()) {
            self.hold_group(&mut inner, group);
            self.wake();
        }
    }

    /// A UDP group is this service's no more.
    pub(crate) fn has_group_no_more(&self, group: &KeptGroup<'_>) {
        if let Some(mut inner) = self.inner() {
            let inner = &mut *inner;
            inner.sockets.retain(|_, known| known != group.name);
            if inner.groups.remove(group.name, &mut inner.orders) {
                self.wake();
            } else {
                self.hold_no_more(inner, group.names());
            }
        }
    }

    /// What this process has not had held is held for one before it, if it is: no more as soon as the service is this process's.
    fn hold_no_more(&self, inner: &mut Inner, names: Vec<String>) {
        if inner.whose.is_none() {
            inner.unused.extend(names);
        } else if inner.is_holding() && self.shared.as_ref().is_some_and(|shared| shared.sort == Sort::Removes) {
            inner.orders.extend(names.iter().map(|name| Order::remove(name)));
            self.wake();
        }
    }

    fn hold_group(&self, inner: &mut Inner, group: &KeptGroup<'_>) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.sort == Sort::Keeps) else { return };
        if group.is_held || inner.groups.has(group.name) {
            return inner.groups.add(group);
        }
        let has_room = shared.room.check(inner.taken(), group.parts.iter().map(|(name, _)| name.len()));
        if let Err(why) = has_room.and_then(|()| inner.groups.hold(group, &mut inner.orders)) {
            log::warn!(target: "pollflip", "UDP group {:?} is not kept, and ends with this process: {why}", group.name);
        }
    }

    fn hold_listener(&self, inner: &mut Inner, name: &str, listener: BorrowedFd<'_>) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.sort == Sort::Keeps) else { return };
        let has_room = if inner.listeners.has(name) { Ok(()) } else { shared.room.check(inner.taken(), [name.len()].into_iter()) };
        if let Err(why) = has_room.and_then(|()| inner.listeners.hold(name, listener, &mut inner.orders)) {
            log::warn!(target: "pollflip", "socket {name:?} is not kept, and ends with this process: {why}");
        }
    }

    /// What a successor is given by name: what is kept so, where the connections lie, and where its own will.
    pub(crate) fn given(&self) -> Vec<(String, OwnedFd)> {
        let Some(mut inner) = self.inner() else { return Vec::new() };
        let mut given = inner.named.give();
        given.extend(inner.streams.give());
        given
    }

    /// The orders that were made since.
    pub(crate) fn take_orders(&self) -> Vec<Order> {
        let orders = self.inner().map(|mut inner| mem::take(&mut inner.orders)).unwrap_or_default();
        let is_heard = self.shared.as_ref().is_some_and(|shared| shared.sort != Sort::PassesOn);
        if is_heard { orders } else { Vec::new() }
    }

    /// What an operator should know.
    pub(crate) fn note(&self) -> Option<String> {
        let (exit, strikes) = self.inner()?.end?;
        Some(format!("the process before this one {exit}; strike {strikes}"))
    }

    /// What the process before has left, once. `has_ended`: the process before is not there any more, be it the predecessor.
    pub(crate) fn survivors(&self, has_ended: bool) -> Option<Survivors> {
        let mut inner = self.inner()?;
        let is_late = inner.whose.is_some() && !inner.streams.follow_others();
        if is_late || !has_ended || mem::replace(&mut inner.is_recovered, true) {
            return None;
        }
        if inner.end.is_none() && !inner.streams.follow_others() && inner.named.untaken() == 0 {
            return None;
        }
        let streams = living(inner.streams.look());
        let (exit, strikes) = inner.end.unwrap_or((Exit::Unknown, 0));
        log::warn!(
            target: "pollflip",
            "the process before {exit}; strike {strikes}: {} connections were kept, and {} descriptors by name that the program has yet to take",
            streams.len(),
            inner.named.untaken()
        );
        drop(inner);
        Some(Survivors { keeper: self.clone(), exit, strikes, streams })
    }

    /// The connections that this process has kept, when the service has come back to it.
    pub(crate) fn returned(&self) -> impl Iterator<Item = KeptStream> + use<> {
        let returned = self.inner().and_then(|mut inner| inner.streams.take_returned());
        KeptStream::kept_by(self.clone(), living(returned.unwrap_or_default()))
    }

    pub(super) fn absolve(&self) {
        if let Some(mut inner) = self.inner() {
            inner.orders.push(Order::absolve());
            self.wake();
        }
    }
}

/// Those that are not over: what was forgotten may still lie in a queue.
fn living(mut streams: Vec<OwnedFd>) -> Vec<OwnedFd> {
    streams.retain(|stream| !sys::is_over(stream));
    streams
}
