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

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::{Event, RestartConfig, Restarter};

use listeners::Listeners;
use report::say;
use turns::Turns;

pub use act::Act;
pub use capability::Capability;
pub use listeners::{Kind, Socket, tcp};
pub use plan::{Plan, Step, at, never_ready, set};
pub use report::Log;
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
    let mut settings = Settings::read();
    let birth = report::Birth::observe();
    report::open(&directory().join(HUB), settings.get());
    birth.report();
    let mut plan = Plan::take(&directory().join(NEXT));
    settings.append(plan.settings());
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

/// What a service has from the moment on at which its restarter is built.
#[derive(Debug)]
pub struct Core {
    pub settings: Settings,
    pub plan: Plan,
    pub restarter: Option<Restarter>,
    pub registry: Registry,
    listeners: Listeners,
    /// A successor has taken over for good.
    pub completed: bool,
}

struct Running {
    core: Core,
    config: RestartConfig,
    capability: Box<dyn Capability>,
    poll: Poll,
    turns: Turns,
}

impl Core {
    /// Does all that is planned for a step.
    pub fn carry_out(&mut self, step: Step) {
        self.plan.carry_out(step, &mut self.restarter);
    }

    /// Its restarter, where it must have one.
    pub fn restarter(&mut self) -> &mut Restarter {
        self.restarter.as_mut().expect("a restarter")
    }

    /// Asks for one more socket.
    pub fn claim(&mut self, wanted: &Socket) -> Result<(), String> {
        match &mut self.restarter {
            Some(restarter) => self.listeners.claim(restarter, &self.registry, wanted),
            None => Err("there is no restarter".into()),
        }
    }

    /// Listens to what the restarter has to say.
    fn register(&mut self) -> io::Result<()> {
        match &mut self.restarter {
            Some(restarter) => self.registry.register(restarter, RESTARTER, Interest::READABLE),
            None => Ok(()),
        }
    }
}

impl Running {
    fn start(settings: Settings, mut plan: Plan, mut capability: Box<dyn Capability>) -> Result<Running, String> {
        capability.born(&settings);
        plan.carry_out(Step::Born, &mut None);
        settings.give_up_rights();
        capability.before_build(&settings);
        let config = capability.complete(&settings, settings.config());
        let restarter = config.build().map_err(|error| format!("build-error {error}"))?;
        let predecessor = restarter.predecessor().map_or("none".into(), |predecessor| predecessor.pid().to_string());
        say(&format!("built generation {} predecessor {predecessor}", restarter.generation()));
        let listeners = Listeners::new(restarter.generation());
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let registry = poll.registry().try_clone().map_err(|error| error.to_string())?;
        let core = Core { settings, plan, restarter: Some(restarter), registry, listeners, completed: false };
        let mut running = Running { core, config, capability, poll, turns: Turns::new() };
        running.prepare()?;
        Ok(running)
    }

    /// Gets all that it has before it is ready.
    fn prepare(&mut self) -> Result<(), String> {
        let Running { core, capability, .. } = self;
        capability.built(core)?;
        core.carry_out(Step::Built);
        core.settings.change_directory();
        if core.restarter.is_some() {
            for wanted in capability.sockets(core).unwrap_or_else(|| core.settings.sockets()) {
                core.claim(&wanted).map_err(|error| format!("socket-error {error}"))?;
            }
        }
        core.register().map_err(|error| error.to_string())?;
        core.registry.register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
        core.carry_out(Step::Claimed);
        capability.claimed(core);
        Ok(())
    }

    fn get_ready(&mut self) -> Result<(), String> {
        let Running { core, capability, .. } = self;
        say("readies");
        if let Some(restarter) = &mut core.restarter {
            restarter.ready().map_err(|error| format!("ready-error {error}"))?;
            for wanted in capability.ready(core)? {
                core.claim(&wanted).map_err(|error| format!("socket-error {error}"))?;
            }
        }
        say("ready");
        core.carry_out(Step::Granted);
        say(&format!("serving {}", capability.address().unwrap_or_else(|| core.listeners.address())));
        Ok(())
    }

    fn serve(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while self.capability.waits() {
            self.turn(&mut events)?;
        }
        if !self.core.plan.is_never_ready() {
            self.get_ready()?;
        }
        while !self.is_over() {
            self.turn(&mut events)?;
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        let Running { core, capability, .. } = self;
        let has_work = core.settings.has::<Linger>() || core.listeners.connections() > 0 || capability.has_work();
        core.completed && !has_work || capability.is_over(core)
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        match self.poll.poll(events, self.capability.patience()) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
            Err(_) => say("interrupted"),
            Ok(()) => {}
        }
        self.turns.begin();
        if self.capability.wakes(&mut self.core)? {
            self.drain()?;
        }
        for event in events.iter() {
            match event.token() {
                RESTARTER => self.drain()?,
                COMMANDS => {
                    for command in report::commands() {
                        match command {
                            Act::GoOn => self.capability.go_on(),
                            act => say(&format!("answer {}", self.obey(&act))),
                        }
                    }
                }
                token => self.core.listeners.serve(&self.core.registry, token),
            }
        }
        self.turns.end();
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        let mut begins = false;
        while let Some(event) = self.core.restarter.as_mut().and_then(Restarter::poll) {
            begins |= matches!(event, Event::Restarting);
            self.happened(event)?;
        }
        if begins {
            self.core.carry_out(Step::Spawning);
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> Result<(), String> {
        let Running { core, capability, .. } = self;
        report::event(&event);
        // Before anything is done about the event: so it can be struck with its listeners still registered.
        if let Some(step) = Step::of(&event) {
            core.carry_out(step);
        }
        // The listeners stop first: a capability may take its time.
        match &event {
            Event::HandedOff(_) => core.listeners.stop(&core.registry).map_err(|error| format!("cannot register: {error}"))?,
            Event::Resumed(_) => core.listeners.go_on(&core.registry).map_err(|error| format!("cannot register: {error}"))?,
            Event::Completed(_) => {
                core.listeners.close();
                core.completed = true;
            }
            _ => {}
        }
        if let Some(Event::StateRequested(mut handover)) = capability.event(core, event)? {
            let given = handover.bytes("from", process::id().to_string().as_bytes());
            say(&format!("gives the state {given:?}"));
            handover.send();
        }
        Ok(())
    }

    /// Does what the test wants; each command is answered by one line.
    fn obey(&mut self, act: &Act) -> String {
        let Running { core, capability, .. } = self;
        if let Some(answer) = capability.perform(core, act) {
            return answer;
        }
        match act {
            Act::On(step, act) => {
                core.plan.add(*step, *act.clone());
                "planned".into()
            }
            Act::Turns => self.turns.longest().as_micros().to_string(),
            Act::Connections => core.listeners.connections().to_string(),
            Act::Ready => act::answer(self.get_ready(), "ok"),
            Act::Build => self.build(),
            Act::Claim(wanted) => act::answer(core.claim(wanted), "ok"),
            Act::ForgetSetting => core.settings.forget().to_string(),
            act => act.perform(&mut core.restarter).unwrap_or_else(|| format!("this service does not do that: {act:?}")),
        }
    }

    /// A restarter again, if there is none; otherwise one more, which cannot be.
    fn build(&mut self) -> String {
        let Running { core, config, capability, .. } = self;
        if core.restarter.is_none() {
            *config = capability.complete(&core.settings, core.settings.config());
        }
        match config.build() {
            Ok(built) if core.restarter.is_none() => {
                core.restarter = Some(built);
                act::answer(core.register(), "ok")
            }
            Ok(_) => "built a second one".into(),
            Err(error) => error.to_string(),
        }
    }
}
