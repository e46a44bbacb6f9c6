//! The moments of a shutdown, and everyone who waits for one.
//!
//! Knows: which moments have come, tasks (wakers), threads (a condition variable) and bells (flags) that wait. Does not know: handles,
//! or in what order moments come. None is ever taken back. In a forked child none comes: nothing here is locked, woken or rung there.

use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::sys::{Flag, Origin};

#[derive(Clone, Copy)]
pub(super) enum Moment {
    Shutdown,
    Forced,
    Finished,
}

impl Moment {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

pub(super) struct Moments {
    /// The process that they come in.
    origin: Origin,
    /// A bit for each moment. Set under the lock, so that who looks under the lock before queueing cannot miss it; read without.
    reached: AtomicU8,
    waiting: Mutex<Waiting>,
    threads: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// By moment. Empty once the moment has come, and from then on.
    tasks: [Slab<Waker>; 3],
    bells: Slab<(u8, Arc<Flag>)>,
}

impl Moments {
    pub(super) fn new() -> Self {
        Self { origin: Origin::here(), reached: AtomicU8::default(), waiting: Mutex::default(), threads: Condvar::new() }
    }

    /// Whether they come in this process. In a forked child they do not.
    pub(super) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// An error in a forked child.
    pub(super) fn check_here(&self) -> io::Result<()> {
        self.origin.check("shutdown coordinator")
    }

    pub(super) fn has_reached(&self, moment: Moment) -> bool {
        // Acquire: a thread that sees that the work is finished sees what the work did.
        self.reached.load(Ordering::Acquire) & moment.bit() != 0
    }

    /// The moment has come: all who wait for it learn of it. Again is a no-op, so no bell rings twice.
    pub(super) fn reach(&self, moment: Moment) {
        if !self.is_here() {
            return;
        }
        let mut waiting = self.lock();
        if self.has_reached(moment) {
            return;
        }
        self.reached.fetch_or(moment.bit(), Ordering::Release);
        for (_, (rings_for, bell)) in &waiting.bells {
            if rings_for & moment.bit() != 0 {
                // It is never taken back, so it stays readable.
                bell.raise();
            }
        }
        self.threads.notify_all();
        let tasks = mem::take(&mut waiting.tasks[moment as usize]);
        // A waker is foreign code: it may poll or drop what comes back to this lock.
        drop(waiting);
        for (_, waker) in tasks {
            // One that panics has told so by itself, and nobody else would wake the others.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Until the moment has come.
    pub(super) fn wait(&self, moment: Moment) {
        if !self.is_here() {
            return;
        }
        let waiting = self.lock();
        let done = self.threads.wait_while(waiting, |_| !self.has_reached(moment));
        drop(done.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the moment came before the limit.
    pub(super) fn wait_for(&self, moment: Moment, limit: Duration) -> bool {
        if self.is_here() {
            let waiting = self.lock();
            let done = self.threads.wait_timeout_while(waiting, limit, |_| !self.has_reached(moment));
            drop(done.unwrap_or_else(PoisonError::into_inner));
        }
        self.has_reached(moment)
    }

    /// A descriptor that is readable from the first of these moments on, and its place here.
    pub(super) fn hang_bell(&self, moments: &[Moment]) -> io::Result<(Arc<Flag>, usize)> {
        self.check_here()?;
        let rings_for = moments.iter().fold(0, |bits, moment| bits | moment.bit());
        let mut waiting = self.lock();
        let late = self.reached.load(Ordering::Acquire) & rings_for != 0;
        let bell = Arc::new(Flag::new(late)?);
        let place = waiting.bells.insert((rings_for, Arc::clone(&bell)));
        Ok((bell, place))
    }

    pub(super) fn take_bell_down(&self, place: usize) {
        if self.is_here() {
            self.lock().bells.try_remove(place);
        }
    }

    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("shutdown", &self.has_reached(Moment::Shutdown))
            .field("forced", &self.has_reached(Moment::Forced))
            .finish()
    }

    /// No foreign code runs under this lock, so a poisoned one has lost nothing. A forked child must not ask for it: another thread may have
    /// held it at the fork.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Moments {
    fn drop(&mut self) {
        if !self.is_here() {
            // To drop a waker is foreign code too: it may ask for a lock of its executor.
            let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(mem::take(&mut waiting.tasks));
        }
    }
}

/// A future for one phase of a shutdown, made by [`ShutdownSignal::begun`](super::ShutdownSignal::begun) or
/// [`forced`](super::ShutdownSignal::forced).
///
/// It borrows nothing, can be polled by changing tasks (the last one is woken) and after it is ready (then it is ready again), and leaves
/// nothing behind when it is dropped. It costs no descriptor. A forked child's copy is never woken.
///
/// ```
/// use pollflip::shutdown::{ShutdownCoordinator, ShutdownMoment};
///
/// struct Connection {
///     closing: ShutdownMoment, // to be polled with everything else
/// }
/// let coordinator = ShutdownCoordinator::new();
/// let connection = Connection { closing: coordinator.signal().begun() };
/// # drop(connection.closing);
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ShutdownMoment {
    moments: Arc<Moments>,
    moment: Moment,
    /// Where our waker is, from the first pending poll on. Meaningless once the moment has come.
    place: Option<usize>,
}

impl ShutdownMoment {
    pub(super) fn new(moments: &Arc<Moments>, moment: Moment) -> Self {
        Self { moments: Arc::clone(moments), moment, place: None }
    }
}

impl Future for ShutdownMoment {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.moments.has_reached(this.moment) {
            return Poll::Ready(());
        }
        if !this.moments.is_here() {
            return Poll::Pending;
        }
        // Cloned before the lock and, if it replaces another, that one dropped after it: a waker is foreign code.
        let mut waker = context.waker().clone();
        let mut waiting = this.moments.lock();
        if this.moments.has_reached(this.moment) {
            return Poll::Ready(());
        }
        let tasks = &mut waiting.tasks[this.moment as usize];
        match this.place.and_then(|place| tasks.get_mut(place)) {
            Some(ours) => mem::swap(ours, &mut waker),
            None => this.place = Some(tasks.insert(waker)),
        }
        drop(waiting);
        Poll::Pending
    }
}

impl Drop for ShutdownMoment {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Skips the lock in the rush after a shutdown, when all these futures go at once.
        if self.moments.has_reached(self.moment) || !self.moments.is_here() {
            return;
        }
        // The guard ends with this statement, before the waker: it may be the last to hold a task that owns a future of ours.
        let _waker = self.moments.lock().tasks[self.moment as usize].try_remove(place);
    }
}

impl fmt::Debug for ShutdownMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownMoment").field("ready", &self.moments.has_reached(self.moment)).finish()
    }
}
