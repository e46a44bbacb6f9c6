//! The service under test: that of the kit, which can also give up rights and its coordination socket's path once its restarter is built,
//! keep a pid file, and keep itself.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use pollflip::{RestartConfig, Restarter};
use pollflip_kit::service::act::spawn_directly;
use pollflip_kit::service::report::say;
use pollflip_kit::service::settings::Settings;
use pollflip_kit::service::{self, Capability};

use crate::confine;

pub use pollflip_kit::service::{COORDINATION, DIRECTORY, HUB, ROLE, SETTINGS};

/// The time on the clock that all processes share, in nanoseconds.
pub fn clock() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    now.as_nanos() as u64
}

pub fn main() -> ExitCode {
    service::main_with(|settings| Box::new(Extras::new(settings)))
}

/// What it has besides, by the settings `confine`, `deny`, `give_path`, `pid_file`, `keep` (its variables), `keeps` (descriptors),
/// `chdir_first`.
struct Extras {
    confine: Option<String>,
    deny: Option<String>,
    give_path: Option<String>,
    pid_file: Option<String>,
    chdir_first: Option<String>,
    keeps_variables: bool,
    keeps: bool,
}

impl Extras {
    fn new(settings: &Settings) -> Extras {
        let get = |key| settings.get(key).map(String::from);
        Extras {
            confine: get("confine"),
            deny: get("deny"),
            give_path: get("give_path"),
            pid_file: get("pid_file"),
            chdir_first: get("chdir_first"),
            keeps_variables: settings.get("keep").is_some(),
            keeps: settings.get("keeps").is_some(),
        }
    }
}

impl Capability for Extras {
    fn born(&mut self) {
        if let Some(what) = &self.deny {
            confine::deny(what);
        }
    }

    fn before_build(&mut self) {
        if let Some(path) = &self.chdir_first {
            std::env::set_current_dir(path).expect("a directory");
        }
    }

    fn complete(&mut self, mut config: RestartConfig) -> RestartConfig {
        if let Some(path) = &self.pid_file {
            config = config.pid_file(path);
        }
        if self.keeps {
            config = config.keep(true);
        }
        // What makes a successor this service, where it inherits nothing.
        if self.keeps_variables {
            for name in [ROLE, DIRECTORY, SETTINGS] {
                config = config.env(name, std::env::var_os(name).expect("a variable of this test"));
            }
        }
        config
    }

    fn built(&mut self, _: &mut Restarter) -> Result<(), String> {
        if let Some(user) = &self.give_path {
            let directory = std::env::var(DIRECTORY).expect("a directory");
            std::os::unix::fs::chown(format!("{directory}/{COORDINATION}"), user.parse().ok(), None).expect("another owner");
        }
        Ok(())
    }

    fn claimed(&mut self) {
        if let Some(how) = &self.confine {
            work_beside(how.clone());
            confine::this_thread(how);
        }
        say(&format!("begins-ready {}", clock()));
    }
}

/// Another thread of the program, with no more rights than the loop.
fn work_beside(how: String) {
    let worker = thread::Builder::new().name("worker".into());
    let run = move || {
        confine::this_thread(&how);
        say(&format!("worker {}", spawn_directly()));
        loop {
            thread::park();
        }
    };
    worker.spawn(run).expect("a thread");
}
