//! Any interleaving of the old process and the new one, under the laws of the pair.
#![no_main]

#[path = "../../tests/pair/mod.rs"]
mod pair;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pair::life(data)));
