//! What players and server say to each other: fixed frames, little-endian.
//! Knows: bytes. Does not know: who sends them when.

/// A player's input: its number (1, 2, …), what is asked for, the new velocity, and a check on them.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub(crate) number: u32,
    pub(crate) wants: Wants,
    pub(crate) velocity: i32,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wants {
    Move,
    /// The answer has [`CHART`] bytes more: too many for a socket's buffer.
    Chart,
    /// The answer is the last thing that is said: the server ends the connection.
    Leave,
}

/// What a player is told: at once after an input, and now and then at a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// 1, 2, … for each player, without a gap.
    pub(crate) sequence: u64,
    pub(crate) tick: u64,
    pub(crate) position: i64,
    pub(crate) velocity: i32,
    /// The inputs taken so far: the last one's number.
    pub(crate) score: u32,
    /// Whether it answers that input.
    pub(crate) is_answer: bool,
    /// So many bytes of chart follow.
    pub(crate) chart: u32,
}

pub(crate) const CHART: usize = 64 * 1024;

impl Input {
    pub(crate) const LENGTH: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::LENGTH] {
        let wants = match self.wants {
            Wants::Move => 0u32,
            Wants::Chart => 1,
            Wants::Leave => 2,
        };
        let mut bytes = [0; Self::LENGTH];
        bytes[0..4].copy_from_slice(&self.number.to_le_bytes());
        bytes[4..8].copy_from_slice(&wants.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.velocity.to_le_bytes());
        bytes[12..16].copy_from_slice(&check(self.number, wants, self.velocity).to_le_bytes());
        bytes
    }

    /// `None` if a byte was lost, doubled or changed.
    pub(crate) fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (number, wants, velocity) = (word(0), word(4), word(8).cast_signed());
        if word(12) != check(number, wants, velocity) {
            return None;
        }
        let wants = match wants {
            0 => Wants::Move,
            1 => Wants::Chart,
            2 => Wants::Leave,
            _ => return None,
        };
        Some(Self { number, wants, velocity })
    }
}

fn check(number: u32, wants: u32, velocity: i32) -> u32 {
    (number ^ wants.rotate_left(8) ^ velocity.cast_unsigned().rotate_left(16)).wrapping_mul(0x9e37_79b1)
}

impl Update {
    pub(crate) const LENGTH: usize = 40;

    /// The head only; the chart follows it.
    pub(crate) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tick.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.velocity.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.score.to_le_bytes());
        bytes[32..36].copy_from_slice(&u32::from(self.is_answer).to_le_bytes());
        bytes[36..40].copy_from_slice(&self.chart.to_le_bytes());
        bytes
    }

    /// What follows the head, from this byte on.
    pub(crate) fn chart_from(&self, index: u32) -> impl Iterator<Item = u8> + use<> {
        let sequence = self.sequence;
        (index..self.chart).map(move |index| chart_byte(sequence, index))
    }

    pub(crate) fn decode(bytes: &[u8; Self::LENGTH]) -> Self {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (low, high) = (|at| long(at) as u32, |at| (long(at) >> 32) as u32);
        Self {
            sequence: long(0),
            tick: long(8),
            position: long(16).cast_signed(),
            velocity: low(24).cast_signed(),
            score: high(24),
            is_answer: low(32) != 0,
            chart: high(32),
        }
    }
}

/// Each is another: bytes that are lost or doubled are seen.
pub(crate) fn chart_byte(sequence: u64, index: u32) -> u8 {
    (sequence as u32).wrapping_mul(31).wrapping_add(index).wrapping_mul(0x9e37_79b1).to_be_bytes()[0]
}
