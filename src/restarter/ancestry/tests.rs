//! A predecessor is the other end of a lifeline here, and what stands for a pidfd is a pipe: it says that the process has ended when its
//! other end is closed.
#![cfg(debug_assertions)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::lifeline::{Incoming, Lifeline};
use crate::machine::{DYING, Takeover};
use crate::restarter::testing::{LIMIT, collect_until};
use crate::sys::simulation::Simulation;
use crate::sys::{self, is_readable_within};
use crate::wire::{Given, Hello, Message, OLDEST, VERSION};

use super::*;

/// The number of the predecessor, which no process of this system has.
const PID: u32 = 1 << 30;

/// The other end of the lifeline, and what ends the predecessor when it is dropped.
struct Other {
    line: Lifeline,
    life: OwnedFd,
}

impl Other {
    fn say(&self, message: &Message) {
        self.line.send(message, &[]).expect("a lifeline");
    }

    fn hears(&self) -> Message {
        match self.line.receive() {
            Some(Incoming::Message(message, _)) => message,
            other => panic!("{other:?}"),
        }
    }
}

/// What stands for a process, and its life.
fn process(pid: u32) -> (Process, OwnedFd) {
    let (pidfd, life) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    (Process::from((pid, pidfd)), life)
}

fn link(probation_ms: Option<u64>) -> (Arc<Link>, Other) {
    let (line, own) = Lifeline::pair().expect("a lifeline");
    let (pidfd, life) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let hello = Hello {
        version: VERSION,
        oldest: OLDEST,
        pid: PID,
        generation: 4,
        probation_ms,
        signal: None,
        pid_file: None,
        given: vec![Given::Predecessor],
        following: 0,
        outcomes: Vec::new(),
    };
    line.send(&Message::Hello(hello), &[pidfd.as_fd()]).expect("a lifeline");
    let (link, _) = Link::read_hello(Lifeline::from(own), None).expect("a lifeline that can be used");
    (Arc::new(link), Other { line, life })
}

fn of(link: Arc<Link>, draining: Vec<Process>) -> Ancestry {
    let takeover = link.takeover().clone();
    Ancestry::new(Some(link), takeover, draining, Guarded::default())
}

fn successor(probation_ms: Option<u64>) -> (Ancestry, Other) {
    let (link, other) = link(probation_ms);
    (of(link, Vec::new()), other)
}

/// What there is to do once what has come is read.
fn outputs(ancestry: &mut Ancestry) -> Vec<TakeoverOutput> {
    let mut inputs = Vec::new();
    ancestry.poll(&Moment::default(), &Reactor::new().expect("a reactor"), &mut inputs);
    assert_eq!(inputs, []);
    std::iter::from_fn(|| ancestry.next_output()).collect()
}

const NOTICE: fn(TakeoverNotice) -> TakeoverOutput = TakeoverOutput::Notice;

#[test]
fn a_first_generation_has_nobody_before_it_and_serves_when_it_says_so() {
    let _simulation = Simulation::new(None, None);
    let mut first = Ancestry::new(None, Arc::new(SharedTakeover::new(Takeover::first())), Vec::new(), Guarded::default());
    assert!(first.predecessor().is_none() && first.predecessor_pid().is_none() && first.inherited().is_none());
    assert_eq!((first.generation(), first.draining(), Ancestry::outcomes(None)), (0, (0, 0), vec![]));
    assert_eq!((first.refusal(), first.next_deadline(Duration::ZERO)), (Some(Refusal::NotReady), None));
    assert_eq!(outputs(&mut first), []);
    first.say_ready();
    assert_eq!(outputs(&mut first), [TakeoverOutput::Open, TakeoverOutput::TakeService { name_main_pid: false }, TakeoverOutput::Answer]);
    assert_eq!((first.refusal(), first.is_sole(), first.is_on_probation()), (None, true, false));
}

#[test]
fn a_successor_serves_when_it_is_granted_the_service_and_alone_when_that_is_final() {
    let (mut successor, other) = successor(Some(1000));
    assert_eq!((successor.predecessor_pid(), successor.generation()), (Some(PID), 4));
    assert_eq!((outputs(&mut successor), successor.refusal()), (vec![], Some(Refusal::NotReady)));
    // Not asked for yet.
    other.say(&Message::Granted);
    assert_eq!(outputs(&mut successor), []);
    successor.say_ready();
    successor.say_ready();
    assert_eq!(other.hears(), Message::Ready);
    assert!(other.line.receive().is_none(), "it is said once");
    other.say(&Message::Granted);
    assert_eq!(outputs(&mut successor), [TakeoverOutput::Open, NOTICE(TakeoverNotice::Granted)]);
    assert_eq!(successor.refusal(), Some(Refusal::OnProbation { successor: None }));
    assert!(successor.is_on_probation() && !successor.is_sole());
    other.say(&Message::Commit);
    let taken = TakeoverOutput::TakeService { name_main_pid: false };
    assert_eq!(outputs(&mut successor), [taken, TakeoverOutput::Answer, NOTICE(TakeoverNotice::Committed)]);
    assert_eq!((successor.refusal(), successor.is_sole(), successor.is_on_probation()), (None, true, false));
    assert_eq!(outputs(&mut successor), []);
}

#[test]
fn a_predecessor_that_ends_leaves_the_service_and_what_it_said_last_counts() {
    let (mut alone, Other { life, .. }) = successor(None);
    drop(life);
    assert_eq!(outputs(&mut alone), [TakeoverOutput::Sole, TakeoverOutput::Answer, NOTICE(TakeoverNotice::PredecessorGone)]);
    assert!(alone.is_alone() && alone.is_sole());
    assert_eq!((alone.predecessor_pid(), alone.refusal()), (Some(PID), Some(Refusal::NotReady)));

    let (mut granted, other) = successor(Some(1000));
    granted.say_ready();
    other.say(&Message::Granted);
    drop(other);
    let outputs = outputs(&mut granted);
    assert_eq!(outputs[..2], [TakeoverOutput::Open, NOTICE(TakeoverNotice::Granted)]);
    assert!(outputs.contains(&TakeoverOutput::TakeService { name_main_pid: true }), "{outputs:?}");
    assert!(!granted.is_alone());
}

#[test]
fn what_a_restarter_has_not_told_the_next_one_tells_once() {
    let (link, _other) = link(None);
    let (mut first, mut second) = (of(link.clone(), Vec::new()), of(link, Vec::new()));
    assert_eq!(outputs(&mut first), []);
    first.put_back(TakeoverNotice::Granted);
    first.put_back(TakeoverNotice::Committed);
    drop(first);
    assert_eq!(outputs(&mut second), [NOTICE(TakeoverNotice::Granted), NOTICE(TakeoverNotice::Committed)]);
    assert_eq!(outputs(&mut second), []);
}

#[test]
fn those_that_drain_are_counted_the_oldest_first_until_they_have_ended() {
    let reactor = Reactor::new().expect("a reactor");
    let (link, other) = link(None);
    let [(one, life_of_one), (two, life_of_two), (three, life_of_three)] = [1, 2, 3].map(|number| process(PID + number));
    let mut ancestry = of(link, vec![one, two, three]);
    let living = |ancestry: &Ancestry| ancestry.living().map(|process| process.pid() - PID).collect::<Vec<_>>();
    assert_eq!((ancestry.draining(), living(&ancestry)), ((4, PID + 1), vec![1, 2, 3, 0]));
    drop(life_of_two);
    assert_eq!(living(&ancestry), [1, 3, 0]);
    ancestry.forget_the_ended(&reactor);
    assert_eq!(ancestry.draining(), (3, PID + 1));
    drop(life_of_one);
    ancestry.forget_the_ended(&reactor);
    assert_eq!(ancestry.draining(), (2, PID + 3));
    drop(life_of_three);
    ancestry.forget_the_ended(&reactor);
    assert_eq!((ancestry.draining(), living(&ancestry)), ((1, PID), vec![0]));
    drop(other.life);
    assert_eq!((ancestry.draining(), living(&ancestry)), ((0, 0), vec![]));
}

#[test]
fn all_of_them_are_watched_and_those_that_are_forgotten_are_not() {
    let mut reactor = Reactor::new().expect("a reactor");
    let (link, other) = link(None);
    // What stands for this one can be heard of twice, and is held elsewhere as well.
    let (own, theirs) = UnixStream::pair().expect("a pair");
    let held = own.try_clone().expect("a duplicate");
    let draining = vec![Process::from((PID + 1, OwnedFd::from(own)))];
    Ancestry::watch(Some(&link), &draining, &reactor).expect("a watch");
    let mut ancestry = of(link, draining);
    // The lifeline has room.
    let _ = reactor.collect();
    other.say(&Message::Granted);
    let ready = collect_until(&mut reactor, |_| true);
    assert!(ready.has(PREDECESSOR) && !ready.has(DRAINING));
    outputs(&mut ancestry);
    let ends = |byte| sys::send(&theirs, &[byte], &[]).expect("a pair");
    ends(1);
    assert!(collect_until(&mut reactor, |_| true).has(DRAINING));
    ancestry.forget_the_ended(&reactor);
    ends(2);
    assert!(is_readable_within(&held, LIMIT) && reactor.collect().is_none());
    drop(other.life);
    assert!(collect_until(&mut reactor, |_| true).has(PREDECESSOR));
}

#[test]
fn a_lost_lifeline_has_a_deadline_and_this_process_is_given_up_then() {
    let simulation = Simulation::new(None, None);
    let (mut ancestry, Other { line, life: _life }) = successor(None);
    let now = Duration::from_secs(7);
    assert_eq!(ancestry.next_deadline(now), None);
    drop(line);
    assert_eq!(outputs(&mut ancestry), []);
    assert_eq!(ancestry.next_deadline(now), Some((now + DYING, Deadline::Takeover)));
    simulation.pass(DYING - Duration::from_nanos(1));
    assert_eq!(outputs(&mut ancestry), []);
    simulation.pass(Duration::from_nanos(1));
    assert_eq!(outputs(&mut ancestry), [NOTICE(TakeoverNotice::GivenUp)]);
    assert_eq!((ancestry.next_deadline(now), ancestry.is_sole()), (None, false));
}
