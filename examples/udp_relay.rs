//! Flows that outlive a restart where the protocol has no room for a mark: the new process reads the
//! socket, and gives what is not its own to the old one over a pair of sockets that both have.
//!
//!     cargo run --release --example udp_relay
//!
//! starts a server, begins flows, replaces the server, and goes on with the old flows and new ones. Then
//! it stops the old process: what is for it is dropped when the pair is full, and counted, and the new
//! process goes on. One packet of the pair carries many datagrams: one each would cost as much as a
//! second receive.
//!
//! It is for two generations at a time, and new flows wait if the new process is stopped: where the
//! protocol has four free bits, `udp_flows` is better.

#[allow(dead_code, reason = "of which only a part is used")]
#[path = "udp_flows/bench/service.rs"]
mod service;

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;
use pollflip::{Event, RestartConfig, Restarter};
use service::Service;

/// The largest packet of the pair.
const PACKET: usize = 60_000;
/// What is told in the first byte: a flow begins, goes on, is not known; or how much was dropped is asked.
const BEGIN: u8 = b'b';
const DATA: u8 = b'd';
const UNKNOWN: u8 = b'u';
const DROPPED: u8 = b'?';
/// How many datagrams the old process has answered.
const COUNT: u8 = b'#';
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut listen, mut socket, mut serves) = (SocketAddr::from(([127, 0, 0, 1], 0)), String::new(), false);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(word) if word == "serve" => serves = true,
            Arg::Long("listen") => listen = parser.value()?.parse()?,
            Arg::Long("socket") => socket = parser.value()?.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if serves { Ok(serve(listen, &socket)?) } else { show() }
}

// --- the server ---

/// One end of the pair. What it cannot take is dropped, as a full socket drops.
struct Relay {
    end: OwnedFd,
    /// Datagrams that have yet to go, each with its client and its length before it.
    packed: Vec<u8>,
    in_packet: u64,
    dropped: u64,
}

impl Relay {
    fn push(&mut self, client: SocketAddr, datagram: &[u8]) {
        let client = client.to_string();
        if self.packed.len() + 3 + client.len() + datagram.len() > PACKET {
            self.flush();
        }
        self.packed.push(client.len() as u8);
        self.packed.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
        self.packed.extend_from_slice(client.as_bytes());
        self.packed.extend_from_slice(datagram);
        self.in_packet += 1;
    }

    /// At the end of a turn.
    fn flush(&mut self) {
        if !self.packed.is_empty() && send(self.end.as_raw_fd(), &self.packed, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_err() {
            self.dropped += self.in_packet;
        }
        self.packed.clear();
        self.in_packet = 0;
    }

    /// What the other process has sent; each of them goes to `take`.
    fn receive(&self, mut take: impl FnMut(SocketAddr, &[u8])) {
        let mut packet = vec![0; PACKET];
        while let Ok(length @ 1..) = recv(self.end.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            let mut rest = &packet[..length];
            while let [client, high, low, behind @ ..] = rest {
                let (client, length) = (usize::from(*client), usize::from(u16::from_be_bytes([*high, *low])));
                let Some((client, behind)) = behind.split_at_checked(client) else { return };
                let Some((datagram, behind)) = behind.split_at_checked(length) else { return };
                if let Some(client) = std::str::from_utf8(client).ok().and_then(|text| text.parse().ok()) {
                    take(client, datagram);
                }
                rest = behind;
            }
        }
    }
}

fn serve(listen: SocketAddr, coordination: &str) -> io::Result<()> {
    let mut restarter = RestartConfig::new().max_draining(0).coordination_socket(coordination).build()?;
    let socket = restarter.sockets().udp_socket("flows", listen)?;
    // Both ends go from one generation to the next. Two use the pair at a time: the one that serves writes, and the one before it reads.
    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
    let mut made = None;
    let one: OwnedFd = restarter.sockets().or_insert_with("relay 0", || {
        let (one, other) = pair()?;
        made = Some(other);
        Ok(one)
    })?;
    let other: OwnedFd = restarter.sockets().or_insert_with("relay 1", || made.take().ok_or_else(|| ErrorKind::NotFound.into()))?;
    let mut server = Server {
        socket,
        flows: HashSet::new(),
        older: Relay { end: one, packed: Vec::new(), in_packet: 0, dropped: 0 },
        newer: other,
        has_older: restarter.predecessor().is_some(),
        is_old: false,
        answered: 0,
        longest: Duration::ZERO,
    };
    restarter.ready()?;
    let _ = writeln!(io::stdout(), "listening on {}, pid {}", server.socket.local_addr()?, std::process::id());
    server.run(&mut restarter)
}

struct Server {
    socket: UdpSocket,
    flows: HashSet<(SocketAddr, u8)>,
    /// To the process before this one,
    older: Relay,
    /// and the end on which the process after this one is heard.
    newer: OwnedFd,
    has_older: bool,
    /// The socket is the successor's to read.
    is_old: bool,
    answered: u64,
    longest: Duration,
}

impl Server {
    fn run(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        loop {
            // A process that is replaced leaves the socket to its successor, and hears of its flows from that.
            let flows = if self.is_old { self.newer.as_fd() } else { self.socket.as_fd() };
            poll(&mut [PollFd::new(flows, PollFlags::POLLIN), PollFd::new(restarter.as_fd(), PollFlags::POLLIN)], 1000_u16)?;
            let begun = Instant::now();
            while let Some(event) = restarter.poll() {
                match event {
                    Event::HandedOff(_) => self.is_old = true,
                    Event::Resumed(_) => self.is_old = false,
                    Event::PredecessorGone => self.has_older = false,
                    Event::Completed(_) if self.flows.is_empty() => return Ok(()),
                    _ => {}
                }
            }
            if self.is_old {
                let relay = Relay { end: self.newer.try_clone()?, packed: Vec::new(), in_packet: 0, dropped: 0 };
                relay.receive(|client, datagram| self.answer(client, datagram));
            } else {
                let mut buffer = [0; 2048];
                while let Ok((length, client)) = self.socket.recv_from(&mut buffer) {
                    self.answer(client, &buffer[..length]);
                }
                self.older.flush();
            }
            self.longest = self.longest.max(begun.elapsed());
        }
    }

    fn answer(&mut self, client: SocketAddr, datagram: &[u8]) {
        let (kind, flow) = match datagram {
            [kind, flow, ..] => (*kind, *flow),
            _ => return,
        };
        let text = match kind {
            BEGIN => {
                self.flows.insert((client, flow));
                format!("{} {}", char::from(BEGIN), std::process::id())
            }
            DATA if self.flows.contains(&(client, flow)) => {
                self.answered += 1;
                format!("{} {}", char::from(DATA), std::process::id())
            }
            COUNT if self.is_old => format!("{} {}", char::from(COUNT), self.answered),
            DATA | COUNT if self.has_older && !self.is_old => return self.older.push(client, datagram),
            DROPPED => {
                self.older.flush();
                format!("{} {}", self.older.dropped, self.longest.as_micros())
            }
            _ => format!("{} {}", char::from(UNKNOWN), std::process::id()),
        };
        let _ = self.socket.send_to(text.as_bytes(), client);
    }
}

// --- who shows it ---

struct Client(UdpSocket);

impl Client {
    fn ask(&self, kind: u8, flow: u8) -> Result<(String, u64), Box<dyn Error>> {
        self.0.send(&[kind, flow])?;
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer)?;
        let text = std::str::from_utf8(&buffer[..length])?;
        let (first, second) = text.split_once(' ').ok_or("an answer of two words")?;
        Ok((first.into(), second.parse()?))
    }
}

fn show() -> Result<(), Box<dyn Error>> {
    let mut service = Service::start(&[])?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(service.address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let client = Client(socket);
    let (_, old) = client.ask(BEGIN, 1)?;
    service.restart()?;
    let (mut stayed, mut new) = (0, 0);
    for flow in 2..102 {
        stayed += u32::from(client.ask(DATA, 1)? == ("d".into(), old));
        new += u32::from(client.ask(BEGIN, flow)?.1 != old);
    }
    let (_, before) = client.ask(DROPPED, 0)?;
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGSTOP)?;
    let sent = 20_000_u64;
    for round in 0..sent {
        client.0.send(&[DATA, 1])?;
        if round % 50 == 0 {
            // It has read all before this, and serves its own.
            new += u32::from(client.ask(BEGIN, 200)?.1 != old);
        }
    }
    let (dropped, longest) = client.ask(DROPPED, 0)?;
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGCONT)?;
    let dropped: u64 = dropped.parse()?;
    // Of so many answers at once the client's own socket may lose some: the old process is asked, when it has given all of them.
    client.0.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut late = None;
    for _ in 0..100 {
        let mut buffer = [0; 64];
        while let Ok(length) = client.0.recv(&mut buffer) {
            let count = std::str::from_utf8(&buffer[..length])?.strip_prefix("# ");
            late = count.map(str::parse::<u64>).transpose()?.map(|count| count - 100).or(late);
        }
        if late.is_some() {
            break;
        }
        client.0.send(&[COUNT, 1])?;
    }
    let late = late.ok_or("the old process does not answer")?;
    println!(
        "old_flow_stayed={stayed} new_flows={new} stopped_sent={sent} dropped={dropped} answered_late={late} unaccounted={} longest_turn_us={longest} \
         longest_turn_before_us={before}",
        sent - dropped - late
    );
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGKILL)?;
    drop(service);
    let is_right = stayed == 100 && new == 500 && late + dropped == sent;
    if is_right { Ok(()) } else { Err("datagrams are missing".into()) }
}
