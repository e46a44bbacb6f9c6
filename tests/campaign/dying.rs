//! A new process whose end has begun and is not over when its probation is: it writes a core dump, or gives gigabytes back. Here it is held
//! there by a debugger.

use std::sync::mpsc;
use std::thread;

use libtest_mimic::Trial;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::asker::{Answer, Asker};
use crate::case::{Case, Fault, Step, Victim};
use crate::harness::Setup;
use crate::hub::{Process, wait_for, wait_until};
use crate::judge::{alone, next_restart};
use crate::procfs;
use crate::trial;
use crate::world::World;

const CASE: Case = Case { step: Step::Probation, fault: Fault::Abort, victim: Victim::New };

pub fn trials() -> Vec<Trial> {
    vec![
        trial("promise_07_on_probation::a_crash_that_is_not_over_at_its_end_gives_the_service_back".into(), || {
            at_its_end(End::Crash, false);
        }),
        trial("promise_07_on_probation::an_exit_that_is_not_over_at_its_end_gives_the_service_back".into(), || {
            at_its_end(End::Exit, false);
        }),
        trial("promise_07_on_probation::a_crash_that_is_not_over_when_the_old_one_is_stopped_gives_the_service_back".into(), || {
            at_its_end(End::Crash, true);
        }),
        trial("promise_03_on_probation::a_restarter_that_is_dropped_tells_how_the_new_one_has_ended".into(), dropped),
        trial("promise_03_at_ready::a_crash_that_is_not_over_keeps_the_service_here".into(), when_ready),
    ]
}

/// A process whose end has begun, and goes on when it is let go.
struct Held {
    debugger: thread::JoinHandle<()>,
    go: mpsc::Sender<()>,
}

/// How a process ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By SIGABRT, in its first thread.
    Crash,
    /// Its first thread exits, and another takes its time.
    Exit,
}

impl End {
    fn told(self) -> &'static str {
        match self {
            End::Crash => "was killed by SIGABRT",
            End::Exit => "exited with status 3",
        }
    }
}

/// Has the process end, and holds it when it has begun to. `None`: nobody may do that here.
fn hold_in_its_end(process: &Process, end: End) -> Option<Held> {
    let pid = match end {
        End::Crash => process.pid,
        // It gives itself its name when it is run first.
        End::Exit => wait_for("the restart thread", || procfs::restart_thread(process.pid)),
    };
    let pid = Pid::from_raw(pid as i32);
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let process_id = process.pid;
    let process = process.clone();
    // Only the thread that has begun to debug can go on with it.
    let debugger = thread::spawn(move || {
        if let Err(error) = ptrace::seize(pid, Options::PTRACE_O_TRACEEXIT | Options::PTRACE_O_EXITKILL) {
            return tell.send(Err(error)).expect("the test");
        }
        match end {
            End::Crash => process.signal(Signal::SIGABRT),
            End::Exit => process.tell("exit 3"),
        }
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)).expect("a process that is debugged") {
                WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXIT as i32 => {
                    tell.send(Ok(())).expect("the test");
                    // Or the test has failed.
                    let _ = gone.recv();
                    ptrace::cont(pid, None).expect("it is held");
                }
                // The signal has come, and is let through.
                WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).expect("it is stopped"),
                WaitStatus::Signaled(..) | WaitStatus::Exited(..) => return,
                other => panic!("{other:?}"),
            }
        }
    });
    match told.recv().expect("a debugger") {
        Ok(()) if end == End::Exit => {
            wait_until("the end of its first thread", || procfs::state(process_id) == Some('Z'));
            Some(Held { debugger, go })
        }
        Ok(()) => Some(Held { debugger, go }),
        Err(error) => {
            eprintln!("skipped: a process cannot be debugged here: {error}");
            debugger.join().expect("no panic");
            None
        }
    }
}

impl Held {
    /// Lets it end once the old one is no longer in that state.
    fn ends_after(self, old: &Process, state: &str) {
        let state = format!(r#""state":"{state}""#);
        wait_until("the old one to decide", || !old.ask("status").contains(&state));
        self.go.send(()).expect("a debugger");
        self.debugger.join().expect("no panic");
    }
}

fn at_its_end(end: End, stopped: bool) {
    let mut world = World::start(Setup::new().set("probation_ms", if stopped { "60000" } else { "1000" }), false);
    let old = world.owner.clone();
    // Until the debugger is there. What is left of the probation is waited out then.
    old.ask("on HandedOff wait");
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    let new = world.service.hub.nth(births);
    new.says("serving");
    let Some(held) = hold_in_its_end(&new, end) else { return };
    old.tell("go");
    if stopped {
        old.ask("stop");
    }
    held.ends_after(&old, "handing off");
    assert_eq!(asker.answer(), Answer::Failed(format!("the successor {} on probation", end.told())));
    old.says("event Resumed");
    assert_eq!(world.service.connect().pid, old.pid);
    if !stopped {
        alone(&world, CASE, Some(&old));
        next_restart(&mut world, CASE);
    }
}

fn when_ready() {
    let mut world = World::start(Setup::new().set("ready_timeout_ms", "5000"), false);
    let under_way = world.reach(Step::Ready, false);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    let Some(held) = hold_in_its_end(&new, End::Crash) else { return };
    old.tell("go");
    held.ends_after(&old, "awaiting ready");
    match under_way.asker.answer() {
        Answer::Failed(why) => assert_eq!(why, "the successor was killed by SIGABRT before it was ready"),
        other => panic!("{other:?}"),
    }
    assert!(old.said("event HandedOff").is_empty());
    drop(under_way.kept);
    alone(&world, CASE, Some(&old));
    next_restart(&mut world, CASE);
}

fn dropped() {
    let world = World::start(Setup::new().set("probation_ms", "60000"), false);
    let old = world.owner.clone();
    // Before it looks again.
    old.ask("on HandedOff wait");
    old.ask("on HandedOff drop");
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    let new = world.service.hub.nth(births);
    new.says("serving");
    new.tell("exit 3");
    new.ends();
    old.tell("go");
    assert_eq!(asker.answer(), Answer::Failed("the successor exited with status 3 on probation".into()));
}
