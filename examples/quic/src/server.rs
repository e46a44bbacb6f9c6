//! The server: it begins the connections that come to it, and after a restart goes on until its own have ended.
//!
//! For the sake of restarts it does six things:
//!
//! | what | where |
//! | --- | --- |
//! | its connection IDs bear its mark | `marked` |
//! | it reads on at `HandedOff`: a few new connections may be queued, and are its own | `on_event` |
//! | for a while after it was given the service, its answer to a first datagram is a Retry: no client gets to know two servers | `CROSSING` |
//! | at `Completed` it tells its clients to ask elsewhere, and ends when the last connection has, those in a handshake too | `move_on` |
//! | it reads what ended generations have left | `receive_all` |
//! | it answers nothing that is for another generation: the answer would be a reset of a connection that is alive | `is_for_this` |

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use pollflip::{Event, Owner, RestartConfig, Restarter, UdpGroup};
use quinn_proto::{Connection, ConnectionHandle, Dir, Endpoint, StreamEvent, StreamId, VarInt};
use signal_hook::consts::SIGTERM;
use signal_hook_mio::v1_0::Signals;

use crate::connections::Connections;
use crate::identity::{IDLE, Identity};
use crate::marked::{MARK, MarkedIds};
use crate::protocol::{BAD_REQUEST, Head, MOVED, Request, STOPPED, content};

const DATAGRAMS: Token = Token(0);
const RESTARTER: Token = Token(1);
const SIGNALS: Token = Token(2);

/// So long after a restart a client may repeat its first datagram, which the other generation has answered: the answer was lost, or is late.
/// If both began a connection, a client would get the packets of two, with the same keys and numbers; quinn-proto's client takes some of the
/// wrong one and fails. A Retry begins nothing, and a client ignores it when it has had another answer.
const CROSSING: Duration = Duration::from_secs(10);
/// So many datagrams are read before anything else is done.
const BATCH: usize = 256;
/// The longest datagram that quinn-proto is told to take.
const DATAGRAM: usize = 1500;
/// A file is written in pieces of this size.
const PIECE: usize = 8 << 10;

/// How it is started.
pub struct Options {
    listen: SocketAddr,
    socket: PathBuf,
    identity: PathBuf,
    demands_retry: bool,
    drain: Duration,
    idle: Duration,
    probation: Duration,
}

impl Options {
    /// From the command line.
    ///
    /// # Errors
    ///
    /// What is no option.
    pub fn parse(parser: &mut Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4433)),
            socket: "quic.sock".into(),
            identity: ".".into(),
            demands_retry: false,
            drain: Duration::from_secs(60),
            idle: IDLE,
            probation: Duration::ZERO,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("listen") => options.listen = parser.value()?.parse()?,
                Arg::Long("socket") => options.socket = parser.value()?.into(),
                Arg::Long("identity") => options.identity = parser.value()?.into(),
                Arg::Long("retry") => options.demands_retry = true,
                Arg::Long("drain") => options.drain = Duration::from_secs(parser.value()?.parse()?),
                Arg::Long("idle") => options.idle = Duration::from_secs(parser.value()?.parse()?),
                Arg::Long("probation") => options.probation = Duration::from_secs(parser.value()?.parse()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// What the server keeps of a connection.
#[derive(Default)]
struct Client {
    answers: HashMap<StreamId, Answer>,
    /// It has been told to ask elsewhere.
    is_told: bool,
}

/// A request that is read, and then its answer.
#[derive(Default)]
struct Answer {
    asked: Vec<u8>,
    request: Option<Request>,
    /// How much of the answer is written, the head included.
    written: u64,
}

/// What has come, by what the group says of each datagram: the kernel has sent it here.
#[derive(Default)]
struct Tally {
    /// For this generation.
    own: u64,
    /// Unmarked, with a long header: a connection begins.
    first: u64,
    /// Marked by a generation that has ended, or nonsense.
    unknown: u64,
    /// For another generation.
    astray: u64,
    /// Left by a generation that has ended.
    orphaned: u64,
}

struct Server {
    group: UdpGroup,
    socket: UdpSocket,
    quic: Connections<Client>,
    head: Head,
    /// New connections come to this process.
    serves: bool,
    always_retries: bool,
    /// When this process was given the service by another one.
    given_at: Option<Instant>,
    /// More than a batch had come.
    has_more: bool,
    drain: Duration,
    /// This process ends now, or when its last connection has.
    ends_at: Option<Instant>,
    tally: Tally,
}

/// Serves until it has been replaced and its last connection has ended.
///
/// # Errors
///
/// It cannot be started, or cannot go on.
pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut restarter = RestartConfig::new().coordination_socket(&options.socket).probation(options.probation).build()?;
    let identity = Identity::read(&options.identity)?;
    let group = restarter.sockets().udp_group("quic", options.listen, MARK)?;
    let mut config = identity.endpoint();
    let ids = group.clone();
    config.cid_generator(move || Box::new(MarkedIds::new(ids.clone())));
    let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(identity.server(options.idle)?)), false, None);
    let mut server = Server {
        socket: UdpSocket::from_std(group.socket()?),
        group,
        quic: Connections::new(endpoint),
        head: Head { pid: process::id(), generation: restarter.generation() },
        serves: true,
        always_retries: options.demands_retry,
        given_at: None,
        has_more: false,
        drain: options.drain,
        ends_at: None,
        tally: Tally::default(),
    };
    let address = server.socket.local_addr()?;
    let mut signals = Signals::new([SIGTERM])?;
    poll.registry().register(&mut server.socket, DATAGRAMS, Interest::READABLE | Interest::WRITABLE)?;
    poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    restarter.ready()?; // from here on new connections come to this process
    server.given_at = (server.head.generation > 0).then(Instant::now);
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());

    let mut events = Events::with_capacity(64);
    while !server.is_done() {
        match poll.poll(&mut events, server.timeout()) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            server.on_event(&event);
        }
        if signals.pending().next().is_some() {
            server.stop(&mut restarter);
        }
        server.turn()?;
    }
    server.quic.close(Instant::now(), MOVED, b"this process has been replaced");
    server.transmit();
    server.report();
    Ok(())
}

impl Server {
    fn on_event(&mut self, event: &Event) {
        match event {
            Event::HandedOff(_) => self.serves = false,
            Event::Resumed(_) => {
                self.serves = true;
                self.given_at = Some(Instant::now());
            }
            Event::Completed(_) => self.move_on(),
            _ => {}
        }
    }

    /// New connections are the successor's. Those that there are go on; clients that are told begin anew with their next request.
    fn move_on(&mut self) {
        self.serves = false;
        self.ends_at = Some(Instant::now() + self.drain);
        for handle in self.quic.handles() {
            self.tell_to_move(handle);
        }
    }

    fn tell_to_move(&mut self, handle: ConnectionHandle) {
        let Some((connection, client)) = self.quic.get(handle) else { return };
        if self.ends_at.is_none() || client.is_told || connection.is_handshaking() {
            return;
        }
        if let Some(stream) = connection.streams().open(Dir::Uni) {
            client.is_told = connection.send_stream(stream).finish().is_ok();
        }
    }

    /// There is no successor: connections are not waited for.
    fn stop(&mut self, restarter: &mut Restarter) {
        restarter.stop();
        self.quic.close(Instant::now(), STOPPED, b"the service ends");
        self.ends_at = Some(Instant::now());
    }

    /// Nothing is left that only this process can answer. A handshake is a connection as any other.
    fn is_done(&self) -> bool {
        self.ends_at.is_some_and(|at| self.quic.is_empty() && !self.has_more || Instant::now() >= at)
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let next = if self.has_more { Some(Duration::ZERO) } else { self.quic.timeout(now) };
        let end = self.ends_at.map(|at| at.saturating_duration_since(now));
        next.into_iter().chain(end).min()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.receive_all()?;
        self.quic.expire(Instant::now());
        while let Some((handle, event)) = self.quic.poll() {
            self.on_quic(handle, event);
        }
        self.transmit();
        Ok(())
    }

    fn transmit(&mut self) {
        let socket = &self.socket;
        self.quic.transmit(Instant::now(), |to, datagram| socket.send_to(datagram, to).map(drop));
    }

    /// What has come to this process, then what ended generations have left unread. Readiness is told once: all of it is read.
    fn receive_all(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.quic.demand_retry(self.always_retries || self.given_at.is_some_and(|at| now < at + CROSSING));
        let mut buffer = [0; DATAGRAM];
        for _ in 0..BATCH {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if self.is_for_this(&buffer[..length]) {
                        self.quic.receive(now, from, &buffer[..length]);
                    }
                    continue;
                }
                // An earlier answer could not be delivered.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
            match self.group.recv_orphaned(&mut buffer) {
                Ok((length, from)) => {
                    self.tally.orphaned += 1;
                    self.quic.receive(now, from, &buffer[..length]);
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) => {
                    self.has_more = false;
                    return Ok(());
                }
            }
        }
        self.has_more = true;
        Ok(())
    }

    /// Whether this process may answer. To a datagram of an unknown connection the answer is a stateless reset, and all generations have the
    /// same key for those: it would end a connection that another generation serves. The kernel sends no such datagram here, but for a train of
    /// segments (GSO, GRO) that goes where its first one does.
    fn is_for_this(&mut self, datagram: &[u8]) -> bool {
        let has_long_header = datagram.first().is_some_and(|first| first & 0x80 != 0);
        let (count, is_for_this) = match self.group.owner(datagram) {
            Owner::This => (&mut self.tally.own, true),
            Owner::Unmarked if has_long_header => (&mut self.tally.first, true),
            // A generation that has been replaced does not know the marks of later ones.
            Owner::Unmarked if self.serves => (&mut self.tally.unknown, true),
            _ => (&mut self.tally.astray, false),
        };
        *count += 1;
        is_for_this
    }

    fn on_quic(&mut self, handle: ConnectionHandle, event: quinn_proto::Event) {
        let head = self.head;
        let Some((connection, client)) = self.quic.get(handle) else { return };
        match event {
            quinn_proto::Event::Connected => self.tell_to_move(handle),
            quinn_proto::Event::ConnectionLost { .. } => client.answers.clear(),
            quinn_proto::Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(stream) = connection.streams().accept(Dir::Bi) {
                    client.answers.insert(stream, Answer::default());
                    client.go_on(connection, stream, head);
                }
            }
            quinn_proto::Event::Stream(StreamEvent::Readable { id } | StreamEvent::Writable { id }) => client.go_on(connection, id, head),
            quinn_proto::Event::Stream(StreamEvent::Stopped { id, .. }) => drop(client.answers.remove(&id)),
            _ => {}
        }
    }

    /// For those who count: the kernel's choice beside what the group says of it.
    fn report(&self) {
        let Tally { own, first, unknown, astray, orphaned } = self.tally;
        let Head { pid, generation } = self.head;
        let _ = writeln!(
            io::stdout(),
            "ended pid={pid} generation={generation} own={own} first={first} unknown={unknown} astray={astray} orphaned={orphaned}"
        );
    }
}

impl Client {
    /// Reads what is there of a request, or writes what there is room for of its answer.
    fn go_on(&mut self, connection: &mut Connection, stream: StreamId, head: Head) {
        let Some(answer) = self.answers.get_mut(&stream) else { return };
        let is_over = match answer.request {
            None => match answer.read(connection, stream) {
                Ok(false) => false,
                Ok(true) => answer.write(connection, stream, head),
                Err(NoRequest) => {
                    let code = VarInt::from_u32(BAD_REQUEST);
                    let _ = (connection.recv_stream(stream).stop(code), connection.send_stream(stream).reset(code));
                    true
                }
            },
            Some(_) => answer.write(connection, stream, head),
        };
        if is_over {
            self.answers.remove(&stream);
        }
    }
}

/// The bytes on a stream are none, or the client has taken it back.
struct NoRequest;

impl Answer {
    /// Whether the request is there.
    fn read(&mut self, connection: &mut Connection, stream: StreamId) -> Result<bool, NoRequest> {
        let mut receives = connection.recv_stream(stream);
        let mut chunks = receives.read(true).map_err(|_| NoRequest)?;
        let is_whole = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) if self.asked.len() + chunk.bytes.len() <= 16 => self.asked.extend_from_slice(&chunk.bytes),
                Ok(None) => break true,
                Err(quinn_proto::ReadError::Blocked) => break false,
                _ => return Err(NoRequest),
            }
        };
        let _ = chunks.finalize();
        if is_whole {
            self.request = Some(Request::decode(&self.asked).ok_or(NoRequest)?);
        }
        Ok(is_whole)
    }

    /// Whether it is over, or nobody wants it any more.
    fn write(&mut self, connection: &mut Connection, stream: StreamId, head: Head) -> bool {
        let Some(Request { file, length }) = self.request else { return false };
        let head = head.encode();
        let mut sends = connection.send_stream(stream);
        let mut piece = [0; PIECE];
        loop {
            let from = self.written.saturating_sub(head.len() as u64);
            let rest = length - from;
            let next = match head.get(self.written as usize..) {
                Some(next @ [_, ..]) => next,
                _ if rest == 0 => {
                    let _ = sends.finish();
                    return true;
                }
                _ => {
                    let next = &mut piece[..rest.min(PIECE as u64) as usize];
                    content(file, from, next);
                    next
                }
            };
            match sends.write(next) {
                Ok(count) => self.written += count as u64,
                Err(quinn_proto::WriteError::Blocked) => return false,
                Err(_) => return true,
            }
        }
    }
}
