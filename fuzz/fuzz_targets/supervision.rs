//! Any life of a guarded service, against the laws.
#![no_main]

#[path = "../../tests/supervision/mod.rs"]
mod supervision;

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervision::life(data));
