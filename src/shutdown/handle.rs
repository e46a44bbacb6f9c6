//! Handles: who still has work under way.
//!
//! Knows: how many there are. Does not know: what the work is, or who waits for it.

use std::fmt;
use std::sync::{Arc, Weak};

use super::moments::{Moment, Moments};
use super::signal::ShutdownSignal;

/// Held by a unit of work for as long as it must be waited for.
///
/// Cloning and dropping cost one atomic operation, from any thread, and 100,000 handles cost no more than memory. Each clone counts as one
/// in [`Shutdown::remaining`](super::Shutdown::remaining).
///
/// ```
/// use pollflip::shutdown::ShutdownCoordinator;
///
/// let coordinator = ShutdownCoordinator::new();
/// let handle = coordinator.handle();
/// let connection = std::thread::spawn(move || {
///     // … one connection …
///     drop(handle);
/// });
/// let shutdown = coordinator.shutdown();
/// assert_eq!(shutdown.wait(std::time::Duration::MAX), Ok(()));
/// # connection.join().unwrap();
/// ```
#[derive(Clone)]
pub struct ShutdownHandle {
    work: Arc<Work>,
}

/// A handle of no shutdown: nobody waits for it.
impl Default for ShutdownHandle {
    fn default() -> ShutdownHandle {
        ShutdownHandle { work: Arc::new(Work::new()) }
    }
}

impl ShutdownHandle {
    pub(super) fn of(work: &Arc<Work>) -> Self {
        Self { work: Arc::clone(work) }
    }

    /// The signal that tells this unit of work to finish.
    ///
    /// It does not keep the handle alive: hold both.
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal::of(&self.work.moments)
    }

    /// A handle to the same shutdown that need not be waited for.
    pub fn downgrade(&self) -> WeakShutdownHandle {
        WeakShutdownHandle::of(&self.work)
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.work.moments.describe(f, "ShutdownHandle")
    }
}

/// For what may start work but need not be waited for itself.
///
/// ```
/// use pollflip::shutdown::ShutdownCoordinator;
///
/// let coordinator = ShutdownCoordinator::new();
/// let weak = coordinator.handle_weak();
/// assert!(weak.upgrade().is_some());
/// let shutdown = coordinator.shutdown();
/// assert!(shutdown.poll().is_ready(), "the weak handle is not waited for");
/// assert!(weak.upgrade().is_none(), "and starts nothing any more");
/// ```
#[derive(Clone)]
pub struct WeakShutdownHandle {
    work: Weak<Work>,
    moments: Arc<Moments>,
}

impl WeakShutdownHandle {
    pub(super) fn of(work: &Arc<Work>) -> Self {
        Self { work: Arc::downgrade(work), moments: Arc::clone(&work.moments) }
    }

    /// A handle for new work, or `None` once the shutdown has begun (or can begin no more, because the coordinator and all handles are
    /// gone).
    ///
    /// Upgrade before taking the work on, not after: who accepts a connection first may have to turn it away.
    pub fn upgrade(&self) -> Option<ShutdownHandle> {
        // Asked first, so that a refusal is never seen as a handle by `remaining`. A call that began before the shutdown may still succeed
        // after it: the handle counts, and is waited for.
        if self.moments.has_reached(Moment::Shutdown) {
            return None;
        }
        self.work.upgrade().map(|work| ShutdownHandle { work })
    }

    /// A signal of the same shutdown.
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal::of(&self.moments)
    }
}

impl fmt::Debug for WeakShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.moments.describe(f, "WeakShutdownHandle")
    }
}

/// What handles share. Its own reference count is the number of handles (and one for the coordinator), so that a handle costs one atomic,
/// the count is exact, and exactly one drop sees that it was the last.
pub(super) struct Work {
    pub(super) moments: Arc<Moments>,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { moments: Arc::new(Moments::new()) }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.moments.reach(Moment::Finished);
    }
}
