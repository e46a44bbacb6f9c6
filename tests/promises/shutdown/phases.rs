//! Asked, awaited, waited for; the time limit and the forced phase.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use pollflip::shutdown::ShutdownCoordinator;

use crate::tools::{DEADLINE, Waking, block_on, poll, within_deadline};

#[test]
fn a_signal_tells_nothing_before_the_shutdown() {
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    assert!(!signal.is_shutdown() && !signal.is_forced());
    assert!(poll(&mut signal.begun(), &Waking::new()).is_pending());
    assert!(poll(&mut signal.forced(), &Waking::new()).is_pending());
}

#[test]
fn every_signal_tells_the_shutdown_wherever_it_came_from() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let weak = handle.downgrade();
    let mut signals = vec![coordinator.signal(), handle.signal(), weak.signal(), coordinator.handle_weak().signal()];
    signals.push(signals[0].clone());
    let _shutdown = coordinator.shutdown();
    signals.extend([handle.signal(), weak.signal(), signals[0].clone()]);
    assert!(signals.iter().all(|signal| signal.is_shutdown() && !signal.is_forced()));
}

#[test]
fn an_awaited_signal_resolves_at_the_shutdown_and_at_once_each_time_after() {
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let task = within_deadline({
        let signal = signal.clone();
        move || block_on(signal.begun())
    });
    let _shutdown = coordinator.shutdown();
    task.finish();
    let mut again = signal.begun();
    for _ in 0..3 {
        assert!(poll(&mut again, &Waking::new()).is_ready());
        assert!(poll(&mut signal.begun(), &Waking::new()).is_ready());
    }
}

#[test]
fn a_thread_waits_for_the_shutdown() {
    let coordinator = ShutdownCoordinator::new();
    let (asked, signal) = (coordinator.signal(), coordinator.signal());
    let thread = within_deadline(move || {
        signal.wait();
        assert!(signal.is_shutdown());
        signal.wait();
    });
    assert!(!asked.is_shutdown());
    let _shutdown = coordinator.shutdown();
    thread.finish();
}

#[test]
fn a_shutdown_without_handles_is_finished_at_once() {
    let shutdown = ShutdownCoordinator::default().shutdown();
    assert_eq!(shutdown.remaining(), 0);
    assert!(shutdown.poll().is_ready());
    assert_eq!(shutdown.wait(Duration::ZERO), Ok(()));
    block_on(shutdown);
}

#[test]
fn the_last_handle_to_go_wakes_the_task_that_awaits_the_shutdown() {
    let coordinator = ShutdownCoordinator::new();
    let handles: Vec<_> = (0..5).map(|_| coordinator.handle()).collect();
    let mut shutdown = coordinator.shutdown();
    let waking = Waking::new();
    assert!(poll(&mut shutdown, &waking).is_pending());
    for (dropped, handle) in handles.into_iter().enumerate() {
        assert_eq!((shutdown.remaining(), waking.count()), (5 - dropped, 0));
        assert!(shutdown.poll().is_pending());
        drop(handle);
    }
    assert_eq!((shutdown.remaining(), waking.count()), (0, 1));
    assert!(poll(&mut shutdown, &waking).is_ready());
    assert!(Pin::new(&mut shutdown).poll(&mut Context::from_waker(Waker::noop())).is_ready(), "and it stays finished");
}

#[test]
fn what_the_work_did_is_seen_by_who_waited_for_it() {
    let coordinator = ShutdownCoordinator::new();
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (handle, done) = (coordinator.handle(), Arc::clone(&done));
        thread::spawn(move || {
            handle.signal().wait();
            done.fetch_add(1, Ordering::Relaxed);
            drop(handle);
        });
    }
    assert_eq!(coordinator.shutdown().wait(DEADLINE), Ok(()));
    assert_eq!(done.load(Ordering::Relaxed), 8);
}

#[test]
fn the_time_limit_reports_exactly_the_number_of_handles_left() {
    let coordinator = ShutdownCoordinator::new();
    let mut handles: Vec<_> = (0..12).map(|_| coordinator.handle()).collect();
    let shutdown = coordinator.shutdown();
    for left in (1..=12).rev() {
        assert_eq!(shutdown.wait(Duration::from_millis(2)), Err(left));
        assert_eq!((shutdown.wait(Duration::ZERO), shutdown.remaining()), (Err(left), left));
        handles.pop();
    }
    assert_eq!(shutdown.wait(Duration::ZERO), Ok(()));
}

#[test]
fn a_limit_is_waited_out_and_not_longer_than_the_work() {
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let shutdown = coordinator.shutdown();
    let begin = Instant::now();
    assert_eq!(shutdown.wait(Duration::from_millis(30)), Err(1));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    drop(handle);
    assert_eq!(shutdown.wait(Duration::MAX), Ok(()));
}

#[test]
fn a_forced_phase_follows_the_first() {
    let coordinator = ShutdownCoordinator::new();
    let (handle, signal) = (coordinator.handle(), coordinator.signal());
    let (tells, told) = mpsc::channel();
    let task = within_deadline(move || {
        let signal = handle.signal();
        block_on(signal.begun());
        assert!(!signal.is_forced());
        tells.send(()).expect("the test");
        block_on(signal.forced());
        assert!(signal.is_forced());
        drop(handle);
    });
    let thread = within_deadline({
        let signal = signal.clone();
        move || signal.wait_forced()
    });
    let forced = Waking::new();
    let mut on_forced = signal.forced();
    assert!(poll(&mut on_forced, &forced).is_pending());
    let shutdown = coordinator.shutdown();
    assert_eq!(forced.count(), 0, "the first phase does not wake who waits for the second");
    assert!(poll(&mut on_forced, &forced).is_pending());
    assert_eq!(shutdown.wait(Duration::from_millis(5)), Err(1));
    told.recv().expect("the task has seen the first phase");
    shutdown.force();
    shutdown.force();
    assert_eq!(shutdown.wait(DEADLINE), Ok(()));
    assert_eq!(forced.count(), 1);
    assert!(poll(&mut signal.forced(), &forced).is_ready());
    task.finish();
    thread.finish();
}

#[test]
fn a_forced_phase_reaches_signals_even_when_no_handle_is_left() {
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let shutdown = coordinator.shutdown();
    assert!(shutdown.poll().is_ready() && !signal.is_forced());
    shutdown.force();
    assert!(signal.is_forced() && signal.is_shutdown());
}
