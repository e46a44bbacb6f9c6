//! The future-like form of a restarter, for programs that know it from shellflip.
//!
//! Knows: which events resolve a task, and which hooks they call. Does not know: how a restart goes. As a future it needs no runtime: a
//! thread that waits for the restarter's descriptor wakes the task that polled last. Polled by hand it needs no thread either.
//! Where that thread cannot be had, the restart thread wakes the task every now and then, and each poll
//! tries to start the missing one.

mod errand;
mod handler;
mod watcher;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::config::RestartConfig;
use crate::error::{Error, Refusal};
use crate::handover::{Arrival, Inheritance};
use crate::predecessor::startup_complete;
use crate::restarter::{Event, Restarter, Successor};

use errand::Errand;
use handler::Hooks;
pub use handler::{HookResult, LifecycleHandler};
use watcher::Watcher;

/// How soon a task is polled again that cannot have the thread that wakes it.
const RETRY: Duration = Duration::from_millis(100);

/// Makes a restart task: the same as [`RestartConfig::try_into_restart_task`].
///
/// # Errors
///
/// Those of [`RestartConfig::build`].
pub fn spawn_restart_task(config: RestartConfig) -> Result<RestartTask, Error> {
    config.try_into_restart_task()
}

impl RestartConfig {
    /// Makes the restarter and wraps it into a task: binds the coordination socket and starts the restart thread, so drop privileges
    /// after this.
    ///
    /// # Errors
    ///
    /// Those of [`RestartConfig::build`].
    pub fn try_into_restart_task(self) -> Result<RestartTask, Error> {
        self.build().map(RestartTask::from)
    }
}

/// A restart, to be polled beside other work.
///
/// - Its first poll puts the process into the ready state. It does not block: what was handed over may be touched when
///   [`Event::Granted`] has come, or when [`startup_complete`](crate::startup_complete) has returned.
/// - It resolves with the [`Successor`] when a restart has succeeded: finish the old work and end.
/// - Between the grant and that moment both processes have the listeners: for the length of a probation, and until systemd has taken the
///   new main process in (5 s at most). A program in which two must not accept meanwhile stops in
///   [`LifecycleHandler::new_process_granted`], and goes on in [`LifecycleHandler::new_process_failed`].
/// - It resolves with an error when no further restart is possible, which says why: also when somebody has asked for one, and was refused
///   for a [permanent](Refusal::is_permanent) reason. The process can go on serving, unless it is [`Error::GivenUp`]: then it should end.
/// - The state of the predecessor is received before the first poll, with [`receive`](Self::receive). Only [`next_event`](Self::next_event)
///   brings what was asked for with [`pull`](crate::Predecessor::pull): otherwise this process would not take over.
/// - A restart that failed is neither: the process goes on, and so does the task. See [`LifecycleHandler::new_process_failed`].
/// - Polled after it has resolved it stays pending.
///
/// Its first poll as a future starts a thread that wakes it, which takes two descriptors. Where these cannot
/// be had, that is logged once, and the task is woken ten times a second until they can: by the restart
/// thread, with the rights of that one.
///
/// It is a [`Future`] for any executor, has [`poll`](RestartTask::poll) for loops that poll by hand, and like the [`Restarter`] is a
/// `mio::event::Source` and a descriptor. It is `Unpin`: `&mut task` goes into a `select!`. Dropped, it leaves nothing behind, as the
/// restarter does. A forked child's copy stays pending, is never woken, and calls no hook.
///
/// ```no_run
/// # async fn run() -> Result<(), pollflip::Error> {
/// let task = pollflip::RestartConfig::new().coordination_socket("/run/echo.sock").try_into_restart_task()?;
/// match task.await {
///     Ok(successor) => println!("process {} serves now", successor.pid()),
///     Err(why) => eprintln!("no more restarts: {why}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a task does nothing unless it is polled"]
pub struct RestartTask {
    restarter: Restarter,
    hooks: Hooks,
    resolved: bool,
    /// From the first poll as a future on, if it can be had.
    watcher: Option<Watcher>,
    /// It cannot be had, which has been logged.
    is_blind: bool,
    /// What has been begun and not yet taken, whatever became of the futures.
    getting_ready: Option<Errand<Result<(), Error>>>,
    receiving: Option<Errand<Result<Inheritance, Error>>>,
    copying: Option<Errand<Result<Option<Vec<Arrival>>, Error>>>,
}

impl From<Restarter> for RestartTask {
    fn from(restarter: Restarter) -> RestartTask {
        RestartTask {
            restarter,
            hooks: Hooks::default(),
            resolved: false,
            watcher: None,
            is_blind: false,
            getting_ready: None,
            receiving: None,
            copying: None,
        }
    }
}

impl RestartTask {
    /// Has the handler called at the steps of each restart. Without one, a successor that asks for the state gets an empty one.
    pub fn with_handler(mut self, handler: impl LifecycleHandler) -> RestartTask {
        self.hooks = Hooks::new(handler);
        self
    }

    /// The restarter within: for its sockets, the predecessor, and to ask for a restart.
    pub fn restarter(&mut self) -> &mut Restarter {
        &mut self.restarter
    }

    /// Does what there is to do, without blocking: for loops that poll by hand, once a tick or when the descriptor is readable.
    pub fn poll(&mut self) -> Poll<Result<Successor, Error>> {
        if self.restarter.is_anothers() {
            return Poll::Pending;
        }
        self.restarter.begin_ready();
        while let Some(event) = self.restarter.poll() {
            let event = match self.hooks.run(&mut self.restarter, event) {
                // Nobody else gives the state.
                Some(Event::PrecopyRequested(precopy)) => {
                    drop(precopy);
                    continue;
                }
                Some(Event::StateRequested(handover)) => {
                    handover.send();
                    continue;
                }
                Some(event) => event,
                None => continue,
            };
            match event {
                // Nobody takes it, and with the grant it would be closed.
                event @ (Event::Inherited(_) | Event::Arrived(_) | Event::ArrivedAll) => {
                    let why = if let Event::Inherited(_) = event {
                        "the state was asked for with pull(), and comes to nobody in a task that is polled: receive() it"
                    } else {
                        "what can go ahead was asked for with pull_precopy(), and comes to nobody in a task that is polled: receive_precopy() it"
                    };
                    if let Some(predecessor) = self.restarter.predecessor() {
                        predecessor.refuse(why);
                    }
                    if !std::mem::replace(&mut self.resolved, true) {
                        return Poll::Ready(Err(Error::UnusableState(why.into())));
                    }
                }
                Event::Completed(_) if !self.resolved => {
                    if let Some(successor) = self.restarter.take_successor() {
                        self.resolved = true;
                        return Poll::Ready(Ok(successor));
                    }
                }
                Event::NoMoreRestarts(error) if !self.resolved => {
                    self.resolved = true;
                    return Poll::Ready(Err(error));
                }
                Event::GivenUp(pid) if !self.resolved => {
                    self.resolved = true;
                    return Poll::Ready(Err(Error::GivenUp { pid }));
                }
                _ => {}
            }
        }
        // What held it back may have been taken just now.
        self.restarter.begin_ready();
        match self.no_more_restarts() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }

    /// Says once that none is possible: the program is stopping, or somebody has asked and was refused for
    /// a reason that stays.
    fn no_more_restarts(&mut self) -> Option<Error> {
        let stopping = self.restarter.is_stopped().then_some(Refusal::Stopping);
        let why = stopping.or_else(|| self.restarter.asked_in_vain())?;
        let is_told = std::mem::replace(&mut self.resolved, true);
        (!is_told).then_some(Error::NoMoreRestarts(why))
    }

    /// Says that this process can serve, and resolves when the service is its own: as
    /// [`Restarter::ready`] does, but without blocking the thread. The task says the first half on its own
    /// when it is first polled; this is for programs that must know when what was handed over may be touched.
    ///
    /// With a predecessor it takes a thread for as long as that has not answered. Dropped before it has
    /// resolved, it has been said all the same, and the next call goes on with it.
    ///
    /// # Errors
    ///
    /// Those of [`Restarter::ready`]; and the thread cannot be had.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn run() -> Result<(), pollflip::Error> {
    /// let mut task = pollflip::RestartConfig::new().try_into_restart_task()?;
    /// let listener = task.restarter().sockets().tcp_listener("echo", "127.0.0.1:7000")?;
    /// if let Some(state) = task.receive(Duration::from_secs(5)).await? {
    ///     println!("{} items have come", state.names().len());
    /// }
    /// task.ready().await?;
    /// // From here on: accept from the listener, beside the task.
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ready(&mut self) -> impl Future<Output = Result<(), Error>> + Send + Unpin {
        poll_fn(|context| {
            if self.restarter.predecessor().is_none() || self.restarter.is_anothers() {
                return Poll::Ready(self.restarter.ready());
            }
            if self.getting_ready.is_none() {
                match Errand::start(startup_complete) {
                    Ok(errand) => self.getting_ready = Some(errand),
                    Err(error) => return Poll::Ready(Err(Error::os("cannot start the thread that waits for the predecessor")(error))),
                }
            }
            let Some(Poll::Ready(result)) = self.getting_ready.as_ref().map(|errand| errand.poll(context)) else { return Poll::Pending };
            self.getting_ready = None;
            // It does not block any more.
            Poll::Ready(result.and_then(|()| self.restarter.ready()))
        })
    }

    /// Asks for the state, and resolves when it is there: as [`Predecessor::receive`](crate::Predecessor::receive)
    /// does, but without blocking the thread. `None`: this process has no predecessor, and there is no state.
    ///
    /// A thread waits until the state is there. If the future is dropped before, that thread waits on:
    /// the next call resolves with what the thread gets, and the limit of that call does not count.
    ///
    /// A program that takes each connection as it comes calls [`receive_each`](crate::Predecessor::receive_each) on a
    /// thread of its own.
    ///
    /// # Errors
    ///
    /// Those of [`Predecessor::receive`](crate::Predecessor::receive); and the thread cannot be started.
    pub fn receive(&mut self, limit: Duration) -> impl Future<Output = Result<Option<Inheritance>, Error>> + Send + Unpin {
        poll_fn(move |context| {
            let Some(predecessor) = self.restarter.predecessor() else { return Poll::Ready(Ok(None)) };
            if self.restarter.is_anothers() {
                return Poll::Ready(predecessor.receive(limit).map(Some));
            }
            if self.receiving.is_none() {
                match Errand::start(move || predecessor.receive(limit)) {
                    Ok(errand) => self.receiving = Some(errand),
                    Err(error) => return Poll::Ready(Err(Error::os("cannot start the thread that waits for the state")(error))),
                }
            }
            let Some(Poll::Ready(result)) = self.receiving.as_ref().map(|errand| errand.poll(context)) else { return Poll::Pending };
            self.receiving = None;
            Poll::Ready(result.map(Some))
        })
    }

    /// Asks for what can go ahead of the state, and resolves with all of it, in its order: as
    /// [`Predecessor::receive_precopy`](crate::Predecessor::receive_precopy) does, but without blocking the thread. `None`: this process has
    /// no predecessor, or that gives nothing ahead. What changes later comes with the state, see [`Inheritance::gone`].
    ///
    /// A thread waits, as for [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// Those of [`Predecessor::receive_precopy`](crate::Predecessor::receive_precopy); and the thread cannot be started.
    pub fn receive_precopy(&mut self, limit: Duration) -> impl Future<Output = Result<Option<Vec<Arrival>>, Error>> + Send + Unpin {
        poll_fn(move |context| {
            let Some(predecessor) = self.restarter.predecessor() else { return Poll::Ready(Ok(None)) };
            let receive = move || {
                let mut arrivals = Vec::new();
                let is_any = predecessor.receive_precopy(limit, |arrival| {
                    arrivals.push(arrival);
                    Ok(())
                })?;
                Ok(is_any.then_some(arrivals))
            };
            if self.restarter.is_anothers() {
                return Poll::Ready(receive());
            }
            if self.copying.is_none() {
                match Errand::start(receive) {
                    Ok(errand) => self.copying = Some(errand),
                    Err(error) => return Poll::Ready(Err(Error::os("cannot start the thread that waits for the state")(error))),
                }
            }
            let Some(Poll::Ready(result)) = self.copying.as_ref().map(|errand| errand.poll(context)) else { return Poll::Pending };
            self.copying = None;
            Poll::Ready(result)
        })
    }

    /// The next event, for programs that want all of them rather than the end: use either this or the task as a future. Hooks are called
    /// as well; with a handler, [`Event::StateRequested`] is for that one.
    ///
    /// No event is lost when the future is dropped.
    pub fn next_event(&mut self) -> impl Future<Output = Event> + Send + Unpin {
        poll_fn(|context| {
            if self.restarter.is_anothers() {
                return Poll::Pending;
            }
            self.restarter.begin_ready();
            while let Some(event) = self.restarter.poll() {
                if let Some(event) = self.hooks.run(&mut self.restarter, event) {
                    return Poll::Ready(event);
                }
            }
            if self.restarter.asked_in_vain().is_some()
                && let Some(error) = self.no_more_restarts()
            {
                return Poll::Ready(Event::NoMoreRestarts(error));
            }
            match self.wake_later(context) {
                // Once: a loop that goes on would spin.
                Err(error) if !std::mem::replace(&mut self.resolved, true) => Poll::Ready(Event::NoMoreRestarts(error)),
                _ => Poll::Pending,
            }
        })
    }

    /// Has the waker woken when the descriptor is readable. Where no thread can be had that waits for it,
    /// the waker is woken after a pause.
    ///
    /// # Errors
    ///
    /// Nobody can wake it. The restart thread is gone too, so that no further restart is possible.
    fn wake_later(&mut self, context: &Context<'_>) -> Result<(), Error> {
        if self.restarter.is_anothers() {
            return Ok(());
        }
        if self.watcher.is_none() {
            match Watcher::new(self.restarter.as_fd()) {
                Ok(watcher) => {
                    self.watcher = Some(watcher);
                    if std::mem::take(&mut self.is_blind) {
                        self.restarter.wake_nobody();
                    }
                }
                Err(error) => {
                    if !self.restarter.wake_in(RETRY, context.waker()) {
                        return Err(Error::os("cannot start the thread that wakes the task")(error));
                    }
                    if !std::mem::replace(&mut self.is_blind, true) {
                        log::warn!("cannot start the thread that wakes the task: {error}; trying again every {RETRY:?}");
                    }
                }
            }
        }
        if let Some(watcher) = &self.watcher {
            watcher.arm(context.waker());
        }
        Ok(())
    }
}

impl Future for RestartTask {
    type Output = Result<Successor, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.get_mut();
        let result = task.poll();
        if result.is_pending()
            && let Err(error) = task.wake_later(context)
            && !std::mem::replace(&mut task.resolved, true)
        {
            return Poll::Ready(Err(error));
        }
        result
    }
}

impl AsFd for RestartTask {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.restarter.as_fd()
    }
}

impl AsRawFd for RestartTask {
    fn as_raw_fd(&self) -> RawFd {
        self.restarter.as_raw_fd()
    }
}

impl Source for RestartTask {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.restarter.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.restarter.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.restarter.deregister(registry)
    }
}
