//! The start of one successor: what it is given, and what is said if it cannot be started.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::SigSet;

use crate::config::{Launch, variable};
use crate::error::{ChildSpawnError, Error, Refusal};
use crate::machine::Attempt;
use crate::sys::{self, Process, Spawn};
use crate::systemd;
use crate::wire::{LIFELINE_VARIABLE, Place};

use super::{Job, Shared, diagnosis};

/// How long a program that is being written is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How soon it is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Starts it. A program that is still being written is waited for, as long as somebody wants the attempt.
pub(super) fn start(launch: &Launch, mask: &SigSet, job: Job, shared: &Shared) -> Result<Process, ChildSpawnError> {
    // Such a request has been refused before it comes here.
    let nothing = |refusal: &Refusal| ChildSpawnError::new(Path::new(""), io::Error::other(refusal.to_string()), None);
    let program = launch.program.as_ref().map_err(nothing)?;
    let failed = |error: io::Error| {
        let reason = diagnosis::of(program, launch, &error);
        ChildSpawnError::new(&program.path, error, reason)
    };
    let environment = environment(launch, &job).map_err(failed)?;
    let mut inherited: Vec<(BorrowedFd<'_>, RawFd)> = vec![(job.lifeline.as_fd(), job.lifeline.as_raw_fd())];
    inherited.extend(job.passed.iter().map(|(_, socket, number)| (socket.as_fd(), *number)));
    let what = Spawn {
        program: &program.executable,
        arguments: &program.arguments,
        environment: &environment,
        directory: launch.directory_to_enter(),
        mask,
        inherited: &inherited,
    };
    let since = sys::now();
    let pid = loop {
        let is_last = sys::now() - since >= BUSY_LIMIT;
        match sys::spawn(&what) {
            Ok(pid) => break pid,
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && !is_last => {
                if !wait_a_little(shared, job.attempt) {
                    return Err(failed(error));
                }
            }
            Err(error) => return Err(failed(error)),
        }
    };
    let open = |pid| Process::open(pid).map_err(sys::naming("pidfd_open"));
    open(pid)
        // Whoever waits for any child may have reaped it by then, and its number may have gone to a process that is none of ours.
        .and_then(|process| if process.is_child() { Ok(process) } else { Process::gone(pid) })
        .or_else(|error| match error.raw_os_error() {
            // SIGCHLD is ignored, or somebody waits for any child: it has ended and nobody knows how.
            Some(libc::ESRCH) => Process::gone(pid).map_err(|error| (error, "has ended")),
            _ => {
                let end = if sys::kill_and_reap(pid) { "has been killed" } else { "may not be killed: it is told to end" };
                Err((error, end))
            }
        })
        .map_err(|(error, end)| {
            ChildSpawnError::new(&program.path, error, Some(format!("it was started but cannot be watched, and {end}")))
        })
}

/// The environment of one successor.
fn environment(launch: &Launch, job: &Job) -> io::Result<Vec<CString>> {
    let number = job.lifeline.as_raw_fd();
    let identity = sys::identity(number).ok_or_else(io::Error::last_os_error)?;
    let mut own: Vec<(&str, OsString)> = vec![(LIFELINE_VARIABLE, Place { number, identity }.to_string().into())];
    if !job.passed.is_empty() {
        let names: Vec<_> = job.passed.iter().map(|(name, ..)| name.clone()).collect();
        own.extend(systemd::pass_on(&names));
    }
    let own = own.iter().map(|(name, value)| variable(name.as_ref(), value)).collect::<Result<Vec<_>, Error>>()?;
    Ok(launch.environment.iter().cloned().chain(own).collect())
}

/// Waits for a moment, but not for an attempt that is given up.
fn wait_a_little(shared: &Shared, attempt: Attempt) -> bool {
    if !sys::has_waited(BUSY_RETRY) {
        let desk = shared.desk();
        // Woken early or late, what matters is whether it is wanted.
        drop(shared.changed.wait_timeout_while(desk, BUSY_RETRY, |desk| desk.abandoned < attempt.0));
    }
    !shared.is_abandoned(attempt)
}
