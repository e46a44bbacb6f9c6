//! Restart a running process without dropping a connection, a request or its state: for programs with an event loop of their own.
//!
//! A new process is started beside the old one, gets its listening sockets, says when it can serve, and is given the service. If it
//! fails at any point before that, the old one goes on as if nothing had happened. There is no async runtime and no callback framework:
//! one object, the [`Restarter`], with one descriptor that fits into any loop. Linux 5.4 or newer.
//!
//! # The shortest complete program
//!
//! ```no_run
//! use mio::{Events, Interest, Poll, Token, net::TcpListener};
//! use pollflip::{Event, RestartConfig};
//!
//! const LISTENER: Token = Token(0);
//! const RESTARTER: Token = Token(1);
//!
//! fn main() -> std::io::Result<()> {
//!     let mut restarter = RestartConfig::new().coordination_socket("/tmp/hello.sock").build()?;
//!     // Inherited from the predecessor, or bound fresh.
//!     let listener = restarter.sockets().tcp_listener("hello", "127.0.0.1:7000")?;
//!     let mut listener = TcpListener::from_std(listener);
//!
//!     let mut poll = Poll::new()?;
//!     poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
//!     poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
//!     restarter.ready()?;
//!
//!     let mut events = Events::with_capacity(64);
//!     loop {
//!         match poll.poll(&mut events, None) {
//!             // The end of a child and SIGCONT, among others, interrupt it.
//!             Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error),
//!             _ => {}
//!         }
//!         for event in &events {
//!             match event.token() {
//!                 LISTENER => while let Ok((connection, _)) = listener.accept() { /* serve it */ drop(connection) },
//!                 _ => while let Some(event) = restarter.poll() {
//!                     match event {
//!                         Event::HandedOff(_) => poll.registry().deregister(&mut listener)?,
//!                         Event::Resumed(_) => poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?,
//!                         Event::Completed(_) => return Ok(()), // a real service finishes its connections first
//!                         Event::Failed(why) => eprintln!("still here: {why}"),
//!                         _ => {}
//!                     }
//!                 },
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! `kill -USR1` restarts it, and so does [`request_restart`](restart_coordination_socket::request_restart) from a `restart` subcommand.
//!
//! # The states of a process
//!
//! ```text
//!  starting ─ready()─▶ Idle ─request─▶ Spawning ─▶ AwaitingReady ─▶ Handoff ─(probation)─▶ committed: finish the old work, exit
//!                       ▲                 │              │             │
//!                       └─────────────────┴──────────────┴─────────────┘
//!                         it did not start, died, hung, refused, …: serve on, and tell the asker why
//! ```
//!
//! # Ways to embed it
//!
//! - Registered in a `mio::Poll`, as above: it is a `mio::event::Source`.
//! - In any other reactor: it is `AsFd`. When the descriptor is readable (level- or edge-triggered), call [`Restarter::poll`] until it
//!   returns `None`. There is no timeout to compute: deadlines make the descriptor readable too.
//! - In a loop that ticks: call [`Restarter::poll`] once a tick until it returns `None`. Idle, that is one system call.
//! - In an async executor: [`RestartTask`] is a `Future` that is polled beside other work. It needs no runtime.
//!
//! # Where one pid is known
//!
//! A container, runit, s6, supervisord and a terminal take the end of the first process for the end of the service. There the [`guard`] is
//! the pid that stays: a part of the program, or the program `pollflip guard -- PROGRAM`.
//!
//! # The order of a start
//!
//! [`fixup_systemd_env`] (only if something else reads systemd's sockets) · [`RestartConfig::build`] · [`Restarter::sockets`] · give
//! privileges up · the slow initialisation, with [`Predecessor::progress`] · [`Predecessor::receive`] if there is state ·
//! [`Restarter::ready`] · serve. What goes wrong on the way is best told with [`Predecessor::refuse`]: whoever asked for the restart sees
//! that reason, and of a process that just exits only its status.
//!
//! # Reading the source
//!
//! The modules in the order of their `mod` lines: each uses only those above it.

mod error;
mod machine;
mod wire;
mod sys;
mod notify;
mod systemd;
mod lifeline;
mod handover;
mod predecessor;
mod sockets;
mod config;
mod exec;
pub mod restart_coordination_socket;
mod restarter;
mod gate;
mod task;
pub mod guard;
pub mod shutdown;
pub mod guide;
pub mod migrating;

pub use crate::config::RestartConfig;
pub use crate::error::{ChildSpawnError, Error, Exit, Failure, Refusal, RequestError};
pub use crate::gate::{Accept, Gate};
pub use crate::handover::{Blob, Handover, Inheritance, Map};
pub use crate::predecessor::{Predecessor, startup_complete};
pub use crate::restart_coordination_socket::{Outcome, ServiceState, Status};
pub use crate::restarter::{Event, Restarter, Successor};
pub use crate::shutdown::{OnShutdown, Shutdown, ShutdownCoordinator, ShutdownHandle, ShutdownMoment, ShutdownSignal, WeakShutdownHandle};
pub use crate::sockets::Sockets;
pub use crate::systemd::fixup_systemd_env;
pub use crate::task::{HookResult, LifecycleHandler, RestartTask, spawn_restart_task};

/// For this crate's tests and fuzz targets; exempt from semantic versioning.
#[doc(hidden)]
pub mod internals {
    /// The state machine.
    pub mod machine {
        pub use crate::error::refusals;
        pub use crate::machine::*;
    }
    /// The messages.
    pub mod wire {
        pub use crate::wire::*;
    }
    /// What a service tells its guard.
    pub mod notify {
        pub use crate::notify::*;
    }
    /// A restarter on a simulated system.
    pub mod simulation {
        pub use crate::restarter::simulation::*;
    }
}

/// The README's program is compiled too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[allow(missing_debug_implementations, reason = "it is there for its documentation")]
pub struct Readme;
