//! pollflip measured beside what people would use instead, in one run and on the same work.
//!
//!     cargo run --release --manifest-path benches/Cargo.toml             # everything: less than 20 minutes
//!     cargo run --release --manifest-path benches/Cargo.toml -- --quick  # a look: two minutes
//!
//! The order of a measurement: `main` calls its module, which starts services (`service.rs`) in the roles of ours and of each peer in turn
//! (`roles.rs`: this program executes itself), takes medians over interleaved rounds, and returns rows (`report.rs`).
//!
//! A peer that does not build is left out with `--no-default-features --features ecdysis` (or `shellflip`, or neither).

mod bars;
mod chain;
mod client;
mod connections;
mod cost;
mod crowd;
mod example;
mod frames;
mod guard;
mod handover;
mod idle;
mod latency;
mod listeners;
mod load;
mod memory;
mod pause;
mod pictures;
mod plan;
mod proc;
mod report;
mod roles;
mod service;
mod stall;
mod stats;
mod udp;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::plan::Plan;
use crate::report::{Form, Report};

const HELP: &str = "\
Measures pollflip beside shellflip and ecdysis.

usage: pollflip-benches [OPTIONS] [MEASUREMENT]...
  --quick          few rounds and small sizes: two minutes, not for quoting
  --json           the rows as JSON instead of the table
  --pictures DIR   write the SVG pictures there (benches/pictures; with --quick none unless asked for)

measurements (all of them unless named):";

struct Measurement {
    name: &'static str,
    about: &'static str,
    /// Seconds that it takes on two cores, with `--quick` and without: told beforehand.
    takes: (u64, u64),
    run: fn(&Plan, &mut Report) -> Result<(), String>,
}

const MEASUREMENTS: [Measurement; 14] = [
    Measurement {
        name: "latency",
        about: "from the request to the answer, by the memory of the old process",
        takes: (10, 110),
        run: latency::run,
    },
    Measurement { name: "stall", about: "the longest stall of another thread of the old process", takes: (10, 110), run: stall::run },
    Measurement { name: "frames", about: "the frames of a 60 Hz loop across a restart", takes: (10, 60), run: frames::run },
    Measurement { name: "handover", about: "state, from the freeze until the successor holds it", takes: (3, 90), run: handover::run },
    Measurement {
        name: "connections",
        about: "connections and memory handed over, beside the bare system calls",
        takes: (3, 60),
        run: connections::run,
    },
    Measurement {
        name: "pause",
        about: "how long a server with many connections stands still, with and without pre-copy",
        takes: (20, 220),
        run: pause::run,
    },
    Measurement { name: "listeners", about: "inherited listeners", takes: (5, 50), run: listeners::run },
    Measurement { name: "guard", about: "a restart under a guard", takes: (1, 2), run: guard::run },
    Measurement { name: "udp", about: "UDP groups: a datagram, a grant, the kernel's memory; and a relay", takes: (5, 40), run: udp::run },
    Measurement { name: "crowd", about: "a thousand clients at once on the coordination socket", takes: (10, 10), run: crowd::run },
    Measurement { name: "idle", about: "what it costs while nothing happens", takes: (5, 20), run: idle::run },
    Measurement { name: "load", about: "requests that fail while restarts go on", takes: (10, 60), run: load::run },
    Measurement { name: "chain", about: "a thousand restarts in a row: what is left behind", takes: (20, 110), run: chain::run },
    Measurement { name: "cost", about: "what a user pays to depend on it", takes: (5, 180), run: cost::run },
];

impl Measurement {
    fn takes(&self, plan: &Plan) -> Duration {
        Duration::from_secs(plan.choose(self.takes.0, self.takes.1))
    }
}

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
            for Measurement { name, about, .. } in MEASUREMENTS {
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
                if !MEASUREMENTS.iter().any(|known| known.name == name) {
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
    let wanted = |known: &&Measurement| options.named.is_empty() || options.named.iter().any(|name| name == known.name);
    let measurements: Vec<_> = MEASUREMENTS.iter().filter(wanted).collect();
    let whole: Duration = measurements.iter().map(|one| one.takes(&plan)).sum();
    eprintln!("{} of {} measurements: {} on two cores with nothing else to do", measurements.len(), MEASUREMENTS.len(), about(whole));
    let mut report = Report::new(&plan, if options.json { Form::Json } else { Form::Table });
    for one in measurements {
        eprintln!("{}: {} ({})", one.name, one.about, about(one.takes(&plan)));
        if let Err(error) = (one.run)(&plan, &mut report) {
            report.note(format!("{} was not measured to its end: {error}", one.name));
        }
    }
    report.finish(&bars::judge(&report));
    let default = (!options.quick).then(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/pictures")));
    if let Some(directory) = options.pictures.clone().or(default) {
        pictures::draw(&report, &directory)?;
    }
    Ok(())
}

/// A time for people who wait.
fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 90 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_beforehand_is_two_minutes_and_less_than_twenty() {
        let whole = |takes: fn(&Measurement) -> u64| MEASUREMENTS.iter().map(takes).sum::<u64>();
        assert!(whole(|one| one.takes.0) <= 120);
        assert!(whole(|one| one.takes.1) < 19 * 60);
    }
}
