//! Flows that outlive a restart where the protocol has no room for a mark: the new process reads the
//! socket, and gives what is not its own to the old one over a pair of sockets that both have.
//!
//!     cargo run --release --example udp_relay
//!
//! starts a server, begins flows, replaces the server, and goes on with the old flow and new ones. Then
//! it floods the old flow, by turns while the old process runs and while it is stopped: what is for a
//! stopped process is dropped when the pair is full, and counted, and the new process goes on. The line
//! at the end tells how long the new process's longest turns were in both cases, by the clock and by
//! its processor time: the difference between these is what a busy machine gave to others.
//!
//! `server.rs` and `relay.rs` are what to copy; `bench.rs` is the clients.
//!
//! It is for two generations at a time, and new flows wait if the new process is stopped: where the
//! protocol has four free bits, `udp_flows` is better.

mod bench;
mod protocol;
mod relay;
mod server;
#[allow(dead_code, reason = "of which only a part is used")]
#[path = "../udp_flows/bench/service.rs"]
mod service;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut listen, mut socket, mut serves) = (SocketAddr::from(([127, 0, 0, 1], 0)), String::new(), false);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(word) if word == "serve" => serves = true,
            Arg::Long("listen") => listen = parser.value()?.parse()?,
            Arg::Long("socket") => socket = parser.value()?.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if serves { Ok(server::serve(listen, &socket)?) } else { bench::run() }
}
