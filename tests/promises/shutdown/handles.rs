//! Handles, strong and weak.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;

use pollflip::shutdown::ShutdownCoordinator;

use crate::tools::{DEADLINE, Waking, poll};

#[test]
fn handles_cloned_and_dropped_from_many_threads_are_all_waited_for() {
    let coordinator = ShutdownCoordinator::new();
    let start = Arc::new(Barrier::new(9));
    let alive = Arc::new(AtomicUsize::new(8));
    for _ in 0..8 {
        let (handle, start, alive) = (coordinator.handle(), Arc::clone(&start), Arc::clone(&alive));
        thread::spawn(move || {
            start.wait();
            for _ in 0..10_000 {
                drop(handle.clone());
            }
            alive.fetch_sub(1, Ordering::Relaxed);
            drop(handle);
        });
    }
    start.wait();
    let shutdown = coordinator.shutdown();
    assert_eq!(shutdown.wait(DEADLINE), Ok(()));
    assert_eq!((alive.load(Ordering::Relaxed), shutdown.remaining()), (0, 0));
}

#[test]
fn a_handle_cloned_during_the_shutdown_is_waited_for() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let shutdown = coordinator.shutdown();
    let clone = handle.clone();
    assert_eq!(shutdown.remaining(), 2);
    drop(handle);
    assert_eq!((shutdown.remaining(), shutdown.poll()), (1, Poll::Pending));
    drop(clone);
    assert_eq!((shutdown.remaining(), shutdown.poll()), (0, Poll::Ready(())));
}

#[test]
fn weak_handles_start_work_until_the_shutdown_and_are_not_waited_for() {
    let coordinator = ShutdownCoordinator::new();
    let weak = coordinator.handle_weak();
    let handle = weak.upgrade().expect("the shutdown has not begun");
    let weaker = handle.downgrade().clone();
    let shutdown = coordinator.shutdown();
    assert!(weak.upgrade().is_none() && weaker.upgrade().is_none(), "nothing new, although a handle is left");
    assert_eq!(shutdown.remaining(), 1);
    drop(handle);
    assert_eq!(shutdown.wait(DEADLINE), Ok(()));
    assert!(weak.upgrade().is_none() && weak.signal().is_shutdown());
}

#[test]
fn a_coordinator_dropped_without_shutdown_ends_nothing() {
    let coordinator = ShutdownCoordinator::new();
    let (handle, weak, signal) = (coordinator.handle(), coordinator.handle_weak(), coordinator.signal());
    drop(coordinator);
    assert!(!signal.is_shutdown());
    assert!(poll(&mut handle.signal().begun(), &Waking::new()).is_pending());
    drop((handle.clone(), weak.upgrade().expect("a handle is left")));
    drop(handle);
    assert!(weak.upgrade().is_none());
    assert!(!signal.is_shutdown() && !weak.signal().is_forced());
}

#[test]
fn a_dropped_shutdown_takes_nothing_back() {
    let coordinator = ShutdownCoordinator::new();
    let (handle, signal) = (coordinator.handle(), coordinator.signal());
    let waking = Waking::new();
    let mut shutdown = coordinator.shutdown();
    assert!(poll(&mut shutdown, &waking).is_pending());
    drop(shutdown);
    assert!(signal.is_shutdown() && !signal.is_forced());
    drop(handle);
    assert_eq!(waking.count(), 0, "nobody waits any more");
    assert_eq!(waking.holders(), 1);
}
