//! One end of a lifeline: messages with descriptors, a queue for what the kernel does not take at once, never blocking.
//!
//! Knows: how to send and to receive. Does not know: what a message means, or which side it is on.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt};

use crate::sys;
use crate::wire::{MAX_PACKET, Message};

/// How soon a message that the kernel does not take, or does not give out, is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// How long what may have come in time is waited for, if it cannot be read for a moment.
const SHORT_LIMIT: Duration = Duration::from_secs(1);
/// How often in a row that is tried where nobody can wait.
const TRIES: usize = 8;

/// One end of the lifeline.
#[derive(Debug)]
pub(crate) struct Lifeline {
    socket: OwnedFd,
    queue: Mutex<Queue>,
    shortage: Mutex<Option<Shortage>>,
}

/// The kernel is short of what it needs to give out a message that may be there.
#[derive(Debug, Clone, Copy)]
struct Shortage {
    since: Instant,
    /// When it was last tried.
    tried: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// When the kernel last refused the first of them.
    tried: Option<Instant>,
    /// The kernel was short of something then: the socket may be writable all the same.
    short: bool,
    /// Why something that had waited was not taken in the end, other than that nobody is there to take it.
    failed: Option<io::Error>,
    /// Something has been lost so: what comes after it would make no sense without it.
    broken: bool,
}

/// A packet that has to wait, with duplicates of its descriptors.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What comes over the lifeline.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Message, Vec<OwnedFd>),
    /// It cannot be read; the text says why.
    Garbage(String),
    /// The other side has closed its end, and all that it had sent has been read.
    Closed,
}

impl Lifeline {
    /// Our end, and the one for the other side. Both are CLOEXEC from birth.
    pub(crate) fn pair() -> io::Result<(Lifeline, OwnedFd)> {
        sys::may_fail(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])?;
        let (ours, theirs) = sys::packet_sockets().map_err(sys::naming("socketpair"))?;
        Ok((Lifeline::from(ours), theirs))
    }

    /// Sends a message, or queues it with duplicates of its descriptors. What is queued is not sent: it is lost if this end closes first.
    ///
    /// # Errors
    ///
    /// The other side has closed its end, or something sent before is lost (`BrokenPipe`); or a descriptor cannot be duplicated.
    pub(crate) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_packet(&message.encode(), descriptors)
    }

    /// The same for a message that is bytes already.
    ///
    /// # Errors
    ///
    /// As for [`Lifeline::send`].
    pub(crate) fn send_packet(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut queue = self.queue();
        if !send_now(&self.socket, &mut queue, bytes, descriptors)? {
            let descriptors = descriptors.iter().map(|fd| sys::duplicate(fd, 3)).collect::<io::Result<_>>()?;
            queue.waiting.push_back(Waiting { bytes: bytes.into(), descriptors });
        }
        Ok(())
    }

    /// The same with descriptors that are given away.
    ///
    /// # Errors
    ///
    /// The other side has closed its end (`BrokenPipe`).
    pub(crate) fn send_owned(&self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut queue = self.queue();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if !send_now(&self.socket, &mut queue, bytes, &borrowed)? {
            queue.waiting.push_back(Waiting { bytes: bytes.into(), descriptors });
        }
        Ok(())
    }

    /// Sends what has waited, as far as the kernel takes it. Says whether something still waits.
    pub(crate) fn flush(&self) -> bool {
        let mut queue = self.queue();
        flush(&self.socket, &mut queue);
        !queue.waiting.is_empty()
    }

    /// What the kernel would not take of what had waited, once.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.queue().failed.take()
    }

    /// How long until what waits should be sent or read again although the socket does not tell: nothing
    /// announces the end of a shortage. `None`: nothing waits.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        let queue = self.queue();
        let unsent = queue.waiting.front().map(|_| queue.tried);
        drop(queue);
        let unread = self.shortage().map(|shortage| Some(shortage.tried));
        let left = |tried: Option<Instant>| tried.map_or(Duration::ZERO, |tried| RETRY.saturating_sub(sys::now() - tried));
        unsent.into_iter().chain(unread).map(left).min()
    }

    /// Sends this in the place of what waits, and nothing after it.
    pub(crate) fn send_last(&self, message: &Message) {
        let mut queue = self.queue();
        if mem::replace(&mut queue.broken, true) {
            return;
        }
        queue.waiting.clear();
        let bytes = message.encode();
        match sys::send(&self.socket, &bytes, &[]).map_err(|error| (meaning(&error), error)) {
            Ok(()) | Err((Meaning::Closed, _)) => {}
            // As long as this end is open.
            Err((Meaning::Short, _)) => {
                (queue.tried, queue.short) = (Some(sys::now()), true);
                queue.waiting.push_back(Waiting { bytes, descriptors: Vec::new() });
            }
            Err((_, error)) => log::debug!("the last message does not get onto the lifeline: {error}"),
        }
    }

    /// Nothing more is sent, nor what waits.
    pub(crate) fn give_up(&self) {
        let mut queue = self.queue();
        queue.waiting.clear();
        queue.broken = true;
    }

    /// Whether the kernel has taken all that was sent.
    pub(crate) fn has_sent_all(&self) -> bool {
        let queue = self.queue();
        queue.waiting.is_empty() && !queue.broken
    }

    /// How many messages wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// What has come, if anything has. In a [shortage](Lifeline::is_short) something may be there that
    /// cannot be read yet.
    pub(crate) fn receive(&self) -> Option<Incoming> {
        self.receive_from().map(|(incoming, _)| incoming)
    }

    /// The same with the process that has sent it, if [`Lifeline::name_senders`] had been called by then.
    pub(crate) fn receive_from(&self) -> Option<(Incoming, Option<u32>)> {
        let mut sender = None;
        let incoming = self.receive_any(&mut sender)?;
        Some((incoming, sender))
    }

    /// Whether the kernel is to say of each message which process sends it.
    pub(crate) fn name_senders(&self, named: bool) -> io::Result<()> {
        sys::name_senders(&self.socket, named)
    }

    fn receive_any(&self, sender: &mut Option<u32>) -> Option<Incoming> {
        loop {
            let received = sys::receive(&self.socket).and_then(|packet| {
                // The end looks like an empty packet.
                let is_end = packet.bytes.is_empty() && self.other_end_closed()?;
                Ok((packet, is_end))
            });
            let (packet, is_end) = match received.map_err(|error| (meaning(&error), error)) {
                Ok(received) => received,
                Err((Meaning::Full, _)) => {
                    *self.shortage() = None;
                    return None;
                }
                Err((Meaning::Short, error)) => {
                    self.note_shortage(&error);
                    return None;
                }
                // The other side died with something unread. What it had sent before is still there.
                Err((Meaning::Closed, error)) if error.raw_os_error() == Some(libc::ECONNRESET) => continue,
                Err((Meaning::Closed | Meaning::Unusable, error)) => {
                    log::warn!("the lifeline cannot be read: {error}");
                    self.read_no_more();
                    return Some(Incoming::Closed);
                }
            };
            *sender = packet.sender;
            *self.shortage() = None;
            if packet.truncated && packet.bytes.len() <= MAX_PACKET {
                return Some(Incoming::Garbage(format!("a message came without all of its descriptors: {}", descriptor_limit())));
            }
            if is_end {
                return Some(Incoming::Closed);
            }
            return Some(match Message::decode(&packet.bytes) {
                Ok(message) if message == Message::Unknown || message.descriptors() == packet.descriptors.len() => {
                    Incoming::Message(message, packet.descriptors)
                }
                Ok(message) => Incoming::Garbage(format!(
                    "a message that names {} descriptors came with {}",
                    message.descriptors(),
                    packet.descriptors.len()
                )),
                Err(why) => Incoming::Garbage(why),
            });
        }
    }

    /// Whether something may be there that could not be read the last time.
    pub(crate) fn is_short(&self) -> bool {
        self.shortage().is_some()
    }

    /// The same, for as long as that is worth waiting for: it may have come in time.
    pub(crate) fn may_have_unread(&self) -> bool {
        self.shortage().is_some_and(|shortage| sys::now() - shortage.since < SHORT_LIMIT)
    }

    /// Nothing is read any more.
    pub(crate) fn read_no_more(&self) {
        *self.shortage() = None;
    }

    /// In a shortage, waits at most so long until it is time to try again: the socket can be readable and
    /// writable all the time. `false`: there is no shortage.
    pub(crate) fn wait_in_shortage(&self, limit: Duration) -> bool {
        let is_short = self.is_short() || {
            let queue = self.queue();
            queue.short && !queue.waiting.is_empty()
        };
        if let Some(left) = self.retry_in().filter(|_| is_short)
            && !sys::has_waited(left.min(limit))
        {
            // Rounded up, so as not to spin through the last millisecond.
            let left = left.min(limit).saturating_add(Duration::from_micros(999));
            // Interrupted: the caller looks again.
            let _ = poll(&mut [], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
        is_short
    }

    /// Waits at most so long for something to come.
    pub(crate) fn wait(&self, limit: Duration) {
        if !self.wait_in_shortage(limit) {
            sys::is_readable_within(&self.socket, limit);
        }
    }

    /// Whether there is room for more than a few last words: a quarter of all that can be sent and not read.
    pub(crate) fn has_room(&self) -> bool {
        let room = getsockopt(&self.socket, sockopt::SndBuf).unwrap_or_default();
        self.waiting() == 0 && sys::unread(&self.socket).is_some_and(|unread| unread < room - room / 4)
    }

    /// An error: that cannot be told now. The end is there to be read again.
    fn other_end_closed(&self) -> io::Result<bool> {
        loop {
            match sys::has_hung_up(&self.socket) {
                Ok(has_hung_up) => return Ok(has_hung_up),
                Err(Errno::EINTR) => {}
                // Such as a limit of no descriptor at all. It says nothing about the lifeline.
                Err(_) => return Err(io::Error::from_raw_os_error(libc::ENOMEM)),
            }
        }
    }

    fn note_shortage(&self, error: &io::Error) {
        let now = sys::now();
        let mut shortage = self.shortage();
        let since = shortage.map(|shortage| shortage.since);
        *shortage = Some(Shortage { since: since.unwrap_or(now), tried: now });
        drop(shortage);
        if since.is_none() {
            log::warn!("the lifeline cannot be read for a moment: {error}; trying again");
        }
    }

    fn shortage(&self) -> MutexGuard<'_, Option<Shortage>> {
        self.shortage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<OwnedFd> for Lifeline {
    fn from(socket: OwnedFd) -> Lifeline {
        Lifeline { socket, queue: Mutex::default(), shortage: Mutex::default() }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes back what was sent to the other side's end, which is still here as well, as far as nobody has read it there.
pub(crate) fn take_back(theirs: &OwnedFd) {
    let mut left = TRIES;
    loop {
        match sys::receive(theirs) {
            Ok(packet) if packet.bytes.is_empty() => return,
            Ok(_) => {}
            Err(error) if left > 0 && meaning(&error) == Meaning::Short => left -= 1,
            Err(_) => return,
        }
    }
}

/// Sends it unless it has to wait, for what waits already or for the kernel.
fn send_now(socket: &OwnedFd, queue: &mut Queue, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    flush(socket, queue);
    if queue.broken {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    if !queue.waiting.is_empty() {
        return Ok(false);
    }
    match sys::send(socket, bytes, descriptors).map_err(|error| (meaning(&error), error)) {
        Ok(()) => Ok(true),
        Err((why @ (Meaning::Full | Meaning::Short), _)) => {
            (queue.tried, queue.short) = (Some(sys::now()), why == Meaning::Short);
            Ok(false)
        }
        Err((Meaning::Closed, _)) => Err(io::ErrorKind::BrokenPipe.into()),
        Err((Meaning::Unusable, error)) => Err(error),
    }
}

fn flush(socket: &OwnedFd, queue: &mut Queue) {
    while let Some(first) = queue.waiting.front() {
        let descriptors: Vec<_> = first.descriptors.iter().map(AsFd::as_fd).collect();
        match sys::send(socket, &first.bytes, &descriptors).map_err(|error| (meaning(&error), error)) {
            Ok(()) => drop(queue.waiting.pop_front()),
            Err((why @ (Meaning::Full | Meaning::Short), _)) => {
                (queue.tried, queue.short) = (Some(sys::now()), why == Meaning::Short);
                return;
            }
            Err((why, error)) => {
                queue.waiting.clear();
                queue.broken = true;
                // That the other side is gone is told by `receive`.
                queue.failed = (why != Meaning::Closed).then_some(error);
            }
        }
    }
}

/// What an error of the kernel means for a lifeline, whichever way a message was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// There is no room for more, or nothing to read. The socket tells when that is over.
    Full,
    /// The kernel lacks memory, or too many descriptors of this user are on their way between processes.
    /// That passes, and nothing tells when.
    Short,
    /// The other end is closed. What it had sent before is still there.
    Closed,
    /// This end cannot be used, and that does not pass: it is no socket any more, or a rule forbids its
    /// use.
    Unusable,
}

/// Which errors pass, and which are the end of a lifeline, is said here and nowhere else.
fn meaning(error: &io::Error) -> Meaning {
    const ETOOMANYREFS: i32 = Errno::ETOOMANYREFS as i32;
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Meaning::Full,
        Some(libc::ENOMEM | libc::ENOBUFS | libc::EMFILE | libc::ENFILE | ETOOMANYREFS) => Meaning::Short,
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Meaning::Closed,
        _ => Meaning::Unusable,
    }
}

/// What is most likely in the way of descriptors that do not come.
pub(crate) fn descriptor_limit() -> String {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) => format!(
            "this process may have no more than {limit} open at a time (RLIMIT_NOFILE): raise that limit, with LimitNOFILE= or ulimit -n"
        ),
        Err(_) => "its descriptor table is full".into(),
    }
}
