//! Marks in datagrams: whose flow one belongs to, and the program by which the kernel finds out.
//!
//! Knows: where a mark is, and the instructions of classic BPF. Does not know: sockets, processes, how a program gets to the kernel.
//!
//! The sockets of a group have numbers, the *slots*. [`owner`] says to which slot a datagram goes, and [`program`] says the same to the
//! kernel: `tests/pure/tests/steering.rs` compares the two with the kernel, and the fuzz target `steering` with an interpreter.

use std::fmt;

/// The most generations of a group.
pub const MOST: u8 = 32;
/// What a group has, unless it is told.
const GENERATIONS: u8 = 8;
/// The longest datagram, in bytes.
const LONGEST: u16 = 65_507;
/// The longest connection ID of QUIC versions 1 and 2.
const LONGEST_CID: u8 = 20;
/// The second byte of a stamped connection ID is the first one, changed by this.
const CHECK: u8 = 0xa5;

/// Where a datagram says whose flow it belongs to: see [`Sockets::udp_group`](crate::Sockets::udp_group).
///
/// A datagram without a mark, or with one that no living generation has, belongs to the generation
/// that serves. So nothing is lost if a client sends nonsense, and a mark is no secret and no right:
/// it chooses between the processes of one service.
///
/// Each release of a program has to use the same mark: a successor that asks for another one gets an
/// error before it is ready.
///
/// ```
/// use pollflip::Mark;
///
/// // The high half of the third byte, which clients copy from what the server has sent.
/// const GAME: Mark = Mark::byte(2, 0xf0);
/// // The server's connection IDs have seven bytes, the first two of which are the mark.
/// const QUIC: Mark = Mark::quic(7).generations(4);
/// # let _ = (GAME, QUIC);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    place: Place,
    generations: Option<u8>,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Byte { offset: u16, bits: u8 },
    Quic { cid_length: u8 },
}

impl Mark {
    /// Some bits of one byte of the payload, which stand side by side: `0x0f`, `0xf0`, `0x38`, `0xff`.
    /// The byte is counted from 0, the first one after the UDP header. All bits 0 is no mark.
    pub const fn byte(offset: u16, bits: u8) -> Mark {
        Mark { place: Place::Byte { offset, bits }, generations: None }
    }

    /// The first two bytes of the connection IDs that a QUIC server gives out, all of `cid_length` bytes,
    /// 2 to 20. Only what [RFC 8999] says of all versions is read.
    ///
    /// A client chooses the first connection ID itself, of 8 bytes at least ([RFC 9000], 7.2), so its first
    /// datagrams go to the generation that serves. A server whose own IDs are shorter never takes that
    /// choice for a mark: 7 bytes leave five to chance. At 8 or more a choice of that very length looks like
    /// a mark once in 33,000 times, for two generations that drain, and the connection begins with one of
    /// those.
    ///
    /// [RFC 9000]: https://www.rfc-editor.org/rfc/rfc9000
    /// [RFC 8999]: https://www.rfc-editor.org/rfc/rfc8999
    pub const fn quic(cid_length: u8) -> Mark {
        Mark { place: Place::Quic { cid_length }, generations: None }
    }

    /// How many generations can be alive at a time, 2 to 32, and at most as many as the bits can name: 3
    /// for two bits. Unless told, 8 or what the bits can name. A group has one socket for each.
    pub const fn generations(self, count: u8) -> Mark {
        Mark { place: self.place, generations: Some(count) }
    }
}

/// The layout of a mark, if it makes sense; an error says why not.
pub fn layout(mark: Mark) -> Result<Layout, String> {
    let most = match mark.place {
        Place::Byte { offset, .. } if offset >= LONGEST => {
            return Err(format!("a mark in byte {offset} of a datagram is out of range: the longest datagram has {LONGEST} bytes"));
        }
        Place::Byte { bits, .. } => match values(bits) {
            Some(most) => most.min(MOST),
            None => return Err(format!("the bits {bits:#04x} of a mark do not stand side by side, or there are none")),
        },
        Place::Quic { cid_length } if !(2..=LONGEST_CID).contains(&cid_length) => {
            return Err(format!("a marked connection ID has 2 to {LONGEST_CID} bytes, and this one has {cid_length}"));
        }
        Place::Quic { .. } => MOST,
    };
    let generations = mark.generations.unwrap_or(GENERATIONS.min(most));
    match generations {
        2.. if generations <= most => Ok(Layout { place: mark.place, generations }),
        _ if most < 2 => Err("a mark of one bit names one generation, and a group has 2 at least: take more bits".into()),
        _ => Err(format!("a group with this mark has 2 to {most} generations, and {generations} were asked for")),
    }
}

/// The highest number that such bits hold, if they stand side by side.
fn values(bits: u8) -> Option<u8> {
    let values = bits.checked_shr(bits.trailing_zeros())?;
    (values & values.wrapping_add(1) == 0).then_some(values)
}

/// A mark that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    place: Place,
    generations: u8,
}

impl Layout {
    /// How many slots there are.
    pub fn generations(self) -> u8 {
        self.generations
    }

    /// The bits by which clients address a slot, where they stand in the byte; of a connection ID the first byte.
    pub fn mark(self, slot: u8) -> u8 {
        match self.place {
            Place::Byte { bits, .. } => slot.wrapping_add(1).wrapping_shl(bits.trailing_zeros()) & bits,
            Place::Quic { .. } => slot,
        }
    }

    /// Makes a connection ID one of that slot. `false`: it has another length, or the mark is none of QUIC.
    pub fn stamp(self, slot: u8, cid: &mut [u8]) -> bool {
        match (self.place, cid) {
            (Place::Quic { cid_length }, cid @ [_, _, ..]) if cid.len() == usize::from(cid_length) => {
                (cid[0], cid[1]) = (slot, slot ^ CHECK);
                true
            }
            _ => false,
        }
    }

    /// The slot that a datagram names, if it names one.
    pub fn marked(self, datagram: &[u8]) -> Option<u8> {
        let slot = match self.place {
            Place::Byte { offset, bits } => {
                let byte = datagram.get(usize::from(offset))?;
                (byte & bits).checked_shr(bits.trailing_zeros())?.checked_sub(1)?
            }
            Place::Quic { cid_length } => {
                let cid = match datagram {
                    // A long header: its version, the length of the connection ID, the connection ID.
                    [0x80..=0xff, _, _, _, _, length, cid @ ..] if *length == cid_length => cid,
                    [0x80..=0xff, ..] => return None,
                    [_, cid @ ..] => cid,
                    [] => return None,
                };
                match cid.get(..usize::from(cid_length))? {
                    [slot, check, ..] if *check == slot ^ CHECK => *slot,
                    _ => return None,
                }
            }
        };
        Some(slot).filter(|slot| *slot < self.generations)
    }

    /// The layout that a text names, if it names one: what [`Display`](fmt::Display) has written.
    pub fn parse(text: &str) -> Option<Layout> {
        let (place, generations) = text.split_once('/')?;
        let mark = match place.split_once(':')? {
            ("quic", length) => Mark::quic(length.parse().ok()?),
            ("byte", place) => {
                let (offset, bits) = place.split_once(':')?;
                Mark::byte(offset.parse().ok()?, bits.parse().ok()?)
            }
            _ => return None,
        };
        layout(mark.generations(generations.parse().ok()?)).ok()
    }

    /// The same for people.
    pub fn in_words(self) -> String {
        let place = match self.place {
            Place::Byte { offset, bits } => format!("bits {bits:#04x} of byte {offset}"),
            Place::Quic { cid_length } => format!("connection IDs of {cid_length} bytes"),
        };
        format!("{place}, {} generations", self.generations)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Byte { offset, bits } => write!(f, "byte:{offset}:{bits}/{}", self.generations),
            Place::Quic { cid_length } => write!(f, "quic:{cid_length}/{}", self.generations),
        }
    }
}

/// Which slots have somebody who reads them, one bit each, and which one gets what is unmarked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    /// The lowest bit is slot 0.
    pub live: u32,
    /// The slot of the generation that serves.
    pub serving: u8,
}

/// The slot that a datagram goes to.
pub fn owner(layout: Layout, steering: Steering, datagram: &[u8]) -> u8 {
    let is_live = |slot: &u8| 1_u32.checked_shl((*slot).into()).is_some_and(|bit| steering.live & bit != 0);
    layout.marked(datagram).filter(is_live).unwrap_or(steering.serving)
}

/// One instruction of classic BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// How many instructions are left out if its condition holds.
    pub then: u8,
    /// How many if not.
    pub otherwise: u8,
    /// Its operand.
    pub k: u32,
}

// The codes: a load, an operation on the accumulator, a jump, a copy, the end.
const LOAD_LENGTH: u16 = 0x80;
const LOAD_BYTE: u16 = 0x30;
const LOAD: u16 = 0x00;
const AND: u16 = 0x54;
const XOR: u16 = 0xa4;
const SUBTRACT: u16 = 0x14;
const SHIFT_RIGHT: u16 = 0x74;
const SHIFT_LEFT_BY_X: u16 = 0x6c;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_EQUAL_TO_X: u16 = 0x1d;
const IF_ABOVE: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_OF: u16 = 0x45;
const COPY_TO_X: u16 = 0x07;
const COPY_FROM_X: u16 = 0x87;
const RETURN: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;

/// Where a step goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    /// The datagram is unmarked.
    Serving,
    At(usize),
}

/// An instruction that names where it goes on.
type Step = (u16, u32, To, To);

fn step(code: u16, k: impl Into<u32>) -> Step {
    (code, k.into(), To::Next, To::Next)
}

/// It goes on if the condition holds; else the datagram is unmarked.
fn demand(code: u16, k: impl Into<u32>) -> Step {
    (code, k.into(), To::Next, To::Serving)
}

/// The program by which the kernel sends each datagram to its [`owner`].
///
/// A load beyond the end of the datagram would make the kernel take slot 0, and a slot that is none a
/// hash over all of them: so the length is looked at first, and no other slot is returned.
pub fn program(layout: Layout, steering: Steering) -> Vec<Instruction> {
    let mut steps = match layout.place {
        Place::Byte { offset, bits } => vec![
            step(LOAD_LENGTH, 0_u8),
            demand(IF_ABOVE, offset),
            step(LOAD_BYTE, offset),
            step(AND, bits),
            step(SHIFT_RIGHT, bits.trailing_zeros()),
            // What holds 0 becomes the highest number there is.
            step(SUBTRACT, 1_u8),
        ],
        Place::Quic { cid_length } => vec![
            step(LOAD_LENGTH, 0_u8),
            demand(IF_ABOVE, cid_length),
            step(LOAD_BYTE, 0_u8),
            (IF_ANY_OF, 0x80, To::Next, To::At(12)),
            step(LOAD_LENGTH, 0_u8),
            demand(IF_AT_LEAST, u32::from(cid_length) + 6),
            step(LOAD_BYTE, 5_u8),
            demand(IF_EQUAL, cid_length),
            step(LOAD_BYTE, 6_u8),
            step(COPY_TO_X, 0_u8),
            step(LOAD_BYTE, 7_u8),
            (JUMP, 0, To::At(15), To::Next),
            step(LOAD_BYTE, 1_u8),
            step(COPY_TO_X, 0_u8),
            step(LOAD_BYTE, 2_u8),
            step(XOR, CHECK),
            demand(IF_EQUAL_TO_X, 0_u8),
        ],
    };
    // In the accumulator there is a slot now, or what is none.
    let begin = steps.len();
    let serving = begin + 5;
    steps.extend([
        (IF_AT_LEAST, layout.generations.into(), To::Serving, To::Next),
        step(COPY_TO_X, 0_u8),
        step(LOAD, 1_u8),
        step(SHIFT_LEFT_BY_X, 0_u8),
        (IF_ANY_OF, steering.live, To::At(serving + 1), To::Serving),
        step(RETURN, steering.serving),
        step(COPY_FROM_X, 0_u8),
        step(RETURN_ACCUMULATOR, 0_u8),
    ]);
    let instruction = |(index, (code, k, then, otherwise)): (usize, Step)| {
        let left_out = |to| match to {
            To::Next => 0,
            To::Serving => serving.saturating_sub(index + 1) as u8,
            To::At(place) => place.saturating_sub(index + 1) as u8,
        };
        match code {
            JUMP => Instruction { code, then: 0, otherwise: 0, k: left_out(then).into() },
            _ => Instruction { code, then: left_out(then), otherwise: left_out(otherwise), k },
        }
    };
    steps.into_iter().enumerate().map(instruction).collect()
}

/// The program by which the kernel sends every datagram to that slot.
pub fn to_one(slot: u8) -> Vec<Instruction> {
    vec![Instruction { code: RETURN, then: 0, otherwise: 0, k: slot.into() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_makes_no_sense_is_an_error_that_says_why() {
        let told = |mark: Mark| layout(mark).expect_err("no mark");
        assert!(told(Mark::byte(65_507, 0xff)).contains("out of range"));
        for bits in [0, 0b101, 0b1001_1111] {
            assert!(told(Mark::byte(0, bits)).contains("side by side"), "{bits:#x}");
        }
        assert!(told(Mark::byte(0, 0x10)).contains("take more bits"));
        assert!(told(Mark::byte(0, 0x30).generations(4)).contains("2 to 3 generations, and 4"));
        assert!(told(Mark::byte(0, 0xff).generations(33)).contains("2 to 32"));
        assert!(told(Mark::quic(9).generations(1)).contains("2 to 32"));
        for length in [0, 1, 21, 255] {
            assert!(told(Mark::quic(length)).contains("2 to 20 bytes"), "{length}");
        }
        for (mark, generations) in [(Mark::byte(0, 0x30), 3), (Mark::byte(65_506, 0xff), 8), (Mark::quic(20).generations(32), 32)] {
            assert_eq!(layout(mark).map(Layout::generations), Ok(generations), "{mark:?}");
        }
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        for mark in [Mark::byte(2, 0xf0), Mark::byte(65_506, 0x03).generations(2), Mark::quic(9), Mark::quic(20).generations(32)] {
            let layout = layout(mark).expect("a mark");
            assert_eq!(Layout::parse(&layout.to_string()), Some(layout));
        }
        for text in ["", "byte:2:240", "byte:2/8", "byte:2:5/8", "quic:9/0", "quic:300/8", "bits:2:240/8", "byte:2:240/8/8"] {
            assert_eq!(Layout::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_marked_is_found_in_datagrams_of_both_kinds() {
        let byte = layout(Mark::byte(2, 0x1c)).expect("a mark");
        let quic = layout(Mark::quic(9)).expect("a mark");
        for slot in 0..7 {
            assert_eq!(byte.marked(&[0xff, 0xff, byte.mark(slot) | 0xe3]), Some(slot));
            let mut cid = [7; 9];
            assert!(quic.stamp(slot, &mut cid) && cid[2..] == [7; 7] && !byte.stamp(slot, &mut cid));
            let short = [&[0x40][..], &cid].concat();
            let long = [&[0xc0, 0, 0, 0, 1, 9][..], &cid].concat();
            for whole in [&short, &long] {
                assert_eq!(quic.marked(whole), Some(slot));
                assert_eq!(quic.marked(&whole[..whole.len() - 1]), None, "cut short");
            }
            assert_eq!(quic.marked(&[&[0xc0, 0, 0, 0, 1, 8][..], &cid].concat()), None, "of another length");
        }
        assert!(!quic.stamp(0, &mut [0; 8]) && !quic.stamp(0, &mut [0; 10]));
        for unmarked in [&[][..], &[1, 1], &[1, 1, 0xe3]] {
            assert_eq!(byte.marked(unmarked), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[rustfmt::skip]
    fn the_codes_are_those_of_the_system() {
        use nix::libc::*;
        let codes = [
            (LOAD_LENGTH, BPF_LD | BPF_W | BPF_LEN), (LOAD_BYTE, BPF_LD | BPF_B | BPF_ABS), (LOAD, BPF_LD | BPF_IMM),
            (AND, BPF_ALU | BPF_AND | BPF_K), (XOR, BPF_ALU | BPF_XOR | BPF_K), (SUBTRACT, BPF_ALU | BPF_SUB | BPF_K),
            (SHIFT_RIGHT, BPF_ALU | BPF_RSH | BPF_K), (SHIFT_LEFT_BY_X, BPF_ALU | BPF_LSH | BPF_X), (JUMP, BPF_JMP | BPF_JA),
            (IF_EQUAL, BPF_JMP | BPF_JEQ | BPF_K), (IF_EQUAL_TO_X, BPF_JMP | BPF_JEQ | BPF_X), (IF_ABOVE, BPF_JMP | BPF_JGT | BPF_K),
            (IF_AT_LEAST, BPF_JMP | BPF_JGE | BPF_K), (IF_ANY_OF, BPF_JMP | BPF_JSET | BPF_K), (COPY_TO_X, BPF_MISC | BPF_TAX),
            (COPY_FROM_X, BPF_MISC | BPF_TXA), (RETURN, BPF_RET | BPF_K), (RETURN_ACCUMULATOR, BPF_RET | BPF_A),
        ];
        for (ours, theirs) in codes {
            assert_eq!(u32::from(ours), theirs);
        }
    }
}
