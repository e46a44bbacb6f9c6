//! A process that may not have another descriptor, or another thread: an error, and it serves on.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::{Uid, setuid};
use pollflip::restart_coordination_socket::request_status;
use pollflip::{ChildSpawnError, Event, Failure, RestartConfig, Restarter};

use crate::case::{Alarm, Case, expect, holdings, holdings_alone, poll_with, ready};
use crate::child::{config, path};
use crate::harness::DEADLINE;

cases![
    a_build_that_runs_out_of_descriptors_is_an_error_and_leaves_nothing,
    a_restart_that_runs_out_of_descriptors_fails_and_the_next_one_works,
    a_client_that_finds_no_descriptor_is_served_when_there_is_one,
    a_build_without_a_thread_is_an_error,
    a_restart_without_a_process_fails_and_the_next_one_works,
    a_future_without_a_thread_is_an_error_and_the_service_goes_on,
    events_without_a_thread_are_an_error_once,
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
        if matches!(why, Failure::Exited(_)) {
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
    assert_eq!(asking.join().expect("no panic").expect("a status").state, "idle");
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
    assert!(matches!(failure(task.restarter()), Failure::Exited(_)));
}

fn a_restart_without_a_process_fails_and_the_next_one_works(_: &Case) {
    become_nobody_special();
    let mut task = ready(small().try_into_restart_task().expect("a task"));
    for _ in 0..3 {
        match without_threads(|| failure(task.restarter())) {
            Failure::Spawn(why) => assert_eq!(ChildSpawnError::raw_os_error(&why), Some(nix::libc::EAGAIN), "{why}"),
            other => panic!("{other}"),
        }
        assert!(matches!(failure(task.restarter()), Failure::Exited(_)));
        assert!(task.poll().is_pending());
    }
}

fn a_future_without_a_thread_is_an_error_and_the_service_goes_on(_: &Case) {
    become_nobody_special();
    let mut task = small().try_into_restart_task().expect("a task");
    let alarm = Alarm::new();
    match without_threads(|| poll_with(&mut task, &alarm)) {
        Poll::Ready(Err(error)) => assert!(error.to_string().contains("the thread that wakes the task"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(without_threads(|| poll_with(&mut task, &alarm)).is_pending(), "it has resolved");
    assert_eq!(task.restarter().status().state, "idle");
    assert!(matches!(failure(task.restarter()), Failure::Exited(_)));
}

fn events_without_a_thread_are_an_error_once(_: &Case) {
    become_nobody_special();
    let mut task = ready(small().try_into_restart_task().expect("a task"));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    without_threads(|| {
        let mut next = || Future::poll(std::pin::Pin::new(&mut task.next_event()), &mut context);
        assert!(matches!(next(), Poll::Ready(Event::Broken(_))));
        assert!((0..3).all(|_| next().is_pending()), "a loop that goes on must not spin");
    });
}
