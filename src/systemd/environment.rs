//! What of the environment is believed where the caller of this process may have chosen it.
//!
//! Knows: the variables that this crate reads, and the form that a service manager gives them. Does
//! not know: what they are for.
//!
//! A process that has gained rights (`sys::has_gained_rights`) can be started by anybody, with any
//! environment. This is all that the crate reads of that, and what it makes of it there:
//!
//! | variable | what is believed | what a caller gains who has made it up |
//! | --- | --- | --- |
//! | `NOTIFY_SOCKET` | an absolute path, or an abstract name | learns how the restarts go, or has this process tell somebody else of them |
//! | `SYSTEMD_EXEC_PID` | a number | restarts are refused |
//! | `INVOCATION_ID` | 32 hexadecimal digits | the same |
//! | `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` | that there are descriptors, if the first names this process; each must be a socket that root has made | names for sockets that root has given to the caller |
//! | `POLLFLIP_GUARDED`, `POLLFLIP_GUARD`, `POLLFLIP_LAST_END`, `POLLFLIP_STRIKES` | nothing: there is no guard | |
//! | `FDSTORE` | nothing: there is no keeper | |
//! | `POLLFLIP_LIFELINE` | that there is a lifeline; its other end must prove that it has the rights of this process | no more than a refused start |
//! | `POLLFLIP_BIRTH` | nothing | |
//!
//! The first three are handed down to a successor, and nothing else is: the rest of them are about
//! one process.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::sys;

/// Where the manager of this process listens: systemd, or a guard.
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Names the process that systemd has started; from version 248 on.
pub(super) const STARTED: &str = "SYSTEMD_EXEC_PID";
/// In the environment of each service; from version 232 on.
pub(super) const INVOCATION: &str = "INVOCATION_ID";

/// The process id of the [guard](crate::guard) above this process.
pub(crate) const GUARDED: &str = "POLLFLIP_GUARDED";

/// The guard that the environment names.
pub(crate) fn guard() -> Option<u32> {
    believed(GUARDED)?.to_str()?.parse().ok()
}

/// A variable of the service manager, if it is there and can be believed.
pub(super) fn believed(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !sys::has_gained_rights() || has_its_form(name, value))
}

/// Those that can be believed, which a successor of a process that has gained rights gets too.
pub(crate) fn handed_down() -> Vec<(OsString, OsString)> {
    [NOTIFY_SOCKET, STARTED, INVOCATION].into_iter().filter_map(|name| Some((name.into(), believed(name)?))).collect()
}

/// Whether a service manager could have written that.
fn has_its_form(name: &str, value: &OsStr) -> bool {
    let value = value.as_bytes();
    match name {
        // A relative path would mean one of the caller's directory.
        NOTIFY_SOCKET => matches!(value.first(), Some(b'/' | b'@')),
        STARTED => !value.is_empty() && value.iter().all(u8::is_ascii_digit),
        INVOCATION => value.len() == 32 && value.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_service_manager_writes_is_told_apart() {
        let id = "0123456789abcdef0123456789abcdef";
        for (name, value) in [(NOTIFY_SOCKET, "/run/systemd/notify"), (NOTIFY_SOCKET, "@name"), (STARTED, "1"), (INVOCATION, id)] {
            assert!(has_its_form(name, value.as_ref()), "{name}={value}");
        }
        let wrong = [(NOTIFY_SOCKET, ""), (NOTIFY_SOCKET, "notify"), (STARTED, ""), (STARTED, "-1"), (INVOCATION, ""), (INVOCATION, "x")];
        for (name, value) in wrong.into_iter().chain([(INVOCATION, &id[1..]), ("PATH", "/bin")]) {
            assert!(!has_its_form(name, value.as_ref()), "{name}={value}");
        }
    }
}
