//! What a guard starts: the program, its arguments and its environment.
//!
//! Knows: how this process was executed. Does not know: when anything is started.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::libc;
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, access};

use crate::config::RestartConfig;
use crate::error::Error;
use crate::sys::{self, Execution};
use crate::systemd::{GUARDED, NOTIFY_SOCKET};

use super::ASKED;

/// Variables that name the process that a manager has started: that is the service then.
const OF_THE_PROCESS: [&str; 3] = ["SYSTEMD_EXEC_PID", "WATCHDOG_PID", "LISTEN_PID"];
/// Variables that are the guard's, or name a process in another way than by its number.
const NOT_PASSED: [&str; 5] = [NOTIFY_SOCKET, ASKED, GUARDED, "LISTEN_PIDFDID", "MAINPID"];
/// Where programs are when nobody says where.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is started, again and again. All memory for it is there from the start.
#[derive(Debug)]
pub(super) struct Command {
    /// The path, or a name that is looked for in PATH.
    program: PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    pid_variables: Vec<&'static str>,
    mask: SigSet,
    default_signals: Vec<i32>,
}

impl Command {
    /// This program again, or another one.
    pub(super) fn new(another: Option<(OsString, Vec<OsString>)>, mask: SigSet) -> Result<Command, Error> {
        let (program, arguments) = match another {
            Some((program, arguments)) => {
                let all = std::iter::once(program.clone()).chain(arguments).map(|text| c_string(text, "an argument"));
                (program.into(), all.collect::<Result<_, _>>()?)
            }
            None => {
                let launch = RestartConfig::new().launch()?;
                let program =
                    launch.program.map_err(|why| Error::Unsuitable(format!("a guard cannot tell which program to start: {why}").into()))?;
                (program.path, program.arguments)
            }
        };
        let own = process::id().to_string();
        let mut pid_variables = Vec::new();
        let mut environment = Vec::new();
        for (name, value) in env::vars_os() {
            if NOT_PASSED.iter().any(|other| *other == name) {
                continue;
            }
            match OF_THE_PROCESS.iter().find(|other| **other == name) {
                Some(of_the_process) if value == own.as_str() => pid_variables.push(*of_the_process),
                _ => environment.push(variable(&name, &value)?),
            }
        }
        environment.push(variable(GUARDED.as_ref(), own.as_ref())?);
        // All Rust programs ignore SIGPIPE, and no program expects that.
        let default_signals = vec![libc::SIGCHLD, libc::SIGPIPE];
        Ok(Command { program, arguments, environment, pid_variables, mask, default_signals })
    }

    /// A signal that the guard ignores, and the service does not.
    pub(super) fn set_to_default(&mut self, signal: i32) {
        self.default_signals.push(signal);
    }

    /// Where the service is to tell what it has to tell.
    pub(super) fn set_notify_socket(&mut self, address: &OsStr) -> Result<(), Error> {
        self.environment.push(variable(NOTIFY_SOCKET.as_ref(), address)?);
        Ok(())
    }

    pub(super) fn name(&self) -> &Path {
        &self.program
    }

    /// Starts it. Its path is looked up anew, so that what is there by now is what is started.
    pub(super) fn start(&self, own_group: bool) -> io::Result<u32> {
        let program = c_string(self.find().into_os_string(), "the program").map_err(io::Error::from)?;
        sys::fork_and_execute(&Execution {
            program: &program,
            arguments: &self.arguments,
            environment: &self.environment,
            pid_variables: &self.pid_variables,
            mask: &self.mask,
            default_signals: &self.default_signals,
            own_group,
            death_signal: libc::SIGTERM,
        })
    }

    /// With what a person can do about it.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        let advice = match error.raw_os_error() {
            Some(libc::ENOENT) if !self.is_path() => "no directory in PATH has a program of that name: give its path",
            Some(libc::ENOENT) => "there is no such file, or not the interpreter that its first line names",
            Some(libc::EACCES) => "it is no file, or this user may not execute it: chmod +x, or another path",
            Some(libc::ENOEXEC) => "it is no program for this machine, and a script begins with #! and its interpreter",
            Some(libc::EAGAIN) => "this user, or this container, may have no more processes: ulimit -u, pids.max",
            _ => return error,
        };
        io::Error::new(error.kind(), format!("{error}; {advice}"))
    }

    fn is_path(&self) -> bool {
        self.program.as_os_str().as_encoded_bytes().contains(&b'/')
    }

    /// The first program of that name in PATH; the name itself if there is none, or if it is a
    /// path.
    fn find(&self) -> PathBuf {
        if self.is_path() {
            return self.program.clone();
        }
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let candidates = env::split_paths(&path).map(|directory| Path::new(".").join(directory).join(&self.program));
        let is_program = |path: &PathBuf| path.is_file() && access(path.as_path(), AccessFlags::X_OK).is_ok();
        let missing = || Path::new("/nonexistent").join(&self.program);
        candidates.into_iter().find(is_program).unwrap_or_else(missing)
    }
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, Error> {
    let mut text = name.to_os_string();
    text.push("=");
    text.push(value);
    c_string(text, "a variable")
}

fn c_string(text: OsString, what: &str) -> Result<CString, Error> {
    CString::new(text.into_vec()).map_err(|_| Error::setting(format!("{what} of the service has a NUL byte in it: leave that out")))
}
