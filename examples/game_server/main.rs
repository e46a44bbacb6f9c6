//! Restarts a game server again and again while thousands of players stay connected, and counts what gets lost.
//!
//!     cargo run --release --example game_server -- --players 10000 --restarts 5
//!
//! `server.rs` is the part to learn from, and `world.rs`: how all connections and the state that belongs to them go from one process to
//! the next, `player.rs` and `states.rs` below them, in the words of `protocol.rs`. The rest puts it to the test: `run.rs` directs,
//! `service.rs` runs the servers as processes of their own, `crowd.rs`, `client.rs` and `visitors.rs` are the players, who connect by
//! `loopback.rs`, and `clock.rs`, `seen.rs` and `report.rs` tell how long what took.

mod client;
mod clock;
mod copying;
mod crowd;
mod loopback;
mod player;
mod protocol;
mod report;
mod run;
mod seats;
mod seen;
mod server;
mod service;
mod states;
mod visitors;
mod world;

use lexopt::{Arg, Parser, ValueExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

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
  --wrong WAY       at the end a restart by a successor that touches connections
                    before it may: read, write; the run must see it and fail

usage: game_server serve [OPTIONS]
  --listen ADDRESS  players connect here (127.0.0.1:7777); port 0 is any
  --socket PATH     coordination socket (game_server.sock)
  --state WAY       written or shared (written)
  --precopy WAY     yes or no (yes)
  --fail PATH       a successor that finds this file does as it says: exit, refuse,
                    read, write

The pause of a restart is the longest that a player has waited for an answer, or
that nobody was told anything, of those times that touch the freeze; server_ms is
from the freeze to the grant. A try that fails lasts until its successor has ended.
The exit status is 0 if nothing was lost, 1 if something was, 2 for wrong usage.
RUST_LOG=info shows what the servers log.";

/// What a process needs besides one descriptor for each player: its own few, and some hundred while it hands over.
const BESIDES: u64 = 600;

enum Command {
    Help,
    Run(run::Options),
    Serve(server::Options),
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
        Ok(Command::Run(options)) => check_limit(&options).and_then(|()| run::run(&options)),
        Ok(Command::Serve(options)) => {
            env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
            raise_limit().and_then(|_| server::serve(&options).map(|()| true).map_err(|error| error.to_string()))
        }
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

/// Nothing is started if there are too few descriptors. This process needs one for its end of each
/// connection, each server one for the other end; all have the limit of this one.
fn check_limit(options: &run::Options) -> Result<(), String> {
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
    if env::args_os().nth(1).is_some_and(|word| word == "serve") {
        return parse_serve(arguments);
    }
    parse_run(arguments)
}

fn parse_run(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options = run::Options { players: 10_000, restarts: 5, visitors: 0, wrong: None, shared: false, precopy: true };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("players") => options.players = arguments.value()?.parse()?,
            Arg::Long("restarts") => options.restarts = arguments.value()?.parse()?,
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
    Ok(Command::Run(options))
}

fn parse_serve(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options = server::Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7777)),
        socket: PathBuf::from("game_server.sock"),
        shared: false,
        precopy: true,
        fail: None,
    };
    arguments.next()?; // the word "serve"
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("listen") => options.listen = arguments.value()?.parse()?,
            Arg::Long("socket") => options.socket = arguments.value()?.into(),
            Arg::Long("state") => options.shared = is_shared(arguments.value()?.string()?)?,
            Arg::Long("precopy") => options.precopy = is_yes(arguments.value()?.string()?)?,
            Arg::Long("fail") => options.fail = Some(arguments.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Serve(options))
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
