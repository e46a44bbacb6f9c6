//! A grant that the kernel takes late, in a turn of the loop that takes long: the program must not
//! go on before it knows that the service is its successor's.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use pollflip::internals::machine::{Handover, State};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::internals::wire::{Message, OLDEST, VERSION};
use pollflip::{Event, RestartConfig, Restarter};

/// More than one call of `poll` may take.
const LONG: Duration = Duration::from_millis(5);
/// After this time a message that the kernel has not taken is tried again.
const RETRY: Duration = Duration::from_millis(10);

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
fn with_a_successor_that_is_ready(calls: u32) -> (Rc<Simulation>, Restarter) {
    let simulation = Rc::new(Simulation::new(None, None));
    let config = RestartConfig::new().program("/bin/true").restart_signal(None);
    let mut restarter = simulation::build(&simulation, &config).expect("a restarter");
    restarter.ready().expect("it has no predecessor");
    restarter.request().expect("it is idle");
    while restarter.poll().is_some() {}
    simulation::run_thread(&mut restarter);
    while restarter.poll().is_some() {}
    let pid = simulation.children().last().expect("a successor").pid;
    let mut line = UnixStream::from(simulation.lifeline(pid).expect("its end of the lifeline"));
    for message in [Message::Here { version: VERSION, oldest: OLDEST, pid }, Message::Ready] {
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
    log::set_logger(&Slow).expect("there is no other");
    log::set_max_level(LevelFilter::Trace);
    for calls in 0..100 {
        let (simulation, mut restarter) = with_a_successor_that_is_ready(calls);
        let State::AwaitingReady { handover: Handover::Granting, .. } = simulation::state(&restarter) else { continue };
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
