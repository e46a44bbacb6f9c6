//! The rules of the game: what comes of an input, and what a player is told.
//! Knows: states, inputs and updates. Does not know: connections, processes.

use super::protocol::{CHART, Input, Update, Wants};
use super::states::State;
use std::io::{self, ErrorKind};

/// What comes of an input.
pub(crate) struct Answer {
    pub(crate) update: Update,
    /// It is the last thing that is said.
    pub(crate) is_last: bool,
}

/// Takes in the next input. An error means that the player is gone.
pub(crate) fn take_in(frame: &[u8; Input::LENGTH], state: &mut State, tick: u64) -> io::Result<Answer> {
    let input = Input::decode(frame).filter(|input| input.number == state.score + 1);
    let input = input.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an input is missing, doubled or damaged"))?;
    (state.position, state.since) = (state.position_at(tick), tick);
    (state.score, state.velocity) = (input.number, input.velocity);
    let chart = if input.wants == Wants::Chart { CHART } else { 0 };
    Ok(Answer { update: update(state, tick, true, chart), is_last: input.wants == Wants::Leave })
}

/// Tells a player where it is.
pub(crate) fn tell(state: &mut State, tick: u64) -> Update {
    update(state, tick, false, 0)
}

fn update(state: &mut State, tick: u64, is_answer: bool, chart: usize) -> Update {
    state.sequence += 1;
    Update {
        sequence: state.sequence,
        tick,
        position: state.position_at(tick),
        velocity: state.velocity,
        score: state.score,
        is_answer,
        chart: chart as u32,
    }
}
