//! The service under test: the echo server of the kit, which can also give up rights and its coordination socket's path once its
//! restarter is built, keep a pid file, and bound the generations behind it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{self, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::time::{ClockId, clock_gettime};
use pollflip::{Event, RestartConfig, Restarter};
use pollflip_kit::service::listeners::Listeners;
use pollflip_kit::service::plan::{self, Plan};
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::settings::Settings;

use crate::confine;

pub use pollflip_kit::service::{COORDINATION, DIRECTORY, HUB, NEXT, ROLE, SETTINGS};

const RESTARTER: Token = Token(usize::MAX - 1);
const COMMANDS: Token = Token(usize::MAX - 2);

/// The time on the clock that all processes share, in nanoseconds.
pub fn clock() -> u64 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    now.as_nanos() as u64
}

/// `confine`, `deny`, `give_path`, `pid_file`, `max_draining`, `keep`, `keeps`, `chdir_first`: lines of `key=value`
/// that only this service knows.
pub struct Extras(Vec<(String, String)>);

impl Extras {
    pub fn read(changes: &[String]) -> Extras {
        let text = std::env::var(SETTINGS).unwrap_or_default();
        let split = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Extras(text.lines().chain(changes.iter().map(String::as_str)).filter_map(split).collect())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn complete(&self, mut config: RestartConfig) -> RestartConfig {
        if let Some(path) = self.get("pid_file") {
            config = config.pid_file(path);
        }
        if let Some(count) = self.get("max_draining") {
            config = config.max_draining(count.parse().expect("a number"));
        }
        if self.get("keeps").is_some() {
            config = config.keep(true);
        }
        // What makes a successor this service, where it inherits nothing.
        if self.get("keep").is_some() {
            for name in [ROLE, DIRECTORY, SETTINGS] {
                config = config.env(name, std::env::var_os(name).expect("a variable of this test"));
            }
        }
        config
    }
}

pub fn main() -> ExitCode {
    let birth = report::Birth::observe();
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory"));
    report::open(&directory.join(HUB));
    birth.report();
    let (mut plan, changes) = Plan::take(&directory.join(NEXT));
    let extras = Extras::read(&changes);
    let settings = Settings::read(&directory, changes);
    if let Some(what) = extras.get("deny") {
        confine::deny(what);
    }
    match Running::start(settings, &extras, &mut plan).and_then(|mut running| running.serve(&mut plan)) {
        Ok(()) => {
            say("ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error);
            ExitCode::from(2)
        }
    }
}

/// The service from the moment on at which its restarter is built.
struct Running {
    settings: Settings,
    config: RestartConfig,
    poll: Poll,
    restarter: Option<Restarter>,
    listeners: Listeners,
    /// A successor has taken over for good.
    completed: bool,
    turns: Turns,
}

impl Running {
    fn start(settings: Settings, extras: &Extras, plan: &mut Plan) -> Result<Running, String> {
        plan.carry_out("born", &mut None);
        settings.give_up_rights();
        if let Some(path) = extras.get("chdir_first") {
            std::env::set_current_dir(path).expect("a directory");
        }
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        let config = extras.complete(settings.config());
        let restarter = config.build().map_err(|error| format!("build-error {error}"))?;
        say(&format!("built generation {}", restarter.generation()));
        let mut listeners = Listeners::new(restarter.generation());
        let mut restarter = Some(restarter);
        settings.change_directory();
        if let Some(user) = extras.get("give_path") {
            let directory = std::env::var(DIRECTORY).expect("a directory");
            std::os::unix::fs::chown(format!("{directory}/{COORDINATION}"), user.parse().ok(), None).expect("another owner");
        }
        plan.carry_out("built", &mut restarter);
        let registry = poll.registry();
        if let Some(restarter) = &mut restarter {
            for wanted in settings.sockets() {
                listeners.claim(restarter, registry, wanted).map_err(|error| format!("socket-error {error}"))?;
            }
            registry.register(restarter, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
        }
        registry.register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
        if let Some(how) = extras.get("confine") {
            work_beside(how.to_owned());
            confine::this_thread(how);
        }
        let mut running = Running { settings, config, poll, restarter, listeners, completed: false, turns: Turns::new() };
        if let Some(restarter) = &mut running.restarter {
            say(&format!("begins-ready {}", clock()));
            restarter.ready().map_err(|error| format!("ready-error {error}"))?;
        }
        plan.carry_out("granted", &mut running.restarter);
        say(&format!("serving {}", running.listeners.address()));
        Ok(running)
    }

    fn serve(&mut self, plan: &mut Plan) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        while !self.completed || self.settings.lingers() || self.listeners.connections() > 0 {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
                _ => {}
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
                            self.obey(&command, plan);
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
        match event {
            Event::HandedOff(_) => self.listeners.stop(self.poll.registry())?,
            Event::Resumed(_) => self.listeners.go_on(self.poll.registry())?,
            Event::Completed(_) => {
                self.listeners.close();
                self.completed = true;
            }
            Event::StateRequested(handover) => handover.send(),
            _ => {}
        }
        plan.carry_out(&name, &mut self.restarter);
        Ok(())
    }

    /// Does what the test wants; each command is answered by one line.
    fn obey(&mut self, command: &str, plan: &mut Plan) {
        let answer = match (command, &mut self.restarter) {
            (on, _) if on.starts_with("on ") => {
                plan.add(&on[3..]);
                "planned".into()
            }
            ("turns", _) => self.turns.longest.as_micros().to_string(),
            ("spawn", _) => spawn_directly(),
            ("build", restarter) => match self.config.build() {
                Ok(built) => {
                    let built = restarter.insert(built);
                    self.poll
                        .registry()
                        .register(built, RESTARTER, Interest::READABLE)
                        .map_or_else(|error| error.to_string(), |()| "ok".into())
                }
                Err(error) => error.to_string(),
            },
            (_, restarter) => plan::perform(command, restarter),
        };
        say(&format!("answer {answer}"));
    }
}

/// What becomes of a process that this thread starts by itself.
fn spawn_directly() -> String {
    match Command::new("/bin/true").status() {
        Ok(status) => format!("ended {status}"),
        Err(error) => error.to_string(),
    }
}

/// Another thread of the program, with no more rights than the loop.
fn work_beside(how: String) {
    let worker = thread::Builder::new().name("worker".into());
    let run = move || {
        confine::this_thread(&how);
        say(&format!("worker {}", spawn_directly()));
        loop {
            thread::park();
        }
    };
    worker.spawn(run).expect("a thread");
}

/// How long the loop was away from its poll at most: the time on the clock without that in which the scheduler had others run.
struct Turns {
    statistics: Option<File>,
    began: (Instant, Duration),
    longest: Duration,
}

impl Turns {
    fn new() -> Turns {
        let statistics = File::open(format!("/proc/{}/schedstat", process::id())).ok();
        Turns { statistics, began: (Instant::now(), Duration::ZERO), longest: Duration::ZERO }
    }

    fn begin(&mut self) {
        self.began = (Instant::now(), self.waited_for_processor());
    }

    fn end(&mut self) {
        let waited = self.waited_for_processor().saturating_sub(self.began.1);
        self.longest = self.longest.max(self.began.0.elapsed().saturating_sub(waited));
    }

    fn waited_for_processor(&self) -> Duration {
        let mut text = [0; 128];
        let length = self.statistics.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        Duration::from_nanos(text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}
