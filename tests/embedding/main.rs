//! The restarter and the task in every kind of loop, with real processes.
//!
//! This binary is all sides: without `POLLFLIP_EMBEDDING_ROLE` it runs the tests. With `loop NAME` it is a service around one of the
//! `loops` or `tasks`, which `exercise` puts to the test from outside, and with `half NAME` one that takes one event per wake-up.
//! With `case NAME` it is a process that tests itself from within. Successors inherit the variable.
//!
//! `cargo test --test embedding -- --nocapture exercise` prints what an idle loop costs.

/// The cases of a module: those of the child by name, and the trials that run them.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, fn(&$crate::case::Case))] = &[$((stringify!($name), $name)),*];
    };
}

mod case;
mod child;
mod crowd;
mod examples;
mod executors;
mod exercise;
mod gate;
mod half;
mod hooks;
mod limits;
mod loops;
mod proxy;
mod scripts;
mod task;
mod tasks;
mod threads;

use std::process::ExitCode;

use libtest_mimic::Trial;
use pollflip_kit::{group, surroundings};

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(group::ROLE) {
        return child::main(&role);
    }
    let arguments = surroundings::prepare();
    let trial = |name: String, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let mut trials: Vec<Trial> = exercise::names()
        .map(|name| {
            Trial::test(format!("exercise::{name}"), move || {
                exercise::run(name);
                Ok(())
            })
        })
        .collect();
    trials.extend(exercise::names().map(|name| {
        Trial::test(format!("one_event_per_wake_up::{name}"), move || {
            half::run(name);
            Ok(())
        })
    }));
    #[cfg(target_arch = "x86_64")]
    trials.push(trial("an_idle_tick_is_one_system_call".into(), exercise::an_idle_tick_is_one_system_call));
    trials.extend(case::all().map(|(name, _)| {
        Trial::test(format!("case::{name}"), move || {
            group::run_case(name);
            Ok(())
        })
    }));
    trials.extend(examples::TRIALS.iter().chain(proxy::TRIALS).map(|(name, run)| trial(format!("example::{name}"), *run)));
    trials.extend(scripts::TRIALS.iter().map(|(name, run)| trial(format!("script::{name}"), *run)));
    libtest_mimic::run(&arguments, trials).exit_code()
}
