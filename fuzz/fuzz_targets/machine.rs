//! Any history of inputs, against the model and the laws.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pollflip_tests_pure::model::machine(data)));
