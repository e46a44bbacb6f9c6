//! How far a TCP connection has come, by the kernel's own books.
//!
//! Knows: what follows from what the kernel counts. Does not know: what the bytes are, or who wants to know.

use std::io;
use std::os::fd::AsFd;

use crate::sys::{self, TcpBooks};

/// How many bytes this side of a TCP connection has read and written, as the kernel counts them.
///
/// A process that was killed cannot say how far it was. The connection, if somebody has kept it
/// open, can: the kernel counts what was read from it and written to it by whichever process. A
/// program that records with its state up to where it belongs can go on where it was, byte for
/// byte: a [`Ledger`](crate::Ledger) does so.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use pollflip::Position;
///
/// # fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// let (mut connection, _) = listener.accept()?;
/// client.write_all(b"hello")?;
/// connection.read_exact(&mut [0; 3])?;
/// connection.write_all(b"welcome")?;
///
/// let position = Position::of(&connection)?.expect("a TCP connection");
/// assert_eq!((position.read, position.written), (3, 7));
/// # Ok(())
/// # }
/// ```
///
/// # What is counted
///
/// - A byte that was looked at (MSG_PEEK) is not read.
/// - A byte is written when the kernel has taken it, whether or not the peer has it.
/// - SYN and FIN, which the kernel counts like bytes, are left out. Whether this side has connected
///   or accepted, and so whether there is a SYN in its count, is seen from the bytes that it has
///   sent. Where a packet could not be sent for want of memory, or a filter of this machine has
///   held it back, that cannot be seen any more, and the connection is taken for an accepted one:
///   `written` of one that has connected may be one too many then.
/// - Urgent data are left out of what a program reads, and the kernel counts them. A peer that sends
///   some makes `read` greater than what the program has got.
/// - Under kernel TLS these are the bytes of the protocol below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// So many bytes this side has read.
    pub read: u64,
    /// So many bytes this side has written.
    pub written: u64,
    /// So many bytes have come and are not read yet.
    pub unread: u64,
    /// The peer has closed, or shut down its writing, and its FIN has come: nothing follows the
    /// unread bytes.
    pub peer_finished: bool,
    /// This side has shut its writing down.
    pub finished: bool,
    /// The connection is over: reset, or finished by both sides. The kernel does not tell any more
    /// of which side it counts a FIN, so each of the two counts may be one too many.
    pub is_over: bool,
}

impl Position {
    /// Where a connection is. `None`: it has no such books. Only TCP has them: unix sockets have
    /// none, nor has MPTCP. Costs some six system calls.
    ///
    /// Each of the two counts is that of one moment. Nobody but the caller should read from the
    /// connection or write to it meanwhile, or they are of two moments. What the peer does
    /// meanwhile does no harm.
    ///
    /// # Errors
    ///
    /// The socket is a listener (`InvalidInput`). The kernel does not count bytes, or the operating
    /// system is not Linux (`Unsupported`). The connection has changed at each of very many looks
    /// (`ResourceBusy`).
    pub fn of(connection: &impl AsFd) -> io::Result<Option<Position>> {
        if !sys::is_tcp(connection)? {
            return Ok(None);
        }
        settle(|| sys::tcp_books(connection), || sys::tcp_queues(connection)).map(Some)
    }
}

/// So often the books may change while they are looked at.
const LOOKS: u32 = 10_000;

/// The books and the queues cannot be asked for at once. They belong together if the books are the
/// same before and after: no count ever goes back.
fn settle(mut books: impl FnMut() -> io::Result<TcpBooks>, mut queues: impl FnMut() -> io::Result<(u32, u32)>) -> io::Result<Position> {
    let mut before = books()?;
    for _ in 0..LOOKS {
        if before.state == LISTEN {
            let why = "it is a listener, which reads and writes nothing: ask this of a connection";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let (unread, unacknowledged) = queues()?;
        let after = books()?;
        if after == before {
            return Ok(position(after, unread, unacknowledged));
        }
        before = after;
    }
    let why = format!("the connection has changed at each of {LOOKS} looks: ask again when nobody else uses it");
    Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
}

/// States of a connection, as the kernel numbers them.
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;

fn position(books: TcpBooks, unread: u32, unacknowledged: u32) -> Position {
    // A socket that is closed was so from its birth, was reset, or has had a FIN each way.
    let is_over = matches!(books.state, CLOSE | TIME_WAIT) && (books.received > 0 || books.acknowledged > 0);
    let peer_finished = is_over || matches!(books.state, CLOSE_WAIT | LAST_ACK | CLOSING);
    let finished = is_over || matches!(books.state, FIN_WAIT_1 | FIN_WAIT_2 | LAST_ACK | CLOSING);
    // One that was reset need not have had a FIN.
    let fin_read = u64::from(peer_finished && !is_over);
    Position {
        read: books.received.saturating_sub(u64::from(unread) + fin_read),
        written: written(books, u64::from(unacknowledged), finished, is_over),
        unread: u64::from(unread),
        peer_finished,
        finished,
        is_over,
    }
}

/// The kernel counts acknowledged bytes, which are the bytes written and at most two more: one for
/// SYN, one for FIN. The count of bytes sent has neither, so the two counts together tell how many
/// of them there were. The docs of [`Position`] say what disturbs that.
fn written(books: TcpBooks, unacknowledged: u64, finished: bool, is_over: bool) -> u64 {
    let numbers = books.acknowledged.saturating_add(unacknowledged);
    let fin = u64::from(finished);
    // A FIN that is not sent yet is among what is not.
    let bytes = books.sent.saturating_sub(books.sent_again).saturating_add(u64::from(books.unsent));
    let (least, most) = if is_over { (0, 2) } else { (fin, fin + 1) };
    let is_unsent = u64::from(finished && !is_over && books.unsent > 0);
    match numbers.checked_sub(bytes.saturating_sub(is_unsent)) {
        Some(others) if (least..=most).contains(&others) => numbers - others,
        _ => numbers.saturating_sub(if is_over { 0 } else { fin }),
    }
}

#[cfg(test)]
mod tests;
