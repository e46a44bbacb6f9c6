//! The processes that are or were the service, as long as they live, and who descends from them.
//!
//! Knows: their pidfds, and parents as `/proc` tells them. Does not know: which of them is the main
//! process.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::sys::{self, Datagram, Process, ProcessKey};

#[derive(Debug)]
pub(super) struct Generations {
    /// By which the poll tells that one of them has ended.
    token: Token,
    watched: Vec<Process>,
    /// The last of this family, no generation, that has said something.
    last_known: Option<ProcessKey>,
}

impl Generations {
    pub(super) fn new(token: Token) -> Generations {
        Generations { token, watched: Vec::new(), last_known: None }
    }

    pub(super) fn watch(&mut self, registry: &Registry, process: Process) -> io::Result<()> {
        let fd = process.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), self.token, Interest::READABLE)?;
        self.watched.push(process);
        Ok(())
    }

    pub(super) fn forget(&mut self, registry: &Registry, pid: u32) {
        self.watched.retain(|process| {
            if process.pid() == pid {
                // It may be watched no more for another reason, and is closed now in any case.
                let _ = registry.deregister(&mut SourceFd(&process.as_fd().as_raw_fd()));
            }
            process.pid() != pid
        });
    }

    pub(super) fn find(&self, pid: u32) -> Option<&Process> {
        self.watched.iter().find(|process| process.pid() == pid)
    }

    /// One that has ended and is no child of this process: its predecessor lives.
    pub(super) fn ended_elsewhere(&self) -> Option<u32> {
        self.watched.iter().find(|process| process.has_ended() && !process.is_child()).map(Process::pid)
    }

    /// Whether what that process says comes from this family. One that is the main process, or was,
    /// is known even when it has ended: its number is still its own.
    pub(super) fn knows(&mut self, pid: u32) -> bool {
        if pid == 0 {
            return false;
        }
        if self.find(pid).is_some() {
            return true;
        }
        // The way up may be long, and there may be many messages.
        let key = sys::process_key(pid);
        let is_the_last = key.is_some() && key == self.last_known;
        if !is_the_last && !self.has_descendant(pid) {
            return false;
        }
        self.last_known = key;
        true
    }

    /// Whether the sender of a message is still the process that has its number, and was known by
    /// that.
    pub(super) fn is_its_own(&mut self, datagram: &Datagram) -> bool {
        if self.find(datagram.sender).is_some() {
            return true;
        }
        // The number was looked up: if it still is the sender's now, be that a zombie, it was then.
        let is_its_own = datagram.process.as_ref().is_none_or(|process| process.signal(0).map_or_else(exists, |()| true));
        if !is_its_own {
            self.last_known = None;
        }
        is_its_own
    }

    /// Whether that process descends from this one. The number of a generation that lives is its
    /// own, and a process that has it for a parent descends too.
    pub(super) fn has_descendant(&self, pid: u32) -> bool {
        let is_generation = |parent| self.find(parent).is_some_and(|process| !process.has_ended());
        sys::has_ancestor(pid, |parent| parent == process::id() || is_generation(parent))
    }
}

/// Whether there was a process to signal.
fn exists(error: io::Error) -> bool {
    error.raw_os_error() != Some(nix::libc::ESRCH)
}
