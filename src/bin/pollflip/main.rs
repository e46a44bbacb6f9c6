//! For operators: a guard for a service, and questions to a service over its coordination socket.

mod arguments;
mod stderr;

use std::io::{self, Write};
use std::process::{ExitCode, Termination};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pollflip::restart_coordination_socket::{Status, request_restart, request_status};
use pollflip::{Error, RequestError};

use arguments::Command;

const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Wrong usage (EX_USAGE): not to be taken for an outcome.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => say(arguments::HELP),
        Ok(Command::Version) => say(concat!("pollflip ", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Guard(guard)) => {
            stderr::log_to_stderr();
            match guard.enter() {
                Ok(Some(ended)) => ended.report(),
                Ok(None) => ExitCode::SUCCESS,
                Err(error) => {
                    stderr::line(format_args!("pollflip guard: {error}"));
                    not_started(&error)
                }
            }
        }
        Ok(Command::Restart { socket, wait }) => {
            outcome(request_restart(socket, wait, |line| stderr::line(format_args!("{line}"))).map(|pid| pid.to_string()))
        }
        Ok(Command::Status { socket, json }) => {
            outcome(request_status(socket, STATUS_LIMIT).map(|status| if json { status.to_json() } else { describe(&status) }))
        }
        Err(why) => {
            stderr::line(format_args!("pollflip: {why}; `pollflip --help` tells more"));
            ExitCode::from(USAGE)
        }
    }
}

/// As shells and `env` have it: 127 for a program that is not there, 126 for one that cannot be
/// started. 125 is the guard's own.
fn not_started(error: &Error) -> ExitCode {
    let is_start = error.to_string().starts_with("cannot start ");
    ExitCode::from(match error {
        Error::Os { error, .. } if is_start && error.kind() == io::ErrorKind::NotFound => 127,
        _ if is_start => 126,
        _ => 125,
    })
}

/// The statuses of the guide.
fn outcome(answer: Result<String, RequestError>) -> ExitCode {
    match answer {
        Ok(text) => say(&text),
        Err(error) => {
            stderr::line(format_args!("pollflip: {error}"));
            ExitCode::from(error.exit_status())
        }
    }
}

/// What was done was done, whether anybody reads it or not.
fn say(text: &str) -> ExitCode {
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn describe(status: &Status) -> String {
    let mut text = format!("process {}, generation {}: {}", status.pid, status.generation, status.state);
    if let Some(version) = &status.version {
        text += &format!("\nversion: {version}");
    }
    if !status.program.is_empty() {
        text += &format!("\nprogram: {}", status.program);
    }
    if let Some(pid) = status.successor {
        text += &format!("\nsuccessor: process {pid}");
    }
    for pid in &status.draining {
        text += &format!("\nfinishes its work: process {pid}");
    }
    if let Some(why) = &status.impossible {
        text += &format!("\nno restart is possible: {why}");
    }
    if let Some(line) = &status.progress {
        text += &format!("\nit says: {line}");
    }
    for note in &status.notes {
        text += &format!("\nnote: {note}");
    }
    for outcome in &status.outcomes {
        let how = if outcome.ok { "restarted" } else { "failed" };
        text += &format!("\n{how} {} ago, after {} ms: {}", age(outcome.at), outcome.took_ms, outcome.text);
    }
    text
}

/// How long ago that second was, in the largest unit of which there is one.
fn age(at: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match now.saturating_sub(at) {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ ..3_600 => format!("{} min", seconds / 60),
        seconds @ ..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
