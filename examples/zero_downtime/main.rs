//! Restarts a server again and again while clients talk to it, and counts what gets lost.
//!
//!     cargo run --release --example zero_downtime
//!
//! `server.rs` is the part to learn from: an HTTP server that restarts without losing a request, with
//! `connection.rs` and `http.rs` below it. The rest puts it to the test: see `bench.rs`.

mod bench;
mod connection;
mod http;
mod server;

use lexopt::{Arg, Parser, ValueExt};
use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Restarts a server under load and counts what gets lost.

usage: zero_downtime [OPTIONS]
  --restarts N         how many restarts, by socket and by signal in turn (20)
  --connections N      clients at a time, half keep-alive, half one-shot (16)
  --seconds SECONDS    spread the restarts over this time (5)
  --probation SECONDS  given to the server, see below
  --bad-release        deploy, in the middle, a release that crashes 200 ms after
                       it was granted the service (4 restarts, a probation of 1)

usage: zero_downtime serve [OPTIONS]
  --listen ADDRESS     serve HTTP here (127.0.0.1:8080); port 0 is any
  --socket PATH        coordination socket (none: restart with SIGUSR1)
  --drain SECONDS      after a restart, keep idle connections this long (5)
  --probation SECONDS  serve again if the successor dies within this time (0)
  --crash-after SECONDS  be a bad release: abort so long after it was granted

usage: zero_downtime load --to ADDRESS [OPTIONS]
  --to ADDRESS         the same load on a `serve` elsewhere, under systemd, say
  --connections N      clients at a time (16)
  --seconds SECONDS    for so long (5)

The exit status is 0 if nothing failed, 1 if something did, 2 for wrong usage.
RUST_LOG=debug shows what the servers log.";

enum Command {
    Help,
    Run(bench::Options),
    Load(bench::LoadOptions),
    /// One that crashes so long after it has the service.
    Serve(server::Options, Option<Duration>),
}

fn main() -> ExitCode {
    let result = match parse_arguments(Parser::from_env()) {
        Err(error) => {
            eprintln!("zero_downtime: {error} (see --help)");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => {
            let _ = writeln!(io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(options)) => bench::run(&options),
        Ok(Command::Load(options)) => bench::load(&options),
        Ok(Command::Serve(options, lifetime)) => {
            env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
            server::serve(options, || lifetime.into_iter().for_each(bench::crash_after)).map(|()| true).map_err(|error| error.to_string())
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zero_downtime: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_arguments(arguments: Parser) -> Result<Command, lexopt::Error> {
    match env::args_os().nth(1) {
        Some(word) if word == "serve" => parse_serve(arguments),
        Some(word) if word == "load" => parse_load(arguments),
        _ => parse_run(arguments),
    }
}

fn parse_run(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options = bench::Options { restarts: 20, connections: 16, time: Duration::from_secs(5), probation: None, bad_release: false };
    let mut restarts = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("restarts") => restarts = Some(arguments.value()?.parse()?),
            Arg::Long("connections") => options.connections = arguments.value()?.parse()?,
            Arg::Long("seconds") => options.time = seconds(arguments.value()?)?,
            Arg::Long("probation") => options.probation = Some(seconds(arguments.value()?)?),
            Arg::Long("bad-release") => options.bad_release = true,
            other => return Err(other.unexpected()),
        }
    }
    if options.bad_release {
        options.restarts = 4; // each lasts as long as its probation
        if *options.probation.get_or_insert(Duration::from_secs(1)) <= bench::CRASH_AFTER {
            return Err("a bad release is taken back only if the probation is longer than the 0.2 s that it lives".into());
        }
    }
    options.restarts = restarts.unwrap_or(options.restarts);
    if options.connections == 0 {
        return Err("at least one connection is needed".into());
    }
    Ok(Command::Run(options))
}

fn parse_load(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let (mut to, mut connections, mut time) = (None, 16, Duration::from_secs(5));
    arguments.next()?; // the word "load"
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("to") => to = Some(arguments.value()?.parse()?),
            Arg::Long("connections") => connections = arguments.value()?.parse()?,
            Arg::Long("seconds") => time = seconds(arguments.value()?)?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Load(bench::LoadOptions { to: to.ok_or("--to is needed")?, connections, time }))
}

fn parse_serve(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut options = server::Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        socket: None,
        drain: Duration::from_secs(5),
        probation: None,
    };
    let mut lifetime = None;
    arguments.next()?; // the word "serve"
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("listen") => options.listen = arguments.value()?.parse()?,
            Arg::Long("socket") => options.socket = Some(arguments.value()?.into()),
            Arg::Long("drain") => options.drain = seconds(arguments.value()?)?,
            Arg::Long("probation") => options.probation = Some(seconds(arguments.value()?)?),
            Arg::Long("crash-after") => lifetime = Some(seconds(arguments.value()?)?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Serve(options, lifetime))
}

fn seconds(value: OsString) -> Result<Duration, lexopt::Error> {
    let seconds: f64 = value.parse()?;
    if !(0.0..=86400.0).contains(&seconds) {
        return Err("a time is given in seconds, from 0 to 86400".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}
