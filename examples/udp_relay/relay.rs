//! One end of the pair between two generations: datagrams go over packed, many in one packet.
//!
//! One packet for each would cost as much as a second receive.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

/// The largest packet of the pair, in bytes.
pub(crate) const PACKET: usize = 60_000;
/// What stands before each datagram: the version of its client's address, that, its scope, its port, and how long the datagram is.
const HEAD: usize = 1 + 16 + 4 + 2 + 2;
/// Of so many refused packets the time is kept.
const KEPT: usize = 10_000;

/// Both ends. Neither ever blocks: a process that is stopped must not stop the other one.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?)
}

/// To the process before this one. What the pair cannot take is dropped, as a full socket drops.
pub(crate) struct Sender {
    end: OwnedFd,
    /// Datagrams that have yet to go, each behind its head.
    packed: Vec<u8>,
    in_packet: u64,
    dropped: u64,
    /// How long the kernel took to refuse a packet.
    refused: Vec<Duration>,
}

impl Sender {
    pub(crate) fn new(end: OwnedFd) -> Sender {
        Sender { end, packed: Vec::with_capacity(PACKET), in_packet: 0, dropped: 0, refused: Vec::new() }
    }

    pub(crate) fn push(&mut self, client: SocketAddr, datagram: &[u8]) {
        if self.packed.len() + HEAD + datagram.len() > PACKET {
            self.flush();
        }
        let (family, ip, scope) = match client {
            SocketAddr::V4(client) => (4, client.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(client) => (6, *client.ip(), client.scope_id()),
        };
        self.packed.push(family);
        self.packed.extend_from_slice(&ip.octets());
        self.packed.extend_from_slice(&scope.to_be_bytes());
        self.packed.extend_from_slice(&client.port().to_be_bytes());
        self.packed.extend_from_slice(&(datagram.len() as u16).to_be_bytes());
        self.packed.extend_from_slice(datagram);
        self.in_packet += 1;
    }

    /// At the end of a turn.
    pub(crate) fn flush(&mut self) {
        if self.packed.is_empty() {
            return;
        }
        let begun = Instant::now();
        if send(self.end.as_raw_fd(), &self.packed, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_err() {
            if self.refused.len() < KEPT {
                self.refused.push(begun.elapsed());
            }
            self.dropped += self.in_packet;
        }
        self.packed.clear();
        self.in_packet = 0;
    }

    /// How many datagrams were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How long the kernel took to refuse a packet: the median.
    pub(crate) fn refusal(&mut self) -> Duration {
        self.refused.sort_unstable();
        self.refused.get(self.refused.len() / 2).copied().unwrap_or_default()
    }
}

/// A packet from the process after this one, which has so many bytes of the buffer.
pub(crate) fn receive(end: &OwnedFd, buffer: &mut [u8]) -> usize {
    recv(end.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).unwrap_or(0)
}

/// The datagrams of a packet, each with its client.
pub(crate) fn unpack(mut packet: &[u8]) -> impl Iterator<Item = (SocketAddr, &[u8])> {
    std::iter::from_fn(move || {
        let (family, rest) = packet.split_first()?;
        let (ip, rest) = rest.split_first_chunk()?;
        let (scope, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (datagram, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        packet = rest;
        let (ip, port) = (Ipv6Addr::from(*ip), u16::from_be_bytes(*port));
        let client = match family {
            // Not so of the others: a client of version 4 has an address of version 6 where the socket is of that.
            4 => SocketAddr::from((ip.to_ipv4_mapped()?, port)),
            _ => SocketAddrV6::new(ip, port, 0, u32::from_be_bytes(*scope)).into(),
        };
        Some((client, datagram))
    })
}
