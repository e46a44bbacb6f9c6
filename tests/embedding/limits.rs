//! A process that may not have another descriptor, or another thread: that is an error, or it is tried
//! again, and the process keeps serving.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::{Uid, setuid};
use pollflip::restart_coordination_socket::request_status;
use pollflip::{ChildSpawnError, Error, Event, Failure, RestartConfig, RestartTask, Restarter, Successor};

use crate::case::{Alarm, Case, comes_to_rest, expect, holdings, holdings_alone, poll_with, ready};
use crate::child::{config, path};
use pollflip_kit::group::{DEADLINE, wait_until};

cases![
    a_build_that_runs_out_of_descriptors_is_an_error_and_leaves_nothing,
    a_restart_that_runs_out_of_descriptors_fails_and_the_next_one_works,
    a_client_that_finds_no_descriptor_is_served_when_there_is_one,
    a_build_without_a_thread_is_an_error,
    a_restart_without_a_process_fails_and_the_next_one_works,
    a_future_that_finds_no_descriptor_stays_pending_and_later_restarts_work,
    a_future_that_finds_no_thread_stays_pending_and_later_restarts_work,
    events_that_find_no_descriptor_come_all_the_same,
    a_future_without_a_thread_of_its_own_that_is_dropped_leaves_nothing,
];

/// Lowers a limit for as long as something runs.
fn limited<T>(resource: Resource, limit: u64, run: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(resource).expect("a limit");
    setrlimit(resource, limit, hard).expect("a lower limit");
    let result = run();
    setrlimit(resource, soft, hard).expect("the old limit");
    result
}

/// The number that the next descriptor gets.
fn next_descriptor() -> u64 {
    let next = std::fs::File::open("/dev/null").expect("a descriptor");
    next.as_raw_fd() as u64
}

fn a_build_that_runs_out_of_descriptors_is_an_error_and_leaves_nothing(case: &Case) {
    drop(case.task());
    let before = holdings_alone();
    let next = next_descriptor();
    let mut failures = 0;
    let restarter = loop {
        match limited(Resource::RLIMIT_NOFILE, next + failures, || config().build()) {
            Ok(restarter) => break restarter,
            Err(error) => {
                println!("{failures} descriptors: {error}");
                assert!(!error.to_string().contains("writable"), "nothing is wrong with the directory: {error}");
            }
        }
        expect(before);
        assert!(!path("restart.sock").exists());
        failures += 1;
    };
    assert!(failures >= 5, "{failures}");
    let mut task = ready(restarter.into());
    task.restarter().request().expect("a restart");
    crate::case::finish(&mut task);
}

/// The failure of a restart that is asked for now.
fn failure(restarter: &mut Restarter) -> Failure {
    restarter.request().expect("a restart");
    loop {
        match restarter.wait(DEADLINE).expect("an end") {
            Event::Failed(why) => return why,
            Event::Restarting | Event::Spawned(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn a_restart_that_runs_out_of_descriptors_fails_and_the_next_one_works(case: &Case) {
    let mut task = case.task();
    let before = holdings();
    let next = next_descriptor();
    let mut failures = 0;
    loop {
        case.plan("exit");
        let why = limited(Resource::RLIMIT_NOFILE, next + failures, || failure(task.restarter()));
        assert!(task.poll().is_pending());
        expect(before);
        if matches!(why, Failure::Exited { .. }) {
            break;
        }
        println!("{failures} descriptors: {why}");
        failures += 1;
    }
    assert!(failures >= 3, "{failures}");
    case.plan("serve");
    task.restarter().request().expect("a restart");
    crate::case::finish(&mut task);
}

fn a_client_that_finds_no_descriptor_is_served_when_there_is_one(case: &Case) {
    let mut task = case.task();
    let client = UnixStream::connect(path("restart.sock")).expect("a client");
    let before = cpu();
    limited(Resource::RLIMIT_NOFILE, next_descriptor(), || {
        for _ in 0..10 {
            let mut fds = [PollFd::new(task.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
            assert!(task.poll().is_pending());
        }
    });
    let spent = cpu() - before;
    assert!(spent < Duration::from_millis(200), "it spins: {spent:?}");
    drop(client);
    let asking = thread::spawn(|| request_status(path("restart.sock"), DEADLINE));
    assert!(crate::case::drive(&mut task, || asking.is_finished()).is_pending());
    assert_eq!(asking.join().expect("no panic").expect("a status").state, pollflip::ServiceState::Serving);
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the usage");
    let time = |value: nix::sys::time::TimeVal| Duration::new(value.tv_sec() as u64, value.tv_usec() as u32 * 1_000);
    time(usage.user_time()) + time(usage.system_time())
}

/// Root may have as many as it likes.
fn become_nobody_special() {
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(61_234)).expect("another user");
    }
}

fn without_threads<T>(run: impl FnOnce() -> T) -> T {
    limited(Resource::RLIMIT_NPROC, 1, run)
}

/// A successor that this user can start wherever the test lies, and that ends at once.
fn small() -> RestartConfig {
    RestartConfig::new().program("/bin/sh").args(["-c", "exit 3"]).current_dir("/")
}

fn a_build_without_a_thread_is_an_error(_: &Case) {
    become_nobody_special();
    let why = without_threads(|| small().build()).expect_err("no thread").to_string();
    assert!(why.contains("cannot start the restart thread"), "{why}");
    let mut task = ready(small().try_into_restart_task().expect("a task"));
    assert!(matches!(failure(task.restarter()), Failure::Exited { .. }));
}

fn a_restart_without_a_process_fails_and_the_next_one_works(_: &Case) {
    become_nobody_special();
    let mut task = ready(small().try_into_restart_task().expect("a task"));
    for _ in 0..3 {
        match without_threads(|| failure(task.restarter())) {
            Failure::Spawn(why) => assert_eq!(ChildSpawnError::raw_os_error(&why), Some(nix::libc::EAGAIN), "{why}"),
            other => panic!("{other}"),
        }
        assert!(matches!(failure(task.restarter()), Failure::Exited { .. }));
        assert!(task.poll().is_pending());
    }
}

/// Polls it whenever it is woken, until the restart that is asked for now is over.
fn lives_through_a_restart(task: &mut RestartTask, alarm: &Arc<Alarm>) -> Poll<Result<Successor, Error>> {
    let before = task.restarter().status().outcomes.len();
    task.restarter().request().expect("a restart");
    loop {
        let result = poll_with(task, alarm);
        if result.is_ready() || task.restarter().status().outcomes.len() > before {
            return result;
        }
        alarm.wait();
    }
}

/// So often it is woken although nothing happens: not over and over.
fn is_woken_and_does_not_spin(task: &mut RestartTask) {
    let (began, before) = (Instant::now(), cpu());
    let alarm = Alarm::new();
    for round in 1..=5 {
        assert!(poll_with(task, &alarm).is_pending());
        alarm.wait();
        assert_eq!(alarm.count(), round, "once for each poll");
    }
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let spent = cpu() - before;
    assert!(spent < Duration::from_millis(200), "it spins: {spent:?}");
}

/// What has been logged, in a process that has no other logger.
struct Logged(Mutex<Vec<String>>);

static LOGGED: Logged = Logged(Mutex::new(Vec::new()));

impl log::Log for Logged {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().expect("no panic").push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn listen_to_the_log() {
    log::set_logger(&LOGGED).expect("no other logger");
    log::set_max_level(log::LevelFilter::Warn);
}

/// How often it has been said that the task has no thread that wakes it.
fn complaints() -> usize {
    let logged = LOGGED.0.lock().expect("no panic");
    logged.iter().filter(|line| line.contains("the thread that wakes the task")).count()
}

fn a_future_that_finds_no_descriptor_stays_pending_and_later_restarts_work(case: &Case) {
    listen_to_the_log();
    for room in 0..2 {
        let mut task = case.task();
        let alone = holdings();
        let alarm = Alarm::new();
        limited(Resource::RLIMIT_NOFILE, next_descriptor() + room, || {
            is_woken_and_does_not_spin(&mut task);
            // Nothing can be started either, and that is no end.
            assert!(lives_through_a_restart(&mut task, &alarm).is_pending());
        });
        assert_eq!(holdings(), alone, "it keeps what it could get of a thread");
        assert_eq!(complaints(), room as usize + 1, "once each time");
        case.plan("exit");
        assert!(lives_through_a_restart(&mut task, &alarm).is_pending());
        let why = task.restarter().status().last_failure.expect("a reason");
        assert!(why.contains("exited with status 3"), "{why}");
        // It has the thread that it lacked, and nobody else wakes it.
        assert_eq!(holdings().threads, alone.threads + 1);
        assert!(comes_to_rest(&mut task));
        if room == 1 {
            case.plan("serve");
            assert!(matches!(lives_through_a_restart(&mut task, &alarm), Poll::Ready(Ok(_))));
        }
    }
}

fn a_future_that_finds_no_thread_stays_pending_and_later_restarts_work(case: &Case) {
    listen_to_the_log();
    become_nobody_special();
    let mut task = ready(small().try_into_restart_task().expect("a task"));
    let alarm = Alarm::new();
    without_threads(|| {
        is_woken_and_does_not_spin(&mut task);
        assert!(lives_through_a_restart(&mut task, &alarm).is_pending());
        let why = task.restarter().status().last_failure.expect("a reason");
        assert!(why.contains("RLIMIT_NPROC"), "{why}");
    });
    assert_eq!(complaints(), 1);
    assert!(lives_through_a_restart(&mut task, &alarm).is_pending());
    assert!(task.restarter().status().last_failure.expect("a reason").contains("exited with status 3"));
    drop((task, case));
}

fn events_that_find_no_descriptor_come_all_the_same(case: &Case) {
    let mut task = case.task();
    let alarm = Alarm::new();
    let waker = Waker::from(alarm.clone());
    let next = |task: &mut RestartTask| Future::poll(Pin::new(&mut task.next_event()), &mut Context::from_waker(&waker));
    limited(Resource::RLIMIT_NOFILE, next_descriptor(), || {
        for _ in 0..3 {
            assert!(next(&mut task).is_pending());
            alarm.wait();
        }
        task.restarter().request().expect("a restart");
        assert!(matches!(next(&mut task), Poll::Ready(Event::Restarting)));
        assert!(matches!(next(&mut task), Poll::Ready(Event::Failed(Failure::Spawn(_)))));
        assert!(next(&mut task).is_pending());
    });
    task.restarter().request().expect("a restart");
    loop {
        match next(&mut task) {
            Poll::Ready(Event::Completed(_)) => return,
            Poll::Ready(Event::NoMoreRestarts(error)) => panic!("{error}"),
            Poll::Ready(_) => {}
            Poll::Pending => alarm.wait(),
        }
    }
}

/// Its waker is let go, whether it is just being called or not, and whatever that does.
fn a_future_without_a_thread_of_its_own_that_is_dropped_leaves_nothing(case: &Case) {
    struct Owner {
        task: Mutex<Option<RestartTask>>,
        called: Arc<Alarm>,
        does: fn(&Owner),
    }
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            self.called.wake_by_ref();
            (self.does)(&self);
        }
    }
    drop(case.task());
    let before = holdings_alone();
    let owner = |does| Arc::new(Owner { task: Mutex::new(None), called: Alarm::new(), does });
    let poll_as = |owner: &Arc<Owner>| {
        let mut task = case.task();
        let waker = Waker::from(owner.clone());
        limited(Resource::RLIMIT_NOFILE, next_descriptor(), || {
            assert!(Future::poll(Pin::new(&mut task), &mut Context::from_waker(&waker)).is_pending());
        });
        task
    };
    let is_let_go = |owner: &Arc<Owner>| {
        wait_until("the waker to be let go", || Arc::strong_count(owner) == 1);
        expect(before);
    };

    let idle = owner(|_| {});
    drop(poll_as(&idle));
    assert_eq!((Arc::strong_count(&idle), idle.called.count()), (1, 0));
    is_let_go(&idle);

    // An executor that drops the task where that is woken.
    let dropper = owner(|owner| drop(owner.task.lock().expect("no panic").take()));
    let mut slot = dropper.task.lock().expect("no panic");
    *slot = Some(poll_as(&dropper));
    drop(slot);
    dropper.called.wait();
    is_let_go(&dropper);

    // One whose wakers take the lock under which it drops its tasks.
    let queue = owner(|owner| drop(owner.task.lock().expect("no panic")));
    let mut slot = queue.task.lock().expect("no panic");
    *slot = Some(poll_as(&queue));
    queue.called.wait();
    let began = Instant::now();
    *slot = None;
    assert!(began.elapsed() < Duration::from_secs(4), "it waits for who waits for it");
    drop(slot);
    is_let_go(&queue);

    // One that panics: the restart thread goes on.
    let clumsy = owner(|_| panic!("as planned"));
    let mut task = poll_as(&clumsy);
    clumsy.called.wait();
    task.restarter().request().expect("a restart");
    crate::case::finish(&mut task);
}
