//! The manager above the guard, if there is one: what the service says goes on to it.
//!
//! Knows: where that manager listens. Does not know: what the lines mean.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::notify::Message;
use crate::sys;
use crate::systemd::NOTIFY_SOCKET;

/// So many messages wait for a manager that is busy. A further one takes the place of the second
/// oldest: the oldest may be READY, and is kept.
const WAITING: usize = 16;
/// How soon what waits is sent again.
pub(super) const RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Manager {
    address: Option<OsString>,
    waiting: VecDeque<String>,
    unreachable: bool,
}

impl Manager {
    pub(super) fn new() -> Manager {
        let address = env::var_os(NOTIFY_SOCKET).filter(|address| !address.is_empty());
        Manager { address, waiting: VecDeque::with_capacity(WAITING), unreachable: false }
    }

    /// Passes on what concerns the manager above. STOPPING is passed on only if all of the service
    /// stops: the manager would wait for the end. If there is no memory for the message, it is
    /// lost, and the guard goes on.
    pub(super) fn pass_on(&mut self, message: &Message<'_>, stopping: bool) {
        if self.address.is_none() {
            return;
        }
        let lines = || message.lines_for_manager().chain(stopping.then_some("STOPPING=1"));
        let length = lines().map(|line| line.len() + 1).sum();
        let mut text = String::new();
        if length == 0 || text.try_reserve_exact(length).is_err() {
            return;
        }
        for line in lines() {
            text += line;
            text += "\n";
        }
        if self.waiting.len() >= WAITING {
            self.waiting.remove(1);
        }
        self.waiting.push_back(text);
        self.flush();
    }

    /// Sends what can be sent; says whether something still waits.
    pub(super) fn flush(&mut self) -> bool {
        while let (Some(address), Some(first)) = (&self.address, self.waiting.front()) {
            match send(address, first) {
                Err(error) if is_busy(&error) => return true,
                Err(error) => {
                    if !self.unreachable {
                        log::warn!("cannot tell the service manager at {NOTIFY_SOCKET}={address:?}: {error}; the service goes on");
                    }
                    self.unreachable = true;
                }
                Ok(()) => self.unreachable = false,
            }
            self.waiting.pop_front();
        }
        false
    }
}

fn is_busy(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error().is_some_and(|error| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&error))
}

fn send(address: &OsString, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&sys::manager_address(address)?)?;
    socket.send(text.as_bytes()).map(drop)
}
