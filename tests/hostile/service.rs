//! The service under test: that of the kit, which can also give up rights and its coordination socket's path once its restarter is built.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use pollflip::{RestartConfig, Restarter};
use pollflip_kit::service::act::spawn_directly;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{self, Capability, Settings};
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
    service::main_with(|settings| Box::new(Extras::new(settings)))
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

/// What it has besides.
struct Extras {
    confine: Option<Confine>,
    deny: Option<Deny>,
    give_path: Option<u32>,
    go_first_to: Option<GoFirstTo>,
    keeps_variables: bool,
}

impl Extras {
    fn new(settings: &Settings) -> Extras {
        Extras {
            confine: settings.get(),
            deny: settings.get(),
            give_path: settings.get().and_then(|GivePath(user)| user),
            go_first_to: settings.get(),
            keeps_variables: settings.has::<KeepVariables>(),
        }
    }
}

impl Capability for Extras {
    fn born(&mut self) {
        if let Some(denied) = &self.deny {
            denied.apply();
        }
    }

    fn before_build(&mut self) {
        if let Some(GoFirstTo(path)) = &self.go_first_to {
            std::env::set_current_dir(path).expect("a directory");
        }
    }

    fn complete(&mut self, mut config: RestartConfig) -> RestartConfig {
        if self.keeps_variables {
            for name in [ROLE, DIRECTORY, SETTINGS] {
                config = config.env(name, std::env::var_os(name).expect("a variable of this test"));
            }
        }
        config
    }

    fn built(&mut self, _: &mut Restarter) -> Result<(), String> {
        if let Some(user) = self.give_path {
            std::os::unix::fs::chown(service::directory().join(COORDINATION), Some(user), None).expect("another owner");
        }
        Ok(())
    }

    fn claimed(&mut self) {
        if let Some(how) = &self.confine {
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
