//! Names by the thousand, packed: what is given beside a packet, and what is gone.
//!
//! Knows: the bytes. Does not know: what a name stands for.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | 0x01, with which no JSON begins |
//! | then for each op: 1 | its kind: 0 gone, 1 a descriptor, 2 a blob |
//! | 4 | the length of its name, little-endian |
//! | as many | its name, UTF-8 |
//!
//! The ops are one ordered list. Descriptors go beside the packet in the order of the ops that
//! bear one. A packet has as many ops as fit, and ends with its last byte: the packets of a
//! SEQPACKET socket come whole.

use super::{MAX_DESCRIPTORS, MAX_NAME, MAX_PACKET};

/// The first byte of a packed list.
pub(super) const PACKED: u8 = 1;

/// What a name takes beside its own bytes.
const HEAD: usize = 5;

/// One entry of a packed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// What is the matter with it.
    pub kind: OpKind,
    /// Its name.
    pub name: String,
}

/// What a packed list says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// What was given under that name is taken back.
    Gone,
    /// A descriptor: a socket, a connection, a file or the like, for what it is.
    Descriptor,
    /// A memory file, for what it holds.
    Blob,
}

impl OpKind {
    /// All of them, each at the number that stands for it.
    const ALL: [OpKind; 3] = [OpKind::Gone, OpKind::Descriptor, OpKind::Blob];

    /// Whether a descriptor goes with it.
    pub fn bears_descriptor(self) -> bool {
        self != OpKind::Gone
    }
}

/// A packed list in the making, for names that are written once and not kept.
#[derive(Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    descriptors: usize,
}

impl Packed {
    /// Adds a name, if it fits: there is room for [`MAX_PACKET`] bytes and [`MAX_DESCRIPTORS`]
    /// descriptors. An empty list has room for any name that [`check_name`](super::check_name)
    /// lets pass.
    #[must_use = "a name that does not fit goes into the next packet"]
    pub fn push(&mut self, kind: OpKind, name: &str) -> bool {
        let length = self.bytes.len().max(1) + HEAD + name.len();
        let descriptors = self.descriptors + usize::from(kind.bears_descriptor());
        let fits = length <= MAX_PACKET && descriptors <= MAX_DESCRIPTORS;
        if fits {
            if self.bytes.is_empty() {
                self.bytes.push(PACKED);
            }
            append(&mut self.bytes, kind, name);
            self.descriptors = descriptors;
        }
        fits
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many descriptors go with it.
    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the list, for the next packet.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.descriptors = 0;
    }
}

/// The packet of a list, however long it is.
pub(super) fn encode(ops: &[Op]) -> Vec<u8> {
    let length = ops.iter().map(|op| HEAD + op.name.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(1 + length);
    bytes.push(PACKED);
    for op in ops {
        append(&mut bytes, op.kind, &op.name);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, kind: OpKind, name: &str) {
    bytes.push(kind as u8);
    // A name is no longer than a packet.
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
}

/// The list in a packet that begins with [`PACKED`]; an error says what is wrong with it.
pub(super) fn decode(packet: &[u8]) -> Result<Vec<Op>, String> {
    let mut left = packet.get(1..).unwrap_or_default();
    // A guess: most names are short.
    let mut ops = Vec::with_capacity(MAX_DESCRIPTORS.min(left.len() / HEAD));
    let mut descriptors = 0;
    while let Some((kind, rest)) = left.split_first() {
        let Some(&kind) = OpKind::ALL.get(usize::from(*kind)) else {
            return Err(format!("a list of names with an entry of the kind {kind}, which this version does not know"));
        };
        let Some((length, rest)) = rest.split_first_chunk() else { return Err(cut_short(ops.len())) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_NAME {
            return Err(format!("a list with a name of {length} bytes, and a name has no more than {MAX_NAME}"));
        }
        let Some((name, rest)) = rest.split_at_checked(length) else { return Err(cut_short(ops.len())) };
        let name = str::from_utf8(name).map_err(|error| format!("a list with a name that is no text ({error})"))?;
        descriptors += usize::from(kind.bears_descriptor());
        if descriptors > MAX_DESCRIPTORS {
            return Err(format!("a list that names more than the {MAX_DESCRIPTORS} descriptors that go with a packet"));
        }
        ops.push(Op { kind, name: name.into() });
        left = rest;
    }
    Ok(ops)
}

fn cut_short(whole: usize) -> String {
    format!("a list of names that is cut short after {whole} of them")
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, Hasher, RandomState};

    use super::*;

    fn op(kind: OpKind, name: &str) -> Op {
        Op { kind, name: name.into() }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_at_each_size_and_in_its_order() {
        // SplitMix64.
        let seed = RandomState::new().build_hasher().finish();
        println!("seed {seed}");
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % below as u64) as usize
        };
        // Miri takes a thousand times as long.
        let (rounds, most) = if cfg!(miri) { (8, 12) } else { (2000, 400) };
        for round in 0..rounds {
            let mut packed = Packed::default();
            let mut ops = Vec::new();
            let longest = [0, 3, 40, MAX_NAME / 4][round % 4];
            for _ in 0..random(most) {
                let name: String = (0..random(longest + 1)).map(|_| ['a', '/', '\0', 'ü', '✓', '\u{10ffff}'][random(6)]).collect();
                let op = op(OpKind::ALL[random(3)], &name);
                if !packed.push(op.kind, &op.name) {
                    break;
                }
                ops.push(op);
            }
            let descriptors = ops.iter().filter(|op| op.kind.bears_descriptor()).count();
            assert_eq!(packed.descriptors(), descriptors);
            assert_eq!(packed.is_empty(), ops.is_empty());
            let bytes = packed.bytes();
            assert!(bytes.len() <= MAX_PACKET && descriptors <= MAX_DESCRIPTORS);
            assert_eq!(decode(bytes), Ok(ops.clone()));
            if !ops.is_empty() {
                assert_eq!(encode(&ops), bytes);
            }
            // Whatever is lost at the end, what is read is the beginning.
            let cut = random(bytes.len() + 1);
            if let Ok(some) = decode(&bytes[..cut]) {
                assert!(ops.starts_with(&some), "{cut}");
            }
        }
    }

    #[test]
    fn a_packet_takes_as_much_as_the_kernel_and_no_more() {
        let mut packed = Packed::default();
        let fitting = (0..300).take_while(|number| packed.push(OpKind::Descriptor, &number.to_string())).count();
        assert_eq!(fitting, MAX_DESCRIPTORS);
        // What needs no descriptor still goes.
        assert!(packed.push(OpKind::Gone, "0"));

        let longest = "x".repeat(MAX_NAME);
        let mut packed = Packed::default();
        let fitting = (0..300).take_while(|_| packed.push(OpKind::Blob, &longest)).count();
        assert_eq!(fitting, (MAX_PACKET - 1) / (HEAD + MAX_NAME));
        assert!(!packed.push(OpKind::Gone, &longest));
        let left = MAX_PACKET - packed.bytes.len() - HEAD;
        assert!(packed.push(OpKind::Gone, &"y".repeat(left)));
        let bytes = packed.bytes();
        assert_eq!((bytes.len(), decode(bytes).map(|ops| ops.len())), (MAX_PACKET, Ok(fitting + 1)));
        packed.clear();
        assert_eq!((packed.is_empty(), packed.descriptors()), (true, 0));
        assert!(packed.push(OpKind::Blob, &longest), "the next packet is empty");
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let list = |bytes: &[u8]| decode(&[&[PACKED], bytes].concat());
        let good = [1, 2, 0, 0, 0, b'a', b'b'];
        assert_eq!(list(&good), Ok(vec![op(OpKind::Descriptor, "ab")]));
        assert_eq!(list(&[]), Ok(vec![]));
        for (bytes, why) in [
            (&[&good[..], &[3, 0, 0, 0, 0]].concat()[..], "a list of names with an entry of the kind 3, which this version does not know"),
            (&[&good[..], &good[..6]].concat(), "a list of names that is cut short after 1 of them"),
            (&good[..4], "a list of names that is cut short after 0 of them"),
            (&[0], "a list of names that is cut short after 0 of them"),
            (&[2, 255, 255, 255, 255], "a list with a name of 4294967295 bytes, and a name has no more than 255"),
            (&[&[2, 0, 1, 0, 0], &[b'x'; 256][..]].concat(), "a list with a name of 256 bytes, and a name has no more than 255"),
            (&[1, 2, 0, 0, 0, b'a', 0xff], "a list with a name that is no text (invalid utf-8 sequence of 1 bytes from index 1)"),
            (&[1, 0, 0, 0, 0].repeat(254), "a list that names more than the 253 descriptors that go with a packet"),
        ] {
            assert_eq!(list(bytes), Err(why.to_owned()));
        }
        // Those that are gone are as many as fit.
        let many = if cfg!(miri) { 300 } else { 9000 };
        assert_eq!(list(&[0, 0, 0, 0, 0].repeat(many)).map(|ops| ops.len()), Ok(many));
    }
}
