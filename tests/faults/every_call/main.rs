//! A process that is stopped at each of its system calls, and what happens to the other meanwhile.
//!
//! `cargo test --test every_call -- killed` runs the tests whose names have that word.

#[cfg(target_arch = "x86_64")]
mod calls;

use std::process::ExitCode;

use pollflip_kit::{service, surroundings};

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    let trials = [
        #[cfg(target_arch = "x86_64")]
        calls::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
