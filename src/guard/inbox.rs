//! The socket on which the service tells its guard how it is, and what is left out of what comes.
//!
//! Knows: datagrams, who has sent them, and how much is told of those that mean nothing. Does not
//! know: what a message says, and who belongs to the service.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::sys::socket::{SockType, setsockopt, sockopt};

use crate::error::Error;
use crate::sys::{self, Datagram};

/// More messages than a queue holds, where the kernel does not say how many that are.
const QUEUE: usize = 4096;
/// So many messages that are left out are told of: of strangers, and of the service.
const TOLD_OF: u32 = 10;

#[derive(Debug)]
pub(super) struct Inbox {
    socket: OwnedFd,
    length: usize,
    of_strangers: LeftOut,
    of_service: LeftOut,
}

/// How many messages meant nothing.
#[derive(Debug, Default)]
struct LeftOut(u32);

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    /// Of somebody who is not known. There may be more.
    LeftOut,
    /// Its bytes are in the buffer.
    Message(Datagram),
}

impl Inbox {
    /// It, and its address.
    pub(super) fn new() -> Result<(Inbox, OsString), Error> {
        let (socket, address) = notify_socket().map_err(Error::os("cannot make a socket for notifications"))?;
        let inbox = Inbox { socket, length: queue_length(), of_strangers: LeftOut::default(), of_service: LeftOut::default() };
        Ok((inbox, address))
    }

    /// How many messages wait at the most: so many were said before the end of a process that is
    /// seen now, and no flood makes more of them.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Takes one message in. `knows`: whether that process belongs to the service. What others send
    /// is closed without becoming this process's: to close it can take as long as they like.
    pub(super) fn next(&mut self, buffer: &mut [u8], knows: impl FnOnce(u32) -> bool) -> Next {
        let sender = match sys::next_sender(&self.socket) {
            Ok(sender) => sender,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Next::LeftOut,
            Err(_) => return Next::Nothing,
        };
        let is_known = knows(sender.pid);
        if !is_known && sender.has_descriptors && sys::discard_datagram(&self.socket).is_ok() {
            self.leave_out_stranger(sender.pid);
            return Next::LeftOut;
        }
        match sys::receive_datagram(&self.socket, buffer) {
            Ok(datagram) if is_known => Next::Message(datagram),
            Ok(datagram) => {
                // There are some if there was no thread for them.
                sys::close_aside(datagram.descriptors);
                self.leave_out_stranger(sender.pid);
                Next::LeftOut
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Next::LeftOut,
            Err(_) => Next::Nothing,
        }
    }

    /// Tells of a message of a process that does not belong to the service, as long as there are few.
    pub(super) fn leave_out_stranger(&mut self, sender: u32) {
        let why = if sender == 0 { "the process is in another PID namespace" } else { "it is no descendant of this guard" };
        self.of_strangers.add(sender, why);
    }

    /// Tells of a message of the service that means nothing here, as long as there are few.
    pub(super) fn leave_out(&mut self, sender: u32, why: &str) {
        self.of_service.add(sender, why);
    }
}

impl LeftOut {
    fn add(&mut self, sender: u32, why: &str) {
        self.0 = self.0.saturating_add(1);
        let rest = if self.0 == TOLD_OF { "; no more is told of such messages" } else { "" };
        if self.0 <= TOLD_OF {
            log::warn!("a message of process {sender} is left out: {why}{rest}");
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket and its name.
fn notify_socket() -> io::Result<(OwnedFd, OsString)> {
    let socket = sys::unix_socket(SockType::Datagram)?;
    sys::pass_credentials(&socket)?;
    // Room for bursts; what a queue may hold besides is the system's affair.
    let _ = setsockopt(&socket, sockopt::RcvBuf, &(1 << 20));
    let name = sys::bind_abstract(&socket)?;
    Ok((socket, OsString::from_vec([b"@", &name[..]].concat())))
}

/// How many messages wait at the most in a socket that has just been made.
fn queue_length() -> usize {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok();
    // One more gets in before the queue counts as full.
    text.and_then(|text| text.trim().parse::<usize>().ok()).map_or(QUEUE, |length| length.saturating_add(2))
}
