//! What a guard starts: the program, its arguments and its environment.
//!
//! Knows: how this process was executed. Does not know: when anything is started.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, access};

use crate::config::RestartConfig;
use crate::error::{Error, Exit};
use crate::notify::{LAST_END, STORE_SIZE, STRIKES, end_as_text};
use crate::sys::{self, Execution};
use crate::systemd::{FIRST_PASSED, GUARDED, LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID, NOTIFY_SOCKET};

use super::ASKED;
use super::store::Store;

/// Variables that name the process that a manager has started: that is the service then.
const OF_THE_PROCESS: [&str; 3] = ["SYSTEMD_EXEC_PID", "WATCHDOG_PID", LISTEN_PID];
/// Variables that are the guard's, or name a process in another way than by its number.
const NOT_PASSED: [&str; 8] = [NOTIFY_SOCKET, ASKED, GUARDED, "LISTEN_PIDFDID", "MAINPID", STORE_SIZE, LAST_END, STRIKES];
/// The longest text that a program is given as a variable, and all of them together if the stack
/// may not be larger: the limits of the kernel.
const LONGEST_VARIABLE: usize = 128 * 1024;
/// However large the stack may become.
const MOST_OF_ALL: usize = 6 * 1024 * 1024;
/// So many variables are those of one start.
const MORE_VARIABLES: usize = 4;
/// What the kernel puts beside them, with room for a path that is looked up later.
const BESIDE: usize = 16 * 1024;
/// Where programs are when nobody says where.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is started, again and again. What each start is given alike is there from the start.
#[derive(Debug)]
pub(super) struct Command {
    /// The path, or a name that is looked for in PATH.
    program: PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    pid_variables: Vec<&'static str>,
    /// The sockets that a manager has passed: so many, and their names.
    activation: Option<(usize, String)>,
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
        let activation = activation(pid_variables.contains(&LISTEN_PID));
        Ok(Command { program, arguments, environment, pid_variables, activation, mask, default_signals })
    }

    /// How many bytes of names of stored descriptors the service can be given, each with the colon
    /// after it. With more of them no program is executed.
    pub(super) fn room_for_names(&self) -> usize {
        let stack = getrlimit(Resource::RLIMIT_STACK).map_or(0, |(soft, _)| soft);
        let all = usize::try_from(stack / 4).unwrap_or(usize::MAX).clamp(LONGEST_VARIABLE, MOST_OF_ALL);
        let each = |text: &CString| text.as_bytes_with_nul().len() + size_of::<usize>();
        let taken: usize = self.arguments.iter().chain(&self.environment).map(each).sum();
        let passed = self.activation.as_ref().map_or(0, |(_, names)| names.len() + 1);
        let longest = LONGEST_VARIABLE - LISTEN_FDNAMES.len() - 2;
        longest.min(all.saturating_sub(taken + BESIDE)).saturating_sub(passed)
    }

    /// Says that descriptors can be stored.
    pub(super) fn set_store_size(&mut self, size: usize) -> Result<(), Error> {
        self.environment.push(variable(STORE_SIZE.as_ref(), size.to_string().as_ref())?);
        Ok(())
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
    /// `last`: how it has ended before, and how many strikes there are.
    pub(super) fn start(&self, own_group: bool, store: &Store, last: Option<(Exit, usize)>) -> io::Result<u32> {
        let program = c_string(self.find().into_os_string(), "the program").map_err(io::Error::from)?;
        // Without memory this start fails, and another one may come about.
        let mut environment: Vec<&CStr> = Vec::new();
        environment.try_reserve_exact(self.environment.len() + MORE_VARIABLES)?;
        environment.extend(self.environment.iter().map(CString::as_c_str));
        let mut more = Vec::with_capacity(MORE_VARIABLES);
        let mut pid_variables = self.pid_variables.clone();
        let mut inherited = Vec::new();
        if let Some((exit, strikes)) = last {
            more.push(text(LAST_END, &end_as_text(exit))?);
            more.push(text(STRIKES, &strikes.to_string())?);
        }
        if !store.is_empty() {
            let (passed, first_names) = self.activation.as_ref().map_or((0, ""), |(count, names)| (*count, names.as_str()));
            let mut names = String::new();
            names.try_reserve_exact(first_names.len() + store.kept().map(|(name, _)| name.len() + 1).sum::<usize>())?;
            names += first_names;
            inherited.try_reserve_exact(store.len())?;
            for (name, _) in store.kept() {
                if !names.is_empty() {
                    names.push(':');
                }
                names += name;
            }
            let is_replaced = |variable: &CStr| {
                let name = variable.to_bytes().split(|byte| *byte == b'=').next();
                [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES].iter().any(|replaced| name == Some(replaced.as_bytes()))
            };
            environment.retain(|variable| !is_replaced(variable));
            more.push(text(LISTEN_FDS, &(passed + store.len()).to_string())?);
            more.push(text(LISTEN_FDNAMES, &names)?);
            pid_variables.retain(|name| *name != LISTEN_PID);
            pid_variables.push(LISTEN_PID);
            inherited.extend(store.kept().map(|(_, descriptor)| descriptor).zip(FIRST_PASSED + passed as i32..));
        }
        environment.extend(more.iter().map(CString::as_c_str));
        sys::fork_and_execute(&Execution {
            program: &program,
            arguments: &self.arguments,
            environment: &environment,
            pid_variables: &pid_variables,
            inherited: &inherited,
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

/// What a manager has passed to this process, or to whichever process it is that starts the service:
/// some leave LISTEN_PID away.
fn activation(is_ours: bool) -> Option<(usize, String)> {
    let count = env::var(LISTEN_FDS).ok()?.parse().ok().filter(|count| is_ours || *count > 0 && env::var_os(LISTEN_PID).is_none())?;
    let is_open = |number: &usize| sys::identity(FIRST_PASSED.saturating_add(*number as i32)).is_some();
    let count = (0..count).take_while(is_open).count();
    let names = env::var(LISTEN_FDNAMES).unwrap_or_default();
    // As many as there are.
    let names = names.split(':').filter(|name| !name.is_empty()).chain(std::iter::repeat("unknown")).take(count);
    Some((count, names.collect::<Vec<_>>().join(":")))
}

/// A variable of the guard's own.
fn text(name: &str, value: &str) -> io::Result<CString> {
    variable(name.as_ref(), value.as_ref()).map_err(io::Error::from)
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, Error> {
    let mut text = OsString::new();
    let reserved = text.try_reserve_exact(name.len() + value.len() + 2);
    reserved.map_err(|error| Error::os("cannot make the environment of the service")(error.into()))?;
    text.push(name);
    text.push("=");
    text.push(value);
    c_string(text, "a variable")
}

fn c_string(text: OsString, what: &str) -> Result<CString, Error> {
    CString::new(text.into_vec()).map_err(|_| Error::setting(format!("{what} of the service has a NUL byte in it: leave that out")))
}
