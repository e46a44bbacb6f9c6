//! Processes that test themselves from within: the old process of a restart is the test.

use std::fs;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pollflip::{Arrival, Error, Event, RestartTask, Successor};

use crate::child::{config, path};
use crate::{executors, gate, hooks, limits, task, threads};
use pollflip_kit::group::{DEADLINE, entries, wait_for};

/// What a case is given.
pub(crate) struct Case;

pub(crate) fn all() -> impl Iterator<Item = (&'static str, fn(&Case))> {
    [task::CASES, threads::CASES, executors::CASES, gate::CASES, hooks::CASES, limits::CASES].into_iter().flatten().copied()
}

pub(crate) fn run(name: &str) {
    let (_, run) = all().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("no case: {name}"));
    run(&Case);
}

/// The successor of a case: takes over, and lives as long as its predecessor. With the plan `pull` it asks for the state first, with
/// `pull in a task` where nobody takes it, with `pull and refuse` it wants nothing of it, with `leave` it ends as soon as it has the
/// service, with `gate` it has one, with `talk` it says much.
pub(crate) fn succeed(plan: &str) {
    let mut restarter = config().build().expect("a restarter");
    let predecessor = restarter.predecessor().expect("a predecessor");
    fs::write(path("pid"), std::process::id().to_string()).expect("written");
    match plan {
        "pull" => {
            let mut state = predecessor.receive(DEADLINE).expect("the state");
            let bytes = state.bytes("state").expect("readable").unwrap_or_default();
            fs::write(path("got"), bytes).expect("written");
        }
        "pull and refuse" => {
            predecessor.receive(DEADLINE).expect("the state");
            return predecessor.refuse("as planned");
        }
        "pull in a task" => {
            predecessor.pull();
            let mut task = RestartTask::from(restarter);
            // All the time, so that the state comes at any point of it.
            loop {
                if let Poll::Ready(result) = task.poll() {
                    return assert!(matches!(result, Err(Error::UnusableState(_))), "{result:?}");
                }
            }
        }
        "gate" => gate::succeed(&mut restarter),
        "copy in a task" => {
            predecessor.pull_precopy();
            let mut task = RestartTask::from(restarter);
            loop {
                if let Poll::Ready(result) = task.poll() {
                    return assert!(matches!(result, Err(Error::UnusableState(_))), "{result:?}");
                }
            }
        }
        "futures" => return succeed_in_futures(restarter.into(), false),
        "futures ahead" => return succeed_in_futures(restarter.into(), true),
        "talk" => predecessor.progress("warm"),
        _ => {}
    }
    if restarter.ready().is_err() {
        return;
    }
    if plan == "leave" {
        return;
    }
    if plan == "talk" {
        predecessor.progress("serving");
    }
    loop {
        match restarter.wait(DEADLINE) {
            Some(Event::Committed) => fs::write(path("committed"), "").expect("written"),
            Some(Event::PredecessorGone) => return,
            Some(_) => {}
            None => panic!("the predecessor goes on and on"),
        }
    }
}

impl Case {
    /// A task that is ready, so that a restart can be asked for.
    pub(crate) fn task(&self) -> RestartTask {
        ready(config().try_into_restart_task().expect("a task"))
    }

    /// What the next successor is to do.
    pub(crate) fn plan(&self, plan: &str) {
        fs::write(path("next"), plan).expect("a plan");
    }
}

/// Receives and is ready without a blocking call, and each is dropped and begun again on the way.
fn succeed_in_futures(mut task: RestartTask, is_ahead: bool) {
    fn once<F: Future + Unpin>(mut future: F, alarm: &Arc<Alarm>) -> Poll<F::Output> {
        Pin::new(&mut future).poll(&mut Context::from_waker(&Waker::from(alarm.clone())))
    }
    let alarm = Alarm::new();
    if is_ahead {
        let arrivals = loop {
            match once(task.receive_precopy(DEADLINE), &alarm) {
                Poll::Ready(arrivals) => break arrivals.expect("what can go ahead"),
                Poll::Pending => alarm.wait(),
            }
        };
        let name = |arrival| if let Arrival::Given(name, _) = arrival { name } else { "gone".into() };
        let names: Vec<_> = arrivals.into_iter().flatten().map(name).collect();
        fs::write(path("ahead"), names.join(" ")).expect("written");
    }
    let mut state = loop {
        match once(task.receive(DEADLINE), &alarm) {
            Poll::Ready(state) => break state.expect("the state").expect("a predecessor"),
            Poll::Pending => alarm.wait(),
        }
    };
    fs::write(path("got"), state.bytes("state").expect("readable").unwrap_or_default()).expect("written");
    loop {
        match once(task.ready(), &alarm) {
            Poll::Ready(result) => break result.expect("the service"),
            Poll::Pending => alarm.wait(),
        }
    }
    assert_ne!(task.restarter().status().state, pollflip::ServiceState::NotReady, "the service is this process's");
    fs::write(path("ready"), "").expect("written");
    let again = once(task.receive(DEADLINE), &alarm);
    assert!(!matches!(again, Poll::Ready(Ok(_))), "{again:?}");
    let mut executor = futures_executor::LocalPool::new();
    loop {
        if let Event::PredecessorGone = executor.run_until(task.next_event()) {
            return;
        }
    }
}

pub(crate) fn ready(mut task: RestartTask) -> RestartTask {
    assert!(task.poll().is_pending());
    assert_eq!(task.restarter().status().state, pollflip::ServiceState::Serving, "ready on its first poll");
    task
}

fn is_readable_within(task: &RestartTask, milliseconds: u8) -> bool {
    matches!(poll(&mut [PollFd::new(task.as_fd(), PollFlags::POLLIN)], PollTimeout::from(milliseconds)), Ok(1..))
}

/// Whether there is an end to what the descriptor has it polled for.
pub(crate) fn comes_to_rest(task: &mut RestartTask) -> bool {
    (0..200).any(|_| {
        assert!(task.poll().is_pending());
        !is_readable_within(task, 1)
    })
}

/// Polls by hand whenever the descriptor is readable, until it resolves or there is nothing left to wait for.
pub(crate) fn drive(task: &mut RestartTask, mut done: impl FnMut() -> bool) -> Poll<Result<Successor, Error>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let result = task.poll();
        if result.is_ready() || done() {
            return result;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?}");
        is_readable_within(task, 50);
    }
}

/// Until it has resolved with a successor.
pub(crate) fn finish(task: &mut RestartTask) -> Successor {
    match drive(task, || false) {
        Poll::Ready(Ok(successor)) => successor,
        other => panic!("{other:?}"),
    }
}

/// A waker that counts, and that a thread can wait for.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    count: AtomicUsize,
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    pub(crate) fn new() -> Arc<Alarm> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Until it has rung since the last wait.
    pub(crate) fn wait(&self) {
        let guard = self.rung.lock().expect("no panic");
        let (mut rung, out) = self.changed.wait_timeout_while(guard, DEADLINE, |rung| !*rung).expect("no panic");
        assert!(!out.timed_out(), "a wake-up was lost");
        *rung = false;
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        *self.rung.lock().expect("no panic") = true;
        self.changed.notify_all();
    }
}

/// Polls it as a future.
pub(crate) fn poll_with(task: &mut RestartTask, alarm: &Arc<Alarm>) -> Poll<Result<Successor, Error>> {
    Future::poll(Pin::new(task), &mut Context::from_waker(&Waker::from(alarm.clone())))
}

/// What this process has: descriptors, threads, children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) children: usize,
}

pub(crate) fn holdings() -> Holdings {
    let children: String = fs::read_dir("/proc/self/task")
        .expect("/proc")
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .collect();
    Holdings { descriptors: entries("/proc/self/fd"), threads: entries("/proc/self/task"), children: children.split_whitespace().count() }
}

/// The same, once this thread is the only one: one that has ended and been joined can be seen for a moment more.
pub(crate) fn holdings_alone() -> Holdings {
    wait_for("the end of all other threads", || Some(holdings()).filter(|holdings| holdings.threads == 1))
}

/// Waits until this process has again what it had.
pub(crate) fn expect(before: Holdings) {
    let deadline = Instant::now() + DEADLINE;
    while holdings() != before {
        assert!(Instant::now() < deadline, "had {before:?}, has {:?}", holdings());
        std::thread::sleep(Duration::from_millis(2));
    }
}
