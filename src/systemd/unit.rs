//! Whether the unit that this process runs in lets it name its successor.
//!
//! Knows: what systemd leaves in the environment of the process that it starts. Does not know: what the unit says. That cannot be seen
//! from here: systemd answers a barrier even of a process whose other messages it throws away.

use std::process;

use nix::unistd::getppid;

use super::environment::{INVOCATION, STARTED, believed};

/// Whether systemd has started this very process and takes no notifications from it: it would take the end of this process for that of
/// the service, and kill a successor. `heard`: there is somebody to notify.
pub(super) fn is_deaf(heard: bool) -> bool {
    let by_systemd = match started() {
        Some(pid) => pid == process::id(),
        None => believed(INVOCATION).is_some() && getppid().as_raw() == 1,
    };
    by_systemd && !heard
}

/// The process that systemd started.
fn started() -> Option<u32> {
    believed(STARTED)?.to_str()?.parse().ok()
}

/// Said once, when the first generation is ready.
pub(super) fn warn_of_deafness(heard: bool) {
    if is_deaf(heard) {
        log::warn!(
            target: "pollflip",
            "systemd takes no notifications from this service: after a restart it would take the end of this process for the end of the \
             service, and kill the successor; set Type=notify or NotifyAccess=main in the unit, or PIDFile= and RestartConfig::pid_file"
        );
    }
    if let Some(wrapper) = started().filter(|pid| heard && getppid().as_raw() == *pid as i32) {
        log::warn!(
            target: "pollflip",
            "systemd has started process {wrapper}, a wrapper, and this process from that: unless the unit sets NotifyAccess=all, it does \
             not listen to this one, and takes the end of the wrapper for that of the service; let the wrapper exec the program"
        );
    }
}
