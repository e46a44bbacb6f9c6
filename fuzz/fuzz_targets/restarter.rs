//! Any life of a real restarter on a simulated system, against the model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(pollflip_tests_pure::simulation::life(data)));
