//! State and live connections that go from one real process to the next, or stay where they are.
//!
//! This binary is all sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is a service that holds connections (`service`),
//! gives them (`giving`) and takes them (`taking`), or a process that speaks the wire itself (`raw`, `dialects`). What a process does
//! differently from the others is in its settings; what it does and sees it tells over the hub, as in `tests/process`, whose parts
//! these are.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

/// The trials of a module, by the names of its functions.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(libtest_mimic::Trial::test(
                format!("{}::{}", module_path!().trim_start_matches("handover::"), stringify!($name)),
                || { $name(); Ok(()) },
            )),*]
        }
    };
}

#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/hub.rs"]
mod hub;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/procfs.rs"]
mod procfs;
#[path = "../process/surroundings.rs"]
mod surroundings;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/service/report.rs"]
mod report;

mod ahead;
mod blobs;
mod copying;
mod crossing;
mod deaths;
mod dialects;
mod failing;
mod giving;
mod limits;
mod names;
mod player;
mod raw;
mod rehearsal;
mod service;
mod successors;
mod taking;
mod versions;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [
        crossing::trials(),
        failing::trials(),
        names::trials(),
        ahead::trials(),
        blobs::trials(),
        successors::trials(),
        limits::trials(),
        deaths::trials(),
        versions::trials(),
        rehearsal::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
