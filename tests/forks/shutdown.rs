//! Copies of coordinators, handles, signals and shutdowns: what they answer, and that the parent notices nothing of them.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use pollflip::shutdown::{Shutdown, ShutdownCoordinator, ShutdownHandle, ShutdownSignal};

use crate::child::{BOTH, Fork, Verdict, claim, ends, fork, in_child};
use pollflip_kit::group::DEADLINE;

cases![
    a_child_that_drops_everything_rings_no_bell_of_its_parent,
    a_child_that_begins_and_forces_a_shutdown_begins_none_in_its_parent,
    a_copy_answers_what_was_so_at_the_fork,
    a_copy_drops_no_waker_of_an_executor,
    a_child_has_a_coordinator_of_its_own,
    a_grandchild_is_no_child,
    a_program_that_is_started_is_no_copy,
];

/// A coordinator with all that it gives out, each waited for in some way.
pub(crate) struct Parent {
    poll: Poll,
    coordinator: Option<ShutdownCoordinator>,
    handles: Vec<ShutdownHandle>,
    signals: Vec<ShutdownSignal>,
    shutdown: Option<Shutdown>,
}

const SHUTDOWN: Token = Token(99);

impl Parent {
    pub(crate) fn new() -> Parent {
        let poll = Poll::new().expect("an epoll");
        let coordinator = ShutdownCoordinator::new();
        let handles = (0..3).map(|_| coordinator.handle()).collect();
        let mut signals: Vec<_> = (0..3).map(|_| coordinator.signal()).collect();
        for (number, signal) in signals.iter_mut().enumerate() {
            poll.registry().register(signal, Token(number), Interest::READABLE).expect("registered");
        }
        Parent { poll, coordinator: Some(coordinator), handles, signals, shutdown: None }
    }

    fn begin(&mut self) {
        let mut shutdown = self.coordinator.take().expect("a coordinator").shutdown();
        self.poll.registry().register(&mut shutdown, SHUTDOWN, Interest::READABLE).expect("registered");
        self.shutdown = Some(shutdown);
    }

    fn rings(&mut self) -> Vec<usize> {
        let mut events = Events::with_capacity(16);
        while let Err(error) = self.poll.poll(&mut events, Some(Duration::ZERO)) {
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        let mut rings: Vec<_> = events.iter().map(|event| event.token().0).collect();
        rings.sort_unstable();
        rings
    }

    /// What a child does with all of it.
    pub(crate) fn is_dropped(&mut self) -> Verdict {
        self.handles.clear();
        if let Some(coordinator) = self.coordinator.take() {
            let shutdown = coordinator.shutdown();
            shutdown.force();
            claim(shutdown.poll().is_pending(), "a shutdown that is none")?;
        }
        if let Some(shutdown) = self.shutdown.take() {
            shutdown.force();
            claim(shutdown.poll().is_pending(), "a shutdown that does not finish")?;
        }
        self.signals.clear();
        Ok(())
    }

    /// The parent goes on: whatever children did, nothing has come, and all comes as it should.
    pub(crate) fn goes_on(mut self) {
        assert_eq!(self.rings(), [0; 0]);
        assert!(!self.signals[0].is_shutdown());
        self.begin();
        assert_eq!(self.rings(), [0, 1, 2]);
        self.ends();
    }

    /// The same when the shutdown has begun.
    fn ends(mut self) {
        let shutdown = self.shutdown.take().expect("it has begun");
        assert_eq!((shutdown.remaining(), shutdown.poll().is_ready()), (3, false));
        assert!(!self.signals[0].is_forced());
        self.handles.truncate(1);
        assert_eq!((shutdown.remaining(), self.rings()), (1, vec![]));
        assert_eq!(shutdown.wait(Duration::ZERO), Err(1));
        self.handles.clear();
        assert_eq!((shutdown.wait(DEADLINE), self.rings()), (Ok(()), vec![SHUTDOWN.0]));
        shutdown.force();
        assert_eq!(self.rings(), [0, 1, 2]);
    }
}

fn a_child_that_drops_everything_rings_no_bell_of_its_parent() {
    let mut parent = Parent::new();
    for how in BOTH {
        in_child(how, || {
            parent.handles.clear();
            parent.signals.clear();
            parent.coordinator = None;
            Ok(())
        });
    }
    assert_eq!(parent.rings(), [0; 0]);
    parent.begin();
    assert_eq!(parent.rings(), [0, 1, 2]);
    for how in BOTH {
        in_child(how, || {
            parent.handles.clear();
            parent.signals.clear();
            parent.shutdown = None;
            Ok(())
        });
    }
    // The last handle that the children had was not the last one.
    assert_eq!(parent.rings(), [0; 0]);
    parent.ends();
}

fn a_child_that_begins_and_forces_a_shutdown_begins_none_in_its_parent() {
    let mut parent = Parent::new();
    for how in BOTH {
        in_child(how, || parent.is_dropped());
    }
    assert_eq!(parent.rings(), [0; 0]);
    parent.begin();
    assert_eq!(parent.rings(), [0, 1, 2]);
    for how in BOTH {
        in_child(how, || parent.is_dropped());
    }
    assert_eq!(parent.rings(), [0; 0]);
    parent.ends();
}

fn polled(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// The table of the module's documentation.
fn a_copy_answers_what_was_so_at_the_fork() {
    let quiet = ShutdownCoordinator::new();
    let (handle, weak) = (quiet.handle(), quiet.handle_weak());
    let begun = ShutdownCoordinator::new();
    let (working, mut hears) = (begun.handle(), begun.signal());
    let mut shutdown = begun.shutdown();
    let forced = ShutdownCoordinator::new();
    let is_forced = forced.signal();
    let finished = forced.shutdown();
    finished.force();
    let poll = Poll::new().expect("an epoll");
    let refused = |result: std::io::Result<()>| {
        let error = result.err().ok_or("an error")?;
        let says = error.to_string().contains("forked child's copy") && error.to_string().contains("in the process that made it");
        claim(error.kind() == ErrorKind::Unsupported && says, "an error that says why")
    };
    for how in BOTH {
        in_child(how, || {
            let signal = quiet.signal();
            claim(!signal.is_shutdown() && !polled(&mut signal.begun()) && !polled(&mut signal.forced()), "quiet: no phase")?;
            signal.wait();
            let further = weak.upgrade().ok_or("quiet: a handle")?;
            drop((further, handle.downgrade(), handle.clone()));

            claim(hears.is_shutdown() && !hears.is_forced() && polled(&mut hears.begun()), "begun: the first phase")?;
            claim(polled(&mut hears.on_shutdown()) && !polled(&mut hears.on_shutdown()), "begun: the first phase is told")?;
            hears.wait();
            hears.wait_forced();
            claim(working.downgrade().upgrade().is_none(), "begun: no further handle")?;
            let more = working.clone();
            claim(shutdown.remaining() == 2 && shutdown.wait(Duration::MAX) == Err(2), "begun: two handles")?;
            drop(more);
            claim(shutdown.remaining() == 1 && !polled(&mut shutdown), "begun: one handle")?;
            refused(shutdown.descriptor().map(drop))?;
            refused(hears.descriptor().map(drop))?;
            refused(poll.registry().register(&mut shutdown, Token(0), Interest::READABLE))?;
            refused(poll.registry().reregister(&mut hears, Token(0), Interest::READABLE))?;
            refused(poll.registry().deregister(&mut hears))?;

            claim(is_forced.is_forced() && finished.poll().is_ready(), "finished: both phases")?;
            claim(finished.wait(Duration::ZERO) == Ok(()) && finished.remaining() == 0, "finished: no handle")
        });
    }
    drop(working);
    assert_eq!(shutdown.wait(DEADLINE), Ok(()));
}

/// A waker of an executor: to drop one asks for the executor's lock, or for more.
struct Counted(Arc<AtomicUsize>);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn a_copy_drops_no_waker_of_an_executor() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let coordinator = ShutdownCoordinator::new();
    let mut future = coordinator.signal().begun();
    let waker = Waker::from(Arc::new(Counted(dropped.clone())));
    assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let mut copies = Some((coordinator, future));
    for how in BOTH {
        in_child(how, || {
            drop(copies.take());
            claim(dropped.load(Ordering::SeqCst) == 0, "a waker that is left alone")
        });
    }
    drop(copies);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// All that a coordinator can do, in a process that has copies of another.
fn works_in_full() -> Verdict {
    let mut poll = Poll::new().map_err(|_| "an epoll")?;
    let coordinator = ShutdownCoordinator::new();
    let (handle, mut signal) = (coordinator.handle(), coordinator.signal());
    poll.registry().register(&mut signal, Token(1), Interest::READABLE).map_err(|_| "a registered signal")?;
    let (mut future, waiting) = (signal.begun(), coordinator.signal());
    claim(!polled(&mut future), "a future that waits")?;
    // A library that did not fork knows nothing of this process.
    let thread = thread::Builder::new().spawn(move || waiting.wait()).map_err(|_| "a thread")?;
    let mut shutdown = coordinator.shutdown();
    poll.registry().register(&mut shutdown, Token(2), Interest::READABLE).map_err(|_| "a registered shutdown")?;
    thread.join().map_err(|_| "a thread that is woken")?;
    claim(polled(&mut future) && shutdown.remaining() == 1, "a shutdown that has begun")?;
    drop(handle);
    claim(shutdown.wait(DEADLINE) == Ok(()), "a shutdown that is finished")?;
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(DEADLINE)).map_err(|_| "events")?;
    claim(events.iter().count() == 2, "a bell of the signal and one of the shutdown")
}

fn a_child_has_a_coordinator_of_its_own() {
    let mut parent = Parent::new();
    for how in BOTH {
        in_child(how, || {
            works_in_full()?;
            parent.is_dropped()?;
            works_in_full()
        });
    }
    parent.goes_on();
}

fn a_grandchild_is_no_child() {
    let mut parent = Parent::new();
    for (first, second) in [(BOTH[0], BOTH[0]), (BOTH[0], BOTH[1]), (BOTH[1], BOTH[0]), (BOTH[1], BOTH[1])] {
        in_child(first, || {
            let mut child = Parent::new();
            let grandchild = fork(second, || {
                parent.is_dropped()?;
                child.is_dropped()?;
                works_in_full()
            });
            ends(grandchild.map_err(|_| "a grandchild")?);
            // The number that the grandchild had is not this one's.
            works_in_full()?;
            child.goes_on();
            Ok(())
        });
    }
    // The child between them has never asked which process it is.
    in_child(Fork::Library, || {
        let grandchild = fork(Fork::Kernel, || parent.is_dropped().and_then(|()| works_in_full()));
        ends(grandchild.map_err(|_| "a grandchild")?);
        Ok(())
    });
    parent.goes_on();
}

/// It shares the memory of its parent until it is executed.
fn a_program_that_is_started_is_no_copy() {
    let parent = Parent::new();
    for _ in 0..3 {
        assert!(Command::new("true").status().expect("a program").success());
    }
    let mut failed = Command::new("/nowhere/at/all");
    failed.status().expect_err("no program");
    parent.goes_on();
}
