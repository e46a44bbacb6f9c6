//! Signals: who wants to hear of the shutdown.
//!
//! Knows: the two moments that concern those who work, and the ways to wait for them. Does not know: who else waits, handles.

use std::fmt;
use std::io;
use std::sync::Arc;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use super::bell::Bell;
use super::moments::{Moment, Moments, Signalled};

/// Tells that the shutdown has begun, and that it is forced.
///
/// It can be asked, awaited, waited for by a thread, or registered in a [`mio::Poll`]. Registered, it becomes readable when the shutdown
/// begins and stays so; an edge-triggered poll, as mio's is, reports it once more when the forced phase begins, and at once if it is
/// registered late. The descriptor (an eventfd) is made at the first registration and closed with the signal; each clone makes its own, so
/// clones can be registered in one poll, but one signal only once (`AlreadyExists`). Register it as [`Interest::READABLE`].
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
}

impl ShutdownSignal {
    pub(super) fn of(moments: &Arc<Moments>) -> Self {
        Self { moments: Arc::clone(moments), bell: Bell::new(moments, &[Moment::Shutdown, Moment::Forced]) }
    }

    /// Whether the shutdown has begun.
    pub fn is_shutdown(&self) -> bool {
        self.moments.has_reached(Moment::Shutdown)
    }

    /// Whether the forced phase has begun: stop now, not when it is convenient.
    pub fn is_forced(&self) -> bool {
        self.moments.has_reached(Moment::Forced)
    }

    /// Resolves when the shutdown begins, and at once each time after that.
    ///
    /// A loop that goes on after it saw the shutdown must not await it again, since it would spin without ever giving way to the executor:
    /// then it is [`on_forced`](Self::on_forced) that it waits for.
    ///
    /// ```
    /// # async fn next_request() -> Option<()> { None }
    /// # async fn select<A, B>(_: impl Future<Output = A>, _: impl Future<Output = B>) -> Result<A, B> { todo!() }
    /// use pollflip::shutdown::ShutdownHandle;
    ///
    /// async fn serve(handle: ShutdownHandle) {
    ///     let signal = handle.signal();
    ///     while let Ok(Some(_request)) = select(next_request(), signal.on_shutdown()).await {}
    ///     // No new requests; what is left to send is sent, unless that is cut short.
    ///     let _ = select(async { /* flush */ }, signal.on_forced()).await;
    /// }
    /// ```
    pub fn on_shutdown(&self) -> Signalled {
        Signalled::new(&self.moments, Moment::Shutdown)
    }

    /// Resolves when the forced phase begins, and at once each time after that. Without one it never does.
    pub fn on_forced(&self) -> Signalled {
        Signalled::new(&self.moments, Moment::Forced)
    }

    /// Blocks the thread until the shutdown begins.
    pub fn wait(&self) {
        self.moments.wait(Moment::Shutdown);
    }

    /// Blocks the thread until the forced phase begins: for ever, if none does.
    pub fn wait_forced(&self) {
        self.moments.wait(Moment::Forced);
    }
}

/// The clone hears of the same shutdown, and is registered nowhere.
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
