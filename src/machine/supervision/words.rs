//! The words of the guard's machine: what it goes by, what comes in, and what goes out.
//!
//! Knows: names. Does not know: what happens when.

use std::time::Duration;

use crate::error::Exit;

/// When a service that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Never.
    No,
    /// When it has crashed: it ended with another status than 0, or by another signal than SIGHUP,
    /// SIGINT, SIGPIPE and SIGTERM.
    OnFailure,
    /// However it has ended.
    Always,
}

/// How many ends are too many: a service that has ended so often within so long is not started
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strikes {
    /// So many ends; 0 counts as 1.
    pub count: u32,
    /// Within this time.
    pub within: Duration,
}

/// What a machine goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// When the service is started again.
    pub policy: Policy,
    /// When it is no more.
    pub strikes: Strikes,
    /// How long after its end.
    pub delay: Duration,
    /// How long a service that was started may take to say that it is ready; `None`: it need not
    /// say so.
    pub ready: Option<Duration>,
}

/// What a process of the service tells its manager, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notification {
    /// MAINPID, of a descendant of the guard: that process is the service from now on.
    pub main: Option<u32>,
    /// That process has been told to end already: as the guard was, by the terminal, or as a stray.
    pub has_heard: bool,
    /// READY: the service serves.
    pub ready: bool,
    /// RELOADING: a restart has begun.
    pub reloading: bool,
    /// STOPPING: the service ends.
    pub stopping: bool,
    /// EXTEND_TIMEOUT_USEC: what is under way may take so long from now on.
    pub extend: Option<Duration>,
    /// The main process has found what the one before it died of, and has dropped that: the end of
    /// that one is no strike.
    pub absolved: bool,
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The service was started as this process.
    Started(u32),
    /// It could not be started.
    StartFailed,
    /// A descendant of the guard, named first, says something.
    Notified(u32, Notification),
    /// A process that is or was the main process has ended.
    Ended(u32, Exit),
    /// No stray is left.
    Alone,
    /// The guard is told to end.
    Told {
        /// By this signal.
        signal: i32,
        /// The terminal has sent it to the service as well.
        heard: bool,
    },
    /// The guard was sent a signal that says something to the service.
    Signalled(i32),
    /// The clock has moved; does something only when
    /// [`Supervision::poll_timeout`](super::Supervision::poll_timeout) has passed.
    Timeout,
}

/// What the driver must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Start the service.
    Start,
    /// Send that process a signal.
    Signal(u32, i32),
    /// Send each stray a signal, and each that there is later, until another deed of these two.
    SignalStrays(i32),
    /// Tell each stray to end that has not been told: one of them may be the next service, and a
    /// second signal cuts off what the first one lets end in order.
    TellStrays(i32),
    /// Close what the service has stored: nothing is started any more that could take it.
    EmptyStore,
    /// Tell people.
    Tell(Remark),
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// This process is the service from now on.
    Main(u32),
    /// The main process has ended in the middle of a restart, and its successor may go on.
    AwaitsSuccessor,
    /// This process has not said in time that it is ready, and is killed.
    NotReady(u32),
    /// What the service has left behind is killed.
    KillsStrays,
    /// It does not die, and is left to itself.
    StraysStay,
    /// The service is started again.
    StartsAgain,
    /// It has ended too often.
    StruckOut,
}
