//! One player on the server: a connection and the state that belongs to it.
//! Knows: its stream and the rules of the game. Does not know: restarts; only how to be written down and read again.

use crate::protocol::{CHART, Input, Update, Wants};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};

/// A client that does not read is told nothing more until it has read what waits.
const ENOUGH_OUTPUT: usize = 4 * CHART;

pub(crate) struct Player {
    pub(crate) stream: TcpStream,
    state: State,
    /// What has come of an input that is not complete.
    input: Vec<u8>,
    /// What the socket has not taken yet. Both are state: a byte in here is nowhere else.
    output: Vec<u8>,
}

#[derive(Default)]
struct State {
    sequence: u64,
    position: i64,
    velocity: i32,
    score: u32,
}

impl Player {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, state: State::default(), input: Vec::new(), output: Vec::new() }
    }

    pub(crate) fn step(&mut self) {
        self.state.position += i64::from(self.state.velocity);
    }

    /// Tells the player where it is. Like all that touches the stream, an error means that the player is gone.
    pub(crate) fn tell(&mut self, tick: u64) -> io::Result<()> {
        if self.output.is_empty() {
            self.update(tick, false, 0);
        }
        self.write()
    }

    /// Takes in what has come and answers it. Readiness is edge-triggered: it goes on until the stream refuses.
    pub(crate) fn drive(&mut self, tick: u64) -> io::Result<()> {
        let mut chunk = [0; 1024];
        self.write()?;
        while self.output.len() < ENOUGH_OUTPUT {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.take_in(&chunk[..length], tick)?;
                    self.write()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_in(&mut self, bytes: &[u8], tick: u64) -> io::Result<()> {
        self.input.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(frame) = self.input[taken..].first_chunk() {
            taken += Input::LENGTH;
            let input = Input::decode(frame).filter(|input| input.number == self.state.score + 1);
            let input = input.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an input is missing, doubled or damaged"))?;
            self.state.score = input.number;
            self.state.velocity = input.velocity;
            self.update(tick, true, if input.wants == Wants::Chart { CHART } else { 0 });
        }
        self.input.drain(..taken);
        Ok(())
    }

    fn update(&mut self, tick: u64, is_answer: bool, chart: usize) {
        let State { sequence, position, velocity, score } = &mut self.state;
        *sequence += 1;
        let update =
            Update { sequence: *sequence, tick, position: *position, velocity: *velocity, score: *score, is_answer, chart: chart as u32 };
        update.encode(&mut self.output);
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

    /// Writes all down but the stream, which goes beside it.
    pub(crate) fn save(&self, to: &mut impl Write) -> io::Result<()> {
        let State { sequence, position, velocity, score } = &self.state;
        let mut head = [0; HEAD];
        head[0..8].copy_from_slice(&sequence.to_le_bytes());
        head[8..16].copy_from_slice(&position.to_le_bytes());
        head[16..20].copy_from_slice(&velocity.to_le_bytes());
        head[20..24].copy_from_slice(&score.to_le_bytes());
        head[24..28].copy_from_slice(&(self.input.len() as u32).to_le_bytes());
        head[28..32].copy_from_slice(&(self.output.len() as u32).to_le_bytes());
        to.write_all(&head)?;
        to.write_all(&self.input)?;
        to.write_all(&self.output)
    }

    /// Reads what [`save`](Self::save) has written, and leaves the rest. `None`: that was something else.
    pub(crate) fn load(stream: TcpStream, from: &mut &[u8]) -> Option<Self> {
        let (head, rest) = from.split_at_checked(HEAD)?;
        let (input, rest) = rest.split_at_checked(u32::from_le_bytes(word(head, 24)?) as usize)?;
        let (output, rest) = rest.split_at_checked(u32::from_le_bytes(word(head, 28)?) as usize)?;
        *from = rest;
        let state = State {
            sequence: u64::from_le_bytes(word(head, 0)?),
            position: i64::from_le_bytes(word(head, 8)?),
            velocity: i32::from_le_bytes(word(head, 16)?),
            score: u32::from_le_bytes(word(head, 20)?),
        };
        Some(Self { stream, state, input: input.into(), output: output.into() })
    }
}

const HEAD: usize = 32;

fn word<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head[at..].first_chunk().copied()
}
