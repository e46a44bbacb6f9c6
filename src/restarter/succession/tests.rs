//! With a simulated clock and simulated children: what stands for a child is the other end of its lifeline.
#![cfg(debug_assertions)]

use crate::config::RestartConfig;
use crate::error::Failure;
use crate::lifeline::Incoming;
use crate::machine::Violation;
use crate::sys::simulation::{Seen, Simulation};
use crate::wire::{Message, OLDEST, VERSION};

use super::*;

const PROGRAM: &str = "/nowhere/program";
const LIMITS: Limits = Limits { ready: Duration::from_secs(60), freeze: Duration::from_secs(5), probation: None };
const FIRST: Attempt = Attempt(1);
const SECOND: Attempt = Attempt(2);

struct Fixture {
    succession: Succession,
    reactor: Reactor,
    simulation: Simulation,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(Vec::new())
    }

    fn with(outcomes: Vec<Outcome>) -> Fixture {
        let simulation = Simulation::new(None, None);
        let reactor = Reactor::new().expect("a reactor");
        let launch = RestartConfig::new().program(PROGRAM).launch().expect("something to start");
        let exec = Exec::start(launch, None, None, reactor.waker().clone()).expect("a thread");
        Fixture { succession: Succession::new(exec, PROGRAM.into(), LIMITS, outcomes), reactor, simulation }
    }

    /// Has a successor started, once the thread gets to it.
    fn spawn(&mut self, attempt: Attempt) {
        let (lifeline, theirs) = Lifeline::pair().expect("a lifeline");
        let job = Job { attempt, lifeline: Arc::new(theirs), passed: Vec::new() };
        self.succession.begin(attempt, self.reactor.now());
        assert_eq!(self.succession.spawn(attempt, Ok((lifeline, job)), &self.reactor), None);
    }

    /// What the thread has done.
    fn thread(&mut self) -> Vec<Input> {
        while self.succession.run_thread() {}
        let mut inputs = Vec::new();
        self.succession.poll_thread(&self.reactor, &mut inputs);
        inputs
    }

    /// A successor that runs, and its end of the lifeline.
    fn start(&mut self, attempt: Attempt) -> (u32, Lifeline) {
        self.spawn(attempt);
        let inputs = self.thread();
        let [Input::Spawned(of, pid)] = inputs[..] else { panic!("{inputs:?}") };
        assert_eq!(of, attempt);
        (pid, Lifeline::from(self.simulation.lifeline(pid).expect("a lifeline")))
    }

    fn poll(&mut self) -> Vec<Input> {
        let moment = Moment::at(self.reactor.now());
        let mut inputs = Vec::new();
        self.succession.poll(&moment, &self.reactor, &mut inputs);
        inputs
    }

    /// What comes of one message.
    fn says(&mut self, successor: &Lifeline, message: &Message) -> Vec<Input> {
        successor.send(message, &[]).expect("a lifeline");
        self.poll()
    }

    fn grant(&mut self, attempt: Attempt) -> Vec<Input> {
        let mut inputs = Vec::new();
        self.succession.grant(attempt, &self.reactor, &mut inputs);
        inputs
    }

    fn child(&self, index: usize) -> Seen {
        self.simulation.children()[index]
    }

    /// The words for a cause.
    fn text(&self, cause: Cause) -> String {
        self.succession.failure(cause).to_string()
    }
}

fn heard(successor: &Lifeline) -> Option<Message> {
    match successor.receive()? {
        Incoming::Message(message, _) => Some(message),
        other => panic!("{other:?}"),
    }
}

fn progress(text: &str) -> Message {
    Message::Progress { text: text.into() }
}

#[test]
fn what_the_successor_said_is_the_text_of_the_failure() {
    let mut fixture = Fixture::new();
    let (_, successor) = fixture.start(FIRST);
    let refusal = Message::Refuse { reason: "no room\non the disk".into() };
    assert_eq!(fixture.says(&successor, &refusal), [Input::Refused(FIRST)]);
    assert_eq!(fixture.says(&successor, &Message::Refuse { reason: "another".into() }), [Input::Refused(FIRST)]);
    assert_eq!(fixture.succession.failure(Cause::Refused), Failure::Refused("no room on the disk".into()), "the first one");

    let (pid, successor) = fixture.start(SECOND);
    let here = |pid| Message::Here { version: VERSION, oldest: OLDEST, pid, again: None };
    assert_eq!(fixture.says(&successor, &here(pid)), [Input::Here(SECOND, pid)]);
    assert_eq!(fixture.says(&successor, &here(5)), [Input::Here(SECOND, 5)]);
    let text = fixture.text(Cause::Protocol(Violation::WrongPid));
    assert!(text.contains("process 5 answers in place of the one that was started"), "{text}");
    assert_eq!(fixture.succession.failure(Cause::TimedOut), Failure::TimedOut { limit: LIMITS.ready, last: None });

    let (_, successor) = fixture.start(Attempt(3));
    assert_eq!(fixture.says(&successor, &Message::Commit), [Input::Garbage(Attempt(3))]);
    assert!(fixture.text(Cause::Protocol(Violation::Garbage)).contains("a message for the other side (Commit)"));
}

#[test]
fn an_error_that_the_successor_got_is_why_it_ended_unless_it_refused() {
    let mut fixture = Fixture::new();
    let (_, successor) = fixture.start(FIRST);
    let trouble = |reason: &str| Message::Trouble { reason: reason.into() };
    for message in [trouble("no such address"), progress("another try"), trouble("cannot bind it")] {
        successor.send(&message, &[]).expect("a lifeline");
    }
    assert_eq!(fixture.says(&successor, &Message::Refuse { reason: "of another mind".into() }).last(), Some(&Input::Refused(FIRST)));
    let reason = Some("cannot bind it".to_owned());
    assert_eq!(fixture.succession.failure(Cause::Refused), Failure::Refused("of another mind".into()));
    assert_eq!(fixture.succession.failure(Cause::TimedOut), Failure::TimedOut { limit: LIMITS.ready, last: reason.clone() });
    assert_eq!(fixture.succession.failure(Cause::Exited), Failure::Exited { exit: Exit::Unknown, reason });
    fixture.start(SECOND);
    assert_eq!(fixture.succession.failure(Cause::Exited), Failure::Exited { exit: Exit::Unknown, reason: None });
}

#[test]
fn how_the_successor_has_ended_is_told_after_what_it_said() {
    let mut fixture = Fixture::new();
    let (pid, successor) = fixture.start(FIRST);
    successor.send(&progress("a line"), &[]).expect("a lifeline");
    // More than is read before others have their turn.
    for _ in 0..100 {
        successor.send(&Message::Pull, &[]).expect("a lifeline");
    }
    successor.send(&Message::Refuse { reason: "no room".into() }, &[]).expect("a lifeline");
    assert_eq!(fixture.succession.exit(), None);
    fixture.simulation.exit(pid, Exit::Code(3));
    drop(successor);
    let mut inputs = fixture.poll();
    while !inputs.contains(&Input::Exited(FIRST)) {
        let more = fixture.poll();
        assert!(!more.is_empty(), "{inputs:?}");
        inputs.extend(more);
    }
    assert_eq!((inputs.len(), inputs[0]), (103, Input::Progress(FIRST)));
    assert_eq!(inputs[101..], [Input::Refused(FIRST), Input::Exited(FIRST)]);
    assert_eq!(fixture.succession.exit(), Some(Exit::Code(3)));
    assert_eq!(fixture.succession.failure(Cause::Exited), Failure::Exited { exit: Exit::Code(3), reason: None });
    assert_eq!(fixture.succession.failure(Cause::DiedOnProbation), Failure::DiedOnProbation(Exit::Code(3)));
    assert!(fixture.child(0).reaped && !fixture.child(0).killed);
    // Nothing is left of it when nothing is under way.
    assert_eq!(fixture.poll(), []);
    fixture.succession.rest(&fixture.reactor);
    assert!(fixture.succession.current.is_none() && fixture.succession.exit().is_none());
}

#[test]
fn what_cannot_be_started_is_told_with_its_reason() {
    let mut fixture = Fixture::new();
    fixture.simulation.obstruct(Some(libc::ENOENT));
    fixture.spawn(FIRST);
    assert_eq!(fixture.thread(), [Input::SpawnFailed(FIRST)]);
    let Failure::Spawn(ChildSpawnError::ChildError { program, source, .. }) = fixture.succession.failure(Cause::SpawnFailed) else {
        panic!("another failure")
    };
    assert_eq!((source.raw_os_error(), &*program), (Some(libc::ENOENT), Path::new(PROGRAM)));

    let prepared = Err(io::Error::from_raw_os_error(libc::EMFILE));
    assert_eq!(fixture.succession.spawn(SECOND, prepared, &fixture.reactor), Some(Input::SpawnFailed(SECOND)));
    let text = fixture.text(Cause::SpawnFailed);
    assert!(text.contains("nothing was started") && text.contains("RLIMIT_NOFILE"), "{text}");

    fixture.simulation.obstruct(None);
    fixture.start(Attempt(3));
    assert_eq!(
        fixture.succession.failure(Cause::SpawnFailed),
        Failure::Exited { exit: Exit::Unknown, reason: None },
        "what was before is forgotten"
    );
    fixture.succession.lose_thread();
    assert_eq!(fixture.thread(), [Input::ThreadLost]);
}

#[test]
fn a_start_that_is_given_up_comes_to_nothing() {
    let mut fixture = Fixture::new();
    fixture.spawn(FIRST);
    fixture.succession.abandon(FIRST);
    assert_eq!(fixture.thread(), []);
    assert_eq!(fixture.simulation.children(), []);

    // The thread has started it, and the loop does not know of it.
    fixture.spawn(SECOND);
    assert!(fixture.succession.run_thread());
    fixture.succession.abandon(SECOND);
    assert_eq!(fixture.thread(), []);
    assert!(fixture.child(0).killed && fixture.child(0).reaped);

    // One that comes late is not taken for the next.
    fixture.spawn(Attempt(3));
    assert!(fixture.succession.run_thread());
    fixture.spawn(Attempt(4));
    let inputs = fixture.thread();
    assert!(matches!(inputs[..], [Input::Spawned(Attempt(4), _)]), "{inputs:?}");
    assert!(fixture.child(1).killed && !fixture.child(2).killed);
}

#[test]
fn of_many_lines_of_progress_the_first_and_then_the_last_are_passed_on() {
    let mut fixture = Fixture::new();
    let (_, successor) = fixture.start(FIRST);
    let line = |fixture: &mut Fixture| fixture.succession.take_progress();
    assert_eq!(fixture.says(&successor, &progress("1\n%")), [Input::Progress(FIRST)]);
    assert_eq!((line(&mut fixture), line(&mut fixture)), (Some("1 %".into()), None));
    let now = fixture.reactor.now();
    for percent in 2..9 {
        assert_eq!(fixture.says(&successor, &progress(&format!("{percent} %"))), []);
    }
    assert_eq!(fixture.succession.next_deadline(now), Some((now + PROGRESS, Deadline::Progress)));
    assert_eq!(fixture.succession.progress(), Some("1 %".into()), "what the program was told last");
    fixture.simulation.pass(PROGRESS);
    assert_eq!(fixture.poll(), [Input::Progress(FIRST)]);
    assert_eq!((line(&mut fixture), line(&mut fixture)), (Some("8 %".into()), None));
    assert_eq!(fixture.succession.progress(), Some("8 %".into()));
    assert_eq!((fixture.poll(), fixture.succession.next_deadline(now)), (vec![], None));
}

#[test]
fn a_line_that_waits_is_passed_on_before_what_was_said_after_it() {
    let mut fixture = Fixture::new();
    let (_, successor) = fixture.start(FIRST);
    assert_eq!(fixture.says(&successor, &progress("one")), [Input::Progress(FIRST)]);
    assert_eq!(fixture.says(&successor, &progress("two")), []);
    assert_eq!(fixture.says(&successor, &Message::Ready), [Input::Progress(FIRST), Input::Ready(FIRST)]);
    assert_eq!(fixture.succession.take_progress(), Some("two".into()));
}

#[test]
fn how_a_handover_ends_comes_back_as_one_input_of_its_attempt() {
    let mut fixture = Fixture::new();
    let (_, successor) = fixture.start(FIRST);
    let waker = fixture.reactor.waker().clone();
    assert_eq!(fixture.says(&successor, &Message::Pull), [Input::StateRequested(FIRST)]);
    assert!(fixture.succession.begin_handover(SECOND, waker.clone()).is_none());
    let handover = fixture.succession.begin_handover(FIRST, waker.clone()).expect("an attempt");
    assert!(fixture.succession.is_handing_over());
    assert_eq!(fixture.poll(), []);
    handover.send();
    // The successor may have answered by then, and that comes second.
    assert_eq!(fixture.says(&successor, &Message::Ready), [Input::HandoverSent(FIRST), Input::Ready(FIRST)]);
    assert!(!fixture.succession.is_handing_over());
    assert_eq!(heard(&successor), Some(Message::End { items: 0, precopied: 0 }));

    let (_, _successor) = fixture.start(SECOND);
    fixture.succession.begin_handover(SECOND, waker).expect("an attempt").fail("the state is on fire");
    assert_eq!((fixture.poll(), fixture.poll()), (vec![Input::HandoverFailed(SECOND)], vec![]));
    assert_eq!(fixture.succession.failure(Cause::HandoverFailed), Failure::Handover("the state is on fire".into()));
}

#[test]
fn a_grant_and_a_commit_are_told_once_each_and_no_dead_successor_is_granted_anything() {
    let mut fixture = Fixture::new();
    let (pid, successor) = fixture.start(FIRST);
    assert_eq!(fixture.grant(FIRST), [Input::Granted(FIRST)]);
    assert_eq!(heard(&successor), Some(Message::Granted));
    assert_eq!((fixture.poll(), fixture.succession.check(FIRST)), (vec![], Input::Sound(FIRST)));
    assert_eq!(fixture.succession.tell_commit(), Some(Input::CommitTaken(FIRST)));
    assert_eq!((heard(&successor), heard(&successor)), (Some(Message::Commit), None));
    assert_eq!(fixture.poll(), []);
    let taken = fixture.succession.take_successor(&fixture.reactor).expect("a successor");
    assert_eq!(taken.pid(), pid);
    assert!(fixture.succession.take_successor(&fixture.reactor).is_none());

    let (pid, _successor) = fixture.start(SECOND);
    fixture.simulation.exit(pid, Exit::Code(1));
    assert_eq!(fixture.succession.check(SECOND), Input::Dying(SECOND));
    let mut inputs = fixture.grant(SECOND);
    inputs.extend(fixture.poll());
    assert_eq!(inputs, [Input::Exited(SECOND)]);
}

#[test]
fn one_that_does_not_die_is_kept_until_it_can_be_reaped_and_knows_that_it_is_given_up() {
    let mut fixture = Fixture::new();
    let (pid, successor) = fixture.start(FIRST);
    fixture.simulation.undying(pid, true);
    fixture.succession.kill();
    assert_eq!(heard(&successor), Some(Message::GivenUp));
    assert!(fixture.child(0).killed && !fixture.child(0).ended);
    fixture.succession.rest(&fixture.reactor);
    assert!(fixture.succession.current.is_some(), "it is still waited for");
    // The next attempt takes its place.
    fixture.spawn(SECOND);
    fixture.succession.reap(&fixture.reactor);
    assert_eq!(fixture.succession.unreaped.len(), 1);
    fixture.simulation.undying(pid, false);
    fixture.succession.reap(&fixture.reactor);
    assert!(fixture.succession.unreaped.is_empty() && fixture.child(0).reaped);
}

#[test]
fn reasons_of_the_program_are_those_of_its_attempts_in_their_order() {
    let mut fixture = Fixture::new();
    fixture.start(FIRST);
    assert_eq!(fixture.succession.failure(Cause::Cancelled), Failure::Cancelled(String::new()));
    fixture.succession.cancelled_because(Failure::Hook("no right".into()));
    assert_eq!(fixture.succession.failure(Cause::TimedOut), Failure::TimedOut { limit: LIMITS.ready, last: None });
    assert_eq!(fixture.succession.failure(Cause::FreezeTimedOut), Failure::FreezeTimedOut { limit: LIMITS.freeze, last: None });
    let now = fixture.reactor.now();
    assert_eq!(fixture.succession.failed(Cause::Cancelled, now), Failure::Hook("no right".into()));
    assert_eq!(fixture.succession.failure(Cause::Cancelled), Failure::Cancelled(String::new()));
    assert_eq!(fixture.succession.last_failure(), Some(Failure::Hook("no right".into()).to_string()));

    // Called off before it was told that the attempt begins, and the next one before the failure of
    // that was told.
    let reasons = ["one", "two"].map(|reason| Failure::Cancelled(reason.into()));
    fixture.succession.cancelled_because(reasons[0].clone());
    fixture.start(SECOND);
    fixture.succession.cancelled_because(reasons[1].clone());
    for reason in reasons {
        assert_eq!(fixture.succession.failure(Cause::Cancelled), reason);
        assert_eq!(fixture.succession.failed(Cause::Cancelled, now), reason);
    }
}

#[test]
fn the_history_has_the_last_outcomes_each_no_longer_than_it_may_be() {
    let earlier = |number: u64| Outcome { at: number, took_ms: 1, ok: true, text: format!("{number}\n{}", "x".repeat(1000)) };
    let mut fixture = Fixture::with((0..20).map(earlier).collect());
    let kept = fixture.succession.outcomes();
    assert_eq!(kept.iter().map(|outcome| outcome.at).collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
    assert!(kept.iter().all(|outcome| outcome.text.chars().count() == 200 && outcome.text.ends_with('…') && !outcome.text.contains('\n')));

    let began = Duration::from_secs(100);
    fixture.succession.begin(Attempt(9), began);
    assert_eq!(fixture.succession.heading(began + Duration::from_micros(1250)), "restart 9 after 1.3 ms");
    fixture.succession.begin_next(began);
    assert_eq!(fixture.succession.heading(began), "restart 10 after 0.0 ms", "one that was called off at once has its number");
    fixture.succession.cancelled_because(Failure::Cancelled("é".repeat(1000)));
    fixture.succession.failed(Cause::Cancelled, began + Duration::from_millis(30));
    fixture.succession.took_over("taken over", began + Duration::from_millis(40));
    let kept = fixture.succession.outcomes();
    assert_eq!(kept.len(), 8);
    let [failed, succeeded] = &kept[6..] else { panic!("{kept:?}") };
    assert_eq!((failed.ok, failed.took_ms, failed.text.chars().count()), (false, 30, 200));
    assert_eq!((succeeded.ok, succeeded.took_ms, &*succeeded.text), (true, 40, "taken over"));
}

#[test]
fn a_grant_that_waits_does_not_go_to_what_a_helper_has_of_one_that_has_ended() {
    for calls in 0..100 {
        let mut fixture = Fixture::new();
        let (pid, successor) = fixture.start(FIRST);
        fixture.simulation.fail_after(calls, 0);
        let inputs = fixture.grant(FIRST);
        fixture.simulation.calm();
        if inputs.is_empty() {
            fixture.simulation.exit(pid, Exit::Code(1));
            assert_eq!(fixture.poll(), [Input::Exited(FIRST)]);
            assert_eq!((heard(&successor), heard(&successor)), (Some(Message::GivenUp), None));
            return;
        }
    }
    panic!("no call that fails makes the grant wait");
}

#[test]
fn an_end_that_had_begun_is_told_from_the_kill_that_came_after_it() {
    let killed = Exit::Signal(libc::SIGKILL);
    let ended = |begun: Option<Exit>, exit| {
        let mut life = Life::default();
        begun.into_iter().for_each(|begun| life.begins_to_end(begun));
        life.ends(exit);
        life.closes();
        (life.exit(), life.own_end())
    };
    // What was seen of it before the kill, or else how it was reaped.
    assert_eq!(ended(Some(Exit::Code(3)), killed), (Some(killed), Some(Exit::Code(3))));
    assert_eq!(ended(Some(Exit::Unknown), killed), (Some(killed), Some(killed)));
    assert_eq!(ended(None, Exit::Code(3)), (Some(Exit::Code(3)), Some(Exit::Code(3))));
    // Nobody can tell that from the kill.
    assert_eq!(ended(None, killed), (Some(killed), None));
    assert_eq!(ended(None, Exit::Unknown), (Some(Exit::Unknown), None));

    let mut life = Life::default();
    assert_eq!((life.exit(), life.own_end()), (None, None));
    life.begins_to_end(Exit::Unknown);
    assert_eq!((life.exit(), life.own_end()), (None, Some(killed)));
    life.closes();
    assert_eq!(life, Life::Dying(Exit::Unknown), "it has not been reaped");
}
