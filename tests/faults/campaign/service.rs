//! The service of the campaign: it greets and echoes, restarts itself, gives a state that does not fit into one message, and waits
//! wherever it is told to.
//!
//! It has a loop of its own, not that of the kit: what is planned for an event it does before it has dealt with the event, so that it can
//! be struck with its listeners still registered, and it takes its state in before it is ready.
//!

use std::fs::File;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::signal::{SigHandler, Signal};
use pollflip::internals::wire::MAX_DESCRIPTORS;
use pollflip::{Arrival, Event, Handover, Precopy, Restarter};

use crate::{raw, strike};
use pollflip_kit::service::listeners::Listeners;
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::{self, Act, Plan, Settings, Step, tcp};
use serde::{Deserialize, Serialize};

pub use pollflip_kit::service::{HUB, ROLE};

pollflip_kit::settings![Pulls, SpeaksByHand, StopOnSignals, OwnHandler, Children, Ballast];

const RESTARTER: Token = Token(usize::MAX - 1);
const COMMANDS: Token = Token(usize::MAX - 2);
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
    let (plan, settings) = service::begin();
    strike::listen(&service::directory());
    if settings.has::<SpeaksByHand>() {
        raw::hears_hello();
    }
    match Running::start(settings, plan).and_then(Running::serve) {
        Ok(()) => {
            say("ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error {error}"));
            ExitCode::from(2)
        }
    }
}

struct Running {
    poll: Poll,
    restarter: Option<Restarter>,
    listeners: Listeners,
    plan: Plan,
    /// A state was asked for and has not come.
    waits_for_state: bool,
    /// What is given, which costs no descriptor.
    null: File,
    /// What goes ahead of the state, and how much of it has gone.
    precopy: Option<(Precopy, usize)>,
    /// What has come ahead.
    arrived: Vec<Arrival>,
    completed: bool,
    /// How often it was told to stop.
    told_to_stop: Arc<AtomicUsize>,
    stopping: bool,
    /// When the last restart began.
    begun: Instant,
    _ballast: Vec<u8>,
}

impl Running {
    fn start(settings: Settings, mut plan: Plan) -> Result<Running, String> {
        let null = File::open("/dev/null").map_err(|error| error.to_string())?;
        plan.carry_out(Step::Born, &mut None);
        settings.give_up_rights();
        let told_to_stop = Arc::new(AtomicUsize::new(0));
        prepare(&settings);
        let restarter = settings.config().build().map_err(|error| format!("build-error {error}"))?;
        let generation = restarter.generation();
        say(&format!("built generation {generation}"));
        let mut restarter = Some(restarter);
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let registry = poll.registry();
        if settings.has::<StopOnSignals>() {
            stop_on_signals(&told_to_stop, Waker::new(registry, STOP).map_err(|error| format!("no waker: {error}"))?);
        }
        plan.carry_out(Step::Built, &mut restarter);
        let mut listeners = Listeners::new(generation);
        let predecessor = restarter.as_ref().and_then(Restarter::predecessor);
        if let Some(restarter) = &mut restarter {
            listeners.claim(restarter, registry, &tcp("echo", "127.0.0.1:0"))?;
            registry.register(restarter, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
        }
        registry.register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
        plan.carry_out(Step::Claimed, &mut restarter);
        let mut waits_for_state = false;
        if let (Some(predecessor), Some(pulls)) = (predecessor, settings.get()) {
            match pulls {
                Pulls::State => predecessor.pull(),
                Pulls::Ahead => predecessor.pull_precopy(),
            }
            waits_for_state = true;
            say("pulls");
        }
        // Written to, so that it is there.
        let _ballast = vec![1; if settings.has::<Ballast>() { BALLAST } else { 0 }];
        let (completed, stopping, begun) = (false, false, Instant::now());
        let (precopy, arrived) = (None, Vec::new());
        Ok(Running {
            poll,
            restarter,
            listeners,
            plan,
            waits_for_state,
            null,
            precopy,
            arrived,
            completed,
            told_to_stop,
            stopping,
            begun,
            _ballast,
        })
    }

    fn serve(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while self.waits_for_state {
            self.turn(&mut events)?;
        }
        say("readies");
        self.restarter.as_mut().expect("a restarter").ready().map_err(|error| format!("ready-error {error}"))?;
        self.plan.carry_out(Step::Granted, &mut self.restarter);
        say(&format!("serving {}", self.listeners.address()));
        while !self.is_over() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    /// It has nothing left to do.
    fn is_over(&mut self) -> bool {
        if self.stopping && !self.completed {
            // A successor that is being killed is waited for.
            let status = self.restarter.as_ref().expect("a restarter").status();
            return status.state == pollflip::ServiceState::Stopping;
        }
        self.completed && self.listeners.connections() == 0
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        match self.poll.poll(events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
            _ => {}
        }
        self.look_for_stop()?;
        for event in events.iter() {
            match event.token() {
                RESTARTER => self.drain()?,
                STOP => {}
                COMMANDS => report::commands().iter().for_each(|command| self.obey(command)),
                token => self.listeners.serve(self.poll.registry(), token),
            }
        }
        Ok(())
    }

    fn obey(&mut self, act: &Act) {
        let answer = match act {
            Act::On(step, act) => {
                self.plan.add(*step, *act.clone());
                "planned".into()
            }
            Act::Connections => self.listeners.connections().to_string(),
            act => {
                if *act == Act::Wait {
                    let state = self.restarter.as_ref().map(|restarter| restarter.status().state);
                    say(&format!("comes-to-wait {}", state.as_ref().map(pollflip::ServiceState::as_str).unwrap_or_default()));
                }
                act.perform(&mut self.restarter).unwrap_or_else(|| format!("this service does not do that: {act:?}"))
            }
        };
        say(&format!("answer {answer}"));
    }

    fn look_for_stop(&mut self) -> Result<(), String> {
        let told = self.told_to_stop.load(Ordering::SeqCst);
        if told > 0 && !self.stopping {
            self.stopping = true;
            say("stops");
            self.restarter.as_mut().expect("a restarter").stop();
            self.drain()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        while let Some(event) = self.restarter.as_mut().and_then(Restarter::poll) {
            self.happened(event)?;
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> Result<(), String> {
        report::event(&event);
        if let Some(step) = Step::of(&event) {
            self.plan.carry_out(step, &mut self.restarter);
        }
        let registry = self.poll.registry();
        match event {
            Event::Restarting => self.begun = Instant::now(),
            Event::Spawned(_) => say(&format!("spawned-within {}", self.begun.elapsed().as_micros())),
            Event::PrecopyRequested(precopy) => {
                self.precopy = Some((precopy, 0));
                self.copy();
            }
            Event::PrecopyRoom => self.copy(),
            Event::StateRequested(handover) => self.give(handover),
            Event::Failed(_) => self.precopy = None,
            Event::Arrived(arrival) => self.arrived.push(arrival),
            Event::ArrivedAll => {
                if let Some(predecessor) = self.restarter.as_ref().and_then(Restarter::predecessor) {
                    predecessor.pull();
                }
            }
            Event::HandedOff(_) => self.listeners.stop(registry).map_err(|error| error.to_string())?,
            Event::Resumed(_) => self.listeners.go_on(registry).map_err(|error| error.to_string())?,
            Event::Completed(_) => {
                self.listeners.close();
                self.completed = true;
            }
            Event::Inherited(state) => {
                let count = self.arrived.len() + state.names().len();
                if count != ITEMS + 1 {
                    return Err(format!("{count} items have come"));
                }
                self.waits_for_state = false;
            }
            // What it listened on is here, and somebody has to serve.
            Event::PredecessorGone => {
                self.waits_for_state = false;
                self.arrived.clear();
            }
            Event::GivenUp(pid) if self.waits_for_state => return Err(format!("no state: process {pid} has given this one up")),
            _ => {}
        }
        Ok(())
    }

    /// Gives ahead what there is room for, one by one.
    fn copy(&mut self) {
        let Some((mut precopy, given)) = self.precopy.take() else { return };
        let next = (given + precopy.room()).min(ITEMS);
        for number in given..next {
            if number == MAX_DESCRIPTORS + 1 {
                self.plan.carry_out(Step::HalfAhead, &mut self.restarter);
            }
            // What goes wrong is told by `Failed`.
            let _ = precopy.fd(&format!("item/{number}"), &self.null);
        }
        if next == ITEMS {
            precopy.complete();
        }
        self.precopy = Some((precopy, next));
    }

    fn give(&mut self, mut handover: Handover) {
        let ahead = self.precopy.take().map_or(0, |(_, given)| given);
        for number in ahead..ITEMS {
            if number == MAX_DESCRIPTORS + 1 {
                self.plan.carry_out(Step::Half, &mut self.restarter);
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

/// What the program does with signals besides the restarter.
fn prepare(settings: &Settings) {
    match settings.get() {
        Some(Children::Ignored) => ignore(Signal::SIGCHLD),
        Some(Children::Reaped) => drop(Act::ReapAny.perform(&mut None)),
        None => {}
    }
    if settings.has::<OwnHandler>() {
        handle(Signal::SIGUSR1, || {});
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
