//! Restart a running process without dropping a connection, a request or its state: for programs
//! with a loop of their own.
//!
//! A successor is started beside the process that serves. It gets the listening sockets, says when
//! it can serve, and is given the service. If it fails before that, its predecessor keeps serving,
//! and the one who asked is told why. There is no async runtime and no callback framework. Linux
//! 5.4 or newer; off Linux it compiles and serves, and each restart is
//! [refused](Refusal::Unsupported).
//!
//! | to | read |
//! | --- | --- |
//! | write a program | this page, then the contract of [`Restarter`], then [`recipes`] for other shapes |
//! | hand state and connections over | [`Handover`] |
//! | come back after a `kill -9` with all connections | [`RestartConfig::keep`] |
//! | go on there where each connection was | [`ledger`] |
//! | deploy and operate it | [`guide`] |
//! | find out what is wrong | [`troubleshooting`] |
//! | come from shellflip, tableflip or ecdysis | [`migrating`] |
//!
//! # The shortest complete program
//!
//! ```no_run
//! use mio::{Events, Interest, Poll, Token, net::TcpListener};
//! use pollflip::{Event, Gate, RestartConfig};
//! use std::io::{ErrorKind, Write};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pid = std::process::id();
//!     let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
//!     let mut poll = Poll::new()?;
//!     let mut restarter = RestartConfig::new().build()?;
//!     poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
//!     // Of the old process if there is one, or else bound. The gate is shut until this one serves.
//!     let listener = restarter.sockets().tcp_listener("hello", address)?;
//!     let address = listener.local_addr()?;
//!     let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
//!     restarter.ready()?; // from here on the old process may leave
//!     gate.follow(&restarter, poll.registry())?;
//!     println!("listening on {address}, pid {pid}");
//!     let mut events = Events::with_capacity(64);
//!     while !gate.is_closed() {
//!         match poll.poll(&mut events, None) {
//!             Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
//!             _ => {}
//!         }
//!         while let Some(event) = restarter.poll() {
//!             gate.follow(&restarter, poll.registry())?;
//!             match event {
//!                 Event::StateRequested(state) => state.send(), // none; a later release may have some
//!                 Event::Spawned(new) => println!("{pid}: process {new} is getting ready"),
//!                 Event::Failed(why) => println!("{pid}: goes on: {why}"),
//!                 Event::Completed(new) => println!("{pid}: process {new} serves, this one ends"),
//!                 _ => {}
//!             }
//!         }
//!         while let Ok(Some((mut client, _))) = gate.accept() {
//!             let _ = writeln!(client, "hello from process {pid}");
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! `kill -USR1` restarts it. With [`RestartConfig::coordination_socket`], so does
//! [`request_restart`](restart_coordination_socket::request_restart) from a `restart` subcommand.
//! It has no connections that outlive a turn of its loop. A server that has some ends when the gate
//! is closed and the last connection is over: `examples/restarter.rs`.
//!
//! # Ways to embed it
//!
//! | the loop | how |
//! | --- | --- |
//! | `mio::Poll` | [`Restarter`] is a `mio::event::Source`; a [`Gate`] opens and shuts the listener |
//! | any other reactor | the descriptor of [`Restarter`] (`AsFd`), level- or edge-triggered: when it is readable, call [`Restarter::poll`] until it returns `None` |
//! | a fixed tick | call [`Restarter::poll`] once a tick until it returns `None`; idle, that is one system call |
//! | a thread that blocks | [`Restarter::wait`] |
//! | an async executor | [`RestartTask`] |
//!
//! There is no timeout to compute: deadlines make the descriptor readable too.
//!
//! # As a task beside other work
//!
//! [`RestartTask`] is a future for any executor, and needs no runtime. It resolves when a restart
//! has succeeded. Its first poll says that this process is ready; [`RestartTask::ready`] says so
//! earlier and waits for the answer. So call that before the first connection is accepted, or
//! [`startup_complete`], which does the same and blocks.
//!
//! ```ignore
//! use pollflip::RestartConfig;
//! use std::{error::Error, time::Duration};
//!
//! async fn serve() -> Result<(), Box<dyn Error>> {
//!     let mut task = RestartConfig::new().try_into_restart_task()?; // restarted by SIGUSR1
//!     let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
//!     let listener = task.restarter().sockets().tcp_listener("echo", address)?;
//!     let listener = tokio::net::TcpListener::from_std(listener)?;
//!     task.ready().await?; // the predecessor accepts no more, and this process does
//!     println!("listening on {}, pid {}", listener.local_addr()?, std::process::id());
//!     loop {
//!         tokio::select! {
//!             accepted = listener.accept() => match accepted {
//!                 Ok((connection, _)) => drop(tokio::spawn(async move { drop(connection) })), // serve it
//!                 Err(why) => {
//!                     eprintln!("cannot accept now: {why}"); // too few descriptors, most likely
//!                     tokio::time::sleep(Duration::from_millis(100)).await;
//!                 }
//!             },
//!             outcome = &mut task => match outcome {
//!                 Ok(successor) => {
//!                     println!("process {} serves", successor.pid());
//!                     return Ok(()); // a real service finishes its connections first
//!                 }
//!                 Err(why) => eprintln!("{why}"), // this process keeps serving, and the task stays pending
//!             },
//!         }
//!     }
//! }
//! ```
//!
//! Hooks at the steps of a restart, for state above all, are a [`LifecycleHandler`].
//!
//! # The end
//!
//! A process that has been replaced finishes its work, and so does one that is told to stop.
//! [`ShutdownCoordinator`] gives out a handle for each unit of work and waits for all of them, with
//! a time limit, without a runtime. A [`ShutdownSignal`] tells them to finish; it can be polled,
//! awaited, waited for, or registered in a `mio::Poll`.
//!
//! ```
//! use std::{thread, time::Duration};
//! use pollflip::ShutdownCoordinator;
//!
//! let coordinator = ShutdownCoordinator::new();
//! let handle = coordinator.handle();
//! let worker = thread::spawn(move || {
//!     handle.signal().wait(); // or between two requests: `is_shutdown`
//!     drop(handle); // the work is finished
//! });
//! // At `Event::Completed`, or after `Restarter::stop` on SIGTERM:
//! let left = coordinator.shutdown().wait(Duration::from_secs(30));
//! assert_eq!(left, Ok(()));
//! # worker.join().unwrap();
//! ```
//!
//! # The restart thread
//!
//! [`RestartConfig::build`] starts a thread that starts successors. It keeps the rights of that
//! moment. What other threads give up later for themselves (capabilities, a seccomp filter) does
//! not bind it, so that a service which has locked itself down can still be replaced. `setuid` of
//! the C library, `chroot`, and a filter with TSYNC reach every thread, this one too: [fewer
//! privileges](guide#fewer-privileges). A successor is born with the affinity and the priority of
//! that thread, so set those after `build`.
//!
//! # Where one pid is known
//!
//! A container, runit, s6, supervisord and a terminal take the end of the first process for the end
//! of the service. There the [`guard`] is the pid that stays: a part of the program, or the program
//! `pollflip guard -- PROGRAM`.
//!
//! # Killed
//!
//! A guard or systemd starts a service again that was killed or has crashed. With
//! [`RestartConfig::keep`] it gets its listeners back, and the connections and descriptors that the
//! program has given to its [`Keeper`]. A [`Ledger`] has the state of each connection, so that it
//! goes on byte for byte. The peers notice a pause. See [the guide](guide#when-the-service-is-killed).
//!
//! # The order of a start
//!
//! 1. [`fixup_systemd_env`], only if something else reads systemd's sockets
//! 2. [`RestartConfig::build`]
//! 3. [`Restarter::sockets`], and [`Restarter::survivors`] if there is something to keep
//! 4. give privileges up, set the affinity
//! 5. the slow initialisation, with [`Predecessor::progress`]
//! 6. [`Predecessor::receive`], if there is state; before it [`Predecessor::receive_precopy`], if
//!    there are many connections
//! 7. [`Restarter::ready`]
//! 8. serve
//!
//! If something goes wrong on the way, call [`Predecessor::refuse`]: the one who asked for the
//! restart is told the reason. If the process only ends, the asker is told its exit status, and the
//! last error that this crate has returned to it, if there was one.
//!
#![doc = include_str!("../examples/README.md")]
//!
//! # Reading the source
//!
//! The modules in the order of their `mod` lines: each uses only those above it.

mod error;
mod machine;
mod wire;
mod steering;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/mod.rs")]
mod sys;
mod notify;
mod systemd;
mod lifeline;
mod handover;
mod precopy;
mod position;
pub mod ledger;
mod keep;
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
pub mod recipes;
pub mod troubleshooting;
pub mod migrating;

pub use crate::config::RestartConfig;
pub use crate::error::{ChildSpawnError, Error, Exit, Failure, Refusal, RequestError};
pub use crate::gate::{Accept, Gate};
pub use crate::handover::{Arrival, Blob, Handover, Inheritance, Map};
pub use crate::keep::{Keeper, KeptStream, Survivors};
pub use crate::ledger::Ledger;
pub use crate::position::Position;
pub use crate::precopy::{Precopy, Sweep, hang_up};
pub use crate::predecessor::{Predecessor, startup_complete};
pub use crate::restart_coordination_socket::{Outcome, ServiceState, Status};
pub use crate::restarter::{Event, Restarter, Successor};
pub use crate::shutdown::{OnShutdown, Shutdown, ShutdownCoordinator, ShutdownHandle, ShutdownMoment, ShutdownSignal, WeakShutdownHandle};
pub use crate::sockets::{Owner, Sockets, UdpGroup};
pub use crate::steering::Mark;
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
    /// What a ledger is made of.
    pub mod ledger {
        pub use crate::ledger::compare::*;
        pub use crate::ledger::layout::Entry;
    }
    /// What a service tells its guard.
    pub mod notify {
        pub use crate::notify::*;
    }
    /// Marks in datagrams.
    pub mod steering {
        pub use crate::steering::*;
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
