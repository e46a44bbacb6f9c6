//! Datagrams to a plain socket, to a UDP group, and over a relay. Both ends are in this process, by turns and a batch at a time, so that what
//! is compared has the same machine.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, recv, recvmmsg, send, sendmmsg, socketpair};
use pollflip::{Mark, RestartConfig};
use serde::{Deserialize, Serialize};

use super::{Failed, Settings, say};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// Batches between two looks at the clock.
const BATCHES: usize = 16;
const LENGTH: usize = 100;
/// So often in a row a socket may have nothing to read.
const PATIENCE: u32 = 1_000_000;
/// A client's address and port, and the length of its datagram.
const HEAD: usize = 4 + 2 + 2;

/// How a datagram gets to whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Route {
    Plain,
    /// To a group of eight, with the mark of this process.
    Marked,
    Unmarked,
    /// To a plain socket, and from there over a pair of sockets, a batch in one packet.
    Relayed,
}

/// What is told of all routes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds that a datagram took, for each round.
    pub rounds: BTreeMap<Route, Vec<f64>>,
    /// Seconds in which a full pair refuses a packet, for each time.
    pub refusals: Vec<f64>,
}

/// As many rounds as `state` says.
pub fn measure(settings: &Settings) -> Result<(), Failed> {
    let mut restarter = RestartConfig::new().build()?;
    let group = restarter.sockets().udp_group("group", (Ipv4Addr::LOCALHOST, 0), Mark::byte(0, 0x0f).generations(8))?;
    restarter.ready()?;
    while restarter.poll().is_some() {}
    let mut all = [
        Traffic::new(Route::Plain, plain()?, 0)?,
        Traffic::new(Route::Marked, group.socket()?, group.mark())?,
        Traffic::new(Route::Unmarked, group.socket()?, 0)?,
        Traffic::new(Route::Relayed, plain()?, 0)?,
    ];
    let mut batch = Batch::new();
    let mut figures = Figures::default();
    for _ in 0..settings.state {
        for one in &mut all {
            let begun = Instant::now();
            for _ in 0..BATCHES {
                one.pass(&mut batch)?;
            }
            figures.rounds.entry(one.route).or_default().push(begun.elapsed().as_secs_f64() / (BATCHES * BATCH) as f64);
        }
    }
    figures.refusals = refusals(settings.state)?;
    say("datagrams", &serde_json::to_string(&figures)?);
    Ok(())
}

fn plain() -> Result<UdpSocket, Failed> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Failed> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?)
}

/// A client, and the socket that it sends to.
struct Traffic {
    route: Route,
    client: UdpSocket,
    socket: UdpSocket,
    datagram: [u8; LENGTH],
    relay: Relay,
}

impl Traffic {
    fn new(route: Route, socket: UdpSocket, first: u8) -> Result<Traffic, Failed> {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        client.connect(socket.local_addr()?)?;
        let mut datagram = [7; LENGTH];
        datagram[0] = first;
        Ok(Traffic { route, client, socket, datagram, relay: Relay::new()? })
    }

    /// A batch is sent, and read by whom it is for.
    fn pass(&mut self, batch: &mut Batch) -> Result<(), Failed> {
        batch.send(&self.client, &self.datagram)?;
        let (mut received, mut vain) = (0, 0);
        while received < BATCH {
            match batch.receive(&self.socket) {
                Ok(0) | Err(Errno::EAGAIN) if vain == PATIENCE => return Err(format!("{:?}: datagrams are missing", self.route).into()),
                Ok(0) | Err(Errno::EAGAIN) => vain += 1,
                Ok(count) => {
                    received += count;
                    for (client, datagram) in batch.received(count) {
                        match self.route {
                            Route::Relayed => self.relay.push(client, datagram),
                            _ => drop(black_box((client, datagram))),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.route == Route::Relayed {
            self.relay.pass(received)?;
        }
        Ok(())
    }
}

/// A pair of sockets, of which one process writes one end and another reads the other.
struct Relay {
    ends: (OwnedFd, OwnedFd),
    packed: Vec<u8>,
    packet: Vec<u8>,
}

impl Relay {
    fn new() -> Result<Relay, Failed> {
        Ok(Relay { ends: pair()?, packed: Vec::new(), packet: vec![0; BATCH * (HEAD + LENGTH)] })
    }

    fn push(&mut self, client: SocketAddrV4, datagram: &[u8]) {
        self.packed.extend_from_slice(&client.ip().octets());
        self.packed.extend_from_slice(&client.port().to_be_bytes());
        self.packed.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
        self.packed.extend_from_slice(datagram);
    }

    /// What is packed goes over and is read there.
    fn pass(&mut self, expected: usize) -> Result<(), Failed> {
        send(self.ends.0.as_raw_fd(), &self.packed, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        self.packed.clear();
        let length = recv(self.ends.1.as_raw_fd(), &mut self.packet, MsgFlags::MSG_DONTWAIT)?;
        let count = unpack(&self.packet[..length]).map(black_box).count();
        if count == expected { Ok(()) } else { Err(format!("{count} of {expected} datagrams have come over the relay").into()) }
    }
}

fn unpack(mut packet: &[u8]) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
    std::iter::from_fn(move || {
        let (ip, rest) = packet.split_first_chunk::<4>()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (datagram, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        packet = rest;
        Some((SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes(*port)), datagram))
    })
}

/// What the system calls need for many datagrams at a time.
struct Batch {
    sending: MultiHeaders<SockaddrIn>,
    receiving: MultiHeaders<SockaddrIn>,
    buffers: Vec<[u8; 2048]>,
    /// Of those that were received last: the clients, and the lengths.
    clients: Vec<(SocketAddrV4, usize)>,
}

impl Batch {
    fn new() -> Batch {
        Batch {
            sending: MultiHeaders::preallocate(BATCH, None),
            receiving: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; 2048]; BATCH],
            clients: Vec::with_capacity(BATCH),
        }
    }

    fn send(&mut self, client: &UdpSocket, datagram: &[u8]) -> Result<(), Failed> {
        let slices = [[IoSlice::new(datagram)]; BATCH];
        let sent = sendmmsg(client.as_raw_fd(), &mut self.sending, &slices, [None; BATCH], [], MsgFlags::empty())?.count();
        if sent == BATCH { Ok(()) } else { Err(format!("{sent} of {BATCH} datagrams were sent").into()) }
    }

    fn receive(&mut self, socket: &UdpSocket) -> Result<usize, Errno> {
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let messages = recvmmsg(socket.as_raw_fd(), &mut self.receiving, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        self.clients.clear();
        self.clients.extend(messages.filter_map(|message| Some((SocketAddrV4::from(message.address?), message.bytes))));
        Ok(self.clients.len())
    }

    fn received(&self, count: usize) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
        self.clients[..count].iter().zip(&self.buffers).map(|((client, length), buffer)| (*client, &buffer[..*length]))
    }
}

/// Nobody reads: a packet is refused again and again.
fn refusals(count: usize) -> Result<Vec<f64>, Failed> {
    let (end, _other) = pair()?;
    let packet = [7; BATCH * (HEAD + LENGTH)];
    let give = || send(end.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    while give().is_ok() {}
    let refused = |_| {
        let begun = Instant::now();
        match give() {
            Err(Errno::EAGAIN) => Ok(begun.elapsed().as_secs_f64()),
            other => Err(format!("a full pair has said {other:?}").into()),
        }
    };
    (0..count).map(refused).collect()
}
