//! An end for a case that does not end by itself: what is waited for has a deadline, but not what the kernel is asked to do.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use pollflip_kit::harness::Service;
use pollflip_kit::hub::{DEADLINE, Hub};

/// Some waits one after the other, each of which may take its time on a busy machine.
const LIMIT: Duration = DEADLINE.saturating_mul(4);

/// Bites unless it is dropped in time: it tells the whole story, and kills the service, on which whoever waits then fails.
#[derive(Debug)]
pub struct Watchdog {
    _over: Sender<()>,
}

impl Watchdog {
    pub fn new(case: String, service: &Service) -> Watchdog {
        let (over, is_over) = channel();
        let (hub, group): (Arc<Hub>, u32) = (service.hub.clone(), service.first().pid);
        thread::spawn(move || {
            if is_over.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{case}: no end after {LIMIT:?}; so far:\n{}", hub.story());
                // All of it may have ended.
                let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
            }
        });
        Watchdog { _over: over }
    }
}
