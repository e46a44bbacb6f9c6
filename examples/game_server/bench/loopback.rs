//! From where the players connect.
//!
//! A client that connects needs a port of its own, and one address has some 28,000 to give to the
//! connections to one server. So the players are spread over the addresses of the loopback network.
//! Knows: addresses and ports. Does not know: players.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

/// The first and the last port that the kernel gives out.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// 127.0.0.1 to 127.0.0.254.
const ADDRESSES: usize = 254;

pub(crate) struct Loopback {
    server: SocketAddr,
    /// How many that connect one after the other have the same address.
    an_address: usize,
}

impl Loopback {
    pub(crate) fn new(server: SocketAddr) -> Self {
        // Half of the ports: others want some too, and a port rests for a minute after its use.
        Self { server, an_address: (ports() / 2).max(1) }
    }

    /// A connection that has the number, and the address that belongs to it.
    pub(crate) fn connect(&self, number: usize) -> Result<TcpStream, String> {
        let place = number / self.an_address % ADDRESSES;
        let from = Ipv4Addr::new(127, 0, 0, 1 + place as u8);
        self.connect_from(from).map_err(|error| match error {
            Errno::EADDRNOTAVAIL => format!(
                "no port is left at {from} for a connection to {}: the kernel gives {} out for each address (net.ipv4.ip_local_port_range); \
                 wait a minute until those of an earlier run are free, widen the range (as root `sysctl -w \
                 net.ipv4.ip_local_port_range=\"10000 65000\"`), or take fewer --players",
                self.server,
                ports()
            ),
            Errno::EMFILE => "this process has no descriptor left (RLIMIT_NOFILE, `ulimit -n`)".into(),
            other => io::Error::from(other).to_string(),
        })
    }

    fn connect_from(&self, from: Ipv4Addr) -> nix::Result<TcpStream> {
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // The port is chosen when it is known whom the connection is for.
        setsockopt(&stream, sockopt::IpBindAddressNoPort, &true)?;
        bind(stream.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((from, 0))))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(self.server))?;
        Ok(stream.into())
    }
}

/// How many ports one address has for connections to one server.
fn ports() -> usize {
    let text = fs::read_to_string(RANGE).unwrap_or_default();
    let mut ends = text.split_whitespace().map_while(|word| word.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) if first <= last => last - first + 1,
        _ => 28_232,
    }
}
