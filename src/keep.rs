//! What outlives this process: descriptors that somebody else holds, and gives to the next start.
//!
//! Knows: the names under which they are held, how many there may be, and the queue that connections
//! lie in. Does not know: when the service is this process's; who sends the orders.
//!
//! The keeper is a [guard](crate::guard) that starts the service again, or a systemd whose unit has
//! `FileDescriptorStoreMax=`. Both hold what they are sent as `FDSTORE=1`. Each listener is one
//! entry there, and so is each descriptor that the program keeps by name. All connections together
//! are four: the ends of two queues of unix sockets ([`queue`]). To keep one more connection is one
//! system call of this process, and nobody is sent a message.
//!
//! Each process has queues of its own. It has them held when the service is its own, and then has
//! those of the processes before removed. So at every moment the connections are held of that
//! process which serves, and of no other: what an old process drains ends with it. A guard listens to
//! a successor from the grant on; systemd listens to the main process alone, which a successor is
//! from the commit on.

mod held;
mod queue;
mod survivors;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::fstat;

use crate::error::Exit;
use crate::notify::{LAST_END, STORE_SIZE, STRIKES, end_of_text, is_fit_name, to_absolve, to_remove, to_store};
use crate::sys::{self, Origin};
use crate::systemd;

use queue::Queue;

pub(crate) use held::Held;
pub use survivors::{Survivor, Survivors};

/// Under such a name what the program has kept is held, and goes to successors.
const KEPT: &str = "pollflip.kept.";
/// Under this and the number of a process its queues are held.
const STREAMS: &str = "pollflip.streams.";
/// So many descriptors the queues of a process are.
const QUEUE_ENDS: usize = 4;
/// So many bytes all names may have together, with a colon after each: the kernel takes 128 KiB in a
/// variable, and a systemd that was given more never starts the service again.
const ROOM_FOR_NAMES: usize = 100 * 1024;
/// Of the descriptors that the user may have on their way, so many parts stay free: for the queues
/// of a successor, and for what it is handed over.
const PARTS: usize = 4;
/// A process with one of them may have any number on their way.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// A message to the keeper, with what goes along.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) text: String,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Has descriptors held that outlive this process: see
/// [`RestartConfig::keep`](crate::RestartConfig::keep).
///
/// Cheap to clone, and usable from any thread. A forked child's copy does nothing, but has what is
/// kept open as long as the child keeps it: drop it there, or execute another program.
///
/// Without anybody who holds ([`is_active`](Keeper::is_active)) nothing outlives a kill, which is no
/// error: a warning is logged. What is kept by name goes to successors all the same.
///
/// The [recipe](crate::recipes#a-service-that-comes-back-from-a-kill) shows it together with a
/// [`Ledger`](crate::ledger::Ledger).
///
/// ```no_run
/// use std::fs::File;
///
/// # fn scratch() -> File { unimplemented!() }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut restarter = pollflip::RestartConfig::new().keep(true).build()?;
/// let keeper = restarter.keeper();
/// // What the process before has kept, be it the predecessor or one that was killed; or a new one.
/// let counters = keeper.take("counters").map_or_else(scratch, File::from);
/// keeper.keep("counters", &counters)?;
/// let listener = restarter.sockets().tcp_listener("web", "127.0.0.1:8080")?;
/// restarter.ready()?;
/// // The listener does not block: this belongs where the poll tells that it is readable.
/// while let Ok((connection, _)) = listener.accept() {
///     keeper.keep_stream(&connection)?;
///     // … served …
///     keeper.forget_stream(&connection);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keeper {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    origin: Origin,
    waker: Arc<Waker>,
    sort: Sort,
    /// The keeper listens to processes that are not the main one.
    is_guarded: bool,
    /// How many entries it has, if it says so.
    size: Option<usize>,
    /// So many connections may lie in the queue of this process.
    most_streams: usize,
    inner: Mutex<Inner>,
}

/// What comes of all this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// There is a keeper.
    Keeps,
    /// There is none: what is kept by name goes to successors, and that is all.
    PassesOn,
    /// The program keeps nothing, and has removed what was kept before.
    Removes,
}

#[derive(Debug, Default)]
struct Inner {
    stage: Stage,
    queue: Option<Queue>,
    /// The queue of before the service was a successor's.
    handed_over: Option<Queue>,
    /// The keeper was told of the queue.
    is_queue_held: bool,
    /// How often the service came back with connections: so many queues this process had before.
    queues_before: u32,
    /// The name of the queue before, until the program has had its chance to go on with what lay there.
    unsettled: Option<String>,
    /// In the restart that is under way, the connections are handed over.
    hands_over: bool,
    /// What the program keeps by name.
    kept: BTreeMap<String, OwnedFd>,
    /// What a process before has kept, and the program has not taken.
    untaken: BTreeMap<String, OwnedFd>,
    /// Names of what a process before has kept, and this one keeps no more: forgotten, or with
    /// something else under the name.
    unkept: Vec<String>,
    /// The successor to which the service was granted.
    successor: Option<u32>,
    /// The names of listeners that are held.
    listeners: BTreeMap<String, usize>,
    /// The queues of processes before, by the names under which they are held.
    leftover: Vec<(String, OwnedFd)>,
    /// How the process before has ended, and how many strikes there are, if a keeper has told it.
    end: Option<(Exit, u32)>,
    /// What lay in the queue of this process when the service came back to it.
    returned: Vec<OwnedFd>,
    /// This start has been looked at by the program.
    is_recovered: bool,
    orders: Vec<Order>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Another process serves, or none does yet.
    #[default]
    Waiting,
    /// This process serves, and may have to give the service back.
    Granted,
    /// The service is this process's.
    Serving,
    /// Nothing is held for this process any more.
    Over,
}

/// A listener that is to outlive this process.
#[derive(Debug)]
pub(crate) enum Listener<'a> {
    /// A keeper has given it, and holds it on.
    Held,
    /// The keeper has yet to be sent it.
    New(BorrowedFd<'a>),
}

impl Keeper {
    /// One that does nothing.
    pub(crate) fn inert() -> Keeper {
        Keeper { shared: None }
    }

    /// One of a program that keeps nothing: what a release before it has kept is removed when the
    /// service is its own.
    pub(crate) fn for_nothing(held: Held, waker: Arc<Waker>) -> Keeper {
        if held.kept.is_empty() && held.leftover.is_empty() {
            return Keeper::inert();
        }
        let inner = Inner { untaken: held.kept, leftover: held.leftover, ..Inner::default() };
        Keeper::with(inner, waker, Sort::Removes, None)
    }

    fn with(inner: Inner, waker: Arc<Waker>, sort: Sort, size: Option<usize>) -> Keeper {
        let is_guarded = systemd::guard().is_some();
        let shared =
            Shared { origin: Origin::here(), waker, sort, is_guarded, size, most_streams: most_streams(), inner: Mutex::new(inner) };
        Keeper { shared: Some(Arc::new(shared)) }
    }

    /// `is_successor`: a predecessor has started this process, and no keeper.
    pub(crate) fn new(held: Held, is_successor: bool, waker: Arc<Waker>) -> Keeper {
        let size = env::var(STORE_SIZE).ok().and_then(|text| text.parse().ok());
        let is_there = systemd::is_there() && size != Some(0) && !(systemd::guard().is_some() && size.is_none());
        let is_active = is_there && !sys::has_gained_rights();
        if !is_there {
            log::warn!(
                target: "pollflip",
                "nobody keeps anything for this service: it needs a guard with --restart, or a unit of systemd with FileDescriptorStoreMax= \
                 and Restart="
            );
        } else if !is_active {
            log::warn!(
                target: "pollflip",
                "nothing outlives this process: it has rights that its caller need not have, and the caller would be the keeper"
            );
        }
        let end = if is_successor { None } else { last_end() };
        let inner = Inner { untaken: held.kept, leftover: held.leftover, end, ..Inner::default() };
        Keeper::with(inner, waker, if is_active { Sort::Keeps } else { Sort::PassesOn }, size)
    }

    /// Whether somebody holds what is kept here: a guard that starts the service again, or systemd.
    /// Of a systemd before version 254 it cannot be seen whether the unit has
    /// `FileDescriptorStoreMax=`, and it is taken to have that.
    pub fn is_active(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.sort == Sort::Keeps && shared.origin.is_here())
    }

    /// Keeps a descriptor, any but a connection, under a name: a memory file with the state, say. The
    /// next start gets it by [`take`](Keeper::take), and so does each successor. What was kept under
    /// that name before is kept no more.
    ///
    /// The keeper has it as soon as the service is this process's, and the loop has turned.
    ///
    /// # Errors
    ///
    /// The name is not fit: it has 1 to 241 printable ASCII characters, and no colon among them
    /// (`InvalidInput`). There is no room for one more, or for the name (`StorageFull`). No
    /// descriptor can be had.
    pub fn keep(&self, name: &str, descriptor: &impl AsFd) -> io::Result<()> {
        let Some(mut inner) = self.inner() else { return Ok(()) };
        let full_name = format!("{KEPT}{name}");
        if name.is_empty() || !is_fit_name(&full_name) {
            let why = format!("{name:?} cannot be kept under that name: give it 1 to 241 printable ASCII characters without a colon");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if !inner.kept.contains_key(name) {
            self.check_room(&inner, &full_name)?;
        }
        if inner.kept.get(name).is_some_and(|kept| is_same(kept, descriptor)) {
            // Between a removal and what is stored anew, a kill would lose it.
            return Ok(());
        }
        let own = sys::duplicate(descriptor, 3)?;
        if inner.stage == Stage::Serving {
            let order = Order { text: to_store(&full_name, false), descriptors: vec![sys::duplicate(&own, 3)?] };
            inner.remove(name);
            inner.orders.push(order);
            self.wake();
        } else {
            inner.remove(name);
        }
        inner.kept.insert(name.into(), own);
        Ok(())
    }

    /// What a process before has kept under that name: after a kill, or of the predecessor. It is kept
    /// on. `None`: there is nothing, or it was taken. What nobody has taken when the service is this
    /// process's is kept no more.
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        let mut inner = self.inner()?;
        let descriptor = inner.untaken.remove(name)?;
        // It is held already, and one more duplicate goes to successors.
        match sys::duplicate(&descriptor, 3) {
            Ok(own) => _ = inner.kept.insert(name.into(), own),
            Err(error) => log::warn!(target: "pollflip", "{name:?} was kept, and successors do not get it: {error}"),
        }
        Some(descriptor)
    }

    /// Keeps what has that name no more. Says whether there was something.
    pub fn forget(&self, name: &str) -> bool {
        let Some(mut inner) = self.inner() else { return false };
        let found = inner.remove(name);
        self.wake();
        found
    }

    /// Keeps a connection: a TCP stream or another socket. If the process is killed, the connection
    /// stays open, and its peer notices a pause; the next start gets it by
    /// [`Survivors::streams`]. Takes some microseconds, and nobody is sent a message.
    ///
    /// A connection that is kept does not end when the program closes it: [forget
    /// it](Keeper::forget_stream). A successor keeps what it is handed over anew. A connection that is
    /// kept already stays so.
    ///
    /// # Errors
    ///
    /// It is no socket. There are as many as there may be: a user without CAP_SYS_RESOURCE may have
    /// as many descriptors on their way as RLIMIT_NOFILE says, of which a quarter is for these
    /// (`StorageFull`). The kernel has no memory. The connection is not kept then, and goes on.
    pub fn keep_stream(&self, connection: &impl AsFd) -> io::Result<()> {
        let (Some(mut inner), Some(shared)) = (self.inner(), &self.shared) else { return Ok(()) };
        if inner.stage == Stage::Over || shared.sort != Sort::Keeps {
            return Ok(());
        }
        let cookie = sys::socket_cookie(connection)?;
        let queue = match &mut inner.queue {
            Some(queue) => queue,
            none => none.insert(Queue::new()?),
        };
        if queue.len() >= shared.most_streams && !queue.has(cookie) {
            return Err(too_many(shared.most_streams));
        }
        queue.put(cookie, connection.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::ETOOMANYREFS) => too_many(queue.len()),
            Some(libc::EAGAIN) => {
                let why = format!("{} connections are kept, and the queue has no room for more: raise net.core.wmem_max", queue.len());
                io::Error::new(io::ErrorKind::StorageFull, why)
            }
            _ => error,
        })
    }

    /// Ends a connection and keeps it no more: shuts it down both ways, so that its peer sees the end
    /// although others have it open. Call this before the program closes it. What was not kept is
    /// shut down all the same.
    pub fn forget_stream(&self, connection: &impl AsFd) {
        if self.shared.as_ref().is_some_and(|shared| !shared.origin.is_here()) {
            return;
        }
        if let Some(mut inner) = self.inner()
            && let Some(queue) = &mut inner.queue
            && let Ok(cookie) = sys::socket_cookie(connection)
        {
            queue.forget(cookie);
        }
        shut_down(connection);
    }

    /// How many connections are kept.
    pub fn streams(&self) -> usize {
        self.inner().and_then(|inner| inner.queue.as_ref().map(Queue::len)).unwrap_or(0)
    }

    // --- for the restarter ---

    /// What the process before has left, once. `has_ended`: the process before is not there any more,
    /// be it the predecessor.
    pub(crate) fn survivors(&self, has_ended: bool) -> Option<Survivors> {
        let mut inner = self.inner()?;
        if inner.stage != Stage::Serving && !has_ended {
            return None;
        }
        if mem::replace(&mut inner.is_recovered, true) {
            return None;
        }
        let mut streams = mem::take(&mut inner.returned);
        let is_alive = |stream: &OwnedFd| !sys::is_over(stream);
        if inner.stage == Stage::Serving {
            streams.retain(is_alive);
            drop(inner);
            return Some(Survivors { keeper: self.clone(), exit: Exit::Unknown, strikes: 0, streams });
        }
        if inner.end.is_none() && inner.leftover.is_empty() && inner.untaken.is_empty() {
            return None;
        }
        let mut known = HashSet::new();
        for (name, end) in &inner.leftover {
            if let Err(error) = queue::look_into(end, &mut known, &mut streams) {
                log::error!(target: "pollflip", "some of what was kept as {name:?} cannot be had: {error}");
            }
        }
        // Those that this process was handed over are its own.
        if let Some(queue) = &inner.queue {
            streams.retain(|stream| !sys::socket_cookie(stream).is_ok_and(|cookie| queue.has(cookie)));
        }
        // Those that were forgotten may still lie in the queue.
        streams.retain(is_alive);
        let (exit, strikes) = inner.end.unwrap_or((Exit::Unknown, 0));
        log::warn!(
            target: "pollflip",
            "the process before {exit}; strike {strikes}: {} connections and {} other descriptors were kept",
            streams.len(),
            inner.untaken.len()
        );
        drop(inner);
        Some(Survivors { keeper: self.clone(), exit, strikes, streams })
    }

    /// What the program gets of it.
    pub(crate) fn for_program(&self) -> Keeper {
        let is_kept = self.shared.as_ref().is_some_and(|shared| shared.sort != Sort::Removes);
        if is_kept { self.clone() } else { Keeper::inert() }
    }

    /// Another process may still take the service back; what comes in from now on is held.
    pub(crate) fn granted(&self) {
        let Some(mut inner) = self.inner() else { return };
        if inner.stage == Stage::Waiting {
            inner.stage = Stage::Granted;
            if self.shared.as_ref().is_some_and(|shared| shared.is_guarded) {
                self.hold_queue(&mut inner);
            }
        }
    }

    /// The service is this process's: what it has is held, and what those before it had is not.
    pub(crate) fn serves<'a>(&self, predecessor: Option<u32>, listeners: impl Iterator<Item = (&'a str, Listener<'a>)>) {
        self.granted();
        let Some(mut inner) = self.inner() else { return };
        if inner.stage != Stage::Granted {
            return;
        }
        inner.stage = Stage::Serving;
        self.hold_queue(&mut inner);
        let unkept = mem::take(&mut inner.unkept);
        inner.orders.extend(unkept.iter().map(|name| Order { text: to_remove(&format!("{KEPT}{name}")), descriptors: Vec::new() }));
        for (name, listener) in listeners {
            match listener {
                Listener::Held => *inner.listeners.entry(name.into()).or_default() += 1,
                Listener::New(listener) => self.hold_listener(&mut inner, name, listener),
            }
        }
        let kept: Vec<_> = inner.kept.iter().map(|(name, own)| (format!("{KEPT}{name}"), sys::duplicate(own, 3))).collect();
        for (name, own) in kept {
            match own {
                Ok(own) => inner.orders.push(Order { text: to_store(&name, false), descriptors: vec![own] }),
                Err(error) => log::warn!(target: "pollflip", "{name:?} is not kept: {error}"),
            }
        }
        let mut names: Vec<String> = mem::take(&mut inner.leftover).into_iter().map(|(name, _)| name).collect();
        names.extend(predecessor.map(|pid| format!("{STREAMS}{pid}")));
        names.sort_unstable();
        names.dedup();
        names.extend(mem::take(&mut inner.untaken).into_keys().map(|name| format!("{KEPT}{name}")));
        inner.orders.extend(names.iter().map(|name| Order { text: to_remove(name), descriptors: Vec::new() }));
    }

    /// A listener was bound, or came under another name.
    pub(crate) fn listens(&self, name: &str, listener: BorrowedFd<'_>) {
        if let Some(mut inner) = self.inner().filter(|inner| inner.stage == Stage::Serving) {
            self.hold_listener(&mut inner, name, listener);
            self.wake();
        }
    }

    /// A listener is this service's no more.
    pub(crate) fn listens_no_more(&self, name: &str) {
        if let Some(mut inner) = self.inner()
            && inner.listeners.remove(name).is_some()
        {
            inner.orders.push(Order { text: to_remove(name), descriptors: Vec::new() });
            self.wake();
        }
    }

    /// A restart has begun, or its successor is given the connections.
    pub(crate) fn hands_over(&self, hands_over: bool) {
        if let Some(mut inner) = self.inner() {
            inner.hands_over = hands_over;
        }
    }

    /// The service was granted to that successor.
    pub(crate) fn granted_to(&self, successor: u32) {
        if let Some(mut inner) = self.inner() {
            inner.successor = Some(successor);
        }
    }

    /// The service is this process's again: a successor to which it was granted has ended, and what it
    /// kept ends with it. Of the connections that this process has kept, it need not have those any
    /// more that it has handed over: the program keeps anew what it goes on with.
    pub(crate) fn taken_back(&self) {
        if let Some(mut inner) = self.inner()
            && let Some(successor) = inner.successor.take()
        {
            inner.orders.push(Order { text: to_remove(&format!("{STREAMS}{successor}")), descriptors: Vec::new() });
            inner.begin_anew();
        }
    }

    /// What the program has not gone on with since then ends.
    pub(crate) fn settle(&self) {
        if let Some(mut inner) = self.inner() {
            inner.returned = Vec::new();
            if let Some(name) = inner.unsettled.take() {
                inner.orders.push(Order { text: to_remove(&name), descriptors: Vec::new() });
            }
        }
    }

    /// The service is a successor's, which has this process's queues removed as soon as its own are
    /// held. If it was handed over no connection, all of them are drained here, and it is to find
    /// none, should it end before that.
    pub(crate) fn handed_over(&self) {
        let Some(mut inner) = self.inner() else { return };
        let hands_over = inner.hands_over;
        if let Some(queue) = inner.queue.as_mut().filter(|_| !hands_over) {
            queue.clear();
        }
        inner.is_queue_held = false;
        inner.handed_over = inner.queue.take();
        inner.close();
    }

    /// This process ends in order. A successor of a release that knows nothing of queues has not had
    /// the one of this process removed, and would never see the end of what lies there.
    pub(crate) fn end(&self) {
        if let Some(mut queue) = self.inner().and_then(|mut inner| inner.handed_over.take()) {
            queue.clear();
        }
    }

    /// The service ends: nothing is to outlive it.
    pub(crate) fn stop(&self) {
        let Some(mut inner) = self.inner() else { return };
        if inner.stage == Stage::Serving {
            let mut names: Vec<String> = mem::take(&mut inner.listeners).into_keys().collect();
            names.extend(inner.kept.keys().map(|name| format!("{KEPT}{name}")));
            inner.orders.extend(names.iter().map(|name| Order { text: to_remove(name), descriptors: Vec::new() }));
        }
        inner.kept.clear();
        inner.close();
    }

    /// What a successor gets by name: what is kept so, and where the connections lie, should this
    /// process end before it hands them over.
    pub(crate) fn given(&self) -> Vec<(String, OwnedFd)> {
        let Some(inner) = self.inner() else { return Vec::new() };
        let kept = inner.kept.iter().map(|(name, own)| (format!("{KEPT}{name}"), own.as_fd()));
        let ends = inner.queue.iter().flat_map(Queue::ends).map(|end| (inner.queue_name(), end));
        // Without one of them the successor begins without it, as a first start does.
        kept.chain(ends).filter_map(|(name, own)| Some((name, sys::duplicate(own, 3).ok()?))).collect()
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

    /// Has the queue held, and makes it if need be.
    fn hold_queue(&self, inner: &mut Inner) {
        if self.is_active() && !inner.is_queue_held {
            inner.hold_queue();
        }
    }

    fn absolve(&self) {
        if let Some(mut inner) = self.inner() {
            inner.orders.push(Order { text: to_absolve(), descriptors: Vec::new() });
            self.wake();
        }
    }

    fn hold_listener(&self, inner: &mut Inner, name: &str, listener: BorrowedFd<'_>) {
        let why = if !is_fit_name(name) || name.starts_with("pollflip.") {
            "its name has other characters than printable ASCII in it, a colon, or begins with \"pollflip.\": give it another one".into()
        } else if let (None, Err(error)) = (inner.listeners.get(name), self.check_room(inner, name)) {
            error.to_string()
        } else {
            match sys::duplicate(listener, 3) {
                Ok(own) => {
                    inner.orders.push(Order { text: to_store(name, true), descriptors: vec![own] });
                    *inner.listeners.entry(name.into()).or_default() += 1;
                    return;
                }
                Err(error) => error.to_string(),
            }
        };
        log::warn!(target: "pollflip", "socket {name:?} is not kept, and ends with this process: {why}");
    }

    /// Whether one more can be held under that name.
    fn check_room(&self, inner: &Inner, name: &str) -> io::Result<()> {
        if !self.is_active() {
            return Ok(());
        }
        let entries = inner.kept.len() + inner.listeners.values().sum::<usize>() + QUEUE_ENDS;
        let size = self.shared.as_ref().and_then(|shared| shared.size);
        // For a moment, the queues of the process before are held too.
        if let Some(size) = size.filter(|size| entries + QUEUE_ENDS >= *size) {
            let why = format!(
                "the keeper holds {size} descriptors, and {entries} are kept: have it hold more (pollflip guard --store, \
                 FileDescriptorStoreMax=); {QUEUE_ENDS} stay free for the next process"
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        let names = inner.kept.keys().map(|name| KEPT.len() + name.len()).chain(inner.listeners.keys().map(String::len));
        let taken: usize = names.map(|length| length + 1).sum();
        if taken + name.len() + 1 > ROOM_FOR_NAMES {
            let why =
                format!("the names of all that is kept would be longer than {ROOM_FOR_NAMES} bytes: keep less, or under shorter names");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        Ok(())
    }

    /// `None`: nothing is kept, or this is a forked child's copy.
    fn inner(&self) -> Option<MutexGuard<'_, Inner>> {
        let shared = self.shared.as_ref().filter(|shared| shared.origin.is_here())?;
        Some(shared.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The loop sends the orders.
    fn wake(&self) {
        if let Some(shared) = &self.shared
            && let Err(error) = shared.waker.wake()
        {
            log::warn!("cannot wake the loop: {error}");
        }
    }
}

impl Inner {
    /// Has what is kept under that name removed, as soon as the service is this process's. Says
    /// whether there is something.
    fn remove(&mut self, name: &str) -> bool {
        let (is_kept, is_untaken) = (self.kept.remove(name).is_some(), self.untaken.remove(name).is_some());
        if is_kept || is_untaken {
            match self.stage {
                Stage::Serving => self.orders.push(Order { text: to_remove(&format!("{KEPT}{name}")), descriptors: Vec::new() }),
                // What this process has taken is held as well.
                Stage::Waiting | Stage::Granted => self.unkept.push(name.into()),
                Stage::Over => {}
            }
        }
        is_kept || is_untaken
    }

    /// Under which the queue of this process is held.
    fn queue_name(&self) -> String {
        match self.queues_before {
            0 => format!("{STREAMS}{}", process::id()),
            number => format!("{STREAMS}{}.{number}", process::id()),
        }
    }

    fn hold_queue(&mut self) {
        let name = self.queue_name();
        // Of a process that had the same number: what is in it is in the hands of this one.
        if self.leftover.iter().any(|(other, _)| *other == name) {
            self.orders.push(Order { text: to_remove(&name), descriptors: Vec::new() });
            self.leftover.retain(|(other, _)| *other != name);
        }
        let queue = match self.queue.take() {
            Some(queue) => Ok(queue),
            None => Queue::new(),
        };
        let held = queue.and_then(|queue| {
            let ends = queue.ends().into_iter().map(|end| sys::duplicate(end, 3)).collect::<io::Result<_>>()?;
            Ok((queue, ends))
        });
        match held {
            Ok((queue, descriptors)) => {
                self.queue = Some(queue);
                self.is_queue_held = true;
                self.orders.push(Order { text: to_store(&name, false), descriptors });
            }
            Err(error) => log::warn!(target: "pollflip", "connections are not kept, and end with this process: {error}"),
        }
    }

    /// With an empty queue; what lay in the old one is there for the program.
    fn begin_anew(&mut self) {
        // An empty one stays, since the keeper holds its ends.
        let Some(queue) = self.queue.take_if(|queue| queue.len() > 0) else { return };
        match queue.all() {
            Ok(streams) => self.returned = streams,
            Err(error) => log::warn!(target: "pollflip", "connections that were handed over are lost: {error}"),
        }
        self.is_recovered = false;
        // The old one stays until the program keeps anew what it goes on with: a kill loses nothing.
        self.unsettled = Some(self.queue_name());
        self.queues_before += 1;
        self.hold_queue();
    }

    /// Nothing is held for this process any more.
    fn close(&mut self) {
        if mem::take(&mut self.is_queue_held) {
            self.orders.push(Order { text: to_remove(&self.queue_name()), descriptors: Vec::new() });
        }
        if let Some(name) = self.unsettled.take() {
            self.orders.push(Order { text: to_remove(&name), descriptors: Vec::new() });
        }
        self.queue = None;
        self.stage = Stage::Over;
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("is_active", &self.is_active()).finish_non_exhaustive()
    }
}

/// What a guard that is the parent of this process tells of the one before.
fn last_end() -> Option<(Exit, u32)> {
    if systemd::guard() != Some(std::os::unix::process::parent_id()) {
        return None;
    }
    let exit = end_of_text(&env::var(LAST_END).ok()?)?;
    let strikes = env::var(STRIKES).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Some((exit, strikes))
}

/// Whether the two are one open file. Where the kernel does not tell, they are if they are one file:
/// eventfds and the like are none, and have one number all together.
fn is_same(one: &OwnedFd, other: &impl AsFd) -> bool {
    let is_file = || fstat(one).is_ok_and(|found| found.st_mode & libc::S_IFMT != 0);
    sys::identity(one.as_raw_fd()) == sys::identity(other.as_fd().as_raw_fd())
        && sys::is_same_open_file(one, other).unwrap_or_else(|_| is_file())
}

/// How many connections may lie in a queue.
fn most_streams() -> usize {
    let may_have_any = sys::own_capabilities().is_ok_and(|own| own & (1 << CAP_SYS_ADMIN | 1 << CAP_SYS_RESOURCE) != 0);
    if may_have_any {
        return usize::MAX;
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX) / PARTS
}

fn too_many(most: usize) -> io::Error {
    let why = format!(
        "{most} connections are kept, and this user may have no more descriptors on their way: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=) \
         to {PARTS} times as many"
    );
    io::Error::new(io::ErrorKind::StorageFull, why)
}

fn shut_down(connection: &impl AsFd) {
    // It may be over, or never have been connected.
    let _ = shutdown(connection.as_fd().as_raw_fd(), Shutdown::Both);
}
