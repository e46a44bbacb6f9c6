//! Any interleaving of the old process and the new one, under the laws of the pair.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pollflip_tests_pure::pair::life(data)));
