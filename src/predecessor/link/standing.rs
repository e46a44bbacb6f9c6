//! How things stand with the predecessor, by what has come from it and by the time since.
//!
//! Knows: what silence means, and after how long. Does not know: how to read.

use std::time::Duration;

use crate::lifeline::DYING;
use crate::sys;

use super::{Inbox, Link};

/// A successor that has lost its lifeline so long ago is not killed for it any more, unless the predecessor is held up: that one has waited
/// for [`DYING`].
const LOST: Duration = DYING.saturating_mul(2);

/// How things stand with the predecessor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// This process has said that it can serve.
    pub(crate) said_ready: bool,
    pub(crate) granted: bool,
    /// It has said so, or would have if it could be heard, for it cannot take back what it has granted without a probation.
    pub(crate) committed: bool,
    /// It has ended.
    pub(crate) gone: bool,
    /// It has said so, whether or not it still lives; or it lives, and the lifeline was closed before it granted anything: by it, or by this
    /// process, which it then kills.
    pub(crate) gave_up: bool,
    /// The lifeline was lost between the grant and the commit, and it lives: nothing more will be heard of it but its end.
    pub(crate) lost: bool,
}

impl Inbox {
    /// So long after the end of the lifeline a process that has not been granted anything lives on. One that has closed it itself is killed
    /// for it before, unless the predecessor is held up.
    fn patience(&self) -> Duration {
        if self.strayed { LOST } else { DYING }
    }
}

impl Link {
    /// How long until [`Link::look`] is needed although nothing came.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let inbox = self.inbox.try_lock().ok()?;
        if inbox.gone || inbox.committed {
            return None;
        }
        let now = sys::now();
        match (inbox.closed, inbox.granted) {
            // Its descriptor tells when that is over.
            (Some(_), _) if inbox.dying => Some(inbox.looked.map_or(DYING, |looked| DYING.saturating_sub(now - looked))),
            (Some(since), None) => Some(inbox.patience().saturating_sub(now - since)),
            (Some(since), Some(_)) => Some(LOST.saturating_sub(now - since)),
            // A lifeline that this process closed itself does not announce its end. Nothing is missed as long as the commit is not due. It is
            // the same moment until somebody has looked, or a timer that has fired would be set anew.
            (None, Some(granted)) => {
                let due = granted.checked_add(self.probation().unwrap_or_default() + DYING)?;
                let next = inbox.looked.map_or(due, |looked| due.max(looked + DYING));
                Some(next.saturating_duration_since(now))
            }
            (None, None) => None,
        }
    }

    fn probation(&self) -> Option<Duration> {
        self.hello.probation_ms.map(Duration::from_millis)
    }

    pub(super) fn standing(&self, inbox: &Inbox) -> Standing {
        let granted = inbox.granted.is_some();
        let closed_for = |time| {
            let lived_on = inbox.closed.zip(inbox.looked).map(|(since, looked)| looked.saturating_duration_since(since));
            !inbox.gone && !inbox.dying && lived_on.is_some_and(|lived_on| lived_on >= time)
        };
        let lost = granted && !inbox.committed && closed_for(LOST);
        Standing {
            said_ready: self.said().ready,
            granted,
            // With a probation it may be held up, and would serve again if it found this process dead when it goes on, although this one had
            // been replaced in its turn: two would serve.
            committed: inbox.committed || (lost && self.probation().is_none()),
            gone: inbox.gone,
            gave_up: inbox.given_up || (!granted && closed_for(inbox.patience())),
            lost,
        }
    }
}
