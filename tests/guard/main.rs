//! The guard with real processes: as an ordinary child, as PID 1 of a container, on a terminal,
//! under runit, s6 and supervisord.
//!
//! This binary is all sides: without `POLLFLIP_TEST_ROLE` it runs the tests, with it it is the
//! service under test (`service`), or one who tells the guard nonsense (`speaker`), one that counts
//! signals (`counter`), one that stores descriptors (`storer`), one that keeps
//! all it has (`keeping`), or a program with a guard within (`embedded`).
//!
//! Tests that need root, a namespace or a supervisor say so when they skip: `cargo test --test
//! guard -- --nocapture`. The same prints the figures.

mod bad_input;
mod confined;
mod containers;
mod crashes;
mod damaged;
mod embedded;
mod ends;
mod figures;
mod keeping;
mod kept;
mod killed;
mod kit;
mod policies;
mod restarts;
mod speaker;
mod stored;
mod storer;
mod strangers;
mod supervisors;
mod surrounded;
mod terminals;

use std::process::ExitCode;

use pollflip_kit::{service, surroundings};

fn main() -> ExitCode {
    match std::env::var(service::ROLE).as_deref() {
        Ok("service") => return service::main(),
        Ok("speaker") => return speaker::main(),
        Ok("counter") => return speaker::count_signals(),
        Ok("keeping") => return keeping::main(),
        Ok("storer") => return storer::main(),
        Ok("embedded") => return embedded::main(),
        Ok(other) => panic!("no such role: {other}"),
        Err(_) => {}
    }
    let arguments = surroundings::prepare();
    let trials = [
        ends::trials(),
        crashes::trials(),
        containers::trials(),
        policies::trials(),
        confined::trials(),
        surrounded::trials(),
        embedded::trials(),
        strangers::trials(),
        stored::trials(),
        kept::trials(),
        killed::trials(),
        restarts::trials(),
        damaged::trials(),
        bad_input::trials(),
        terminals::trials(),
        supervisors::trials(),
        figures::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
