//! Whose a lifeline is, where that matters: a program that gains rights by being executed (it is setuid or setgid, or its file has
//! capabilities) can be started by anybody, with any lifeline. What comes over it brings sockets and the state, and names files that are
//! taken away. So it must come from a process that has those rights itself.
//!
//! Knows: how a lifeline can be traced to a process, and what that one may do. Does not know: what is said on it.
//!
//! User and group tell little: capabilities of a file leave both as they are. So the process that has made the lifeline must live, and one
//! of its threads must have the capabilities of this process.
//!
//! That alone could be had by anybody of the same user, too: who has made a pair of sockets can execute this very program afterwards, and
//! is then, by its number, a process with these rights, while a child that it has left behind does the talking. So that process has to
//! answer, once it has been seen to have them: the kernel says who sends. And it must not have executed another program in between, to
//! answer, and this one again: the thread that was seen with the rights must be there still, and not be the first one, which alone lives
//! through that. A predecessor has such a thread, which has started this process.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::Instant;

use nix::unistd::{getegid, geteuid};

use crate::error::Error;
use crate::lifeline::Lifeline;
use crate::sys::{self, Maker, Process, Thread};
use crate::wire::{Hello, Message};

use super::hello::{HELLO_LIMIT, next_from, unusable};

/// The process that has made a lifeline, which has the user and the group of this one or is root.
#[derive(Debug)]
pub(super) struct Provenance(Maker);

impl Provenance {
    pub(super) fn of(line: &Lifeline) -> Result<Provenance, Error> {
        let maker = Maker::of(line).map_err(unknown)?;
        let is_own = (maker.uid, maker.gid) == (geteuid().as_raw(), getegid().as_raw());
        if maker.uid != 0 && !is_own {
            return Err(exceeds(&format!("user {}", maker.uid)));
        }
        Ok(Provenance(maker))
    }

    /// Has it prove that it is at the other end with the rights that this process has, and returns it. What else has been said on the
    /// lifeline so far counts only then.
    pub(super) fn prove(self, line: &Lifeline, hello: &Hello) -> Result<Process, Error> {
        let maker = self.0.process;
        let pid = maker.pid();
        if hello.pid != pid {
            return Err(unusable(format!("process {pid} has made it, and process {} says that it has", hello.pid)));
        }
        let own = sys::own_capabilities().map_err(unknown)?;
        let before = threads_with(&maker, own)?;
        line.name_senders(true).map_err(unknown)?;
        let number = RandomState::new().build_hasher().finish();
        line.send(&Message::Challenge { number }, &[]).map_err(unknown)?;
        wait_for_proof(line, number, pid)?;
        line.name_senders(false).map_err(unknown)?;
        let after = threads_with(&maker, own)?;
        if before.iter().any(|thread| after.contains(thread)) {
            Ok(maker)
        } else {
            Err(unusable(format!("process {pid} has made it, and has not had the rights of this process all the time")))
        }
    }
}

fn wait_for_proof(line: &Lifeline, number: u64, pid: u32) -> Result<(), Error> {
    let deadline = Instant::now() + HELLO_LIMIT;
    loop {
        match next_from(line, deadline)? {
            (Message::Proof { number: answer }, _, sender) if answer == number && sender == Some(pid) => return Ok(()),
            (Message::Proof { .. }, _, Some(sender)) if sender != pid => {
                return Err(unusable(format!("process {pid} has made it, and process {sender} answers in its place")));
            }
            (Message::GivenUp, ..) => return Err(unusable("the predecessor has given this process up")),
            // It was sent before it was asked for, or means nothing to this version.
            (Message::Proof { .. } | Message::Unknown, ..) => {}
            (message, ..) => return Err(unusable(format!("the predecessor goes on with {message:?} before it has proved who it is"))),
        }
    }
}

/// The threads that have these capabilities, of a process that lives.
fn threads_with(maker: &Process, capabilities: u64) -> Result<Vec<Thread>, Error> {
    let pid = maker.pid();
    let threads = sys::threads_with(maker, capabilities);
    if maker.has_ended() {
        // The number may have been another one's.
        return Err(unusable(format!(
            "process {pid} has made it, and has ended: whether it had the rights of this process cannot be seen"
        )));
    }
    let threads =
        threads.map_err(|why| unknown(io::Error::new(why.kind(), format!("/proc does not show process {pid} to this one: {why}"))))?;
    if threads.is_empty() { Err(exceeds(&format!("process {pid}"))) } else { Ok(threads) }
}

fn unknown(why: io::Error) -> Error {
    unusable(format!("its origin cannot be found out, and this program is setuid or setgid, or has capabilities: {why}"))
}

fn exceeds(who: &str) -> Error {
    unusable(format!("{who} has made it, whose rights this process exceeds: the program is setuid or setgid, or has capabilities"))
}
