//! Graceful shutdown, for programs with and without an async runtime.
//!
//! Knows: who still has work under way (handles), who wants to hear of the end (signals), and the one who waits for all of them
//! (`Shutdown`). Does not know: why the program ends, sockets, restarts, any runtime, any clock but that of [`Shutdown::wait`].
//!
//! ```text
//!               shutdown()                        force()
//!   running ────────────────▶ shutting down ────────────────▶ forced      signals hear of both
//!                                    └─────────── last handle dropped ──▶ the Shutdown is finished
//! ```
//!
//! Each unit of work (a connection, a job) holds a [`ShutdownHandle`] and drops it when it is done. A part of the program that wants to know that the end has
//! come asks, awaits, waits for or registers a [`ShutdownSignal`].
//!
//! ```
//! use pollflip::shutdown::ShutdownCoordinator;
//! use std::{thread, time::Duration};
//!
//! let coordinator = ShutdownCoordinator::new();
//! for _ in 0..4 {
//!     let handle = coordinator.handle();
//!     thread::spawn(move || {
//!         handle.signal().wait(); // serves until it is told to stop
//!     });
//! }
//! let shutdown = coordinator.shutdown();
//! if let Err(left) = shutdown.wait(Duration::from_secs(30)) {
//!     eprintln!("{left} connections would not end");
//!     shutdown.force();
//! }
//! ```
//!
//! What happens at the edges:
//!
//! * **A coordinator dropped without [`shutdown`](ShutdownCoordinator::shutdown)** is not a shutdown: signals stay quiet, now for ever, and
//!   handles stay valid and count for nobody. Work is never ended by accident.
//! * **Handles cloned while shutting down** are counted and waited for: a unit of work may split up to finish. Weak handles give out no
//!   more.
//! * **When the last handle is gone** the shutdown is finished, and stays so. Signals go on telling what they told; [`Shutdown::force`] still
//!   reaches them.
//! * **A dropped [`Shutdown`]** takes nothing back: the phase remains, only nobody waits for the handles any more, and a forced phase that
//!   had not begun will never come.
//! * **Handles never freed** (`std::mem::forget`, a reference cycle) are counted as work under way; hence the limit of [`Shutdown::wait`].
//!
//! # In a forked child
//!
//! A child that is forked has copies of all of this, and the copies do nothing: no lock is taken, nothing is written that the parent can
//! see, nobody is woken and nobody waits. The shutdown of the parent goes on as if there were no child, which can drop its copies or leave
//! them. A coordinator that the child makes works in full.
//!
//! What a copy answers, and whatever is made from it, is what was so at the fork:
//!
//! | call | in a forked child |
//! | --- | --- |
//! | [`shutdown`](ShutdownCoordinator::shutdown), [`force`](Shutdown::force), dropping a handle | changes no phase |
//! | [`is_shutdown`](ShutdownSignal::is_shutdown), [`is_forced`](ShutdownSignal::is_forced), [`Shutdown::poll`] | the phase at the fork, for ever |
//! | [`Shutdown::remaining`] | the handles at the fork, less those that the child has dropped since |
//! | [`Shutdown::wait`] | returns at once: an error of at least one, if the shutdown was not finished at the fork |
//! | [`ShutdownSignal::wait`], [`wait_forced`](ShutdownSignal::wait_forced) | returns at once |
//! | futures | ready if the phase had come at the fork; otherwise pending, and never woken |
//! | [`Shutdown::descriptor`], [`ShutdownSignal::descriptor`], registering and deregistering | an error, of the kind `Unsupported` |

mod bell;
mod handle;
mod moments;
mod signal;

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use bell::Bell;
use handle::Work;
use moments::{Moment, Moments};

pub use handle::{ShutdownHandle, WeakShutdownHandle};
pub use moments::ShutdownMoment;
pub use signal::{OnShutdown, ShutdownSignal};

/// Gives out handles and signals, and begins the shutdown.
///
/// ```
/// use pollflip::shutdown::ShutdownCoordinator;
///
/// let coordinator = ShutdownCoordinator::new();
/// let handle = coordinator.handle();
/// let shutdown = coordinator.shutdown();
/// assert_eq!(shutdown.remaining(), 1);
/// drop(handle);
/// assert!(shutdown.poll().is_ready());
/// ```
pub struct ShutdownCoordinator {
    work: Arc<Work>,
}

impl ShutdownCoordinator {
    /// A coordinator with no handles yet. Takes no descriptor.
    pub fn new() -> Self {
        Self { work: Arc::new(Work::new()) }
    }

    /// A handle for one unit of work: the shutdown waits until it and all its clones are dropped.
    pub fn handle(&self) -> ShutdownHandle {
        ShutdownHandle::of(&self.work)
    }

    /// A handle for what may start work but need not be waited for, such as a thread that accepts connections.
    pub fn handle_weak(&self) -> WeakShutdownHandle {
        WeakShutdownHandle::of(&self.work)
    }

    /// A signal, for a part of the program that wants to know of the shutdown and need not be waited for.
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal::of(&self.work.moments)
    }

    /// Begins the shutdown: every signal hears of it before this returns.
    ///
    /// Tasks that await a signal are woken on this thread.
    pub fn shutdown(self) -> Shutdown {
        let moments = Arc::clone(&self.work.moments);
        let work = Arc::downgrade(&self.work);
        moments.reach(Moment::Shutdown);
        // Our own share goes only now: weak handles have been refusing since the line above, so the count can reach zero once, and with
        // nothing about to start.
        drop(self.work);
        Shutdown {
            work,
            finished: ShutdownMoment::new(&moments, Moment::Finished),
            bell: Bell::new(&moments, &[Moment::Finished]),
            moments,
        }
    }
}

impl Default for ShutdownCoordinator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ShutdownCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownCoordinator").field("handles", &(Arc::strong_count(&self.work) - 1)).finish()
    }
}

/// A shutdown under way: finished when the last handle is dropped.
///
/// It can be polled by hand, awaited (by whichever task polled it last), waited for by a thread with a time limit, or registered in a
/// `mio::Poll`, where it becomes readable when it is finished, and stays so.
///
/// ```
/// use pollflip::shutdown::ShutdownCoordinator;
/// use std::time::Duration;
///
/// let coordinator = ShutdownCoordinator::new();
/// let (handle, signal) = (coordinator.handle(), coordinator.signal());
/// let shutdown = coordinator.shutdown();
/// assert_eq!(shutdown.wait(Duration::from_millis(10)), Err(1));
/// shutdown.force();
/// assert!(signal.is_forced());
/// drop(handle);
/// assert_eq!(shutdown.wait(Duration::from_millis(10)), Ok(()));
/// ```
#[must_use = "a shutdown is waited for, or ends with the work half done"]
pub struct Shutdown {
    work: Weak<Work>,
    moments: Arc<Moments>,
    finished: ShutdownMoment,
    bell: Bell,
}

impl Shutdown {
    /// Whether all handles are gone, without waiting: for loops that look once a turn.
    pub fn poll(&self) -> Poll<()> {
        if self.moments.has_reached(Moment::Finished) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How many handles are left, clones counted each.
    pub fn remaining(&self) -> usize {
        self.work.strong_count()
    }

    /// Blocks the thread until all handles are gone, or the limit has passed: then the error is how many are left, at least one. The
    /// shutdown goes on either way and can be waited for again.
    pub fn wait(&self, limit: Duration) -> Result<(), usize> {
        if !self.moments.wait_for(Moment::Finished, limit) {
            match self.remaining() {
                // The last one is being dropped at this moment; what is left of it is no wait to speak of.
                0 if self.moments.is_here() => self.moments.wait(Moment::Finished),
                left => return Err(left.max(1)),
            }
        }
        Ok(())
    }

    /// Begins the forced phase: signals hear of it, and the wait for the handles goes on. Again is a no-op.
    ///
    /// Tasks that await a signal are woken on this thread.
    pub fn force(&self) {
        self.moments.reach(Moment::Forced);
    }

    /// The descriptor that becomes readable when the shutdown is finished, to be nested in a reactor other than mio. Only to be watched:
    /// reading it takes the readiness away.
    ///
    /// It is an eventfd made at the first call and closed with the `Shutdown`; the error is that of making it.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.bell.descriptor()
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.finished).poll(context)
    }
}

impl Source for Shutdown {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.bell.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.bell.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.bell.deregister(registry)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("remaining", &self.remaining()).field("forced", &self.moments.has_reached(Moment::Forced)).finish()
    }
}
