//! Restarts a game server again and again while thousands of players stay connected, and counts what gets lost.
//!
//!     cargo run --release --example game_server -- --players 10000 --restarts 5
//!     cargo run --release --example game_server -- --players 1000 --keep --kills 20
//!
//! `server.rs` is the part to learn from, and `world.rs`: how all connections and the state that belongs to them go from one process to
//! the next, with `copying.rs`, `buffered.rs` and `states.rs` below them. `keeping.rs` and `kept.rs` have the players outlive a kill.
//! `rules.rs` is the game, in the words of `protocol.rs`. The rest puts it to the test: see `bench.rs`.

mod bench;
mod buffered;
mod clock;
mod copying;
mod keeping;
mod kept;
mod player;
mod protocol;
mod rules;
mod seats;
mod server;
mod states;
mod world;

use lexopt::{Arg, Parser, ValueExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pollflip::guard::{Guard, Policy};
use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitCode, Termination};
use std::time::Duration;

const HELP: &str = "\
Restarts a game server and counts what its players lose.

usage: game_server [OPTIONS]
  --players N       connections that stay (10000)
  --restarts N      how many restarts; before every second one, a try fails (5)
  --visitors N      players who come, stay for 250 ms and go, a second (0)
  --state WAY       how the states of the players go over (written):
                    written: written down; shared: the memory file they are kept in
  --precopy WAY     connections go ahead, while the server serves them (yes), or all
                    at the freeze (no)
  --keep            the server keeps its players: they outlive a kill
  --kills N         how often it is killed in between, with --keep (0); a visitor
                    whom it has not yet kept at that moment is disconnected
  --wrong WAY       at the end a restart by a successor that touches connections
                    before it may: read, write; the run must see it and fail

usage: game_server serve [OPTIONS]
  --listen ADDRESS  players connect here (127.0.0.1:7777); port 0 is any
  --socket PATH     coordination socket (game_server.sock)
  --state WAY       written or shared (written)
  --precopy WAY     yes or no (yes)
  --keep            keeps its players, in the place of --state; systemd holds them,
                    or a guard
  --seats N         for so many of them (10000)
  --guard           below a guard of its own
  --fail PATH       a successor that finds this file does as it says: exit, refuse,
                    read, write

usage: game_server play --at ADDRESS [--players N]
  players at a `serve` elsewhere; a line `BEGIN END` of their input (nanoseconds of
  CLOCK_MONOTONIC) asks how long somebody has waited then

The pause of a restart is the longest that a player has waited for an answer, or
that nobody was told anything, of those times that touch the freeze; server_ms is
from the freeze to the grant. A kill takes the place of the freeze. A try that fails lasts until its successor has ended.
The exit status is 0 if nothing was lost, 1 if something was, 2 for wrong usage.
RUST_LOG=info shows what the servers log.";

/// What a process needs besides one descriptor for each player: its own few, and some hundred while it hands over.
const BESIDES: u64 = 600;

enum Command {
    Help,
    Run(bench::Options),
    Serve(Serve),
    Play { address: SocketAddr, players: usize },
}

struct Serve {
    options: server::Options,
    /// If this file is there, a successor that has received everything does what it says.
    fail: Option<PathBuf>,
    below_guard: bool,
}

fn main() -> ExitCode {
    let result = match parse_arguments(Parser::from_env()) {
        Err(error) => {
            eprintln!("game_server: {error} (see --help)");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => {
            let _ = writeln!(io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(options)) => check_limit(&options).and_then(|()| bench::run(&options)),
        Ok(Command::Play { address, players }) => raise_limit().and_then(|_| bench::play(address, players)).map(|()| true),
        Ok(Command::Serve(serve)) => match enter_guard(&serve) {
            Ok(Some(code)) => return code,
            Ok(None) => run_server(&serve).map(|()| true),
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("game_server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: this process is the server.
fn enter_guard(serve: &Serve) -> Result<Option<ExitCode>, String> {
    if !serve.below_guard {
        return Ok(None);
    }
    // It is killed on purpose: that is no reason to give it up.
    let guard = Guard::new().policy(Policy::Always).strikes(u32::MAX, Duration::from_secs(1)).delay(Duration::ZERO);
    Ok(guard.enter().map_err(|error| error.to_string())?.map(Termination::report))
}

fn run_server(serve: &Serve) -> Result<(), String> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    raise_limit()?;
    let before_ready = |restarter: &_, world: &_| serve.fail.as_ref().map_or(Ok(()), |file| bench::fail_if_told(file, restarter, world));
    server::serve(&serve.options, before_ready).map_err(|error| error.to_string())
}

/// Nothing is started if there are too few descriptors. This process needs one for its end of each
/// connection, each server one for the other end; all have the limit of this one.
fn check_limit(options: &bench::Options) -> Result<(), String> {
    let limit = raise_limit()?;
    let players = options.players as u64 + u64::from(options.visitors);
    let needed = players + BESIDES;
    if limit < needed {
        return Err(format!(
            "{players} players need {needed} descriptors in this process, which plays them, and {needed} in each server; the hard limit \
             is {limit}: raise it (as root `ulimit -n {needed}`, for a service `LimitNOFILE={needed}`), or take fewer --players",
        ));
    }
    // What goes ahead waits for room with its connection; at the freeze all goes, and what waits then is held twice.
    if !options.precopy && limit < 2 * players {
        eprintln!("game_server: with a limit of {limit} descriptors a restart fails if the successor is slow to take the players");
    }
    Ok(())
}

/// Takes as many descriptors as this process may have.
fn raise_limit() -> Result<u64, String> {
    let raise = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard)
    };
    raise().map_err(|error| format!("cannot raise the limit of descriptors: {error}"))
}

fn parse_arguments(arguments: Parser) -> Result<Command, lexopt::Error> {
    match env::args_os().nth(1) {
        Some(word) if word == "serve" => parse_serve(arguments),
        Some(word) if word == "play" => parse_play(arguments),
        _ => parse_run(arguments),
    }
}

fn parse_run(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options =
        bench::Options { players: 10_000, restarts: 5, kills: 0, visitors: 0, wrong: None, shared: false, precopy: true, keep: false };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("players") => options.players = arguments.value()?.parse()?,
            Arg::Long("restarts") => options.restarts = arguments.value()?.parse()?,
            Arg::Long("keep") => options.keep = true,
            Arg::Long("kills") => options.kills = arguments.value()?.parse()?,
            Arg::Long("wrong") => options.wrong = Some(arguments.value()?.string()?),
            Arg::Long("visitors") => options.visitors = arguments.value()?.parse()?,
            Arg::Long("state") => options.shared = is_shared(arguments.value()?.string()?)?,
            Arg::Long("precopy") => options.precopy = is_yes(arguments.value()?.string()?)?,
            other => return Err(other.unexpected()),
        }
    }
    if options.players == 0 {
        return Err("at least one player is needed".into());
    }
    if options.kills > 0 && !options.keep {
        return Err("a kill loses all players of a server that does not keep them: add --keep".into());
    }
    check_state(options.keep, options.shared)?;
    Ok(Command::Run(options))
}

fn check_state(keep: bool, shared: bool) -> Result<(), lexopt::Error> {
    match keep && shared {
        true => Err("with --keep the states are in a ledger: leave --state out".into()),
        false => Ok(()),
    }
}

fn parse_play(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let (mut address, mut players) = (None, 10_000);
    arguments.next()?; // the word "play"
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("at") => address = Some(arguments.value()?.parse()?),
            Arg::Long("players") => players = arguments.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Play { address: address.ok_or("--at is needed")?, players })
}

fn parse_serve(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options = server::Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7777)),
        socket: PathBuf::from("game_server.sock"),
        shared: false,
        precopy: true,
        keep: None,
    };
    let (mut fail, mut below_guard, mut keep, mut seats) = (None, false, false, 10_000);
    arguments.next()?; // the word "serve"
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("listen") => options.listen = arguments.value()?.parse()?,
            Arg::Long("socket") => options.socket = arguments.value()?.into(),
            Arg::Long("state") => options.shared = is_shared(arguments.value()?.string()?)?,
            Arg::Long("precopy") => options.precopy = is_yes(arguments.value()?.string()?)?,
            Arg::Long("keep") => keep = true,
            Arg::Long("seats") => seats = arguments.value()?.parse()?,
            Arg::Long("guard") => below_guard = true,
            Arg::Long("fail") => fail = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    check_state(keep, options.shared)?;
    options.keep = keep.then_some(seats);
    Ok(Command::Serve(Serve { options, fail, below_guard }))
}

fn is_shared(way: String) -> Result<bool, lexopt::Error> {
    match way.as_str() {
        "written" => Ok(false),
        "shared" => Ok(true),
        _ => Err(format!("the state is written or shared, not {way:?}").into()),
    }
}

fn is_yes(way: String) -> Result<bool, lexopt::Error> {
    match way.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("connections go ahead, yes or no, not {way:?}").into()),
    }
}
