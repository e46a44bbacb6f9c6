//! The datagrams: one byte with the mark and the kind, then numbers.

use pollflip::Mark;

/// The high half of the first byte, which a client copies from what the server has sent it.
pub const MARK_BITS: u8 = 0xf0;
pub const MARK: Mark = Mark::byte(0, MARK_BITS);

/// Of a client: a flow begins, goes on, ends.
pub const BEGIN: u8 = 1;
pub const DATA: u8 = 2;
pub const END: u8 = 3;
/// Of a server: the same back; or "I know no such flow, begin anew".
pub const UNKNOWN: u8 = 4;

#[derive(Clone, Copy)]
pub struct Datagram {
    /// Where it stands in the first byte.
    pub mark: u8,
    pub kind: u8,
    pub flow: u32,
    pub number: u32,
    /// The process that answers.
    pub pid: u32,
}

impl Datagram {
    pub fn encode(self) -> [u8; 13] {
        let mut bytes = [0; 13];
        bytes[0] = self.mark & MARK_BITS | self.kind & !MARK_BITS;
        bytes[1..5].copy_from_slice(&self.flow.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.number.to_be_bytes());
        bytes[9..].copy_from_slice(&self.pid.to_be_bytes());
        bytes
    }

    /// `None`: it is none of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [first, flow @ .., _, _, _, _, _, _, _, _] = bytes.first_chunk::<13>()?;
        let number = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
        Some(Self {
            mark: first & MARK_BITS,
            kind: first & !MARK_BITS,
            flow: u32::from_be_bytes(*flow),
            number: number(5)?,
            pid: number(9)?,
        })
    }
}
