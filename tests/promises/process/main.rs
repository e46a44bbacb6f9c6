//! Tests with real processes, sockets and signals.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the service under test (`service`), and so
//! are its successors, which inherit the variable. What a process does at which step is written in a plan (`pollflip_kit::service::Plan`); what it
//! does and sees it tells over a socket of the test's own (`hub`), so that its standard output stays the crate's to leave empty.
//!
//! `cargo test --test process -- promise_03` runs the tests of one promise, `--ignored` the long ones.

mod activation;
mod api;
mod chain;
mod claims;
mod coordination;
mod coordination_path;
mod deaths;
mod deploy;
mod descriptors;
mod drops;
mod environment;
mod failures;
mod given_up;
mod in_time;
mod loop_turns;
mod memory;
mod notify;
mod path_over_restarts;
mod programs;
mod requests;
#[cfg(target_arch = "x86_64")]
mod restart_thread;
mod signals;
mod sockets;

use std::process::ExitCode;

use pollflip_kit::{service, surroundings};

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [
        chain::trials(),
        failures::trials(),
        programs::trials(),
        deploy::trials(),
        descriptors::trials(),
        memory::trials(),
        requests::trials(),
        api::trials(),
        drops::trials(),
        loop_turns::trials(),
        signals::trials(),
        deaths::trials(),
        given_up::trials(),
        in_time::trials(),
        sockets::trials(),
        claims::trials(),
        activation::trials(),
        environment::trials(),
        coordination::trials(),
        coordination_path::trials(),
        path_over_restarts::trials(),
        notify::trials(),
        #[cfg(target_arch = "x86_64")]
        restart_thread::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
