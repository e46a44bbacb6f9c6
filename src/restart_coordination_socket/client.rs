//! One client of the server: what it has said, what it is being told, and whether it waits.

use std::io::{self, Read};
use std::sync::Once;
use std::time::Duration;

use mio::net::UnixStream;
use nix::libc;

use crate::sys;
use crate::wire::{Coordination, Frames, Request, Response};

/// It is neither waited for nor trusted.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) frames: Frames,
    pub(super) out: Vec<u8>,
    pub(super) waits: Option<Waits>,
    /// Nothing more is read from it, and it is dropped when it has been told what there is to tell.
    pub(super) ending: bool,
    /// Tells it from a later one in the same slot.
    pub(super) number: u64,
    /// When it was taken in.
    pub(super) since: Duration,
    pub(super) deadline: Option<Duration>,
}

/// A client that waits for the end of a restart.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) progress: bool,
    /// It knows two answers only.
    pub(super) plain: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream, number: u64, since: Duration, deadline: Duration) -> Client {
        let frames = Frames::default();
        Client { stream, frames, out: Vec::new(), waits: None, ending: false, number, since, deadline: Some(deadline) }
    }

    pub(super) fn tell(&mut self, response: &Response) {
        self.out.extend(Coordination::Response(response.clone()).encode());
        self.write();
    }

    pub(super) fn write(&mut self) {
        while !self.out.is_empty() {
            match sys::writable_part(&self.out).and_then(|bytes| sys::send_part(&self.stream, bytes)) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tell_of_sandbox("answer", "sendto", error);
                    // It has gone. Its restart goes on.
                    self.out.clear();
                    self.ending = true;
                }
            }
        }
    }

    /// Reads one request, unless an earlier one is still being answered or its answer has not been taken: the rest stays where it is,
    /// in the kernel or in the frames.
    pub(super) fn read(&mut self) -> Result<Option<Request>, String> {
        loop {
            if self.waits.is_some() || self.ending || !self.out.is_empty() {
                return Ok(None);
            }
            if let Some(frame) = self.frames.next_frame()? {
                return match Coordination::decode(&frame)? {
                    Coordination::Request(request) => Ok(Some(request)),
                    Coordination::Response(_) => Err("a response came as a request".into()),
                };
            }
            let mut buffer = [0; 4096];
            match sys::may_fail(&[libc::ECONNRESET, libc::ENOMEM, libc::EINTR]).and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) if self.frames.within_frame() => return Err("it ends within a frame".into()),
                Ok(0) => self.ending = true,
                Ok(count) => self.frames.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tell_of_sandbox("read what is asked by", "recvfrom", error);
                    self.ending = true;
                }
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.ending && self.out.is_empty()
    }
}

/// A client that leaves is nobody's trouble. A sandbox that forbids the call has each client hung up on, and those are told nothing. They come
/// again and again, so it is said once.
fn tell_of_sandbox(what: &str, call: &'static str, error: io::Error) {
    static SAID: Once = Once::new();
    if let Some(libc::ENOSYS | libc::EPERM) = error.raw_os_error() {
        SAID.call_once(
            || log::warn!(target: "pollflip", "cannot {what} a client of the coordination socket: {}", sys::naming(call)(error)),
        );
    }
}
