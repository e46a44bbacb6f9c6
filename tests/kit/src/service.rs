//! The service under test: an echo server on plain mio that restarts itself, and does at each step what its plan says.

pub mod listeners;
pub mod plan;
pub mod report;
pub mod settings;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pollflip::{Event, Restarter, startup_complete};

use listeners::Listeners;
use plan::Plan;
use report::say;
use settings::Settings;

/// Set: this process is no test runner.
pub const ROLE: &str = "POLLFLIP_TEST_ROLE";
/// Where all files of a test are.
pub const DIRECTORY: &str = "POLLFLIP_TEST_DIRECTORY";
/// The lines of [`settings`].
pub const SETTINGS: &str = "POLLFLIP_TEST_SETTINGS";
/// The name of the hub's socket in that directory.
pub const HUB: &str = "hub";
/// The name of the plan for the next process.
pub const NEXT: &str = "next";
/// The name of the coordination socket.
pub const COORDINATION: &str = "restart.sock";

const RESTARTER: Token = Token(usize::MAX - 1);
const COMMANDS: Token = Token(usize::MAX - 2);

pub fn main() -> ExitCode {
    let birth = report::Birth::observe();
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory"));
    report::open(&directory.join(HUB));
    birth.report();
    let (plan, changes) = Plan::take(&directory.join(NEXT));
    let settings = Settings::read(&directory, changes);
    if !settings.leaves_first_thread() {
        return ExitCode::from(run(settings, plan));
    }
    thread::spawn(|| process::exit(i32::from(run(settings, plan))));
    end_thread();
    ExitCode::SUCCESS
}

fn run(settings: Settings, mut plan: Plan) -> u8 {
    match Running::start(settings, &mut plan).and_then(|mut running| running.serve(&mut plan)) {
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
    poll: Poll,
    restarter: Option<Restarter>,
    listeners: Listeners,
    /// A successor has taken over for good.
    completed: bool,
    turns: Turns,
}

impl Running {
    fn start(settings: Settings, plan: &mut Plan) -> Result<Running, String> {
        plan.carry_out("born", &mut None);
        settings.give_up_rights();
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let generation;
        let mut restarter = {
            let restarter = settings.config().build().map_err(|error| format!("build-error {error}"))?;
            generation = restarter.generation();
            let predecessor = restarter.predecessor().map_or("none".into(), |predecessor| predecessor.pid().to_string());
            say(&format!("built generation {generation} predecessor {predecessor}"));
            Some(restarter)
        };
        plan.carry_out("built", &mut restarter);
        settings.change_directory();
        let registry = poll.registry();
        let mut listeners = Listeners::new(generation);
        if let Some(restarter) = &mut restarter {
            for wanted in settings.sockets() {
                listeners.claim(restarter, registry, wanted).map_err(|error| format!("socket-error {error}"))?;
            }
            registry.register(restarter, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
        }
        registry.register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
        plan.carry_out("claimed", &mut restarter);
        let mut running = Running { settings, poll, restarter, listeners, completed: false, turns: Turns::new() };
        if !plan.is_never_ready() {
            running.get_ready(plan)?;
        }
        Ok(running)
    }

    fn get_ready(&mut self, plan: &mut Plan) -> Result<(), String> {
        if let Some(restarter) = &mut self.restarter {
            restarter.ready().map_err(|error| format!("ready-error {error}"))?;
        }
        say("ready");
        plan.carry_out("granted", &mut self.restarter);
        say(&format!("serving {}", self.listeners.address()));
        Ok(())
    }

    fn serve(&mut self, plan: &mut Plan) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while !self.completed || self.settings.lingers() || self.listeners.connections() > 0 {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
                Err(_) => say("interrupted"),
                Ok(()) => {}
            }
            self.turns.begin();
            for event in &events {
                match event.token() {
                    RESTARTER => {
                        let mut begins = false;
                        while let Some(event) = self.restarter.as_mut().and_then(Restarter::poll) {
                            begins |= matches!(event, Event::Restarting);
                            self.happened(event, plan).map_err(|error| format!("cannot register: {error}"))?;
                        }
                        if begins {
                            plan.carry_out("spawning", &mut self.restarter);
                        }
                    }
                    COMMANDS => {
                        for command in report::commands() {
                            self.obey(&command, plan)?;
                        }
                    }
                    token => self.listeners.serve(self.poll.registry(), token),
                }
            }
            self.turns.end();
        }
        Ok(())
    }

    fn happened(&mut self, event: Event, plan: &mut Plan) -> io::Result<()> {
        let name = report::event(&event);
        if let Event::StateRequested(mut handover) = event {
            plan.carry_out(&name, &mut self.restarter);
            let given = handover.bytes("from", process::id().to_string().as_bytes());
            say(&format!("gives the state {given:?}"));
            handover.send();
            return Ok(());
        }
        match event {
            Event::HandedOff(_) => self.listeners.stop(self.poll.registry())?,
            Event::Resumed(_) => self.listeners.go_on(self.poll.registry())?,
            Event::Completed(_) => {
                self.listeners.close();
                self.completed = true;
            }
            _ => {}
        }
        plan.carry_out(&name, &mut self.restarter);
        Ok(())
    }

    /// Does what the test wants; each command is answered by one line.
    fn obey(&mut self, command: &str, plan: &mut Plan) -> Result<(), String> {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let answer = match (word, &mut self.restarter) {
            ("on", _) => {
                plan.add(rest);
                "planned".into()
            }
            ("turns", _) => self.turns.longest().as_micros().to_string(),
            ("ready", Some(_)) => match self.get_ready(plan) {
                Ok(()) => "ok".into(),
                Err(error) => error,
            },
            ("startup-complete", _) => startup_complete().map_or_else(|error| error.to_string(), |()| "ok".into()),
            ("build", restarter) => match self.settings.config().build() {
                Ok(built) if restarter.is_none() => {
                    let built = restarter.insert(built);
                    self.poll.registry().register(built, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
                    "ok".into()
                }
                Ok(_) => "built a second one".into(),
                Err(error) => error.to_string(),
            },
            ("claim", Some(restarter)) => match self.listeners.claim(restarter, self.poll.registry(), rest) {
                Ok(()) => "ok".into(),
                Err(error) => error,
            },
            ("forget", _) => self.settings.forget(rest).to_string(),
            ("successor", restarter) => match restarter.take().and_then(Restarter::into_successor) {
                Some(mut successor) => format!("{} {:?}", successor.pid(), successor.try_wait()),
                None => "none".into(),
            },
            (_, restarter) => plan::perform(command, restarter),
        };
        say(&format!("answer {answer}"));
        Ok(())
    }
}

/// How long the loop was away from its poll at most: the time on the clock without that in which the scheduler had others run.
struct Turns {
    statistics: Option<File>,
    began: (Instant, Duration),
    longest: Duration,
}

impl Turns {
    fn new() -> Turns {
        let mut turns =
            Turns { statistics: File::open("/proc/self/schedstat").ok(), began: (Instant::now(), Duration::ZERO), longest: Duration::ZERO };
        turns.begin();
        turns
    }

    fn begin(&mut self) {
        self.began = (Instant::now(), self.waited_for_processor());
    }

    fn end(&mut self) {
        let waited = self.waited_for_processor().saturating_sub(self.began.1);
        self.longest = self.longest.max(self.began.0.elapsed().saturating_sub(waited));
    }

    fn longest(&self) -> Duration {
        self.longest
    }

    fn waited_for_processor(&self) -> Duration {
        let mut text = [0; 128];
        let length = self.statistics.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        Duration::from_nanos(text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}
