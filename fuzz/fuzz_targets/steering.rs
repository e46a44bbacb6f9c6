//! Any mark, any processes that live, and any datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pollflip_tests_pure::model::steering::steering(data);
});
