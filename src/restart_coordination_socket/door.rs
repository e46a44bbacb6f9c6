//! Who may ask at all, and what the log hears of the others.

use std::fs;
use std::time::Duration;

use mio::net::UnixStream;
use nix::libc;
use nix::unistd::geteuid;

use crate::sys;

/// How often it is logged that somebody was turned away.
const WARNING: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Door {
    /// Everybody whom this user namespace has no number for.
    overflow_uid: u32,
    /// Since then so many have been turned away in silence.
    warned: Option<Duration>,
    unmentioned: u64,
}

impl Door {
    pub(super) fn new() -> Door {
        let overflow_uid = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
        Door { overflow_uid: overflow_uid.unwrap_or(65534), warned: None, unmentioned: 0 }
    }

    /// Why that client may not ask: it is neither root nor the user of this process.
    pub(super) fn refusal(&mut self, stream: &UnixStream, now: Duration) -> Option<String> {
        let known = sys::may_fail(&[libc::EACCES]).and_then(|()| sys::peer_uid(stream));
        let why = match known {
            Ok(uid) if uid != self.overflow_uid && (uid == 0 || uid == geteuid().as_raw()) => return None,
            Ok(uid) if uid == geteuid().as_raw() => format!(
                "user {uid} may not ask, although the service runs as that user: processes of other user namespaces look like it too. Ask \
                 as root, or give the service another user"
            ),
            Ok(uid) => format!("user {uid} may not ask; root and the user of the service may"),
            Err(error) => format!("it cannot be found out who asks (getsockopt): {error}"),
        };
        self.warn(&why, now);
        Some(why)
    }

    /// Anybody can come and be turned away without end, and the log is not for that.
    fn warn(&mut self, why: &str, now: Duration) {
        if self.warned.is_some_and(|at| now < at + WARNING) {
            self.unmentioned += 1;
            return;
        }
        let others = match std::mem::take(&mut self.unmentioned) {
            0 => String::new(),
            count => format!(" ({count} others were, since this was last logged)"),
        };
        self.warned = Some(now);
        log::warn!("a client of the coordination socket is refused: {why}{others}");
    }
}
