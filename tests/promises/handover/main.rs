//! State and live connections that go from one real process to the next, or stay where they are.
//!
//! This binary is all sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is a service that holds connections (`service`),
//! gives them (`giving`) and takes them (`taking`), or a process that speaks the wire itself (`raw`, `dialects`). What a process does
//! differently from the others is in its settings; what it does and sees it tells over the hub, as in `process`.

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

use pollflip_kit::surroundings;

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
