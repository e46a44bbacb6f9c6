//! What goes ahead of the state, while this process serves.
//!
//! Knows: how much goes in one turn of the loop, and that the loop sends what the kernel does not take at once. Does not know: which
//! restart it belongs to, or what the successor makes of it.

mod sweep;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use mio::Waker;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::error::Failure;
use crate::handover::{Arrival, Blob, Collected, Ending, Handover, Inheritance, Outgoing, receive_all};
use crate::lifeline::{Incoming, Lifeline};
use crate::sys::{self, Origin};
use crate::wire::{MAX_DESCRIPTORS, Message, OpKind};

pub use sweep::Sweep;

/// How many items go in one turn of the loop: one packet of descriptors, which takes some 0.15 ms.
const PER_TURN: usize = MAX_DESCRIPTORS;

/// What can go to the successor before this process freezes: connections that live long, and state that does not change any more. It comes
/// with [`Event::PrecopyRequested`](crate::Event::PrecopyRequested), if the successor asks for it, and **this process serves all the
/// while**. The freeze then carries the difference only, so that the pause does not grow with the number of connections.
///
/// The program keeps the `Precopy` beside its connections until [`Event::StateRequested`](crate::Event::StateRequested) or
/// [`Event::Failed`](crate::Event::Failed):
///
/// | when | what a program with mio does |
/// | --- | --- |
/// | [`PrecopyRequested`](crate::Event::PrecopyRequested), [`PrecopyRoom`](crate::Event::PrecopyRoom) | give the next [`room`](Precopy::room) connections, and go on serving. At the end, [`complete`](Precopy::complete) |
/// | a connection is accepted | give it when there is room, or in the [`Handover`] |
/// | a connection closes | deregister it, [`hang_up`](crate::hang_up), then [`gone`](Precopy::gone). Without the first, epoll reports it under its old token as long as the successor has it; without the second, the peer hears of the end only when the successor has read that |
/// | [`StateRequested`](crate::Event::StateRequested) | [freeze](Handover#freeze-and-thaw), and give the rest to the [`Handover`]: connections that are new, state. The connections stay registered: to deregister each takes time in the pause. What went ahead and is not [gone](Handover::gone) belongs to it |
/// | [`Failed`](crate::Event::Failed) | drop the `Precopy`, and go on as before; after `StateRequested`, [thaw](Handover#freeze-and-thaw) |
/// | [`Completed`](crate::Event::Completed) | drop the connections that were handed over. Not at [`HandedOff`](crate::Event::HandedOff): the successor needs the processor then |
///
/// What went ahead is there once, and both processes have a descriptor of it. So nobody changes its
/// flags or options, such as `O_NONBLOCK`, before the grant.
///
/// The state may be a memory file of the program's own, which goes ahead as a descriptor. This
/// process writes to it until it freezes, and the successor reads it until the grant. Then no state
/// has to be sent in the pause, however much there is. **Not with a probation**: at
/// [`Resumed`](crate::Event::Resumed) the file contains what the successor has written. A program
/// with a probation gives a [`Blob`] in the [`Handover`] instead, which nobody changes.
///
/// An error of [`fd`](Precopy::fd), [`fds`](Precopy::fds), [`blob`](Precopy::blob) or [`bytes`](Precopy::bytes) fails the attempt, with that
/// reason, and must not leave the loop. Dropped, nothing more goes ahead and the attempt goes on. A forked child's copy gives nothing.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::net::TcpStream;
/// use pollflip::{Event, Precopy};
///
/// #[derive(Default)]
/// struct Server {
///     /// By their numbers, which are the names under which they go over.
///     players: BTreeMap<u64, TcpStream>,
///     /// While something goes ahead: the number from which on players have yet to go.
///     copying: Option<(Precopy, u64)>,
/// }
///
/// impl Server {
///     fn on_event(&mut self, event: Event) {
///         match event {
///             Event::PrecopyRequested(precopy) => {
///                 self.copying = Some((precopy, 0));
///                 self.copy();
///             }
///             Event::PrecopyRoom => self.copy(),
///             Event::StateRequested(mut handover) => {
///                 let next = self.copying.take().map_or(0, |(_, next)| next);
///                 // Here the program freezes. Then only those that have not gone ahead, and state.
///                 let rest = self.players.range(next..).map(|(key, stream)| (key.to_string(), stream));
///                 if handover.fds(rest).is_ok() {
///                     handover.send();
///                 } // otherwise Failed comes, and says why
///             }
///             Event::Failed(_) => self.copying = None,
///             _ => {}
///         }
///     }
///
///     fn copy(&mut self) {
///         let Some((precopy, next)) = &mut self.copying else { return };
///         let batch: Vec<_> = self.players.range(*next..).take(precopy.room()).collect();
///         if let Some((last, _)) = batch.last() {
///             *next = *last + 1;
///         }
///         // An error: Failed comes, and says why.
///         let _ = precopy.fds(batch.into_iter().map(|(key, stream)| (key.to_string(), stream)));
///         if self.players.range(*next..).next().is_none() {
///             precopy.complete();
///         }
///     }
///
///     fn remove(&mut self, key: u64) {
///         // Deregistered before.
///         let Some(player) = self.players.remove(&key) else { return };
///         if let Some((precopy, _)) = &mut self.copying {
///             pollflip::hang_up(player);
///             precopy.gone(&key.to_string());
///         }
///     }
/// }
/// # let _ = (Server::on_event, Server::remove);
/// ```
#[must_use = "dropped, nothing goes ahead"]
pub struct Precopy {
    /// The process that copies. A forked child has a copy of this.
    origin: Origin,
    desk: Arc<Desk>,
}

impl fmt::Debug for Precopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.desk.shared();
        f.debug_struct("Precopy").field("stage", &shared.stage).field("left", &shared.left).finish_non_exhaustive()
    }
}

impl Precopy {
    /// How many items can be given now without waiting: at most as many as go in one turn of the loop, so that giving them holds the
    /// loop up for a fraction of a millisecond. After 0, [`PrecopyRoom`](crate::Event::PrecopyRoom) tells when there is room again.
    /// More can be given all the same: what has to wait takes a descriptor of this process each.
    pub fn room(&self) -> usize {
        if self.origin.is_here() { self.desk.room() } else { 0 }
    }

    /// Gives a descriptor ahead: a connection, a memory file. The program keeps its own, and serves it.
    ///
    /// # Errors
    ///
    /// Those of [`Handover::fd`]; the first fails the attempt. After [`StateRequested`](crate::Event::StateRequested) it is given to the
    /// [`Handover`]: then this is an error that fails nothing, and so it is after the attempt has ended.
    pub fn fd(&mut self, name: &str, descriptor: impl AsFd) -> io::Result<()> {
        self.give(|items| items.give(name, OpKind::Descriptor, || sys::duplicate(descriptor, 3)))
    }

    /// Gives many descriptors ahead, each with its name. As [`fd`](Precopy::fd) for each of them, without a duplicate of what the kernel takes
    /// at once.
    ///
    /// # Errors
    ///
    /// As for [`fd`](Precopy::fd); what came before the one that is to blame may have been sent.
    pub fn fds(&mut self, descriptors: impl IntoIterator<Item = (impl AsRef<str>, impl AsFd)>) -> io::Result<()> {
        // The program's own code runs before, and not while the loop may wait for this.
        let descriptors: Vec<_> = descriptors.into_iter().collect();
        self.give(|items| items.give_all(descriptors))
    }

    /// Gives some bytes ahead, which do not change any more.
    ///
    /// # Errors
    ///
    /// As for [`blob`](Precopy::blob).
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let blob = Blob::new().and_then(|mut blob| io::Write::write_all(&mut blob, bytes).map(|()| blob));
        self.give(|items| items.give(name, OpKind::Blob, || blob?.seal().map(OwnedFd::from)))
    }

    /// Gives what was written into a blob ahead: state that does not change any more.
    ///
    /// # Errors
    ///
    /// Those of [`Handover::blob`], as for [`fd`](Precopy::fd).
    pub fn blob(&mut self, name: &str, blob: Blob) -> io::Result<()> {
        self.give(|items| items.give(name, OpKind::Blob, || blob.seal().map(OwnedFd::from)))
    }

    /// What was given under that name is gone: a connection that has closed. The successor drops its own. The name can be given again. Does
    /// nothing if that name was not given, and nothing after [`StateRequested`](crate::Event::StateRequested), from where on
    /// [`Handover::gone`] is for that.
    pub fn gone(&mut self, name: &str) {
        if self.origin.is_here() {
            self.desk.gone(name);
        }
    }

    /// That was all there is: the successor goes on, and asks for the state when it is ready for that. What arises later can still be given
    /// and be gone. More than once is once.
    pub fn complete(&mut self) {
        if self.origin.is_here() {
            self.desk.complete();
        }
    }

    fn give(&mut self, give: impl FnOnce(&mut Outgoing) -> io::Result<()>) -> io::Result<()> {
        self.origin.check("Precopy")?;
        self.desk.give(give)
    }
}

impl Drop for Precopy {
    fn drop(&mut self) {
        self.complete();
    }
}

/// Closes a connection for both processes that have it: shuts it down, and drops what it is given.
/// The peer learns of the end at once. If this process only dropped its descriptor, the peer would
/// learn of it when the other process drops its own, which can take as long as a restart.
///
/// A server that hands connections over closes all of them like this, before a restart and after
/// it: until [`Completed`](crate::Event::Completed) the predecessor has them too. Deregister the
/// connection first: epoll goes on reporting a descriptor that is closed here and open elsewhere,
/// and there is no way left to stop that. What was written before still arrives. A descriptor that
/// is no socket, such as a pipe, is only dropped: its other end learns of the end when both
/// processes have closed it.
pub fn hang_up(connection: impl AsFd) {
    match shutdown(connection.as_fd().as_raw_fd(), Shutdown::Both) {
        // The other side has hung up, or it is no socket.
        Ok(()) | Err(Errno::ENOTCONN | Errno::ENOTSOCK) => {}
        Err(error) => log::debug!("a connection cannot be shut down: {error}"),
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The program gives.
    Open,
    /// All that there was has been given, and the successor knows.
    Complete,
    /// The state has been asked for.
    Frozen,
    /// The attempt is over.
    Over,
}

/// What goes ahead in one attempt, as the program and the loop share it.
#[derive(Debug)]
struct Desk {
    waker: Option<Arc<Waker>>,
    /// The loop has been woken, and has not looked since.
    is_woken: AtomicBool,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    stage: Stage,
    /// With the lifeline, which is let go of when nothing more goes ahead.
    items: Option<Outgoing>,
    /// How many items may still go in this turn of the loop.
    left: usize,
    /// The program was told that there is no room.
    waits: bool,
    /// The first thing that went wrong.
    ending: Option<Ending>,
}

impl Shared {
    /// The attempt fails for that, and nothing more goes ahead.
    fn fails(&mut self, error: &io::Error) {
        (self.stage, self.items) = (Stage::Over, None);
        self.ending.get_or_insert_with(|| Ending::of(error));
    }
}

/// The loop's end of it. Dropped, nothing more goes ahead.
#[derive(Debug)]
pub(crate) struct Copying {
    desk: Arc<Desk>,
    /// The process whose loop it is. A forked child has a copy of this.
    origin: Origin,
}

/// What the loop has to know.
#[derive(Debug)]
pub(crate) enum CopyingNews {
    /// There is room again, after there was none.
    Room,
    /// The attempt fails, and why.
    Failed(String),
    /// The successor takes nothing any more; its own end says why.
    Gone,
}

impl Copying {
    /// What goes ahead over that lifeline.
    pub(crate) fn new(lifeline: Arc<Lifeline>, waker: Option<Arc<Waker>>) -> (Precopy, Copying) {
        let items = Some(Outgoing::new(lifeline, waker.clone()));
        let shared = Shared { stage: Stage::Open, items, left: PER_TURN, waits: false, ending: None };
        let desk = Arc::new(Desk { waker, is_woken: AtomicBool::new(false), shared: Mutex::new(shared) });
        (Precopy { origin: Origin::here(), desk: desk.clone() }, Copying { desk, origin: Origin::here() })
    }

    /// Sends what waits if it can be sent, and says what has become of it.
    pub(crate) fn poll(&self) -> Option<CopyingNews> {
        self.desk.is_woken.store(false, Ordering::Release);
        let mut shared = self.desk.try_shared()?;
        // As one list, while the kernel takes nothing.
        if let Some(items) = shared.items.as_mut().filter(|items| items.lifeline().waiting() == 0)
            && let Err(error) = items.flush()
        {
            shared.fails(&error);
        }
        let Shared { items, left, waits, ending, .. } = &mut *shared;
        match ending.take() {
            Some(Ending::Failed(why)) => return Some(CopyingNews::Failed(why)),
            Some(Ending::Gone) => return Some(CopyingNews::Gone),
            Some(Ending::Sent) | None => {}
        }
        if items.as_ref().is_none_or(|items| items.lifeline().waiting() > 0) {
            return None;
        }
        (*left > 0 && mem::take(waits)).then_some(CopyingNews::Room)
    }

    /// The program has taken all events, and goes on with its other work: at its next turn it may
    /// give as much again. Returns whether it waits for that.
    pub(crate) fn begin_turn(&self) -> bool {
        let Some(mut shared) = self.desk.try_shared() else { return false };
        let is_spent = shared.items.is_some() && shared.left == 0;
        shared.left = PER_TURN;
        shared.waits |= is_spent;
        is_spent
    }

    /// Whether the loop has yet to learn that the successor takes nothing any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.desk.try_shared().is_some_and(|shared| matches!(shared.ending, Some(Ending::Gone)))
    }

    /// The state has been asked for: what goes from here on goes with that, unless something has gone wrong before.
    pub(crate) fn freeze(self) -> Result<Outgoing, Ending> {
        let mut shared = self.desk.shared();
        shared.stage = Stage::Frozen;
        let items = shared.items.take();
        match shared.ending.take() {
            Some(ending) => Err(ending),
            None => items.ok_or(Ending::Gone),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // In a copy nobody would release the lock that a thread of the parent may have.
        if !self.origin.is_here() {
            return;
        }
        let mut shared = self.desk.shared();
        if shared.stage != Stage::Frozen {
            shared.stage = Stage::Over;
            shared.items = None;
        }
    }
}

impl Desk {
    fn room(&self) -> usize {
        let mut shared = self.shared();
        let is_free = shared.items.as_ref().is_some_and(|items| items.lifeline().waiting() == 0);
        let room = if is_free { shared.left } else { 0 };
        shared.waits |= room == 0;
        room
    }

    fn give(&self, give: impl FnOnce(&mut Outgoing) -> io::Result<()>) -> io::Result<()> {
        let mut shared = self.shared();
        let Shared { stage, items, left, .. } = &mut *shared;
        let Some(items) = items else {
            return Err(match stage {
                Stage::Over => io::Error::new(io::ErrorKind::BrokenPipe, "the attempt is over"),
                _ => io::Error::new(io::ErrorKind::InvalidInput, "the state has been asked for: the rest is given to the Handover"),
            });
        };
        let before = items.count();
        let result = give(items);
        *left = left.saturating_sub(usize::try_from(items.count() - before).unwrap_or(usize::MAX));
        if let Err(error) = &result {
            shared.fails(error);
        }
        self.wake(shared);
        result
    }

    fn gone(&self, name: &str) {
        let mut shared = self.shared();
        let Some(items) = &mut shared.items else { return };
        if let Err(error) = items.gone(name) {
            shared.fails(&error);
        }
        self.wake(shared);
    }

    fn complete(&self) {
        let mut shared = self.shared();
        let Shared { stage: stage @ Stage::Open, items: Some(items), .. } = &mut *shared else { return };
        *stage = Stage::Complete;
        let complete = Message::PrecopyComplete { items: items.count() };
        if let Err(error) = items.flush().and_then(|()| items.lifeline().send(&complete, &[])) {
            shared.fails(&error);
        }
        self.wake(shared);
    }

    /// Has the loop send what waits, and say when there is room.
    fn wake(&self, shared: MutexGuard<'_, Shared>) {
        drop(shared);
        let is_woken = self.is_woken.swap(true, Ordering::AcqRel);
        if !is_woken && let Some(Err(error)) = self.waker.as_ref().map(|waker| waker.wake()) {
            log::warn!("cannot wake the loop: {error}");
        }
    }

    /// `None`: another thread gives, and wakes the loop when it has done that.
    fn try_shared(&self) -> Option<MutexGuard<'_, Shared>> {
        match self.shared.try_lock() {
            Ok(shared) => Some(shared),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handover {
    /// As [`rehearse`](Handover::rehearse), with what goes ahead: both ends over a real lifeline, without a process. Returns what comes
    /// ahead, in its order, and what comes with the state.
    ///
    /// ```
    /// use pollflip::{Arrival, Handover};
    ///
    /// let (arrivals, mut inheritance) = Handover::rehearse_precopy(
    ///     |precopy| precopy.bytes("map.v1", b"of the world").expect("it is taken"),
    ///     |mut handover| {
    ///         handover.bytes("players.v1", b"12 34").expect("it is taken");
    ///         handover.send();
    ///     },
    /// ).expect("a handover");
    /// assert!(matches!(&arrivals[..], [Arrival::Given(name, _)] if name == "map.v1"));
    /// assert_eq!(inheritance.bytes("players.v1").unwrap().unwrap(), b"12 34");
    /// ```
    ///
    /// # Errors
    ///
    /// What the attempt would have failed with.
    pub fn rehearse_precopy(ahead: impl FnOnce(&mut Precopy), save: impl FnOnce(Handover)) -> Result<(Vec<Arrival>, Inheritance), Failure> {
        let failed = |error: io::Error| Failure::Handover(error.to_string());
        let (ours, theirs) = Lifeline::pair().map_err(failed)?;
        let (ours, theirs) = (Arc::new(ours), Lifeline::from(theirs));
        let (mut precopy, copying) = Copying::new(ours.clone(), None);
        let mut collected = Collected::default();
        collected.expect_ahead();
        ahead(&mut precopy);
        precopy.complete();
        let mut arrivals = Vec::new();
        let mut is_complete = false;
        while !is_complete {
            match copying.poll() {
                Some(CopyingNews::Failed(why)) => return Err(Failure::Handover(why)),
                Some(CopyingNews::Gone) => return Err(Failure::HungUp),
                Some(CopyingNews::Room) | None => {}
            }
            ours.flush();
            while let Some(incoming) = theirs.receive() {
                is_complete = match incoming {
                    Incoming::Message(Message::PrecopyComplete { items }, _) => collected.ahead_complete(items).map(|()| true),
                    Incoming::Message(message, descriptors) => collected.take_in(message, descriptors),
                    Incoming::Garbage(why) => Err(why),
                    Incoming::Closed => Err("the lifeline was closed".into()),
                }
                .map_err(Failure::Handover)?;
                arrivals.extend(std::iter::from_fn(|| collected.next_ahead()));
            }
            if !is_complete {
                theirs.wait(Duration::from_millis(10));
            }
        }
        collected.ask();
        let (handover, mailbox) = Handover::new(ours.clone(), None, Some(copying.freeze()));
        save(handover);
        let inheritance = receive_all(&ours, &theirs, &mailbox, collected, |_| Ok(()))?;
        drop(precopy);
        Ok((arrivals, inheritance))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Both ends of what goes ahead, and the lifeline of the successor.
    fn pair() -> (Precopy, Copying, Lifeline) {
        let (ours, theirs) = Lifeline::pair().expect("a lifeline");
        let (precopy, copying) = Copying::new(Arc::new(ours), None);
        (precopy, copying, Lifeline::from(theirs))
    }

    fn heard(line: &Lifeline) -> Vec<Message> {
        let next = || match line.receive()? {
            Incoming::Message(message, _) => Some(message),
            Incoming::Closed => None,
            Incoming::Garbage(why) => panic!("{why}"),
        };
        std::iter::from_fn(next).collect()
    }

    fn lists(messages: &[Message]) -> Vec<usize> {
        messages.iter().map(|message| if let Message::Items { ops } = message { ops.len() } else { 0 }).collect()
    }

    #[test]
    fn one_packet_goes_in_a_turn_and_the_loop_says_when_there_is_room_again() {
        let (mut precopy, copying, line) = pair();
        assert_eq!(precopy.room(), PER_TURN);
        let stdin = io::stdin();
        precopy.fds((0..PER_TURN).map(|number| (number.to_string(), &stdin))).expect("room");
        assert_eq!(precopy.room(), 0);
        assert!(copying.poll().is_none(), "the turn is not over");
        assert!(copying.begin_turn());
        assert!(matches!(copying.poll(), Some(CopyingNews::Room)));
        assert!(copying.poll().is_none(), "told once");
        assert!(!copying.begin_turn(), "nobody waits for it");
        assert_eq!(precopy.room(), PER_TURN);
        assert_eq!(lists(&heard(&line)), [PER_TURN]);
    }

    #[test]
    fn what_changes_while_the_successor_reads_nothing_goes_as_one_list() {
        let (mut precopy, copying, line) = pair();
        let stdin = io::stdin();
        // Until the kernel takes no more.
        let mut number = 0;
        while precopy.room() > 0 {
            precopy.fds((number..number + precopy.room()).map(|number| (number.to_string(), &stdin))).expect("it waits");
            number += PER_TURN;
            let _ = copying.poll();
            copying.begin_turn();
        }
        let gone = 200;
        (0..gone).for_each(|number| precopy.gone(&number.to_string()));
        assert!(copying.poll().is_none(), "there is no room");
        let before = lists(&heard(&line)).len();
        assert_eq!(before, number / PER_TURN - 1, "one waits here");
        copying.desk.shared().items.as_ref().expect("open").lifeline().flush();
        assert!(matches!(copying.poll(), Some(CopyingNews::Room)));
        assert_eq!(lists(&heard(&line)), [PER_TURN, gone]);
    }

    #[test]
    fn all_of_it_is_said_once_and_what_comes_later_is_still_given() {
        let (mut precopy, copying, line) = pair();
        precopy.bytes("map", b"of it").expect("room");
        precopy.complete();
        precopy.complete();
        precopy.gone("map");
        precopy.gone("nobody gave that");
        precopy.bytes("map", b"another").expect("it can be given again");
        drop(precopy);
        assert!(copying.poll().is_none());
        let messages = heard(&line);
        assert_eq!(lists(&messages), [1, 0, 2]);
        assert_eq!(messages[1], Message::PrecopyComplete { items: 1 });
    }

    #[test]
    fn the_first_error_fails_the_attempt_and_nothing_more_is_given() {
        let (mut precopy, copying, line) = pair();
        precopy.fd("a", io::stdin()).expect("room");
        precopy.fd("", io::stdin()).expect_err("no name");
        assert_eq!(precopy.fd("b", io::stdin()).expect_err("it has failed").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(precopy.room(), 0);
        precopy.complete();
        let Some(CopyingNews::Failed(why)) = copying.poll() else { panic!("it has failed") };
        assert!(why.starts_with("cannot hand \"\" over"), "{why}");
        assert!(heard(&line).is_empty());
    }

    #[test]
    fn an_attempt_that_is_over_lets_go_of_the_lifeline() {
        let (mut precopy, copying, line) = pair();
        drop(copying);
        assert!(matches!(line.receive(), Some(Incoming::Closed)));
        assert_eq!(precopy.fd("a", io::stdin()).expect_err("it is over").kind(), io::ErrorKind::BrokenPipe);
        precopy.gone("a");
        precopy.complete();
    }

    #[test]
    fn a_peer_hears_of_a_hang_up_at_once_and_has_all_that_was_written_before() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut ours, _) = listener.accept().expect("a connection");
        // As another process has it.
        let _theirs = ours.try_clone().expect("a duplicate");
        peer.write_all(b"unread").expect("room");
        ours.write_all(b"the last").expect("room");
        hang_up(ours);
        let mut heard = String::new();
        peer.read_to_string(&mut heard).expect("an end in order, although something is unread");
        assert_eq!(heard, "the last");

        let (mut peer, ours) = UnixStream::pair().expect("a pair");
        let _theirs = ours.try_clone().expect("a duplicate");
        hang_up(&ours);
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
        // Twice, and of what is no socket.
        hang_up(ours);
        hang_up(io::stdin());
    }
}
