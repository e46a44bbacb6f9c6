//! Kills a server with SIGKILL again and again while a thousand clients talk to it, restarts it in
//! between, and counts what they lose.
//!
//!     cargo run --release --example kill_me
//!     cargo run --release --example kill_me -- --kills 200 --poison 20
//!
//! `server.rs` is the part to learn from. Each byte that it sends depends on all that it has got
//! from that client before (`chain.rs`). A guard holds the listener, the connections and the ledger
//! while the server is dead, or systemd does: `examples/systemd/kill_me.service` says how to try
//! that. The rest puts it to the test: see `bench.rs`.

mod bench;
mod chain;
mod server;

use lexopt::{Arg, Parser, ValueExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pollflip::guard::{Guard, Policy};
use std::error::Error;
use std::io::{self, Write};
use std::process::{self, ExitCode, Termination};
use std::thread;
use std::time::Duration;

const HELP: &str = "\
Kills a server again and again, and counts what its clients lose.

usage: kill_me [OPTIONS]
  --kills N         how often the server is killed (50)
  --restarts N      how often it is restarted in between (10)
  --during N        how often one of the two processes of a restart is killed (0)
  --poison N        how many clients besides send what the server dies of (0)
  --connections N   clients that stay connected throughout (1000)
  --unit NAME       the server is one that systemd runs: kills the main process of
                    this unit (examples/systemd/kill_me.service)
  --seed N          of the messages and the moments; another one each time
  --verbose         tells of each kill on standard error
  --wrong           the server reads, and records then: the run must see it and fail

usage: kill_me serve --socket PATH [--connections N] [--listen ADDRESS] [--wrong]
               [--guard] [--busy SECONDS]
  the server alone, or below a guard; busy for so long once it has the service

A pause is how long a client waits for an answer that a kill has held up, from
the kill on, or from when it has sent. The first answer is that of whichever
client is answered first after a kill. The recovery is the server's part of it:
from its first instruction until it serves. The exit status is 0 if nobody was
refused, cut off or told a wrong byte, 1 otherwise, 2 for wrong usage.";

enum Command {
    Help,
    Run(bench::Options),
    Serve { options: server::Options, below_guard: bool, busy: Duration },
}

fn parse(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let seed = u64::from(process::id()) << 32 | 0x9e37;
    let mut options = bench::Options {
        kills: 50,
        restarts: 10,
        poison: 0,
        during: 0,
        connections: 1_000,
        unit: None,
        seed,
        verbose: false,
        is_wrong: false,
    };
    let (mut serve, mut below_guard, mut busy) = (false, false, Duration::ZERO);
    let (mut listen, mut socket) = ("127.0.0.1:0".to_owned(), None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(word) if word == "serve" && !serve => serve = true,
            Arg::Long("kills") => options.kills = arguments.value()?.parse()?,
            Arg::Long("restarts") => options.restarts = arguments.value()?.parse()?,
            Arg::Long("during") => options.during = arguments.value()?.parse()?,
            Arg::Long("poison") => options.poison = arguments.value()?.parse()?,
            Arg::Long("connections") => options.connections = arguments.value()?.parse()?,
            Arg::Long("unit") => options.unit = Some(arguments.value()?.string()?),
            Arg::Long("guard") if serve => below_guard = true,
            Arg::Long("busy") if serve => {
                let seconds = arguments.value()?.parse()?;
                busy = Duration::try_from_secs_f64(seconds).map_err(|error| format!("--busy {seconds}: {error}"))?;
            }
            Arg::Long("seed") => options.seed = arguments.value()?.parse()?,
            Arg::Long("wrong") => options.is_wrong = true,
            Arg::Long("verbose") => options.verbose = true,
            Arg::Long("listen") => listen = arguments.value()?.string()?,
            Arg::Long("socket") => socket = Some(arguments.value()?.into()),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    if !serve {
        if options.unit.is_some() && options.is_wrong {
            return Err("--wrong is for a server that this program starts: with --unit it belongs into the unit".into());
        }
        return Ok(Command::Run(options));
    }
    let socket = socket.ok_or("--socket is missing")?;
    let options = server::Options { listen, socket, connections: options.connections, is_wrong: options.is_wrong };
    Ok(Command::Serve { options, below_guard, busy })
}

fn main() -> ExitCode {
    let result = match parse(Parser::from_env()) {
        Err(error) => {
            eprintln!("kill_me: {error} (see --help)");
            return ExitCode::from(2);
        }
        Ok(Command::Help) => {
            let _ = writeln!(io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(options)) => enough_descriptors(options.connections).and_then(|()| bench::run(&options)),
        Ok(Command::Serve { options, below_guard, busy }) => match prepare(&options, below_guard) {
            Ok(Some(code)) => return code,
            Ok(None) => server::serve(&options, || thread::sleep(busy)).map(|()| true),
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kill_me: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: this process is the server.
fn prepare(options: &server::Options, below_guard: bool) -> Result<Option<ExitCode>, Box<dyn Error>> {
    enough_descriptors(options.connections)?;
    // Those who die of poison leave no core files behind.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if !below_guard {
        return Ok(None);
    }
    // It is killed on purpose: that is no reason to give it up.
    let guard = Guard::new().policy(Policy::Always).strikes(u32::MAX, Duration::from_secs(1)).delay(Duration::ZERO);
    Ok(guard.enter()?.map(Termination::report))
}

/// A few besides one for each connection. What is kept is on its way in a queue, and a user without
/// privileges may have only so many descriptors on their way: four times as many are enough.
fn enough_descriptors(connections: usize) -> Result<(), Box<dyn Error>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = connections as u64 + 2_000;
    if hard < needed {
        let why = format!("{connections} connections need {needed} descriptors, and this process may have {hard}: raise `ulimit -Hn`");
        return Err(why.into());
    }
    let wanted = hard.min(4 * connections as u64 + 2_000);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
