//! UDP groups over real restarts: whose a datagram is, and what becomes of those of processes that end, stop or fail.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is a server of flows (`service`). Protocol and load
//! are those of the example `udp_flows`.

#[cfg(target_arch = "x86_64")]
mod every_call;
mod failing;
mod flows;
mod kept;
mod peer;
mod service;

use std::process::ExitCode;

use pollflip_kit::surroundings;

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [
        flows::trials(),
        failing::trials(),
        kept::trials(),
        #[cfg(target_arch = "x86_64")]
        every_call::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
