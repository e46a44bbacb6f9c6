//! A world that means no good: threads without rights, clients that attack, containers, terminals, crowds of old generations, odd deploys.
//!
//! This binary is all sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the service under test (`service`), a service
//! whose loop may make no system call but those of the guide (`listed`), one who attacks (`attacker`, `forger`, `idle`), or one who starts
//! a service that has more rights than its caller (`caller`).
//!
//! Tests that need root or a namespace say so when they skip: `cargo test --test hostile -- --nocapture`. The same prints the figures.

mod attacker;
mod attacks;
mod callers;
mod confine;
mod containers;
mod deploys;
mod draining;
mod held_up;
mod launch;
#[cfg(target_pointer_width = "64")]
mod listed;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod needed;
#[cfg(target_arch = "x86_64")]
mod numbers;
mod origin;
mod paths;
mod pid_file;
mod privileges;
mod races;
mod relative;
#[cfg(target_pointer_width = "64")]
mod sandboxes;
mod releases;
mod secrets;
mod service;
mod short_memory;
#[cfg(target_pointer_width = "64")]
mod syscalls;
mod terminals;

use std::process::ExitCode;

use pollflip_kit::surroundings;

fn main() -> ExitCode {
    match std::env::var(service::ROLE).as_deref() {
        Ok("service") => return service::main(),
        #[cfg(target_pointer_width = "64")]
        Ok("listed") => return listed::main(),
        Ok("attacker") => return attacker::main(),
        Ok("caller") => return callers::main(),
        Ok(origin::FORGER) => return origin::main(),
        Ok(origin::IDLE) => origin::idle(),
        Ok(other) => panic!("no such role: {other}"),
        Err(_) => {}
    }
    let arguments = surroundings::prepare();
    let trials = [
        privileges::trials(),
        attacks::trials(),
        containers::trials(),
        deploys::trials(),
        draining::trials(),
        held_up::trials(),
        launch::trials(),
        origin::trials(),
        paths::trials(),
        pid_file::trials(),
        #[cfg(target_arch = "x86_64")]
        numbers::trials(),
        races::trials(),
        relative::trials(),
        #[cfg(target_pointer_width = "64")]
        sandboxes::trials(),
        releases::trials(),
        secrets::trials(),
        short_memory::trials(),
        terminals::trials(),
        #[cfg(target_pointer_width = "64")]
        syscalls::trials(),
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        needed::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// Whether this process is root; says aloud which test is skipped if it is not.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped {test}: it needs root");
    }
    root
}
