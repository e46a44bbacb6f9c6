//! One connection with its account: peek, record, write, take.
//!
//! Knows: the order of these. Does not know: what the bytes are.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, MsgFlags, Shutdown};

use super::book::Book;
use super::in_hand::InHand;
use super::layout::{Entry, NotRecorded, Record, Work};
use super::steps;

/// A connection with its account in a [`Ledger`](super::Ledger).
///
/// The connection is read from and written to by this alone, never directly: what is read past the
/// account is not recorded, and costs the connection at the next recovery.
///
/// **Dropping** it drops the connection, and leaves the account in the ledger. So a process that
/// ends by a panic, which drops all, loses no account. [`close`](Account::close) ends both.
///
/// ```
/// use std::{io::{self, Write}, net::TcpStream};
/// use pollflip::ledger::{Account, Advance, Draft};
///
/// /// An echo. Called when the poll says that the connection is readable or writable. `false`: the
/// /// connection is over, and can be closed.
/// fn serve(account: &mut Account<TcpStream>) -> io::Result<bool> {
///     let echo = |input: &[u8], draft: &mut Draft<'_>| {
///         draft.write_all(input)?;
///         Ok(input.len())
///     };
///     loop {
///         match account.advance(&mut [0; 2_048], echo)? {
///             Advance::Worked => {}
///             Advance::Finished => return Ok(false),
///             _ => return Ok(true), // the poll says when there is more to do
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Account<S: AsFd> {
    connection: S,
    line: Line,
}

/// All of it but the connection.
#[derive(Debug)]
struct Line {
    book: Arc<Book>,
    account: usize,
    cookie: u64,
    /// The record that counts.
    entry: Entry,
    state: Vec<u8>,
    output: Vec<u8>,
    /// So many bytes at the end of the output are not written yet.
    unwritten: usize,
    /// So much of what is recorded as read was not taken yet.
    untaken: u64,
    /// State and output may be those of a draft that was given up.
    is_draft: bool,
    is_closed: bool,
}

/// What became of a call of [`Account::advance`], and what to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advance {
    /// Input was worked on. There may be more: call it again.
    Worked,
    /// There is no input: call it when the connection is readable.
    Idle,
    /// The input does not make up a whole message yet, and stays where it is: call it when there is
    /// more. A level-triggered poll says at once that the connection is readable, so there it is
    /// better to take the part into the state.
    Incomplete,
    /// The peer does not take the output in: call it when the connection is writable. No input is
    /// read until then, which slows a peer down that sends and does not read.
    Blocked,
    /// The peer has finished, and all that it has sent was worked on.
    Finished,
}

/// What is about to be recorded: the state of the connection as it will be, and what is written
/// when it is recorded.
#[derive(Debug)]
pub struct Draft<'a> {
    state: &'a mut Vec<u8>,
    output: &'a mut Vec<u8>,
    capacity: usize,
}

impl Draft<'_> {
    /// The state as it was recorded last, to be changed into the next one.
    pub fn state(&mut self) -> &mut Vec<u8> {
        self.state
    }

    /// How many more bytes of state and output fit into the record.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.state.len()).saturating_sub(self.output.len())
    }
}

/// Output: written to the peer when it is recorded.
impl Write for Draft<'_> {
    /// # Errors
    ///
    /// It does not fit into the record (`StorageFull`).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room() {
            return Err(full(self.state.len(), self.output.len().saturating_add(bytes.len()), self.capacity));
        }
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn full(state: usize, output: usize, capacity: usize) -> io::Error {
    let why = format!(
        "{state} bytes of state and {output} of output that is not written yet do not fit into a record of {capacity} bytes: write less \
         at a time, or begin a ledger of larger records"
    );
    io::Error::new(io::ErrorKind::StorageFull, why)
}

impl<S: AsFd> Account<S> {
    pub(super) fn new(book: &Arc<Book>, (account, cookie): (usize, u64), connection: S, record: Record, behind: (u64, u64)) -> Account<S> {
        let Record { entry, state, output } = record;
        let (untaken, unwritten) = behind;
        let unwritten = usize::try_from(unwritten).unwrap_or(usize::MAX).min(output.len());
        let line =
            Line { book: Arc::clone(book), account, cookie, entry, state, output, unwritten, untaken, is_draft: false, is_closed: false };
        Account { connection, line }
    }

    /// Works on the input that waits, once: looks at it, has `work` say what comes of it, records
    /// that, writes the output, and takes the input.
    ///
    /// `work` gets as much input as there is, at most the length of `buffer`. It changes the state,
    /// writes output, and returns how many bytes of the input it has used; 0: it needs more, and
    /// nothing is recorded. While it works, the connection is in hand. What else it does, it may do
    /// twice: a process that is killed before it has recorded does it again in its next life.
    ///
    /// Output that was recorded and is not written yet is written first. Nothing here blocks,
    /// whether or not the socket does.
    ///
    /// # Errors
    ///
    /// What `work` returns; the record is full (`StorageFull`); `work` says that it has used more
    /// than it got, or has used nothing of a full buffer; the buffer is empty (`InvalidInput`):
    /// nothing was recorded and nothing taken. This is a forked child's copy (`Unsupported`). What the kernel says of the
    /// connection (`ConnectionReset`, `BrokenPipe`, …): it is over. Somebody else has read from the
    /// connection (`InvalidData`).
    pub fn advance(&mut self, buffer: &mut [u8], work: impl FnOnce(&[u8], &mut Draft<'_>) -> io::Result<usize>) -> io::Result<Advance> {
        if buffer.is_empty() {
            return Err(invalid("the buffer for input is empty: give it some length"));
        }
        let Account { connection, line } = self;
        if !line.settle(connection, buffer)? {
            return Ok(Advance::Blocked);
        }
        let length = match receive(connection, buffer, MsgFlags::MSG_PEEK) {
            Ok(0) => return Ok(Advance::Finished),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Advance::Idle),
            Err(error) => return Err(error),
        };
        let is_full = length >= buffer.len();
        let input = buffer.get(..length).unwrap_or_default();
        let mut in_hand = InHand::new(&line.book, line.account, Work::Input);
        let used = line.record(|draft| match work(input, draft)? {
            0 if is_full => {
                Err(invalid("the input fills the buffer and was not used: give a longer buffer, or take a part into the state"))
            }
            0 => Ok(None),
            used if used > length => Err(invalid("more input was used than there was: return how many bytes of it")),
            used => Ok(Some(used)),
        })?;
        in_hand.is_done = used;
        drop(in_hand);
        if !used {
            return Ok(Advance::Incomplete);
        }
        // Output that finds no room is written at the next call.
        line.settle(connection, buffer)?;
        Ok(Advance::Worked)
    }

    /// Changes the state and writes output without any input: records that, and writes as much as
    /// the peer takes in. Returns whether that was all of it; if not, call [`flush`](Account::flush)
    /// or [`advance`](Account::advance) when the connection is writable. While `work` works, the
    /// connection is in hand.
    ///
    /// # Errors
    ///
    /// As of [`advance`](Account::advance).
    pub fn push(&mut self, work: impl FnOnce(&mut Draft<'_>) -> io::Result<()>) -> io::Result<bool> {
        let Account { connection, line } = self;
        line.settle(connection, &mut [0; TAKEN_AT_ONCE])?;
        let mut in_hand = InHand::new(&line.book, line.account, Work::Output);
        in_hand.is_done = line.record(|draft| work(draft).map(|()| Some(0)))?;
        drop(in_hand);
        line.settle(connection, &mut [])
    }

    /// Writes output that is recorded and not written yet. Returns whether that was all of it; if
    /// not, call it again when the connection is writable.
    ///
    /// # Errors
    ///
    /// What the kernel says of the connection. This is a forked child's copy.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.line.settle(&self.connection, &mut [0; TAKEN_AT_ONCE])
    }

    /// Marks the connection as the one at work, for work on it outside of
    /// [`advance`](Account::advance) and [`push`](Account::push), which mark it themselves.
    pub fn in_hand(&self) -> InHand {
        InHand::new(&self.line.book, self.line.account, Work::Other)
    }

    /// The state as it was recorded last.
    pub fn state(&self) -> &[u8] {
        &self.line.state
    }

    /// How many bytes are read when all that is recorded is done.
    pub fn read(&self) -> u64 {
        self.line.entry.read
    }

    /// How many bytes are written then.
    pub fn written(&self) -> u64 {
        self.line.entry.written
    }

    /// How many bytes of the recorded output are not written yet.
    pub fn unwritten(&self) -> usize {
        self.line.unwritten
    }

    /// How many bytes of input are recorded, and are still to be taken: so many that a killed
    /// process has not come to.
    pub fn untaken(&self) -> u64 {
        self.line.untaken
    }

    /// The connection, to be registered in a poll. Read and write by way of the account.
    pub fn connection(&self) -> &S {
        &self.connection
    }

    /// The same.
    pub fn connection_mut(&mut self) -> &mut S {
        &mut self.connection
    }

    /// The connection without its account, which stays in the ledger: for the end of a restart
    /// ([`Completed`](crate::Event::Completed)), to take it out of the poll. To hand it over at
    /// [`StateRequested`](crate::Event::StateRequested), give [`connection`](Account::connection):
    /// this process needs the account again if the restart fails. The successor
    /// [recovers](super::Ledger::recover) the connection.
    pub fn into_connection(self) -> S {
        self.connection
    }

    /// Closes the account, and shuts the connection down in both directions: its peer gets the end
    /// even if another process keeps it open. What is written is still sent. Returns the
    /// connection. The program takes it out of the poll, [forgets](crate::Keeper::forget_stream) it
    /// if it was kept, and drops it. A forked child's copy closes nothing.
    pub fn close(mut self) -> S {
        if self.line.book.is_here() {
            self.line.is_closed = true;
            self.line.book.free_account(self.line.account, self.line.cookie);
            shut_down(&self.connection);
        }
        self.connection
    }
}

impl Line {
    /// Does what is recorded and not done: takes input, and writes output as far as there is room.
    /// Returns whether all of it is done.
    fn settle(&mut self, connection: &impl AsFd, scratch: &mut [u8]) -> io::Result<bool> {
        self.book.check_here()?;
        if self.is_draft {
            self.restore()?;
        }
        // First, so that the peer has its answer sooner.
        while self.unwritten > 0 {
            let rest = self.output.get(self.output.len().saturating_sub(self.unwritten)..).unwrap_or_default();
            match send(connection, rest) {
                Ok(sent) => self.unwritten = self.unwritten.saturating_sub(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while self.untaken > 0 {
            let length = usize::try_from(self.untaken).unwrap_or(usize::MAX).min(scratch.len());
            let gone = || {
                let why = format!("{} bytes that were looked at are gone: somebody else reads from the connection", self.untaken);
                io::Error::new(io::ErrorKind::InvalidData, why)
            };
            // So the kernel throws them away, and copies nothing.
            match receive(connection, scratch.get_mut(..length).unwrap_or_default(), MsgFlags::MSG_TRUNC) {
                Ok(0) => return Err(gone()),
                Ok(taken) => self.untaken = self.untaken.saturating_sub(taken as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(gone()),
                Err(error) => return Err(error),
            }
        }
        Ok(self.unwritten == 0)
    }

    /// Records what `work` makes of state and output, and how much input it uses. `None`, or an
    /// error: nothing. Returns whether something was recorded.
    fn record(&mut self, work: impl FnOnce(&mut Draft<'_>) -> io::Result<Option<usize>>) -> io::Result<bool> {
        let capacity = self.book.layout().capacity;
        // Also if it panics.
        self.is_draft = true;
        self.output.drain(..self.output.len().saturating_sub(self.unwritten));
        let result = work(&mut Draft { state: &mut self.state, output: &mut self.output, capacity });
        let Ok(Some(used)) = result else {
            self.restore()?;
            return result.map(|_| false);
        };
        let more = self.output.len().saturating_sub(self.unwritten);
        let entry = Entry { read: self.entry.read.saturating_add(used as u64), written: self.entry.written.saturating_add(more as u64) };
        match self.book.words().record_next(self.account, self.cookie, entry, &self.state, &self.output) {
            Ok(()) => {}
            Err(NotRecorded::Closed) => return Err(closed()),
            Err(NotRecorded::Full) => {
                let error = full(self.state.len(), self.output.len(), capacity);
                self.restore()?;
                return Err(error);
            }
        }
        self.is_draft = false;
        self.entry = entry;
        self.untaken = used as u64;
        self.unwritten = self.output.len();
        Ok(true)
    }

    /// Gives a draft up: state and output are again those of the record that counts.
    fn restore(&mut self) -> io::Result<()> {
        let record = self.book.words().record(self.account);
        let record = record.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let record = record.filter(|_| self.book.words().cookie(self.account) == self.cookie).ok_or_else(closed)?;
        (self.state, self.output) = (record.state, record.output);
        self.is_draft = false;
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_closed {
            self.book.leave(self.account);
        }
    }
}

/// So much of what a killed process has left is taken at once.
const TAKEN_AT_ONCE: usize = 4_096;

/// After a roll-back an account may be one that the successor has closed.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the account was closed by another process: drop it, and recover the connection")
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Receives without blocking.
fn receive(connection: &impl AsFd, buffer: &mut [u8], how: MsgFlags) -> io::Result<usize> {
    let socket = connection.as_fd().as_raw_fd();
    again(|| socket::recv(socket, buffer, how | MsgFlags::MSG_DONTWAIT))
}

/// Sends what there is room for, without blocking and without SIGPIPE.
fn send(connection: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let socket = connection.as_fd().as_raw_fd();
    let quietly = MsgFlags::from_bits_retain(libc::MSG_NOSIGNAL);
    again(|| socket::send(socket, bytes, MsgFlags::MSG_DONTWAIT | quietly))
}

fn again(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match steps::call(&mut call) {
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            result => return result,
        }
    }
}

/// Ends a connection for all who have it open.
pub(super) fn shut_down(connection: &impl AsFd) {
    // One that is over has nothing to shut down.
    let _ = steps::call(|| socket::shutdown(connection.as_fd().as_raw_fd(), Shutdown::Both));
}
