//! What the kernel counts of a TCP connection.
//!
//! Knows: where the numbers lie in what the kernel tells. Does not know: what follows from them.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// One look at the counts of a connection. Each number is one sequence number of the protocol, so
/// that SYN and FIN are counted like bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpBooks {
    /// As in `/proc/net/tcp`.
    pub(crate) state: u8,
    /// What has come, in order. With a FIN, without a SYN.
    pub(crate) received: u64,
    /// What the peer has acknowledged. With a FIN; with the SYN of a side that has connected.
    pub(crate) acknowledged: u64,
    /// Bytes that were sent, again and again if need be, without SYN and FIN.
    pub(crate) sent: u64,
    /// How many of these were sent again.
    pub(crate) sent_again: u64,
    /// What was never sent yet. With a FIN.
    pub(crate) unsent: u32,
}

/// Where they lie in `struct tcp_info`. The one of the C library may end before the last of them.
const STATE: usize = 0;
const ACKNOWLEDGED: usize = 120;
const RECEIVED: usize = 128;
const UNSENT: usize = 144;
const SENT: usize = 200;
const SENT_AGAIN: usize = 208;
const LENGTH: usize = 216;

/// Whether it is a TCP socket, and not one of MPTCP, whose books are those of one path of several.
/// What is no socket at all is none either.
pub(crate) fn is_tcp(socket: &impl AsFd) -> io::Result<bool> {
    match socket_option::<4>(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL) {
        Ok((protocol, 4)) => Ok(i32::from_ne_bytes(protocol) == libc::IPPROTO_TCP && is_stream(socket)?),
        Ok(_) => Ok(false),
        Err(Errno::ENOTSOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A raw socket can have the protocol too.
fn is_stream(socket: &impl AsFd) -> io::Result<bool> {
    let (of, _) = socket_option::<4>(socket, libc::SOL_SOCKET, libc::SO_TYPE)?;
    Ok(i32::from_ne_bytes(of) == libc::SOCK_STREAM)
}

/// A number that no other socket of this machine has or will have, the same in all processes.
pub(crate) fn socket_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let (cookie, _) = socket_option::<8>(socket, libc::SOL_SOCKET, libc::SO_COOKIE)?;
    Ok(u64::from_ne_bytes(cookie))
}

/// One look at the books of a TCP socket.
pub(crate) fn tcp_books(socket: &impl AsFd) -> io::Result<TcpBooks> {
    let (told, length) = socket_option::<LENGTH>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    read_books(&told, length)
}

fn read_books(told: &[u8; LENGTH], length: usize) -> io::Result<TcpBooks> {
    if length < LENGTH {
        let why = format!(
            "the kernel tells {length} bytes about a TCP connection, and its counts of bytes end at {LENGTH}: they need Linux 4.19, or a \
             sandbox that passes them on"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let word = |at: usize| told[at..].first_chunk().copied().map(u64::from_ne_bytes).unwrap_or_default();
    let half = |at: usize| told[at..].first_chunk().copied().map(u32::from_ne_bytes).unwrap_or_default();
    Ok(TcpBooks {
        state: told[STATE],
        received: word(RECEIVED),
        acknowledged: word(ACKNOWLEDGED),
        sent: word(SENT),
        sent_again: word(SENT_AGAIN),
        unsent: half(UNSENT),
    })
}

/// What waits in a TCP socket: how many bytes nobody has read, without a FIN, and how many the peer
/// has not acknowledged, with a FIN. A listener is an error (EINVAL).
pub(crate) fn tcp_queues(socket: &impl AsFd) -> io::Result<(u32, u32)> {
    let socket = socket.as_fd().as_raw_fd();
    let ask = |request| {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and both requests write nothing but one int.
        Errno::result(unsafe { libc::ioctl(socket, request, &raw mut bytes) })?;
        u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    // These are SIOCINQ and SIOCOUTQ too.
    Ok((ask(libc::FIONREAD)?, ask(libc::TIOCOUTQ)?))
}

/// The first bytes of an option, and how many the kernel has of it.
fn socket_option<const N: usize>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> Result<([u8; N], usize), Errno> {
    let mut value = [0; N];
    let mut length = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the call writes at most so many bytes as it is told of.
    Errno::result(unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) })?;
    Ok((value, length as usize))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_older_kernel_is_told_by_the_length_of_its_answer() {
        let error = read_books(&[0; LENGTH], 104).expect_err("a struct of Linux 3.0");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("104 bytes"), "{error}");
        assert!(read_books(&[0; LENGTH], LENGTH).is_ok());
    }

    #[test]
    fn only_a_tcp_socket_is_one() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        assert!(is_tcp(&tcp).expect("an answer"));
        assert!(!is_tcp(&UdpSocket::bind("127.0.0.1:0").expect("a socket")).expect("an answer"));
        assert!(!is_tcp(&UnixStream::pair().expect("a pair").0).expect("an answer"));
        assert!(!is_tcp(&File::open("/dev/null").expect("a file")).expect("an answer"));
    }

    #[test]
    fn a_cookie_belongs_to_the_socket_and_not_to_the_descriptor() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let connect = || TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (one, other) = (connect(), connect());
        let cookie = |socket: &TcpStream| socket_cookie(socket).expect("a cookie");
        assert_eq!(cookie(&one), cookie(&one.try_clone().expect("a duplicate")));
        assert_ne!(cookie(&one), cookie(&other));
        assert_ne!(cookie(&one), 0);
    }
}
