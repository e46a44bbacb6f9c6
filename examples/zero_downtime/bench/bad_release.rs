//! A release that crashes when it has the service.

use nix::sys::resource::{Resource, setrlimit};
use std::process;
use std::thread;
use std::time::Duration;

/// So long a bad release serves.
pub(crate) const CRASH_AFTER: Duration = Duration::from_millis(200);

/// Ends this process so long after this, in its own way, and leaves no core file behind.
pub(crate) fn crash_after(time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        process::abort();
    });
}
