//! Any life of a guarded service, against the laws.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pollflip_tests_pure::supervision::life(data));
