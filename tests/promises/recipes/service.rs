//! The service under test: an echo server on plain mio that follows one recipe.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::{Event, Restarter};
use pollflip_kit::service::listeners::Listeners;
use pollflip_kit::service::plan::{self, Plan};
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::settings::Settings;

use crate::{addresses, helpers, locks, scheduling};

pub use pollflip_kit::service::{DIRECTORY, HUB, NEXT, ROLE, SETTINGS};

const RESTARTER: Token = Token(usize::MAX - 1);
const COMMANDS: Token = Token(usize::MAX - 2);

/// What a recipe does at which step. An error ends the process.
pub trait Recipe {
    /// Before the restarter is built.
    fn begin(&mut self) {}

    /// There is a restarter, and no socket has been asked for.
    fn built(&mut self, _: &mut Restarter) -> Result<(), String> {
        Ok(())
    }

    /// The sockets to ask for before this process is ready, as lines of [`Settings::sockets`].
    fn sockets(&mut self, _: &mut Restarter) -> Option<Vec<String>> {
        None
    }

    /// This process serves. Sockets to ask for from now on.
    fn ready(&mut self, _: &mut Restarter) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    /// Returns an event that the recipe has no use for.
    fn event(&mut self, event: Event) -> Option<Event> {
        Some(event)
    }

    /// A question of the test.
    fn answer(&mut self, _: &str) -> Option<String> {
        None
    }
}

fn recipe(text: &str, directory: &Path) -> Box<dyn Recipe> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "lock" => Box::new(locks::Lock::new(rest, directory)),
        "group" => Box::new(addresses::Group::new(rest)),
        "multicast" => Box::new(addresses::Multicast::new(rest)),
        "helper" => Box::new(helpers::Helper::default()),
        "pinned" => Box::new(scheduling::Pinned::new(rest)),
        other => panic!("no recipe is called {other}"),
    }
}

pub fn main() -> ExitCode {
    let birth = report::Birth::observe();
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory"));
    report::open(&directory.join(HUB));
    birth.report();
    let (mut plan, changes) = Plan::take(&directory.join(NEXT));
    let all = std::env::var(SETTINGS).unwrap_or_default();
    let lines = all.lines().chain(changes.iter().map(String::as_str));
    let which = lines.filter_map(|line| line.strip_prefix("recipe=")).next_back().expect("a recipe").to_owned();
    let settings = Settings::read(&directory, changes);
    match run(&settings, recipe(&which, &directory).as_mut(), &mut plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(2)
        }
    }
}

fn run(settings: &Settings, recipe: &mut dyn Recipe, plan: &mut Plan) -> Result<(), String> {
    recipe.begin();
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    let mut built = settings.config().build().map_err(|error| format!("build-error {error}"))?;
    recipe.built(&mut built)?;
    let mut listeners = Listeners::new(built.generation());
    let sockets = recipe.sockets(&mut built).unwrap_or_else(|| settings.sockets().into_iter().map(String::from).collect());
    claim(&mut listeners, &mut built, poll.registry(), &sockets)?;
    poll.registry().register(&mut built, RESTARTER, Interest::READABLE).map_err(|error| error.to_string())?;
    poll.registry().register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).map_err(|error| error.to_string())?;
    let mut restarter = Some(built);
    plan.carry_out("claimed", &mut restarter);
    if let Some(restarter) = &mut restarter {
        restarter.ready().map_err(|error| format!("ready-error {error}"))?;
        let more = recipe.ready(restarter)?;
        claim(&mut listeners, restarter, poll.registry(), &more)?;
    }
    plan.carry_out("granted", &mut restarter);
    say(&format!("serving {}", listeners.address()));
    let mut events = Events::with_capacity(256);
    let mut completed = false;
    while !completed || listeners.connections() > 0 {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(format!("cannot poll: {error}")),
            _ => {}
        }
        for event in &events {
            match event.token() {
                RESTARTER => {
                    while let Some(event) = restarter.as_mut().and_then(Restarter::poll) {
                        let name = report::event(&event);
                        // The listeners stop first: a recipe may take its time.
                        match &event {
                            Event::HandedOff(_) => listeners.stop(poll.registry()).map_err(|error| error.to_string())?,
                            Event::Resumed(_) => listeners.go_on(poll.registry()).map_err(|error| error.to_string())?,
                            Event::Completed(_) => {
                                listeners.close();
                                completed = true;
                            }
                            _ => {}
                        }
                        if let Some(Event::StateRequested(handover)) = recipe.event(event) {
                            handover.send();
                        }
                        plan.carry_out(&name, &mut restarter);
                    }
                }
                COMMANDS => {
                    for command in report::commands() {
                        let answer = recipe.answer(&command).unwrap_or_else(|| plan::perform(&command, &mut restarter));
                        say(&format!("answer {answer}"));
                    }
                }
                token => listeners.serve(poll.registry(), token),
            }
        }
    }
    Ok(())
}

fn claim(listeners: &mut Listeners, restarter: &mut Restarter, registry: &Registry, all: &[String]) -> Result<(), String> {
    all.iter().try_for_each(|wanted| listeners.claim(restarter, registry, wanted).map_err(|error| format!("socket-error {error}")))
}
