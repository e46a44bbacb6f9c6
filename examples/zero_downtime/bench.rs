//! Puts the server to the test. `run.rs` directs, `service.rs` runs the server as a process of its
//! own, `load.rs` is its clients, `tally.rs` and `report.rs` tell what came of it, and
//! `bad_release.rs` is a release that must not be committed.

mod bad_release;
mod load;
mod report;
mod run;
mod service;
mod tally;

pub(crate) use bad_release::{CRASH_AFTER, crash_after};
pub(crate) use run::{LoadOptions, Options, load, run};
