//! State and live connections on their way from the old process to the new one.
//!
//! Knows: named descriptors and named blobs, and the lifeline they go over. Does not know: when they are asked for, or by whom.

mod blob;
mod inheritance;
mod names;
mod outgoing;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;

use crate::error::Failure;
use crate::lifeline::{Incoming, Lifeline};
use crate::sys::{self, Origin};
use crate::wire::{self, Message, OpKind};

use outgoing::{named, wake};

pub use blob::Blob;
pub(crate) use inheritance::Collected;
pub use inheritance::{Arrival, Inheritance, Map};
pub(crate) use outgoing::Outgoing;

/// What the old process gives to the new one: it comes with [`Event::StateRequested`](crate::Event::StateRequested), and the program fills
/// it with named descriptors and blobs and [sends](Handover::send) it, on this thread or another.
///
/// Nothing is given up yet: what is given is shared until [`Event::HandedOff`](crate::Event::HandedOff). From now until then the program
/// is *frozen*: it reads, writes and accepts nothing, and does not change the state. If the attempt
/// fails ([`Event::Failed`](crate::Event::Failed)) it goes on as if nothing had happened.
/// A successor that hangs with the state in its hands keeps it frozen until
/// [`freeze_timeout`](crate::RestartConfig::freeze_timeout), 5 s unless told otherwise: a program with a large state sets that.
///
/// | step | what a program with mio does |
/// | --- | --- |
/// | [`StateRequested`](crate::Event::StateRequested): freeze | [see below](#freeze-and-thaw), then save, then `send`. Events of the same batch may still name connections: nothing is read or written until thawed. What was read and not answered, or answered and not written, is state too |
/// | an error of any method here | must not leave the loop: drop the `Handover`, and wait for `Failed`, which says why. This process keeps serving |
/// | [`Failed`](crate::Event::Failed): thaw | [see below](#freeze-and-thaw). Where `StateRequested` did not come before, the program is not frozen, and has nothing to thaw |
/// | [`HandedOff`](crate::Event::HandedOff): give up | touch nothing that was handed over; if `StateRequested` never came, all connections are still this process's, which finishes them |
/// | [`Completed`](crate::Event::Completed): let go | drop the connections that were handed over. If this process goes on to poll, they are deregistered first: epoll goes on reporting them as long as the successor has them. Not before: the successor needs the processor at the grant, and in a probation they may come back |
/// | [`Resumed`](crate::Event::Resumed) | register the listener again. The connections that were handed over are still there; the successor may have read and written them, so close them unless their protocol can go on from anywhere |
///
/// Both processes have a descriptor of each connection until the predecessor drops its own. If the
/// successor closes one before, its peer does not notice: the successor calls
/// [`hang_up`](crate::hang_up) instead. If there are thousands of connections, most can go
/// [ahead](crate::Precopy) of the freeze.
///
/// A release that handles `StateRequested` can be replaced by one that asks for state. From a release
/// that does not, the first restart into one that asks fails. So a program that may have state one
/// day calls [`send`](Handover::send) at that event from its first release on: that hands an empty
/// state over.
///
/// None of this blocks the loop. What the kernel does not take at once waits in this process, as
/// duplicates. It takes some twelve thousand descriptors at once, and of a user without privileges
/// about as many as one process may have (RLIMIT_NOFILE). So that limit should leave room for some
/// hundred descriptors more than the program has, and for all that waits if the successor reads
/// slowly. The successor needs room for all that it is given: if it has none, the attempt fails.
///
/// A forked child's copy gives nothing and fails nothing, sent or dropped; its other methods return an error.
///
/// ```
/// use std::io::Write;
/// use pollflip::{Blob, Handover};
///
/// fn save(mut handover: Handover, connections: &[std::net::TcpStream]) -> std::io::Result<()> {
///     let mut blob = Blob::new()?;
///     writeln!(blob, "the state")?;
///     handover.blob("state.v1", blob)?;
///     handover.fds(connections.iter().enumerate().map(|(index, connection)| (format!("connection/{index}"), connection)))?;
///     handover.send();
///     Ok(())
/// }
///
/// // Both ends in one process: for the program's own tests.
/// let mut inheritance = Handover::rehearse(|handover| save(handover, &[]).unwrap()).unwrap();
/// assert_eq!(inheritance.bytes("state.v1").unwrap().unwrap(), b"the state\n");
/// ```
///
/// # Freeze and thaw
///
/// The listener leaves the poll: a [`Gate`](crate::Gate) does that. The connections need not leave
/// it. There are three ways:
///
/// | at `StateRequested` | while frozen | at `Failed` | for |
/// | --- | --- | --- | --- |
/// | deregisters all connections | polls as ever | registers them again: an edge that came meanwhile is told anew | few connections: it is a system call for each, in the pause |
/// | leaves them registered | does not poll, and calls [`Restarter::wait`](crate::Restarter::wait) alone | polls again: what came meanwhile is told then | many, and nothing else in the poll |
/// | leaves them registered | polls, and puts events of connections aside without serving them | serves those first: an edge is told once | many, beside other work |
#[must_use = "a handover that is dropped fails the attempt"]
pub struct Handover {
    /// The process that hands over. A forked child has a copy of this.
    origin: Origin,
    lifeline: Arc<Lifeline>,
    mailbox: Arc<Mailbox>,
    items: Outgoing,
    /// The first thing that went wrong.
    error: Option<Ending>,
    done: bool,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("items", &self.items.count()).field("error", &self.error).finish_non_exhaustive()
    }
}

/// How a handover ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// All of it is on its way.
    Sent,
    /// It cannot be completed, and why.
    Failed(String),
    /// The successor takes nothing any more; its own end says why.
    Gone,
}

impl Ending {
    /// What an error means for the handover.
    pub(crate) fn of(error: &io::Error) -> Ending {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Ending::Gone,
            _ => Ending::Failed(error.to_string()),
        }
    }
}

/// How a handover ended, for the loop.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    ending: Mutex<Option<Ending>>,
    waker: Option<Arc<Waker>>,
}

impl Mailbox {
    /// How it ended, once.
    pub(crate) fn take(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the loop has yet to learn that the successor takes nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.ending.lock().unwrap_or_else(PoisonError::into_inner), Some(Ending::Gone))
    }

    fn set(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.wake();
    }

    fn wake(&self) {
        wake(self.waker.as_ref());
    }
}

impl Handover {
    /// A handover over that lifeline, after what went ahead; how it ends will be in the second.
    pub(crate) fn new(
        lifeline: Arc<Lifeline>,
        waker: Option<Arc<Waker>>,
        ahead: Option<Result<Outgoing, Ending>>,
    ) -> (Handover, Arc<Mailbox>) {
        blob::forget_lost();
        let anew = || Outgoing::new(lifeline.clone(), waker.clone());
        let (items, error) = match ahead {
            Some(Ok(mut items)) => {
                let error = items.freeze().err();
                (items, error.map(|error| Ending::of(&error)))
            }
            Some(Err(ending)) => (anew(), Some(ending)),
            None => (anew(), None),
        };
        let mailbox = Arc::new(Mailbox { ending: Mutex::default(), waker });
        let handover = Handover { origin: Origin::here(), lifeline, mailbox: mailbox.clone(), items, error, done: false };
        (handover, mailbox)
    }

    /// Gives a descriptor: a connection, a file, a pipe, a memory file that the program keeps its state in (which goes as it is, in
    /// constant time, and stays writable). The program keeps its own.
    ///
    /// Locks on a file that is given:
    ///
    /// | lock | an attempt that fails | a restart that succeeds |
    /// | --- | --- | --- |
    /// | `flock` | keeps it | both processes have it. An unlock by either ends it: the old process closes the file without unlocking, so no guard that unlocks when it is dropped (`nix::fcntl::Flock`) |
    /// | `F_OFD_SETLK` | keeps it | the same |
    /// | `F_SETLK` (POSIX) | **loses it**: the kernel drops it when this process closes any descriptor of the file, and what is given is a duplicate | the successor has none |
    ///
    /// So a lock that is to live on is one of the first two.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes or given twice; the descriptor cannot be duplicated; the successor is gone. The first
    /// error is kept: the handover fails for that reason whatever else is done with it.
    pub fn fd(&mut self, name: &str, descriptor: impl AsFd) -> io::Result<()> {
        self.give(name, OpKind::Descriptor, || sys::duplicate(descriptor, 3))
    }

    /// Gives many descriptors, each with its name, and sends them: connections by the thousand.
    ///
    /// It does what [`fd`](Handover::fd) does for each of them, and spares a duplicate of each: one
    /// is made only where the kernel makes it wait. So a process that is near its limit of
    /// descriptors can hand all of them over to a successor that reads.
    ///
    /// ```
    /// # use std::{collections::BTreeMap, io, net::{TcpListener, TcpStream}};
    /// # use pollflip::Handover;
    /// fn save(mut handover: Handover, players: &BTreeMap<u64, TcpStream>) -> io::Result<()> {
    ///     handover.fds(players.iter().map(|(key, stream)| (format!("player/{key}"), stream)))?;
    ///     handover.send();
    ///     Ok(())
    /// }
    /// # let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// # let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    /// # let players = BTreeMap::from([(7, stream)]);
    /// # let inheritance = Handover::rehearse(|handover| save(handover, &players).unwrap()).unwrap();
    /// # assert_eq!(inheritance.names(), ["player/7"]);
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`fd`](Handover::fd); what came before the one that is to blame may have been sent.
    pub fn fds(&mut self, descriptors: impl IntoIterator<Item = (impl AsRef<str>, impl AsFd)>) -> io::Result<()> {
        let result = self.origin.check("Handover").and_then(|()| self.items.give_all(descriptors));
        self.keep(result)
    }

    /// Gives some bytes.
    ///
    /// # Errors
    ///
    /// As for [`blob`](Handover::blob).
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let result = Blob::new().and_then(|mut blob| io::Write::write_all(&mut blob, bytes).map(|()| blob));
        match result {
            Ok(blob) => self.blob(name, blob),
            Err(error) => self.keep(Err(named(name, &error))),
        }
    }

    /// Gives what was written into a blob.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes or given twice; the blob could not be written to its end; the successor is gone. The
    /// first error is kept, as for [`fd`](Handover::fd).
    pub fn blob(&mut self, name: &str, blob: Blob) -> io::Result<()> {
        self.give(name, OpKind::Blob, || blob.seal().map(OwnedFd::from))
    }

    /// What went [ahead](crate::Precopy) under that name is gone: a connection that has closed. The successor drops its own. Does nothing if
    /// that name did not go ahead.
    pub fn gone(&mut self, name: &str) {
        if self.origin.is_here()
            && let Err(error) = self.items.gone(name)
        {
            self.error.get_or_insert_with(|| Ending::of(&error));
        }
    }

    /// That was all of it: the successor has the state as soon as it reads it.
    pub fn send(mut self) {
        if !self.origin.is_here() {
            return;
        }
        if self.error.is_none()
            && let Err(error) = self.items.flush()
        {
            self.error = Some(Ending::of(&error));
        }
        match self.error.take() {
            Some(error) => self.finish(error),
            None => {
                let (items, precopied) = (self.items.count(), self.items.ahead());
                // Before the successor can answer to the end.
                self.finish(Ending::Sent);
                // That the successor is gone is told by its end; anything else has it wait until its time is over.
                if let Err(error) = self.lifeline.send(&Message::End { items, precopied }, &[])
                    && error.kind() != io::ErrorKind::BrokenPipe
                {
                    log::warn!("cannot tell the successor that it has all of the state: {error}");
                }
                self.mailbox.wake();
            }
        }
    }

    /// Fails the attempt, for this reason or the first error before.
    pub fn fail(mut self, reason: &str) {
        if !self.origin.is_here() {
            return;
        }
        let ending = self.error.take().unwrap_or_else(|| Ending::Failed(wire::line(reason)));
        self.finish(ending);
    }

    /// Both ends over a real lifeline, without a process: what `save` gives is returned as a successor would receive it. For the
    /// program's own tests of its save and load against each other.
    ///
    /// # Errors
    ///
    /// What the attempt would have failed with.
    pub fn rehearse(save: impl FnOnce(Handover)) -> Result<Inheritance, Failure> {
        rehearse_with(save, Collected::default(), |_| Ok(()))
    }

    /// The same for a program that takes each descriptor as it comes: what `save` gives goes to `each` as
    /// [`receive_each`](crate::Predecessor::receive_each) hands it out, and the blobs are returned.
    ///
    /// ```
    /// use pollflip::{Arrival, Handover};
    /// # let player = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    /// let mut names = Vec::new();
    /// let mut rest = Handover::rehearse_each(
    ///     |mut handover| {
    ///         handover.bytes("world.v1", b"12 34").expect("it is taken");
    ///         handover.fds([("player/7", &player)]).expect("it is taken");
    ///         handover.send();
    ///     },
    ///     |arrival| {
    ///         if let Arrival::Given(name, _descriptor) = arrival {
    ///             names.push(name);
    ///         }
    ///         Ok(())
    ///     },
    /// ).expect("a handover");
    /// assert_eq!(names, ["player/7"]);
    /// assert_eq!(rest.bytes("world.v1").unwrap().unwrap(), b"12 34");
    /// ```
    ///
    /// # Errors
    ///
    /// What the attempt would have failed with.
    pub fn rehearse_each(save: impl FnOnce(Handover), each: impl FnMut(Arrival) -> io::Result<()>) -> Result<Inheritance, Failure> {
        let mut collected = Collected::default();
        collected.take_as_they_come(true);
        rehearse_with(save, collected, each)
    }

    fn give(&mut self, name: &str, kind: OpKind, descriptor: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<()> {
        let result = self.origin.check("Handover").map_err(|error| named(name, &error));
        let result = result.and_then(|()| self.items.give(name, kind, descriptor));
        self.keep(result)
    }

    /// Keeps the first error as the reason.
    fn keep(&mut self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| {
            self.error.get_or_insert_with(|| Ending::of(error));
        })
    }

    fn finish(&mut self, ending: Ending) {
        self.done = true;
        blob::forget_lost();
        self.mailbox.set(ending);
    }
}

fn rehearse_with(
    save: impl FnOnce(Handover),
    collected: Collected,
    each: impl FnMut(Arrival) -> io::Result<()>,
) -> Result<Inheritance, Failure> {
    let (ours, theirs) = Lifeline::pair().map_err(|error| Failure::Handover(error.to_string()))?;
    let (ours, theirs) = (Arc::new(ours), Lifeline::from(theirs));
    let (handover, mailbox) = Handover::new(ours.clone(), None, None);
    save(handover);
    receive_all(&ours, &theirs, &mailbox, collected, each)
}

/// What is handed over, as a successor gets it that sits in the same process.
pub(crate) fn receive_all(
    ours: &Lifeline,
    theirs: &Lifeline,
    mailbox: &Mailbox,
    mut collected: Collected,
    mut each: impl FnMut(Arrival) -> io::Result<()>,
) -> Result<Inheritance, Failure> {
    loop {
        ours.flush();
        if let Some(error) = ours.take_failure() {
            return Err(Failure::Handover(format!("the kernel does not take what was given: {error}")));
        }
        while let Some(incoming) = theirs.receive() {
            let complete = match incoming {
                Incoming::Message(message, descriptors) => collected.take_in(message, descriptors),
                Incoming::Garbage(why) => Err(why),
                Incoming::Closed => Err("the lifeline was closed".into()),
            };
            let is_complete = complete.map_err(Failure::Handover)?;
            let taken = collected.take_arrivals().into_iter().try_for_each(&mut each);
            taken.map_err(|error| Failure::Refused(wire::line(&format!("the state cannot be taken over: {error}"))))?;
            if is_complete {
                return Ok(collected.finish());
            }
        }
        match mailbox.take() {
            Some(Ending::Failed(reason)) => return Err(Failure::Handover(reason)),
            Some(Ending::Gone) => return Err(Failure::HungUp),
            Some(Ending::Sent) | None => {}
        }
        // It may have been moved to another thread, which is still filling it.
        theirs.wait(Duration::from_millis(10));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.done && self.origin.is_here() {
            // A blob that could not be written is the likeliest reason to give up half-way, and a `?` all it takes.
            let why = match blob::take_lost() {
                Some(error) => format!("a blob could not be written: {error}"),
                None if std::thread::panicking() => "the program panicked while it filled the Handover".into(),
                None => "the predecessor dropped the Handover without sending it; does its release handle Event::StateRequested?".into(),
            };
            let ending = self.error.take().unwrap_or(Ending::Failed(why));
            self.finish(ending);
        }
    }
}
