//! Any message of a service to its guard.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pollflip_tests_pure::supervision::notification(data));
