//! UDP flows that outlive restarts: each stays with the process that began it, by a mark in the datagrams.
//!
//!     cargo run --release --example udp_flows -- --restarts 20
//!
//! starts a server (`server.rs`), has 200 clients talk to it (`bench.rs`), and replaces the server
//! again and again. A flow lasts longer than several restarts, so that several generations serve at a
//! time. The last line says what came of it: `lost` counts datagrams that were never answered,
//! `misrouted` those that another process answered than the one that had begun the flow.

mod bench;
#[allow(unreachable_pub, reason = "a part of the library `flows.rs` too")]
mod protocol;
mod server;

use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

const HELP: &str = "\
UDP flows that outlive restarts.

usage: udp_flows [--restarts N] [--clients N]
       udp_flows serve --listen ADDRESS --socket PATH [--keep]

  --restarts N   how often the server is replaced (20)
  --clients N    how many flows there are at a time (200)
  --keep         come back from a kill, under a guard with --restart or a systemd";

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
        None => bench::run(restarts, clients),
    }
}
