//! Wakers: the last one is woken, and none is kept.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use pollflip::shutdown::{ShutdownCoordinator, ShutdownMoment, ShutdownSignal};

use crate::tools::{Waking, poll, within_deadline};

#[test]
fn a_future_polled_with_another_waker_each_time_wakes_the_last_and_keeps_no_other() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let mut on_shutdown = coordinator.signal().begun();
    let wakings: Vec<_> = (0..100).map(|_| Waking::new()).collect();
    for waking in &wakings {
        assert!(poll(&mut on_shutdown, waking).is_pending());
    }
    assert!(wakings[..99].iter().all(|waking| waking.holders() == 1));
    let mut shutdown = coordinator.shutdown();
    assert_eq!(wakings.iter().map(|waking| waking.count()).collect::<Vec<_>>(), [vec![0; 99], vec![1]].concat());
    assert!(wakings.iter().all(|waking| waking.holders() == 1), "who was woken is kept no longer");

    let (first, second) = (Waking::new(), Waking::new());
    assert!(poll(&mut shutdown, &first).is_pending() && poll(&mut shutdown, &second).is_pending());
    drop(handle);
    assert_eq!((first.count(), second.count()), (0, 1));
}

#[test]
fn a_dropped_future_leaves_no_waker_and_wakes_nobody() {
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let (dropped, kept) = (Waking::new(), Waking::new());
    for _ in 0..1000 {
        let mut future = signal.begun();
        assert!(poll(&mut future, &dropped).is_pending());
    }
    assert_eq!(dropped.holders(), 1);
    let mut future = signal.begun();
    assert!(poll(&mut future, &kept).is_pending());
    let _shutdown = coordinator.shutdown();
    assert_eq!((dropped.count(), kept.count()), (0, 1));
}

#[test]
fn a_future_dropped_after_the_shutdown_disturbs_no_other() {
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let waking = Waking::new();
    let mut stale = signal.begun();
    assert!(poll(&mut stale, &waking).is_pending());
    let mut waiting = signal.forced();
    assert!(poll(&mut waiting, &waking).is_pending());
    let shutdown = coordinator.shutdown();
    drop(stale);
    let before = waking.count();
    shutdown.force();
    assert_eq!(waking.count(), before + 1);
}

/// A waker may be the last to hold a task, and the task may hold a future of ours: dropping the one drops the other.
#[test]
fn a_waker_that_owns_a_future_can_be_replaced_dropped_and_woken() {
    struct Task(#[expect(dead_code, reason = "held for its drop")] Mutex<Option<ShutdownMoment>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let waker = |signal: &ShutdownSignal| {
        let mut owned = signal.begun();
        assert!(poll(&mut owned, &Waking::new()).is_pending());
        Waker::from(Arc::new(Task(Mutex::new(Some(owned)))))
    };
    within_deadline(move || {
        let coordinator = ShutdownCoordinator::new();
        let signal = coordinator.signal();
        let mut future = signal.begun();
        for _ in 0..3 {
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker(&signal))).is_pending());
        }
        drop(future);
        let mut future = signal.begun();
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker(&signal))).is_pending());
        let _shutdown = coordinator.shutdown();
    })
    .finish();
}

#[test]
fn a_waker_may_come_back_to_what_wakes_it() {
    struct Nosy {
        signal: ShutdownSignal,
        saw: AtomicBool,
    }
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let ready = poll(&mut self.signal.begun(), &Waking::new()).is_ready();
            let forced = poll(&mut self.signal.forced(), &Waking::new()).is_pending();
            self.saw.store(ready && forced, Ordering::Relaxed);
        }
    }
    within_deadline(|| {
        let coordinator = ShutdownCoordinator::new();
        let nosy = Arc::new(Nosy { signal: coordinator.signal(), saw: AtomicBool::new(false) });
        let mut future = coordinator.signal().begun();
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&nosy)))).is_pending());
        let _shutdown = coordinator.shutdown();
        assert!(nosy.saw.load(Ordering::Relaxed));
    })
    .finish();
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test's");
        }
    }
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let panicking = || Waker::from(Arc::new(Panicking));
    let mut futures = [coordinator.signal().begun(), coordinator.signal().begun()];
    let waking = Waking::new();
    assert!(Pin::new(&mut futures[0]).poll(&mut Context::from_waker(&panicking())).is_pending());
    assert!(poll(&mut futures[1], &waking).is_pending());
    let mut shutdown = coordinator.shutdown();
    assert_eq!(waking.count(), 1);
    assert!(Pin::new(&mut shutdown).poll(&mut Context::from_waker(&panicking())).is_pending());
    // In a drop, which may be one of a panic's.
    drop(handle);
    assert!(shutdown.poll().is_ready());
}
