//! What the restart thread wakes where nothing else can: the loop, if its timer cannot be set, and a task
//! that cannot have a thread of its own.
//!
//! Knows: whom to wake, and when. Does not know: what that one does then.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::Exec;

impl Exec {
    /// Has the thread wake the loop after so long, since no timer can be set: at once if the thread is
    /// gone.
    pub(crate) fn wake_loop_in(&self, time: Duration) {
        let mut desk = self.shared.desk();
        if desk.ended || self.thread.is_none() {
            drop(desk);
            return self.shared.wake_loop();
        }
        desk.alarm = Some(Instant::now() + time);
        drop(desk);
        self.shared.changed.notify_all();
    }

    /// Has the thread call this waker, and no earlier one, after so long. It runs with the rights of the
    /// thread. `false`: the thread is gone.
    pub(crate) fn wake_in(&self, time: Duration, waker: &Waker) -> bool {
        // A waker is foreign code: it is cloned and dropped without the lock.
        let sleeper = (Instant::now() + time, waker.clone());
        let mut desk = self.shared.desk();
        let is_there = !desk.ended && self.thread.is_some();
        let unwanted = if is_there { desk.sleeper.replace(sleeper) } else { Some(sleeper) };
        drop(desk);
        self.shared.changed.notify_all();
        drop(unwanted);
        is_there
    }

    /// Has the thread call no waker any more.
    pub(crate) fn wake_nobody(&self) {
        let sleeper = self.shared.desk().sleeper.take();
        drop(sleeper);
    }
}
