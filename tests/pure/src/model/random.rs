//! Chance that can be had again.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// From `POLLFLIP_SEED`, or from anywhere; says which.
    pub fn seeded() -> Random {
        let seed = match std::env::var("POLLFLIP_SEED") {
            Ok(seed) => seed.parse().expect("POLLFLIP_SEED is a number"),
            Err(_) => RandomState::new().hash_one(()),
        };
        println!("to walk this way again: POLLFLIP_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.next() % items.len() as u64) as usize]
    }
}
