//! Packets with descriptors over an AF_UNIX socket. libc rather than nix: nix drops what a truncated control message brought
//! without closing it, and a truncation must be seen, not guessed.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::libc;

use crate::wire::{MAX_DESCRIPTORS, MAX_PACKET};

use super::may_fail;

/// Room for the control message of one packet. A `u64` aligns it as `cmsghdr` wants.
const CONTROL_WORDS: usize = (MAX_DESCRIPTORS * mem::size_of::<RawFd>()).div_ceil(8) + 8;

/// What came in one packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The kernel had to leave something out: bytes, or descriptors for which this process had no room.
    pub(crate) truncated: bool,
    /// The process that has sent it, if the socket had been told to pass that on by then.
    pub(crate) sender: Option<u32>,
}

/// Sends one packet, without blocking and without SIGPIPE.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr() as *mut libc::c_void, iov_len: bytes.len() };
    let mut control = [0u64; CONTROL_WORDS];
    // SAFETY: an all-zero msghdr is a valid one: null pointers and lengths of zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let length = mem::size_of_val(descriptors) as libc::c_uint;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE computes a number.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as _;
        // SAFETY: the control buffer is aligned and has room for MAX_DESCRIPTORS numbers and the header, so that the first header
        // lies within it and the numbers fit behind it. A BorrowedFd is represented as the number it borrows.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            ptr::copy_nonoverlapping(descriptors.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), length as usize);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    may_fail(&[libc::EAGAIN, libc::ENOBUFS, libc::ETOOMANYREFS, libc::EPERM])?;
    // SAFETY: the message points to buffers that outlive the call, and their lengths are theirs.
    let sent = retry(|| unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) })?;
    if sent < bytes.len() { Err(io::Error::from(io::ErrorKind::WriteZero)) } else { Ok(()) }
}

/// Receives one packet, without blocking. The descriptors are CLOEXEC from birth.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Packet> {
    take(socket, 0)
}

/// The same without taking it: the next packet from where the looks have come to. The descriptors
/// are duplicates.
pub(crate) fn peek_packet(socket: impl AsFd) -> io::Result<Packet> {
    take(socket, libc::MSG_PEEK)
}

/// From so many bytes on the next looks are: each goes on where the one before has ended.
pub(crate) fn peek_from(socket: impl AsFd, offset: i32) -> io::Result<()> {
    let length = mem::size_of_val(&offset) as libc::socklen_t;
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the value is an int of that length.
    let result = unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const offset).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn take(socket: impl AsFd, how: libc::c_int) -> io::Result<Packet> {
    let mut bytes = Vec::<u8>::with_capacity(MAX_PACKET + 1);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.capacity() };
    let mut control = [0u64; CONTROL_WORDS];
    // SAFETY: an all-zero msghdr is a valid one: null pointers and lengths of zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | how;
    may_fail(&[libc::ECONNRESET, libc::ENOMEM, libc::EBADF])?;
    // SAFETY: the message points to buffers that outlive the call, and their lengths are theirs.
    let received = retry(|| unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, flags) })?;
    // SAFETY: the kernel has written so many bytes, and no more than it was told there is room for.
    unsafe { bytes.set_len(received) };
    Ok(Packet {
        bytes,
        // SAFETY: recvmsg has filled the message in, and this is the one time that its descriptors are taken.
        descriptors: unsafe { take_descriptors(&message) },
        truncated: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        // SAFETY: recvmsg has filled the message in, and its control buffer is alive.
        sender: unsafe { sender(&message) },
    })
}

/// Takes the descriptors out of a received message, those of a truncated one too.
///
/// # Safety
///
/// The message must have been filled in by `recvmsg`, its control buffer must be alive, and it must be given here once.
unsafe fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has written whole headers into the buffer, and the CMSG_ functions do not step beyond its end. The numbers
    // behind a header of SCM_RIGHTS are descriptors that the kernel has just made for this process. They need not be aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / mem::size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    descriptors
}

/// The process that has sent a received message, if that came with it.
///
/// # Safety
///
/// The message must have been filled in by `recvmsg`, and its control buffer must be alive.
unsafe fn sender(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has written whole headers into the buffer, and the CMSG_ functions do not step beyond its end. Behind a header of
    // SCM_CREDENTIALS is a ucred, which need not be aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            let whole = (*header).cmsg_len as usize >= libc::CMSG_LEN(mem::size_of::<libc::ucred>() as libc::c_uint) as usize;
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_CREDENTIALS && whole {
                let sender = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned();
                // Of one in another namespace of processes there is no number.
                return u32::try_from(sender.pid).ok().filter(|pid| *pid > 0);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
