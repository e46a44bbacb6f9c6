//! Any life of a real restarter on a simulated system, against the model.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;
#[path = "../../tests/simulation/mod.rs"]
mod simulation;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(simulation::life(data)));
