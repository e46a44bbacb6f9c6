//! A grant that the kernel takes late, in a turn of the loop that takes long: the program must not
//! go on before it knows that the service is its successor's.

#[allow(dead_code, unreachable_pub, reason = "shared with the simulation")]
use std::cell::RefCell;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use pollflip::internals::machine::{Handover, State};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::internals::wire::{Message, OLDEST, VERSION};
use pollflip::{Event, RestartConfig, Restarter};

use pollflip_tests_pure::simulation::predecessor::Predecessor;

/// More than one call of `poll` may take.
const LONG: Duration = Duration::from_millis(5);
/// After this time a message that the kernel has not taken is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// There is one restarter at a time in a process.
static ALONE: Mutex<()> = Mutex::new(());

/// What a predecessor does.
const GRANTS: u8 = 0;
const COMMITS: u8 = 1;
const ENDS: u8 = 6;

thread_local! {
    static SIMULATION: RefCell<Option<Rc<Simulation>>> = const { RefCell::new(None) };
}

/// Time passes while the loop takes in that the grant is on its way.
struct Slow;

impl Log for Slow {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.args().to_string().starts_with("Granted(")
            && let Some(simulation) = SIMULATION.with_borrow(Clone::clone)
        {
            simulation.pass(LONG);
        }
    }

    fn flush(&self) {}
}

/// A restarter whose successor is ready, on a system where a call fails after so many.
fn with_a_successor_that_is_ready(predecessor: Option<(&mut Predecessor, OwnedFd)>, calls: u32) -> (Rc<Simulation>, Restarter) {
    let (mut predecessor, lifeline) = predecessor.unzip();
    let simulation = Rc::new(Simulation::new(lifeline, None));
    let config = RestartConfig::new().program("/bin/true").restart_signal(None);
    let mut restarter = simulation::build(&simulation, &config).expect("a restarter");
    if let Some(predecessor) = &mut predecessor {
        predecessor.does(GRANTS);
        predecessor.answers();
    }
    restarter.ready().expect("the service is its own");
    if let Some(predecessor) = predecessor {
        predecessor.does(COMMITS);
    }
    while restarter.poll().is_some() {}
    restarter.request().expect("it is idle");
    while restarter.poll().is_some() {}
    simulation::run_thread(&mut restarter);
    while restarter.poll().is_some() {}
    let pid = simulation.children().last().expect("a successor").pid;
    let mut line = UnixStream::from(simulation.lifeline(pid).expect("its end of the lifeline"));
    for message in [Message::Here { version: VERSION, oldest: OLDEST, pid, again: None }, Message::Ready] {
        line.write_all(&message.encode()).expect("room");
    }
    simulation.fail_after(calls, 0);
    while restarter.poll().is_some() {}
    // It lives on.
    std::mem::forget(line);
    (simulation, restarter)
}

#[test]
fn promise_07_the_program_learns_of_a_late_grant_before_it_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    log::set_logger(&Slow).expect("there is no other");
    log::set_max_level(LevelFilter::Trace);
    for calls in 0..100 {
        let (simulation, mut restarter) = with_a_successor_that_is_ready(None, calls);
        let State::AwaitingReady { handover: Handover::Granting { .. }, .. } = simulation::state(&restarter) else { continue };
        simulation::pass(&simulation, &mut restarter, RETRY);
        SIMULATION.set(Some(simulation.clone()));
        let before = simulation.passed();
        let event = restarter.poll();
        assert!(simulation.passed() - before >= LONG, "the turn was to take long");
        assert!(matches!(event, Some(Event::HandedOff(_))), "the successor serves, and the program is told {event:?}");
        SIMULATION.set(None);
        return;
    }
    panic!("no call that fails makes the grant wait");
}

#[test]
fn promise_07_the_program_learns_of_a_late_grant_before_it_learns_of_its_predecessor() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for calls in 0..100 {
        let (mut predecessor, lifeline) = Predecessor::new(false, None);
        let (simulation, mut restarter) = with_a_successor_that_is_ready(Some((&mut predecessor, lifeline)), calls);
        let State::AwaitingReady { handover: Handover::Granting { .. }, .. } = simulation::state(&restarter) else { continue };
        predecessor.does(ENDS);
        simulation::pass(&simulation, &mut restarter, RETRY);
        let events: Vec<_> = std::iter::from_fn(|| restarter.poll()).collect();
        assert!(matches!(&events[..], [Event::HandedOff(_), Event::PredecessorGone, Event::Completed(_)]), "{events:?}");
        return;
    }
    panic!("no call that fails makes the grant wait");
}
