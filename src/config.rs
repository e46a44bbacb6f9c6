//! What a restart is to do: plain data.
//!
//! Knows: the settings, and what the process was started as (`launch`). Does not know: how anything is done with them.

mod launch;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;

use crate::error::Error;
use crate::sockets::{TEMPORARY, beside, lock_name, temporary_name};
use crate::sys;

pub(crate) use launch::{Launch, Program, variable};

/// How a process restarts itself. Made with [`new`](RestartConfig::new), filled from command-line values or left at its defaults, and
/// turned into a [`Restarter`](crate::Restarter) with [`build`](RestartConfig::build) or into a
/// [`RestartTask`](crate::RestartTask) with [`try_into_restart_task`](RestartConfig::try_into_restart_task).
///
/// The successor is started as this process was: by the same path, where a new release may stand by
/// then, and with the same arguments, environment and directory. They are settled when the
/// restarter is built. Each can be set instead.
///
/// ```
/// use std::time::Duration;
/// let config = pollflip::RestartConfig::new()
///     .coordination_socket("/run/echo.sock")
///     .ready_timeout(Duration::from_secs(30))
///     .env("ECHO_RESTARTED", "1");
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
#[must_use = "a configuration does nothing until something is built from it"]
pub struct RestartConfig {
    program: Option<PathBuf>,
    arguments: Option<Vec<OsString>>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    inherit_descriptors: bool,
    environment_as_executed: bool,
    pub(crate) signal: Option<i32>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) ready_timeout: Duration,
    pub(crate) freeze_timeout: Duration,
    pub(crate) probation: Option<Duration>,
    pub(crate) max_draining: usize,
    pub(crate) version: Option<String>,
    pub(crate) trusts_parent: bool,
    pub(crate) keeps: bool,
}

impl Default for RestartConfig {
    fn default() -> RestartConfig {
        RestartConfig {
            program: None,
            arguments: None,
            environment: Vec::new(),
            directory: None,
            inherit_descriptors: true,
            environment_as_executed: false,
            signal: Some(libc::SIGUSR1),
            socket: None,
            pid_file: None,
            ready_timeout: Duration::from_secs(60),
            freeze_timeout: Duration::from_secs(5),
            probation: None,
            max_draining: 50,
            version: None,
            trusts_parent: false,
            keeps: false,
        }
    }
}

impl RestartConfig {
    /// The defaults: restart on SIGUSR1, no coordination socket, 60 s to become ready, 5 s of
    /// them with the state asked for, no probation.
    pub fn new() -> RestartConfig {
        RestartConfig::default()
    }

    /// The program to start: a path. A relative one is taken from the directory in which the
    /// restarter is built. PATH is not searched.
    ///
    /// Unless told otherwise, it is the path by which this process was started. Links in it are
    /// followed anew at each restart: a `current -> v2` that has been switched starts the new
    /// release. With scripts that path is another one:
    ///
    /// - If a script names this program as its interpreter (`#!`), this program is started, with
    ///   the arguments that it has.
    /// - A wrapper script that execs this program is left out from the second restart on. If it
    ///   must run each time, name it here.
    ///
    /// A relative path (`./bin/server` in `/srv/current`) is made absolute when the restarter is
    /// built. If a shell has entered the directory by a name with links (`PWD`), that name is used,
    /// and its links are followed anew at each restart. Where `PWD` is not there or names another
    /// directory, they cannot be followed, and building warns of that.
    ///
    /// A relative path by which this process was started counts only if it leads to the file that
    /// runs when the restarter is built: the program may have changed its directory. Otherwise the
    /// path of that file itself is started, links followed. If that file has been deleted, every
    /// restart is refused ([`Refusal::UnknownProgram`](crate::Refusal::UnknownProgram)).
    ///
    /// A program that is setuid or setgid, or has capabilities of its file, must be named here, by
    /// an absolute path: otherwise every restart is refused
    /// ([`Refusal::Privileged`](crate::Refusal::Privileged)). The guide says
    /// [what else is different there](crate::guide#more-rights-than-the-caller).
    pub fn program(mut self, path: impl Into<PathBuf>) -> RestartConfig {
        self.program = Some(path.into());
        self
    }

    /// The arguments after the program's name. Unless told otherwise, those of this process.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> RestartConfig {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// Whether a successor gets the descriptors that are not CLOEXEC, beside its standard streams
    /// and what this crate passes. Unless told otherwise it does: some are passed on purpose.
    /// Others are not: a connection that a C library has opened without O_CLOEXEC stays open in
    /// every later generation, and its other end never sees that it is over. A warning names such
    /// descriptors when there are more of them than this process was born with. With `false` a
    /// successor gets none of them, not even those that another thread opens during the start.
    ///
    /// The successor closes its CLOEXEC descriptors before the kernel looks for the program. So a
    /// start that a slow file system or a virus scanner holds up keeps no connection open, and no
    /// address taken.
    ///
    /// The list of what is open is made just before the start. What another thread opens at that
    /// very moment may not be on it. If that is CLOEXEC, it stays open while the start is held up.
    /// If it is not, the successor may not get it. musl, glibc before 2.34 and Linux before 5.9
    /// cannot close a range of numbers at once: there, `false` reaches as far as the table of
    /// descriptors did just before the start.
    ///
    /// ```
    /// let config = pollflip::RestartConfig::new().inherit_descriptors(false);
    /// # let _ = config;
    /// ```
    pub fn inherit_descriptors(mut self, inherit: bool) -> RestartConfig {
        self.inherit_descriptors = inherit;
        self
    }

    /// Sets a variable in the environment of the successor. The rest of it is the environment that
    /// this process has when the restarter is built, with what the program itself has set by then,
    /// unless that is [kept out](RestartConfig::env_as_executed). A process with [more rights than
    /// its caller](crate::guide#more-rights-than-the-caller) hands down next to nothing but what is
    /// set here.
    ///
    /// Variables about one process alone cannot be set, and building fails: `POLLFLIP_LIFELINE` and
    /// `POLLFLIP_BIRTH`, `LISTEN_PID` and the others of socket activation, `WATCHDOG_PID`.
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> RestartConfig {
        self.change_env(name.into(), Some(value.into()))
    }

    /// Leaves a variable out of the successor's environment.
    pub fn env_remove(self, name: impl Into<OsString>) -> RestartConfig {
        self.change_env(name.into(), None)
    }

    /// Starts successors with the environment that this process was executed with. Without this
    /// call it is the environment at the moment at which the restarter is built.
    /// [`env`](RestartConfig::env) and [`env_remove`](RestartConfig::env_remove) change either.
    ///
    /// This is for programs that load a file (`.env`) into their environment before they build
    /// their restarter. Without this call each successor inherits what the first process has read,
    /// takes it for set, and never sees what has changed in the file.
    ///
    /// The kernel keeps that environment where the program was executed with it
    /// (`/proc/self/environ`): a program that writes its title over it (`setproctitle`) has none
    /// any more. Without `/proc`, building fails. A process with [more rights than its
    /// caller](crate::guide#more-rights-than-the-caller) takes nothing of it.
    ///
    /// ```
    /// let config = pollflip::RestartConfig::new().env_as_executed();
    /// # let _ = config;
    /// ```
    pub fn env_as_executed(mut self) -> RestartConfig {
        self.environment_as_executed = true;
        self
    }

    fn change_env(mut self, name: OsString, value: Option<OsString>) -> RestartConfig {
        self.environment.retain(|(changed, _)| *changed != name);
        self.environment.push((name, value));
        self
    }

    /// The directory in which the successor starts. Unless told otherwise, the one in which the
    /// restarter is built, or `/` for a process with
    /// [more rights than its caller](crate::guide#more-rights-than-the-caller).
    ///
    /// A `current` link that leads to that directory is followed anew at each restart, so that the
    /// successor starts in the directory of the new release. The link is known if a shell has
    /// entered the directory by it (`PWD`, as long as that is the directory), or if the program was
    /// started through it (`/srv/current/bin/server` in `/srv/current`, as with `WorkingDirectory=`
    /// of systemd).
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> RestartConfig {
        self.directory = Some(path.into());
        self
    }

    /// The number of the signal that asks for a restart; `None`: no signal does. Unless told
    /// otherwise, SIGUSR1. Building fails with SIGKILL, SIGSTOP, SIGCHLD, those that a fault raises
    /// (SIGILL, SIGFPE, SIGSEGV) and real-time signals.
    ///
    /// A release can choose another signal than the release before. The old signal does nothing to
    /// its first process. Its later processes do with the old signal what any program does: they
    /// end, unless they handle it.
    pub fn restart_signal(mut self, signal: Option<i32>) -> RestartConfig {
        self.signal = signal;
        self
    }

    /// Where the [coordination socket](crate::restart_coordination_socket) is. Unless told otherwise, there is none.
    ///
    /// Root and the user that the service runs as may ask there. The path belongs to the user that
    /// the process has at [`build`](RestartConfig::build), and nobody else but root can open it. A
    /// program that gives root up afterwards can give the path to its new user
    /// ([`chown`](std::os::unix::fs::chown)); if it does not, only root can ask. A service that
    /// runs as `nobody` (65534) is asked by root alone:
    /// [why](crate::guide#the-coordination-socket-under-attack).
    ///
    /// If somebody removes the path, the next generation binds it again. If a release has the
    /// socket at another path, it removes the old path, provided that this belongs to the user that
    /// the release runs as.
    pub fn coordination_socket(mut self, path: impl Into<PathBuf>) -> RestartConfig {
        self.socket = Some(path.into());
        self
    }

    /// A file that names the process which serves. Unless told otherwise, there is none.
    ///
    /// | when | what becomes of the file |
    /// | --- | --- |
    /// | the first generation is ready | that process writes it |
    /// | a restart becomes final | the old process writes the new process id |
    /// | the restarter of the last generation is dropped | that process removes it |
    /// | a signal ends a process that does not handle it | it stays behind |
    /// | a release has another path for it | the new process removes the old file, if that belongs to the user that it runs as |
    ///
    /// The file is made beside its path and renamed, by the user of that moment: a program that has
    /// given up root by then needs a directory that its new user may write to. If it cannot be
    /// written, a warning is logged, the service goes on, and the file says what it said before. A
    /// pipe, a socket or a device at the path is left alone, with a warning.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> RestartConfig {
        self.pid_file = Some(path.into());
        self
    }

    /// How long a restart may take from the request until the successor is ready; it is killed then. Unless told otherwise, 60 s.
    /// Once it has asked for the state, it has the [freeze timeout](RestartConfig::freeze_timeout) at most.
    pub fn ready_timeout(mut self, limit: Duration) -> RestartConfig {
        self.ready_timeout = limit;
        self
    }

    /// How long this process may be frozen: the time from
    /// [`Event::StateRequested`](crate::Event::StateRequested) until the successor is ready. In it this
    /// process saves and sends its state, and the successor receives and loads it. Unless told
    /// otherwise, 5 s. When the time is over, the successor is killed, and the attempt fails with
    /// [`Failure::FreezeTimedOut`](crate::Failure::FreezeTimedOut): this process thaws and keeps
    /// serving, with its state.
    ///
    /// The [ready timeout](RestartConfig::ready_timeout) counts as well, and the earlier of the two
    /// ends the attempt. What the successor does before it asks for the state counts only for that
    /// one. A successor that asks for no state has no freeze. Zero is no time: building fails.
    ///
    /// Clients wait during a freeze. Two lines of the log say how long a freeze took: "asks for the
    /// state" and "has taken over". Choose several times what the largest state takes on a busy
    /// machine. A gigabyte that is copied takes half a second on a fast machine and seconds on a slow
    /// one: a state of several gigabytes needs more than 5 s. A memory file of the program's own that
    /// the successor [maps](crate::Inheritance::map) takes no longer for its size. A limit that is too
    /// long costs something only when a successor hangs.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let config = pollflip::RestartConfig::new().freeze_timeout(Duration::from_secs(20));
    /// # let _ = config;
    /// ```
    pub fn freeze_timeout(mut self, limit: Duration) -> RestartConfig {
        self.freeze_timeout = limit;
        self
    }

    /// How long this process keeps its listeners after a successor has taken over, and serves again if that one dies. Unless told
    /// otherwise, zero: a handoff is final at once.
    ///
    /// Only the *end* of the successor is noticed. A successor that hangs is not, unless its own health
    /// check ends it. If its end has begun when this time is over, it has failed: a core dump that it
    /// still writes is cut off, since nobody serves meanwhile.
    ///
    /// If the successor ends, this process has its listeners, and the state as it was when it was asked
    /// for. Lost are the connections that were handed over, and all that the successor accepted or
    /// changed. A program whose state must not go back has no use for a probation.
    pub fn probation(mut self, time: Duration) -> RestartConfig {
        self.probation = (!time.is_zero()).then_some(time);
        self
    }

    /// What this program calls its version: the [status](crate::Status::version) has it, so that an operator sees which release
    /// serves. Unless told otherwise, there is none.
    ///
    /// ```
    /// let config = pollflip::RestartConfig::new().version(env!("CARGO_PKG_VERSION"));
    /// # let _ = config;
    /// ```
    pub fn version(mut self, version: impl Into<String>) -> RestartConfig {
        self.version = Some(version.into());
        self
    }

    /// How many earlier generations may still be finishing their work when a restart is asked for; each is a whole process with its
    /// memory. Unless told otherwise, 50.
    pub fn max_draining(mut self, count: usize) -> RestartConfig {
        self.max_draining = count;
        self
    }

    /// With `true` the program says that the service goes on when this process ends, although the
    /// parent of this process looks like one that ends with it. Unless told otherwise, `false`.
    ///
    /// With `false` restarts are refused in two cases: the parent looks like the init or the
    /// runtime of a container ([`Refusal::ContainerMain`](crate::Refusal::ContainerMain)), or
    /// systemd knows processes by other numbers and could not find a successor
    /// ([`Refusal::OtherPidNamespace`](crate::Refusal::OtherPidNamespace)). With `true` they are
    /// not refused, and such a systemd is told no number. It is for a process that `docker exec` or
    /// `nsenter` has started beside the main process of a container, say. PID 1 is refused all the
    /// same: the kernel ends all other processes with it.
    pub fn trust_parent(mut self, trusts: bool) -> RestartConfig {
        self.trusts_parent = trusts;
        self
    }

    /// With `true` what this service has outlives a kill or a crash: its listeners, and the
    /// descriptors and connections that the program gives to its
    /// [`Keeper`](crate::Keeper). Unless told otherwise, `false`.
    ///
    /// Somebody else holds them and starts the service again: a [guard](crate::guard) with
    /// `--restart`, or systemd with `FileDescriptorStoreMax=` and `Restart=` in the unit. Where
    /// nobody does, nothing outlives a kill, which is no error: a warning is logged. The next start
    /// gets
    ///
    /// - each listener by its name, from [`Sockets`](crate::Sockets): clients that connect meanwhile
    ///   wait for it,
    /// - what else was kept, and how the last process has ended, from
    ///   [`Restarter::survivors`](crate::Restarter::survivors).
    ///
    /// | when | what is kept |
    /// | --- | --- |
    /// | before [`ready`](crate::Restarter::ready) | what the process before had, unchanged |
    /// | after the grant, on probation | the connections of both; the rest is the old process's |
    /// | after the commit | what the new process has; an old process that drains ends with its connections |
    /// | after [`Event::Resumed`](crate::Event::Resumed) | what the old process had; the connections of the new one are closed |
    /// | after [`stop`](crate::Restarter::stop) | nothing |
    ///
    /// All sockets that a manager passes (`LISTEN_FDS`) are [`Sockets`](crate::Sockets)' alone then:
    /// the program must not take them by their numbers. Of a program with [more rights than its
    /// caller](crate::guide#more-rights-than-the-caller) nothing outlives a kill, since its caller
    /// could be the keeper.
    ///
    /// ```
    /// let config = pollflip::RestartConfig::new().keep(true);
    /// # let _ = config;
    /// ```
    pub fn keep(mut self, keeps: bool) -> RestartConfig {
        self.keeps = keeps;
        self
    }

    /// The coordination socket's path, absolute against the directory of now.
    pub(crate) fn absolute_socket(&self) -> Result<Option<PathBuf>, Error> {
        let path = self.socket.as_deref().map(|path| settled(path, "the coordination socket")).transpose()?;
        match path {
            // It goes to successors by its name, which is text.
            Some(path) if path.to_str().is_none() => {
                Err(Error::setting(format!("the path of the coordination socket must be UTF-8, and {} is not", path.display())))
            }
            path => Ok(path),
        }
    }

    /// The pid file's path, absolute against the directory of now.
    pub(crate) fn absolute_pid_file(&self) -> Result<Option<PathBuf>, Error> {
        let path = self.pid_file.as_deref().map(|path| settled(path, "the pid file")).transpose()?;
        if let (Some(file), Some(socket)) = (&path, self.absolute_socket()?) {
            // Each is made beside its path, and moved there; the socket under a lock.
            let with_name = |path: &Path, name: fn(&OsStr) -> OsString| path.file_name().map(|last| path.with_file_name(name(last)));
            let conflict = if *file == socket || with_name(file, temporary_name).as_ref() == Some(&socket) {
                Some("would be written over")
            } else if *file == beside(&socket, TEMPORARY) || Some(file) == with_name(&socket, lock_name).as_ref() {
                Some("would take a name that is needed to make")
            } else {
                None
            };
            if let Some(conflict) = conflict {
                let (file, socket) = (file.display(), socket.display());
                let text = format!("the pid file {file} {conflict} the coordination socket {socket}: give it another path");
                return Err(Error::setting(text));
            }
        }
        Ok(path)
    }
}

/// A signal by its number, if it can be a restart signal.
pub(crate) fn restart_signal(number: i32) -> Result<Signal, Error> {
    match Signal::try_from(number) {
        Ok(Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGILL | Signal::SIGFPE | Signal::SIGSEGV | Signal::SIGCHLD) | Err(_) => {
            Err(Error::setting(format!(
                "signal {number} cannot be the restart signal: take one that a program can handle and that means nothing else, such as SIGUSR2"
            )))
        }
        Ok(signal) => Ok(signal),
    }
}

/// A path of the settings, absolute. Relative means: to the directory of now, which in a process
/// that has more rights than its caller is of the caller's choice.
fn settled(path: &Path, what: &str) -> Result<PathBuf, Error> {
    if path.is_relative() && sys::has_gained_rights() {
        return Err(Error::setting(format!(
            "{what} {} is relative to a directory that the caller of this program chose, and this process has rights that its caller need not \
             have: give it an absolute path",
            path.display()
        )));
    }
    absolute(path)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    if path.as_os_str().is_empty() {
        return Err(Error::setting("a path in the configuration is empty: leave that setting away, or give it a path"));
    }
    std::path::absolute(path).map_err(|error| Error::os(format!("cannot make {} absolute", path.display()))(error))
}
