//! What a process of the service can be told to do, at once or at a step of its life.
//!
//! A new behaviour is a variant here, and a function in one of the modules, which an arm in `perform` calls:
//!
//! | module | acts on |
//! | --- | --- |
//! | `process` | the process: how it ends, signals, variables, memory, children |
//! | `descriptors` | what it has open, the lifeline among it |
//! | `restarter` | its restarter and its predecessor: at [`Step::Built`] or later |

mod descriptors;
mod perform;
mod process;
mod restarter;

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::listeners::Socket;
use super::plan::{Plan, Step};
use crate::hub::Command;

pub(super) use process::answer;
pub use process::spawn_directly;

/// One thing. What comes of it is answered by a line; the words in quotes are that line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Act {
    // --- now, or later ---
    /// Plans another act for a step: "planned".
    On(Step, Box<Act>),
    /// Blocks until it is told to go on ([`Process::go`](crate::hub::Process::go)): "gone on". It panics if it is told anything else.
    Wait,
    /// What one that waits is told by [`Process::go`](crate::hub::Process::go), for one that does not. It is not answered.
    GoOn,
    /// Blocks, and does nothing more.
    Hang,

    // --- how it ends: what ends the process is not answered ---
    /// Exits with that status.
    Exit(i32),
    /// Panics.
    Panic,
    /// Aborts.
    Abort,
    /// Sends itself a signal: "raised".
    Raise(#[serde(with = "signal")] Signal),
    /// Runs its own program as a child, and ends as that does: a wrapper that does not become the program.
    RunAsChild,
    /// Becomes that program, which it names by a descriptor.
    ExecuteByDescriptor(PathBuf),
    /// Leaves a plan for the program that it executes: "left".
    LeavePlan(Plan),

    // --- signals ---
    /// Has a handler that does nothing: "handled".
    Handle(#[serde(with = "signal")] Signal),
    /// Counts how often a signal comes: "counting".
    Count(#[serde(with = "signal")] Signal),
    /// How many have been counted.
    Counted,
    /// Lets a signal do what it does by default: "set".
    Default(#[serde(with = "signal")] Signal),
    /// Blocks a signal in this thread: "blocked".
    Block(#[serde(with = "signal")] Signal),
    /// Asks for a signal when its parent ends: "asked for".
    EndWithParent(#[serde(with = "signal")] Signal),

    // --- the process ---
    /// Sets a variable of its environment: "set".
    SetVariable(String, String),
    /// Removes a variable from its environment: "forgotten".
    ForgetVariable(String),
    /// Goes to a directory: "there".
    ChangeDirectory(PathBuf),
    /// Becomes another user in every respect: "became".
    Become(u32),
    /// Writes its own `oom_score_adj`: "set".
    SetOomScore(i32),
    /// Fills so much memory: "touched".
    TouchMebibytes(usize),
    /// Has this thread start a process. How that ended.
    SpawnDirectly,
    /// Starts one more thread: "started".
    StartThread,
    /// Reaps whatever child ends, in a thread: "started".
    ReapAny,
    /// Starts a shell that inherits all it has. Its process id.
    StartHelper(String),
    /// Tells the service manager these lines, as no helper of the crate does: "told".
    Notify(Vec<String>),

    // --- descriptors ---
    /// Opens a file as a library does that does not know of O_CLOEXEC. The number.
    Leak(PathBuf),
    /// The same under the last number that is allowed from then on. Whether that came about.
    LeakLast(i32),
    /// Opens a file under that number. Whether that came about.
    OpenAs(i32, PathBuf),
    /// Opens so many files: "open".
    OpenFiles(usize),
    /// Leaves itself no more than so many free descriptors: "held".
    SpareDescriptors(usize),
    /// Holds a pipe with that in it, under many numbers: "held".
    HoldPipe(String),
    /// What is in the pipe of the highest number.
    ReadPipe,
    /// Shuts its listeners down, as programs in C stop accepting. How many.
    ShutListenersDown,
    /// Closes the lifeline behind the restarter's back: "closed".
    CloseLifeline,
    /// Writes that to the lifeline.
    SayOnLifeline(String),
    /// Has a connection of its own under the number of the lifeline. What its owner reads, and what comes out of it.
    ReuseLifeline,
    /// Closes what tells of the end of the predecessor: "closed".
    ClosePidfd,
    /// Has a pipe of its own under that number: "reused".
    ReusePidfd,

    // --- the restarter ---
    /// Asks for a restart: "ok".
    Request,
    /// Calls the restart off. Whether there was one.
    Cancel,
    /// Calls a restart off, or makes one on probation final, and refuses further ones: "stopped". The process serves until [`Act::Exit`].
    Stop,
    /// Drops the restarter: "dropped".
    Drop,
    /// Drops a copy of it in a forked child. Whether that took no time.
    DropInAFork,
    /// Builds a restarter again: "ok".
    Build,
    /// Its status as JSON.
    Status,
    /// The successor that the restarter has left behind, and how that has ended.
    Successor,
    /// Gets ready, if it was planned not to: "ok".
    Ready,
    /// Says that it is ready without a restarter: "ok".
    StartupComplete,
    /// The same in another thread.
    StartupCompleteElsewhere,
    /// Corrects what systemd has set. LISTEN_PID.
    FixUpSystemdVariables,

    // --- the predecessor, which the first process does not have ---
    /// Refuses, and says why: "refused", if the predecessor has not killed it before it says so.
    Refuse(String),
    /// Tells so many lines of progress, and refuses with a reason of so many characters: "refused".
    RefuseAtLength { lines: usize, characters: usize },
    /// Tells how far it is: "told".
    Progress(String),
    /// Asks for the state: "asked".
    Pull,
    /// Receives the state. What it says of its origin.
    Receive,
    /// Receives it in a thread that waits until there is a file: "started".
    ReceiveAfter(PathBuf),

    // --- sockets ---
    /// Asks for one more socket: "ok".
    Claim(Socket),
    /// Binds one more socket of that name: "bound".
    Bind(String),
    /// Gives a socket up. Whether there was one.
    Remove(String),
    /// The names of those that were inherited and not asked for.
    Unclaimed,
    /// How many connections it has.
    Connections,

    // --- others ---
    /// Asks another service for its status, and says its state.
    StatusOf(PathBuf),
    /// Asks another service for a restart, and waits so long. The process id.
    RestartOf(PathBuf, Duration),
    /// How long the loop was away from its poll at most, in microseconds.
    Turns,
    /// Takes the last setting back. Whether there was one.
    ForgetSetting,

    // --- acts that the test program has itself ---
    /// What its capability understands ([`Capability::perform`](super::Capability::perform)).
    #[serde(untagged)]
    Other(serde_json::Value),
}

impl Command for Act {}

impl Act {
    /// The act of a test program.
    pub fn other<A: DeserializeOwned>(&self) -> Option<A> {
        match self {
            Act::Other(act) => Some(A::deserialize(act).expect("an act of this program")),
            _ => None,
        }
    }
}

/// Signals by their names.
mod signal {
    use nix::sys::signal::Signal;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(signal: &Signal, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(signal.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Signal, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
