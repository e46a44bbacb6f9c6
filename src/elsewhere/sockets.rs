//! Sockets, as the room `sys` makes and names them, and packets on them as far as they go.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr as InternetAddress;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::getpeereid;

use crate::steering::Instruction;

use super::unsupported;

/// The longest queue of connections that nobody has accepted.
pub(crate) const BACKLOG: Backlog = Backlog::MAXCONN;
/// The longest path that the kernel binds a socket to.
pub(crate) const LONGEST_PATH: usize = 103;

/// Sends no SIGPIPE.
const QUIETLY: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_NOSIGNAL);

/// What came in one packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) truncated: bool,
    pub(crate) sender: Option<u32>,
}

/// A unix socket, CLOEXEC and non-blocking.
pub(crate) fn unix_socket(of: SockType) -> io::Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Unix, of, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(socket)
}

/// A UDP socket for that kind of address, CLOEXEC and non-blocking, not bound.
pub(crate) fn udp_socket(address: InternetAddress) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Datagram, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(socket)
}

/// Binds a socket to an internet address.
pub(crate) fn bind(socket: &OwnedFd, address: InternetAddress) -> io::Result<()> {
    Ok(socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// The kernel runs no program for a group of sockets.
pub(crate) fn steer(_socket: &impl AsFd, _program: &[Instruction]) -> io::Result<()> {
    Err(unsupported())
}

/// Not all of these systems have packets on unix sockets.
pub(crate) fn packet_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(unsupported())
}

/// Binds a socket that does not listen yet to a path. Its file opens to this user alone by the time
/// that it listens.
pub(crate) fn bind_private(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // The mode of the socket itself says nothing here.
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    Ok(fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?)
}

/// There are no names but paths.
pub(crate) fn bind_abstract(_socket: &OwnedFd) -> io::Result<Vec<u8>> {
    Err(unsupported())
}

/// Whether it is an address that somebody has bound a socket to.
pub(crate) fn is_named(address: &UnixAddr) -> bool {
    address.path().is_some()
}

/// The address of a service manager: a path.
pub(crate) fn manager_address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes().first() {
        Some(b'@') => Err(unsupported()),
        _ => SocketAddr::from_pathname(text),
    }
}

/// The user that has connected the other end.
pub(crate) fn peer_uid(socket: &impl AsFd) -> io::Result<u32> {
    Ok(getpeereid(socket)?.0.as_raw())
}

/// The kernel does not say which process sends a message.
pub(crate) fn name_senders(_socket: &impl AsFd, _named: bool) -> io::Result<()> {
    Err(unsupported())
}

/// Asked of a lifeline alone, of which there is none.
pub(crate) fn has_hung_up(_socket: &impl AsFd) -> nix::Result<bool> {
    Ok(false)
}

/// Writes as much as there is room for, without SIGPIPE.
pub(crate) fn send_part(stream: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(socket::send(stream.as_raw_fd(), bytes, QUIETLY)?)
}

/// Sends one packet, without blocking and without SIGPIPE; none with descriptors.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if !descriptors.is_empty() {
        return Err(unsupported());
    }
    match socket::send(socket.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | QUIETLY)? {
        sent if sent < bytes.len() => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(()),
    }
}

pub(crate) fn peek_packet(_socket: impl AsFd) -> io::Result<Packet> {
    Err(unsupported())
}

pub(crate) fn peek_from(_socket: impl AsFd, _offset: i32) -> io::Result<()> {
    Err(unsupported())
}

/// Nothing is received: there is no lifeline.
pub(crate) fn receive(_socket: impl AsFd) -> io::Result<Packet> {
    Err(unsupported())
}
