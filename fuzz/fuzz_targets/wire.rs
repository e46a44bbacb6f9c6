//! Any packet on the lifeline.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pollflip_tests_pure::model::bytes::wire(data)));
