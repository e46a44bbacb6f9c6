//! Any stream on the coordination socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pollflip_tests_pure::model::bytes::coordination(data)));
