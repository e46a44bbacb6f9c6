//! What outlives this process: descriptors that somebody else holds, and gives to the next start.
//!
//! Knows: what is kept, and what of it a keeper holds. Does not know: why the service is whose, which is the machines'; who sends
//! the orders.
//!
//! The keeper is a [guard](crate::guard) that starts the service again, or a systemd whose unit has
//! `FileDescriptorStoreMax=`. Both hold what they are sent as `FDSTORE=1`. Each listener is one
//! entry there, and so is each descriptor that the program keeps by name. All connections together
//! are four: the ends of two queues of unix sockets ([`queue`]). To keep one more connection is one
//! system call of this process, and nobody is sent a message.
//!
//! Each process has queues of its own. Those of a successor are made by its predecessor, which has
//! them held before it starts the successor: systemd listens to the main process alone, and a kill may
//! come at any moment. When the restart is final the predecessor has its own queues removed, and then
//! names the successor as the main process. Both go the same way, so nobody who looks after that
//! successor's end finds what the predecessor still drains.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `names` | the names under which all of it is held |
//! | `order` | the messages to a keeper |
//! | `held` | what a process is given |
//! | `named` | what is kept by name |
//! | `queue`, `streams` | a queue of connections; the queues of this process and of its neighbours |
//! | `listeners` | the listeners that are held |
//! | `groups` | the UDP groups that are |
//! | `room` | how much there may be |
//! | `holding` | what the machines have held, and when |
//! | `survivors` | what the program gets after a kill, or when the service comes back |

mod groups;
mod held;
mod holding;
mod listeners;
mod named;
mod names;
mod order;
mod queue;
mod room;
mod streams;
mod survivors;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;
use nix::sys::socket::{Shutdown, shutdown};

use crate::error::Exit;
use crate::machine::Whose;
use crate::notify::{LAST_END, STORE_SIZE, STRIKES, end_of_text, is_fit_name};
use crate::sys::{self, Origin};
use crate::systemd;
use crate::wire::FileId;

use groups::Groups;
use listeners::Listeners;
use named::Named;
use room::{Room, Taken};
use streams::Streams;

pub(crate) use groups::KeptGroup;
pub(crate) use held::{Held, HeldGroup};
pub(crate) use listeners::Listener;
pub(crate) use order::Order;
pub use survivors::{KeptStream, Survivors};

/// Has descriptors held that outlive this process: see
/// [`RestartConfig::keep`](crate::RestartConfig::keep).
///
/// Cheap to clone, and usable from any thread. In a forked child the copy does nothing, but the
/// descriptors that are kept stay open there: drop the copy, or execute another program.
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
/// /// A memory file, which nobody but its owners can reach.
/// fn memory_file() -> std::io::Result<File> {
///     use nix::sys::memfd::{MFdFlags, memfd_create};
///     Ok(memfd_create(c"counters", MFdFlags::MFD_CLOEXEC)?.into())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut restarter = pollflip::RestartConfig::new().keep(true).build()?;
/// let keeper = restarter.keeper();
/// // What the process before has kept, be it the predecessor or one that was killed; or a new one.
/// let counters = keeper.take("counters").map_or_else(memory_file, |file| Ok(file.into()))?;
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
    room: Room,
    inner: Mutex<Inner>,
}

/// What comes of all this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// There is a keeper.
    Keeps,
    /// There is none: what is kept by name goes to successors, and that is all.
    PassesOn,
    /// The program keeps nothing, and has removed what was kept before. Sockets that it goes on with stay.
    Removes,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the machines have said last; `None`: the service has not been this process's yet.
    whose: Option<Whose>,
    /// The service ends.
    has_stopped: bool,
    /// A predecessor has started this process, and no keeper.
    is_successor: bool,
    named: Named,
    streams: Streams,
    listeners: Listeners,
    groups: Groups,
    /// The sockets of the service that are held under names of their own, or will be.
    sockets: HashMap<FileId, String>,
    /// The names of what this process was given and has no use for.
    unused: Vec<String>,
    /// How the process before has ended, and how many strikes there are, if a keeper has told it.
    end: Option<(Exit, u32)>,
    /// What the process before has left has been asked for.
    is_recovered: bool,
    /// The program was told of the end of the predecessor, and has gone on.
    is_end_told: bool,
    orders: Vec<Order>,
}

impl Inner {
    fn new(held: Held) -> Inner {
        Inner { named: Named::new(held.kept), streams: Streams::new(held.queues, held.lent), ..Inner::default() }
    }

    /// Whether what is kept is held from now on.
    fn is_holding(&self) -> bool {
        !self.has_stopped && matches!(self.whose, Some(Whose::This | Whose::Both | Whose::Returned))
    }

    /// What counts against the room that there is, without the queues.
    fn taken(&self) -> Taken {
        Taken {
            entries: self.named.len() + self.listeners.len() + self.groups.len(),
            length_of_names: self.named.length_of_names() + self.listeners.length_of_names() + self.groups.length_of_names(),
        }
    }

    /// Whether nothing is kept here any more.
    fn is_over(&self) -> bool {
        self.has_stopped || self.whose == Some(Whose::Successor)
    }
}

impl Keeper {
    /// One that does nothing.
    pub(crate) fn inert() -> Keeper {
        Keeper { shared: None }
    }

    /// The keeper of a program that keeps nothing. A release before it may have kept something:
    /// that is removed when the service belongs to this process. `has_groups`: UDP groups are among
    /// it, and the program may use them.
    pub(crate) fn for_nothing(mut held: Held, has_groups: bool, waker: Arc<Waker>) -> Keeper {
        let lent = held.lent.take();
        held.queues.extend(lent.into_iter().flat_map(|(name, ends)| ends.into_iter().map(move |end| (name.clone(), end))));
        if held.kept.is_empty() && held.queues.is_empty() && !has_groups {
            return Keeper::inert();
        }
        Keeper::with(Inner::new(held), waker, Sort::Removes, Room::new(None))
    }

    fn with(inner: Inner, waker: Arc<Waker>, sort: Sort, room: Room) -> Keeper {
        Keeper { shared: Some(Arc::new(Shared { origin: Origin::here(), waker, sort, room, inner: Mutex::new(inner) })) }
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
        let sort = if is_active { Sort::Keeps } else { Sort::PassesOn };
        Keeper::with(Inner { end, is_successor, ..Inner::new(held) }, waker, sort, Room::new(size))
    }

    /// Whether somebody holds what is kept here: a guard that starts the service again, or systemd.
    /// Of a systemd before version 254 it cannot be seen whether the unit has
    /// `FileDescriptorStoreMax=`, and it is taken to have that.
    pub fn is_active(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.sort == Sort::Keeps && shared.origin.is_here())
    }

    /// Keeps a descriptor, any but a connection, under a name: a memory file with the state, say. The
    /// next start gets it by [`take`](Keeper::take), and so does each successor. What was kept under
    /// that name before is kept no more: a kill leaves the one or the other. The sockets of
    /// [`Sockets`](crate::Sockets) are kept without it, by the names that they have there. What was kept
    /// by name and becomes one of those is kept as that alone.
    ///
    /// The keeper gets it once the service is this process's, with the next turn of the loop. A
    /// successor gets what is kept when that successor is started. What is kept anew while a
    /// restart is under way does not reach it: once the restart is final, or if this process is
    /// killed meanwhile and the successor goes on alone, the name stands for what it stood for
    /// before. So let a file stay under its name and change what is in it, or keep nothing anew
    /// between [`Restarting`](crate::Event::Restarting) and the outcome.
    ///
    /// # Errors
    ///
    /// The name is not fit: it has 1 to 240 printable ASCII characters, and no colon among them
    /// (`InvalidInput`). The open file is kept under another name (`AlreadyExists`): a keeper holds an
    /// open file once, so [forget](Keeper::forget) that name first. It is a socket of `Sockets`
    /// (`AlreadyExists`). There is no room for one more, or for the name (`StorageFull`). No descriptor
    /// can be had.
    pub fn keep(&self, name: &str, descriptor: &impl AsFd) -> io::Result<()> {
        let (Some(mut inner), Some(shared)) = (self.inner(), &self.shared) else { return Ok(()) };
        let inner = &mut *inner;
        if !is_fit_name(name) || name.len() > names::LONGEST {
            let why = format!(
                "{name:?} cannot be kept under that name: give it 1 to {} printable ASCII characters without a colon",
                names::LONGEST
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if inner.is_over() {
            return Ok(());
        }
        if let Some(socket) = sys::identity(descriptor.as_fd().as_raw_fd()).and_then(|file| inner.sockets.get(&file)) {
            let why = format!(
                "cannot keep it as {name:?}: it is socket {socket:?} of this service and is kept by that name already: ask Sockets for it"
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        match inner.named.name_of(descriptor) {
            Some(there) if there == name => return Ok(()),
            Some(there) => {
                let why = format!(
                    "cannot keep it as {name:?}: it is kept as {there:?}, and a keeper holds an open file once: forget {there:?} first"
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            None => {}
        }
        if !inner.named.has(name) && shared.sort == Sort::Keeps {
            shared.room.check(inner.taken(), [names::length_of(name)].into_iter())?;
        }
        let own = sys::duplicate(descriptor, 3)?;
        let is_holding = inner.is_holding();
        inner.named.keep(name, own, is_holding.then_some(&mut inner.orders), inner.is_successor)?;
        self.wake();
        Ok(())
    }

    /// What was kept under that name by the predecessor, or by a process that was killed. It stays
    /// kept. `None`: there is nothing, or it was taken before. What nobody has taken when the
    /// service becomes this process's is kept no more.
    pub fn take(&self, name: &str) -> Option<OwnedFd> {
        self.inner()?.named.take(name)
    }

    /// Keeps what has that name no more. Says whether there was something.
    pub fn forget(&self, name: &str) -> bool {
        let Some(mut inner) = self.inner() else { return false };
        let inner = &mut *inner;
        let is_holding = inner.is_holding();
        let found = inner.named.forget(name, is_holding.then_some(&mut inner.orders), inner.is_successor);
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
        if inner.is_over() || shared.sort != Sort::Keeps {
            return Ok(());
        }
        let cookie = sys::socket_cookie(connection)?;
        let streams = &mut inner.streams;
        if !streams.has(cookie) {
            shared.room.check_streams(streams.len())?;
            streams.put(cookie, connection.as_fd()).map_err(|error| room::in_a_queue(error, streams.len()))?;
        }
        Ok(())
    }

    /// Ends a connection and keeps it no more: shuts it down both ways, so that its peer sees the end
    /// although others have it open. Call this before the program closes it. What was not kept is
    /// shut down all the same.
    pub fn forget_stream(&self, connection: &impl AsFd) {
        if self.shared.as_ref().is_some_and(|shared| !shared.origin.is_here()) {
            return;
        }
        if let Some(mut inner) = self.inner()
            && let Ok(cookie) = sys::socket_cookie(connection)
        {
            inner.streams.forget(cookie);
        }
        shut_down(connection);
    }

    /// How many connections are kept.
    pub fn streams(&self) -> usize {
        self.inner().map_or(0, |inner| inner.streams.len())
    }

    /// What the program gets of it.
    pub(crate) fn for_program(&self) -> Keeper {
        if self.is_for_program() { self.clone() } else { Keeper::inert() }
    }

    /// Whether the program can have something kept, be it for successors alone.
    pub(crate) fn is_for_program(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.sort != Sort::Removes)
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

fn shut_down(connection: &impl AsFd) {
    // It may be over, or never have been connected.
    let _ = shutdown(connection.as_fd().as_raw_fd(), Shutdown::Both);
}
