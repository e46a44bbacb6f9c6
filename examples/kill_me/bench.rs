//! Puts the server to the test: `clients.rs` check each byte of its answers, `service.rs` has it run
//! by a guard or by systemd, `run.rs` kills and restarts it, and `figures.rs` tells what that cost.

mod clients;
mod figures;
mod run;
mod service;

pub(crate) use run::{Options, run};
