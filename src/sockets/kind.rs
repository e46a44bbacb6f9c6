//! What a socket is: its kind and its address, read from the socket itself.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

use crate::error::Error;
use crate::sys;

/// A kind of socket and where it is bound; for one that is wanted, where it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp(Vec<SocketAddr>),
    Udp(Vec<SocketAddr>),
    UnixStream(PathBuf),
    UnixDatagram(PathBuf),
    UnixSeqpacket(PathBuf),
    Other(&'static str),
}

/// The kernel keeps no trace of what an internet socket was before it was shut down; a unix listener goes on as one that takes nobody in.
const SHUT_DOWN: &str = "a socket that does not listen: if it was a listener, somebody has shut it down (shutdown()), which takes it from all \
                         processes that have it; a process that stops accepting takes it out of its loop and closes it";

impl Kind {
    pub(crate) fn of(socket: impl AsFd) -> Kind {
        let socket = socket.as_fd();
        let address = match getsockname::<SockaddrStorage>(socket.as_raw_fd()) {
            Ok(address) => address,
            Err(Errno::ENOTSOCK) => return Kind::Other("no socket"),
            Err(_) => return Kind::Other("a socket without an address"),
        };
        let is_internet = matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6));
        let listens = getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
        // A service can have ten thousand of these, and what listens there is a stream.
        if is_internet && listens {
            return Kind::Tcp(internet(&address));
        }
        let Ok(kind) = getsockopt(&socket, sockopt::SockType) else { return Kind::Other("a socket of no type") };
        match (address.family(), kind, listens) {
            (_, SockType::Datagram, _) if is_internet => Kind::Udp(internet(&address)),
            (Some(AddressFamily::Unix), SockType::Stream | SockType::SeqPacket, true) if sys::is_shut_down(&socket) => {
                Kind::Other(SHUT_DOWN)
            }
            (Some(AddressFamily::Unix), SockType::Stream, true) => Kind::UnixStream(path(&address)),
            (Some(AddressFamily::Unix), SockType::Datagram, _) => Kind::UnixDatagram(path(&address)),
            (Some(AddressFamily::Unix), SockType::SeqPacket, true) => Kind::UnixSeqpacket(path(&address)),
            (_, SockType::Stream | SockType::SeqPacket, false) => Kind::Other(SHUT_DOWN),
            _ => Kind::Other("a socket of another family"),
        }
    }

    /// Where an internet socket is, or may be.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        match self {
            Kind::Tcp(addresses) | Kind::Udp(addresses) => addresses,
            Kind::UnixStream(_) | Kind::UnixDatagram(_) | Kind::UnixSeqpacket(_) | Kind::Other(_) => &[],
        }
    }

    /// Whether it is bound to that address, and not to one that overlaps it.
    pub(super) fn is_exactly(&self, address: SocketAddr) -> bool {
        self.addresses().iter().any(|own| own.ip().to_canonical() == address.ip() && own.port() == address.port())
    }

    /// Why the kernel may refuse to bind it, beyond what its error says.
    pub(super) fn advice(&self, error: io::ErrorKind) -> &'static str {
        match (self, error) {
            (Kind::Tcp(_) | Kind::Udp(_), io::ErrorKind::AddrNotAvailable) => "; no interface of this machine has that address",
            (Kind::Tcp(_) | Kind::Udp(_), io::ErrorKind::PermissionDenied) => {
                "; ports below net.ipv4.ip_unprivileged_port_start (1024) need CAP_NET_BIND_SERVICE, or a socket of systemd"
            }
            _ => "",
        }
    }

    /// Whether this socket is what is wanted. Port 0 stands for any port.
    pub(crate) fn serves_as(&self, wanted: &Kind) -> bool {
        match (self, wanted) {
            (Kind::Tcp(found), Kind::Tcp(wanted)) | (Kind::Udp(found), Kind::Udp(wanted)) => {
                found.iter().any(|found| wanted.iter().any(|wanted| is_at(found, wanted)))
            }
            (Kind::UnixStream(found), Kind::UnixStream(wanted))
            | (Kind::UnixDatagram(found), Kind::UnixDatagram(wanted))
            | (Kind::UnixSeqpacket(found), Kind::UnixSeqpacket(wanted)) => found == wanted || is_same_file(found, wanted),
            _ => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Tcp(addresses) => write!(f, "a TCP listener on {}", Listed(addresses)),
            Kind::Udp(addresses) => write!(f, "a UDP socket on {}", Listed(addresses)),
            Kind::UnixStream(path) => write!(f, "a unix listener at {}", path.display()),
            Kind::UnixDatagram(path) => write!(f, "a unix datagram socket at {}", path.display()),
            Kind::UnixSeqpacket(path) => write!(f, "a unix seqpacket listener at {}", path.display()),
            Kind::Other(what) => f.write_str(what),
        }
    }
}

fn is_at(found: &SocketAddr, wanted: &SocketAddr) -> bool {
    // The kernel keeps the zone of an address only where that needs one, and says nothing of flows.
    let zone = match (found, wanted) {
        (SocketAddr::V6(found), SocketAddr::V6(wanted)) => found.scope_id() == 0 || found.scope_id() == wanted.scope_id(),
        _ => true,
    };
    zone && found.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == found.port())
}

/// There may be two names for it, where a directory is a link to another.
fn is_same_file(one: &Path, other: &Path) -> bool {
    sys::identity_of(one).is_some_and(|one| sys::identity_of(other) == Some(one))
}

struct Listed<'a>(&'a [SocketAddr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

/// The addresses that a name stands for, at least one.
pub(crate) fn resolve(name: &str, address: impl ToSocketAddrs) -> Result<Vec<SocketAddr>, Error> {
    let found = address.to_socket_addrs().map(|found| found.collect::<Vec<_>>());
    let found = found.and_then(|found| if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) });
    found.map_err(|error| {
        // The standard library says so of what is no address at all.
        let advice = if error.kind() == io::ErrorKind::InvalidInput { " (HOST:PORT is expected)" } else { "" };
        Error::os(format!("cannot resolve the address of {name:?}{advice}"))(error)
    })
}

fn internet(address: &SockaddrStorage) -> Vec<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    let v6 = address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()));
    v4.or(v6).into_iter().collect()
}

fn path(address: &SockaddrStorage) -> PathBuf {
    address.as_unix_addr().and_then(|address| address.path()).map(PathBuf::from).unwrap_or_default()
}
