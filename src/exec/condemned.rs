//! Processes that must die, and that no thread of this process was allowed to kill.
//!
//! Knows: when the kill is tried again, and by which thread. Does not know: why they must die, or who
//! reaps them.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::{self, Process};

use super::{Exec, Order, Shared};

/// How soon a process that must die, and that no thread was allowed to kill, is killed again. It may
/// become another user.
pub(crate) const KILL_AGAIN: Duration = Duration::from_millis(500);

/// A process that must die.
#[derive(Debug)]
pub(super) struct Condemned {
    pub(super) process: Arc<Process>,
    /// It has been said that nobody here may kill it.
    is_told: bool,
}

impl Condemned {
    pub(super) fn new(process: Arc<Process>) -> Condemned {
        Condemned { process, is_told: false }
    }
}

/// For people.
pub(crate) fn unkillable(pid: u32) -> String {
    format!(
        "process {pid} must end, and this process may not kill it (it has become another user, or a sandbox forbids pidfd_send_signal): \
         kill it by hand"
    )
}

impl Exec {
    /// Whether that process must die and nobody here may kill it.
    pub(crate) fn cannot_kill(&self, pid: u32) -> bool {
        self.shared.desk().condemned.iter().any(|condemned| condemned.process.pid() == pid)
    }

    /// Has a child killed that this thread may not kill: the restart thread has rights that others may
    /// have given up. If the restart thread may not kill it either, or is gone, the kill is tried
    /// [again](Exec::kill_again) until the child has ended. The one who watches the child reaps it.
    pub(crate) fn kill(&self, process: &Arc<Process>) {
        self.order_to_kill(Condemned::new(process.clone()));
    }

    /// Kills those that no thread was allowed to kill, if it is time to try again.
    pub(crate) fn kill_again(&self) {
        let condemned = {
            let mut desk = self.shared.desk();
            if desk.next_kill.take_if(|at| sys::now() >= *at).is_none() {
                return;
            }
            mem::take(&mut desk.condemned)
        };
        for condemned in condemned.into_iter().filter(|Condemned { process, .. }| !process.has_ended() && !process.kill()) {
            self.order_to_kill(condemned);
        }
    }

    fn order_to_kill(&self, condemned: Condemned) {
        if let Err(Order::Kill(condemned)) = self.order(Order::Kill(condemned)) {
            self.shared.condemn(condemned);
        }
    }

    /// How long until [`Exec::kill_again`] is needed.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.shared.desk().next_kill.map(|at| at.saturating_duration_since(sys::now()))
    }
}

impl Shared {
    /// Has a process killed again a little later that must die and that may not be killed now.
    pub(super) fn condemn(&self, mut condemned: Condemned) {
        if !mem::replace(&mut condemned.is_told, true) {
            let pid = condemned.process.pid();
            log::error!("{}; it is tried again until process {pid} has ended", unkillable(pid));
        }
        let mut desk = self.desk();
        desk.next_kill.get_or_insert_with(|| sys::now() + KILL_AGAIN);
        desk.condemned.push(condemned);
        drop(desk);
        // For the timer.
        self.wake_loop();
    }
}
