//! What a service must not lose when it is killed: the state of each connection, and how far it
//! belongs to.
//!
//! A [`Ledger`] is a memory file with an account for each connection. A keeper — a guard, systemd, a
//! parent — has the file and the connections open while the service is dead, and gives them to the
//! next process. Each connection goes on where it was, byte for byte.
//!
//! # The rule
//!
//! *Peek, record, take; output from the record.*
//!
//! 1. Look at the input without taking it (MSG_PEEK).
//! 2. Compute what comes of it: the next state, and output.
//! 3. Record both, with how far the connection is then read and written. One store makes the record
//!    count.
//! 4. Write the output that is recorded, and take the input, in either order.
//!
//! A process can be killed between any two of these. [`Position`] tells how far the connection was
//! read and written, and the record how far it should be:
//!
//! | killed | the connection, beside the record | at recovery |
//! | --- | --- | --- |
//! | before 3 | is at the same point | the input is still there, and is worked on |
//! | before the input is taken | was read less far | it is taken, and not worked on again |
//! | before the output is written | was written less far | the rest of the recorded output is written |
//! | later | is at the same point | |
//!
//! A program that takes first and records then has, at times, read what nobody has recorded. That is
//! seen at recovery ([`Recovered::Unrecorded`]), and the connection is closed rather than continued
//! wrongly.
//!
//! An [`Account`] follows the rule. The program gives a function from state and input to state and
//! output:
//!
//! ```
//! use std::io::{self, Write};
//! use std::net::{TcpListener, TcpStream};
//! use pollflip::ledger::{Account, Advance, Draft, Ledger, Recovered};
//!
//! /// Answers each byte with the sum of all bytes so far.
//! fn sum(input: &[u8], draft: &mut Draft<'_>) -> io::Result<usize> {
//!     for byte in input {
//!         let sum = draft.state()[0].wrapping_add(*byte);
//!         draft.state()[0] = sum;
//!         draft.write_all(&[sum])?;
//!     }
//!     Ok(input.len())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let mut client = TcpStream::connect(listener.local_addr()?)?;
//! let ledger = Ledger::new("sums.v1", 1_000, 4_096)?;
//! let (connection, _) = listener.accept()?;
//! # let kept = (connection.try_clone()?, std::os::fd::AsFd::as_fd(&ledger).try_clone_to_owned()?);
//! let mut account = ledger.begin(connection, &[0])?;
//! # client.write_all(&[1, 2])?;
//! # while account.untaken() == 0 && pollflip::Position::of(account.connection())?.unwrap().unread < 2 {}
//! let mut buffer = [0; 2_048];
//! while let Advance::Worked = account.advance(&mut buffer, sum)? {}
//!
//! // The process is killed. The next one gets the file and the connection.
//! # drop((account, ledger));
//! # let (connection, file) = kept;
//! let ledger = Ledger::open("sums.v1", file)?;
//! match ledger.recover(connection)? {
//!     Recovered::Even(account) | Recovered::Behind(account) => {
//!         // Goes on.
//!         assert_eq!((account.state(), account.read(), account.written()), (&[3][..], 2, 2));
//!     }
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The output of each record is written alone, so most of it goes in small segments. Set
//! TCP_NODELAY on the connections (`set_nodelay`). Without it the kernel holds a segment back until
//! the one before is acknowledged, and the peer delays that: an exchange then takes about 40 ms.
//!
//! The [recipe](crate::recipes#a-service-that-comes-back-from-a-kill) shows a ledger with the
//! keeper, from the first line of `main` on.
//!
//! # What it holds, and what not
//!
//! - A record holds the whole state of its connection, and the output that is not written yet. It is
//!   written whole each time, so it should be small: some kilobytes.
//! - What the program does elsewhere while it works — a row in a database, a message to another
//!   connection — is not part of the record. A process that is killed before it has recorded does it
//!   again.
//! - A connection has a position by TCP alone: unix sockets have none, nor has what TLS makes of the
//!   bytes.
//! - The machine's own end takes the ledger along: it is memory.
//! - The file can be written to by everybody who has its descriptor. Give it to nobody else.
//!
//! # What kills the service
//!
//! A connection whose input makes the process crash would do so again. The account has a mark while
//! its connection is worked on. At the next start [`Ledger::judge`] tells who was in hand at a crash,
//! and [`Ledger::recover`] shuts that connection down instead of going on with it. Where nobody tells how
//! a process has ended, as under systemd, this takes two ends: the next process gets the same input once
//! more, and the connection is dropped if that one ends of it as well.
//!
//! Knows: records, connections, and how they stand to each other. Does not know: who keeps them
//! while the service is dead, or when it is started again.

mod account;
pub(crate) mod compare;
mod book;
mod in_hand;
pub(crate) mod layout;
mod no_account;
mod steps;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::error::Exit;
use crate::machine::poison::{Doing, Poison, Suspects};
use crate::position::Position;
use crate::sys;

use account::shut_down;
use book::Book;
use compare::Standing;
use layout::{Entry, Record};

pub use crate::machine::poison::Scope;
pub use account::{Account, Advance, Draft};
pub use in_hand::InHand;
pub use no_account::NoAccount;

/// A memory file with an account for each connection: see the [module](self).
///
/// A clone is the same ledger. A forked child's copy does nothing.
///
/// ```
/// use std::os::fd::AsFd;
/// use pollflip::Ledger;
///
/// # fn main() -> std::io::Result<()> {
/// // For 1,000 connections, each with at most 4 KiB of state and of output that is not written yet.
/// let ledger = Ledger::new("sums.v1", 1_000, 4_096)?;
/// assert_eq!(ledger.free(), 1_000);
///
/// // The next process gets the file from the keeper, and opens it by the same name.
/// let file = ledger.as_fd().try_clone_to_owned()?;
/// assert_eq!(Ledger::open("sums.v1", file)?.free(), 1_000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Ledger {
    book: Arc<Book>,
}

/// What a connection that outlived its process is now.
#[derive(Debug)]
#[non_exhaustive]
pub enum Recovered<S: AsFd> {
    /// The record and the connection are at the same point.
    Even(Account<S>),
    /// The record is ahead: recorded input is still to be taken
    /// ([`untaken`](Account::untaken)), or recorded output still to be written
    /// ([`unwritten`](Account::unwritten)). The account does that at its next call: call
    /// [`flush`](Account::flush).
    Behind(Account<S>),
    /// More was read or written than is recorded, so that the state is not that of the connection
    /// any more. The connection was shut down, and its account closed.
    #[non_exhaustive]
    Unrecorded {
        /// The connection.
        connection: S,
        /// So many bytes were read that are not in the record.
        read: u64,
        /// So many bytes were written that are not in the record.
        written: u64,
    },
    /// The record is not that of this connection: it has more than ever came, or is damaged. The
    /// connection was shut down, and its account closed.
    Mismatched(S),
    /// The connection was reset or has ended meanwhile. Its account was closed.
    Over(S),
    /// The [judgement](Ledger::judge), be it of a process that was killed before it came to this
    /// connection, is that the service goes on without it. The connection was shut down, and its
    /// account closed.
    Dropped(S),
    /// It has no account, and nothing was read from it or written to it: it was accepted just before
    /// the end. [`begin`](Ledger::begin) it.
    Untouched(S),
    /// It has no account, and has been in use: it is none of the ledger's, or the process was killed
    /// while it closed the account. Shut it down, unless you know better.
    Unknown(S),
}

/// With what a process goes on after the last one has ended, made by [`Ledger::judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// With what this process goes on.
    pub scope: Scope,
    /// The connections that were in hand, by their SO_COOKIE.
    pub in_hand: Vec<u64>,
    /// The end is counted: nobody new was to blame.
    pub is_strike: bool,
    /// How many ends are counted that belong together.
    pub strikes: u32,
}

impl<S: AsFd> Recovered<S> {
    /// The connection, whatever it is now. An account stays in the ledger.
    pub fn into_connection(self) -> S {
        match self {
            Recovered::Even(account) | Recovered::Behind(account) => account.into_connection(),
            Recovered::Unrecorded { connection, .. }
            | Recovered::Mismatched(connection)
            | Recovered::Over(connection)
            | Recovered::Dropped(connection)
            | Recovered::Untouched(connection)
            | Recovered::Unknown(connection) => connection,
        }
    }
}

impl Ledger {
    /// An empty ledger of so many accounts, whose records hold so many bytes of state and output
    /// each. `name` says what the states are, and of which version, in at most 32 bytes: a program
    /// that reads others does not open it.
    ///
    /// The file is twice as long as all records together. It takes up memory as records are made.
    ///
    /// # Errors
    ///
    /// The name is empty or too long; no memory is so large (`InvalidInput`). The file would be
    /// larger than this process may make one (`FileTooLarge`). No descriptor or memory can be had.
    /// The operating system is not Linux (`Unsupported`).
    pub fn new(name: &str, accounts: usize, capacity: usize) -> io::Result<Ledger> {
        Ok(Ledger { book: Arc::new(Book::new(name, accounts, capacity)?) })
    }

    /// The ledger that is in a file, by the name that it was made with.
    ///
    /// # Errors
    ///
    /// The file is no ledger, has another version, another name or another length than it says
    /// (`InvalidData`). It is no memory file of a fixed length (`InvalidInput`).
    pub fn open(name: &str, file: impl Into<OwnedFd>) -> io::Result<Ledger> {
        Ok(Ledger { book: Arc::new(Book::open(name, file.into())?) })
    }

    /// How many accounts it has.
    pub fn accounts(&self) -> usize {
        self.book.layout().accounts
    }

    /// How many of them are free, as far as this process knows.
    pub fn free(&self) -> usize {
        self.book.free()
    }

    /// How many bytes of state and output a record holds.
    pub fn capacity(&self) -> usize {
        self.book.layout().capacity
    }

    /// Opens an account for a connection, with its first state. From here on the connection is read
    /// and written by way of the account.
    ///
    /// # Errors
    ///
    /// No account is free, or the state is longer than a record (`StorageFull`). The connection has
    /// an account (`AlreadyExists`), has no [`Position`] (`InvalidInput`) or is over
    /// (`NotConnected`). What [`Position::of`] returns. This is a forked child's copy
    /// (`Unsupported`). The connection [comes back](NoAccount) with each of them.
    ///
    /// Clients can bring some of these about: a program that ends at such an error is ended by them. If
    /// none is [free](Ledger::free), it turns the connection away.
    pub fn begin<S: AsFd>(&self, connection: S, state: &[u8]) -> Result<Account<S>, NoAccount<S>> {
        match self.open_account(&connection, state) {
            Ok((account, record)) => Ok(Account::new(&self.book, account, connection, record, (0, 0))),
            Err(error) => Err(NoAccount::new(connection, error)),
        }
    }

    /// The account with its cookie, and its first record.
    fn open_account(&self, connection: &impl AsFd, state: &[u8]) -> io::Result<((usize, u64), Record)> {
        let position = position(connection)?;
        if position.is_over {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection is over"));
        }
        let cookie = cookie(connection)?;
        let account = self.book.claim(cookie)?;
        let entry = Entry { read: position.read, written: position.written };
        if self.book.words().record_next(account, cookie, entry, state, &[]).is_err() {
            self.book.free_account(account, cookie);
            let why = format!("a state of {} bytes is longer than a record of {} bytes", state.len(), self.capacity());
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        self.book.serves();
        Ok(((account, cookie), Record { entry, state: state.into(), output: Vec::new() }))
    }

    /// Finds the account of a connection that has outlived its process, or was handed over, and
    /// compares the two. If there is somebody to blame for the end of a process, call
    /// [`judge`](Ledger::judge) first.
    ///
    /// # Errors
    ///
    /// The connection has no [`Position`] (`InvalidInput`). Its account is in use in this process
    /// (`ResourceBusy`). What [`Position::of`] returns. This is a forked child's copy
    /// (`Unsupported`). The connection [comes back](NoAccount) with each of them.
    pub fn recover<S: AsFd>(&self, connection: S) -> Result<Recovered<S>, NoAccount<S>> {
        let (position, cookie, account) = match self.look_up(&connection) {
            Ok(found) => found,
            Err(error) => return Err(NoAccount::new(connection, error)),
        };
        let Some(account) = account else {
            // One that was shut down here has been in use, though nothing was read from it.
            let is_untouched = position.read == 0 && position.written == 0 && !position.is_over && !position.finished;
            return Ok(if is_untouched { Recovered::Untouched(connection) } else { Recovered::Unknown(connection) });
        };
        let close = |connection: S| {
            // First: a process that is killed here leaves an account, by which the next one knows it.
            shut_down(&connection);
            self.book.free_account(account, cookie);
            connection
        };
        if self.book.words().is_condemned(account) {
            return Ok(Recovered::Dropped(close(connection)));
        }
        if position.is_over {
            return Ok(Recovered::Over(close(connection)));
        }
        let record = match self.book.words().record(account) {
            Ok(Some(record)) => record,
            // Killed between the two steps of `begin`.
            Ok(None) if position.read == 0 && position.written == 0 => {
                self.book.free_account(account, cookie);
                return Ok(Recovered::Untouched(connection));
            }
            Ok(None) => {
                let (read, written) = (position.read, position.written);
                return Ok(Recovered::Unrecorded { connection: close(connection), read, written });
            }
            Err(_) => return Ok(Recovered::Mismatched(close(connection))),
        };
        let go_on = |connection, record, behind| Account::new(&self.book, (account, cookie), connection, record, behind);
        let at = Entry { read: position.read, written: position.written };
        Ok(match compare::compare(record.entry, record.output.len() as u64, at, position.unread) {
            Standing::Even => Recovered::Even(go_on(connection, record, (0, 0))),
            Standing::Behind { untaken, unwritten } => Recovered::Behind(go_on(connection, record, (untaken, unwritten))),
            Standing::Unrecorded { read, written } => Recovered::Unrecorded { connection: close(connection), read, written },
            Standing::Ahead => Recovered::Mismatched(close(connection)),
        })
    }

    /// How far the connection is, its cookie, and its account, if it has one.
    fn look_up(&self, connection: &impl AsFd) -> io::Result<(Position, u64, Option<usize>)> {
        let position = position(connection)?;
        let cookie = cookie(connection)?;
        Ok((position, cookie, self.book.take(cookie)?))
    }

    /// Closes the accounts that this process has neither begun nor recovered: their connections
    /// ended with the process before. Returns how many it has closed. Call it when all connections
    /// that were kept are recovered, and no other process works with the ledger:
    ///
    /// - after the last of the [`Survivors`](crate::Survivors), before
    ///   [`ready`](crate::Restarter::ready): the process before has ended. If a generation before that
    ///   one may still finish connections of this ledger, leave it to a later successor: such a start
    ///   is not told of the end of that generation, whose next [`advance`](Account::advance) would
    ///   fail;
    /// - in a successor at [`PredecessorGone`](crate::Event::PredecessorGone), or where earlier
    ///   generations still finish connections, at the last
    ///   [`GenerationEnded`](crate::Event::GenerationEnded).
    ///
    /// # Errors
    ///
    /// This is a forked child's copy.
    pub fn close_unclaimed(&self) -> io::Result<usize> {
        self.book.free_unclaimed()
    }

    /// Says that this process serves: what is kept does not keep it from that. The first
    /// [`begin`](Ledger::begin) or [`Account::advance`] says it too.
    pub fn serves(&self) {
        self.book.serves();
    }

    /// Judges the end of the last process, and who was in hand then. Call it once at the start,
    /// before [`recover`](Ledger::recover), and only if the last process has ended without a
    /// successor. [`Exit::Unknown`] where nobody tells how, as under systemd. A second call in the
    /// same process returns the same.
    ///
    /// Open the ledger early in a start, and judge soon after. If a start ends between the two, the
    /// next one knows that, and blames no connection for it. If a start ends before it has opened
    /// the ledger, nobody knows of it: the next start takes its end for that of the process that
    /// had a connection in hand.
    ///
    /// An end is from outside if it was status 0, or a signal that people send: HUP, INT, KILL,
    /// QUIT, TERM, USR1, USR2. All others are the process's own doing, and so is a start that hung and
    /// that the guard has killed.
    ///
    /// | end of the last process | in hand | this process goes on with |
    /// | --- | --- | --- |
    /// | from outside | | all |
    /// | its own doing | a connection | all but that |
    /// | its own doing | nothing | all; at the second within a minute no connection and no state; then the listeners alone |
    /// | unknown, or memory was short | a connection | all; all but that if it was in hand at such an end before, and the work has not been done since |
    /// | unknown, after it had served | nothing | all |
    /// | unknown, before it served | nothing | as if it was its own doing |
    /// | memory was short | nothing, or another one each time | as if it was its own doing |
    /// | that of a start which has not judged | a connection, at the end before that | as with nothing in hand; if it is in hand at another end, all but that |
    ///
    /// There are three kinds of work on a connection. Each is done when
    /// [`advance`](Account::advance) has recorded input, when [`push`](Account::push) has recorded
    /// output, or when [`InHand`] is dropped. A connection that was in hand at an end of uncertain
    /// cause is above suspicion when work of the same kind has been done on it since.
    ///
    /// [`recover`](Ledger::recover) shuts down each connection that the judgement drops. After
    /// [`Scope::NotStreams`] and [`Scope::Listeners`] these are all that have an account. So
    /// recover all survivors, and shut down those that are [untouched](Recovered::Untouched), which
    /// have none. Then go on with this ledger: it is empty, and remembers the strikes.
    ///
    /// # Errors
    ///
    /// This is a forked child's copy.
    pub fn judge(&self, end: Exit) -> io::Result<Judgement> {
        self.book.check_here()?;
        Ok(self.book.judged(|| self.judge_now(end.into())).clone())
    }

    fn judge_now(&self, doing: Doing) -> Judgement {
        let words = self.book.words();
        let marked_by = |account: &usize| words.mark(*account).map(|mark| mark.process);
        let is_marked = |account: &usize| marked_by(account).is_some_and(|by| by != self.book.number()) && words.cookie(*account) != 0;
        let accounts: Vec<_> = (0..self.accounts()).filter(is_marked).collect();
        // Not at the same one: the next process may find the mark of one end once more.
        let was_in_hand_before = |account: &usize| words.blame(*account).is_some_and(|blame| Some(blame.process) != marked_by(account));
        // Since the one that has them in hand was seen to serve, another process has opened the ledger, and has ended without a judgement.
        let is_unjudged = |account: &usize| {
            let next = marked_by(account).unwrap_or_default().saturating_add(1);
            next < self.book.number() && !self.book.has_served_before()
        };
        let suspects = match accounts.iter().any(was_in_hand_before) {
            _ if accounts.is_empty() => Suspects::None,
            _ if accounts.iter().all(is_unjudged) => Suspects::Unjudged,
            true => Suspects::Again,
            false => Suspects::New,
        };
        let (strikes, last) = words.memory();
        let mut poison = Poison::new(strikes, last);
        let ruling = poison.judge(now(), doing, suspects, self.book.has_served_before());
        let in_hand = accounts.iter().map(|account| words.cookie(*account)).collect();
        // Where it is not sure whose doing it was, only those who were in hand before are dropped.
        let is_sure = doing == Doing::Own;
        let is_dropped = |account: &usize| match ruling.scope {
            Scope::All => false,
            Scope::NotSuspects => accounts.contains(account) && (is_sure || was_in_hand_before(account)),
            // Those of this moment, and none that is begun from here on.
            Scope::NotStreams | Scope::Listeners => words.cookie(*account) != 0,
        };
        // In the file, and before the marks go: this process may be killed before it has closed them.
        (0..self.accounts()).filter(is_dropped).for_each(|account| words.condemn(account));
        words.remember(poison.strikes(), poison.last());
        for account in &accounts {
            if ruling.remember && !words.is_condemned(*account) {
                words.set_blame(*account, words.mark(*account));
            }
            words.set_mark(*account, None);
        }
        Judgement { scope: ruling.scope, in_hand, is_strike: ruling.is_strike, strikes: poison.strikes() }
    }
}

/// The file: to be kept, or handed over.
impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.book.as_fd()
    }
}

fn position(connection: &impl AsFd) -> io::Result<Position> {
    Position::of(connection)?.ok_or_else(|| {
        let why = "the connection has no position: only TCP has one, and a unix socket cannot be gone on with after a kill";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

/// The SO_COOKIE of a socket: a number that no other socket of this machine has or will have, the
/// same in all processes. [`Judgement::in_hand`] has connections by it.
///
/// # Errors
///
/// It is no socket. The operating system is not Linux (`Unsupported`).
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    sys::socket_cookie(socket)
}

/// The same clock in all processes of this machine.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}
