//! The service of the campaign: that of the kit, which can also be struck by a thread of its own, gives and takes a state that does not fit
//! into one message, and ends in order by signals.

use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mio::{Token, Waker};
use nix::sys::signal::{SigHandler, Signal};
use pollflip::internals::wire::MAX_DESCRIPTORS;
use pollflip::{Arrival, Event, Handover, Precopy, Restarter, ServiceState};

use crate::{raw, strike};
use pollflip_kit::service::report::say;
use pollflip_kit::service::{self, Act, Capability, Core, Settings, Step};
use serde::{Deserialize, Serialize};

pub use pollflip_kit::service::{HUB, ROLE};

pollflip_kit::settings![Pulls, SpeaksByHand, StopOnSignals, OwnHandler, Children, Ballast];

/// None of the kit's.
const STOP: Token = Token(usize::MAX - 3);
/// More than go with one message.
const ITEMS: usize = MAX_DESCRIPTORS + 40;
const BALLAST: usize = 768 << 20;

/// What a successor asks for before it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub enum Pulls {
    State,
    /// What can go ahead of it, and then the state.
    Ahead,
}

/// It speaks by hand.
#[derive(Debug, Serialize, Deserialize)]
pub struct SpeaksByHand;

/// A signal ends it in order, the second at once.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopOnSignals;

/// It has a handler for the restart signal too.
#[derive(Debug, Serialize, Deserialize)]
pub struct OwnHandler;

/// What the program does with children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Children {
    Ignored,
    /// Whatever ends is reaped, by another thread.
    Reaped,
}

/// It has much memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ballast;

pub fn main() -> ExitCode {
    service::main_with(|settings| Box::new(Struck::new(settings)))
}

struct Struck {
    /// What is asked for, and has not come.
    waits_for: Option<Pulls>,
    /// What is given ahead, which costs no descriptor.
    null: File,
    /// What goes ahead of the state, and how much of it has gone.
    precopy: Option<(Precopy, usize)>,
    /// What has come ahead.
    arrived: Vec<Arrival>,
    /// How often it was told to stop, if signals do that.
    told_to_stop: Option<Arc<AtomicUsize>>,
    stopping: bool,
    /// When the last restart began.
    begun: Instant,
}

impl Struck {
    fn new(settings: &Settings) -> Struck {
        Struck {
            waits_for: settings.get(),
            null: File::open("/dev/null").expect("a file"),
            precopy: None,
            arrived: Vec::new(),
            told_to_stop: settings.get().map(|StopOnSignals| Arc::default()),
            stopping: false,
            begun: Instant::now(),
        }
    }

    /// Gives ahead what there is room for, one by one.
    fn copy(&mut self, core: &mut Core) {
        let Some((mut precopy, given)) = self.precopy.take() else { return };
        let next = (given + precopy.room()).min(ITEMS);
        for number in given..next {
            if number == MAX_DESCRIPTORS + 1 {
                core.carry_out(Step::HalfAhead);
            }
            // What goes wrong is told by `Failed`.
            let _ = precopy.fd(&format!("item/{number}"), &self.null);
        }
        if next == ITEMS {
            precopy.complete();
        }
        self.precopy = Some((precopy, next));
    }

    fn give(&mut self, core: &mut Core, mut handover: Handover) {
        let ahead = self.precopy.take().map_or(0, |(_, given)| given);
        for number in ahead..ITEMS {
            if number == MAX_DESCRIPTORS + 1 {
                core.carry_out(Step::Half);
            }
            let given = File::open("/dev/null").and_then(|file| handover.fd(&format!("item/{number}"), &file));
            if let Err(error) = given {
                return handover.fail(&error.to_string());
            }
        }
        let given = handover.bytes("from", &std::process::id().to_ne_bytes());
        say(&format!("gives {given:?}"));
        handover.send();
    }
}

impl Capability for Struck {
    fn born(&mut self, settings: &Settings) {
        strike::listen(&service::directory());
        if settings.has::<SpeaksByHand>() {
            raw::hears_hello();
        }
    }

    fn before_build(&mut self, settings: &Settings) {
        match settings.get() {
            Some(Children::Ignored) => ignore(Signal::SIGCHLD),
            Some(Children::Reaped) => drop(Act::ReapAny.perform(&mut None)),
            None => {}
        }
        if settings.has::<OwnHandler>() {
            handle(Signal::SIGUSR1, || {});
        }
    }

    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        if let Some(told_to_stop) = &self.told_to_stop {
            stop_on_signals(told_to_stop, Waker::new(&core.registry, STOP).map_err(|error| format!("no waker: {error}"))?);
        }
        Ok(())
    }

    fn claimed(&mut self, core: &mut Core) {
        match (core.restarter().predecessor(), &self.waits_for) {
            (Some(predecessor), Some(Pulls::State)) => predecessor.pull(),
            (Some(predecessor), Some(Pulls::Ahead)) => predecessor.pull_precopy(),
            _ => self.waits_for = None,
        }
        if self.waits_for.is_some() {
            say("pulls");
        }
        if core.settings.has::<Ballast>() {
            // Written to, so that it is there.
            vec![1_u8; BALLAST].leak();
        }
    }

    fn waits(&self) -> bool {
        self.waits_for.is_some()
    }

    fn wakes(&mut self, core: &mut Core) -> Result<bool, String> {
        let is_told = self.told_to_stop.as_ref().is_some_and(|told| told.load(Ordering::SeqCst) > 0);
        if !is_told || self.stopping {
            return Ok(false);
        }
        self.stopping = true;
        say("stops");
        core.restarter().stop();
        Ok(true)
    }

    fn event(&mut self, core: &mut Core, event: Event) -> Result<Option<Event>, String> {
        match event {
            Event::Restarting => self.begun = Instant::now(),
            Event::Spawned(_) => say(&format!("spawned-within {}", self.begun.elapsed().as_micros())),
            Event::PrecopyRequested(precopy) => {
                self.precopy = Some((precopy, 0));
                self.copy(core);
            }
            Event::PrecopyRoom => self.copy(core),
            Event::StateRequested(handover) => self.give(core, handover),
            Event::Failed(_) => self.precopy = None,
            Event::Arrived(arrival) => self.arrived.push(arrival),
            Event::ArrivedAll => {
                if let Some(predecessor) = core.restarter.as_ref().and_then(Restarter::predecessor) {
                    predecessor.pull();
                }
            }
            Event::Inherited(state) => {
                let count = self.arrived.len() + state.names().len();
                if count != ITEMS + 1 {
                    return Err(format!("{count} items have come"));
                }
                self.waits_for = None;
            }
            // What it listened on is here, and somebody has to serve.
            Event::PredecessorGone => {
                self.waits_for = None;
                self.arrived.clear();
            }
            Event::GivenUp(pid) if self.waits_for.is_some() => {
                return Err(format!("no state: process {pid} has given this one up"));
            }
            _ => {}
        }
        Ok(None)
    }

    fn perform(&mut self, core: &mut Core, act: &Act) -> Option<String> {
        if *act == Act::Wait {
            let state = core.restarter.as_ref().map(|restarter| restarter.status().state);
            say(&format!("comes-to-wait {}", state.as_ref().map(ServiceState::as_str).unwrap_or_default()));
        }
        None
    }

    /// A successor that is being killed is waited for.
    fn is_over(&mut self, core: &mut Core) -> bool {
        self.stopping && !core.completed && core.restarter().status().state == ServiceState::Stopping
    }
}

/// The first of these signals ends the service in order, the second at once.
fn stop_on_signals(told_to_stop: &Arc<AtomicUsize>, waker: Waker) {
    let waker = Arc::new(waker);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (told_to_stop, waker) = (told_to_stop.clone(), waker.clone());
        handle(signal, move || {
            if told_to_stop.fetch_add(1, Ordering::SeqCst) > 0 {
                signal_hook::low_level::exit(128 + signal as i32);
            }
            let _ = waker.wake();
        });
    }
}

#[allow(unsafe_code, reason = "nix takes a handler")]
fn ignore(signal: Signal) {
    // SAFETY: to ignore a signal runs no code.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.expect("a signal that can be ignored");
}

/// A handler of the program's own.
#[allow(unsafe_code, reason = "a handler")]
fn handle(signal: Signal, handler: impl Fn() + Send + Sync + 'static) {
    // SAFETY: atomic additions, a write to an eventfd and _exit are all that the handlers above do.
    unsafe { signal_hook::low_level::register(signal as i32, handler) }.expect("a handler");
}
