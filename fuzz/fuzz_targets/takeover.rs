//! Any history of a process that takes over, against the model and the laws.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(model::takeover::takeover(data)));
