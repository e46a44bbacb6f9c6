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
/// The whole table, made from the code by `tests/supervision_table.rs`; a pair that is not in it
/// does nothing:
///
// table:begin
/// | in                                     | fact                                         | then               | deeds |
/// | ---                                    | ---                                          | ---                | --- |
/// | Starting(first), Starting(again)       | Started                                      | Running            | Main |
/// | Starting(first)                        | StartFailed                                  | Over               | |
/// | Starting(first)                        | Told                                         | same, remembered   | |
/// | Starting(first), Starting(again)       | Told, and it has heard                       | same, remembered   | |
/// | Starting(later)                        | MAINPID of another                           | Running            | Main |
/// | Starting(later), Running(not ready)    | MAINPID of one that has heard                | Running            | Main |
/// | Running(reloading), Between            | MAINPID of one that has heard                | Running            | Main |
/// | Clearing(told), Stopping               | MAINPID of one that has heard                | Running            | Main |
/// | Starting(later), Starting(again)       | Ended, the last earlier one                  | same, remembered   | |
/// | Running, Running(reloading), Between   | Ended, the last earlier one                  | same, remembered   | |
/// | Clearing(told), Clearing(killed)       | Ended, the last earlier one                  | same, remembered   | |
/// | Starting(later)                        | Told                                         | Stopping           | Signal(earlier) |
/// | Starting(later)                        | Told, and it has heard                       | Stopping           | |
/// | Starting(later)                        | Timeout                                      | Starting(again)    | Start |
/// | Starting(again)                        | StartFailed                                  | Starting(later)    | StartsAgain |
/// | Starting(again), Clearing(told)        | Told                                         | same               | Signal(earlier) |
/// | Clearing(killed), Stopping             | Told                                         | same               | Signal(earlier) |
/// | Running                                | MAINPID of another (not told)                | same               | Main |
/// | Running                                | MAINPID of another (told)                    | same               | Main, Signal(it) |
/// | Running                                | MAINPID of one that has heard                | same               | Main |
/// | Running, Running(not ready)            | RELOADING                                    | Running(reloading) | |
/// | Running, Running(not ready)            | Ended, the main one                          | Clearing(told)     | SignalStrays |
/// | Running, Running(reloading)            | Told                                         | same               | Signal(earlier), Signal(main) |
/// | Running, Running(not ready)            | Told, and it has heard (not told)            | same, remembered   | |
/// | Running(reloading), Clearing(told)     | Told, and it has heard (not told)            | same, remembered   | |
/// | Clearing(killed)                       | Told, and it has heard (not told)            | same, remembered   | |
/// | Running, Running(not ready)            | Signalled                                    | same               | Signal(main) |
/// | Running(reloading)                     | Signalled                                    | same               | Signal(main) |
/// | Running(not ready), Running(reloading) | MAINPID of another (not told)                | Running            | Main |
/// | Between, Clearing(told)                | MAINPID of another (not told)                | Running            | Main |
/// | Running(not ready), Running(reloading) | MAINPID of another (told)                    | Running            | Main, Signal(it) |
/// | Between, Clearing(told), Stopping      | MAINPID of another (told)                    | Running            | Main, Signal(it) |
/// | Running(not ready), Running(reloading) | READY                                        | Running            | |
/// | Running(not ready), Running(reloading) | EXTEND_TIMEOUT_USEC                          | same, remembered   | |
/// | Between                                | EXTEND_TIMEOUT_USEC                          | same, remembered   | |
/// | Running(not ready)                     | Told                                         | same               | Signal(main) |
/// | Running(not ready)                     | Timeout                                      | Running            | NotReady, Signal(main, KILL) |
/// | Running(reloading)                     | STOPPING                                     | Running            | |
/// | Running(reloading)                     | Ended, the main one (not told)               | Between            | AwaitsSuccessor |
/// | Running(reloading)                     | Ended, the main one (told)                   | Between            | AwaitsSuccessor, TellStrays |
/// | Between, Clearing(told)                | Alone (again)                                | Starting(later)    | StartsAgain |
/// | Clearing(killed)                       | Alone (again)                                | Starting(later)    | StartsAgain |
/// | Between, Clearing(told)                | Alone (no more, told)                        | Stopping           | |
/// | Clearing(killed)                       | Alone (no more, told)                        | Stopping           | |
/// | Between, Clearing(told)                | Alone (struck out)                           | Stopping           | StruckOut |
/// | Clearing(killed)                       | Alone (struck out)                           | Stopping           | StruckOut |
/// | Between                                | Told                                         | same               | Signal(earlier), TellStrays |
/// | Between                                | Told, and it has heard                       | same               | TellStrays |
/// | Between, Clearing(told)                | Timeout                                      | Clearing(killed)   | KillsStrays, SignalStrays(KILL) |
/// | Clearing(killed)                       | Timeout (again)                              | Starting(later)    | StraysStay, StartsAgain |
/// | Clearing(killed)                       | Timeout (no more, told)                      | Stopping           | StraysStay |
/// | Clearing(killed)                       | Timeout (struck out)                         | Stopping           | StraysStay, StruckOut |
/// | Stopping                               | MAINPID of another (no more, struck out)     | Running            | Main |
/// | Stopping                               | Ended, the last earlier one                  | Clearing(told)     | SignalStrays |
/// | Stopping                               | Told, and it has heard (no more, struck out) | same, remembered   | |
// table:end
///
/// Where the table says *Stopping*, an earlier generation lives; if none does, it is *Over* at
/// once.
///
/// *Told to end* is a state beside these: from then on nothing is started, and each process that
/// becomes the main process is sent the same signal at once, unless it has heard it. What former
/// main processes say is not listened to. A stage that has a time limit has it moved by a
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
