//! Everything at once.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use pollflip::shutdown::{ShutdownCoordinator, ShutdownMoment};

use crate::tools::{DEADLINE, Poller, Random, Waking, block_on, poll, within_deadline};

/// Threads that clone, drop, upgrade, poll, abandon and wait in any order, and a shutdown somewhere in between.
/// `POLLFLIP_SEED=n` repeats the choices of a run (not the scheduler's).
#[test]
fn any_interleaving_waits_for_all_work_and_wakes_every_waiter() {
    let seed = std::env::var("POLLFLIP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    });
    println!("POLLFLIP_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..150 {
        one_interleaving(&mut random);
    }
}

fn one_interleaving(random: &mut Random) {
    let coordinator = ShutdownCoordinator::new();
    let threads = 2 + random.below(4);
    let start = Arc::new(Barrier::new(threads + 1));
    // Units of work as the test counts them: lowered before a handle is dropped, so that none is left when the shutdown is finished.
    let units = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (mut random, start, units) = (Random(random.next()), Arc::clone(&start), Arc::clone(&units));
            let (weak, signal) = (coordinator.handle_weak(), coordinator.signal());
            let mut handles: Vec<_> = (0..random.below(3)).map(|_| coordinator.handle()).collect();
            units.fetch_add(handles.len(), Ordering::SeqCst);
            within_deadline(move || {
                start.wait();
                let mut pending: Vec<(Pin<Box<ShutdownMoment>>, Arc<Waking>)> = Vec::new();
                for _ in 0..random.below(400) {
                    match random.below(8) {
                        0 | 1 => {
                            if let Some(handle) = handles.last().cloned() {
                                units.fetch_add(1, Ordering::SeqCst);
                                handles.push(handle);
                            }
                        }
                        2 | 3 if !handles.is_empty() => {
                            let at = random.below(handles.len());
                            units.fetch_sub(1, Ordering::SeqCst);
                            drop(handles.swap_remove(at));
                        }
                        4 => {
                            let begun = signal.is_shutdown();
                            if let Some(handle) = weak.upgrade() {
                                assert!(!begun, "no handle once the shutdown is known");
                                units.fetch_add(1, Ordering::SeqCst);
                                handles.push(handle);
                            }
                        }
                        5 => {
                            let future = if random.below(2) == 0 { signal.begun() } else { signal.forced() };
                            pending.push((Box::pin(future), Waking::new()));
                        }
                        6 if !pending.is_empty() => {
                            let at = random.below(pending.len());
                            let (future, waking) = &mut pending[at];
                            if random.below(2) == 0 {
                                *waking = Waking::new();
                            }
                            let _ = poll(future, waking);
                        }
                        7 if !pending.is_empty() => {
                            let at = random.below(pending.len());
                            let (future, waking) = pending.swap_remove(at);
                            drop(future);
                            if !signal.is_shutdown() {
                                assert_eq!(waking.holders(), 1);
                            }
                        }
                        _ => thread::yield_now(),
                    }
                }
                units.fetch_sub(handles.len(), Ordering::SeqCst);
                drop(handles);
                // All that were left pending: polled once more, and woken if they still had to wait.
                for (mut future, waking) in pending {
                    let until = Instant::now() + DEADLINE;
                    while poll(&mut future, &waking).is_pending() {
                        waking.wait(until);
                    }
                }
            })
        })
        .collect();
    start.wait();
    for _ in 0..random.below(2000) {
        std::hint::spin_loop();
    }
    let mut shutdown = coordinator.shutdown();
    match random.below(4) {
        0 => block_on(&mut shutdown),
        1 => assert_eq!(shutdown.wait(DEADLINE), Ok(())),
        2 => {
            let mut poll = Poller::new();
            poll.register(&mut shutdown, 1);
            assert_eq!(poll.wait(), [1]);
        }
        _ => {
            shutdown.force();
            while let Err(left) = shutdown.wait(Duration::from_micros(50)) {
                assert!(left > 0);
            }
        }
    }
    assert!(shutdown.poll().is_ready());
    assert_eq!((shutdown.remaining(), units.load(Ordering::SeqCst)), (0, 0));
    shutdown.force();
    for worker in workers {
        worker.finish();
    }
}
