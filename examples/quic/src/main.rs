//! QUIC connections that outlive restarts: each stays with the process that began it, by a mark in its connection IDs.
//!
//!     cargo run --release --manifest-path examples/quic/Cargo.toml
//!
//! starts a server on quinn-proto (`server.rs`), visits it all the time, replaces it three times, and says what came of it. `failed` counts
//! files that did not come whole, byte for byte; `misrouted` answers by another process than the one that had begun the connection.
//!
//!     cargo run --release --manifest-path examples/quic/Cargo.toml -- --restarts 50 --held 200 --pause 300
//!
//! takes longer. The crate is its own workspace: quinn-proto, rustls and ring are built for nobody else.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use lexopt::{Arg, Parser, ValueExt};
use pollflip_quic::server;
use pollflip_quic::visits::{Plan, run};

const HELP: &str = "\
QUIC connections that outlive restarts.

usage: pollflip-quic [--restarts N] [--held N] [--pause MS] [--seed N] [--retry]
       pollflip-quic serve --listen ADDRESS --socket PATH --identity DIRECTORY [--retry]
                           [--drain SECONDS] [--idle SECONDS] [--probation SECONDS]

  --restarts N   how often the server is replaced (3)
  --held N       how many downloads are held over restarts at a time (40)
  --pause MS     the longest pause before a restart; how much of it is left to chance (100)
  --seed N       for chance; it is printed
  --retry        the server always sends a Retry first, and not only after a restart";

fn main() -> ExitCode {
    match begin() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pollflip-quic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> Result<bool, Box<dyn Error>> {
    let seed = SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos().into();
    let mut plan = Plan { restarts: 3, held: 40, pause: Duration::from_millis(100), seed, server: Vec::new() };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("restarts") => plan.restarts = parser.value()?.parse()?,
            Arg::Long("held") => plan.held = parser.value()?.parse()?,
            Arg::Long("pause") => plan.pause = Duration::from_millis(parser.value()?.parse()?),
            Arg::Long("seed") => plan.seed = parser.value()?.parse()?,
            Arg::Long("retry") => plan.server.push("--retry".into()),
            Arg::Value(word) if word == "serve" => return server::serve(&server::Options::parse(&mut parser)?).map(|()| true),
            Arg::Long("help") => {
                println!("{HELP}");
                return Ok(true);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    println!("seed={}", plan.seed);
    let tally = run(&std::env::current_exe()?, &plan)?;
    println!(
        "restarts={} downloads={} whole={} over_three_restarts={} new={} new_by_new_generation={} moved={} failed={} misrouted={}",
        plan.restarts,
        tally.downloads,
        tally.whole,
        tally.over_three,
        tally.new,
        tally.new_by_new,
        tally.moved,
        tally.downloads - tally.whole,
        tally.misrouted
    );
    let counted = tally.counted;
    println!(
        "datagrams: own={} first={} unknown={} astray={} orphaned={}, generations at once: {}",
        counted.own, counted.first, counted.unknown, counted.astray, counted.orphaned, tally.at_once
    );
    Ok(tally.is_good())
}
