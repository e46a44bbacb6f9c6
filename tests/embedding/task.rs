//! What a task resolves to, and what it leaves when it is dropped.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::{Error, Event, Failure, Refusal, RequestError, RestartTask, spawn_restart_task, startup_complete};

use crate::case::{Alarm, Case, comes_to_rest, drive, expect, finish, holdings, holdings_alone, poll_with, ready};
use crate::child::{config, path};
use pollflip_kit::group::wait_until;

cases![
    a_task_resolves_with_the_successor_and_then_stays_pending,
    a_task_that_has_resolved_comes_to_rest_whatever_the_successor_says,
    a_failed_restart_leaves_the_task_pending_and_the_next_one_works,
    a_task_of_a_stopping_process_resolves_with_an_error_that_says_so,
    a_task_resolves_with_the_reason_once_somebody_has_asked_for_what_can_never_be,
    startup_complete_may_come_before_the_first_poll_any_number_of_times,
    both_ways_to_make_a_task_and_the_client_of_its_configuration,
    a_second_restarter_is_an_error_while_the_first_lives,
    a_process_whose_task_has_resolved_makes_no_other,
    a_task_dropped_at_any_step_leaves_nothing,
    a_task_dropped_on_probation_commits,
    no_event_is_lost_when_next_event_is_dropped,
];

fn a_task_resolves_with_the_successor_and_then_stays_pending(case: &Case) {
    let mut task = case.task();
    task.restarter().request().expect("a restart");
    let mut successor = finish(&mut task);
    assert_eq!(task.as_raw_fd(), task.as_fd().as_raw_fd());
    assert_eq!(successor.as_raw_fd(), successor.as_fd().as_raw_fd());
    assert_ne!(task.as_raw_fd(), successor.as_raw_fd());
    assert!(successor.pid() > 0 && successor.try_wait().is_none());
    assert_eq!(task.restarter().status().state, pollflip::ServiceState::HandedOff);
    let alarm = Alarm::new();
    for _ in 0..100 {
        assert!(task.poll().is_pending() && poll_with(&mut task, &alarm).is_pending());
    }
    assert!(task.restarter().request().is_err());
    thread::sleep(Duration::from_millis(50));
    assert!(poll_with(&mut task, &alarm).is_pending());
    assert!(alarm.count() < 10, "it is woken over and over: {}", alarm.count());
}

/// What came too soon after the line before it is told a moment later, if there is still something to tell it of.
fn a_task_that_has_resolved_comes_to_rest_whatever_the_successor_says(case: &Case) {
    let config = config().probation(Duration::from_millis(20));
    let mut task = ready(config.try_into_restart_task().expect("a task"));
    case.plan("talk");
    task.restarter().request().expect("a restart");
    let _successor = finish(&mut task);
    assert!(comes_to_rest(&mut task), "it wants to be polled over and over");
}

/// It would have a successor of its own, and two would serve.
fn a_process_whose_task_has_resolved_makes_no_other(case: &Case) {
    let mut task = case.task();
    task.restarter().request().expect("a restart");
    finish(&mut task);
    drop(task);
    for result in [config().try_into_restart_task(), config().build().map(RestartTask::from)] {
        let why = result.expect_err("it has handed over");
        assert!(matches!(why, Error::HandedOver) && why.to_string().contains("has handed the service over"), "{why}");
    }
}

fn a_failed_restart_leaves_the_task_pending_and_the_next_one_works(case: &Case) {
    let mut task = case.task();
    for restart in 1..=3 {
        case.plan("exit");
        task.restarter().request().expect("a restart");
        let alarm = Alarm::new();
        loop {
            assert!(poll_with(&mut task, &alarm).is_pending());
            // It is idle already when it has yet to tell.
            if task.restarter().status().outcomes.len() == restart {
                break;
            }
            alarm.wait();
        }
        let status = task.restarter().status();
        let why = status.last_failure.expect("a reason");
        assert!(status.state == pollflip::ServiceState::Serving && why.contains("exited with status 3"), "{}: {why}", status.state);
    }
    task.restarter().request().expect("a restart");
    finish(&mut task);
}

fn a_task_of_a_stopping_process_resolves_with_an_error_that_says_so(case: &Case) {
    let mut task = case.task();
    case.plan("hang");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || holdings().children == 1).is_pending());
    task.restarter().stop();
    match drive(&mut task, || false) {
        Poll::Ready(Err(error @ Error::NoMoreRestarts(Refusal::Stopping))) => assert!(error.to_string().contains("stopping"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(drive(&mut task, || holdings().children == 0).is_pending(), "and stays pending; the successor is gone");
    assert!(task.restarter().request().is_err());
}

/// This process goes on as one that systemd has started and takes no notifications from.
fn become_one_that_systemd_does_not_hear() {
    const STARTED: &str = "SYSTEMD_EXEC_PID";
    let own = process::id().to_string();
    if std::env::var(STARTED).is_ok_and(|started| started == own) && std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let program = std::env::current_exe().expect("a program");
    let mut command = Command::new(program);
    panic!("{}", command.args(std::env::args_os().skip(1)).env(STARTED, own).env_remove("NOTIFY_SOCKET").exec());
}

fn a_task_resolves_with_the_reason_once_somebody_has_asked_for_what_can_never_be(case: &Case) {
    become_one_that_systemd_does_not_hear();
    let why = Refusal::NoNotifyAccess;
    assert!(why.is_permanent());
    let mut task = case.task();
    assert_eq!(task.restarter().status().impossible, Some(why.to_string()));
    for _ in 0..10 {
        assert!(task.poll().is_pending(), "nobody has asked");
    }
    let client = thread::spawn(|| config().request_restart());
    match drive(&mut task, || false) {
        Poll::Ready(Err(Error::NoMoreRestarts(refusal))) => assert_eq!(refusal, why),
        other => panic!("{other:?}"),
    }
    match client.join().expect("a client") {
        Err(error @ RequestError::Impossible(_)) => {
            assert_eq!((error.exit_status(), error.to_string()), (5, format!("no restart is possible: {why}")));
        }
        other => panic!("{other:?}"),
    }
    // It goes on: clients are answered, and nothing more is told.
    let client = thread::spawn(|| config().request_status());
    assert!(drive(&mut task, || client.is_finished()).is_pending());
    assert_eq!(client.join().expect("a client").expect("a status").impossible, Some(why.to_string()));
    drop(task);

    let mut task = case.task();
    assert_eq!(task.restarter().request(), Err(why));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    match runtime.block_on(task.next_event()) {
        Event::NoMoreRestarts(Error::NoMoreRestarts(refusal)) => assert_eq!(refusal, why),
        other => panic!("{other:?}"),
    }
    assert!(task.poll().is_pending());
}

fn startup_complete_may_come_before_the_first_poll_any_number_of_times(_: &Case) {
    assert!(startup_complete().is_err(), "nothing has been built yet");
    let mut task = config().try_into_restart_task().expect("a task");
    for _ in 0..3 {
        startup_complete().expect("ready");
    }
    assert!(task.poll().is_pending());
    assert_eq!(task.restarter().status().state, pollflip::ServiceState::Serving);
    startup_complete().expect("ready");
    task.restarter().request().expect("a restart");
    finish(&mut task);
    startup_complete().expect("ready, whatever came after");
}

fn both_ways_to_make_a_task_and_the_client_of_its_configuration(case: &Case) {
    drop(config().try_into_restart_task().expect("a task"));
    let mut task = ready(spawn_restart_task(config()).expect("a task"));
    case.plan("exit");
    let client = thread::spawn(|| config().request_restart());
    assert!(drive(&mut task, || client.is_finished()).is_pending());
    let why = client.join().expect("a client").expect_err("it exits").to_string();
    assert!(why.contains("exited with status 3"), "{why}");
    let client = thread::spawn(|| config().request_restart());
    let successor = finish(&mut task);
    // Whoever asked is answered before the task resolves.
    assert_eq!(client.join().expect("a client").expect("a successor"), successor.pid());
}

fn a_second_restarter_is_an_error_while_the_first_lives(case: &Case) {
    let mut task = case.task();
    let before = holdings();
    for _ in 0..3 {
        let why = config().build().expect_err("one at a time").to_string();
        assert!(why.contains("another Restarter or RestartTask lives"), "{why}");
        assert!(spawn_restart_task(config().restart_signal(None)).is_err());
        expect(before);
    }
    assert!(path("restart.sock").exists());
    task.restarter().request().expect("a restart");
    task.restarter().cancel("by a test");
    drop(task);
    let mut task = case.task();
    task.restarter().request().expect("a restart");
    finish(&mut task);
}

/// Polls until that event has come.
fn reach(task: &mut RestartTask, wanted: &str) {
    loop {
        let event = task.restarter().wait(pollflip_kit::group::DEADLINE).unwrap_or_else(|| panic!("no {wanted}"));
        if format!("{event:?}").starts_with(wanted) {
            return;
        }
    }
}

fn a_task_dropped_at_any_step_leaves_nothing(case: &Case) {
    // What the process keeps of the first signal handler is there from now on.
    drop(case.task());
    let before = holdings_alone();
    for step in ["", "Restarting", "Spawned", "Failed"] {
        for as_a_future in [false, true] {
            let mut task = case.task();
            if as_a_future {
                assert!(poll_with(&mut task, &Alarm::new()).is_pending());
            }
            if !step.is_empty() {
                case.plan(if step == "Failed" { "exit" } else { "hang" });
                task.restarter().request().expect("a restart");
                reach(&mut task, step);
            }
            drop(task);
            assert!(!path("restart.sock").exists());
            expect(before);
            // No action is behind the signal.
            kill(Pid::this(), Signal::SIGUSR1).expect("a signal");
            case.plan("");
        }
    }
    let mut task = case.task();
    assert!(task.poll().is_pending());
    assert_eq!(holdings().children, 0, "a signal of before does nothing");
}

fn a_task_dropped_on_probation_commits(_: &Case) {
    let mut task = ready(config().probation(Duration::from_secs(600)).try_into_restart_task().expect("a task"));
    task.restarter().request().expect("a restart");
    reach(&mut task, "HandedOff");
    assert!(!path("committed").exists());
    drop(task);
    wait_until("the successor to learn that it is final", || path("committed").exists());
}

fn no_event_is_lost_when_next_event_is_dropped(case: &Case) {
    let mut task = case.task();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut events = Vec::new();
    for plan in ["exit", "serve"] {
        case.plan(plan);
        task.restarter().request().expect("a restart");
        runtime.block_on(async {
            loop {
                let event = tokio::select! {
                    biased;
                    () = tokio::task::yield_now() => continue,
                    event = task.next_event() => event,
                };
                let ended = matches!(event, Event::Failed(_) | Event::Completed(_));
                events.push(match event {
                    Event::Failed(Failure::Exited { .. }) => "Failed".into(),
                    event => format!("{event:?}").split('(').next().unwrap_or_default().to_owned(),
                });
                if ended {
                    return;
                }
            }
        });
    }
    assert_eq!(events, ["Restarting", "Spawned", "Failed", "Restarting", "Spawned", "HandedOff", "Completed"]);
}
