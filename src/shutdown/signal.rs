//! Signals: who wants to hear of the shutdown.
//!
//! Knows: the two moments that concern those who work, and the ways to wait for them. Does not know: who else waits, handles.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mio::event::Source;
use mio::{Interest, Registry, Token};

use super::bell::Bell;
use super::handle::{ShutdownHandle, WeakShutdownHandle};
use super::moments::{Moment, Moments, ShutdownMoment};

/// Tells that the shutdown has begun, and that it is forced.
///
/// It can be asked, awaited, waited for by a thread, or registered in a `mio::Poll`. Registered, it becomes readable when the shutdown
/// begins and stays so; an edge-triggered poll, as mio's is, reports it once more when the forced phase begins, and at once if it is
/// registered late. The descriptor (an eventfd) is made at the first registration and closed with the signal; each clone makes its own, so
/// clones can be registered in one poll, but one signal only once (`AlreadyExists`). Register it as `Interest::READABLE`.
///
/// ```
/// use mio::{Events, Interest, Poll, Token};
/// use pollflip::shutdown::ShutdownCoordinator;
///
/// let mut poll = Poll::new()?;
/// let coordinator = ShutdownCoordinator::new();
/// let mut signal = coordinator.signal();
/// poll.registry().register(&mut signal, Token(7), Interest::READABLE)?;
/// let _shutdown = coordinator.shutdown();
/// let mut events = Events::with_capacity(8);
/// poll.poll(&mut events, None)?;
/// assert!(events.iter().any(|event| event.token() == Token(7)) && signal.is_shutdown());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ShutdownSignal {
    moments: Arc<Moments>,
    bell: Bell,
    /// The next phase for `on_shutdown`.
    unreported: Option<Moment>,
}

/// A signal of no shutdown: it never tells anything.
impl Default for ShutdownSignal {
    fn default() -> ShutdownSignal {
        ShutdownSignal::of(&Arc::new(Moments::new()))
    }
}

/// As [`ShutdownHandle::signal`](super::ShutdownHandle::signal).
impl From<&ShutdownHandle> for ShutdownSignal {
    fn from(handle: &ShutdownHandle) -> ShutdownSignal {
        handle.signal()
    }
}

/// As [`WeakShutdownHandle::signal`](super::WeakShutdownHandle::signal).
impl From<&WeakShutdownHandle> for ShutdownSignal {
    fn from(handle: &WeakShutdownHandle) -> ShutdownSignal {
        handle.signal()
    }
}

impl ShutdownSignal {
    pub(super) fn of(moments: &Arc<Moments>) -> Self {
        let bell = Bell::new(moments, &[Moment::Shutdown, Moment::Forced]);
        Self { moments: Arc::clone(moments), bell, unreported: Some(Moment::Shutdown) }
    }

    /// Whether the shutdown has begun.
    pub fn is_shutdown(&self) -> bool {
        self.moments.has_reached(Moment::Shutdown)
    }

    /// Whether the forced phase has begun: stop now, not when it is convenient.
    pub fn is_forced(&self) -> bool {
        self.moments.has_reached(Moment::Forced)
    }

    /// Resolves once for each phase that this signal has not reported yet: when the shutdown begins, the next time when it is forced, and
    /// then never again. So it can be awaited in a loop that goes on to finish its work.
    ///
    /// A phase counts as reported when the future has resolved. A future that is dropped before that, in
    /// a `select!`, say, has reported nothing. If both phases have begun when the first future is
    /// awaited, that one and the next resolve at once: ask [`is_forced`](Self::is_forced).
    ///
    /// ```
    /// # async fn next_request() -> Option<()> { None }
    /// # async fn answer(_: ()) {}
    /// # async fn select<A, B>(_: impl Future<Output = A>, _: impl Future<Output = B>) -> Result<A, B> { todo!() }
    /// use pollflip::shutdown::ShutdownHandle;
    ///
    /// async fn serve(handle: ShutdownHandle) {
    ///     let mut signal = handle.signal();
    ///     loop {
    ///         match select(next_request(), signal.on_shutdown()).await {
    ///             Ok(Some(request)) => answer(request).await,
    ///             Ok(None) => return,
    ///             Err(()) if signal.is_forced() => return,
    ///             Err(()) => {} // what the client still asks is answered, unless that is cut short
    ///         }
    ///     }
    /// }
    /// ```
    pub fn on_shutdown(&mut self) -> OnShutdown<'_> {
        let next = self.unreported.map(|phase| ShutdownMoment::new(&self.moments, phase));
        OnShutdown { signal: self, next }
    }

    /// A future of its own, for storing: resolves when the shutdown begins, and at once if it has. It reports nothing in the sense of
    /// [`on_shutdown`](Self::on_shutdown).
    pub fn begun(&self) -> ShutdownMoment {
        ShutdownMoment::new(&self.moments, Moment::Shutdown)
    }

    /// The same for the forced phase. Without one it never resolves.
    pub fn forced(&self) -> ShutdownMoment {
        ShutdownMoment::new(&self.moments, Moment::Forced)
    }

    /// Blocks the thread until the shutdown begins.
    pub fn wait(&self) {
        self.moments.wait(Moment::Shutdown);
    }

    /// The descriptor that becomes readable when the shutdown begins, and once more, for reactors
    /// that are edge-triggered, when it is forced; to be nested in a reactor other than mio. Only
    /// to be watched: reading it takes the readiness away.
    ///
    /// It is an eventfd made at the first call and closed with the signal, and the one that is
    /// registered in a `mio::Poll`.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be made; this is a copy in a forked child.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.bell.descriptor()
    }

    /// Blocks the thread until the forced phase begins: for ever, if none does.
    pub fn wait_forced(&self) {
        self.moments.wait(Moment::Forced);
    }
}

/// The clone hears of the same shutdown, has reported nothing yet, and is registered nowhere.
impl Clone for ShutdownSignal {
    fn clone(&self) -> Self {
        Self::of(&self.moments)
    }
}

impl Source for ShutdownSignal {
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

impl fmt::Debug for ShutdownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.moments.describe(f, "ShutdownSignal")
    }
}

/// The future of [`ShutdownSignal::on_shutdown`]. Polled after it has resolved, it stays pending.
#[must_use = "futures do nothing unless polled"]
pub struct OnShutdown<'a> {
    signal: &'a mut ShutdownSignal,
    /// `None` when there is nothing left to report.
    next: Option<ShutdownMoment>,
}

impl Future for OnShutdown<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(next) = &mut this.next else { return Poll::Pending };
        let result = Pin::new(next).poll(context);
        if result.is_ready() {
            this.next = None;
            this.signal.unreported = match this.signal.unreported {
                Some(Moment::Shutdown) => Some(Moment::Forced),
                _ => None,
            };
        }
        result
    }
}

impl fmt::Debug for OnShutdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnShutdown").field("signal", &self.signal).finish_non_exhaustive()
    }
}
