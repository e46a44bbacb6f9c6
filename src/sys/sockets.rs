//! Sockets, as far as systems differ in them: how they are made, named and bound, and who is at the
//! other end.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr as InternetAddress;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, getsockopt, setsockopt, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

use crate::steering::Instruction;

use super::{may_fail, naming};

/// The longest queue of connections that nobody has accepted.
pub(crate) const BACKLOG: Backlog = Backlog::MAXALLOWABLE;
/// The longest path that the kernel binds a socket to.
pub(crate) const LONGEST_PATH: usize = 107;

/// CLOEXEC from birth, and non-blocking.
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// A unix socket, CLOEXEC from birth and non-blocking.
pub(crate) fn unix_socket(of: SockType) -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, of, FLAGS, None)?)
}

/// A UDP socket for that kind of address, CLOEXEC from birth and non-blocking, not bound.
pub(crate) fn udp_socket(address: InternetAddress) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket::socket(family, SockType::Datagram, FLAGS, None)?)
}

/// Binds a socket to an internet address.
pub(crate) fn bind(socket: &OwnedFd, address: InternetAddress) -> io::Result<()> {
    Ok(socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// Has the kernel run that program for each datagram to the group of sockets that this one is in by SO_REUSEPORT. It takes effect at once,
/// and stays for all processes. A socket that is not bound brings it along; one of no instructions is an error (EINVAL).
pub(crate) fn steer(socket: &impl AsFd, program: &[Instruction]) -> io::Result<()> {
    may_fail(&[libc::EPERM, libc::EINVAL, libc::ENOMEM])?;
    let instruction = |&Instruction { code, then, otherwise, k }| libc::sock_filter { code, jt: then, jf: otherwise, k };
    let mut filter: Vec<_> = program.iter().map(instruction).collect();
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &filter)?)
}

/// Two unix sockets for packets, connected to each other.
pub(crate) fn packet_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?)
}

/// Binds a socket that does not listen yet to a path. Its file opens to this user alone from the
/// first moment on.
pub(crate) fn bind_private(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    // The file gets the mode of the socket, less the umask: whatever is put under its name later is
    // not changed by this.
    fchmod(socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io::Error::from).map_err(naming("fchmod"))?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?).map_err(io::Error::from).map_err(naming("bind"))
}

/// Binds a socket to a name that the kernel finds, and returns that. No directory is needed.
pub(crate) fn bind_abstract(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    socket::bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let address: UnixAddr = socket::getsockname(socket.as_raw_fd())?;
    Ok(address.as_abstract().ok_or(io::ErrorKind::AddrNotAvailable)?.to_vec())
}

/// Whether it is an address that somebody has bound a socket to.
pub(crate) fn is_named(address: &UnixAddr) -> bool {
    address.path().is_some() || address.as_abstract().is_some()
}

/// The address of a service manager: a path, or `@` and an abstract name.
pub(crate) fn manager_address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(text),
    }
}

/// The user that has connected the other end.
pub(crate) fn peer_uid(socket: &impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(socket, sockopt::PeerCredentials)?.uid())
}

/// Whether the kernel is to say of each message which process sends it.
pub(crate) fn name_senders(socket: &impl AsFd, named: bool) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::PassCred, &named)?)
}

/// Whether the other end is closed, or sends nothing any more.
pub(crate) fn has_hung_up(socket: &impl AsFd) -> nix::Result<bool> {
    let hung_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
    poll(&mut [PollFd::new(socket.as_fd(), hung_up)], PollTimeout::ZERO).map(|ready| ready > 0)
}

/// Writes as much as there is room for. std's own does it with SIGPIPE before Rust 1.90, and that
/// kills a program that does not ignore it.
pub(crate) fn send_part(stream: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(socket::send(stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
}
