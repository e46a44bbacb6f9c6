//! UDP groups over real restarts: whose a datagram is, and what becomes of those of processes that end, stop or fail.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is a server of flows (`service`). Protocol and load
//! are those of the example `udp_flows`.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

/// The trials of a module, by the names of its functions.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(libtest_mimic::Trial::test(
                format!("{}::{}", module_path!().trim_start_matches("udp::"), stringify!($name)),
                || { $name(); Ok(()) },
            )),*]
        }
    };
}

#[path = "../process/client.rs"]
#[allow(dead_code, reason = "shared with tests/process")]
mod client;
#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/udp_flows/clients.rs"]
mod clients;
#[allow(dead_code, reason = "shared with tests/process")]
#[cfg(target_arch = "x86_64")]
#[path = "../process/debugger.rs"]
mod debugger;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/hub.rs"]
mod hub;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/procfs.rs"]
mod procfs;
#[allow(dead_code, reason = "shared with the example")]
#[path = "../../examples/udp_flows/protocol.rs"]
mod protocol;
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/service/report.rs"]
mod report;
#[path = "../process/surroundings.rs"]
mod surroundings;

#[cfg(target_arch = "x86_64")]
mod every_call;
mod failing;
mod flows;
mod peer;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [
        flows::trials(),
        failing::trials(),
        #[cfg(target_arch = "x86_64")]
        every_call::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
