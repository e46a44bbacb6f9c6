//! Items on their way out: named, packed, and sent as many at a time as go together.
//!
//! Knows: names, descriptors, and the lifeline that they go over. Does not know: why they go, or
//! what is said when all have gone.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mio::Waker;
use nix::libc;

use crate::lifeline::{self, Lifeline};
use crate::wire::{self, MAX_DESCRIPTORS, MAX_NAME, OpKind, Packed};

use super::names::Names;

/// Items on their way out over one lifeline, in the order in which they are given.
#[derive(Debug)]
pub(crate) struct Outgoing {
    lifeline: Arc<Lifeline>,
    /// Of the loop, which sends what must wait as soon as it can be sent.
    waker: Option<Arc<Waker>>,
    names: Names,
    /// Those that went ahead of the state, once that has been asked for.
    ahead: Option<Box<Names>>,
    /// What goes next, with descriptors that are this process's twice until it has gone.
    packet: Packed,
    duplicates: Vec<OwnedFd>,
}

impl Outgoing {
    pub(crate) fn new(lifeline: Arc<Lifeline>, waker: Option<Arc<Waker>>) -> Outgoing {
        Outgoing { lifeline, waker, names: Names::default(), ahead: None, packet: Packed::default(), duplicates: Vec::new() }
    }

    /// How many have been given and are not gone; of those that went ahead, none.
    pub(crate) fn count(&self) -> u64 {
        self.names.len() as u64
    }

    /// Where they go.
    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    /// How many went ahead and are not gone.
    pub(crate) fn ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64)
    }

    /// What has been given by now went ahead.
    ///
    /// # Errors
    ///
    /// As for [`Outgoing::flush`].
    pub(super) fn freeze(&mut self) -> io::Result<()> {
        self.ahead = Some(Box::new(mem::take(&mut self.names)));
        self.flush()
    }

    /// Takes one back. Nothing of that name has been given: nothing is said.
    ///
    /// # Errors
    ///
    /// As for [`Outgoing::flush`].
    pub(crate) fn gone(&mut self, name: &str) -> io::Result<()> {
        if !self.names.remove(name) && !self.ahead.as_mut().is_some_and(|ahead| ahead.remove(name)) {
            return Ok(());
        }
        if !self.packet.push(OpKind::Gone, name) {
            self.flush()?;
            // A name that was given fits into an empty packet.
            let _ = self.packet.push(OpKind::Gone, name);
        }
        Ok(())
    }

    /// Gives one, which is had by `descriptor` once its name is found to be good. It goes with the
    /// next packet.
    ///
    /// # Errors
    ///
    /// The name is not fit or was given before; `descriptor` cannot be had; nothing can be sent.
    pub(crate) fn give(&mut self, name: &str, kind: OpKind, descriptor: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<()> {
        let result = self.admit(name).and_then(|()| descriptor()).and_then(|descriptor| {
            if !self.packet.push(kind, name) {
                self.flush()?;
                // A name that has been admitted fits into an empty packet.
                let _ = self.packet.push(kind, name);
            }
            self.duplicates.push(descriptor);
            Ok(())
        });
        result.map_err(|error| named(name, &error))
    }

    /// Gives many, all of which have gone or wait when this returns. Of what the kernel takes at
    /// once there is no duplicate.
    ///
    /// The list is the program's own code, which may panic: it is asked for as many as go together
    /// before any of them is admitted.
    ///
    /// # Errors
    ///
    /// As for [`Outgoing::give`].
    pub(crate) fn give_all(&mut self, descriptors: impl IntoIterator<Item = (impl AsRef<str>, impl AsFd)>) -> io::Result<()> {
        self.flush()?;
        let mut descriptors = descriptors.into_iter();
        let mut batch = Vec::with_capacity(MAX_DESCRIPTORS);
        loop {
            batch.extend(descriptors.by_ref().take(MAX_DESCRIPTORS));
            if batch.is_empty() {
                return Ok(());
            }
            let items: Vec<_> = batch.iter().map(|(name, descriptor)| (name.as_ref(), descriptor.as_fd())).collect();
            let result = self.send_all(&items);
            // The rest of a list that has failed must not go with something else.
            self.packet.clear();
            result?;
            batch.clear();
        }
    }

    fn send_all(&mut self, items: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
        let mut sent = 0;
        for (index, (name, _)) in items.iter().enumerate() {
            self.admit(name).map_err(|error| named(name, &error))?;
            if !self.packet.push(OpKind::Descriptor, name) {
                self.send(&items[sent..index])?;
                sent = index;
                let _ = self.packet.push(OpKind::Descriptor, name);
            }
        }
        self.send(&items[sent..])
    }

    /// Sends what has been given one by one.
    ///
    /// # Errors
    ///
    /// The other side is gone (`BrokenPipe`), or the kernel does not take it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.packet.is_empty() {
            return Ok(());
        }
        let sent = self.lifeline.send_owned(self.packet.bytes(), mem::take(&mut self.duplicates));
        self.packet.clear();
        self.wake_if_waiting();
        sent.map_err(not_taken)
    }

    fn wake_if_waiting(&self) {
        if self.lifeline.waiting() > 0 {
            wake(self.waker.as_ref());
        }
    }

    fn admit(&mut self, name: &str) -> io::Result<()> {
        let why = match wire::check_name(name) {
            Err(why) => why,
            Ok(()) if self.ahead.as_ref().is_none_or(|ahead| !ahead.contains(name)) && self.names.insert(name) => return Ok(()),
            Ok(()) => "there is one of that name already".into(),
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// Sends a packet of borrowed descriptors. An error names the one that is to blame.
    fn send(&mut self, items: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let borrowed: Vec<_> = items.iter().map(|(_, descriptor)| *descriptor).collect();
        let sent = self.lifeline.send_packet(self.packet.bytes(), &borrowed);
        self.packet.clear();
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                // Nothing of it has gone. Alone, each shows whether it can go.
                for (name, descriptor) in items {
                    let _ = self.packet.push(OpKind::Descriptor, name);
                    let sent = self.lifeline.send_packet(self.packet.bytes(), &[*descriptor]);
                    self.packet.clear();
                    sent.map_err(|error| named(name, &error))?;
                }
                // What was in the way has passed, and all of it has gone after all.
            }
            sent => sent.map_err(not_taken)?,
        }
        self.wake_if_waiting();
        Ok(())
    }
}

/// Wakes the loop, if there is one.
pub(super) fn wake(waker: Option<&Arc<Waker>>) {
    if let Some(Err(error)) = waker.map(|waker| waker.wake()) {
        log::warn!("cannot wake the loop: {error}");
    }
}

/// The error of one item, with its name.
pub(crate) fn named(name: &str, error: &io::Error) -> io::Error {
    // What is wrong may be its length, and must still fit in behind it.
    let name: String = name.chars().take(MAX_NAME).collect();
    let limit = match error.raw_os_error() {
        Some(libc::EMFILE) => format!("; {}: what is handed over is held twice for a moment", lifeline::descriptor_limit()),
        _ => String::new(),
    };
    io::Error::new(error.kind(), format!("cannot hand {name:?} over: {error}{limit}"))
}

fn not_taken(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(error.kind(), "the successor is gone"),
        kind => io::Error::new(kind, format!("the kernel does not take what was given before: {error}")),
    }
}
