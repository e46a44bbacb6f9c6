//! Connections that lie in the queues of unix sockets, which somebody holds: they are open as long
//! as that one lives, and nobody is sent a message for each of them.
//!
//! Knows: how descriptors lie there, and which of them are still meant. Does not know: who holds
//! the sockets.
//!
//! A connection is sent to oneself, as one packet; the kernel takes so many packets and no more. So
//! whenever there are as many as one packet can have descriptors, they go into the other queue as
//! one. A packet is taken off only after what is in it lies elsewhere: if the process is killed in
//! between, a connection lies in both, and is known by its SO_COOKIE.
//!
//! Nothing can be taken out of the middle of a queue. What is forgotten stays there until its packet
//! is the first: whenever much of a queue is forgotten, first packets go to its end without that.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use crate::sys;
use crate::wire::MAX_DESCRIPTORS;

/// So few that are still meant go back to the single ones, so that packets stay full.
const FEW: usize = MAX_DESCRIPTORS / 2;
/// How many bytes of packets a queue has room for, if everybody may have so many.
const ROOM: usize = 4 << 20;
/// So many first packets are looked at each time.
const STEPS: usize = 2;

/// The queues, of which this process alone makes use.
#[derive(Debug)]
pub(super) struct Queue {
    single: Pair,
    packed: Pair,
    /// What is still meant, by its cookie.
    live: HashSet<u64>,
}

/// A queue: its packets, and how many descriptors lie in them.
#[derive(Debug)]
struct Pair {
    write: OwnedFd,
    read: OwnedFd,
    packets: usize,
    descriptors: usize,
}

impl Queue {
    pub(super) fn new() -> io::Result<Queue> {
        Ok(Queue { single: Pair::new()?, packed: Pair::new()?, live: HashSet::new() })
    }

    /// An empty one that another process has made, of its [ends](Queue::ends) in their order.
    pub(super) fn of_ends(ends: Vec<OwnedFd>) -> Option<Queue> {
        let [write, read, packed_write, packed_read] = ends.try_into().ok()?;
        let pair = |write, read| Pair { write, read, packets: 0, descriptors: 0 };
        Some(Queue { single: pair(write, read), packed: pair(packed_write, packed_read), live: HashSet::new() })
    }

    /// All ends.
    pub(super) fn ends(&self) -> [BorrowedFd<'_>; 4] {
        [&self.single.write, &self.single.read, &self.packed.write, &self.packed.read].map(AsFd::as_fd)
    }

    /// All that is meant, as descriptors of this process. What cannot be had is an error.
    pub(super) fn all(&self) -> io::Result<Vec<OwnedFd>> {
        let (live, mut found) = (&self.live, Found::default());
        for pair in [&self.packed, &self.single] {
            pair.look(pair.packets, |cookie, descriptor| found.add(live, cookie, descriptor))?;
        }
        Ok(found.descriptors)
    }

    /// How many are meant.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn has(&self, cookie: u64) -> bool {
        self.live.contains(&cookie)
    }

    /// Puts a connection in.
    pub(super) fn put(&mut self, cookie: u64, connection: BorrowedFd<'_>) -> io::Result<()> {
        if self.live.contains(&cookie) {
            return Ok(());
        }
        match self.single.push(&[connection]) {
            // The buffer is smaller than it is by default.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.single.packets > 0 => {
                self.pack()?;
                self.single.push(&[connection])?;
            }
            pushed => pushed?,
        }
        self.live.insert(cookie);
        // Where there are no descriptors to look with, it is tried again with the next one.
        if self.single.packets >= MAX_DESCRIPTORS && self.pack().is_ok() {
            self.tidy();
        }
        Ok(())
    }

    /// It is not meant any more. Says whether it was.
    pub(super) fn forget(&mut self, cookie: u64) -> bool {
        let was_meant = self.live.remove(&cookie);
        if was_meant && self.live.is_empty() {
            // What is left is nobody's.
            self.clear();
        } else if was_meant && self.live.len().is_multiple_of(MAX_DESCRIPTORS) {
            self.tidy();
        }
        was_meant
    }

    /// Nothing is meant any more, nor found by others.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.single.clear();
        self.packed.clear();
    }

    /// The first single ones become one packet.
    fn pack(&mut self) -> io::Result<()> {
        let (live, mut found) = (&self.live, Found::default());
        let count = self.single.packets.min(MAX_DESCRIPTORS);
        self.single.look(count, |cookie, descriptor| found.add(live, cookie, descriptor))?;
        self.packed.push(&found.borrowed())?;
        (0..count).for_each(|_| self.single.drop_first(1));
        Ok(())
    }

    /// Looks at a few packets, if half of what lies in packets is not meant. An error leaves them as
    /// they are.
    fn tidy(&mut self) {
        for _ in 0..STEPS {
            if self.packed.descriptors <= 2 * self.live.len() || self.turn().is_err() {
                return;
            }
        }
    }

    /// The first packet goes to the end, without what is not meant.
    fn turn(&mut self) -> io::Result<()> {
        let (live, mut found) = (&self.live, Found::default());
        let before = self.packed.look(1, |cookie, descriptor| found.add(live, cookie, descriptor))?;
        let meant = found.borrowed();
        if meant.len() < FEW && self.single.packets + meant.len() < MAX_DESCRIPTORS {
            meant.iter().try_for_each(|connection| self.single.push(&[*connection]))?;
        } else {
            self.packed.push(&meant)?;
        }
        self.packed.drop_first(before);
        Ok(())
    }
}

/// What is meant of what was looked at.
#[derive(Debug, Default)]
struct Found {
    cookies: HashSet<u64>,
    descriptors: Vec<OwnedFd>,
}

impl Found {
    fn add(&mut self, live: &HashSet<u64>, cookie: u64, descriptor: OwnedFd) {
        if live.contains(&cookie) && self.cookies.insert(cookie) {
            self.descriptors.push(descriptor);
        }
    }

    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }
}

impl Pair {
    fn new() -> io::Result<Pair> {
        let (write, read) = sys::packet_sockets()?;
        // As large as everybody may have it.
        let _ = setsockopt(&write, sockopt::SndBuf, &ROOM);
        Ok(Pair { write, read, packets: 0, descriptors: 0 })
    }

    fn push(&mut self, connections: &[BorrowedFd<'_>]) -> io::Result<()> {
        if connections.is_empty() {
            return Ok(());
        }
        // Looks count bytes, so there is one.
        sys::send(&self.write, &[0], connections)?;
        self.packets += 1;
        self.descriptors += connections.len();
        Ok(())
    }

    /// Looks at so many packets from the first on; returns how many descriptors lie in them.
    fn look(&self, packets: usize, mut take: impl FnMut(u64, OwnedFd)) -> io::Result<usize> {
        let mut count = 0;
        sys::peek_from(&self.read, 0)?;
        for _ in 0..packets {
            count += look_at_next(&self.read, &mut take)?;
        }
        Ok(count)
    }

    /// Takes the first packet off, in which so many descriptors lie.
    fn drop_first(&mut self, descriptors: usize) {
        if drop_one(&self.read) {
            self.packets = self.packets.saturating_sub(1);
            self.descriptors = self.descriptors.saturating_sub(descriptors);
        }
    }

    fn clear(&mut self) {
        while drop_one(&self.read) {}
        (self.packets, self.descriptors) = (0, 0);
    }
}

/// Takes the first packet off. Without room for what lies in it, the kernel closes that.
fn drop_one(end: &OwnedFd) -> bool {
    loop {
        match recv(end.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            taken => return taken.is_ok_and(|length| length > 0),
        }
    }
}

/// Looks at the packet that comes next; returns how many descriptors lie in it.
fn look_at_next(end: &OwnedFd, take: &mut impl FnMut(u64, OwnedFd)) -> io::Result<usize> {
    let packet = sys::peek_packet(end)?;
    if packet.truncated {
        let why = "this process has no room for the connections that were kept: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)";
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
    }
    let count = packet.descriptors.len();
    for descriptor in packet.descriptors {
        // What is no socket was not put there by this crate.
        if let Ok(cookie) = sys::socket_cookie(&descriptor) {
            take(cookie, descriptor);
        }
    }
    Ok(count)
}

/// What lies in the queues that these are the ends of, each once, the oldest first. It stays there:
/// the next process finds it as well. `known`: what was found before.
pub(super) fn look_into(end: &OwnedFd, known: &mut HashSet<u64>, found: &mut Vec<OwnedFd>) -> io::Result<()> {
    sys::peek_from(end, 0)?;
    let mut take = |cookie, descriptor: OwnedFd| {
        if known.insert(cookie) {
            found.push(descriptor);
        }
    };
    loop {
        match look_at_next(end, &mut take) {
            // The other end was dropped with all that could come, or nothing follows.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use nix::time::{ClockId, clock_gettime};

    use super::*;

    struct Crowd {
        listener: TcpListener,
    }

    impl Crowd {
        fn new() -> Crowd {
            Crowd { listener: TcpListener::bind("127.0.0.1:0").expect("a listener") }
        }

        fn connect(&self) -> (u64, TcpStream, TcpStream) {
            let client = TcpStream::connect(self.listener.local_addr().expect("an address")).expect("a connection");
            let (server, _) = self.listener.accept().expect("a connection");
            (sys::socket_cookie(&server).expect("a socket"), server, client)
        }
    }

    fn found(queue: &Queue) -> HashSet<u64> {
        let (mut known, mut all) = (HashSet::new(), Vec::new());
        for end in queue.ends() {
            let end = end.try_clone_to_owned().expect("a duplicate");
            look_into(&end, &mut known, &mut all).expect("a queue");
        }
        assert_eq!(known.len(), all.len());
        known
    }

    /// Any number without a seed.
    fn random(state: &mut u64, below: usize) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as usize % below
    }

    #[test]
    fn what_was_put_in_is_found_again_and_again_and_the_rest_does_not_add_up() {
        // A few connections that come and go: the queues do not know that they are the same few.
        let crowd = Crowd::new();
        let all: Vec<_> = (0..40).map(|_| crowd.connect()).collect();
        let mut queue = Queue::new().expect("sockets");
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for round in 0..20_000 {
            let (cookie, server, _) = &all[random(&mut state, all.len())];
            if queue.has(*cookie) {
                assert!(queue.forget(*cookie));
            } else {
                queue.put(*cookie, server.as_fd()).expect("room");
            }
            assert!(queue.single.packets < MAX_DESCRIPTORS, "they are packed");
            assert!(queue.packed.packets <= 16, "{} packets for {} connections", queue.packed.packets, queue.len());
            if round % 1000 == 0 {
                let lying = found(&queue);
                assert!(queue.live.is_subset(&lying));
                assert_eq!(lying, found(&queue), "a look takes nothing away");
            }
        }
    }

    /// As where nobody may have larger buffers, and many are kept.
    #[test]
    fn a_full_queue_refuses_one_more_and_loses_nothing() {
        let crowd = Crowd::new();
        let mut queue = Queue::new().expect("sockets");
        for pair in [&queue.single, &queue.packed] {
            // Less than the least that there is.
            setsockopt(&pair.write, sockopt::SndBuf, &1).expect("a socket");
        }
        let mut all = Vec::new();
        let error = loop {
            let (cookie, server, client) = crowd.connect();
            match queue.put(cookie, server.as_fd()) {
                Ok(()) => all.push((cookie, server, client)),
                Err(error) => break error,
            }
            assert!(all.len() < 1_000, "it is never full");
        };
        println!("{} have room in buffers of the least size", all.len());
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let kept: HashSet<u64> = all.iter().map(|(cookie, ..)| *cookie).collect();
        assert_eq!((&queue.live, queue.len()), (&kept, all.len()));
        assert_eq!(found(&queue), kept);
        // As soon as enough are forgotten there is room again.
        for (cookie, ..) in all.drain(1..) {
            assert!(queue.forget(cookie));
        }
        let (cookie, server, _client) = crowd.connect();
        let put = queue.put(cookie, server.as_fd());
        assert_eq!(put.is_ok(), queue.has(cookie));
        assert!(found(&queue).contains(&all[0].0));
        queue.forget(all[0].0);
        queue.forget(cookie);
        queue.put(cookie, server.as_fd()).expect("it is empty");
        assert_eq!(found(&queue), HashSet::from([cookie]));
    }

    fn processor_time() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
    }

    /// More are on their way than an ordinary user may have there.
    fn may_have_thousands() -> bool {
        let may = nix::unistd::geteuid().is_root();
        if !may {
            eprintln!("SKIPPED: only root may have so many descriptors on their way");
        }
        may
    }

    #[test]
    fn thousands_have_room_in_buffers_of_the_default_size() {
        if !may_have_thousands() {
            return;
        }
        let mut queue = Queue::new().expect("sockets");
        let make = || socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        let put = |queue: &mut Queue| {
            let socket = make();
            let cookie = sys::socket_cookie(&socket).expect("a socket");
            queue.put(cookie, socket.as_fd()).expect("room");
            cookie
        };
        let before = processor_time();
        (0..10_000).for_each(|_| drop(make()));
        let alone = (processor_time() - before) / 10_000;
        let before = processor_time();
        let cookies: Vec<u64> = (0..10_000).map(|_| put(&mut queue)).collect();
        let each = (processor_time() - before) / 10_000;
        println!("10000 sockets: kept with {:?} of processor time each, made and closed with {alone:?}", each.saturating_sub(alone));
        assert_eq!((queue.len(), queue.packed.descriptors + queue.single.descriptors), (10_000, 10_000));
        assert_eq!(found(&queue), cookies.iter().copied().collect());
        cookies[1..].iter().for_each(|cookie| assert!(queue.forget(*cookie)));
        assert_eq!(queue.len(), 1);
        // Others come and go, and what is forgotten goes with them.
        for _ in 0..10_000 {
            let cookie = put(&mut queue);
            queue.forget(cookie);
        }
        assert!(queue.packed.descriptors <= 2 * MAX_DESCRIPTORS, "{} are left, and one is meant", queue.packed.descriptors);
        assert!(found(&queue).contains(&cookies[0]));
        queue.forget(cookies[0]);
        assert_eq!((queue.packed.packets, queue.single.packets), (0, 0));
    }

    #[test]
    fn what_is_no_socket_is_left_out() {
        let mut queue = Queue::new().expect("sockets");
        let file = sys::memory_file().expect("a file");
        queue.single.push(&[file.as_fd()]).expect("room");
        assert_eq!(found(&queue), HashSet::new());
    }
}
