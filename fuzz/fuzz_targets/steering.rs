//! Any mark, any processes that live, and any datagram.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    model::steering::steering(data);
});
