//! A client: connections to one server from one socket, which can move to another port, and files that are compared byte for byte.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, Dir, Endpoint, EndpointConfig, Event, ReadError, StreamEvent, StreamId, VarInt,
};

use crate::connections::Connections;
use crate::identity::NAME;
use crate::protocol::{HEAD, Head, Request, content};

/// So many datagrams are read before anything else is done.
const BATCH: usize = 256;
/// The longest datagram that is taken.
const DATAGRAM: usize = 1500;

/// What datagrams go through. A test has one that holds them up or loses them.
pub trait Wire {
    /// What is polled.
    fn socket(&mut self) -> &mut UdpSocket;
    /// Sends one.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) -> io::Result<()>;
    /// Receives one.
    ///
    /// # Errors
    ///
    /// Those of the socket. `WouldBlock`: there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

impl Wire for UdpSocket {
    fn socket(&mut self) -> &mut UdpSocket {
        self
    }

    fn send(&mut self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.send_to(datagram, to).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer)
    }
}

/// Connections to one server from one socket.
pub struct Client<W> {
    /// What its datagrams go through.
    pub wire: W,
    poll: Poll,
    events: Events,
    quic: Connections<Id>,
    sessions: HashMap<Id, Session>,
    next: u64,
    config: ClientConfig,
    server: SocketAddr,
}

/// Names a connection of a client. quinn-proto's handle is another one's when a connection has ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u64);

/// What a client keeps of a connection, until it closes it.
pub struct Session {
    handle: ConnectionHandle,
    /// The handshake is done.
    pub is_connected: bool,
    /// The server has said that it has been replaced.
    pub is_told: bool,
    /// It has ended otherwise than by this client, and why.
    pub lost: Option<String>,
    /// The server has said by a stateless reset that it knows nothing of it.
    pub is_reset: bool,
    /// Files that wait for the server to allow one more.
    wanted: VecDeque<Download>,
    running: HashMap<StreamId, Download>,
    /// Files that have come whole, or have failed.
    done: Vec<Download>,
}

/// A file that is asked for.
pub struct Download {
    /// What was asked for.
    pub request: Request,
    /// No more than this is read for now.
    pub allowance: u64,
    head: Vec<u8>,
    /// How much has come, and was as it has to be.
    pub received: u64,
    /// Why it has failed.
    pub failed: Option<String>,
}

impl Download {
    /// The process that answers, as soon as it has said so.
    pub fn head(&self) -> Option<Head> {
        self.head.as_slice().try_into().ok().map(Head::decode)
    }

    /// It has all come, each byte as it has to be.
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.head.len() == HEAD && self.received == self.request.length
    }
}

impl<W: Wire> Client<W> {
    /// None of its connections are begun yet.
    ///
    /// # Errors
    ///
    /// There is no poll.
    pub fn new(mut wire: W, config: ClientConfig, server: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(wire.socket(), Token(0), Interest::READABLE | Interest::WRITABLE)?;
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let quic = Connections::new(endpoint);
        Ok(Self { wire, poll, events: Events::with_capacity(8), quic, sessions: HashMap::new(), next: 0, config, server })
    }

    /// Begins a connection.
    ///
    /// # Errors
    ///
    /// What quinn-proto says.
    pub fn connect(&mut self) -> Result<Id, Box<dyn Error>> {
        let handle = self.quic.connect(Instant::now(), self.config.clone(), self.server, NAME)?;
        self.next += 1;
        let id = Id(self.next);
        if let Some((_, name)) = self.quic.get(handle) {
            *name = id;
        }
        self.sessions.insert(id, Session::new(handle));
        Ok(id)
    }

    /// A connection, unless it has ended.
    fn get(&mut self, id: Id) -> Option<(&mut Connection, &mut Session)> {
        let session = self.sessions.get_mut(&id)?;
        let (connection, name) = self.quic.get(session.handle)?;
        (*name == id).then_some((connection, session))
    }

    /// Asks for a file, of which no more is read than is allowed.
    pub fn download(&mut self, id: Id, request: Request, allowance: u64) {
        let download = Download { request, allowance, head: Vec::new(), received: 0, failed: None };
        match self.get(id) {
            Some((connection, session)) if session.lost.is_none() => {
                session.wanted.push_back(download);
                session.ask(connection);
            }
            _ => {
                let failed = Some("the connection has ended".into());
                self.sessions.entry(id).and_modify(|session| session.done.push(Download { failed, ..download }));
            }
        }
    }

    /// Reads on, up to so much of each file.
    pub fn allow(&mut self, id: Id, allowance: u64) {
        let Some((connection, session)) = self.get(id) else { return };
        session.wanted.iter_mut().chain(session.running.values_mut()).for_each(|download| download.allowance = allowance);
        for stream in session.running.keys().copied().collect::<Vec<_>>() {
            session.read(connection, stream);
        }
    }

    /// Whether the handshakes of all that have not ended are done and both sides know it.
    pub fn may_move(&self) -> bool {
        self.sessions.values().all(|session| session.lost.is_some() || self.quic.is_confirmed(session.handle))
    }

    /// Goes on from another socket. A connection whose handshake is not done is lost: see [`may_move`](Client::may_move). The others change to
    /// other IDs, so that nobody who sees both ports knows that it is the same client.
    ///
    /// # Errors
    ///
    /// The socket cannot be polled.
    pub fn move_to(&mut self, wire: W) -> io::Result<W> {
        let mut old = std::mem::replace(&mut self.wire, wire);
        self.poll.registry().deregister(old.socket())?;
        self.poll.registry().register(self.wire.socket(), Token(0), Interest::READABLE | Interest::WRITABLE)?;
        for handle in self.quic.handles() {
            if let Some((connection, _)) = self.quic.get(handle) {
                connection.local_address_changed();
            }
        }
        Ok(old)
    }

    /// Ends a connection, and forgets what is known of it.
    pub fn close(&mut self, id: Id) {
        if let Some((connection, _)) = self.get(id) {
            connection.close(Instant::now(), VarInt::from_u32(0), "".into());
        }
        self.sessions.remove(&id);
    }

    /// What is known of a connection.
    pub fn session(&self, id: Id) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Files that have come whole or have failed since this was asked last.
    pub fn take_done(&mut self, id: Id) -> Vec<Download> {
        self.sessions.get_mut(&id).map(|session| std::mem::take(&mut session.done)).unwrap_or_default()
    }

    /// How much has come of the files that have not ended.
    pub fn received(&self, id: Id) -> u64 {
        self.session(id).map_or(0, |session| session.running.values().map(|download| download.received).sum())
    }

    /// Waits for something to come, for so long at the most, and does what there is to do.
    ///
    /// # Errors
    ///
    /// Those of the poll and the socket.
    pub fn turn(&mut self, limit: Duration) -> io::Result<()> {
        let limit = self.quic.timeout(Instant::now()).map_or(limit, |timeout| timeout.min(limit));
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut buffer = [0; DATAGRAM];
        loop {
            for _ in 0..BATCH {
                match self.wire.receive(&mut buffer) {
                    Ok((length, from)) => self.quic.receive(Instant::now(), from, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return self.go_on(),
                    // Nobody was there for what was sent: it is sent again.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            }
            self.go_on()?;
        }
    }

    /// Does what there is to do but for what has come.
    ///
    /// # Errors
    ///
    /// None for now.
    pub fn go_on(&mut self) -> io::Result<()> {
        self.quic.expire(Instant::now());
        while let Some((handle, event)) = self.quic.poll() {
            if let Some((connection, id)) = self.quic.get(handle)
                && let Some(session) = self.sessions.get_mut(id)
            {
                session.on_event(connection, event);
            }
        }
        let wire = &mut self.wire;
        self.quic.transmit(Instant::now(), |to, datagram| wire.send(to, datagram));
        Ok(())
    }
}

impl Session {
    fn new(handle: ConnectionHandle) -> Session {
        Session {
            handle,
            is_connected: false,
            is_told: false,
            lost: None,
            is_reset: false,
            wanted: VecDeque::new(),
            running: HashMap::new(),
            done: Vec::new(),
        }
    }

    /// Whether a file is still to come.
    pub fn has_downloads(&self) -> bool {
        !(self.wanted.is_empty() && self.running.is_empty())
    }

    fn on_event(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                // A generation does not know what another one has let the client say early: the streams never were.
                if !connection.accepted_0rtt() {
                    self.wanted.extend(self.running.drain().map(|(_, download)| download));
                }
                self.ask(connection);
            }
            Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => self.ask(connection),
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                self.is_told |= connection.streams().accept(Dir::Uni).is_some();
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(connection, id),
            Event::ConnectionLost { reason } => {
                self.is_reset = reason == quinn_proto::ConnectionError::Reset;
                let why = reason.to_string();
                let all = self.running.drain().map(|(_, download)| download).chain(self.wanted.drain(..));
                self.done.extend(all.map(|download| Download { failed: Some(why.clone()), ..download }));
                self.lost = Some(why);
            }
            _ => {}
        }
    }

    /// Sends the requests that the server allows, during a handshake too if the server is known from an earlier connection.
    fn ask(&mut self, connection: &mut Connection) {
        while !self.wanted.is_empty() && (self.is_connected || connection.has_0rtt()) {
            let Some(stream) = connection.streams().open(Dir::Bi) else { return };
            let Some(download) = self.wanted.pop_front() else { return };
            let mut sends = connection.send_stream(stream);
            // As the first bytes of its stream a request is taken whole.
            let _ = (sends.write(&download.request.encode()), sends.finish());
            self.running.insert(stream, download);
        }
    }

    fn read(&mut self, connection: &mut Connection, stream: StreamId) {
        if let Some(download) = self.running.get_mut(&stream)
            && download.read(connection, stream)
        {
            self.done.extend(self.running.remove(&stream));
        }
    }
}

impl Download {
    /// Whether it has ended.
    fn read(&mut self, connection: &mut Connection, stream: StreamId) -> bool {
        let mut receives = connection.recv_stream(stream);
        let Ok(mut chunks) = receives.read(true) else {
            self.failed = Some("the stream is closed".into());
            return true;
        };
        let mut expected = Vec::new();
        let has_ended = loop {
            let room = match HEAD - self.head.len() {
                0 => self.allowance.saturating_sub(self.received),
                missing => missing as u64,
            };
            if room == 0 && self.received < self.request.length {
                break false;
            }
            match chunks.next(room.max(1) as usize) {
                Ok(Some(chunk)) if self.head.len() < HEAD => self.head.extend_from_slice(&chunk.bytes),
                Ok(Some(chunk)) => {
                    expected.resize(chunk.bytes.len(), 0);
                    content(self.request.file, self.received, &mut expected);
                    self.received += chunk.bytes.len() as u64;
                    if chunk.bytes != expected || self.received > self.request.length {
                        self.failed = Some(format!("bytes before {} are others than those of the file", self.received));
                        break true;
                    }
                }
                Ok(None) if self.is_whole() => break true,
                Ok(None) => {
                    self.failed = Some(format!("{} bytes have come instead of {}", self.received, self.request.length));
                    break true;
                }
                Err(ReadError::Blocked) => break false,
                Err(error) => {
                    self.failed = Some(error.to_string());
                    break true;
                }
            }
        };
        let _ = chunks.finalize();
        has_ended
    }
}
