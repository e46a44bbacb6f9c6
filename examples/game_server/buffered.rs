//! A player whose connection and buffers are this process's, and go on in a successor alone.
//! Knows: its stream. Does not know: restarts; only how to be written down and read again.

use super::player::Occasion;
use super::protocol::{CHART, Input, Update};
use super::rules;
use super::states::State;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};

/// A client that does not read is told nothing more until it has read what waits.
const ENOUGH_OUTPUT: usize = 4 * CHART;

pub(crate) struct Buffered {
    pub(crate) stream: TcpStream,
    /// What has come of an input that is not complete.
    input: Vec<u8>,
    /// What the socket has not taken yet. Both are state: a byte in here is nowhere else.
    output: Vec<u8>,
}

impl Buffered {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, input: Vec::new(), output: Vec::new() }
    }

    /// Like all that touches the stream, an error means that the player is gone.
    pub(crate) fn visit(&mut self, occasion: Occasion, state: &mut State, tick: u64) -> io::Result<()> {
        match occasion {
            Occasion::Tick => self.tell(state, tick),
            Occasion::Ready => self.drive(state, tick),
        }
    }

    fn tell(&mut self, state: &mut State, tick: u64) -> io::Result<()> {
        if self.output.is_empty() {
            self.say(&rules::tell(state, tick));
        }
        self.write()
    }

    /// Takes in what has come and answers it. Readiness is edge-triggered: it goes on until the stream refuses.
    fn drive(&mut self, state: &mut State, tick: u64) -> io::Result<()> {
        let mut chunk = [0; 1024];
        self.write()?;
        while self.output.len() < ENOUGH_OUTPUT {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.take_in(&chunk[..length], state, tick)?;
                    self.write()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_in(&mut self, bytes: &[u8], state: &mut State, tick: u64) -> io::Result<()> {
        self.input.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(frame) = self.input[taken..].first_chunk() {
            taken += Input::LENGTH;
            let answer = rules::take_in(frame, state, tick)?;
            self.say(&answer.update);
            if answer.is_last {
                self.write()?;
                return Err(io::Error::other("it has said goodbye"));
            }
        }
        self.input.drain(..taken);
        Ok(())
    }

    fn say(&mut self, update: &Update) {
        self.output.extend_from_slice(&update.encode());
        self.output.extend(update.chart_from(0));
    }

    /// Writes what the client takes.
    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        let result = loop {
            if written == self.output.len() {
                break Ok(());
            }
            match self.stream.write(&self.output[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.output.drain(..written);
        result
    }

    /// Whether the socket has to take more before all is said.
    pub(crate) fn has_more_to_say(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether there are bytes that only this process has: half an input, or what the socket has not
    /// taken.
    pub(crate) fn has_buffers(&self) -> bool {
        !self.input.is_empty() || !self.output.is_empty()
    }

    pub(crate) fn save_buffers(&self, to: &mut impl Write) -> io::Result<()> {
        for buffer in [&self.input, &self.output] {
            to.write_all(&(buffer.len() as u64).to_le_bytes())?;
            to.write_all(buffer)?;
        }
        Ok(())
    }

    /// Reads what [`save_buffers`](Self::save_buffers) has written, and leaves the rest. `None`: that
    /// was something else.
    pub(crate) fn load_buffers(&mut self, from: &mut &[u8]) -> Option<()> {
        for buffer in [&mut self.input, &mut self.output] {
            let (length, rest) = from.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
            *buffer = bytes.into();
            *from = rest;
        }
        Some(())
    }
}
