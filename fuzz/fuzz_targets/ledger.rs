//! Any bytes in the place of a ledger.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pollflip_tests_pure::ledger::any_bytes(data));
