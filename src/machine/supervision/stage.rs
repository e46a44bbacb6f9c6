//! Where a service stands under its guard, and the table of how it gets from one stage to the next.
//!
//! Knows: which facts belong to which stage. Does not know: how they change; that is
//! [`Supervision`](super::Supervision)'s.

use std::time::Duration;

/// Where a service stands.
///
/// ```text
///              Started               Ended, in a restart
///  Starting ─────────────▶ Running ──────────────────────▶ Between
///     ▲                     │  ▲                            │   │
///     │               Ended │  └────────────────────────────┘   │ Timeout, Alone
///     │                     ▼       a stray names itself        │
///     └───────────────── Clearing ◀─────────────────────────────┘
///       again, by policy    │
///                           ▼ no more        the last one ends
///                        Stopping ─────────────────────────────▶ Over
///                         (earlier generations finish their work)
/// ```
///
/// The whole table, made from the code by `tests/pure/tests/supervision_table.rs`; a pair that is not in it
/// does nothing:
///
// table:begin
/// | in                                     | fact                                     | then               | deeds |
/// | ---                                    | ---                                      | ---                | --- |
/// | Starting(first), Starting(again)       | Started                                  | Running            | Main |
/// | Starting(first)                        | StartFailed                              | Over               | EmptyStore |
/// | Starting(first)                        | Told                                     | same               | EmptyStore |
/// | Starting(first), Starting(again)       | Told, and it has heard                   | same               | EmptyStore |
/// | Running, Running(not ready)            | Told, and it has heard                   | same               | EmptyStore |
/// | Running(reloading), Clearing(told)     | Told, and it has heard                   | same               | EmptyStore |
/// | Clearing(killed), Stopping             | Told, and it has heard                   | same               | EmptyStore |
/// | Starting(later)                        | MAINPID of another                       | Running            | Main |
/// | Starting(later), Running(not ready)    | MAINPID of one that has heard            | Running            | Main |
/// | Running(reloading), Between            | MAINPID of one that has heard            | Running            | Main |
/// | Clearing(told), Stopping               | MAINPID of one that has heard            | Running            | Main |
/// | Starting(later), Starting(again)       | Ended, the last earlier one              | same, remembered   | |
/// | Running, Running(reloading), Between   | Ended, the last earlier one              | same, remembered   | |
/// | Clearing(told), Clearing(killed)       | Ended, the last earlier one              | same, remembered   | |
/// | Starting(later)                        | Told                                     | Stopping           | EmptyStore, Signal(earlier), EmptyStore |
/// | Starting(later)                        | Told, and it has heard                   | Stopping           | EmptyStore, EmptyStore |
/// | Starting(later)                        | Timeout                                  | Starting(again)    | Start |
/// | Starting(again)                        | StartFailed                              | Starting(later)    | StartsAgain |
/// | Starting(again), Clearing(told)        | Told                                     | same               | EmptyStore, Signal(earlier) |
/// | Clearing(killed), Stopping             | Told                                     | same               | EmptyStore, Signal(earlier) |
/// | Running                                | MAINPID of another (not told)            | same               | Main |
/// | Running                                | MAINPID of another (told)                | same               | Main, Signal(it) |
/// | Running                                | MAINPID of one that has heard            | same               | Main |
/// | Running, Running(not ready)            | RELOADING                                | Running(reloading) | |
/// | Running, Running(not ready)            | Ended, the main one                      | Clearing(told)     | SignalStrays |
/// | Running, Running(reloading)            | Told                                     | same               | EmptyStore, Signal(earlier), Signal(main) |
/// | Running, Running(not ready)            | Signalled                                | same               | Signal(main) |
/// | Running(reloading)                     | Signalled                                | same               | Signal(main) |
/// | Running(not ready), Running(reloading) | MAINPID of another (not told)            | Running            | Main |
/// | Between, Clearing(told)                | MAINPID of another (not told)            | Running            | Main |
/// | Running(not ready), Running(reloading) | MAINPID of another (told)                | Running            | Main, Signal(it) |
/// | Between, Clearing(told), Stopping      | MAINPID of another (told)                | Running            | Main, Signal(it) |
/// | Running(not ready), Running(reloading) | READY                                    | Running            | |
/// | Running(not ready), Running(reloading) | EXTEND_TIMEOUT_USEC                      | same, remembered   | |
/// | Between                                | EXTEND_TIMEOUT_USEC                      | same, remembered   | |
/// | Running(not ready)                     | Told                                     | same               | EmptyStore, Signal(main) |
/// | Running(not ready)                     | Timeout                                  | Running            | NotReady, Signal(main, KILL) |
/// | Running(reloading)                     | STOPPING                                 | Running            | |
/// | Running(reloading)                     | Ended, the main one (not told)           | Between            | AwaitsSuccessor |
/// | Running(reloading)                     | Ended, the main one (told)               | Between            | AwaitsSuccessor, TellStrays |
/// | Between, Clearing(told)                | Alone (again)                            | Starting(later)    | StartsAgain |
/// | Clearing(killed)                       | Alone (again)                            | Starting(later)    | StartsAgain |
/// | Between, Clearing(told)                | Alone (no more, told)                    | Stopping           | EmptyStore |
/// | Clearing(killed)                       | Alone (no more, told)                    | Stopping           | EmptyStore |
/// | Between, Clearing(told)                | Alone (struck out)                       | Stopping           | StruckOut, EmptyStore |
/// | Clearing(killed)                       | Alone (struck out)                       | Stopping           | StruckOut, EmptyStore |
/// | Between                                | Told                                     | same               | EmptyStore, Signal(earlier), TellStrays |
/// | Between                                | Told, and it has heard                   | same               | EmptyStore, TellStrays |
/// | Between, Clearing(told)                | Timeout                                  | Clearing(killed)   | KillsStrays, SignalStrays(KILL) |
/// | Clearing(killed)                       | Timeout (again)                          | Starting(later)    | StraysStay, StartsAgain |
/// | Clearing(killed)                       | Timeout (no more, told)                  | Stopping           | StraysStay, EmptyStore |
/// | Clearing(killed)                       | Timeout (struck out)                     | Stopping           | StraysStay, StruckOut, EmptyStore |
/// | Stopping                               | MAINPID of another (no more, struck out) | Running            | Main |
/// | Stopping                               | Ended, the last earlier one              | Clearing(told)     | SignalStrays |
// table:end
///
/// Where the table says *Stopping*, an earlier generation lives; if none does, it is *Over* at
/// once.
///
/// *Told to end* is a state beside these: from then on nothing is started, and each process that
/// becomes the main process is sent the same signal at once, unless it has heard it. What former
/// main processes say is not listened to. An end of the main process is a strike, unless somebody
/// else has killed it (SIGKILL, SIGTERM, SIGINT, SIGHUP) or the next main process absolves it:
/// once, and for the last end alone. *EmptyStore* closes what the service has stored, of which
/// there is often nothing; from then on nothing is stored. A stage that has a time limit has it moved by a
/// notification that asks for more time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The service has yet to be started.
    Starting {
        /// When; `None`: now, and the driver has been told.
        due: Option<Duration>,
    },
    /// The service runs.
    Running {
        /// The main process.
        main: u32,
        /// When it must have said that it is ready, if it has not and must.
        ready_by: Option<Duration>,
        /// A restart is under way, and may take until then.
        reloading: Option<Duration>,
    },
    /// The main process has ended in the middle of a restart: the successor may name itself until
    /// then.
    Between {
        /// Until when.
        until: Duration,
    },
    /// The main process has ended: what it has left behind has to end before anything else happens.
    Clearing {
        /// Whether it was killed already.
        killed: bool,
        /// When more is done about it.
        until: Duration,
    },
    /// No main process is there, and none is started: earlier generations finish their work.
    Stopping,
    /// No generation is left.
    Over,
}
