//! One client's connection: reads requests, writes answers, and ends without destroying either.
//! Knows: its stream. Does not know: restarts; only whether an answer should be the last, and how to be written down and read again.

use crate::http::{self, Parsed};
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

/// No further request is answered while so much output waits for the client to take it.
const ENOUGH_OUTPUT: usize = 64 * 1024;
const ENOUGH_INPUT: usize = http::MAX_HEAD + http::MAX_BODY;

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    phase: Phase,
    continue_sent: bool,
    /// When a byte last went in or out.
    pub(crate) last_moved: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Answering,
    /// The client was told `Connection: close`; the rest of the output has to be written.
    ToldToClose,
    /// Everything is written and our half is shut. To close now, with input unread, would send a
    /// reset that can overtake the answer: read on until the client closes too.
    Lingering,
}

/// By their numbers in what is saved.
const PHASES: [Phase; 3] = [Phase::Answering, Phase::ToldToClose, Phase::Lingering];

/// What the server does with the connection next.
#[derive(PartialEq)]
pub(crate) enum Fate {
    Keep,
    Close,
}

enum Input {
    Arrived,
    NothingNow,
    Ended,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            phase: Phase::Answering,
            continue_sent: false,
            last_moved: Instant::now(),
        }
    }

    /// What belongs to it besides the stream. `None`: nothing; it is idle.
    pub(crate) fn save(&self) -> Option<Vec<u8>> {
        let output = &self.output[self.written..];
        if self.phase == Phase::Answering && self.input.is_empty() && output.is_empty() {
            return None;
        }
        let phase = PHASES.iter().position(|phase| *phase == self.phase).unwrap_or_default();
        let mut saved = vec![phase as u8, u8::from(self.continue_sent)];
        saved.extend_from_slice(&(self.input.len() as u32).to_le_bytes());
        saved.extend_from_slice(&self.input);
        saved.extend_from_slice(output);
        Some(saved)
    }

    /// Makes it what a predecessor has saved; an error if it did not write that.
    pub(crate) fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        let read = || -> Option<(Phase, bool, Vec<u8>, Vec<u8>)> {
            let (head, rest) = saved.split_first_chunk::<6>()?;
            let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
            let (input, output) = rest.split_at_checked(length as usize)?;
            Some((*PHASES.get(usize::from(head[0]))?, head[1] != 0, input.into(), output.into()))
        };
        (self.phase, self.continue_sent, self.input, self.output) = read().ok_or(io::ErrorKind::InvalidData)?;
        Ok(())
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.phase == Phase::Lingering
    }

    /// Does all that can be done now. It is called for every readiness, whichever that was: readiness
    /// is edge-triggered, so it goes on until the stream has refused a read or a write.
    pub(crate) fn drive(&mut self, text: &str, last: bool) -> io::Result<Fate> {
        loop {
            if !self.flush()? {
                return Ok(Fate::Keep);
            }
            match self.phase {
                Phase::Answering => {}
                Phase::ToldToClose => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.phase = Phase::Lingering;
                }
                Phase::Lingering => return self.discard_input(),
            }
            if self.phase == Phase::Answering && !self.answer(text, last) {
                match self.read()? {
                    Input::Arrived => {}
                    Input::NothingNow => return Ok(Fate::Keep),
                    // Whatever came whole is answered by now, and half a request has no answer.
                    Input::Ended => return Ok(Fate::Close),
                }
            }
        }
    }

    /// Answers what has arrived, and says whether there was anything to answer.
    fn answer(&mut self, text: &str, last: bool) -> bool {
        let mut taken = 0;
        while self.phase == Phase::Answering && self.output.len() < ENOUGH_OUTPUT {
            match http::parse(&self.input[taken..]) {
                Parsed::Request(request) => {
                    taken += request.length;
                    self.continue_sent = false;
                    // Who sent several requests at once gets an answer to each, and the last one closes.
                    let close = !request.keep_alive || (last && taken == self.input.len());
                    if close {
                        self.phase = Phase::ToldToClose;
                    }
                    http::write_answer(&mut self.output, &request, text, close);
                }
                Parsed::Incomplete { awaits_continue } => {
                    if awaits_continue && !self.continue_sent {
                        self.continue_sent = true;
                        http::write_continue(&mut self.output);
                    }
                    break;
                }
                Parsed::Bad(status) => {
                    self.phase = Phase::ToldToClose;
                    http::write_refusal(&mut self.output, status);
                }
            }
        }
        self.input.drain(..taken);
        !self.output.is_empty()
    }

    /// Reads all that is there, so that `answer` sees whether a request is the last one.
    fn read(&mut self) -> io::Result<Input> {
        let before = self.input.len();
        let mut chunk = [0; 16 * 1024];
        while self.input.len() < ENOUGH_INPUT {
            match self.stream.read(&mut chunk) {
                Ok(0) if self.input.len() == before => return Ok(Input::Ended),
                Ok(0) => break,
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.input.len() == before {
            return Ok(Input::NothingNow);
        }
        self.last_moved = Instant::now();
        Ok(Input::Arrived)
    }

    /// Writes what the client takes; true once all is written.
    fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(length) => {
                    self.written += length;
                    self.last_moved = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }

    fn discard_input(&mut self) -> io::Result<Fate> {
        let mut chunk = [0; 16 * 1024];
        let mut discarded = 0;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Fate::Close),
                // It does not listen, and must not hold up the others.
                Ok(_) if discarded > ENOUGH_INPUT => return Ok(Fate::Close),
                Ok(length) => discarded += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fate::Keep),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
