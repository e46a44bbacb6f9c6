//! The first messages on a lifeline: who the predecessor is, and what it gives.
//!
//! Knows: what has to come before anything else can. Does not know: what comes later.

use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{getegid, geteuid};

use crate::error::Error;
use crate::lifeline::{Incoming, Lifeline};
use crate::sys::{self, Process};
use crate::wire::{self, Given, Hello, Message};

use super::Link;

/// How long the first message may take to come whole. It was written before this process was started, but for a great many sockets.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// What the first message brought for the program.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    pub(crate) coordination: Option<Coordination>,
    /// Earlier processes that still finish their work, the oldest first.
    pub(crate) draining: Vec<Process>,
}

/// The coordination socket of the predecessor.
#[derive(Debug)]
pub(crate) struct Coordination {
    pub(crate) path: PathBuf,
    /// The device and the inode of that path, if they are known, and of the root directory in which it means that.
    pub(crate) identity: Option<(u64, u64)>,
    pub(crate) root: Option<(u64, u64)>,
    pub(crate) listener: OwnedFd,
}

impl Link {
    /// Reads the first message, whole. A predecessor that cannot be understood is told so.
    pub(super) fn read_hello(line: Lifeline) -> Result<(Link, Gifts), Error> {
        match check_origin(&line).and_then(|()| first_messages(&line)) {
            Ok((hello, process, gifts)) => Ok((Link::new(line, process, hello), gifts)),
            Err(error) => {
                // If it is gone, nobody needs to be told.
                let _ = line.send(&Message::Refuse { reason: wire::line(&error.to_string()) }, &[]);
                Err(error)
            }
        }
    }
}

/// A program that gains rights by being executed can be started by anybody, with any lifeline: what comes over it names files that are taken
/// away, and brings the state. So it must come from somebody who has those rights.
fn check_origin(line: &Lifeline) -> Result<(), Error> {
    if !sys::has_gained_rights() {
        return Ok(());
    }
    let made_by =
        getsockopt(line, sockopt::PeerCredentials).map_err(|error| unusable(format!("its origin cannot be found out: {error}")))?;
    let is_own = (made_by.uid(), made_by.gid()) == (geteuid().as_raw(), getegid().as_raw());
    if made_by.uid() == 0 || is_own {
        return Ok(());
    }
    let uid = made_by.uid();
    Err(unusable(format!(
        "user {uid} has made it, whose rights this process exceeds: the program is setuid or setgid, or has capabilities"
    )))
}

fn first_messages(line: &Lifeline) -> Result<(Hello, Process, Gifts), Error> {
    let deadline = Instant::now() + HELLO_LIMIT;
    let mut gifts = Gifts::default();
    let mut first: Option<Hello> = None;
    let mut process = None;
    loop {
        let (given, more, descriptors) = match next(line, deadline)? {
            (Message::Hello(mut hello), descriptors) if first.is_none() => {
                wire::serves(hello.version, hello.oldest).map_err(|why| unusable(format!("the predecessor cannot be served: {why}")))?;
                let (given, more) = (mem::take(&mut hello.given), hello.more);
                first = Some(hello);
                (given, more, descriptors)
            }
            (Message::More { given, more }, descriptors) if first.is_some() => (given, more, descriptors),
            (Message::Unknown, _) => continue,
            (Message::GivenUp, _) => return Err(unusable("the predecessor has given this process up")),
            (message, _) => return Err(unusable(format!("the predecessor begins with {message:?}"))),
        };
        for (given, descriptor) in given.into_iter().zip(descriptors) {
            match given {
                Given::Predecessor => process = Some(descriptor),
                Given::Coordination { path, file, root } => {
                    let (path, listener) = (path.into(), descriptor);
                    gifts.coordination = Some(Coordination { path, identity: identity(&file), root: identity(&root), listener });
                }
                Given::Draining { pid } => gifts.draining.push(Process::from((pid, descriptor))),
                Given::Socket { name } => gifts.sockets.push((name, descriptor)),
                Given::Unknown => log::debug!("the predecessor gives something that this version does not know"),
            }
        }
        if !more {
            break;
        }
    }
    let (Some(hello), Some(process)) = (first, process) else {
        return Err(unusable("the predecessor did not give its pidfd"));
    };
    let process = Process::from((hello.pid, process));
    Ok((hello, process, gifts))
}

/// The next message of the first ones.
fn next(line: &Lifeline, deadline: Instant) -> Result<(Message, Vec<OwnedFd>), Error> {
    loop {
        // What has come by then is in time.
        let left = deadline.saturating_duration_since(Instant::now());
        match line.receive() {
            Some(Incoming::Message(message, descriptors)) => return Ok((message, descriptors)),
            Some(Incoming::Garbage(why)) => return Err(unusable(format!("the predecessor broke the protocol: {why}"))),
            Some(Incoming::Closed) => return Err(unusable("the predecessor closed it before it had said who it is")),
            None => {}
        }
        if left.is_zero() {
            return Err(unusable(format!("the predecessor did not say who it is within {} s", HELLO_LIMIT.as_secs())));
        }
        line.wait(left);
    }
}

fn identity(numbers: &[u64]) -> Option<(u64, u64)> {
    match numbers {
        [device, inode] => Some((*device, *inode)),
        _ => None,
    }
}

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::rule(format!("the lifeline cannot be used: {why}"))
}
