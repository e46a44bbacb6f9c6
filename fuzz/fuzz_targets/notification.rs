//! Any message of a service to its guard.
#![no_main]

#[path = "../../tests/supervision/mod.rs"]
mod supervision;

libfuzzer_sys::fuzz_target!(|data: &[u8]| supervision::notification(data));
