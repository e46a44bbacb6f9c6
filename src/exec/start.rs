//! The start of one successor: what it is given, and what is said if it cannot be started.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::SigSet;

use crate::config::{Launch, Program, variable};
use crate::error::{ChildSpawnError, Error, Refusal};
use crate::machine::Attempt;
use crate::sys::{self, Process, Spawn};
use crate::systemd;
use crate::wire::{BIRTH_VARIABLE, Birth, KillCounter, LIFELINE_VARIABLE, Place};

use super::descriptors::Fate;
use super::{Job, Shared, diagnosis};

/// How long a program that is being written is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How soon it is tried again.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Starts it. A program that is still being written is waited for, as long as somebody wants the attempt.
pub(super) fn start(
    launch: &Launch,
    mask: &SigSet,
    job: Job,
    shared: &Shared,
    counter: Option<&KillCounter>,
) -> Result<(Process, Fate), ChildSpawnError> {
    // Such a request has been refused before it comes here.
    let nothing = |refusal: &Refusal| ChildSpawnError::new(Path::new(""), io::Error::other(refusal.to_string()), None);
    let program = launch.program.as_ref().map_err(nothing)?;
    let failed = |error: io::Error| {
        let reason = diagnosis::of(program, launch, &error);
        ChildSpawnError::new(&program.path, error, reason)
    };
    let since = sys::now();
    let (pid, fate) = loop {
        // Looked at before the try, as in every place that waits: a try that works came in time.
        let is_last = sys::now() - since >= BUSY_LIMIT;
        let fate = Fate::now(launch, program, &job);
        let environment = environment(launch, &job, &fate, counter).map_err(failed)?;
        let result = sys::spawn(&Spawn {
            program: &program.executable,
            arguments: &program.arguments,
            environment: &environment,
            directory: launch.directory_to_enter(),
            mask,
            inherited: &fate.inherited(&job),
            closed: &fate.closed,
            closed_from: fate.closed_from,
        });
        match result {
            Ok(pid) => break (pid, fate),
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && !is_last => {
                if !wait_a_little(shared, job.attempt) {
                    return Err(failed(error));
                }
            }
            Err(error) => return Err(failed(error)),
        }
    };
    Ok((hold(pid, program)?, fate))
}

/// The child of that number, held so that it cannot be confused with a later one; or killed, and why.
fn hold(pid: u32, program: &Program) -> Result<Process, ChildSpawnError> {
    Process::open(pid)
        .map_err(sys::naming("pidfd_open"))
        // A part of the program that waits for any child may have reaped it by then, and its number may have gone to a process that is none of ours.
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
fn environment(launch: &Launch, job: &Job, fate: &Fate, counter: Option<&KillCounter>) -> io::Result<Vec<CString>> {
    let identity = sys::identity(job.lifeline.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
    let place = Place { number: fate.lifeline, identity };
    let birth = Birth {
        lifeline: identity,
        program: sys::own_program(),
        open: fate.open,
        inherited: fate.staying.len(),
        oom_score_adj: sys::own_oom_score(),
        counter: counter.cloned(),
    };
    let mut own: Vec<(&str, OsString)> = vec![(LIFELINE_VARIABLE, place.to_string().into()), (BIRTH_VARIABLE, birth.to_string().into())];
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
