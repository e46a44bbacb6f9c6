//! The future that reports each phase once.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use pollflip::shutdown::{OnShutdown, ShutdownCoordinator};

use crate::tools::{Waking, block_on, poll};

#[test]
fn each_phase_is_reported_once_and_then_nothing_more() {
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    let waking = Waking::new();
    assert!(poll(&mut signal.on_shutdown(), &waking).is_pending());
    let shutdown = coordinator.shutdown();
    assert!(poll(&mut signal.on_shutdown(), &waking).is_ready());
    assert!(!signal.is_forced());
    for _ in 0..3 {
        assert!(poll(&mut signal.on_shutdown(), &waking).is_pending(), "the first phase is reported already");
    }
    shutdown.force();
    assert!(poll(&mut signal.on_shutdown(), &waking).is_ready());
    assert!(signal.is_forced());
    for _ in 0..3 {
        assert!(poll(&mut signal.on_shutdown(), &waking).is_pending(), "there is no third phase");
    }
    assert_eq!(waking.holders(), 1);
}

#[test]
fn phases_that_began_unheard_are_reported_at_once_one_by_one() {
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    let shutdown = coordinator.shutdown();
    shutdown.force();
    block_on(signal.on_shutdown());
    block_on(signal.on_shutdown());
    assert!(poll(&mut signal.on_shutdown(), &Waking::new()).is_pending());
}

#[test]
fn a_future_dropped_before_it_resolved_has_reported_nothing() {
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    let waking = Waking::new();
    for _ in 0..3 {
        assert!(poll(&mut signal.on_shutdown(), &waking).is_pending());
    }
    assert_eq!(waking.holders(), 1);
    let _shutdown = coordinator.shutdown();
    drop(signal.on_shutdown());
    assert!(poll(&mut signal.on_shutdown(), &waking).is_ready());
}

#[test]
fn a_pending_future_is_woken_by_its_phase_alone() {
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    let waking = Waking::new();
    let shutdown = {
        let mut first = signal.on_shutdown();
        assert!(poll(&mut first, &waking).is_pending());
        let shutdown = coordinator.shutdown();
        assert_eq!(waking.count(), 1);
        assert!(poll(&mut first, &waking).is_ready());
        assert!(poll(&mut first, &waking).is_pending(), "polled after it has resolved");
        shutdown
    };
    let mut second = signal.on_shutdown();
    assert!(poll(&mut second, &waking).is_pending());
    assert_eq!(waking.count(), 1);
    shutdown.force();
    assert_eq!(waking.count(), 2);
    assert!(poll(&mut second, &waking).is_ready());
}

#[test]
fn each_signal_and_each_clone_reports_for_itself() {
    let coordinator = ShutdownCoordinator::new();
    let mut first = coordinator.signal();
    let _shutdown = coordinator.shutdown();
    block_on(first.on_shutdown());
    let mut clone = first.clone();
    assert!(poll(&mut clone.on_shutdown(), &Waking::new()).is_ready(), "a clone has reported nothing yet");
    assert!(poll(&mut first.on_shutdown(), &Waking::new()).is_pending());
    assert!(poll(&mut first.begun(), &Waking::new()).is_ready(), "an owned future does not count");
}

#[test]
fn the_future_can_go_where_it_is_needed() {
    fn sent<T: Send + Unpin + std::fmt::Debug>(_: &T) {}
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    let future: OnShutdown<'_> = signal.on_shutdown();
    sent(&future);
    assert!(format!("{future:?}").contains("OnShutdown"));
}

/// The loop of a connection in shellflip's manner: it awaits the signal beside its work, over and over.
#[test]
fn a_loop_that_goes_on_awaiting_neither_spins_nor_misses_the_forced_phase() {
    let turns = AtomicUsize::new(0);
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let turns_in = &turns;
    let mut connection = Box::pin(async move {
        let mut signal = handle.signal();
        loop {
            turns_in.fetch_add(1, Ordering::Relaxed);
            signal.on_shutdown().await;
            if signal.is_forced() {
                return;
            }
        }
    });
    let mut context = Context::from_waker(Waker::noop());
    assert!(connection.as_mut().poll(&mut context).is_pending());
    let shutdown = coordinator.shutdown();
    for _ in 0..5 {
        assert!(connection.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(turns.load(Ordering::Relaxed), 2, "once for the start, once for the shutdown");
    shutdown.force();
    assert!(connection.as_mut().poll(&mut context).is_ready());
    assert_eq!(turns.load(Ordering::Relaxed), 2);
    assert_eq!(shutdown.poll(), Poll::Ready(()), "and it has dropped its handle");
}
