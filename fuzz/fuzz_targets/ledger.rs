//! Any bytes in the place of a ledger.
#![no_main]

#[path = "../../tests/ledger/mod.rs"]
mod ledger;

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledger::any_bytes(data));
