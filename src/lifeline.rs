//! One end of a lifeline: messages with descriptors, a queue for what the kernel does not take at once, never blocking.
//!
//! Knows: how to send and to receive. Does not know: what a message means, or which side it is on.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt};

use crate::sys;
use crate::wire::{MAX_PACKET, Message};

/// How soon a message that the kernel does not take is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// One end of the lifeline.
#[derive(Debug)]
pub(crate) struct Lifeline {
    socket: OwnedFd,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// When the first of them was last tried in vain.
    tried: Option<Instant>,
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
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Lifeline::from(ours), theirs))
    }

    /// Sends a message, or queues it with duplicates of its descriptors. What is queued is not sent: it is lost if this end closes first.
    ///
    /// # Errors
    ///
    /// The other side has closed its end, or something sent before is lost (`BrokenPipe`); or a descriptor cannot be duplicated.
    pub(crate) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode();
        let mut queue = self.queue();
        if !send_now(&self.socket, &mut queue, &bytes, descriptors)? {
            let descriptors = descriptors.iter().map(|fd| sys::duplicate(fd, 3)).collect::<io::Result<_>>()?;
            queue.waiting.push_back(Waiting { bytes, descriptors });
        }
        Ok(())
    }

    /// The same with descriptors that are given away.
    ///
    /// # Errors
    ///
    /// The other side has closed its end (`BrokenPipe`).
    pub(crate) fn send_owned(&self, message: &Message, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = message.encode();
        let mut queue = self.queue();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if !send_now(&self.socket, &mut queue, &bytes, &borrowed)? {
            queue.waiting.push_back(Waiting { bytes, descriptors });
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

    /// How long until what waits should be tried again although the socket has not become writable: ETOOMANYREFS announces its end by
    /// nothing. `None`: nothing waits.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        let queue = self.queue();
        queue.waiting.front()?;
        Some(queue.tried.map_or(Duration::ZERO, |tried| RETRY.saturating_sub(sys::now() - tried)))
    }

    /// Sends this in the place of what waits, and nothing after it.
    pub(crate) fn send_last(&self, message: &Message) {
        let mut queue = self.queue();
        queue.waiting.clear();
        if !std::mem::replace(&mut queue.broken, true)
            && let Err(error) = sys::send(&self.socket, &message.encode(), &[])
            && !is_closed(&error)
        {
            log::debug!("the last message does not get onto the lifeline: {error}");
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

    /// What has come, if anything has.
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
        Ok(setsockopt(&self.socket, sockopt::PassCred, &named)?)
    }

    fn receive_any(&self, sender: &mut Option<u32>) -> Option<Incoming> {
        loop {
            let packet = match sys::receive(&self.socket) {
                Ok(packet) => packet,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // The other side died with something unread. What it had sent before is still there.
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => continue,
                Err(error) => {
                    log::warn!("the lifeline cannot be read: {error}");
                    return Some(Incoming::Closed);
                }
            };
            *sender = packet.sender;
            if packet.truncated && packet.bytes.len() <= MAX_PACKET {
                return Some(Incoming::Garbage(format!("a message came without all of its descriptors: {}", descriptor_limit())));
            }
            // The end looks like an empty packet.
            if packet.bytes.is_empty() && self.other_end_closed() {
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

    /// Waits at most so long for something to come.
    pub(crate) fn wait(&self, limit: Duration) {
        sys::is_readable_within(&self.socket, limit);
    }

    /// Whether there is room for more than a few last words: a quarter of all that can be sent and not read.
    pub(crate) fn has_room(&self) -> bool {
        let room = getsockopt(&self.socket, sockopt::SndBuf).unwrap_or_default();
        self.waiting() == 0 && sys::unread(&self.socket).is_some_and(|unread| unread < room - room / 4)
    }

    fn other_end_closed(&self) -> bool {
        let hung_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = [PollFd::new(self.socket.as_fd(), hung_up)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<OwnedFd> for Lifeline {
    fn from(socket: OwnedFd) -> Lifeline {
        Lifeline { socket, queue: Mutex::default() }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes back what was sent to the other side's end, which is still here as well, as far as nobody has read it there.
pub(crate) fn take_back(theirs: &OwnedFd) {
    while sys::receive(theirs).is_ok_and(|packet| !packet.bytes.is_empty()) {}
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
    match sys::send(socket, bytes, descriptors) {
        Ok(()) => Ok(true),
        Err(error) if has_to_wait(&error) => {
            queue.tried = Some(sys::now());
            Ok(false)
        }
        Err(error) if is_closed(&error) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Err(error),
    }
}

fn flush(socket: &OwnedFd, queue: &mut Queue) {
    while let Some(first) = queue.waiting.front() {
        let descriptors: Vec<_> = first.descriptors.iter().map(AsFd::as_fd).collect();
        match sys::send(socket, &first.bytes, &descriptors) {
            Ok(()) => drop(queue.waiting.pop_front()),
            Err(error) if has_to_wait(&error) => return queue.tried = Some(sys::now()),
            Err(error) => {
                queue.waiting.clear();
                queue.broken = true;
                // That the other side is gone is told by `receive`.
                queue.failed = Some(error).filter(|error| !is_closed(error));
            }
        }
    }
}

/// Full, too many descriptors of this user are on their way between processes, or the kernel has no memory to spare for a moment.
fn has_to_wait(error: &io::Error) -> bool {
    const WAIT: [i32; 3] = [Errno::ETOOMANYREFS as i32, libc::ENOBUFS, libc::ENOMEM];
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error().is_some_and(|number| WAIT.contains(&number))
}

/// What is most likely in the way of descriptors that do not come.
pub(crate) fn descriptor_limit() -> String {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) => format!("this process may have no more than {limit} open at a time (RLIMIT_NOFILE)"),
        Err(_) => "its descriptor table is full".into(),
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN))
}
