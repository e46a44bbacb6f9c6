//! A loop that ticks 60 times a second, polls the restarter once per frame, and restarts itself without dropping a frame.
//!
//!     cargo run --release --example game_loop -- --restarts 10
//!
//! It plays for a while without restarts and for a while with them, and prints what the players would notice: how long
//! each frame took, from the start of one step of the world to the start of the next. A restart is in the middle of
//! that: the old process freezes the world after a step and hands it over, the new one makes the next step. The numbers
//! travel with the world, so those of the frame in which the process changes are among them.
//!
//! `play` is the part to learn from. `measure.rs` is clocks and numbers, `world.rs` something to keep busy with.

mod measure;
mod world;

use lexopt::{Arg, Parser, ValueExt};
use measure::{Clock, Measurements};
use pollflip::{Blob, Error, Event, Handover, Inheritance, RestartConfig};
use std::io::{self, Read, Write};
use std::process::{self, Command, ExitCode, Stdio};
use std::time::Duration;
use world::World;

const HELP: &str = "\
Restarts a 60 Hz loop while it runs, and prints the frame times without and with restarts.

usage: game_loop [--restarts N] [--seconds SECONDS]
       game_loop --idle-cost

  --restarts N       how many restarts (10)
  --seconds SECONDS  how long to play without restarts, and then again with them (20);
                     the 99.9th percentile of fewer than 1,000 frames is the longest
  --idle-cost        print instead what polling costs when nothing happens

The exit status is 0 if the game came to its end, 1 if it did not, 2 for wrong usage.";

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("game_loop: {error} (see --help)");
            return ExitCode::from(2);
        }
    };
    let result = match options.mode {
        Mode::Help => writeln!(io::stdout(), "{HELP}"),
        Mode::IdleCost => measure::idle_cost(),
        Mode::Direct => direct(&options),
        Mode::Play => play(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("game_loop, process {}: {error}", process::id());
            ExitCode::FAILURE
        }
    }
}

/// Starts the game in a process of its own and waits until its last generation has ended and printed the report: all of
/// them write to this pipe.
fn direct(options: &Options) -> io::Result<()> {
    let mut game = Command::new(std::env::current_exe()?)
        .args(["play", "--restarts", &options.restarts.to_string(), "--seconds", &options.seconds.as_secs_f64().to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut report = String::new();
    if let Some(mut stdout) = game.stdout.take() {
        stdout.read_to_string(&mut report)?;
    }
    let status = game.wait()?;
    if !status.success() || report.is_empty() {
        return Err(io::Error::other(format!("the game ended before its time; its first process: {status}")));
    }
    write!(io::stdout(), "{report}")
}

/// One generation of the game.
fn play(options: &Options) -> io::Result<()> {
    let mut restarter = RestartConfig::new().build()?;
    let mut game = match restarter.predecessor() {
        // A game with much to load does it here, before it asks: the old process freezes the world from now on.
        Some(predecessor) => match predecessor.receive(Duration::from_secs(5)) {
            Ok(state) => Game::load(state).inspect_err(|error| predecessor.refuse(&error.to_string()))?,
            // It has ended, and its world with it: nobody else is left to play.
            Err(Error::PredecessorGone { .. }) => Game::new(),
            Err(error) => {
                predecessor.refuse(&error.to_string());
                return Err(error.into());
            }
        },
        None => Game::new(),
    };
    // Returns when the old process has let go of the world, which it does in its next frame.
    restarter.ready()?;

    let mut frozen = false;
    let mut asked = false;
    loop {
        game.clock.wait_for_the_next_frame(FRAME);
        if !frozen {
            game.measurements.frame(&game.clock);
            game.world.step(FRAME);
        }
        // The one line that a loop like this needs, at a point where it has time to spare.
        while let Some(event) = game.measurements.call("poll", || restarter.poll()) {
            match event {
                Event::StateRequested(handover) => {
                    frozen = true;
                    // What goes wrong comes back as `Failed`.
                    let _ = game.save(handover);
                }
                Event::Failed(why) => {
                    eprintln!("game_loop: {why}");
                    frozen = false; // nothing was given up
                    asked = false;
                }
                Event::Completed(_) => return Ok(()), // the world is somebody else's
                _ => {}
            }
        }
        let time_to_restart = game.measurements.look_at_the_plan(&game.clock, options, restarter.generation());
        if time_to_restart && !asked {
            // Refused for a moment if the process before is not done with its own restart.
            asked = game.measurements.call("request", || restarter.request()).is_ok();
        }
        if game.measurements.is_over(&game.clock, options, restarter.generation()) {
            return write!(io::stdout(), "{}", game.measurements.report(options));
        }
    }
}

/// All that goes from one generation to the next.
struct Game {
    world: World,
    clock: Clock,
    measurements: Measurements,
}

impl Game {
    fn new() -> Game {
        Game { world: World::new(), clock: Clock::new(), measurements: Measurements::default() }
    }

    /// Nothing here waits: the blobs are memory, and what the kernel does not take at once leaves with later polls.
    fn save(&mut self, mut handover: Handover) -> io::Result<()> {
        let mut world = Blob::new()?;
        self.world.write(&mut world)?;
        let mut clock = Blob::new()?;
        serde_json::to_writer(&mut clock, &self.clock)?;
        let measurements = serde_json::to_vec(&self.measurements)?;
        let calls = &mut self.measurements;
        calls.call("blob", || handover.blob("world.v1", world))?;
        calls.call("blob", || handover.blob("clock.v1", clock))?;
        calls.call("bytes", || handover.bytes("measurements.v1", &measurements))?;
        calls.call("send", || handover.send());
        Ok(())
    }

    fn load(mut from: Inheritance) -> io::Result<Game> {
        let mut bytes = |name: &str| from.bytes(name)?.ok_or_else(|| io::Error::other(format!("{name} did not come")));
        Ok(Game {
            world: World::read(&bytes("world.v1")?)?,
            clock: serde_json::from_slice(&bytes("clock.v1")?)?,
            measurements: serde_json::from_slice(&bytes("measurements.v1")?)?,
        })
    }
}

// --- the command line ---

struct Options {
    mode: Mode,
    restarts: u32,
    seconds: Duration,
}

#[derive(PartialEq)]
enum Mode {
    Help,
    IdleCost,
    Direct,
    Play,
}

impl Options {
    fn parse() -> Result<Options, lexopt::Error> {
        let mut options = Options { mode: Mode::Direct, restarts: 10, seconds: Duration::from_secs(20) };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Options { mode: Mode::Help, ..options }),
                Arg::Value(word) if word == "play" => options.mode = Mode::Play,
                Arg::Long("idle-cost") => options.mode = Mode::IdleCost,
                Arg::Long("restarts") => options.restarts = arguments.value()?.parse()?,
                Arg::Long("seconds") => {
                    let seconds: f64 = arguments.value()?.parse()?;
                    if !(0.1..=86400.0).contains(&seconds) {
                        return Err("a time is given in seconds, from 0.1 to 86400".into());
                    }
                    options.seconds = Duration::from_secs_f64(seconds);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}
