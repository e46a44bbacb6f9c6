//! A process whose end has begun and is not over when something is decided by whether it lives: it writes a core dump, or gives gigabytes
//! back. Here it is held there by a debugger.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, SockType, getsockopt, shutdown, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::asker::{Answer, Asker};
use crate::case::{Case, Fault, Step, Victim};
use crate::judge::{alone, next_restart};
use crate::trial;
use crate::world::World;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{Process, wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Plan, at, ms, plan};

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
        trial(
            "promise_07_on_probation::a_failure_whose_killing_is_not_over_when_the_old_one_is_stopped_gives_the_service_back".into(),
            || {
                is_being_killed(Act::Stop);
            },
        ),
        trial("promise_03_on_probation::a_restarter_that_is_dropped_waits_for_the_end_of_one_that_is_being_killed".into(), || {
            is_being_killed(Act::Drop);
        }),
        trial(
            "promise_03_on_probation::a_restarter_that_is_dropped_answers_before_the_end_of_one_that_does_not_die".into(),
            outlives_the_drop,
        ),
        trial("promise_03_on_probation::a_restarter_that_is_dropped_tells_how_the_new_one_has_ended".into(), dropped),
        trial("promise_03_at_ready::a_crash_that_is_not_over_keeps_the_service_here".into(), when_ready),
        trial("promise_03_at_here::a_new_one_whose_killing_is_not_over_is_told_of_as_killed".into(), without_its_lifeline),
        trial("promise_07_at_here::an_old_one_whose_end_is_not_over_leaves_the_new_one_the_service".into(), || {
            old_without_its_lifeline(Plan::default());
        }),
        trial("promise_07_at_here::an_old_one_that_is_dying_unseen_leaves_the_new_one_the_service".into(), || {
            // Without a descriptor it cannot look at the old one.
            old_without_its_lifeline(at(plan::Step::Claimed, Act::SpareDescriptors(0)));
        }),
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
    /// By SIGKILL.
    Kill,
    /// Its first thread exits, and another takes its time.
    Exit,
}

impl End {
    fn told(self) -> &'static str {
        match self {
            End::Crash => "was killed by SIGABRT",
            End::Kill => "was killed by SIGKILL",
            End::Exit => "exited with status 3",
        }
    }
}

/// Has the process end, and holds it when it has begun to. `None`: nobody may do that here.
fn hold_in_its_end(process: &Process, end: End) -> Option<Held> {
    let pid = match end {
        End::Crash | End::Kill => process.pid,
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
            End::Kill => process.signal(Signal::SIGKILL),
            End::Exit => process.tell(Act::Exit(3)),
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
        wait_until("the old one to decide", || {
            let status = old.ask(Act::Status);
            // Or it has answered something else that it was told.
            status.contains(r#""state":"#) && !status.contains(&state)
        });
        self.ends();
    }

    fn ends(self) {
        self.go.send(()).expect("a debugger");
        self.debugger.join().expect("no panic");
    }
}

/// Closes the lifeline of a process that cannot do so by itself. The kernel does so first when it holds much else.
#[allow(unsafe_code, reason = "nix has no call for that")]
pub fn shut_lifeline(of: &Process) {
    // SAFETY: two numbers, or three; what is returned is a new descriptor or -1.
    let (open, get) = (
        |pid: u32| unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd,
        |pidfd: RawFd, number: i32| unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0) } as RawFd,
    );
    // SAFETY: nobody else has them.
    let owned = |raw: RawFd| (raw >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw) });
    let pidfd = owned(open(of.pid)).expect("a process");
    let sockets = procfs::descriptors(of.pid).into_iter().filter(|(_, what)| what.starts_with("socket:"));
    let lifeline = sockets
        .filter_map(|(number, _)| owned(get(pidfd.as_raw_fd(), number)))
        .find(|socket| getsockopt(socket, sockopt::SockType) == Ok(SockType::SeqPacket));
    shutdown(lifeline.expect("a lifeline").as_raw_fd(), Shutdown::Both).expect("a connected socket");
}

fn at_its_end(end: End, stopped: bool) {
    let mut world = World::start(Setup::new().set(Config::Probation(if stopped { ms(60_000) } else { ms(1000) })), false);
    let old = world.owner.clone();
    // Until the debugger is there. What is left of the probation is waited out then.
    old.on(plan::Step::HandedOff, Act::Wait);
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    let new = world.service.hub.nth(births);
    new.says("serving");
    let Some(held) = hold_in_its_end(&new, end) else { return };
    old.go();
    if stopped {
        old.ask(Act::Stop);
    }
    held.ends_after(&old, "handing off");
    // What follows is a hint where to look.
    let told = format!("the successor {} on probation", end.told());
    assert!(matches!(asker.answer(), Answer::Failed(why) if why == told || why.starts_with(&format!("{told}; "))));
    old.says("event Resumed");
    assert_eq!(world.service.connect().pid, old.own);
    if !stopped {
        alone(&world, CASE, Some(&old));
        next_restart(&mut world, CASE);
    }
}

fn when_ready() {
    let mut world = World::start(Setup::new(), false);
    let under_way = world.reach(Step::Ready, false);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    let Some(held) = hold_in_its_end(&new, End::Crash) else { return };
    old.go();
    held.ends_after(&old, "awaiting ready");
    match under_way.asker.answer() {
        Answer::Failed(why) => assert_eq!(
            why,
            "the successor was killed by SIGABRT before it was ready; a failed assertion, or a panic that aborts? see its standard error"
        ),
        other => panic!("{other:?}"),
    }
    assert!(old.said("event HandedOff").is_empty());
    drop(under_way.kept);
    alone(&world, CASE, Some(&old));
    next_restart(&mut world, CASE);
}

fn without_its_lifeline() {
    let mut world = World::start(Setup::new(), false);
    let under_way = world.reach(Step::Here, false);
    let (old, new) = (under_way.old, under_way.new.expect("a successor"));
    let Some(held) = hold_in_its_end(&new, End::Kill) else { return };
    shut_lifeline(&new);
    held.ends_after(&old, "awaiting ready");
    assert_eq!(
        under_way.asker.answer(),
        Answer::Failed(
            "the successor was killed by SIGKILL before it was ready; by somebody, or for want of memory? see the log of the kernel".into()
        )
    );
    drop(under_way.kept);
    alone(&world, CASE, Some(&old));
    next_restart(&mut world, CASE);
}

fn old_without_its_lifeline(plan: Plan) {
    let world = World::start(Setup::new(), false);
    let service = &world.service;
    service.plan_next(at(plan::Step::Built, Act::Wait).and(plan.clone()));
    let _asker = Asker::ask(&service.socket());
    let (old, new) = (service.first(), service.hub.nth(1));
    new.says("waits");
    old.says("event Spawned");
    let Some(held) = hold_in_its_end(&old, End::Crash) else { return };
    shut_lifeline(&old);
    new.go();
    // One that lives on so long has closed it on purpose: the clock is what this is about.
    thread::sleep(Duration::from_millis(2500));
    assert!(new.lives() && new.said("serving").is_empty());
    held.ends();
    new.says("serving");
    if plan == Plan::default() {
        assert_eq!(service.connect().pid, new.own);
    }
    new.says("event PredecessorGone");
    assert!(new.said("event GivenUp").is_empty());
}

fn dropped() {
    let world = World::start(Setup::new().set(Config::Probation(ms(60000))), false);
    let old = world.owner.clone();
    // Before it looks again.
    old.on(plan::Step::HandedOff, Act::Wait);
    old.on(plan::Step::HandedOff, Act::Drop);
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    let new = world.service.hub.nth(births);
    new.says("serving");
    new.tell(Act::Exit(3));
    new.ends();
    old.go();
    assert_eq!(asker.answer(), Answer::Failed("the successor exited with status 3 on probation".into()));
}

/// The new one has failed on probation, and its killing is not over.
fn with_one_that_is_being_killed() -> Option<(World, Asker, Process, Held)> {
    let world = World::start(Setup::new().set(Config::Probation(ms(60000))), false);
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    let new = world.service.hub.nth(births);
    new.says("serving");
    let held = hold_in_its_end(&new, End::Crash)?;
    shut_lifeline(&new);
    wait_until("the old one to kill it", || world.owner.ask(Act::Status).contains(r#""state":"killing""#));
    Some((world, asker, new, held))
}

fn is_being_killed(then: Act) {
    let Some((world, asker, new, held)) = with_one_that_is_being_killed() else { return };
    let old = world.owner.clone();
    if then == Act::Stop {
        assert_eq!(old.ask(then.clone()), "stopped");
        assert!(old.ask(Act::Status).contains(r#""state":"killing""#));
    } else {
        old.tell(then.clone());
        wait_until("the old one to wait in the drop", || waits_in_poll(old.pid));
    }
    held.ends();
    assert_eq!(
        asker.answer(),
        Answer::Failed(
            "the successor was killed by SIGABRT on probation; a failed assertion, or a panic that aborts? see its standard error".into()
        )
    );
    new.ends();
    if then == Act::Stop {
        old.says("event Resumed");
        assert_eq!(world.service.connect().pid, old.own);
        assert_eq!(world.service.status().state, pollflip::ServiceState::Stopping);
        alone(&world, CASE, Some(&old));
    } else {
        assert_eq!(old.says("answer dropped"), "");
        assert!(old.lives() && old.said("event Resumed").is_empty());
        // The debugger may have kept it from the old one until nobody was left there to reap it.
        old.tell(Act::Exit(0));
        alone(&world, CASE, None);
    }
}

/// Whether the first thread waits in a call that its loop does not make.
fn waits_in_poll(pid: u32) -> bool {
    #[cfg(target_arch = "x86_64")]
    const POLL: libc::c_long = libc::SYS_poll;
    #[cfg(not(target_arch = "x86_64"))]
    const POLL: libc::c_long = libc::SYS_ppoll;
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&POLL.to_string())
}

fn outlives_the_drop() {
    let Some((world, asker, new, held)) = with_one_that_is_being_killed() else { return };
    let old = world.owner.clone();
    // It is waited for for a while.
    old.tell(Act::Drop);
    assert_eq!(
        asker.answer(),
        Answer::Failed(
            "the successor was killed by SIGABRT on probation; a failed assertion, or a panic that aborts? see its standard error".into()
        )
    );
    assert_eq!(old.says("answer dropped"), "");
    assert!(new.lives());
    held.ends();
    new.ends();
    assert!(old.lives() && old.said("event Resumed").is_empty());
    // Nobody is left there to reap it.
    old.tell(Act::Exit(0));
    alone(&world, CASE, None);
}
