//! Copies that forked children have: they do nothing to the parent, wait for nothing, and do not keep the child from having its own.
//!
//! This binary is all sides: without `POLLFLIP_EMBEDDING_ROLE` it runs the tests, each as a process of its own that forks. With
//! `case NAME` it is such a process, or a successor of one. They are started by the kit (`tests/kit/src/group.rs`).
//!
//! Tests that need root, or a machine with system call filters, say so when they skip: `cargo test --test forks -- --nocapture`.

/// The cases of a module by name.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

mod child;
mod handover;
mod kernels;
mod ledger;
mod locks;
mod numbers;
mod restarter;
mod shutdown;
mod successor;

use std::process::ExitCode;

use libtest_mimic::Trial;
use pollflip_kit::{group, surroundings};

fn main() -> ExitCode {
    let modules = [
        ("shutdown", shutdown::CASES),
        ("locks", locks::CASES),
        ("restarter", restarter::CASES),
        ("handover", handover::CASES),
        ("numbers", numbers::CASES),
        ("kernels", kernels::CASES),
        ("ledger", ledger::CASES),
    ];
    let cases: Vec<_> =
        modules.iter().flat_map(|(module, cases)| cases.iter().map(move |(name, run)| (format!("{module}::{name}"), *run))).collect();
    if let Ok(role) = std::env::var(group::ROLE) {
        if std::env::var_os("POLLFLIP_LIFELINE").is_some() {
            return successor::main();
        }
        let (_, run) = cases.iter().find(|(name, _)| role.strip_prefix("case ") == Some(name)).expect("a case");
        // What another thread holds is not waited for at the end.
        std::process::exit(i32::from(std::panic::catch_unwind(run).is_err()));
    }
    let arguments = surroundings::prepare();
    let trial = |(name, _): (String, fn())| {
        Trial::test(name.clone(), move || {
            group::run_case(&name);
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, cases.into_iter().map(trial).collect()).exit_code()
}
