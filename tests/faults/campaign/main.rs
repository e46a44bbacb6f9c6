//! Everything that can go wrong, at every step of a restart, to either process: a campaign with real processes.
//!
//! A case (`case`) is a step, a fault and whom it strikes. `world` brings a service to that step (its processes wait there until they
//! are told to go on), has the fault strike (`strike`, a thread in each process that does what it is told, whatever the others do),
//! lets all go on and judges what came of it: who serves, what the asker was told, what is left behind, and whether the next
//! restart works. `signals` does the same with storms of signals, `lost` with a commit that cannot be heard, `unread` with
//! what nobody has read yet, `full` with a grant that the kernel takes late, `dying` with an end that takes its time, `random` with chance.
//!
//! With `POLLFLIP_CAMPAIGN_GUARD=child` each service has a guard above it, with `POLLFLIP_CAMPAIGN_GUARD=init` as the first process of a PID
//! namespace, and all must come out the same (`guard`). `POLLFLIP_CAMPAIGN_EVERY=7` runs every seventh case.
//!
//! `cargo test --test campaign -- half` runs the cases of one step, `POLLFLIP_SEED=7 … --ignored` the random form with that seed.

mod asker;
mod case;
mod dying;
mod expected;
mod bad_release;
mod freeze;
mod full;
mod guard;
mod judge;
mod lost;
mod random;
mod raw;
mod service;
mod signals;
mod strike;
mod unread;
mod watchdog;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use pollflip_kit::surroundings;

/// Set to a number: only the first of each so many cases is run.
const EVERY: &str = "POLLFLIP_CAMPAIGN_EVERY";

/// How many cases have been run to their end.
static CASES: AtomicUsize = AtomicUsize::new(0);

/// A trial that is one case.
fn trial(name: String, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        CASES.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
}

fn main() -> ExitCode {
    if std::env::var_os(service::ROLE).is_some() {
        return service::main();
    }
    let arguments = surroundings::prepare();
    if guard::Above::wanted().is_some_and(|above| !above.is_possible()) {
        return ExitCode::SUCCESS;
    }
    let mut trials: Vec<Trial> = case::all().into_iter().map(|case| trial(case.name(), move || world::run(case))).collect();
    trials.extend(signals::trials());
    trials.extend(bad_release::trials());
    trials.extend(dying::trials());
    trials.extend(lost::trials());
    trials.extend(unread::trials());
    trials.extend(full::trials());
    trials.extend(random::trials());
    if let Ok(every) = std::env::var(EVERY) {
        trials = trials.into_iter().step_by(every.parse().expect("a number")).collect();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        println!("{} cases", CASES.load(Ordering::Relaxed));
    }
    conclusion.exit_code()
}
