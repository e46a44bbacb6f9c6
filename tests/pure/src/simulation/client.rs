//! Somebody at the coordination socket.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use pollflip::internals::wire::{Coordination, Frames, Request, Response};

/// How long the server bears a silent client.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: Frames,
    /// What it has asked that has no answer.
    pub asked: Option<Request>,
    /// The loop has turned since, and must have seen it.
    pub seen: bool,
    /// It has said what makes no sense, or was too slow: nothing is owed to it.
    pub lost: bool,
    /// When it was seen that it has been hung up on.
    closed: Option<Duration>,
    /// What it had said was not read before.
    reset: bool,
    last: Duration,
}

impl Client {
    pub fn connect(path: &Path, now: Duration) -> Option<Client> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_nonblocking(true).expect("any socket can be made so");
        Some(Client { stream, frames: Frames::default(), asked: None, seen: false, lost: false, closed: None, reset: false, last: now })
    }

    /// One question at a time; says whether it is for a restart.
    pub fn ask(&mut self, what: u8) -> bool {
        if self.asked.is_some() || self.lost {
            return false;
        }
        let request = match what % 4 {
            0 => Request::TryRestart,
            1 => Request::Restart { progress: true },
            2 => Request::Restart { progress: false },
            _ => Request::Status,
        };
        let frame = Coordination::Request(request.clone()).encode();
        self.lost |= self.stream.write(&frame).ok() != Some(frame.len());
        let restart = request != Request::Status;
        (self.asked, self.seen) = (Some(request), false);
        restart
    }

    pub fn babble(&mut self, what: u8) {
        let frames: [&[u8]; 4] = [&[255; 5], &[0, 0, 0, 1, b'{'], &[0, 0], &[0, 0, 0, 0]];
        // It may have been hung up on.
        let _ = self.stream.write(frames[usize::from(what) % 4]);
        self.lost = true;
    }

    /// The loop has turned at that time, and takes clients in.
    pub fn has_been_seen(&mut self, now: Duration) {
        if self.asked.is_some() && !self.seen {
            self.seen = true;
            self.lost |= now.saturating_sub(self.last) >= PATIENCE;
        }
    }

    /// Reads what has come. `faulty`: calls have failed.
    pub fn listen(&mut self, now: Duration, faulty: bool) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.reset = true,
                Ok(0) | Err(_) => {
                    self.closed.get_or_insert(now);
                    break;
                }
                Ok(length) => self.frames.push(&buffer[..length]),
            }
        }
        while let Some(frame) = self.frames.next_frame().expect("frames come whole") {
            let message = Coordination::decode(&frame).expect("answers make sense");
            let Coordination::Response(response) = message else { panic!("{message:?} is no answer") };
            if self.lost {
                continue;
            }
            match (&self.asked, &response) {
                // It cannot be found out who it is.
                (_, Response::RestartRefused(why)) if faulty && why.contains("who asks") => self.lost = true,
                (Some(Request::Restart { progress: true }), Response::Progress(_)) => continue,
                (Some(Request::TryRestart), Response::RestartComplete(_) | Response::RestartFailed(_)) => {}
                (
                    Some(Request::Restart { .. }),
                    Response::RestartComplete(_)
                    | Response::RestartFailed(_)
                    | Response::RestartRefused(_)
                    | Response::RestartImpossible(_),
                ) => {}
                // It has been replaced meanwhile.
                (Some(Request::Status), Response::Status(_) | Response::RestartFailed(_)) => {}
                (asked, response) => panic!("{response:?} to {asked:?}"),
            }
            self.asked = None;
            self.last = now;
        }
    }

    /// It was hung up on, `at_once`: not at the end of the server's patience.
    pub fn was_dropped(&self, at_once: bool) -> bool {
        self.closed.is_some_and(|at| !at_once || at.saturating_sub(self.last) < PATIENCE)
    }

    /// It was hung up on by a process that was being replaced, at that time, and had asked where the service stands or has not been read:
    /// the answer is the successor's.
    pub fn has_to_ask_again(&self, committed: Option<Duration>) -> bool {
        (self.asked == Some(Request::Status) || self.reset) && committed.is_some() && self.closed == committed
    }

    /// Whether an answer is owed to it.
    pub fn waits(&self) -> bool {
        self.asked.is_some() && self.seen && !self.lost
    }
}
