//! A task polled by changing threads and with changing wakers.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;
use std::{sync::Mutex, thread};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid};
use pollflip::{Event, RestartTask, Restarter};

use crate::case::{Alarm, Case, comes_to_rest, expect, holdings, holdings_alone, poll_with};
use crate::child::{config, path};
use pollflip_kit::group::{DEADLINE, wait_until};

cases![
    a_task_is_polled_on_another_thread_than_it_was_made_on,
    a_copy_that_a_forked_child_drops_does_not_end_the_thread_that_wakes_the_task,
    a_signal_after_a_drop_on_another_thread_does_not_restart_with_the_next_restarter,
    a_build_that_fails_leaves_the_signal_mask_as_it_was,
    only_the_last_waker_is_woken_and_no_other_is_kept,
    no_wake_up_is_lost_in_a_thousand_rounds_with_another_waker_each_time,
    a_waker_may_drop_the_task_that_it_wakes,
    a_waker_may_be_called_while_the_task_is_dropped,
    a_wait_ends_in_time_although_it_is_interrupted_over_and_over,
    a_restarter_that_a_thread_keeps_is_dropped_with_it,
];

fn a_task_is_polled_on_another_thread_than_it_was_made_on(case: &Case) {
    let mut task = case.task();
    for plan in ["exit", "exit", "serve"] {
        case.plan(plan);
        let running = thread::spawn(move || {
            let alarm = Alarm::new();
            task.restarter().request().expect("a restart");
            loop {
                let resolved = poll_with(&mut task, &alarm).is_ready();
                if resolved || task.restarter().status().state == pollflip::ServiceState::Serving {
                    return (task, resolved);
                }
                alarm.wait();
            }
        });
        let resolved;
        (task, resolved) = running.join().expect("no panic");
        assert_eq!(resolved, plan == "serve");
    }
}

#[allow(unsafe_code, reason = "a worker that some programs have")]
fn a_copy_that_a_forked_child_drops_does_not_end_the_thread_that_wakes_the_task(case: &Case) {
    let mut task = case.task();
    let alarm = Alarm::new();
    assert!(poll_with(&mut task, &alarm).is_pending());
    let before = told_by_eventfds();
    assert!(before.len() >= 2, "{before:?}");
    // SAFETY: the other threads of this process wait for a descriptor or an order, and hold nothing that the child needs.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            drop(task);
            std::process::exit(0);
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
    // The thread would be told to end, over and over.
    assert_eq!(told_by_eventfds(), before);
    task.restarter().request().expect("a restart");
    assert!(task.restarter().cancel("by a test"));
    alarm.wait();
}

/// What is in all descriptors by which threads tell each other something.
fn told_by_eventfds() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fdinfo").expect("/proc").map(|entry| entry.expect("an entry").path());
    let mut entries: Vec<_> = entries.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).collect();
    entries.sort();
    let count = |(path, text): (PathBuf, String)| {
        Some(format!("{}: {}", path.display(), text.lines().find(|line| line.starts_with("eventfd-count"))?))
    };
    entries.into_iter().filter_map(count).collect()
}

/// Nobody takes it: the thread that made the first restarter still has it blocked.
fn a_signal_after_a_drop_on_another_thread_does_not_restart_with_the_next_restarter(case: &Case) {
    let taken = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Signal::SIGUSR1 as i32, taken.clone()).expect("a handler");
    let task = case.task();
    thread::spawn(move || drop(task)).join().expect("no panic");
    kill(getpid(), Signal::SIGUSR1).expect("a signal");
    let mut task = case.task();
    case.plan("exit");
    task.restarter().request().expect("no restart is under way");
    // The restart thread would take it first.
    while !matches!(task.restarter().wait(DEADLINE).expect("an end"), Event::Failed(_)) {}
    assert!(!taken.load(Ordering::SeqCst));
    // Another one does what it should.
    kill(getpid(), Signal::SIGUSR1).expect("a signal");
    assert!(matches!(task.restarter().wait(DEADLINE), Some(Event::Restarting)));
    assert!(taken.load(Ordering::SeqCst) && task.restarter().cancel("by a test"));
}

fn a_build_that_fails_leaves_the_signal_mask_as_it_was(_: &Case) {
    let before = SigSet::thread_get_mask().expect("a mask");
    assert!(!before.contains(Signal::SIGUSR1));
    config().coordination_socket(path("nowhere/restart.sock")).build().expect_err("no directory");
    assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    let restarter = config().build().expect("a restarter");
    assert!(SigSet::thread_get_mask().expect("a mask").contains(Signal::SIGUSR1));
    drop(restarter);
    assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
}

fn only_the_last_waker_is_woken_and_no_other_is_kept(case: &Case) {
    let mut task = case.task();
    assert!(comes_to_rest(&mut task));
    let alarms: Vec<_> = (0..10).map(|_| Alarm::new()).collect();
    for alarm in &alarms {
        assert!(poll_with(&mut task, alarm).is_pending());
    }
    assert!(alarms[..9].iter().all(|alarm| Arc::strong_count(alarm) == 1));
    task.restarter().request().expect("a restart");
    alarms[9].wait();
    task.restarter().cancel("by a test");
    assert!(alarms[..9].iter().all(|alarm| alarm.count() == 0));
    wait_until("the last to be let go", || Arc::strong_count(&alarms[9]) == 1);
    assert_eq!(alarms[9].count(), 1, "once for each poll");
}

fn no_wake_up_is_lost_in_a_thousand_rounds_with_another_waker_each_time(case: &Case) {
    let mut task = case.task();
    for round in 0..1_000 {
        let alarm = Alarm::new();
        assert!(poll_with(&mut task, &alarm).is_pending());
        task.restarter().request().unwrap_or_else(|refusal| panic!("round {round}: {refusal}"));
        // Called off before anything is started.
        assert!(task.restarter().cancel("by a test"));
        alarm.wait();
        while task.restarter().status().state != pollflip::ServiceState::Serving {
            assert!(poll_with(&mut task, &alarm).is_pending());
        }
    }
    assert_eq!(holdings().children, 0);
}

/// An executor that runs its tasks where they are woken, and whose task has had enough.
fn a_waker_may_drop_the_task_that_it_wakes(case: &Case) {
    struct Owner(Mutex<Option<RestartTask>>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().expect("no panic").take());
        }
    }
    drop(case.task());
    let before = holdings_alone();
    let mut task = case.task();
    assert!(comes_to_rest(&mut task));
    let owner = Arc::new(Owner(Mutex::new(None)));
    let waker = Waker::from(owner.clone());
    assert!(Future::poll(std::pin::Pin::new(&mut task), &mut std::task::Context::from_waker(&waker)).is_pending());
    let mut slot = owner.0.lock().expect("no panic");
    task.restarter().request().expect("a restart");
    *slot = Some(task);
    drop(slot);
    wait_until("the task to be dropped", || owner.0.lock().expect("no panic").is_none());
    expect(before);
}

/// An executor whose wakers take the lock under which it drops its tasks.
fn a_waker_may_be_called_while_the_task_is_dropped(case: &Case) {
    struct Queue {
        task: Mutex<Option<RestartTask>>,
        called: Arc<Alarm>,
    }
    impl Wake for Queue {
        fn wake(self: Arc<Self>) {
            self.called.wake_by_ref();
            drop(self.task.lock().expect("no panic"));
        }
    }
    drop(case.task());
    let before = holdings_alone();
    for _ in 0..20 {
        let mut task = case.task();
        let queue = Arc::new(Queue { task: Mutex::new(None), called: Alarm::new() });
        let waker = Waker::from(queue.clone());
        assert!(Future::poll(std::pin::Pin::new(&mut task), &mut std::task::Context::from_waker(&waker)).is_pending());
        let mut slot = queue.task.lock().expect("no panic");
        task.restarter().request().expect("a restart");
        *slot = Some(task);
        queue.called.wait();
        *slot = None;
        drop(slot);
        expect(before);
    }
}

fn a_wait_ends_in_time_although_it_is_interrupted_over_and_over(_: &Case) {
    let mut restarter = config().build().expect("a restarter");
    restarter.ready().expect("the service");
    let signal = Signal::SIGUSR2;
    signal_hook::flag::register(signal as i32, Arc::default()).expect("a handler");
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let interrupter = thread::spawn(move || {
        SigSet::from(signal).thread_block().expect("a mask");
        // More often than the wait is long, and for far longer.
        let mut left = (0..3000).skip_while(|_| {
            kill(getpid(), signal).expect("a signal");
            thread::sleep(Duration::from_millis(3));
            !seen.load(Ordering::SeqCst)
        });
        left.next().is_some()
    });
    assert!(restarter.wait(Duration::from_millis(50)).is_none());
    over.store(true, Ordering::SeqCst);
    assert!(interrupter.join().expect("no panic"), "it has waited for as long as there were signals");
}

fn a_restarter_that_a_thread_keeps_is_dropped_with_it(_: &Case) {
    thread_local! {
        static KEPT: RefCell<Option<Restarter>> = const { RefCell::new(None) };
    }
    let before = holdings();
    let keeper = thread::spawn(|| KEPT.with_borrow_mut(|kept| *kept = Some(config().build().expect("a restarter"))));
    keeper.join().expect("no panic");
    expect(before);
    assert!(!path("restart.sock").exists());
}
