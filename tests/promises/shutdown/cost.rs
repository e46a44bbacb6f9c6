//! What it costs, and what the types are.

use std::time::Duration;

use pollflip::shutdown::{Shutdown, ShutdownCoordinator, ShutdownHandle, ShutdownMoment, ShutdownSignal, WeakShutdownHandle};

use crate::tools::{DEADLINE, MANY, Poller, Waking, assert_few_more_descriptors_than, descriptors, poll, resident_bytes, within_deadline};

#[test]
fn a_hundred_thousand_handles_and_signals_cost_no_more_than_memory() {
    assert!(size_of::<ShutdownHandle>() <= 8 && size_of::<ShutdownSignal>() <= 64);
    let (descriptors, memory) = (descriptors(), resident_bytes());
    let coordinator = ShutdownCoordinator::new();
    let handles: Vec<_> = (0..MANY).map(|_| coordinator.handle()).collect();
    let signals: Vec<_> = handles.iter().map(ShutdownHandle::signal).collect();
    assert_few_more_descriptors_than(descriptors);
    let shutdown = coordinator.shutdown();
    assert_eq!(shutdown.remaining(), MANY);
    assert!(signals.iter().all(ShutdownSignal::is_shutdown));
    assert_eq!(shutdown.wait(Duration::ZERO), Err(MANY));
    assert!(resident_bytes() < memory + (64 << 20));
    within_deadline(move || drop(handles));
    assert_eq!(shutdown.wait(DEADLINE), Ok(()));
}

#[test]
fn a_hundred_thousand_pending_futures_cost_no_more_than_memory_and_are_all_woken() {
    let (descriptors, memory) = (descriptors(), resident_bytes());
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let waking = Waking::new();
    let mut futures: Vec<_> = (0..MANY).map(|_| signal.begun()).collect();
    for round in 0..2 {
        assert!(futures.iter_mut().all(|future| poll(future, &waking).is_pending()));
        assert_eq!(waking.holders(), MANY + 1, "one place each, in round {round} too");
    }
    assert_few_more_descriptors_than(descriptors);
    assert!(resident_bytes() < memory + (64 << 20));
    futures.truncate(MANY / 2);
    assert_eq!(waking.holders(), MANY / 2 + 1);
    let _shutdown = coordinator.shutdown();
    assert_eq!((waking.count(), waking.holders()), (MANY / 2, 1));
    assert!(futures.iter_mut().all(|future| poll(future, &waking).is_ready()));
}

#[test]
fn a_descriptor_is_closed_with_what_was_registered() {
    let before = descriptors();
    let poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    for _ in 0..1000 {
        poll.register(&mut coordinator.signal(), 1);
        poll.register(&mut ShutdownCoordinator::new().shutdown(), 2);
    }
    assert_few_more_descriptors_than(before);
}

#[test]
fn the_types_can_go_where_they_are_needed() {
    fn shared<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    shared::<ShutdownCoordinator>();
    shared::<ShutdownHandle>();
    shared::<WeakShutdownHandle>();
    shared::<ShutdownSignal>();
    shared::<ShutdownMoment>();
    shared::<Shutdown>();
    fn cloned<T: Clone>() {}
    cloned::<ShutdownHandle>();
    cloned::<WeakShutdownHandle>();
    cloned::<ShutdownSignal>();
    let _: fn(pollflip::ShutdownCoordinator) -> pollflip::Shutdown = ShutdownCoordinator::shutdown;
}

#[test]
fn what_shellflip_converts_and_has_by_default_is_there() {
    let coordinator = ShutdownCoordinator::default();
    let handle = coordinator.handle();
    let signals = [ShutdownSignal::from(&handle), ShutdownSignal::from(&coordinator.handle_weak())];
    // Those of no shutdown: nothing is told, and nobody waits.
    let (nobody, _idle) = (ShutdownSignal::default(), ShutdownHandle::default());
    let shutdown = coordinator.shutdown();
    assert!(signals.iter().all(ShutdownSignal::is_shutdown) && !nobody.is_shutdown());
    drop(handle);
    assert!(shutdown.poll().is_ready());
}

#[test]
fn debug_output_tells_the_phase_and_the_number_left() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    assert_eq!(format!("{coordinator:?}"), "ShutdownCoordinator { handles: 1 }");
    assert_eq!(format!("{:?}", handle.signal().begun()), "ShutdownMoment { ready: false }");
    let shutdown = coordinator.shutdown();
    assert_eq!(format!("{shutdown:?}"), "Shutdown { remaining: 1, forced: false }");
    assert_eq!(format!("{handle:?}"), "ShutdownHandle { shutdown: true, forced: false }");
    assert_eq!(format!("{:?}", handle.signal()), "ShutdownSignal { shutdown: true, forced: false }");
    assert_eq!(format!("{:?}", handle.downgrade()), "WeakShutdownHandle { shutdown: true, forced: false }");
}
