//! One player as a client: asks, is answered, and checks every byte. It never connects again.

use super::seen::Span;
use crate::clock;
use crate::protocol::{CHART, Input, Update, Wants, chart_byte};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// One player in so many asks for charts and reads them slowly: what waits for it, waits in the server.
const SLOW: usize = 500;
/// As much is read of a chart at a time.
const SIP: usize = 4096;
/// One input in so many comes in two halves.
const HALVES: usize = 8;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    number: usize,
    is_slow: bool,
    inputs: u32,
    /// The second half of an input, sent later.
    half: Option<Vec<u8>>,
    asked: Option<Duration>,
    received: Vec<u8>,
    /// Bytes of a chart still to come.
    chart_left: u32,
    last: Update,
}

/// What a read has brought.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) any: bool,
    /// How long the answers took.
    pub(crate) waits: Vec<Span>,
    /// What came was not what follows from what came before.
    pub(crate) out_of_sequence: u64,
}

impl Client {
    pub(crate) fn new(number: usize, stream: TcpStream) -> Self {
        let last = Update { sequence: 0, tick: 0, position: 0, velocity: 0, score: 0, is_answer: false, chart: 0 };
        Self {
            stream,
            number,
            is_slow: number % SLOW == SLOW - 1,
            inputs: 0,
            half: None,
            asked: None,
            received: Vec::new(),
            chart_left: 0,
            last,
        }
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Asks, unless the answer to the last question is still awaited. True: there is a second half to send.
    pub(crate) fn ask(&mut self, now: Duration) -> io::Result<bool> {
        if self.asked.is_some() || self.half.is_some() || self.last.score != self.inputs || self.chart_left > 0 {
            return Ok(false);
        }
        self.inputs += 1;
        let wants = if self.is_slow { Wants::Chart } else { Wants::Move };
        let velocity = (self.inputs as i32 * 7919) % 201 - 100;
        let bytes = Input { number: self.inputs, wants, velocity }.encode();
        let turn = self.number + self.inputs as usize;
        if turn.is_multiple_of(HALVES) {
            let (first, second) = bytes.split_at(turn / HALVES % (Input::LENGTH - 1) + 1);
            self.half = Some(second.into());
            self.stream.write_all(first)?;
            return Ok(true);
        }
        self.asked = Some(now);
        self.stream.write_all(&bytes)?;
        Ok(false)
    }

    pub(crate) fn ask_second_half(&mut self, now: Duration) -> io::Result<()> {
        let Some(half) = self.half.take() else { return Ok(()) };
        self.asked = Some(now);
        self.stream.write_all(&half)
    }

    /// Reads what has come. An error means that the connection has ended, which it never should.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        let mut heard = Heard::default();
        let mut chunk = [0; SIP];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    heard.any = true;
                    self.received.extend_from_slice(&chunk[..length]);
                    self.check(&mut heard);
                    if self.is_slow {
                        return Ok(heard);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(heard),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn check(&mut self, heard: &mut Heard) {
        let mut taken = 0;
        loop {
            let rest = &self.received[taken..];
            if self.chart_left > 0 {
                let begin = CHART as u32 - self.chart_left;
                let length = rest.len().min(self.chart_left as usize);
                let is_right = |(index, byte): (u32, &u8)| *byte == chart_byte(self.last.sequence, index);
                heard.out_of_sequence += u64::from(!(begin..).zip(&rest[..length]).all(is_right));
                self.chart_left -= length as u32;
                taken += length;
                if self.chart_left > 0 {
                    break;
                }
                continue;
            }
            let Some(head) = rest.first_chunk() else { break };
            taken += Update::LENGTH;
            let update = Update::decode(head);
            heard.out_of_sequence += u64::from(!self.follows(&update));
            if update.is_answer
                && let Some(asked) = self.asked.take()
                && !self.is_slow
            {
                heard.waits.push(Span { begin: asked, end: clock::now() });
            }
            self.chart_left = update.chart;
            self.last = update;
        }
        self.received.drain(..taken);
    }

    /// Nothing is missing or doubled, and the server still knows all it knew: each tick since has moved the player by its velocity.
    fn follows(&self, next: &Update) -> bool {
        let last = &self.last;
        let moved = next.tick.wrapping_sub(last.tick) as i64 * i64::from(last.velocity);
        next.sequence == last.sequence + 1
            && (last.sequence == 0 || next.tick >= last.tick && next.position == last.position + moved)
            && next.score == last.score + u32::from(next.is_answer)
            && (next.is_answer || next.velocity == last.velocity)
            && (next.chart == 0 || next.chart == CHART as u32 && self.is_slow)
    }
}

/// How many of so many players read slowly.
pub(crate) fn slow_among(players: usize) -> usize {
    players / SLOW
}
