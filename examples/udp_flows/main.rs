//! UDP flows that outlive restarts: each stays with the process that began it, by a mark in the datagrams.
//!
//!     cargo run --release --example udp_flows -- --restarts 20
//!
//! starts a server (`server.rs`), has 200 clients talk to it (`clients.rs`), and replaces the server
//! again and again. A flow lasts longer than several restarts, so that several generations serve at a
//! time. The last line says what came of it: `lost` counts datagrams that were never answered,
//! `misrouted` those that another process answered than the one that had begun the flow.

#[allow(unreachable_pub, reason = "a part of the library `flows.rs` too")]
mod clients;
#[allow(unreachable_pub, reason = "a part of the library `flows.rs` too")]
mod protocol;
mod server;
mod service;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clients::Clients;
use lexopt::{Arg, Parser, ValueExt};
use service::Service;

const HELP: &str = "\
UDP flows that outlive restarts.

usage: udp_flows [--restarts N] [--clients N]
       udp_flows serve --listen ADDRESS --socket PATH

  --restarts N   how often the server is replaced (20)
  --clients N    how many flows there are at a time (200)";

/// How many flows begin between two restarts, at least.
const FLOWS: u64 = 20;
/// So long a run may wait for one restart, where generations that drain are in the way.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("udp_flows: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let (mut restarts, mut clients) = (20, 200);
    let mut serving = None;
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("restarts") => restarts = parser.value()?.parse()?,
            Arg::Long("clients") => clients = parser.value()?.parse()?,
            Arg::Value(word) if word == "serve" => serving = Some(server::Options::parse(&mut parser)?),
            Arg::Long("help") => {
                println!("{HELP}");
                return Ok(true);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match serving {
        Some(options) => server::serve(&options).map(|()| true).map_err(Into::into),
        None => measure(restarts, clients),
    }
}

fn measure(restarts: usize, clients: usize) -> Result<bool, Box<dyn std::error::Error>> {
    let mut service = Service::start(&[])?;
    let load = Clients::start(service.address, clients)?;
    let mut generations = 1;
    for _ in 0..restarts {
        load.wait_for_flows(FLOWS)?;
        let begun = Instant::now();
        // While each socket of the group has a generation that reads it, a restart is refused.
        while let Some(why) = service.restart()? {
            if begun.elapsed() > PATIENCE {
                return Err(why.into());
            }
            load.wait_for_flows(1)?;
        }
        generations = generations.max(service.alive()?);
    }
    load.wait_for_flows(FLOWS)?;
    let tally = load.stop();
    service.stop()?;
    println!(
        "restarts={restarts} generations={generations} datagrams={} lost={} misrouted={}",
        tally.answered, tally.lost, tally.misrouted
    );
    if tally.begun_anew > 0 {
        println!("{} flows were told to begin anew", tally.begun_anew);
    }
    Ok(tally.lost + tally.misrouted + tally.begun_anew == 0)
}
