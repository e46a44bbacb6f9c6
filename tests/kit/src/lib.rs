//! What tests with real processes are made of. Not published: the crate does not depend on it.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`service`] | the service under test: what a process does at which step |
//! | [`harness`] | a service as a test sees it: started, restarted, at the end killed and reaped |
//! | [`hub`] | where the processes of a service tell what they do, and are told what to do |
//! | [`group`] | any other program under test, by what it prints |
//! | [`client`] | who connects to a service |
//! | [`manager`] | the service manager, as a test plays it |
//! | [`procfs`] | what the kernel tells of a process |
//! | `debugger` | a process that is stopped at each of its system calls |
//! | [`surroundings`] | what all tests take for granted of the machine |
//! | [`trials!`] | the tests of a module |

pub mod client;
#[cfg(target_arch = "x86_64")]
pub mod debugger;
pub mod group;
pub mod harness;
pub mod hub;
pub mod manager;
pub mod procfs;
pub mod service;
pub mod surroundings;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{env, process, thread};

pub use libtest_mimic::Trial;

/// The trials of a module, by the names of its functions: `trials![one, another; ignored: one_that_takes_long]`.
#[macro_export]
macro_rules! trials {
    ($($name:ident),* $(,)? $(; ignored: $($long:ident),* $(,)?)?) => {
        pub fn trials() -> Vec<$crate::Trial> {
            vec![
                $($crate::trial(module_path!(), stringify!($name), $name),)*
                $($($crate::trial(module_path!(), stringify!($long), $long).with_ignored_flag(true),)*)?
            ]
        }
    };
}

/// A trial that is a function of a module of a test program.
pub fn trial(module: &str, name: &str, run: fn()) -> Trial {
    let module = module.split_once("::").map_or(module, |(_, module)| module);
    let name = format!("{module}::{name}");
    Trial::test(name.clone(), move || {
        let (ends, over) = mpsc::channel::<()>();
        thread::spawn(move || {
            if over.recv_timeout(limit()) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} has not ended after {:?}: is something waited for that does not come?", limit());
                process::exit(101);
            }
        });
        run();
        drop(ends);
        Ok(())
    })
}

/// A trial that hangs ends the test program, which would say nothing otherwise.
fn limit() -> Duration {
    let set = env::var("POLLFLIP_TRIAL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(600))
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
