//! What can go wrong, one type for each culprit.
//!
//! | type | whose doing it is | what to do |
//! | --- | --- | --- |
//! | [`Refusal`] | the asker came at the wrong time | ask again later, or elsewhere |
//! | [`Failure`] | the successor, or the attempt to start it | mend the new version; this process keeps serving |
//! | [`Error`] | this process: a system call failed or a rule was broken | what the text says |
//! | [`RequestError`] | told to the client of a coordination socket | each variant says |
//!
//! Knows: words and numbers. Does not know: how any of it came about.

pub mod refusals;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;

/// Why a request for a restart was not taken up. Nothing was started and nothing has changed.
///
/// ```no_run
/// # fn run(restarter: &mut pollflip::Restarter) {
/// match restarter.request() {
///     Ok(()) => {} // the outcome comes as an event
///     Err(refusal) if refusal.is_permanent() => eprintln!("stop the service and mend this: {refusal}"),
///     Err(refusal) => eprintln!("not now: {refusal}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// This process has not said yet that it is ready.
    #[error("not ready: this process has not said yet that it serves, by ready(); ask again when it does")]
    NotReady,
    /// An earlier request is being worked on.
    #[error("a restart has been under way for {}; wait for its end", seconds(since))]
    #[non_exhaustive]
    UnderWay {
        /// How long ago that restart was asked for.
        since: Duration,
    },
    /// A restart has been granted and can still be taken back.
    #[error("on probation: {}", match successor {
        Some(pid) => format!("process {pid} has taken over and must prove itself first"),
        None => "the predecessor of this process has not committed yet".into(),
    })]
    #[non_exhaustive]
    OnProbation {
        /// The process on probation, if it is the successor of the one that refuses; `None` if it is that one itself.
        successor: Option<u32>,
    },
    /// This process has handed the service over, and that is final.
    #[error("handed off to process {successor}: ask that one")]
    #[non_exhaustive]
    HandedOff {
        /// The process that serves now.
        successor: u32,
    },
    /// This process is ending and starts nothing new.
    #[error("this process is stopping")]
    Stopping,
    /// This process is PID 1 of a container, which would end with it.
    #[error(
        "the service is PID 1 of its container, and the container ends with it: start the service from a parent that outlives it, such as \
         `pollflip guard -- PROGRAM`; see \"In a container\" in the guide"
    )]
    ContainerInit,
    /// This process is the main process of a container, though it is not its PID 1: the container ends with this process. Its parent is an
    /// init that ends with its first child (tini, docker-init, dumb-init, catatonit and others), a container runtime, or a process
    /// outside of the PID namespace of this one. A program that knows better says so by
    /// [`RestartConfig::trust_parent`](crate::RestartConfig::trust_parent).
    #[error(
        "{}: start the service from a parent that outlives it, such as `pollflip guard -- PROGRAM`, or set RestartConfig::trust_parent if \
         nothing ends with this process",
        match parent {
            0 => "the parent of this process is outside of its PID namespace, as that of a container's main process is, and the container \
                  would end with this process".into(),
            1 => "this process is the first child of an init that ends with its first child, and the container would end with that".into(),
            _ => format!("process {parent}, the parent of this process, is a container runtime, which would end the container with this process"),
        }
    )]
    #[non_exhaustive]
    ContainerMain {
        /// The process id of the parent; 0 if it is outside of the PID namespace of this process.
        parent: u32,
    },
    /// This process is in another PID namespace than systemd, which knows processes by other numbers:
    /// systemd would take some other process for the successor. A program that knows better says so by [`RestartConfig::trust_parent`](crate::RestartConfig::trust_parent).
    #[error(
        "this process is in another PID namespace than systemd, which knows processes by other numbers and would take another one for the \
         successor: start the service under `pollflip guard` in its namespace, or set RestartConfig::trust_parent if systemd need not \
         know the main process (ExitType=cgroup)"
    )]
    OtherPidNamespace,
    /// This process leads the session of a terminal, and does not ignore or handle SIGHUP: the end of this process would hang the terminal
    /// up, and that would kill the successor.
    #[error(
        "the service leads the session of a terminal: when it ends, the kernel hangs the terminal up, which kills the successor; start the \
         service from a shell or supervisor that outlives it, or with `pollflip guard`, setsid or nohup"
    )]
    SessionLeader,
    /// systemd, or the [guard](crate::guard), takes no notifications from this service, and would end it with this process.
    #[error(
        "systemd takes no notifications from this service and would end it with this process: set Type=notify or NotifyAccess=main in the \
         unit, or PIDFile= there and a pid file here; under `pollflip guard`: run it in the network namespace of the guard"
    )]
    NoNotifyAccess,
    /// More earlier generations than [`RestartConfig::max_draining`](crate::RestartConfig::max_draining) allows still finish their work, or
    /// those that do have all other sockets of a [UDP group](crate::Sockets::udp_group).
    #[error(
        "{count} earlier {}, the oldest as process {oldest}: wait for them, or end them",
        if *count == 1 { "generation still finishes its work" } else { "generations still finish their work" }
    )]
    #[non_exhaustive]
    Draining {
        /// How many.
        count: u32,
        /// The process id of the oldest.
        oldest: u32,
    },
    /// This process has rights that its caller need not have, and no program is named by an
    /// absolute path. Every restart is refused: the caller may have chosen the path by which this
    /// process was started. See [the guide](crate::guide#more-rights-than-the-caller).
    #[error(
        "this process has rights that its caller need not have (its program is setuid or setgid, or has capabilities, or a security module \
         says so), and the caller may have chosen the path that it was started by: name the program by an absolute path, with \
         RestartConfig::program"
    )]
    Privileged,
    /// No path is known that leads to the program of this process, so every restart is refused. The
    /// process was started by a relative path and has changed its directory since, or by the name
    /// of a descriptor. That path now leads to another file or to none, and the file that runs has
    /// been deleted, or `/proc` is not there.
    #[error(
        "the path that this process was started by is relative or names a descriptor, and does not lead to the file that runs: that file has \
         been deleted, or /proc is not there; name the program by an absolute path, with RestartConfig::program"
    )]
    UnknownProgram,
    /// A system call that every restart needs cannot be made in this process: the kernel is too old, or a sandbox forbids it (a seccomp
    /// filter, `SystemCallFilter=` of a unit, the profile of a container).
    #[error(
        "this process cannot call {call} ({}), which every restart needs: Linux 5.4 or newer has it, so allow it in the sandbox (seccomp, \
         SystemCallFilter=), see \"The system calls of the loop\" in the guide",
        io::Error::from_raw_os_error(*errno)
    )]
    #[non_exhaustive]
    MissingCall {
        /// The name of the system call.
        call: &'static str,
        /// The number of the error that it returns.
        errno: i32,
    },
    /// The restart thread has ended, which it does on its own only in a panic: see
    /// [`Event::NoMoreRestarts`](crate::Event::NoMoreRestarts).
    #[error("the restart thread of this process is gone: stop and start the service")]
    RestartThreadGone,
    /// The operating system is not Linux, which alone has what a restart needs. The crate serves there
    /// all the same: sockets, the coordination socket, signals and shutdown work. Every restart is refused.
    #[error("this operating system is not Linux, and restarts need that: stop the service and start the new version")]
    Unsupported,
    /// This process is a forked child, and was asked through its copy of the [`Restarter`](crate::Restarter).
    #[error("this is a forked child's copy of a Restarter: ask the process that built it, or build one here")]
    Forked,
}

impl Refusal {
    /// Whether the reason stays as long as this process lives: to ask again is of no use. The service
    /// has to be stopped, what the text names has to be mended, and the service has to be started again.
    ///
    /// A refusal that is lifted by the end of something else is not permanent, nor is one that the
    /// program can lift ([`SessionLeader`](Refusal::SessionLeader), by handling SIGHUP). Nor is one
    /// whose asker should turn to another process: a client that asks again at the coordination socket of a
    /// service that is stopping, or has been replaced, reaches that one.
    pub fn is_permanent(&self) -> bool {
        match self {
            Refusal::ContainerInit
            | Refusal::NoNotifyAccess
            | Refusal::Privileged
            | Refusal::UnknownProgram
            | Refusal::MissingCall { .. }
            | Refusal::ContainerMain { .. }
            | Refusal::OtherPidNamespace
            | Refusal::RestartThreadGone
            | Refusal::Unsupported => true,
            Refusal::NotReady
            | Refusal::UnderWay { .. }
            | Refusal::OnProbation { .. }
            | Refusal::HandedOff { .. }
            | Refusal::Stopping
            | Refusal::SessionLeader
            | Refusal::Draining { .. }
            | Refusal::Forked => false,
        }
    }
}

/// Why an attempt to restart has failed. The old process goes on serving. Its text is a whole
/// sentence, as that of [`Error`] is.
///
/// ```
/// use pollflip::Failure;
///
/// // What a program says at `Event::Failed` or `Event::Resumed`.
/// fn report(why: &Failure) -> String {
///     match why {
///         Failure::Spawn(_) => format!("the deploy put something there that cannot be started: {why}"),
///         Failure::TimedOut { .. } => format!("the new version is slow, or waits for this one: {why}"),
///         _ => why.to_string(),
///     }
/// }
/// assert!(report(&Failure::Refused("the table has another format".into())).contains("the table has another format"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The program could not be started.
    #[error("{}", .0.sentence())]
    Spawn(ChildSpawnError),
    /// The successor ended before it was ready.
    #[error("the successor {exit} before it was ready{}", match (reason, exit) {
        (Some(reason), _) => format!(": {reason}"),
        (None, Exit::Code(0)) => "; does that program call ready()?".into(),
        // A panic has its hint already.
        (None, Exit::Code(101) | Exit::OutOfMemory | Exit::NotReady | Exit::Unknown) => String::new(),
        (None, Exit::Signal(_)) => hint(*exit).into(),
        (None, Exit::Code(_)) => "; its standard error may say why".into(),
    })]
    #[non_exhaustive]
    Exited {
        /// How it ended.
        exit: Exit,
        /// The last error that this crate has returned to it, if it got one and did not
        /// [refuse](crate::Predecessor::refuse): "cannot bind …", say.
        reason: Option<String>,
    },
    /// The successor ended after it had taken over, within its probation.
    #[error("the successor {exit} on probation{hint}", exit = .0, hint = hint(*.0))]
    DiedOnProbation(Exit),
    /// The successor was not ready in time and has been given up: killed, if it had been started at all.
    #[error(
        "the successor was not ready within {} and has been given up; it has to call ready() by then{}",
        seconds(limit),
        last_heard(last)
    )]
    #[non_exhaustive]
    TimedOut {
        /// How long it had.
        limit: Duration,
        /// The last line of progress, or the last error that this crate has returned to it.
        last: Option<String>,
    },
    /// The successor had asked for the state, was not ready in
    /// [time](crate::RestartConfig::freeze_timeout) after that, and has been killed.
    #[error(
        "the successor was not ready within {} after it had asked for the state, and has been killed: the old process stands still \
         meanwhile; it has to load the state faster, or RestartConfig::freeze_timeout has to be longer{}",
        seconds(limit),
        last_heard(last)
    )]
    #[non_exhaustive]
    FreezeTimedOut {
        /// How long it had.
        limit: Duration,
        /// The last line of progress, or the last error that this crate has returned to it.
        last: Option<String>,
    },
    /// The successor said that it will not take over.
    #[error("the successor refused: {0}")]
    Refused(String),
    /// The state of this process could not be handed over.
    #[error("the handover failed: {0}")]
    Handover(String),
    /// The kernel did not take it that new flows of a [UDP group](crate::Sockets::udp_group) are the successor's.
    #[error("new UDP flows could not be given to the successor, which has been killed: {0}")]
    Steering(String),
    /// The successor closed its lifeline (the socket on which it gets sockets and state, and says that it is ready) but lived on, and has
    /// been killed.
    #[error("the successor closed its lifeline and has been killed; does something in it close descriptors it does not know?")]
    HungUp,
    /// The successor said something that makes no sense, and has been killed.
    #[error("the successor broke the protocol and has been killed: {0}")]
    Protocol(String),
    /// The attempt was called off by [`Restarter::cancel`](crate::Restarter::cancel), for this reason.
    #[error("the restart was called off{}", if .0.is_empty() { String::new() } else { format!(": {}", .0) })]
    Cancelled(String),
    /// The attempt was failed by a hook of this program, see [`LifecycleHandler`](crate::LifecycleHandler).
    #[error("a hook of the old process failed: {0}")]
    Hook(String),
    /// This process was told to stop while the attempt was under way.
    #[error("the restart was called off because this process is stopping")]
    Stopping,
}

impl From<ChildSpawnError> for Failure {
    fn from(error: ChildSpawnError) -> Failure {
        Failure::Spawn(error)
    }
}

/// The new process could not be started: the spawn part of [`Failure`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ChildSpawnError {
    /// The restart thread is gone, and no further restart is possible in this process.
    RestartThreadGone,
    /// The start failed. The text does not repeat the error of the operating system, which is the
    /// [`source`](std::error::Error::source); that of [`Failure::Spawn`] has both.
    #[non_exhaustive]
    ChildError {
        /// The program that was to be started.
        program: PathBuf,
        /// What was found out beyond the error of the operating system.
        reason: Option<String>,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
}

impl ChildSpawnError {
    pub(crate) fn new(program: &Path, cause: io::Error, reason: Option<String>) -> Self {
        ChildSpawnError::ChildError { program: program.into(), reason, source: Arc::new(cause) }
    }

    /// The number of the error of the operating system, if it was one that failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            ChildSpawnError::RestartThreadGone => None,
            ChildSpawnError::ChildError { source, .. } => source.raw_os_error(),
        }
    }

    /// What happened and why, in one.
    fn sentence(&self) -> String {
        match self {
            ChildSpawnError::RestartThreadGone => self.to_string(),
            ChildSpawnError::ChildError { program, reason, source } => {
                let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                format!("could not start {}: {source}{reason}", program.display())
            }
        }
    }
}

impl fmt::Display for ChildSpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildSpawnError::RestartThreadGone => Refusal::RestartThreadGone.fmt(f),
            ChildSpawnError::ChildError { program, reason, .. } => {
                write!(f, "could not start {}", program.display())?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
        }
    }
}

impl std::error::Error for ChildSpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ChildSpawnError::RestartThreadGone => None,
            ChildSpawnError::ChildError { source, .. } => Some(&**source),
        }
    }
}

/// As far as people can tell them apart.
impl PartialEq for ChildSpawnError {
    fn eq(&self, other: &ChildSpawnError) -> bool {
        (self.raw_os_error(), self.sentence()) == (other.raw_os_error(), other.sentence())
    }
}

impl Eq for ChildSpawnError {}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It was killed by SIGKILL, and the kernel has ended a process of its control group for memory meanwhile.
    OutOfMemory,
    /// The guard has killed it: it had not said in time that it was ready
    /// ([`Guard::ready_timeout`](crate::guard::Guard::ready_timeout)).
    NotReady,
    /// It is gone, and somebody else took the status: SIGCHLD is ignored, or the program waits for any child.
    Unknown,
}

impl Exit {
    /// As `wait` tells it.
    pub(crate) fn of_wait_status(status: i32) -> Exit {
        match (status & 0x7f, status >> 8 & 0xff) {
            (0, code) => Exit::Code(code),
            (signal, _) => Exit::Signal(signal),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(101) => write!(f, "exited with status 101 (a panic? see its standard error)"),
            Exit::Code(code) => write!(f, "exited with status {code}"),
            Exit::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
            Exit::OutOfMemory => {
                write!(f, "was killed by the kernel because memory was short (SIGKILL, and oom_kill of its control group rose)")
            }
            Exit::NotReady => write!(f, "was killed by the guard because it had not said in time that it was ready (SIGKILL, --ready)"),
            Exit::Unknown => write!(f, "ended (status unknown: somebody else reaped it)"),
        }
    }
}

/// What a failure for want of time ends with.
fn last_heard(last: &Option<String>) -> String {
    last.as_ref().map(|last| format!("; the last that was heard of it: {last}")).unwrap_or_default()
}

/// Where a signal comes from in most cases, and where more is told.
fn hint(exit: Exit) -> &'static str {
    let Exit::Signal(number) = exit else { return "" };
    match Signal::try_from(number) {
        Ok(Signal::SIGABRT) => "; a failed assertion, or a panic that aborts? see its standard error",
        Ok(Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE | Signal::SIGTRAP) => {
            "; a fault in the program? look for a core dump"
        }
        Ok(Signal::SIGKILL) => "; by somebody, or for want of memory? see the log of the kernel",
        Ok(Signal::SIGSYS) => "; a seccomp filter forbids a system call",
        _ => "",
    }
}

/// What went wrong in this process itself. Its text is a whole sentence, with the error of the
/// operating system in it; [`source`](std::error::Error::source) does not say that once more.
///
/// ```no_run
/// use std::time::Duration;
/// use pollflip::{Error, Inheritance, Predecessor};
///
/// /// The state of the predecessor, or none if it is dead and its state lost.
/// fn state(predecessor: &Predecessor) -> Result<Option<Inheritance>, Error> {
///     match predecessor.receive(Duration::from_secs(5)) {
///         Ok(state) => Ok(Some(state)),
///         Err(why @ Error::PredecessorGone { .. }) => {
///             eprintln!("{why}"); // its sockets are here: serve without the state
///             Ok(None)
///         }
///         Err(why) => Err(why), // the predecessor keeps serving, and this process ends
///     }
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{step}: {error}{advice}{}", match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise the limit of open descriptors (RLIMIT_NOFILE), with LimitNOFILE= or ulimit -n",
        _ => "",
    })]
    #[non_exhaustive]
    Os {
        /// What was being done, with the names of the things it was done to.
        step: Cow<'static, str>,
        /// The error of the operating system.
        error: io::Error,
        /// What else is known of the cause, and what can be done: the end of the sentence, or empty.
        advice: Cow<'static, str>,
    },
    /// It is too early for that: there is no [`Restarter`](crate::Restarter) yet, or the state that was
    /// asked for has not been taken.
    #[error("{0}")]
    TooEarly(Cow<'static, str>),
    /// It is too late for that: this process has said that it is ready, has been given the state, has
    /// handed the service over, or is stopping.
    #[error("{0}")]
    TooLate(Cow<'static, str>),
    /// Another [`Restarter`](crate::Restarter) or [`RestartTask`](crate::RestartTask) lives in this process.
    #[error("another Restarter or RestartTask lives in this process; there can be one at a time")]
    AnotherRestarter,
    /// This process has handed the service over, and that is final.
    #[error("this process has handed the service over: another one serves, and this one restarts nothing any more")]
    HandedOver,
    /// A setting makes no sense, or not together with another one.
    #[error("{0}")]
    InvalidSetting(Cow<'static, str>),
    /// A name cannot be that of a socket.
    #[error("{0}")]
    InvalidName(Cow<'static, str>),
    /// A socket of that name is there, and is of another kind or has another address.
    #[error("{0}")]
    WrongSocket(Cow<'static, str>),
    /// This process cannot be used as it stands: something that it was started with, or in, forbids it.
    #[error("{0}")]
    Unsuitable(Cow<'static, str>),
    /// What the predecessor says over the lifeline cannot be used. This process knows of no socket that
    /// the predecessor has given, and is to end.
    #[error("{0}")]
    UnusableLifeline(Cow<'static, str>),
    /// The state has come, or has begun to come, and cannot be used.
    #[error("{0}")]
    UnusableState(Cow<'static, str>),
    /// The predecessor has ended before it had given its state. This process is the only one left: it
    /// has the sockets that the predecessor listened on. It can call [`ready`](crate::Restarter::ready)
    /// without the state, or end and leave it to a supervisor to start afresh. The log does not say that
    /// the state is lost: print this error.
    #[error("no state has come: the predecessor (process {pid}) has ended; what it listened on is here")]
    #[non_exhaustive]
    PredecessorGone {
        /// The process id that the predecessor had.
        pid: u32,
    },
    /// The predecessor has not given its state in time. It serves: [refuse](crate::Predecessor::refuse), or end.
    #[error("no state has come from the predecessor within {}; refuse, or end", seconds(limit))]
    #[non_exhaustive]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
    /// No further restart is possible in this process: it is stopping, or the reason is
    /// [permanent](Refusal::is_permanent). It can go on serving.
    #[error("no further restart is possible: {0}")]
    NoMoreRestarts(Refusal),
    /// The predecessor has given this process up. The predecessor serves, or another process that it has
    /// started since; this process should end.
    #[error("the predecessor (process {pid}) has given this process up, and the service goes on without it: end this process")]
    #[non_exhaustive]
    GivenUp {
        /// The process id of the predecessor.
        pid: u32,
    },
}

impl Error {
    pub(crate) fn os(step: impl Into<Cow<'static, str>>) -> impl FnOnce(io::Error) -> Error {
        let step = step.into();
        move |error| Error::Os { step, error, advice: "".into() }
    }

    /// The same with what is known beyond the error of the operating system.
    pub(crate) fn os_with(step: impl Into<Cow<'static, str>>, error: io::Error, advice: String) -> Error {
        Error::Os { step: step.into(), error, advice: advice.into() }
    }

    pub(crate) fn setting(why: impl Into<Cow<'static, str>>) -> Error {
        Error::InvalidSetting(why.into())
    }

    /// What kind of error of the operating system that is, or which one it comes closest to.
    fn kind(&self) -> io::ErrorKind {
        match self {
            Error::Os { error, .. } => error.kind(),
            Error::TooEarly(_)
            | Error::TooLate(_)
            | Error::AnotherRestarter
            | Error::HandedOver
            | Error::InvalidSetting(_)
            | Error::InvalidName(_)
            | Error::WrongSocket(_)
            | Error::Unsuitable(_) => io::ErrorKind::InvalidInput,
            Error::UnusableLifeline(_) | Error::UnusableState(_) => io::ErrorKind::InvalidData,
            Error::PredecessorGone { .. } => io::ErrorKind::NotFound,
            Error::TimedOut { .. } => io::ErrorKind::TimedOut,
            Error::NoMoreRestarts(_) => io::ErrorKind::Unsupported,
            Error::GivenUp { .. } => io::ErrorKind::ConnectionAborted,
        }
    }
}

/// The sentence: that is what a `main` prints that returns the error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// What the client of a coordination socket is told. Its text is a whole sentence, as that of
/// [`Error`] is.
///
/// ```no_run
/// use std::time::Duration;
/// use pollflip::RequestError;
/// use pollflip::restart_coordination_socket::request_restart;
///
/// match request_restart("/run/echo.sock", Duration::from_secs(90), |line| eprintln!("{line}")) {
///     Ok(pid) => println!("process {pid} serves"),
///     Err(RequestError::Refused(why)) => eprintln!("ask again later: {why}"),
///     Err(RequestError::TimedOut(_) | RequestError::HungUp(_)) => eprintln!("ask for the status"),
///     Err(why) => eprintln!("{why}"),
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody answers there, or not to us.
    #[error(transparent)]
    Unreachable(io::Error),
    /// The service is not in a state to restart; it goes on serving. Asking again later may help.
    #[error("restart refused: {0}")]
    Refused(String),
    /// The service cannot restart, for a [permanent](Refusal::is_permanent) reason; it goes on serving.
    /// To ask again is of no use.
    #[error("no restart is possible: {0}")]
    Impossible(String),
    /// The new version did not start, or was taken back on probation; the old one goes on serving.
    #[error("restart failed: {0}")]
    Failed(String),
    /// No answer came in time. A restart that was asked for may still be under way: the status tells.
    #[error("no answer within {}: the service is busy or stopped, or its loop does not poll; a restart that was asked for may be under way", seconds(.0))]
    TimedOut(Duration),
    /// The service hung up before it answered: it has probably died. A restart that was asked for may have been tried.
    #[error("the service hung up before it answered: {0}; ask for the status")]
    HungUp(io::Error),
    /// What came is no answer that this version understands.
    #[error("the answer makes no sense: {0}")]
    Protocol(String),
}

impl RequestError {
    /// The exit status for it of a `restart` subcommand, as
    /// [the guide](crate::guide#the-restart-subcommand-and-its-exit-statuses) has them: deploy scripts
    /// tell the outcomes apart by that.
    ///
    /// ```
    /// use std::{process::ExitCode, time::Duration};
    /// use pollflip::restart_coordination_socket::request_restart;
    ///
    /// fn restart(socket: &str) -> ExitCode {
    ///     match request_restart(socket, Duration::from_secs(90), |line| eprintln!("{line}")) {
    ///         Ok(_) => ExitCode::SUCCESS,
    ///         Err(why) => {
    ///             eprintln!("{why}");
    ///             ExitCode::from(why.exit_status())
    ///         }
    ///     }
    /// }
    /// assert_eq!(restart("/nobody/is/here.sock"), ExitCode::from(3));
    /// ```
    pub fn exit_status(&self) -> u8 {
        match self {
            RequestError::Failed(_) | RequestError::Protocol(_) => 1,
            RequestError::Refused(_) => 2,
            RequestError::Unreachable(_) => 3,
            RequestError::TimedOut(_) | RequestError::HungUp(_) => 4,
            RequestError::Impossible(_) => 5,
        }
    }
}

/// The sentence: that is what a `main` prints that returns the error.
impl fmt::Debug for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A time as people read it: in seconds, with one decimal.
fn seconds(time: &Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}
