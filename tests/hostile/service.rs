//! The service under test: that of the kit, which can also give up rights and its coordination socket's path once its restarter is built.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use pollflip::RestartConfig;
use pollflip_kit::service::act::spawn_directly;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{self, Capability, Core, Settings};
use serde::{Deserialize, Serialize};

use crate::confine::{Confine, Deny};

pub use pollflip_kit::service::{COORDINATION, DIRECTORY, HUB, ROLE, SETTINGS};

pollflip_kit::settings![GivePath, GoFirstTo, KeepVariables];

/// The time on the clock that all processes share, in nanoseconds.
pub fn clock() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    now.as_nanos() as u64
}

pub fn main() -> ExitCode {
    service::main_with(|_| Box::new(Extras))
}

/// Gives the path of its coordination socket to that user, once it has a restarter.
#[derive(Debug, Serialize, Deserialize)]
pub struct GivePath(pub Option<u32>);

/// It goes there before it has a restarter.
#[derive(Debug, Serialize, Deserialize)]
pub struct GoFirstTo(pub PathBuf);

/// It has what makes a successor this service set for one that inherits nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeepVariables;

/// What it does besides.
struct Extras;

impl Capability for Extras {
    fn born(&mut self, settings: &Settings) {
        if let Some(denied) = settings.get::<Deny>() {
            denied.apply();
        }
    }

    fn before_build(&mut self, settings: &Settings) {
        if let Some(GoFirstTo(path)) = settings.get() {
            std::env::set_current_dir(path).expect("a directory");
        }
    }

    fn complete(&mut self, settings: &Settings, mut config: RestartConfig) -> RestartConfig {
        if settings.has::<KeepVariables>() {
            for name in [ROLE, DIRECTORY, SETTINGS] {
                config = config.env(name, std::env::var_os(name).expect("a variable of this test"));
            }
        }
        config
    }

    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        if let Some(GivePath(Some(user))) = core.settings.get() {
            std::os::unix::fs::chown(service::directory().join(COORDINATION), Some(user), None).expect("another owner");
        }
        Ok(())
    }

    fn claimed(&mut self, core: &mut Core) {
        if let Some(how) = core.settings.get::<Confine>() {
            work_beside(how.clone());
            how.this_thread();
        }
        say(&format!("begins-ready {}", clock()));
    }
}

/// Another thread of the program, with no more rights than the loop.
fn work_beside(how: Confine) {
    let worker = thread::Builder::new().name("worker".into());
    let run = move || {
        how.this_thread();
        say(&format!("worker {}", spawn_directly()));
        loop {
            thread::park();
        }
    };
    worker.spawn(run).expect("a thread");
}
