//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use pollflip::guard::{Guard, Policy};

pub(crate) const HELP: &str = "\
For services that restart themselves without dropping a connection.

usage: pollflip guard [--restart no|on-failure|always] [--strikes N/SECONDS] [--delay MS]
                      [--ready SECONDS] [--store N] [--] PROGRAM ARGUMENT…
       pollflip restart SOCKET [--wait SECONDS]
       pollflip status SOCKET [--json]

guard    Starts a service and stays as long as any generation of it lives: for containers (as PID 1),
         runit, s6, supervisord, terminals and all else that knows one pid. Signals go on to the
         service. Ends as the service does; 127 if the program is not there, 126 if it cannot be
         started, 125 if there can be no guard.
  --restart WHEN       start it again: no (the default), on-failure or always
  --strikes N/SECONDS  but not if it has ended N times within so long (5/60)
  --delay MS           so long after its end (100)
  --ready SECONDS      kill it if it has not said by then that it is ready (no limit)
  --store N            keep so many descriptors for its next start (512; with --restart no none)
         What goes wrong is said on standard error; each step with POLLFLIP_LOG=info.

restart  Asks the service for a restart, and waits for the outcome.
  --wait SECONDS       longer than the service may take (90)
status   Asks it where it stands.
  --json               for a program to read

The exit status of restart and status: 0 success; 1 it failed, 2 it was refused (ask later), 5 no
restart is possible (asking later does not help): in these cases the old version serves; 3 nobody
answers there; 4 no answer in time; 64 wrong usage.";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Guard(Guard),
    Restart { socket: PathBuf, wait: Duration },
    Status { socket: PathBuf, json: bool },
}

pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments.peekable();
    let command = arguments.next().ok_or("a command is missing: guard, restart or status")?;
    match command.to_str() {
        Some("-h" | "--help" | "help") => Ok(Command::Help),
        Some("-V" | "--version") => Ok(Command::Version),
        Some("guard") => guard(arguments),
        Some("restart") => {
            let (socket, mut wait) = (&mut None, Duration::from_secs(90));
            while let Some(argument) = arguments.next() {
                match argument.to_str() {
                    Some("-h" | "--help") => return Ok(Command::Help),
                    Some("--wait") => wait = seconds(&value("--wait", &mut arguments)?)?,
                    _ => socket_path(socket, argument)?,
                }
            }
            Ok(Command::Restart { socket: socket.take().ok_or(NO_SOCKET)?, wait })
        }
        Some("status") => {
            let (socket, mut json) = (&mut None, false);
            for argument in arguments {
                match argument.to_str() {
                    Some("-h" | "--help") => return Ok(Command::Help),
                    Some("--json") => json = true,
                    _ => socket_path(socket, argument)?,
                }
            }
            Ok(Command::Status { socket: socket.take().ok_or(NO_SOCKET)?, json })
        }
        _ => Err(format!("{command:?} is no command: guard, restart and status are")),
    }
}

const NO_SOCKET: &str = "the path of the coordination socket is missing";

fn guard(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut guard = Guard::new();
    let program = loop {
        let argument = arguments.next().ok_or("the program is missing")?;
        match argument.to_str() {
            Some("--") => break arguments.next().ok_or("the program is missing")?,
            Some("-h" | "--help") => return Ok(Command::Help),
            Some("--restart") => {
                let when = value("--restart", &mut arguments)?;
                guard = guard.policy(match when.to_str() {
                    Some("no") => Policy::No,
                    Some("on-failure") => Policy::OnFailure,
                    Some("always") => Policy::Always,
                    _ => return Err(format!("--restart {when:?}: no, on-failure and always are known")),
                });
            }
            Some("--strikes") => {
                let strikes = value("--strikes", &mut arguments)?;
                let parsed = strikes.to_str().and_then(|text| {
                    let (count, within) = text.split_once('/')?;
                    Some((count.parse().ok().filter(|count| *count > 0)?, seconds(OsStr::new(within)).ok()?))
                });
                let (count, within) = parsed.ok_or(format!("--strikes {strikes:?}: a count and seconds are wanted, such as 5/60"))?;
                guard = guard.strikes(count, within);
            }
            Some("--delay") => {
                let delay = value("--delay", &mut arguments)?;
                let parsed = delay.to_str().and_then(|text| text.parse().ok()).filter(|delay| *delay <= 86_400_000);
                guard = guard.delay(Duration::from_millis(parsed.ok_or(format!("--delay {delay:?}: milliseconds are wanted"))?));
            }
            Some("--store") => {
                let size = value("--store", &mut arguments)?;
                let parsed = size.to_str().and_then(|text| text.parse().ok());
                guard = guard.store(parsed.ok_or(format!("--store {size:?}: a number of descriptors is wanted"))?);
            }
            Some("--ready") => guard = guard.ready_timeout(seconds(&value("--ready", &mut arguments)?)?),
            Some(text) if text.starts_with('-') => return Err(format!("{text:?} is no option of guard")),
            _ => break argument,
        }
    };
    if program.is_empty() {
        return Err("the program is missing: its name is empty".into());
    }
    Ok(Command::Guard(guard.program(program, arguments)))
}

fn socket_path(socket: &mut Option<PathBuf>, argument: OsString) -> Result<(), String> {
    if argument.as_encoded_bytes().starts_with(b"-") || socket.is_some() {
        return Err(format!("{argument:?} is not expected there"));
    }
    *socket = Some(argument.into());
    Ok(())
}

fn value(of: &str, arguments: &mut impl Iterator<Item = OsString>) -> Result<OsString, String> {
    arguments.next().ok_or_else(|| format!("{of} needs a value"))
}

fn seconds(value: &OsStr) -> Result<Duration, String> {
    let parsed = value.to_str().and_then(|text| text.parse::<f64>().ok()).filter(|number| (0.0..=86_400.0).contains(number));
    parsed.map(Duration::from_secs_f64).ok_or(format!("{value:?}: seconds are wanted, from 0 to 86400"))
}
