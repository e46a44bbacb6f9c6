//! What client and server say: a request of 16 bytes, and an answer that names the process and then has the bytes of a file.
//!
//! A client asks on a stream of its own for each file. A server that has been replaced opens a stream on which it says nothing and ends it:
//! "ask for no more here" (as GOAWAY of HTTP/3).

/// What is spoken, as TLS names it.
pub const ALPN: &[u8] = b"pollflip-example";
/// The server has been replaced, and has waited long enough.
pub const MOVED: u32 = 1;
/// The server has been told to end.
pub const STOPPED: u32 = 2;
/// A request that is none.
pub const BAD_REQUEST: u32 = 3;

/// So many bytes of an answer come before the file.
pub const HEAD: usize = 8;
/// The longest file.
pub const LONGEST: u64 = 1 << 30;

/// A file is asked for: any number, and a length that the client chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Which one.
    pub file: u64,
    /// How many bytes of it.
    pub length: u64,
}

impl Request {
    /// As it is sent.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.file.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// `None`: it is no request.
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let [file, length] = bytes.as_chunks::<8>().0 else { return None };
        let request = Request { file: u64::from_be_bytes(*file), length: u64::from_be_bytes(*length) };
        (bytes.len() == 16 && request.length <= LONGEST).then_some(request)
    }
}

/// The process that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its process id.
    pub pid: u32,
    /// Its generation.
    pub generation: u32,
}

impl Head {
    /// As it is sent.
    pub fn encode(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.pid.to_be_bytes());
        bytes[4..].copy_from_slice(&self.generation.to_be_bytes());
        bytes
    }

    /// What was sent.
    pub fn decode(bytes: [u8; HEAD]) -> Head {
        let [a, b, c, d, e, f, g, h] = bytes;
        Head { pid: u32::from_be_bytes([a, b, c, d]), generation: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// The bytes of a file from an offset on. Both sides know them, so each byte can be compared.
pub fn content(file: u64, offset: u64, bytes: &mut [u8]) {
    let (mut place, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let word = mix(file ^ mix(place / 8)).to_le_bytes();
        let of_word = &word[(place % 8) as usize..];
        let count = of_word.len().min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&of_word[..count]);
        (place, rest) = (place + count as u64, later);
    }
}

/// A number that looks random, made of another one (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_in_whatever_pieces_it_is_made() {
        let mut whole = [0; 100];
        content(7, 0, &mut whole);
        for cut in 0..=100 {
            let mut pieces = [0; 100];
            let (one, two) = pieces.split_at_mut(cut);
            content(7, 0, one);
            content(7, cut as u64, two);
            assert_eq!(pieces, whole, "cut at {cut}");
        }
        let mut other = [0; 100];
        content(8, 0, &mut other);
        assert_ne!(other, whole);
    }

    #[test]
    fn what_is_no_request_is_none() {
        let request = Request { file: 3, length: LONGEST };
        let bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Some(request));
        assert_eq!(Request::decode(&bytes[..15]), None);
        assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Request::decode(&[&bytes[..], &[0; 8]].concat()), None);
        assert_eq!(Request::decode(&Request { file: 3, length: LONGEST + 1 }.encode()), None);
    }
}
