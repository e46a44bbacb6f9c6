//! Tests with real processes, sockets and signals.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the service under test (`service`), and so
//! are its successors, which inherit the variable. What a process does at which step is written in a plan (`service::plan`); what it
//! does and sees it tells over a socket of the test's own (`hub`), so that its standard output stays the crate's to leave empty.
//!
//! `cargo test --test process -- promise_03` runs the tests of one promise, `--ignored` the long ones.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

/// The trials of a module, by the names of its functions.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(
            format!("{}::{}", module_path!().trim_start_matches("process::"), stringify!($name)),
            || { $name(); Ok(()) },
        )),*]
    };
}

mod activation;
mod api;
mod chain;
mod claims;
mod client;
mod coordination;
mod coordination_path;
mod deaths;
#[cfg(target_arch = "x86_64")]
mod debugger;
mod deploy;
mod descriptors;
mod drops;
mod environment;
#[cfg(target_arch = "x86_64")]
mod every_call;
mod failures;
mod given_up;
mod harness;
mod hub;
mod in_time;
mod loop_turns;
mod manager;
mod memory;
mod notify;
mod path_over_restarts;
mod procfs;
mod programs;
mod requests;
#[cfg(target_arch = "x86_64")]
mod restart_thread;
mod service;
mod signals;
mod sockets;
mod surroundings;

use std::process::ExitCode;

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
        every_call::trials(),
        #[cfg(target_arch = "x86_64")]
        restart_thread::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
