//! What the server makes of input, and what its clients expect: each byte of output depends on all
//! input before it. A byte that is lost, repeated or worked on twice makes all later ones wrong.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain(u64);

impl Chain {
    pub(crate) const START: Chain = Chain(0);

    /// The byte that answers the next one.
    pub(crate) fn answer(&mut self, byte: u8) -> u8 {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(1_099_511_628_211).wrapping_add(12_345);
        (self.0 >> 40) as u8
    }

    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_ne_bytes()
    }

    /// `None`: these bytes are none.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Chain> {
        Some(Chain(u64::from_ne_bytes(bytes.try_into().ok()?)))
    }
}

#[test]
fn each_answer_depends_on_all_input_before() {
    let answers = |input: &[u8]| {
        let mut chain = Chain::START;
        input.iter().map(|byte| chain.answer(*byte)).collect::<Vec<_>>()
    };
    let (one, other) = (answers(&[1; 40]), answers(&[&[2][..], &[1; 39]].concat()));
    assert_ne!(one[1..], other[1..]);
    assert_eq!(Chain::of_bytes(&Chain(7).to_bytes()), Some(Chain(7)));
}
