//! One of the two processes of a restart killed between two system calls of the old one, at each place on its way to the grant: no flow and no
//! datagram goes astray.

use nix::libc;
use nix::sys::signal::Signal;

use crate::flows::address;
use crate::kept::Kept;
use crate::peer::{Flow, Peer};
use pollflip_kit::debugger::Stopped;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Step, at, ms};
use udp_flows::protocol::{BEGIN, UNKNOWN};

pollflip_kit::trials!(
    promise_14_the_new_one_killed_at_any_call_of_the_old_one_gives_back_what_had_come_to_it,
    promise_14_the_old_one_killed_at_any_call_leaves_the_new_one_what_had_come_to_it,
    promise_14_a_start_killed_at_any_call_leaves_the_group_to_the_next_one,
);

/// So many flows begin while the old one stands still.
const HELLOS: u32 = 5;

fn is_stopped(process: &Process) -> bool {
    procfs::status(process.pid, "State").is_some_and(|state| state.starts_with('T'))
}

/// Says to a successor that it may be ready, stops the old one at each call that it makes from then on, has flows begin, and kills one of
/// the two. `check` is told the service, the client, the flow of the old one, and who is left.
fn killed_at_each_call(kills_new: bool, check: impl Fn(&Service, &mut Peer, Flow, &Process)) {
    for calls in 1.. {
        let service = Setup::new().set(Config::Probation(ms(120000))).start();
        let (old, mut peer) = (service.first(), Peer::new(address(&service)));
        let flow = peer.begins();
        service.plan_next(at(Step::Claimed, Act::Wait));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("waits");
        old.says("event Spawned");
        let Some(stopped) = Stopped::new(old.pid, "the one of a process that is killed on its way to the grant") else { return };
        new.go();
        let goes_on = makes(calls, &stopped);
        // Whoever is killed reads nothing of what comes now.
        let (killed, left) = if kills_new { (&new, &old) } else { (&old, &new) };
        if kills_new {
            new.signal(Signal::SIGSTOP);
            wait_until("the stop", || is_stopped(&new));
        }
        for number in 0..HELLOS {
            peer.send(0, BEGIN, 1000 + number);
        }
        killed.signal(Signal::SIGKILL);
        wait_until("the end of it", || procfs::has_ended(killed.pid));
        drop(stopped);
        // Whoever asked may have lost whom it had asked.
        drop(asker.join().expect("a thread"));
        let mut answers: Vec<_> = (0..HELLOS).map(|_| peer.hears()).map(|answer| (answer.flow, answer.pid, answer.kind)).collect();
        answers.sort_unstable();
        let expected: Vec<_> = (0..HELLOS).map(|number| (1000 + number, left.own, BEGIN)).collect();
        assert_eq!(answers, expected, "after {calls} calls\n{}", service.hub.story());
        check(&service, &mut peer, flow, left);
        if !goes_on {
            println!("{calls} calls");
            assert!(calls > 10, "no more than {calls} calls");
            break;
        }
    }
}

/// Lets a thread make so many calls, or fewer if it has granted the service and waits. Says whether it has made them all.
fn makes(calls: usize, stopped: &Stopped) -> bool {
    let mut has_granted = false;
    for _ in 0..calls {
        let Some(call) = stopped.next_call() else { return false };
        has_granted |= call.number() == libc::SYS_sendmsg;
        if has_granted && call.waits() {
            return false;
        }
    }
    true
}

fn promise_14_the_new_one_killed_at_any_call_of_the_old_one_gives_back_what_had_come_to_it() {
    killed_at_each_call(true, |_, peer, flow, old| {
        peer.stays(flow);
        assert_eq!(peer.begins().pid, old.own);
    });
}

fn promise_14_the_old_one_killed_at_any_call_leaves_the_new_one_what_had_come_to_it() {
    killed_at_each_call(false, |_, peer, flow, new| {
        assert_eq!(peer.goes_on(flow), (new.own, UNKNOWN));
        assert_eq!(peer.begins().pid, new.own);
    });
}

/// A service whose last process was killed is started again, and that start is killed too: at each eleventh call on its way to its
/// flows. With POLLFLIP_STEP=1 at each, which takes a minute.
fn promise_14_a_start_killed_at_any_call_leaves_the_group_to_the_next_one() {
    let kept = Kept::start(Setup::new());
    let mut peer = Peer::new(address(&kept.0));
    let flow = peer.begins();
    let mut serving = kept.restart();
    let mark = peer.begins().mark;
    let step = std::env::var("POLLFLIP_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    for calls in (1..).step_by(step) {
        let born = kept.0.hub.pids().len();
        kept.0.plan_next(at(Step::Born, Act::Wait));
        serving.signal(Signal::SIGKILL);
        let start = kept.0.hub.nth(born);
        start.says("waits");
        peer.send(0, BEGIN, 1000 + calls);
        let Some(stopped) = Stopped::new(start.pid, "the one of a start that is killed on its way") else { return };
        start.go();
        let mut left = calls;
        // It reads what has come after it has waited for that.
        let goes_on = loop {
            let call = stopped.next_call().expect("it lives");
            left -= 1;
            let is_there = call.number() == libc::SYS_epoll_wait && call.waits();
            if left == 0 || is_there {
                break !is_there;
            }
        };
        start.signal(Signal::SIGKILL);
        wait_until("the end of it", || procfs::has_ended(start.pid));
        drop(stopped);
        serving = kept.0.hub.nth(born + 1);
        serving.says("serving");
        let answer = peer.hears();
        assert_eq!((answer.flow, answer.pid, answer.kind, answer.mark), (1000 + calls, serving.own, BEGIN, mark), "after {calls} calls");
        peer.stays(flow);
        if !goes_on {
            println!("{calls} calls");
            assert!(calls > 100, "no more than {calls} calls");
            break;
        }
    }
    assert_eq!(kept.0.status().draining, [kept.0.first().own]);
}
