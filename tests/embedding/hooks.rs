//! Hooks at each step, and what becomes of the attempt if one fails.

use std::fs;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::{Event, Exit, Failure, Handover, HookResult, LifecycleHandler, Precopy, RestartTask};

use crate::case::{Case, drive, expect, finish, holdings};
use crate::child::path;
use pollflip_kit::group::{has_ended, signal, wait_for, wait_until};

cases![
    hooks_are_called_in_order_and_the_state_arrives,
    a_successor_receives_and_is_ready_in_futures,
    a_first_generation_is_ready_at_once_and_receives_nothing_in_futures,
    an_error_before_the_spawn_fails_the_attempt_alone,
    a_panic_before_the_spawn_fails_the_attempt_alone,
    an_error_while_sending_fails_the_attempt_alone,
    a_panic_while_sending_fails_the_attempt_alone,
    a_hook_that_finds_the_successor_gone_does_not_hide_why,
    a_panic_in_the_undo_hook_changes_nothing,
    a_panic_in_the_undo_hook_does_not_call_the_next_restart_off,
    a_panic_after_success_changes_nothing,
    a_handover_may_be_sent_from_another_thread,
    a_hook_gives_ahead_as_often_as_there_is_room,
    a_loop_that_takes_all_events_gives_one_part_ahead_in_a_turn,
    an_error_while_something_goes_ahead_fails_the_attempt_alone,
    a_task_without_a_handler_gives_nothing_ahead,
    a_successor_in_whose_task_nobody_takes_what_comes_ahead_does_not_take_over,
    a_task_without_a_handler_gives_an_empty_state,
    a_successor_in_whose_task_nobody_takes_the_state_does_not_take_over,
];

fn a_successor_receives_and_is_ready_in_futures(case: &Case) {
    case.plan("futures");
    let recorder = Recorder::default();
    // One that was chosen at run time.
    let handler: Box<dyn LifecycleHandler> = Box::new(recorder.clone());
    let mut task = case.task().with_handler(handler);
    task.restarter().request().expect("a restart");
    finish(&mut task);
    assert_eq!(fs::read(path("got")).expect("the state"), b"all of it");
    wait_until("the successor to be ready", || path("ready").exists());
}

fn a_first_generation_is_ready_at_once_and_receives_nothing_in_futures(_: &Case) {
    let mut task = crate::child::config().version("1.2\n3").try_into_restart_task().expect("a task");
    assert_eq!(task.restarter().status().version.as_deref(), Some("1.2 3"), "in one line");
    let before = holdings();
    let mut executor = futures_executor::LocalPool::new();
    assert!(executor.run_until(task.receive(std::time::Duration::ZERO)).expect("no state").is_none());
    assert_eq!(task.restarter().status().state, pollflip::ServiceState::NotReady);
    executor.run_until(task.ready()).expect("ready");
    assert!(task.poll().is_pending());
    assert_eq!(task.restarter().status().state, pollflip::ServiceState::Serving);
    expect(before);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Error(&'static str),
    Panic(&'static str),
    /// The successor is killed before it is given something.
    Killed(&'static str),
}

/// Notes what is called, and fails at one step, once.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    calls: Vec<String>,
    fault: Option<Fault>,
    elsewhere: bool,
    /// How many items have gone ahead.
    copied: usize,
}

impl Recorder {
    fn with(fault: Fault) -> Recorder {
        let recorder = Recorder::default();
        recorder.record().fault = Some(fault);
        recorder
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.0.lock().expect("no panic under this lock")
    }

    fn calls(&self) -> Vec<String> {
        self.record().calls.clone()
    }

    /// The number of the next item that goes ahead.
    fn next(&self) -> usize {
        let mut record = self.record();
        record.copied += 1;
        record.copied
    }

    fn step(&self, step: &str, text: &str) -> HookResult {
        let mut record = self.record();
        record.calls.push(format!("{step}{text}"));
        let fault = record.fault.take_if(|fault| matches!(fault, Fault::Error(at) | Fault::Panic(at) | Fault::Killed(at) if *at == step));
        drop(record);
        match fault {
            Some(Fault::Error(at)) => Err(format!("no luck at {at}").into()),
            Some(Fault::Panic(at)) => panic!("bad luck at {at}"),
            Some(Fault::Killed(_)) => {
                let successor = fs::read_to_string(path("pid")).expect("its process id").parse().expect("a number");
                signal(successor, Signal::SIGKILL);
                wait_until("its end", || has_ended(successor));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl LifecycleHandler for Recorder {
    fn pre_new_process(&mut self) -> HookResult {
        self.step("pre", "")
    }

    fn precopy(&mut self, precopy: &mut Precopy) -> HookResult {
        self.step("copy", "")?;
        let left = 300 - self.record().copied;
        let stdin = std::io::stdin();
        precopy.fds((0..precopy.room().min(left)).map(|_| (format!("item/{}", self.next()), &stdin)))?;
        if self.record().copied == 300 {
            precopy.complete();
        }
        Ok(())
    }

    fn send_to_new_process(&mut self, mut handover: Handover) -> HookResult {
        handover.bytes("state", b"all of it")?;
        self.step("send", "")?;
        handover.fds([("stdin", std::io::stdin())])?;
        if self.record().elsewhere {
            std::thread::spawn(move || handover.send());
        } else {
            handover.send();
        }
        Ok(())
    }

    fn new_process_failed(&mut self, why: &Failure) {
        self.step("failed", &format!(": {why}")).expect("it panics or goes well");
    }

    fn new_process_ready(&mut self, pid: u32) {
        assert!(pid > 0);
        self.step("ready", "").expect("it panics or goes well");
    }
}

fn restart_with_state(case: &Case, task: &mut RestartTask) {
    case.plan("pull");
    task.restarter().request().expect("a restart");
    finish(task);
    assert_eq!(fs::read(path("got")).expect("the state"), b"all of it");
}

fn hooks_are_called_in_order_and_the_state_arrives(case: &Case) {
    let recorder = Recorder::default();
    let mut task = case.task().with_handler(recorder.clone());
    case.plan("exit");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || recorder.calls().len() == 2).is_pending());
    restart_with_state(case, &mut task);
    let failed = &format!("failed: the successor {} before it was ready; its standard error may say why", Exit::Code(3));
    assert_eq!(recorder.calls(), ["pre", failed, "pre", "send", "ready"]);
}

/// The attempt fails with that text, nothing is left of it, and the next one works.
fn the_attempt_alone_fails(case: &Case, fault: Fault, calls: &[&str], text: &str) {
    let recorder = Recorder::with(fault);
    let mut task = case.task().with_handler(recorder.clone());
    let before = holdings();
    case.plan("pull");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || recorder.calls().iter().any(|call| call.starts_with("failed"))).is_pending());
    let failed = format!("failed: {}", Failure::Hook(text.into()));
    assert_eq!(recorder.calls(), [calls, &[&failed]].concat());
    let status = task.restarter().status();
    assert_eq!((status.state.as_str(), status.last_failure), ("idle", Some(Failure::Hook(text.into()).to_string())));
    assert!(drive(&mut task, || holdings() == before).is_pending());
    expect(before);

    recorder.record().calls.clear();
    restart_with_state(case, &mut task);
    assert_eq!(recorder.calls(), ["pre", "send", "ready"]);
}

fn an_error_before_the_spawn_fails_the_attempt_alone(case: &Case) {
    the_attempt_alone_fails(case, Fault::Error("pre"), &["pre"], "no luck at pre");
}

fn a_panic_before_the_spawn_fails_the_attempt_alone(case: &Case) {
    the_attempt_alone_fails(case, Fault::Panic("pre"), &["pre"], "it panicked: bad luck at pre");
}

fn an_error_while_sending_fails_the_attempt_alone(case: &Case) {
    the_attempt_alone_fails(case, Fault::Error("send"), &["pre", "send"], "no luck at send");
}

fn a_panic_while_sending_fails_the_attempt_alone(case: &Case) {
    the_attempt_alone_fails(case, Fault::Panic("send"), &["pre", "send"], "it panicked: bad luck at send");
}

/// `?` in a hook is all that it takes for the error that it found to be returned.
fn a_hook_that_finds_the_successor_gone_does_not_hide_why(case: &Case) {
    let recorder = Recorder::default();
    let mut task = case.task().with_handler(recorder.clone());
    for (plan, step) in [("futures ahead", "copy"), ("pull", "send")] {
        recorder.record().fault = Some(Fault::Killed(step));
        case.plan(plan);
        task.restarter().request().expect("a restart");
        assert!(drive(&mut task, || recorder.calls().last().is_some_and(|call| call.starts_with("failed"))).is_pending());
        let calls = std::mem::take(&mut recorder.record().calls);
        assert_eq!(calls[..calls.len() - 1], ["pre", step]);
        let why = calls.last().expect("a failure");
        assert!(why.starts_with("failed: the successor was killed by SIGKILL before it was ready"), "{why}");
    }
    restart_with_state(case, &mut task);
    assert_eq!(recorder.calls(), ["pre", "send", "ready"]);
}

fn a_panic_in_the_undo_hook_changes_nothing(case: &Case) {
    let recorder = Recorder::with(Fault::Panic("failed"));
    let mut task = case.task().with_handler(recorder.clone());
    case.plan("exit");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || recorder.calls().len() == 2).is_pending());
    let why = task.restarter().status().last_failure.expect("a reason");
    assert!(why.contains("exited with status 3"), "{why}");
    restart_with_state(case, &mut task);
}

/// The next one has begun before the hook of the first is called: both came in one turn of the loop.
fn a_panic_in_the_undo_hook_does_not_call_the_next_restart_off(case: &Case) {
    let recorder = Recorder::with(Fault::Panic("failed"));
    let mut task = case.task().with_handler(recorder.clone());
    case.plan("hang");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || path("hangs").exists()).is_pending());
    // It may have come this far before the restart thread has told the loop of it.
    let hung = wait_for("the successor", || {
        assert!(task.poll().is_pending());
        task.restarter().status().successor
    });
    signal(hung, Signal::SIGKILL);
    wait_until("its end", || has_ended(hung));
    kill(Pid::this(), Signal::SIGUSR1).expect("a signal");
    finish(&mut task);
    assert_eq!(
        recorder.calls(),
        [
            "pre",
            "failed: the successor was killed by SIGKILL before it was ready; by somebody, or for want of memory? see the log of the kernel",
            "pre",
            "ready"
        ]
    );
}

fn a_panic_after_success_changes_nothing(case: &Case) {
    let recorder = Recorder::with(Fault::Panic("ready"));
    let mut task = case.task().with_handler(recorder.clone());
    restart_with_state(case, &mut task);
    assert_eq!(recorder.calls(), ["pre", "send", "ready"]);
}

fn a_handover_may_be_sent_from_another_thread(case: &Case) {
    let recorder = Recorder::default();
    recorder.record().elsewhere = true;
    let mut task = case.task().with_handler(recorder);
    restart_with_state(case, &mut task);
}

fn a_hook_gives_ahead_as_often_as_there_is_room(case: &Case) {
    let recorder = Recorder::default();
    let mut task = case.task().with_handler(recorder.clone());
    case.plan("futures ahead");
    task.restarter().request().expect("a restart");
    finish(&mut task);
    let names: Vec<_> = (1..=300).map(|number| format!("item/{number}")).collect();
    assert_eq!(fs::read_to_string(path("ahead")).expect("what came ahead"), names.join(" "));
    assert_eq!(fs::read(path("got")).expect("the state"), b"all of it");
    assert_eq!(recorder.calls(), ["pre", "copy", "copy", "send", "ready"]);
    wait_until("the successor to be ready", || path("ready").exists());
}

/// Between two turns it serves its connections.
fn a_loop_that_takes_all_events_gives_one_part_ahead_in_a_turn(case: &Case) {
    let stdin = std::io::stdin();
    let mut task = case.task();
    case.plan("futures ahead");
    let restarter = task.restarter();
    restarter.request().expect("a restart");
    let (mut ahead, mut turns, mut names) = (None::<Precopy>, Vec::new(), Vec::new());
    let mut is_over = false;
    while !is_over {
        let mut given = 0;
        while let Some(event) = restarter.poll() {
            match event {
                Event::PrecopyRequested(precopy) => ahead = Some(precopy),
                Event::StateRequested(handover) => {
                    ahead = None;
                    handover.send();
                }
                Event::Failed(why) => panic!("{why}"),
                Event::Completed(_) => is_over = true,
                _ => {}
            }
            let Some(precopy) = &mut ahead else { continue };
            let some: Vec<_> = (names.len()..2000).take(precopy.room()).map(|number| format!("item/{number}")).collect();
            given += some.len();
            precopy.fds(some.iter().map(|name| (name, &stdin))).expect("it is taken");
            names.extend(some);
            if names.len() == 2000 {
                precopy.complete();
            }
        }
        turns.extend((given > 0).then_some(given));
        if !is_over {
            let mut fds = [PollFd::new(restarter.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1), "nothing comes after {turns:?}");
        }
    }
    assert_eq!(turns, [253, 253, 253, 253, 253, 253, 253, 229]);
    assert_eq!(fs::read_to_string(path("ahead")).expect("what came ahead"), names.join(" "));
}

fn an_error_while_something_goes_ahead_fails_the_attempt_alone(case: &Case) {
    let recorder = Recorder::with(Fault::Error("copy"));
    let mut task = case.task().with_handler(recorder.clone());
    let before = holdings();
    case.plan("futures ahead");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || recorder.calls().len() == 3).is_pending());
    assert_eq!(recorder.calls()[2], format!("failed: {}", Failure::Hook("no luck at copy".into())));
    assert!(drive(&mut task, || holdings() == before).is_pending());
    restart_with_state(case, &mut task);
}

fn a_task_without_a_handler_gives_nothing_ahead(case: &Case) {
    let mut task = case.task();
    case.plan("futures ahead");
    task.restarter().request().expect("a restart");
    finish(&mut task);
    assert_eq!(fs::read(path("ahead")).expect("nothing"), b"");
    wait_until("the successor to be ready", || path("ready").exists());
}

fn a_successor_in_whose_task_nobody_takes_what_comes_ahead_does_not_take_over(case: &Case) {
    let recorder = Recorder::default();
    let mut task = case.task().with_handler(recorder.clone());
    case.plan("copy in a task");
    task.restarter().request().expect("a restart");
    assert!(drive(&mut task, || recorder.calls().last().is_some_and(|call| call.starts_with("failed"))).is_pending());
    let calls = recorder.calls();
    let why = calls.last().expect("a failure");
    assert!(why.starts_with("failed: the successor refused: ") && why.ends_with("receive_precopy() it"), "{why}");
    restart_with_state(case, &mut task);
}

fn a_task_without_a_handler_gives_an_empty_state(case: &Case) {
    let mut task = case.task();
    case.plan("pull");
    task.restarter().request().expect("a restart");
    finish(&mut task);
    assert_eq!(fs::read(path("got")).expect("the state"), b"");
}

/// It would be closed there, connections and all.
fn a_successor_in_whose_task_nobody_takes_the_state_does_not_take_over(case: &Case) {
    let recorder = Recorder::default();
    let mut task = case.task().with_handler(recorder.clone());
    for _ in 0..30 {
        case.plan("pull in a task");
        task.restarter().request().expect("a restart");
        assert!(drive(&mut task, || recorder.calls().len() == 3).is_pending());
        let calls = std::mem::take(&mut recorder.record().calls);
        assert_eq!(calls[..2], ["pre", "send"]);
        assert!(calls[2].starts_with("failed: the successor refused: ") && calls[2].ends_with("receive() it"), "{}", calls[2]);
    }
    restart_with_state(case, &mut task);
}
