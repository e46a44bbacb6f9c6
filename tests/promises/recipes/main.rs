//! The recipes (`src/recipes.rs`) with real processes: each order that it gives is kept through many restarts, and through restarts that fail.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the service under test (`service`), which does
//! what its `Recipe` says.

mod addresses;
mod helpers;
mod locks;
mod scheduling;
mod service;

use std::process::ExitCode;

use pollflip_kit::surroundings;

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [locks::trials(), addresses::trials(), helpers::trials(), scheduling::trials()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
