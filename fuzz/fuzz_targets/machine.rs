//! Any history of inputs, against the model and the laws.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(model::machine(data)));
