//! The connections of one UDP socket, on a loop that does not block: quinn-proto, with its timers and what it wants to send.
//!
//! Knows: QUIC. Does not know: sockets, clocks, restarts. A turn of the loop is, in this order:
//!
//! 1. [`receive`](Connections::receive) for each datagram that has come,
//! 2. [`expire`](Connections::expire),
//! 3. [`poll`](Connections::poll) until `None`; whatever the program does with a connection it does now, by [`get`](Connections::get),
//! 4. [`transmit`](Connections::transmit),
//! 5. a wait for the socket, for [`timeout`](Connections::timeout) at the longest.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ClientConfig, ConnectError, Connection, ConnectionHandle, DatagramEvent, Endpoint, Event, Incoming, Transmit, VarInt};

/// One connection has so many datagrams in a turn, then it is the next one's.
const BURST: usize = 32;
/// So many answers without a connection wait for a socket that takes nothing. More are lost, as datagrams can be.
const ANSWERS: usize = 256;

/// All of them, with what the program keeps of each.
pub struct Connections<T> {
    endpoint: Endpoint,
    demands_retry: bool,
    all: HashMap<ConnectionHandle, Entry<T>>,
    timers: BTreeSet<(Instant, ConnectionHandle)>,
    /// May have events for the program.
    unheard: BTreeSet<ConnectionHandle>,
    /// May have something to send, or something to tell the endpoint.
    unsent: BTreeSet<ConnectionHandle>,
    /// What the endpoint answers without a connection: resets, retries, versions.
    answers: VecDeque<(SocketAddr, Vec<u8>)>,
    /// A datagram that the socket has not taken.
    stuck: Option<(SocketAddr, Vec<u8>)>,
}

struct Entry<T> {
    connection: Connection,
    timer: Option<Instant>,
    state: T,
}

impl<T: Default> Connections<T> {
    /// None yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            demands_retry: false,
            all: HashMap::new(),
            timers: BTreeSet::new(),
            unheard: BTreeSet::new(),
            unsent: BTreeSet::new(),
            answers: VecDeque::new(),
            stuck: None,
        }
    }

    /// Begins one, as a client.
    ///
    /// # Errors
    ///
    /// What quinn-proto says.
    pub fn connect(&mut self, now: Instant, config: ClientConfig, to: SocketAddr, name: &str) -> Result<ConnectionHandle, ConnectError> {
        let (handle, connection) = self.endpoint.connect(now, config, to, name)?;
        self.insert(handle, connection);
        Ok(handle)
    }

    /// From now on the answer to a first datagram is a Retry, or not: nothing is kept of a client before it has sent what is in that.
    pub fn demand_retry(&mut self, demands_retry: bool) {
        self.demands_retry = demands_retry;
    }

    /// A datagram has come.
    pub fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(datagram), &mut answer) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(entry) = self.all.get_mut(&handle) {
                    entry.connection.handle_event(event);
                    self.touch(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(now, incoming, answer),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, answer),
        }
    }

    fn admit(&mut self, now: Instant, incoming: Incoming, mut answer: Vec<u8>) {
        if self.demands_retry && !incoming.remote_address_validated() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut answer) {
                self.answer(&transmit, answer);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut answer, None) {
            Ok((handle, connection)) => self.insert(handle, connection),
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.answer(&transmit, answer);
                }
            }
        }
    }

    fn answer(&mut self, transmit: &Transmit, mut datagram: Vec<u8>) {
        datagram.truncate(transmit.size);
        if self.answers.len() < ANSWERS {
            self.answers.push_back((transmit.destination, datagram));
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, connection: Connection) {
        self.all.insert(handle, Entry { connection, timer: None, state: T::default() });
        self.touch(handle);
    }

    fn touch(&mut self, handle: ConnectionHandle) {
        self.unheard.insert(handle);
        self.unsent.insert(handle);
    }

    /// Does what is due by now.
    pub fn expire(&mut self, now: Instant) {
        while let Some((due, handle)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, handle));
            if let Some(entry) = self.all.get_mut(&handle) {
                entry.timer = None;
                entry.connection.handle_timeout(now);
                self.touch(handle);
            }
        }
    }

    /// What has happened to a connection.
    pub fn poll(&mut self) -> Option<(ConnectionHandle, Event)> {
        while let Some(handle) = self.unheard.first().copied() {
            match self.all.get_mut(&handle).and_then(|entry| entry.connection.poll()) {
                Some(event) => return Some((handle, event)),
                None => self.unheard.remove(&handle),
            };
        }
        None
    }

    /// A connection and what the program keeps of it. `None`: it has ended.
    pub fn get(&mut self, handle: ConnectionHandle) -> Option<(&mut Connection, &mut T)> {
        if self.all.contains_key(&handle) {
            self.touch(handle);
        }
        self.all.get_mut(&handle).map(|entry| (&mut entry.connection, &mut entry.state))
    }

    /// Whether its handshake is done and both sides know it. That is when a client may move (RFC 9000, 9).
    pub fn is_confirmed(&self, handle: ConnectionHandle) -> bool {
        self.all.get(&handle).is_some_and(|entry| entry.connection.stats().frame_rx.handshake_done > 0)
    }

    /// Those that there are, with those that are being closed.
    pub fn handles(&self) -> Vec<ConnectionHandle> {
        self.all.keys().copied().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Closes all.
    pub fn close(&mut self, now: Instant, code: u32, reason: &'static [u8]) {
        for handle in self.handles() {
            if let Some((connection, _)) = self.get(handle) {
                connection.close(now, VarInt::from_u32(code), reason.into());
            }
        }
    }

    /// Sends what there is to send, until the socket would block: then it is called again when the socket can be written to. What is not sent
    /// for another reason is lost.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8]) -> io::Result<()>) {
        let mut is_taken = |to, datagram: &[u8]| !send(to, datagram).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        while let Some((to, datagram)) = self.stuck.take().or_else(|| self.answers.pop_front()) {
            if !is_taken(to, &datagram) {
                self.stuck = Some((to, datagram));
                return;
            }
        }
        let mut datagram = Vec::new();
        for handle in std::mem::take(&mut self.unsent) {
            self.settle(handle);
            if self.stuck.is_some() {
                self.unsent.insert(handle);
                continue;
            }
            let Some(entry) = self.all.get_mut(&handle) else { continue };
            for count in 0.. {
                if count == BURST {
                    self.unsent.insert(handle);
                    break;
                }
                datagram.clear();
                let Some(transmit) = entry.connection.poll_transmit(now, 1, &mut datagram) else { break };
                datagram.truncate(transmit.size);
                if !is_taken(transmit.destination, &datagram) {
                    self.stuck = Some((transmit.destination, std::mem::take(&mut datagram)));
                    self.unsent.insert(handle);
                    break;
                }
            }
            self.set_timer(handle);
        }
    }

    /// What a connection and the endpoint have to tell each other. One that has ended goes.
    fn settle(&mut self, handle: ConnectionHandle) {
        let Some(entry) = self.all.get_mut(&handle) else { return };
        let mut has_ended = false;
        while let Some(event) = entry.connection.poll_endpoint_events() {
            has_ended |= event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                entry.connection.handle_event(answer);
            }
        }
        if has_ended && let Some(entry) = self.all.remove(&handle) {
            entry.timer.map(|due| self.timers.remove(&(due, handle)));
        }
    }

    fn set_timer(&mut self, handle: ConnectionHandle) {
        let Some(entry) = self.all.get_mut(&handle) else { return };
        let timer = entry.connection.poll_timeout();
        if timer != entry.timer {
            entry.timer.map(|due| self.timers.remove(&(due, handle)));
            timer.map(|due| self.timers.insert((due, handle)));
            entry.timer = timer;
        }
    }

    /// How long there is nothing to do, unless something comes. `None`: for ever.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        // While one is stuck, it is the socket that is waited for.
        if self.stuck.is_none() && !self.unsent.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.first().map(|(due, _)| due.saturating_duration_since(now))
    }
}
