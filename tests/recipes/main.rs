//! The recipes (`src/recipes.rs`) with real processes: each order that it gives is kept through many restarts, and through restarts that fail.
//!
//! This binary is both sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the service under test (`service`), which does
//! what its `recipe` says. The harness is that of `tests/process`.

#![allow(unreachable_pub, reason = "the modules of one test binary")]

/// The trials of a module, by the names of its functions.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(libtest_mimic::Trial::test(
                format!("{}::{}", module_path!().trim_start_matches("recipes::"), stringify!($name)),
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
#[allow(dead_code, reason = "shared with tests/process")]
#[path = "../process/surroundings.rs"]
mod surroundings;

mod addresses;
mod helpers;
mod locks;
mod scheduling;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [locks::trials(), addresses::trials(), helpers::trials(), scheduling::trials()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
