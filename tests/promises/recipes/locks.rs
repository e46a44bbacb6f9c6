//! One lock that both versions need: the two orders in which they never meet at it.

use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use pollflip::Event;

use crate::service::Recipe;
use nix::sys::signal::Signal;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Command, DEADLINE};
use pollflip_kit::service::report::say;
use pollflip_kit::service::{Act, Capability, Config, Core, Step, at, directory, ms};
use serde::{Deserialize, Serialize};

pollflip_kit::trials![
    two_hundred_restarts_with_a_lock_that_is_let_go_before_the_state_never_collide,
    two_hundred_restarts_with_a_lock_that_is_taken_at_committed_never_collide,
    a_lock_that_is_let_go_before_the_state_is_taken_again_when_the_attempt_fails,
    a_lock_that_is_taken_at_committed_is_not_let_go_for_an_attempt_that_fails,
    a_lock_is_taken_again_when_a_successor_dies_on_probation,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The old process lets it go at StateRequested, the new one takes it after `receive`.
    State,
    /// The old process lets it go at HandedOff, the new one takes it at Committed.
    Committed,
}

/// The lock of a store, as embedded databases have it.
pub struct Lock {
    order: Order,
    path: PathBuf,
    held: Option<Flock<File>>,
}

impl Lock {
    pub fn new(order: Order) -> Lock {
        Lock { order, path: directory().join("lock"), held: None }
    }

    fn take(&mut self, when: &str) {
        let file = File::create(&self.path).expect("a file");
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                self.held = Some(lock);
                say(&format!("takes {when}"));
            }
            Err((_, why)) => say(&format!("collides {when}: {why}")),
        }
    }

    fn let_go(&mut self) {
        // A store that writes what it has in memory takes a moment.
        thread::sleep(Duration::from_millis(3));
        self.held = None;
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Whether it holds its lock.
    HoldsLock,
}

impl Command for Ask {}

impl Capability for Lock {
    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        match core.restarter().predecessor() {
            Some(predecessor) if self.order == Order::State => {
                predecessor.receive(DEADLINE).map_err(|error| error.to_string())?;
                self.take("after receive");
            }
            Some(_) => {}
            None => self.take("at the start"),
        }
        Ok(())
    }

    fn event(&mut self, _: &mut Core, event: Event) -> Result<Option<Event>, String> {
        match (self.order, &event) {
            (Order::State, Event::StateRequested(_)) | (Order::Committed, Event::HandedOff(_)) => self.let_go(),
            (Order::Committed, Event::Committed) => self.take("at Committed"),
            (_, Event::Failed(_) | Event::Resumed(_)) if self.held.is_none() => self.take("again"),
            _ => {}
        }
        Ok(Some(event))
    }

    fn perform(&mut self, _: &mut Core, act: &Act) -> Option<String> {
        act.other().map(|Ask::HoldsLock| self.held.is_some().to_string())
    }
}

fn service(order: Order) -> Setup {
    Setup::new().set(Recipe::Lock(order))
}

/// Nobody has met anybody at the lock.
fn expect_no_collision(service: &Service) {
    let story = service.hub.story();
    assert!(!story.contains("collides"), "{story}");
}

fn two_hundred(order: Order, when: &str) {
    let service = service(order).start();
    let began = std::time::Instant::now();
    for _ in 0..200 {
        service.restart().says(&format!("takes {when}"));
    }
    println!("200 restarts, the lock taken {when}: {:?}", began.elapsed());
    expect_no_collision(&service);
    assert_eq!(service.connect().generation, 200);
}

fn two_hundred_restarts_with_a_lock_that_is_let_go_before_the_state_never_collide() {
    two_hundred(Order::State, "after receive");
}

fn two_hundred_restarts_with_a_lock_that_is_taken_at_committed_never_collide() {
    two_hundred(Order::Committed, "at Committed");
}

/// What a successor that fails does once it has its sockets, and a part of the reason.
const FAILURES: [(Act, &str); 3] =
    [(Act::Exit(3), "exited with status 3"), (Act::Raise(Signal::SIGKILL), "SIGKILL"), (Act::Hang, "was not ready within")];

fn failing(order: Order) -> Service {
    let service = service(order).set(Config::ReadyTimeout(ms(2000))).start();
    let first = service.first();
    for (number, (act, reason)) in FAILURES.into_iter().enumerate() {
        service.plan_next(at(Step::Claimed, act));
        let why = service.fail_to_restart();
        assert!(why.contains(reason), "{why}");
        first.says_again("event Failed", number);
        assert_eq!(first.ask(Ask::HoldsLock), "true", "{why}");
        assert_eq!(service.connect().pid, first.pid);
    }
    expect_no_collision(&service);
    service
}

fn a_lock_that_is_let_go_before_the_state_is_taken_again_when_the_attempt_fails() {
    let service = failing(Order::State);
    assert_eq!(service.first().said("takes again").len(), FAILURES.len());
    assert_eq!(service.restart_some_time().ask(Ask::HoldsLock), "true");
    expect_no_collision(&service);
}

fn a_lock_that_is_taken_at_committed_is_not_let_go_for_an_attempt_that_fails() {
    let service = failing(Order::Committed);
    assert!(service.first().said("takes again").is_empty());
    service.restart_some_time().says("takes at Committed");
    expect_no_collision(&service);
}

fn a_lock_is_taken_again_when_a_successor_dies_on_probation() {
    for order in [Order::State, Order::Committed] {
        let service = service(order).set(Config::Probation(ms(60000))).start();
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(1);
        new.says("serving");
        new.tell(Act::Raise(Signal::SIGKILL));
        let why = asker.join().expect("a thread").expect_err("a restart that has failed").to_string();
        assert!(why.contains("on probation"), "{why}");
        let first = service.first();
        first.says("event Resumed");
        assert_eq!(first.ask(Ask::HoldsLock), "true");
        expect_no_collision(&service);
    }
}
