//! The first messages on a lifeline: who the predecessor is, and what it gives.
//!
//! Knows: what has to come before anything else can. Does not know: what comes later.

use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::lifeline::{Incoming, Lifeline};
use crate::sys::{self, Process};
use crate::wire::{self, Birth, FileId, Given, Hello, Message, OpKind};

use super::Link;
use super::group::{GroupGift, Parts};
use super::provenance::Provenance;

/// How long the first message may take to come whole. It was written before this process was started, but for a great many sockets.
pub(super) const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// What the first message brought for the program.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    pub(crate) groups: Vec<GroupGift>,
    pub(crate) coordination: Option<Coordination>,
    /// Earlier processes that still finish their work, the oldest first.
    pub(crate) draining: Vec<Process>,
}

/// The coordination socket of the predecessor.
#[derive(Debug)]
pub(crate) struct Coordination {
    pub(crate) path: PathBuf,
    /// The device and the inode of that path, if they are known, and of the root directory in which it means that.
    pub(crate) identity: Option<FileId>,
    pub(crate) root: Option<FileId>,
    pub(crate) listener: OwnedFd,
}

impl Link {
    /// Reads the first message, whole. A predecessor that cannot be understood is told so.
    pub(crate) fn read_hello(line: Lifeline, birth: Option<Birth>) -> Result<(Link, Gifts), Error> {
        let read = || {
            // A program that gains rights by being executed can be started by anybody, with any lifeline.
            let provenance = if sys::has_gained_rights() { Some(Provenance::of(&line)?) } else { None };
            let (hello, given, gifts) = first_messages(&line)?;
            let process = match provenance {
                Some(provenance) => provenance.prove(&line, &hello)?,
                None => given,
            };
            Ok::<_, Error>((hello, process, gifts))
        };
        match read() {
            Ok((hello, process, gifts)) => Ok((Link::new(line, process, hello, birth), gifts)),
            Err(error) => {
                // If it is gone, nobody needs to be told.
                let _ = line.send(&Message::Refuse { reason: wire::line(&error.to_string()) }, &[]);
                Err(error)
            }
        }
    }
}

fn first_messages(line: &Lifeline) -> Result<(Hello, Process, Gifts), Error> {
    let deadline = Instant::now() + HELLO_LIMIT;
    let (mut hello, mut given) = loop {
        match next(line, deadline)? {
            (Message::Hello(mut hello), descriptors) => {
                wire::serves(hello.version, hello.oldest).map_err(|why| unusable(format!("the predecessor cannot be served: {why}")))?;
                let given: Vec<_> = mem::take(&mut hello.given).into_iter().zip(descriptors).collect();
                break (hello, given);
            }
            (Message::Unknown, _) => {}
            (message, _) => return Err(begins_with(&message)),
        }
    };
    let mut gifts = Gifts::default();
    let announced = mem::take(&mut hello.following);
    let mut following = announced;
    while following > 0 {
        let (message, descriptors) = next(line, deadline)?;
        let came = descriptors.len() as u64;
        match message {
            Message::More { given: more } => given.extend(more.into_iter().zip(descriptors)),
            // A service can have thousands of them.
            Message::Items { ops } if ops.iter().all(|op| op.kind == OpKind::Descriptor) => {
                gifts.sockets.extend(ops.into_iter().map(|op| op.name).zip(descriptors));
            }
            Message::Unknown => continue,
            message => return Err(begins_with(&message)),
        }
        following = following
            .checked_sub(came)
            .ok_or_else(|| unusable(format!("the predecessor gives more than the {announced} descriptors that it has announced")))?;
    }
    let mut process = None;
    let mut groups = Parts::default();
    for (given, descriptor) in given {
        match given {
            Given::Predecessor => process = Some(descriptor),
            Given::Coordination { path, file, root } => {
                let (path, listener) = (path.into(), descriptor);
                gifts.coordination =
                    Some(Coordination { path, identity: FileId::from_numbers(&file), root: FileId::from_numbers(&root), listener });
            }
            Given::Draining { pid } => gifts.draining.push(Process::from((pid, descriptor))),
            Given::Member { .. } => groups.take(given, descriptor).map_err(unusable)?,
            Given::Unknown => log::debug!("the predecessor gives something that this version does not know"),
        }
    }
    let Some(process) = process else { return Err(unusable("the predecessor did not give its pidfd")) };
    gifts.groups = groups.whole().map_err(unusable)?;
    let process = Process::from((hello.pid, process));
    Ok((hello, process, gifts))
}

fn begins_with(message: &Message) -> Error {
    unusable(match message {
        Message::GivenUp => "the predecessor has given this process up".into(),
        Message::Items { ops } => format!("the predecessor begins with a list of {} names that has no place there", ops.len()),
        message => format!("the predecessor begins with {message:?}"),
    })
}

/// The next message of the first ones.
fn next(line: &Lifeline, deadline: Instant) -> Result<(Message, Vec<OwnedFd>), Error> {
    next_from(line, deadline).map(|(message, descriptors, _)| (message, descriptors))
}

/// The same with the process that has sent it, if that is known.
pub(super) fn next_from(line: &Lifeline, deadline: Instant) -> Result<(Message, Vec<OwnedFd>, Option<u32>), Error> {
    loop {
        // Read before the lifeline is, as in every place that waits: what has come by then is in time.
        let left = deadline.saturating_duration_since(Instant::now());
        match line.receive_from() {
            Some((Incoming::Message(message, descriptors), sender)) => return Ok((message, descriptors, sender)),
            Some((Incoming::Garbage(why), _)) => return Err(unusable(format!("the predecessor broke the protocol: {why}"))),
            Some((Incoming::Closed, _)) => return Err(unusable("the predecessor closed it before it had said who it is")),
            None => {}
        }
        if left.is_zero() {
            return Err(unusable(format!("the predecessor did not say who it is within {} s", HELLO_LIMIT.as_secs())));
        }
        line.wait(left);
    }
}

pub(super) fn unusable(why: impl std::fmt::Display) -> Error {
    Error::UnusableLifeline(format!("the lifeline cannot be used: {why}").into())
}
