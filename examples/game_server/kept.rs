//! A player whose state is in an account of a ledger, with all that was half said: it outlives this
//! process.
//!
//! By the rule *peek, record, take*: an input is looked at, what comes of it is recorded in one
//! step, and only then is the input taken and the answer written. So there is nothing to save, and
//! half an input waits in the socket.
//! Knows: its account. Does not know: who keeps the ledger, and restarts.

use super::player::Occasion;
use super::protocol::{CHART, Input, Update, chart_byte};
use super::rules;
use super::states::{self, State};
use mio::net::TcpStream;
use pollflip::ledger::{Account, Advance, Draft};
use std::io::{self, ErrorKind, Write};

/// What the states are, for a later release that has others.
pub(crate) const NAME: &str = "game.v1";
/// So much of a chart is recorded at a time: a record is written whole, and should be small.
const PIECE: usize = 4096;
/// What there has to be room for in a record.
pub(crate) const CAPACITY: usize = Record::LENGTH + Update::LENGTH + PIECE;

pub(crate) struct Kept {
    account: Account<TcpStream>,
}

/// What is recorded of a player.
#[derive(Clone, Copy, Default)]
struct Record {
    state: State,
    /// So many bytes of the chart that it was told of are still to be said.
    chart: u32,
    /// It has said goodbye: when all is said, its connection ends.
    leaves: bool,
}

impl Record {
    const LENGTH: usize = states::RECORD + 5;

    fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..states::RECORD].copy_from_slice(&self.state.encode());
        bytes[states::RECORD..][..4].copy_from_slice(&self.chart.to_le_bytes());
        bytes[Self::LENGTH - 1] = u8::from(self.leaves);
        bytes
    }

    fn decode(bytes: &[u8]) -> io::Result<Record> {
        let read = || {
            let (state, rest) = bytes.split_first_chunk()?;
            let (chart, rest) = rest.split_first_chunk()?;
            Some(Record { state: State::decode(state), chart: u32::from_le_bytes(*chart), leaves: *rest.first()? != 0 })
        };
        read().ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "what is recorded is no player"))
    }
}

impl Kept {
    /// What the account of a new player begins with.
    pub(crate) fn first_record() -> Vec<u8> {
        Record::default().encode().into()
    }

    pub(crate) fn new(account: Account<TcpStream>) -> Self {
        Self { account }
    }

    pub(crate) fn into_account(self) -> Account<TcpStream> {
        self.account
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.account.connection()
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        self.account.connection_mut()
    }

    pub(crate) fn has_more_to_say(&self) -> bool {
        self.account.unwritten() > 0
    }

    /// An error means that the player is gone.
    pub(crate) fn visit(&mut self, occasion: Occasion, tick: u64) -> io::Result<()> {
        let record = Record::decode(self.account.state())?;
        match occasion {
            Occasion::Tick if self.account.flush()? && record.chart == 0 && !record.leaves => {
                self.account.push(|draft| tell(draft, tick)).map(drop)
            }
            _ => self.drive(tick),
        }
    }

    /// Readiness is edge-triggered: it goes on until the stream refuses.
    fn drive(&mut self, tick: u64) -> io::Result<()> {
        let mut input = [0; 1024];
        while self.account.flush()? {
            let record = Record::decode(self.account.state())?;
            if record.chart > 0 {
                self.account.push(go_on_with_the_chart)?;
                continue;
            }
            if record.leaves {
                return Err(io::Error::other("it has said goodbye"));
            }
            match self.account.advance(&mut input, |input, draft| answer(input, draft, tick))? {
                Advance::Worked => {}
                Advance::Finished => return Err(ErrorKind::UnexpectedEof.into()),
                _ => break,
            }
        }
        Ok(())
    }
}

/// All that comes of an input. It is called again if the process was killed before this was recorded.
fn answer(input: &[u8], draft: &mut Draft<'_>, tick: u64) -> io::Result<usize> {
    let Some(frame) = input.first_chunk() else { return Ok(0) };
    let mut record = Record::decode(draft.state())?;
    let answer = rules::take_in(frame, &mut record.state, tick)?;
    (record.chart, record.leaves) = (answer.update.chart, answer.is_last);
    *draft.state() = record.encode().into();
    draft.write_all(&answer.update.encode())?;
    Ok(Input::LENGTH)
}

fn tell(draft: &mut Draft<'_>, tick: u64) -> io::Result<()> {
    let mut record = Record::decode(draft.state())?;
    let update = rules::tell(&mut record.state, tick);
    *draft.state() = record.encode().into();
    draft.write_all(&update.encode())
}

fn go_on_with_the_chart(draft: &mut Draft<'_>) -> io::Result<()> {
    let mut record = Record::decode(draft.state())?;
    let begin = (CHART as u32).saturating_sub(record.chart);
    let end = (begin + PIECE as u32).min(CHART as u32);
    let piece: Vec<u8> = (begin..end).map(|index| chart_byte(record.state.sequence, index)).collect();
    record.chart = CHART as u32 - end;
    *draft.state() = record.encode().into();
    draft.write_all(&piece)
}
