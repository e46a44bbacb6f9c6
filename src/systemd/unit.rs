//! Whether the unit that this process runs in lets it name its successor.
//!
//! Knows: what systemd leaves in the environment of the process that it starts. Does not know: what the unit says. That cannot be seen
//! from here: systemd answers a barrier even of a process whose other messages it throws away.

use std::fs;
use std::process;

use nix::unistd::getppid;

use crate::sys;

use super::environment::{INVOCATION, STARTED, believed, guard};

/// Whether systemd has started this very process and takes no notifications from it: it would take the end of this process for that of
/// the service, and kill a successor. `heard`: there is somebody to notify.
pub(super) fn is_deaf(heard: bool) -> bool {
    let by_systemd = match started() {
        Some(pid) => pid == process::id(),
        None => believed(INVOCATION).is_some() && getppid().as_raw() == 1,
    };
    by_systemd && !heard
}

/// Whether a guard has started this very process and cannot be told anything from here. It would take the end of this process for that of
/// the service, whatever a pid file says.
pub(super) fn guard_is_deaf(is_heard: impl FnOnce() -> bool) -> bool {
    guard() == Some(getppid().as_raw() as u32) && !is_heard()
}

/// The namespace that every process is in on a machine without containers: the kernel gives it this number.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether the manager knows processes by other numbers than this process does: it is in a PID namespace further out. Where that cannot be
/// seen, it does not.
pub(super) fn numbers_differ() -> bool {
    let own = process::id();
    let is_in_first = fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST_NAMESPACE);
    // The guard takes only descendants that it can see.
    if is_in_first || guard().is_some_and(|guard| sys::descends_from(own, guard)) {
        return false;
    }
    if !sys::proc_is_ours() {
        // It is that of a namespace further out, and tells the numbers in all of them.
        return has_several_numbers();
    }
    // It may be hidden (ProtectProc=).
    let is_other_init = || fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() != "systemd");
    started().is_some_and(|pid| pid != own && !sys::descends_from(own, pid) && is_other_init())
}

fn has_several_numbers() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).is_some_and(|numbers| numbers.split_whitespace().count() > 1)
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
