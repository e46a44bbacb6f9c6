//! The service under test: an echo server on plain mio that restarts itself.
//!
//! What a process does at which step is its [`Plan`]; what a test has it do meanwhile is an [`Act`]. What a test program adds to the
//! service, whose sockets, rights or state then are of another kind, is a [`Capability`].

pub mod act;
pub mod capability;
pub mod listeners;
pub mod plan;
pub mod report;
pub mod settings;
mod turns;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pollflip::{Event, RestartConfig, Restarter};

use listeners::Listeners;
use report::say;
use turns::Turns;

pub use act::Act;
pub use capability::Capability;
pub use listeners::{Kind, Socket, tcp};
pub use plan::{Plan, Step, at, never_ready, set};
pub use settings::{Config, GoTo, LeaveFirstThread, Linger, Listen, RunAs, Setting, Settings, ms};

/// Set: this process is no test runner.
pub const ROLE: &str = "POLLFLIP_TEST_ROLE";
/// Where all files of a test are.
pub const DIRECTORY: &str = "POLLFLIP_TEST_DIRECTORY";
/// The [`settings`] of all generations.
pub const SETTINGS: &str = "POLLFLIP_TEST_SETTINGS";
/// The name of the hub's socket in that directory.
pub const HUB: &str = "hub";
/// The name of the plan for the next process.
pub const NEXT: &str = "next";
/// The name of the coordination socket.
pub const COORDINATION: &str = "restart.sock";

const RESTARTER: Token = Token(usize::MAX - 1);
const COMMANDS: Token = Token(usize::MAX - 2);

/// What every service begins with: it tells of its birth, and takes its plan and its settings.
pub fn begin() -> (Plan, Settings) {
    let birth = report::Birth::observe();
    report::open(&directory().join(HUB));
    birth.report();
    let mut plan = Plan::take(&directory().join(NEXT));
    let settings = Settings::read(plan.settings());
    (plan, settings)
}

/// Where all files of the test are, as a process of the service knows it.
pub fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).expect("a directory").into()
}

/// The service without anything besides.
pub fn main() -> ExitCode {
    main_with(|_| Box::new(()))
}

/// The service with a capability, by its settings.
pub fn main_with(capability: fn(&Settings) -> Box<dyn Capability>) -> ExitCode {
    let (plan, settings) = begin();
    if !settings.has::<LeaveFirstThread>() {
        return ExitCode::from(run(settings, plan, capability));
    }
    thread::spawn(move || process::exit(i32::from(run(settings, plan, capability))));
    end_thread();
    ExitCode::SUCCESS
}

fn run(settings: Settings, plan: Plan, capability: fn(&Settings) -> Box<dyn Capability>) -> u8 {
    let capability = capability(&settings);
    match Running::start(settings, plan, capability).and_then(|mut running| running.serve()) {
        Ok(()) => {
            say("ends");
            0
        }
        Err(error) => {
            say(&error);
            2
        }
    }
}

/// Ends this thread, and not the process.
#[allow(unsafe_code, reason = "std has no such call")]
fn end_thread() {
    // SAFETY: nothing that this thread owns is needed by another one.
    unsafe { nix::libc::syscall(nix::libc::SYS_exit, 0) };
}

/// The service from the moment on at which its restarter is built.
struct Running {
    settings: Settings,
    config: RestartConfig,
    plan: Plan,
    capability: Box<dyn Capability>,
    poll: Poll,
    restarter: Option<Restarter>,
    listeners: Listeners,
    /// A successor has taken over for good.
    completed: bool,
    turns: Turns,
}

impl Running {
    fn start(settings: Settings, mut plan: Plan, mut capability: Box<dyn Capability>) -> Result<Running, String> {
        capability.born();
        plan.carry_out(Step::Born, &mut None);
        settings.give_up_rights();
        capability.before_build();
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let config = capability.complete(settings.config());
        let restarter = config.build().map_err(|error| format!("build-error {error}"))?;
        let predecessor = restarter.predecessor().map_or("none".into(), |predecessor| predecessor.pid().to_string());
        say(&format!("built generation {} predecessor {predecessor}", restarter.generation()));
        let listeners = Listeners::new(restarter.generation());
        let (completed, turns) = (false, Turns::new());
        let mut running = Running { settings, config, plan, capability, poll, restarter: Some(restarter), listeners, completed, turns };
        running.prepare()?;
        if !running.plan.is_never_ready() {
            running.get_ready()?;
        }
        Ok(running)
    }

    /// Gets all that it has before it is ready.
    fn prepare(&mut self) -> Result<(), String> {
        if let Some(restarter) = &mut self.restarter {
            self.capability.built(restarter)?;
        }
        self.plan.carry_out(Step::Built, &mut self.restarter);
        self.settings.change_directory();
        let registry = self.poll.registry();
        if let Some(restarter) = &mut self.restarter {
            for wanted in self.capability.sockets(restarter).unwrap_or_else(|| self.settings.sockets()) {
                self.listeners.claim(restarter, registry, &wanted).map_err(|error| format!("socket-error {error}"))?;
            }
            registry.register(restarter, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
        }
        registry.register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
        self.plan.carry_out(Step::Claimed, &mut self.restarter);
        self.capability.claimed();
        Ok(())
    }

    fn get_ready(&mut self) -> Result<(), String> {
        if let Some(restarter) = &mut self.restarter {
            restarter.ready().map_err(|error| format!("ready-error {error}"))?;
            for wanted in self.capability.ready(restarter)? {
                self.listeners.claim(restarter, self.poll.registry(), &wanted).map_err(|error| format!("socket-error {error}"))?;
            }
        }
        say("ready");
        self.plan.carry_out(Step::Granted, &mut self.restarter);
        say(&format!("serving {}", self.listeners.address()));
        Ok(())
    }

    fn serve(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while !self.completed || self.settings.has::<Linger>() || self.listeners.connections() > 0 {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
                Err(_) => say("interrupted"),
                Ok(()) => {}
            }
            self.turns.begin();
            for event in &events {
                match event.token() {
                    RESTARTER => self.drain()?,
                    COMMANDS => {
                        for command in report::commands() {
                            let answer = self.obey(&command);
                            say(&format!("answer {answer}"));
                        }
                    }
                    token => self.listeners.serve(self.poll.registry(), token),
                }
            }
            self.turns.end();
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        let mut begins = false;
        while let Some(event) = self.restarter.as_mut().and_then(Restarter::poll) {
            begins |= matches!(event, Event::Restarting);
            self.happened(event)?;
        }
        if begins {
            self.plan.carry_out(Step::Spawning, &mut self.restarter);
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> Result<(), String> {
        report::event(&event);
        let step = Step::of(&event);
        let registry = self.poll.registry();
        // The listeners stop first: a capability may take its time.
        match &event {
            Event::HandedOff(_) => self.listeners.stop(registry).map_err(|error| format!("cannot register: {error}"))?,
            Event::Resumed(_) => self.listeners.go_on(registry).map_err(|error| format!("cannot register: {error}"))?,
            Event::Completed(_) => {
                self.listeners.close();
                self.completed = true;
            }
            _ => {}
        }
        let event = self.capability.event(event);
        if let Some(step) = step {
            self.plan.carry_out(step, &mut self.restarter);
        }
        if let Some(Event::StateRequested(mut handover)) = event {
            let given = handover.bytes("from", process::id().to_string().as_bytes());
            say(&format!("gives the state {given:?}"));
            handover.send();
        }
        Ok(())
    }

    /// Does what the test wants; each command is answered by one line.
    fn obey(&mut self, act: &Act) -> String {
        if let Some(answer) = self.capability.perform(act) {
            return answer;
        }
        match act {
            Act::On(step, act) => {
                self.plan.add(*step, *act.clone());
                "planned".into()
            }
            Act::Turns => self.turns.longest().as_micros().to_string(),
            Act::Connections => self.listeners.connections().to_string(),
            Act::Ready => act::answer(self.get_ready(), "ok"),
            Act::Build => self.build(),
            Act::Claim(wanted) => match &mut self.restarter {
                Some(restarter) => act::answer(self.listeners.claim(restarter, self.poll.registry(), wanted), "ok"),
                None => "there is no restarter".into(),
            },
            Act::ForgetSetting => self.settings.forget().to_string(),
            act => act.perform(&mut self.restarter).unwrap_or_else(|| format!("this service does not do that: {act:?}")),
        }
    }

    /// A restarter again, if there is none; otherwise one more, which cannot be.
    fn build(&mut self) -> String {
        if self.restarter.is_none() {
            self.config = self.capability.complete(self.settings.config());
        }
        match self.config.build() {
            Ok(built) if self.restarter.is_none() => {
                let built = self.restarter.insert(built);
                act::answer(self.poll.registry().register(built, RESTARTER, Interest::READABLE), "ok")
            }
            Ok(_) => "built a second one".into(),
            Err(error) => error.to_string(),
        }
    }
}
