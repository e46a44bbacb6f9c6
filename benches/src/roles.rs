//! What this program is when it is not the one that measures: a service of ours or of a peer, or a part of a limit.
//!
//! A role says what happens in lines on its standard output, a word and its process id first; its successors inherit that.

mod datagrams;
#[cfg(feature = "ecdysis")]
mod ecdysis;
#[cfg(feature = "tokio")]
mod http;
mod kernel_memory;
mod limit;
mod ours;
#[cfg(feature = "shellflip")]
mod shellflip;
mod work;

use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pollflip::guard::Guard;
use serde::{Deserialize, Serialize};

use crate::plan::Peer;

pub use datagrams::{Figures, Route};
pub use work::Gap;

/// Names the role in the environment.
pub const VARIABLE: &str = "POLLFLIP_BENCH_ROLE";

pub type Failed = Box<dyn std::error::Error>;

/// What a role is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub role: Role,
    pub socket: PathBuf,
    /// How much memory the first generation touches, in bytes.
    pub memory: usize,
    pub occupation: Occupation,
    pub listeners: usize,
    /// While this file is there a successor ends before it is ready.
    pub fails: Option<PathBuf>,
    /// A peer serves HTTP there.
    pub http: Option<SocketAddr>,
    /// How much state is handed over, and in which way.
    pub state: usize,
    pub way: Way,
    /// It has a guard.
    pub guarded: bool,
    pub udp: Udp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Role {
    /// Writes a byte and ends.
    #[default]
    Byte,
    /// Starts processes that write a byte.
    Spawner,
    /// Passes bare descriptors to a process that counts them.
    Passer,
    Counter,
    /// Takes state in, through its standard input or from a file that is named there.
    PipeReader,
    FileMapper,
    /// Does nothing.
    Sleeper,
    Ours,
    Shellflip,
    Ecdysis,
    /// Polls a library that has nothing to do.
    OursIdle,
    ShellflipIdle,
    /// Sends itself datagrams on several routes.
    Datagrams,
    /// Makes many sockets or groups.
    KernelMemory,
}

/// What the old process does beside restarting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Occupation {
    #[default]
    Nothing,
    /// A thread keeps writing to the memory.
    Writes,
    /// The main thread runs a 60 Hz loop that writes to the memory.
    Frames,
}

/// How state goes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Way {
    /// Copied into what the library offers, and read into fresh memory.
    #[default]
    Copied,
    /// Copied into a blob, and mapped.
    Mapped,
    /// It is in a memory file of the program's own.
    OwnFile,
}

/// What a service has of UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Udp {
    #[default]
    Nothing,
    Plain,
    /// A group of eight.
    Group,
}

impl Role {
    pub fn of(peer: Peer) -> Role {
        match peer {
            Peer::Limit => Role::Spawner,
            Peer::Ours => Role::Ours,
            Peer::Shellflip => Role::Shellflip,
            Peer::Ecdysis => Role::Ecdysis,
        }
    }
}

/// Plays the role that the environment names, if it does.
pub fn play() -> Option<ExitCode> {
    let text = env::var(VARIABLE).ok()?;
    let result = serde_json::from_str(&text).map_err(Failed::from).and_then(|settings: Settings| act(&settings));
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("failed", &error.to_string());
            ExitCode::FAILURE
        }
    })
}

fn act(settings: &Settings) -> Result<(), Failed> {
    if settings.guarded && Guard::new().enter()?.is_some() {
        return Ok(());
    }
    if settings.listeners > 0 {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    match settings.role {
        Role::Byte => Ok(io::stdout().write_all(b"x")?),
        Role::Spawner => limit::spawn(settings),
        Role::Passer => limit::pass(settings),
        Role::Counter => limit::count(settings),
        Role::PipeReader => limit::read_pipe(settings),
        Role::FileMapper => limit::map_file(settings),
        Role::Sleeper => {
            say("ready", "");
            std::thread::sleep(Duration::MAX);
            Ok(())
        }
        Role::Ours => ours::serve(settings),
        Role::OursIdle => ours::poll_idle(settings),
        Role::Datagrams => datagrams::measure(settings),
        Role::KernelMemory => kernel_memory::measure(settings),
        #[cfg(feature = "shellflip")]
        Role::Shellflip => shellflip::serve(settings),
        #[cfg(feature = "shellflip")]
        Role::ShellflipIdle => shellflip::poll_idle(settings),
        #[cfg(feature = "ecdysis")]
        Role::Ecdysis => ecdysis::serve(settings),
        #[allow(unreachable_patterns, reason = "without the peers it is reached")]
        other => Err(format!("{other:?} is not built").into()),
    }
}

/// One line for who measures.
pub fn say(word: &str, text: &str) {
    // Who measured may be gone; then nobody minds.
    let _ = io::stdout().write_all(format!("{word} {} {text}\n", std::process::id()).as_bytes());
}

impl Settings {
    /// Ends a successor that is to fail.
    fn fail_if_told(&self) {
        if self.fails.as_ref().is_some_and(|path| path.exists()) {
            std::process::exit(3);
        }
    }
}

/// The address of a listener: the loopback network is large, and each has an address of its own.
fn address(settings: &Settings, number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 77, (number >> 8) as u8, number as u8), 7000 + settings.role as u16))
}
