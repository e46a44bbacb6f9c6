//! The words of the takeover machine: where it stands, and what goes in and out.
//!
//! Knows: which facts belong to which stage. Does not know: how they change; that is [`Takeover`](super::Takeover)'s.

use std::time::Duration;

/// How far a process is on its way to the service.
///
/// ```text
///           SayReady             Granted           Commit, PredecessorEnded,
///                                                  Timeout (lost, no probation)
///  Starting ────────▶ ReadySent ────────▶ Granted ─────────────────────────────▶ Final
///    │    │             │    │
///    │    └─────────────┼────┴── GivenUp, Timeout (lost) ──▶ GivenUp
///    │                  │
///    │ PredecessorEnded │ PredecessorEnded
///    ▼                  ▼
///  Alone(starting) ──▶ Alone(ready): the service is this process's
///             SayReady
/// ```
///
/// A first generation is `Alone` from the start. The whole table, made from the code by
/// `tests/pure/tests/machine_table`; a pair that is not in it does nothing:
///
// takeover:begin
/// | in                                 | input                  | then                | out |
/// | ---                                | ---                    | ---                 | --- |
/// | Starting(NotAsked)                 | PullPrecopy            | Starting(Precopy)   | SendPrecopyPull |
/// | Starting(Precopy, open)            | PrecopyComplete        | Starting(Precopied) | |
/// | Starting(NotAsked, Precopy)        | Pull                   | Starting(Asked)     | SendPull |
/// | Starting(Precopied)                | Pull                   | Starting(Asked)     | SendPull |
/// | Starting(Asked, open)              | StateComplete          | Starting(Arrived)   | |
/// | Starting(Precopy, Precopied, open) | StateUnusable          | Starting(Unusable)  | SendRefuse, CloseUntaken |
/// | Starting(Asked, open)              | StateUnusable          | Starting(Unusable)  | SendRefuse, CloseUntaken |
/// | Starting(Arrived)                  | StateTaken             | Starting(Taken)     | |
/// | Starting(NotAsked, Taken)          | SayReady               | ReadySent           | SendReady |
/// | Starting, ReadySent                | SayRefuse              | same                | SendRefuse |
/// | Starting                           | GivenUp                | GivenUp             | CloseUntaken, GivenUp |
/// | Starting(NotAsked, Arrived, open)  | LineClosed             | same, lost (1 s)    | |
/// | Starting(Taken, Unusable, open)    | LineClosed             | same, lost (1 s)    | |
/// | ReadySent(open)                    | LineClosed             | same, lost (1 s)    | |
/// | Starting(Precopy, Precopied, open) | LineClosed             | same, lost (1 s)    | CloseUntaken |
/// | Starting(Asked, open)              | LineClosed             | same, lost (1 s)    | CloseUntaken |
/// | Starting(NotAsked, Arrived, open)  | LineClosed by us       | same, lost (2 s)    | |
/// | Starting(Taken, Unusable, open)    | LineClosed by us       | same, lost (2 s)    | |
/// | ReadySent(open), Granted(open)     | LineClosed by us       | same, lost (2 s)    | |
/// | Starting(Precopy, Precopied, open) | LineClosed by us       | same, lost (2 s)    | CloseUntaken |
/// | Starting(Asked, open)              | LineClosed by us       | same, lost (2 s)    | CloseUntaken |
/// | Starting(lost)                     | PredecessorDying       | same, due in 1 s    | |
/// | ReadySent(lost), Granted(lost)     | PredecessorDying       | same, due in 1 s    | |
/// | Starting(NotAsked, Precopy)        | PredecessorEnded       | Alone(starting)     | CloseUntaken, Sole, Answer, PredecessorGone |
/// | Starting(Precopied, Asked)         | PredecessorEnded       | Alone(starting)     | CloseUntaken, Sole, Answer, PredecessorGone |
/// | Starting(Arrived)                  | PredecessorEnded       | Alone(Arrived)      | Sole, Answer, PredecessorGone |
/// | Starting(Taken, Unusable)          | PredecessorEnded       | Alone(starting)     | Sole, Answer, PredecessorGone |
/// | Starting(lost)                     | Timeout                | GivenUp             | CloseUntaken, GivenUp |
/// | ReadySent(open)                    | Granted                | Granted             | CloseUntaken, Open, Granted |
/// | ReadySent                          | GivenUp                | GivenUp             | CloseUntaken, GivenUp |
/// | ReadySent                          | PredecessorEnded       | Alone(ready)        | CloseUntaken, Open, TakeService(PID), Answer, PredecessorGone |
/// | ReadySent(lost)                    | Timeout                | GivenUp             | CloseUntaken, GivenUp |
/// | Granted(open, lost)                | Attach                 | same                | Open |
/// | Granted(silent)                    | Attach                 | same                | Open, Answer |
/// | Granted(open)                      | Commit                 | Final               | TakeService, Answer, Committed |
/// | Granted(open)                      | LineClosed             | same, lost (2 s)    | |
/// | Granted                            | PredecessorEnded       | Final(ended)        | TakeService(PID), Answer, Committed, MarksFreed, PredecessorGone |
/// | Granted(open)                      | Timeout                | same, due in 1 s    | |
/// | Granted(lost)                      | Timeout (no probation) | Final               | LineLost, TakeService, Answer, Committed |
/// | Granted(lost)                      | Timeout (probation)    | same, silent        | LineLost, Answer |
/// | Granted, Final, Alone(ready)       | GenerationEnded        | same                | MarksFreed |
/// | Final, Alone(ready)                | Attach                 | same                | Open, TakeService, Answer |
/// | Final(living)                      | PredecessorEnded       | same, ended         | MarksFreed, PredecessorGone |
/// | Alone(starting, Arrived)           | Attach                 | same                | Sole, Answer |
/// | Alone(Arrived)                     | StateTaken             | Alone(starting)     | |
/// | Alone(starting)                    | SayReady (first)       | Alone(ready)        | TellManager, Open, TakeService, Answer |
/// | Alone(starting)                    | SayReady (successor)   | Alone(ready)        | CloseUntaken, Open, TakeService(PID), Answer |
/// | GivenUp(living)                    | PredecessorEnded       | same, ended         | PredecessorGone |
// takeover:end
///
/// `open`, `lost` and `silent` are the lifeline; `living` and `ended` are the predecessor.
/// `Alone(Arrived)` has a state that the program must take before it is ready. `(first)` is a first
/// generation. The seconds say when `Timeout` has an effect next. `TakeService(PID)` also names the main
/// PID to the service manager. `Attach` takes back what an earlier restarter has not carried out, except
/// for notices; if the main PID is still to be named, its `TakeService` is a `TakeService(PID)`.
///
/// *Lost* is a lifeline that is closed while the predecessor lives. The predecessor may be dying: a
/// process that gives gigabytes back closes its descriptors first. `PredecessorDying` says so and
/// postpones the verdict. A grant cannot be taken back without a probation, so a lifeline that stays
/// lost after such a grant counts as the commit. With a probation nothing more is heard until the
/// predecessor ends (`silent`); this process then answers on the coordination socket, since nobody
/// knows whether the predecessor still does.
///
/// *MarksFreed* is the end of an earlier generation, seen by the process that serves: UDP datagrams that bear its mark have nobody who
/// reads them. Before the grant the predecessor sees to that, and `Open` makes up for what it may have missed.
///
/// What the predecessor grants or commits before it was asked to is not heard. `SayReady` is refused
/// while a state that was asked for has not been taken: see [`Takeover::may_be_ready`](super::Takeover::may_be_ready).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The process initialises.
    Starting {
        /// The lifeline.
        line: Line,
        /// The state of the predecessor.
        state: Inbound,
    },
    /// The process can serve, has said so, and waits for the grant.
    ReadySent {
        /// The lifeline.
        line: Line,
    },
    /// The service is granted and can still be taken back.
    Granted {
        /// The lifeline.
        line: Line,
        /// When to look at the lifeline although nothing has come over it: one that this process
        /// closed itself does not announce its end.
        look_at: Duration,
    },
    /// The service is this process's.
    Final {
        /// Whether the predecessor has ended.
        predecessor_ended: bool,
    },
    /// No predecessor lives: there was none, or it has ended before the grant.
    Alone {
        /// The state of the predecessor.
        state: Inbound,
        /// Whether this process can serve.
        ready: bool,
    },
    /// The predecessor has given this process up. The process should end.
    GivenUp {
        /// Whether the predecessor has ended.
        predecessor_ended: bool,
    },
}

/// The lifeline to the predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Messages can come.
    Open,
    /// It is closed, and the predecessor lives.
    Lost {
        /// When that is a verdict.
        until: Duration,
    },
    /// It is closed, and the predecessor lives on: only its end will be heard of.
    Silent,
}

/// The state of the predecessor, on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbound {
    /// It has not been asked for, or cannot come any more.
    NotAsked,
    /// What can go ahead of it has been asked for, and comes.
    Precopy,
    /// What can go ahead of it is here. What changes of that still comes.
    Precopied,
    /// It has been asked for.
    Asked,
    /// All of it is here, and the program has not taken it.
    Arrived,
    /// The program has it.
    Taken,
    /// It came and cannot be used.
    Unusable,
}

impl Inbound {
    /// Whether some of it may be here, and the rest has yet to come.
    pub fn is_coming(self) -> bool {
        match self {
            Inbound::Precopy | Inbound::Precopied | Inbound::Asked => true,
            Inbound::NotAsked | Inbound::Arrived | Inbound::Taken | Inbound::Unusable => false,
        }
    }
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeoverInput {
    /// A restarter is built in this process: it has yet to learn what holds already.
    Attach,
    /// The program asks for what can go ahead of the state.
    PullPrecopy,
    /// All that can go ahead has come.
    PrecopyComplete,
    /// The program asks for the state.
    Pull,
    /// All of the state has come.
    StateComplete,
    /// What has come cannot be used.
    StateUnusable,
    /// The program takes the state.
    StateTaken,
    /// The program can serve.
    SayReady,
    /// The program will not take over.
    SayRefuse,
    /// The predecessor grants the service.
    Granted,
    /// The predecessor says that this is final.
    Commit,
    /// The predecessor says that this process is given up.
    GivenUp,
    /// The lifeline is closed.
    LineClosed {
        /// By this process.
        by_us: bool,
    },
    /// A generation before the predecessor has ended.
    GenerationEnded,
    /// The end of the predecessor has begun and is not over.
    PredecessorDying,
    /// The predecessor has ended.
    PredecessorEnded,
    /// The clock has moved; does something only when [`Takeover::poll_timeout`](super::Takeover::poll_timeout) has passed.
    Timeout,
}

/// Carried out before anything else is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Ask the predecessor for what can go ahead of the state.
    SendPrecopyPull,
    /// Ask the predecessor for the state.
    SendPull,
    /// Tell the predecessor that this process can serve.
    SendReady,
    /// Tell the predecessor that this process will not take over.
    SendRefuse,
    /// Close what of the state nobody has taken, or can take any more.
    CloseUntaken,
    /// Tell the service manager that the service is ready, for the first time.
    TellManager,
}

/// What the loop is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeoverOutput {
    /// No other process has a claim to the service, although this one is not ready.
    Sole,
    /// The program may serve.
    Open,
    /// An earlier generation has ended whose marks are this process's to free.
    MarksFreed,
    /// Answer on the coordination socket that the predecessor had.
    Answer,
    /// The service is this process's: its pid file, the paths that have had their day.
    TakeService {
        /// The service manager has yet to learn the main PID: its main process could not say it.
        name_main_pid: bool,
    },
    /// For the user to know.
    Notice(TakeoverNotice),
}

/// What the user must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the event of the same name")]
pub enum TakeoverNotice {
    Granted,
    Committed,
    GivenUp,
    /// The lifeline stays lost after the grant.
    LineLost,
    PredecessorGone,
}
