//! Copies of a restarter, and restarters that forked children have of their own.

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pollflip::restart_coordination_socket::request_status;
use pollflip::{Event, Handover, HookResult, LifecycleHandler, Refusal, RestartConfig, RestartTask, Restarter};

use crate::child::{BOTH, Verdict, claim, in_child};
use crate::successor::path;
use pollflip_kit::group::{DEADLINE, entries, has_ended, wait_until};
use pollflip_kit::procfs;

cases![
    a_copy_takes_no_event_from_its_parent,
    a_copy_does_nothing_to_a_successor,
    a_copy_of_a_handover_wakes_no_loop,
    a_copy_takes_no_successor,
    a_copy_of_a_task_calls_no_hook_and_stays_pending,
    a_copy_of_a_task_is_not_ready_and_starts_no_thread,
    a_child_restarts_by_itself,
    a_child_restarts_by_itself_beside_its_copy,
    a_successor_is_not_spoken_for_by_its_children,
    a_copy_of_a_keeper_does_nothing_to_a_connection,
];

fn built() -> Restarter {
    let mut restarter = RestartConfig::new().coordination_socket(path("restart.sock")).build().expect("a restarter");
    restarter.ready().expect("no predecessor");
    // The restart thread may wake the loop once as it starts.
    wait_until("the restart thread to sleep", || procfs::threads_awake() == 1);
    while restarter.poll().is_some() || is_readable(&restarter) {}
    restarter
}

fn is_readable(restarter: &Restarter) -> bool {
    let mut fds = [PollFd::new(restarter.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).expect("poll") > 0
}

/// All that a child can call.
fn does_nothing(restarter: &mut Restarter) -> Verdict {
    claim(restarter.poll().is_none() && restarter.wait(Duration::MAX).is_none(), "no event")?;
    claim(restarter.request() == Err(Refusal::Forked), "no restart")?;
    claim(!restarter.cancel("by a test"), "nothing to call off")?;
    restarter.stop();
    let error = restarter.ready().err().ok_or("an error")?.to_string();
    claim(error.contains("forked child's copy of a Restarter"), "an error that says why")
}

fn a_copy_takes_no_event_from_its_parent() {
    let mut outer = Poll::new().expect("an epoll");
    let mut restarter = Some(built());
    outer.registry().register(restarter.as_mut().expect("one"), Token(1), Interest::READABLE).expect("registered");
    for how in BOTH {
        in_child(how, || does_nothing(restarter.as_mut().ok_or("one")?));
        // Nobody has woken the loop.
        assert!(!is_readable(restarter.as_ref().expect("one")));
        in_child(how, || {
            let mut copy = restarter.take().ok_or("one")?;
            claim(outer.registry().deregister(&mut copy).is_err(), "still registered with the parent's")?;
            claim(copy.into_successor().is_none(), "no successor")
        });
        assert!(!is_readable(restarter.as_ref().expect("one")));
    }
    let mut restarter = restarter.expect("one");
    restarter.request().expect("nothing is in the way");
    for how in BOTH {
        in_child(how, || does_nothing(&mut restarter));
    }
    let mut events = Events::with_capacity(4);
    outer.poll(&mut events, Some(DEADLINE)).expect("an event");
    assert_eq!(events.iter().count(), 1);
    assert!(matches!(restarter.poll(), Some(Event::Restarting)));
    assert!(restarter.cancel("by a test"));
    assert!(matches!(restarter.wait(DEADLINE), Some(Event::Failed(_))));
}

fn a_copy_does_nothing_to_a_successor() {
    fs::write(path("plan"), "hang").expect("a plan");
    let mut restarter = Some(built());
    let own = restarter.as_mut().expect("one");
    own.request().expect("nothing is in the way");
    let successor = loop {
        if let Event::Spawned(pid) = own.wait(DEADLINE).expect("an event") {
            break pid;
        }
    };
    for how in BOTH {
        in_child(how, || does_nothing(restarter.as_mut().ok_or("one")?));
        in_child(how, || {
            drop(restarter.take());
            Ok(())
        });
    }
    let mut restarter = restarter.expect("one");
    assert!(path("restart.sock").exists() && !has_ended(successor));
    while let Some(event) = restarter.poll() {
        assert!(matches!(event, Event::Progress(_)), "{event:?}");
    }
    let status = restarter.status();
    assert_eq!((status.state.as_str(), status.successor), ("awaiting ready", Some(successor)));
    assert!(restarter.cancel("by a test"));
    assert!(matches!(restarter.wait(DEADLINE), Some(Event::Failed(_))));
}

fn a_copy_of_a_handover_wakes_no_loop() {
    fs::write(path("plan"), "receive").expect("a plan");
    let mut restarter = built();
    restarter.request().expect("nothing is in the way");
    let mut handover = loop {
        match restarter.wait(DEADLINE).expect("an event") {
            Event::StateRequested(handover) => break Some(handover),
            Event::Failed(why) => panic!("{why}"),
            _ => {}
        }
    };
    while restarter.poll().is_some() {}
    let ways: [fn(Handover); 3] = [drop, Handover::send, |handover| handover.fail("not the child's to fail")];
    for how in BOTH {
        for way in ways {
            in_child(how, || {
                way(handover.take().ok_or("one")?);
                Ok(())
            });
            assert!(!is_readable(&restarter));
        }
    }
    let mut handover = handover.expect("the parent's own");
    handover.bytes("state", b"the parent's").expect("room");
    handover.send();
    ends_well(&mut restarter);
}

fn a_copy_takes_no_successor() {
    fs::write(path("plan"), "serve").expect("a plan");
    let mut restarter = built();
    restarter.request().expect("nothing is in the way");
    ends_well(&mut restarter);
    let mut restarter = Some(restarter);
    for how in BOTH {
        in_child(how, || claim(restarter.take().ok_or("one")?.into_successor().is_none(), "no successor"));
    }
    let mut restarter = restarter.expect("one");
    // The parent still watches it.
    while !matches!(restarter.wait(DEADLINE).expect("an event"), Event::SuccessorGone(_)) {}
    assert!(restarter.into_successor().is_some());
}

/// Goes on to the end of a restart.
fn ends_well(restarter: &mut Restarter) {
    loop {
        match restarter.wait(DEADLINE).expect("an end") {
            Event::Completed(_) => return,
            Event::Failed(why) => panic!("{why}"),
            Event::Progress(text) => panic!("{text}"),
            Event::StateRequested(_) => panic!("the state was asked for"),
            _ => {}
        }
    }
}

struct Hooks;

impl LifecycleHandler for Hooks {
    fn pre_new_process(&mut self) -> HookResult {
        fs::write(path("hook"), "")?;
        Err("one is enough".into())
    }

    fn send_to_new_process(&mut self, handover: Handover) -> HookResult {
        handover.send();
        Ok(())
    }
}

fn a_copy_of_a_task_calls_no_hook_and_stays_pending() {
    let mut task = Some(RestartTask::from(built()).with_handler(Hooks));
    let mut context = Context::from_waker(Waker::noop());
    let own = task.as_mut().expect("one");
    assert!(Pin::new(&mut *own).poll(&mut context).is_pending());
    own.restarter().request().expect("nothing is in the way");
    for how in BOTH {
        in_child(how, || {
            let mut copy = task.take().ok_or("one")?;
            claim(copy.poll().is_pending() && Pin::new(&mut copy).poll(&mut context).is_pending(), "a task that is pending")?;
            claim(Pin::new(&mut copy.next_event()).poll(&mut context).is_pending(), "no event")?;
            drop(copy);
            Ok(())
        });
        assert!(!path("hook").exists());
    }
    let mut task = task.expect("one");
    assert!(task.poll().is_pending());
    assert!(path("hook").exists());
}

#[allow(unsafe_code, reason = "a variable of this process")]
fn a_copy_of_a_task_is_not_ready_and_starts_no_thread() {
    let manager = UnixDatagram::bind(path("notify")).expect("a socket");
    manager.set_nonblocking(true).expect("a socket");
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("NOTIFY_SOCKET", path("notify")) };
    let restarter = RestartConfig::new().build().expect("a restarter");
    let mut task = Some(RestartTask::from(restarter));
    let mut context = Context::from_waker(Waker::noop());
    for how in BOTH {
        in_child(how, || {
            let mut copy = task.take().ok_or("one")?;
            claim(copy.poll().is_pending() && Pin::new(&mut copy).poll(&mut context).is_pending(), "a task that is pending")?;
            claim(Pin::new(&mut copy.next_event()).poll(&mut context).is_pending(), "no event")?;
            claim(entries("/proc/self/task") == 1, "no thread")
        });
        // systemd has not heard that it serves.
        assert_eq!(manager.recv(&mut [0; 100]).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    }
    assert!(task.expect("one").poll().is_pending());
    let mut text = [0; 100];
    let length = manager.recv(&mut text).expect("a message");
    assert_eq!(&text[..length], b"READY=1\n");
}

/// From a restarter of its own to the end of a restart.
fn restarts_by_itself(name: &str, copy: Option<Restarter>) -> Verdict {
    let socket = path(name);
    let mut own = RestartConfig::new().coordination_socket(&socket).build().map_err(|_| "a restarter of its own")?;
    claim(own.predecessor().is_none() && own.generation() == 0, "no predecessor")?;
    // It is no claim to what the child has built.
    drop(copy);
    claim(RestartConfig::new().restart_signal(None).build().is_err(), "one restarter at a time")?;
    own.ready().map_err(|_| "that it serves")?;
    kill(Pid::this(), Signal::SIGUSR1).map_err(|_| "a signal")?;
    loop {
        match own.wait(DEADLINE).ok_or("an end")? {
            Event::Completed(_) => break,
            Event::Failed(_) | Event::NoMoreRestarts(_) => return Err("a restart that succeeds"),
            Event::StateRequested(handover) => handover.send(),
            _ => {}
        }
    }
    let mut successor = own.into_successor().ok_or("a successor")?;
    let mut fds = [PollFd::new(successor.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::MAX).map_err(|_| "an end of the successor")?;
    claim(successor.try_wait().is_some(), "a successor that is its own child")
}

fn a_child_restarts_by_itself() {
    fs::write(path("plan"), "serve").expect("a plan");
    let mut restarter = Some(built());
    for (how, name) in BOTH.into_iter().zip(["one.sock", "two.sock"]) {
        in_child(how, || {
            drop(restarter.take());
            restarts_by_itself(name, None)
        });
    }
    let mut restarter = restarter.expect("one");
    // The signal was not for this one.
    assert!(restarter.poll().is_none() && path("restart.sock").exists());
    assert_eq!(restarter.status().state, pollflip::ServiceState::Serving);
}

fn a_child_restarts_by_itself_beside_its_copy() {
    fs::write(path("plan"), "serve").expect("a plan");
    let mut restarter = Some(built());
    for (how, name) in BOTH.into_iter().zip(["one.sock", "two.sock"]) {
        in_child(how, || restarts_by_itself(name, restarter.take()));
    }
    let mut restarter = restarter.expect("one");
    // The parent restarts as well, and has the one restarter of its process.
    RestartConfig::new().build().expect_err("another one lives");
    let asked = std::thread::spawn(|| request_status(path("restart.sock"), DEADLINE));
    while !asked.is_finished() {
        assert!(restarter.wait(Duration::from_millis(10)).is_none());
    }
    assert_eq!(asked.join().expect("no panic").expect("an answer").state, pollflip::ServiceState::Serving);
    restarter.request().expect("nothing is in the way");
    ends_well(&mut restarter);
}

fn a_successor_is_not_spoken_for_by_its_children() {
    fs::write(path("plan"), "fork").expect("a plan");
    let mut restarter = built();
    restarter.request().expect("nothing is in the way");
    ends_well(&mut restarter);
}

fn a_copy_of_a_keeper_does_nothing_to_a_connection() {
    use std::io::{Read, Write};
    let mut restarter = RestartConfig::new().keep(true).build().expect("a restarter");
    restarter.ready().expect("no predecessor");
    let keeper = restarter.keeper();
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair().expect("a pair");
    keeper.keep("state", &near).expect("room");
    for how in BOTH {
        in_child(how, || {
            claim(!keeper.is_active(), "nobody keeps for a child")?;
            claim(keeper.keep_stream(&near).is_ok() && keeper.keep("more", &near).is_ok(), "no error")?;
            claim(!keeper.forget("state") && keeper.take("state").is_none(), "nothing is there")?;
            keeper.forget_stream(&near);
            claim(restarter.survivors().is_none(), "nothing survives")
        });
    }
    near.write_all(b"on").expect("it is not shut down");
    far.read_exact(&mut [0; 2]).expect("the bytes");
    assert!(keeper.forget("state"));
}
