//! pollflip measured beside what people would use instead, in one run and on the same work.
//!
//!     cargo run --release --manifest-path benches/Cargo.toml             # everything: some twenty minutes
//!     cargo run --release --manifest-path benches/Cargo.toml -- --quick  # a look: two minutes
//!
//! The order of a measurement: `main` calls its module, which starts services (`service.rs`) in the roles of ours and of each peer in turn
//! (`roles.rs`: this program executes itself), takes medians over interleaved rounds, and returns rows (`report.rs`).
//!
//! A peer that does not build is left out with `--no-default-features --features ecdysis` (or `shellflip`, or neither).

mod bars;
mod chain;
mod client;
#[allow(dead_code, reason = "the example's, of which the server is used")]
#[path = "../../examples/zero_downtime/connection.rs"]
mod connection;
mod connections;
mod cost;
mod crowd;
mod frames;
mod handover;
#[allow(dead_code, reason = "the example's, of which the server is used")]
#[path = "../../examples/zero_downtime/http.rs"]
mod http;
mod idle;
mod latency;
mod listeners;
mod load;
mod memory;
mod pictures;
mod plan;
mod proc;
mod report;
mod roles;
#[allow(dead_code, reason = "the example's, of which the server is used")]
#[path = "../../examples/zero_downtime/server.rs"]
mod server;
mod service;
mod stall;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use crate::plan::Plan;
use crate::report::{Outcome, Report};

const HELP: &str = "\
Measures pollflip beside shellflip and ecdysis.

usage: pollflip-benches [OPTIONS] [MEASUREMENT]...
  --quick          few rounds and small sizes: two minutes, not for quoting
  --json           the rows as JSON instead of the table
  --pictures DIR   write the SVG pictures there (benches/pictures; with --quick none unless asked for)

measurements (all of them unless named):";

/// A measurement: its name and what it does.
type Measurement = (&'static str, &'static str, fn(&Plan) -> Result<Outcome, String>);

const MEASUREMENTS: [Measurement; 11] = [
    ("latency", "from the request to the answer, by the memory of the old process", latency::run),
    ("stall", "the longest stall of another thread of the old process", stall::run),
    ("frames", "the frames of a 60 Hz loop across a restart", frames::run),
    ("handover", "state, from the freeze until the successor holds it", handover::run),
    ("connections", "connections and memory handed over, beside the bare system calls", connections::run),
    ("listeners", "inherited listeners", listeners::run),
    ("crowd", "a thousand clients at once on the coordination socket", crowd::run),
    ("idle", "what it costs while nothing happens", idle::run),
    ("load", "requests that fail while restarts go on", load::run),
    ("chain", "a thousand restarts in a row: what is left behind", chain::run),
    ("cost", "what a user pays to depend on it", cost::run),
];

fn main() -> ExitCode {
    if let Some(code) = roles::play() {
        return code;
    }
    match parse(Parser::from_env()) {
        Err(error) => {
            eprintln!("pollflip-benches: {error} (see --help)");
            ExitCode::from(2)
        }
        Ok(None) => {
            println!("{HELP}");
            for (name, about, _) in MEASUREMENTS {
                println!("  {name:<16} {about}");
            }
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => match measure(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("pollflip-benches: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

struct Options {
    quick: bool,
    json: bool,
    pictures: Option<PathBuf>,
    named: Vec<String>,
}

fn parse(mut arguments: Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options { quick: false, json: false, pictures: None, named: Vec::new() };
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("quick") => options.quick = true,
            Arg::Long("json") => options.json = true,
            Arg::Long("pictures") => options.pictures = Some(arguments.value()?.into()),
            Arg::Value(name) => {
                let name = name.string()?;
                if !MEASUREMENTS.iter().any(|(known, ..)| *known == name) {
                    return Err(format!("there is no measurement {name:?}").into());
                }
                options.named.push(name);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// A measurement that fails says so in the report, and the others go on.
fn measure(options: &Options) -> Result<(), String> {
    let plan = Plan::new(options.quick)?;
    let mut report = Report::new(&plan);
    for (name, about, run) in MEASUREMENTS {
        if !options.named.is_empty() && !options.named.iter().any(|named| named == name) {
            continue;
        }
        eprintln!("{name}: {about} …");
        match run(&plan) {
            Ok(outcome) => report.add(outcome),
            Err(error) => report.note(format!("{name} was not measured: {error}")),
        }
    }
    report.bars = bars::judge(&report);
    let default = (!options.quick).then(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/pictures")));
    if let Some(directory) = options.pictures.clone().or(default) {
        pictures::draw(&report, &directory)?;
    }
    print!("{}", if options.json { report.json() } else { report.table() });
    Ok(())
}
