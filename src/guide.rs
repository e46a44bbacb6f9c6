//! How to deploy and operate a service that restarts itself.
//!
//! - [Under systemd](#under-systemd)
//! - [In a container](#in-a-container)
//! - [Under a guard](#under-a-guard)
//! - [When the service is killed](#when-the-service-is-killed)
//! - [Many connections](#many-connections)
//! - [By hand, or under another supervisor](#by-hand-or-under-another-supervisor)
//! - [A deploy, step by step](#a-deploy-step-by-step)
//! - [The `restart` subcommand and its exit statuses](#the-restart-subcommand-and-its-exit-statuses)
//! - [Over a fleet](#over-a-fleet)
//! - [What to watch](#what-to-watch)
//! - [Fewer privileges](#fewer-privileges)
//! - [More rights than the caller](#more-rights-than-the-caller)
//! - [The coordination socket under attack](#the-coordination-socket-under-attack)
//! - [The system calls of the loop](#the-system-calls-of-the-loop)
//!
//! # Under systemd
//!
//! The unit of `examples/systemd/restarter.service`, whole, with the reason for each line and a
//! list of what cannot be set. Beside it lie a socket unit, a service with two sockets of two
//! names, and a drop-in for `Type=notify-reload`.
//!
//! ```ini
#![doc = include_str!("../examples/systemd/restarter.service")]
//! ```
//!
//! ## What systemd is told
//!
//! It is always told by the process that it takes for the main one.
//!
//! | when | message | what `systemctl` shows |
//! | --- | --- | --- |
//! | the first process is ready | `READY` | active |
//! | a restart begins | `RELOADING`, `MONOTONIC_USEC`, `EXTEND_TIMEOUT_USEC`, `STATUS` | reloading |
//! | the successor says how far it is | `STATUS` | its line |
//! | the restart is final | `MAINPID`, `READY`, then `BARRIER` | active, another main PID |
//! | the restart has failed | `READY`, `STATUS` | active, the same main PID, the reason |
//! | a signal asks for one that cannot be | `RELOADING`, `READY`, `STATUS` | the same |
//! | the service ends | `STOPPING`, `EXTEND_TIMEOUT_USEC` again and again | deactivating |
//! | the first process is ready, a restart is final, or what is [kept](#when-the-service-is-killed) changes | `FDSTORE`, `FDSTOREREMOVE` with `FDNAME`, `FDPOLL` | the number of stored descriptors |
//!
//! The predecessor ends only after systemd has taken the new main PID in, or 5 s have passed. With
//! a probation the unit stays reloading until the probation is over.
//!
//! ## How to ask for a restart
//!
//! | `ExecReload=` | `systemctl reload` | use it when |
//! | --- | --- | --- |
//! | `… restart --socket …` | waits, and passes the outcome on as its exit status | you deploy |
//! | `kill -USR1 $MAINPID` | returns at once and always succeeds | there is no coordination socket. A signal that comes while a restart is not final does nothing; only the log says so |
//! | none, with `Type=notify-reload` (systemd 253) | waits, but succeeds after a failed or refused restart too | the reason may be read in `systemctl status` |
//!
//! Two cases in which the exit status of `systemctl reload` misleads:
//!
//! - A unit that is stopped while `ExecReload=… restart` waits is called failed, for the end of
//!   that command. It stays stopped.
//! - `systemctl daemon-reexec` meanwhile, or a time-out of systemctl, ends it with 1 although the
//!   restart succeeds. The deploy script [below](#a-deploy-step-by-step) asks the service itself.
//!
//! ## If nobody listens
//!
//! Without `Type=notify`, or with `NotifyAccess=none`, systemd would take the end of the
//! predecessor for the end of the service and kill the successor. So the service starts and serves,
//! logs a warning, and refuses restarts
//! ([`Refusal::NoNotifyAccess`](crate::Refusal::NoNotifyAccess), exit status 5). There are two
//! remedies: `NotifyAccess=main`, or `PIDFile=` on the path of
//! [`RestartConfig::pid_file`](crate::RestartConfig::pid_file).
//!
//! A process cannot see everything. It does not see `ExitType=cgroup`, which is no remedy alone. It
//! does not see that its messages are thrown away for another reason, such as a wrapper that does
//! not `exec` the program under `NotifyAccess=main`: look for `Got notification message from PID`
//! in the journal.
//!
//! ## How to stop it
//!
//! The unit needs its `ExecStop=`. systemd does not wait for a main process that was not its own
//! child when it was named, and a successor is the child of its predecessor. After a reload,
//! `systemctl stop` would send SIGTERM and at once SIGKILL. The `ExecStop=` of the unit tells the
//! main process and waits for its end, as long as that asks for more time. Earlier processes that
//! are still at work then have `TimeoutStopSec=` for the rest. The line
//! `Supervising process … which is not our child`, which systemd logs at each reload, means this
//! and no more.
//!
//! ## If a process dies
//!
//! | what dies | what happens |
//! | --- | --- |
//! | the successor, before it is ready or on probation | the predecessor keeps serving; the reason is in the log and in `systemctl status` |
//! | the successor, after the commit, while the predecessor drains | the log has an error at once, and the program can see it ([`Event::SuccessorGone`](crate::Event::SuccessorGone)). systemd learns of it when the predecessor has ended, and then starts the service again, with `Restart=on-failure` too. Until then the dead process stays a zombie, so that systemd can see how it ended. Where `PIDFile=` stands in for notifications, systemd goes by the exit status of the predecessor, which must then be a failure |
//! | the predecessor, in the middle of a restart | systemd sees a service whose main process has crashed: it ends what is left, and starts it again with `Restart=on-failure`. With socket activation, clients wait meanwhile. `ExitType=cgroup` with `NotifyAccess=all` does not reliably change that |
//!
//! ## What a reload does not do
//!
//! It does not read the unit again: environment, limits, users and hardening are those of the first
//! process. After a change there, `systemctl restart`.
//!
//! ## A watchdog
//!
//! `WatchdogSec=` is the program's own affair. The main process feeds it: the predecessor until
//! [`Event::Completed`](crate::Event::Completed), the successor from
//! [`Event::Committed`](crate::Event::Committed) on.
//!
//! ## Socket activation
//!
//! [`Sockets`](crate::Sockets) takes sockets by the names in `FileDescriptorName=`. A program that
//! takes them on its own calls [`fixup_systemd_env`](crate::fixup_systemd_env) first. See
//! `examples/integrations/socket_activation.rs`.
//!
//! # In a container
//!
//! A container ends with the process that it was started with, and all others in it are killed. So
//! restarts are refused in a service that is the process which the world takes for the whole:
//!
//! | what is seen when the first generation is built | refused as |
//! | --- | --- |
//! | the service is PID 1 | [`ContainerInit`](crate::Refusal::ContainerInit) |
//! | its parent is an init that ends with its first child, and the service is that child: `docker run --init`, tini, dumb-init, catatonit, bwrap | [`ContainerMain`](crate::Refusal::ContainerMain) |
//! | its parent is outside of its PID namespace: the container shares that of another one (`shareProcessNamespace`) | the same |
//! | its parent is a container runtime: the container shares the PID namespace of the machine | the same |
//! | systemd outside knows the service by other numbers (`unshare --pid`, bwrap in `ExecStart=`) | [`OtherPidNamespace`](crate::Refusal::OtherPidNamespace) |
//!
//! The first process has to be a parent that lives as long as any generation: a
//! [guard](#under-a-guard), which may be the child of such an init, a supervisor that follows a pid
//! file, a shell with other work, or systemd in the container. A process that `docker exec` or
//! `nsenter` has started beside the main process looks like one that the container ends with, and
//! is none: it says so by [`RestartConfig::trust_parent`](crate::RestartConfig::trust_parent). An
//! init of another name, or a shell that has nothing else to do (`sh -c 'server; echo ended'`),
//! ends with its first child too, and is not noticed.
//!
//! ```dockerfile
#![doc = include_str!("../examples/guard/container/Dockerfile")]
//! ```
//!
//! A pod needs neither a root that can be written nor a capability; one directory for the
//! coordination socket is enough:
//!
//! ```yaml
#![doc = include_str!("../examples/guard/container/pod.yaml")]
//! ```
//!
//! In most fleets of containers the new version is a new image, and a rolling update replaces the
//! container: then graceful [`shutdown`](crate::shutdown) is what is needed, and a restart in place
//! serves configuration and certificates.
//!
//! # Under a guard
//!
//! The [guard](crate::guard) is a pid that stays. It starts the service, lives as long as any
//! generation does, passes signals on, and ends as the last generation did. It is the program
//! `pollflip guard -- PROGRAM ARGUMENT…`, or a part of the service itself:
//! [`Guard::from_env`](crate::guard::Guard::from_env) on the first line of `main`, which is active
//! as PID 1 and with `POLLFLIP_GUARD=1`. The program is not published yet:
//! `cargo install --git https://github.com/pollflip/pollflip`.
//!
//! The program guards any service that speaks systemd's notify protocol. It has nothing to set for
//! a service that is restarted by its operator alone. It can also start a service again that has
//! crashed:
//!
//! | option | meaning |
//! | --- | --- |
//! | `--restart no` | the end of the service is the end of the guard; the default |
//! | `--restart on-failure` | a service is started again that ended with another status than 0, or by another signal than HUP, INT, PIPE and TERM |
//! | `--restart always` | a service is started again however it ended, unless the guard was told to end |
//! | `--strikes N/SECONDS` | a service that has ended N times within so long is not started again (5/60) |
//! | `--delay MS` | so long after its end it is started again (100) |
//! | `--ready SECONDS` | a service that has not said by then that it is ready is killed |
//! | `--store N` | so many descriptors are kept for the next start (512; none with `--restart no`) |
//!
//! An end is no strike if somebody has wanted it: by SIGKILL, SIGTERM, SIGINT or SIGHUP, unless the
//! guard has sent that or the kernel has ended the process for memory. A start that fails is a strike,
//! whatever it fails of. So is one that fails of an earlier generation: a process that is stopped
//! (SIGSTOP, a debugger) at the very moment at which it hands the service over still holds the
//! coordination socket. If its successor ends then, each start fails because somebody listens there,
//! until the stopped process goes on or is killed: by then the strikes may have ended the guard.
//!
//! A service that is started again is started by the same path. After a failed deploy that is the
//! broken file, until strikes end it: put the old file back when a restart has failed.
//!
//! | what ends | what the guard does | how the guard ends |
//! | --- | --- | --- |
//! | the last generation exits | it exits | with the same status |
//! | the last generation is killed by a signal | it dies | by the same signal; as PID 1 with 128 and its number |
//! | the main process, while earlier generations finish their work | it waits for them, or starts the service again beside them | as the main process has ended |
//! | the main process, in the middle of a restart | it waits until the successor names itself | as the last generation ends |
//! | the last generation, and how is not known: an earlier one has reaped it (before Linux 6.15) | it takes that for a failure, and says so | with 1; with 0 if it was told to end |
//! | the guard is told to end (TERM, INT, QUIT) | it tells all generations, and each that comes later | as the last generation ends |
//! | the guard is killed | nothing any more; each generation is sent SIGTERM, of a program without this crate only the one that the guard has started | by that signal |
//!
//! If the program cannot be started, the guard ends with 127 if it is not there, and with 126
//! otherwise. If there can be no guard (no `/proc`), it ends with 125.
//!
//! ## What a guard keeps
//!
//! A service that stores descriptors (`FDSTORE=1` of systemd's notify protocol) gets them back when
//! the guard starts it again, however it has ended: from number 3 on, named by `LISTEN_FDNAMES`,
//! behind the sockets that a manager has passed. Any program that knows how to use the store of
//! systemd can use this one.
//!
//! | | |
//! | --- | --- |
//! | how many | the variable `FDSTORE` says it, as with systemd from version 254 on |
//! | which names | printable ASCII without `:`, 255 bytes at most; else the name is `stored` |
//! | all names | 128 KiB together, or what the environment leaves: with more no program can be started; what goes beyond is left out, which the guard says |
//! | the same open file twice | is stored once, under its first name |
//! | what hangs up | is closed, unless it was stored with `FDPOLL=0` |
//! | who may store | the main process and its descendants, but no earlier generation |
//! | the guard is told to end, or starts the service no more | the store is emptied at once |
//! | descriptors that the guard was born with, from number 3 on | only a start with an empty store gets them, besides the sockets of a manager |
//!
//! A start after an end also gets `POLLFLIP_LAST_END` (`exit:3`, `signal:11`, `memory`, `unknown`, or
//! `not-ready` for one that the guard has killed at the limit of `--ready`) and `POLLFLIP_STRIKES`, the
//! number of strikes. A service that has found out what the one before died of, and goes on without
//! that, sends `X_POLLFLIP_ABSOLVED=1`: the last end is no strike then.
//!
//! ## What a guard needs
//!
//! - `/proc` of its own PID namespace.
//! - An abstract unix socket, for which the service must be in the same network namespace. In
//!   another one the service refuses restarts.
//! - A service that stays in the foreground.
//! - Helpers that do not speak the protocol, or are started without `NOTIFY_SOCKET`: each process
//!   below the guard is heard as the service, as with `NotifyAccess=all` of systemd.
//!
//! It needs no directory, no capability and no user. What the service leaves behind when it ends is
//! sent SIGTERM, and SIGKILL after 5 s. The guard says on standard error what goes wrong, and each
//! step with `POLLFLIP_LOG=info` in its environment.
//!
//! ## Under runit
//!
//! `sv 1` restarts, `sv down` ends all generations. The file `run` of the service directory:
//!
//! ```sh
#![doc = include_str!("../examples/guard/runit/run")]
//! ```
//!
//! ## Under s6
//!
//! `s6-svc -1` restarts, `s6-svc -d` ends all generations. The file `run` of the service directory:
//!
//! ```sh
#![doc = include_str!("../examples/guard/s6/run")]
//! ```
//!
//! ## Under supervisord
//!
//! A section of its configuration:
//!
//! ```ini
#![doc = include_str!("../examples/guard/supervisord/restarter.conf")]
//! ```
//!
//! ## Under systemd, with a guard
//!
//! A guard is not needed there. With one the main PID stays, and systemd needs no `ExecStop=`:
//!
//! ```ini
#![doc = include_str!("../examples/guard/systemd/restarter.service")]
//! ```
//!
//! ## Under foreman, overmind and others
//!
//! They read a Procfile:
//!
//! ```text
#![doc = include_str!("../examples/guard/Procfile")]
//! ```
//!
//! ## On a terminal
//!
//! The guard and the service are one job: Ctrl-C, Ctrl-Z, `fg` and a hang-up reach both, and the
//! prompt comes back when the last generation has ended. In the background (`&`, or under a program
//! that starts several) the service has a process group of its own.
//!
//! # When the service is killed
//!
//! A deploy is planned. A crash, `kill -9` and the end for want of memory are not. With
//! [`RestartConfig::keep`](crate::RestartConfig::keep) the service comes back from those too: what it
//! has is held by a *keeper*, which starts it again.
//!
//! | what | how it is kept | what becomes of it |
//! | --- | --- | --- |
//! | listeners of [`Sockets`](crate::Sockets) | on their own, once the service is this process's | clients that connect meanwhile wait in the backlog, and none is refused |
//! | [UDP groups](crate::Sockets::udp_group) | the same, all sockets of it or none | the next start has the slot of the process that was killed, and with it its mark; earlier generations go on with their flows |
//! | descriptors with a name | [`Keeper::keep`](crate::Keeper::keep) | [`Keeper::take`](crate::Keeper::take); a [`Ledger`](crate::Ledger), say |
//! | connections | [`Keeper::keep_stream`](crate::Keeper::keep_stream), [`Keeper::forget_stream`](crate::Keeper::forget_stream) | [`Survivors::streams`](crate::Survivors::streams), each with its [`Position`](crate::Position) |
//!
//! A connection goes on only if the state of it outlives the process too, and is of the very point
//! at which the kernel has the connection. That is what a [`ledger`](crate::ledger) is for. A program
//! without one shuts down what it cannot go on with. The
//! [recipe](crate::recipes#a-service-that-comes-back-from-a-kill) has all three together.
//!
//! Datagrams that come while nobody serves wait, as far as `SO_RCVBUF` reaches, and the next start
//! reads them: those of new flows, those of the process that was killed, and by
//! [`recv_orphaned`](crate::UdpGroup::recv_orphaned) those of generations that have ended meanwhile.
//! What it knows no flow of, it answers with "begin anew"; a
//! [recipe](crate::recipes#udp-flows-that-outlive-a-kill) keeps the flows.
//!
//! Lost are: a connection between `accept` and `keep_stream`, which are microseconds; what the
//! program has in its memory alone; a connection of TLS, whose keys are there; what an old process
//! drains when that is killed. When the machine ends, all of it ends.
//!
//! ## By a guard
//!
//! `pollflip guard --restart on-failure -- PROGRAM`. The guard tells how the process has ended
//! ([`Survivors::cause`](crate::Survivors::cause)), and starts it again after `--delay`, 100 ms
//! unless told otherwise; clients notice the sum of both, so choose a short one.
//!
//! ## By systemd
//!
//! A drop-in for the unit of the service, which is of `Type=notify`:
//!
//! ```ini
#![doc = include_str!("../examples/systemd/keep.conf")]
//! ```
//!
//! When the main process is killed, systemd ends what else is in the unit, generations that drain
//! included, unless the unit has `KillMode=process`.
//!
//! systemd does not tell how the process has ended: [`Exit::Unknown`](crate::Exit::Unknown). When the
//! start limit of the unit is reached, systemd starts it no more and closes all that it holds, the
//! listeners included: the limit in the drop-in is high for that reason. `systemctl restart` ends the
//! service in order: with [`Restarter::stop`](crate::Restarter::stop) the program has nothing held any
//! more.
//!
//! To see it, start `examples/systemd/kill_me.service`. `kill_me --unit kill_me` then kills its main
//! process again and again, and counts what the clients lose.
//!
//! ## Limits
//!
//! | limit | whose | what happens beyond |
//! | --- | --- | --- |
//! | entries: each listener, each name, each socket of a UDP group and one more for it (9 unless told otherwise), 4 for all connections; 4 stay free for the next process, and 1 for what replaces something | `--store`, `FileDescriptorStoreMax=` | [`Keeper::keep`](crate::Keeper::keep) is an error, where the keeper says how many it holds; a warning for a listener or a group |
//! | 100 KiB for all names | this crate's: the kernel executes nothing with 128 KiB | the same |
//! | an open file, under one name | a keeper holds it once | [`Keeper::keep`](crate::Keeper::keep) under a second name is an error |
//! | connections: a quarter of RLIMIT_NOFILE | the kernel's, for users without CAP_SYS_RESOURCE | [`Keeper::keep_stream`](crate::Keeper::keep_stream) is an error, and the connection goes on |
//! | tens of thousands of connections | `net.core.wmem_max` | the same |
//!
//! Set `LimitNOFILE=` to four times the connections. What is kept counts against that limit while it
//! lies in the queue, for all processes of the user together. In a restart each connection lies in
//! two queues, and is on its way besides.
//!
//! ## What kills the service again and again
//!
//! What was kept may be what the service dies of. A ledger knows which connection was in hand, and
//! drops that one first ([`Ledger::judge`](crate::Ledger::judge)); listeners stay throughout. After
//! that a program calls [`Survivors::absolve`](crate::Survivors::absolve), so that the guard does not
//! count an end whose cause is gone.
//!
//! # Many connections
//!
//! A program that hands its connections over stands still from
//! [`StateRequested`](crate::Event::StateRequested) until the successor serves. That time grows with
//! what is handed over: some 2 to 3 µs a connection. With a pre-copy the connections go over before,
//! while the predecessor serves, and the time that is left does not know how many there are.
//!
//! | step | predecessor | successor |
//! | --- | --- | --- |
//! | 1 | serves | initialises, then [`receive_precopy`](crate::Predecessor::receive_precopy) |
//! | 2 | [`PrecopyRequested`](crate::Event::PrecopyRequested), [`PrecopyRoom`](crate::Event::PrecopyRoom): gives the next [`room`](crate::Precopy::room) connections, and goes on serving | registers each with its own poll, and does not poll that |
//! | 3 | a connection closes: deregister, [`hang_up`](crate::hang_up), [`gone`](crate::Precopy::gone) | drops it |
//! | 4 | [`complete`](crate::Precopy::complete) | has all; looks once with a [`Sweep`](crate::Sweep), then [`receive_each`](crate::Predecessor::receive_each) or [`receive`](crate::Predecessor::receive) |
//! | 5 | [`StateRequested`](crate::Event::StateRequested): [freezes](crate::Handover#freeze-and-thaw), gives what is new, and the state | registers what is new, drops what is gone, loads the state, [`ready`](crate::Restarter::ready) |
//! | 6 | [`HandedOff`](crate::Event::HandedOff): touches nothing more | handles what the sweep has told, and serves |
//! | 7 | [`Completed`](crate::Event::Completed): drops its connections | closes with [`hang_up`](crate::hang_up) until then, and may do so always |
//!
//! What is left in the freeze is the state. If it is small, or most of it does not change and goes
//! ahead as a [`Blob`](crate::Blob), it is written then. Otherwise it is kept all the time in a
//! memory file, which goes ahead as a descriptor: a process reads and writes it by position or with
//! atomics, never as a slice, since the other maps it too. That is not for a service with a
//! probation: what the successor writes cannot be taken back.
//!
//! The successor from its first line on. The predecessor is shown at [`Precopy`](crate::Precopy),
//! and both together are `examples/live_connections.rs`.
//!
//! ```no_run
//! use std::{collections::BTreeMap, error, io, time::Duration};
//! use mio::{Events, Interest, Poll, Registry, Token, net::{TcpListener, TcpStream}};
//! use pollflip::{Arrival, Error, Gate, Inheritance, RestartConfig, Sweep};
//!
//! const LIMIT: Duration = Duration::from_secs(5);
//!
//! #[derive(Default)]
//! struct Server {
//!     clients: BTreeMap<usize, TcpStream>,
//! }
//!
//! impl Server {
//!     /// Registers what comes and drops what is gone. Nothing is read or written.
//!     fn take(&mut self, registry: &Registry, arrival: Arrival) -> io::Result<()> {
//!         match arrival {
//!             Arrival::Given(name, stream) => {
//!                 let number = name.parse().map_err(io::Error::other)?;
//!                 let mut stream = TcpStream::from_std(stream.into());
//!                 registry.register(&mut stream, Token(number), Interest::READABLE)?;
//!                 self.clients.insert(number, stream);
//!             }
//!             Arrival::Gone(name) => {
//!                 let number = name.parse().map_err(io::Error::other)?;
//!                 if let Some(mut stream) = self.clients.remove(&number) {
//!                     registry.deregister(&mut stream)?;
//!                 }
//!             }
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//!
//!     fn load(&mut self, state: Inheritance) -> io::Result<()> {
//!         # drop(state);
//!         unimplemented!("what the predecessor has written into its Handover")
//!     }
//!
//!     fn serve(&mut self, client: usize) -> io::Result<()> {
//!         # let _ = client;
//!         unimplemented!("reads and writes until WouldBlock, if there is such a client")
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn error::Error>> {
//!     let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
//!     let registry = poll.registry().try_clone()?; // the same poll, and no borrow of it
//!     let mut restarter = RestartConfig::new().build()?;
//!     let listener = restarter.sockets().tcp_listener("many", "127.0.0.1:7000")?;
//!     let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
//!     let (mut server, mut sweep) = (Server::default(), Sweep::default());
//!     if let Some(old) = restarter.predecessor() {
//!         // The predecessor serves. The poll is looked at once, when all have come.
//!         let ahead = old.receive_precopy(LIMIT, |arrival| server.take(&registry, arrival));
//!         sweep.look(&mut poll)?;
//!         // The predecessor stands still from here on. What is new and what is gone comes first.
//!         let take = |arrival| server.take(&registry, arrival);
//!         match ahead.and_then(|_| old.receive_each(LIMIT, take)) {
//!             Ok(state) => server.load(state).inspect_err(|why| old.refuse(&why.to_string()))?,
//!             Err(Error::PredecessorGone { .. }) => server.clients.clear(), // their state is lost
//!             Err(why) => return Err(why.into()),
//!         }
//!     }
//!     // After the sweep, which would take what this descriptor tells.
//!     registry.register(&mut restarter, Token(1), Interest::READABLE)?;
//!     restarter.ready()?;
//!     gate.follow(&restarter, &registry)?;
//!     for event in sweep {
//!         server.serve(event.token().0)?; // the poll tells it no more
//!     }
//!     loop {
//!         match poll.poll(&mut events, None) {
//!             Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
//!             _ => {} // … as in any other program
//!         }
//!     }
//! }
//! ```
//!
//! With [`receive`](crate::Predecessor::receive) in the place of `receive_each`, what is gone is in
//! [`Inheritance::gone`](crate::Inheritance::gone), and what is new in
//! [`Inheritance::drain`](crate::Inheritance::drain).
//!
//! The predecessor needs some three hundred descriptors more for that, and the successor as many as
//! there are connections. A listener that is level-triggered leaves the poll at `StateRequested`:
//! otherwise the loop of the predecessor spins beside the successor. A [`Gate`](crate::Gate) does
//! that.
//!
//! Both releases decide: a predecessor that gives nothing ahead, and a successor that does not ask
//! for it, hand over in the freeze as before.
//!
//! # By hand, or under another supervisor
//!
//! From a shell or from cron: start it, and ask with the `restart` subcommand. After a restart the
//! shell's job has ended, its prompt comes back, and the service goes on in the background: stop it
//! by the pid that the status names.
//!
//! ## Supervisors
//!
//! Supervisors that know a service by a pid file (monit, OpenRC) need
//! [`RestartConfig::pid_file`](crate::RestartConfig::pid_file). The file names a live and ready
//! process at any moment, during a probation the predecessor. It is replaced by rename, and removed
//! by the last process.
//!
//! Supervisors that know a service as their own child (runit, s6, supervisord) take the end of the
//! predecessor for the end of the service. They start another one, which finds the addresses in
//! use. Under them a service needs a [guard](#under-a-guard).
//!
//! ## The first process of a terminal
//!
//! A process that is started by `ssh -t host echo-server`, `docker exec -it` or
//! `script -c 'exec echo-server'` leads the session of its terminal. When it ends, the kernel hangs
//! the terminal up, and SIGHUP would kill the successor. So a restart is refused there
//! ([`Refusal::SessionLeader`](crate::Refusal::SessionLeader); `build` looks whether there is a
//! terminal), unless SIGHUP is ignored (`nohup`), handled by the program, or blocked when the
//! restarter is built. Remedies: a shell that stays, `setsid`, or a [guard](#under-a-guard). A
//! shell that leads the session and ends with the service does the same harm, and is not noticed.
//!
//! ## A successor that is stopped
//!
//! If a successor is stopped (SIGSTOP, Ctrl-Z) at the moment its predecessor ends, the kernel may
//! send it SIGHUP, and it dies of that unless it ignores or handles it. That happens if the service
//! was started by a process of the same session and another process group, such as a shell with job
//! control: nobody is left then to continue it. With `setsid`, and under systemd, there is no such
//! signal.
//!
//! ## A program that puts itself into the background
//!
//! A successor must not fork and leave (`daemon`): the process that was started
//! would end, and another one answer in its place, which fails the restart. Leave it to `setsid` or
//! a supervisor, or give successors other arguments
//! ([`RestartConfig::args`](crate::RestartConfig::args)).
//!
//! ## A program that asks for a signal at the end of its parent
//!
//! The parent of a successor is its predecessor, so `PR_SET_PDEATHSIG` would kill the successor at
//! the end of each restart. A successor that has asked for such a signal before `build`, in the
//! same thread, gets an error there, and the predecessor keeps serving. Ask after `build`, where
//! there is no [`predecessor`](crate::Restarter::predecessor). What is asked for after `build` is
//! not noticed.
//!
//! ## To stop it during a probation
//!
//! Tell both processes, the predecessor first. It then [stops](crate::Restarter::stop), which makes
//! the restart final. A successor that is told first gives the service back to the predecessor. The
//! status names both (`pid` and `successor`).
//!
//! # A deploy, step by step
//!
//! 1. Put the new version beside the old and rename it over it, or switch a `current` link. A
//!    program that runs cannot be overwritten.
//! 2. Ask for the restart, and look at the exit status. The successor is started by the path by
//!    which the running program was executed, with its arguments, environment and directory. A
//!    script that executes another program is left out from the second restart on: if the new
//!    version is put in its place, name it with
//!    [`RestartConfig::program`](crate::RestartConfig::program).
//! 3. If it failed, the old version serves. Put the old file back, so that a crash does not start
//!    the broken one. Ask for the status first: the command can fail although the restart
//!    succeeded.
//!
//! The script `examples/deploy/deploy.sh` does that:
//!
//! ```sh
#![doc = include_str!("../examples/deploy/deploy.sh")]
//! ```
//!
//! ## Memory and descriptors for two processes
//!
//! From the spawn until the predecessor ends there are two processes, and after several deploys in
//! a row more. Their limits must allow it.
//!
//! | what | how much of it |
//! | --- | --- |
//! | memory | the successor needs its own, from nothing: it shares none with its predecessor. State that is handed over in blobs is there once, as memory files, and once more where the successor copies it |
//! | `MemoryMax=`, a container's limit | the memory of one process twice, the state, and what the page cache needs |
//! | descriptors of the predecessor (`LimitNOFILE=`) | each named socket twice, once for the program and once to pass it on; the six or so of the restarter; while state goes over some hundred more, and with [`Handover::fds`](crate::Handover::fds) none unless the successor is slow to read |
//! | descriptors of the successor | the named sockets twice, and all connections that it is given |
//! | processes (`TasksMax=`, `LimitNPROC=`) | those of one process twice, and once more for each generation that still drains |
//! | connections to databases and the like | both processes hold theirs until the predecessor has ended |
//!
//! At most 50 earlier generations may drain
//! ([`RestartConfig::max_draining`](crate::RestartConfig::max_draining)): then a restart is
//! refused. Give the drain a time limit of its own, as `examples/tcp_proxy.rs` does.
//!
//! Both versions must understand the state that is handed over, and what both write to.
//!
//! ## If memory gets short
//!
//! The kernel then ends a process of the control group, or of the machine. Until the restart is
//! final, that is the successor: its `oom_score_adj` becomes 1000 if its restart takes more than
//! 5 ms (a busy machine may do it later), and is set back at the commit. The restart has failed then, the one who asked is told that it was memory, and the
//! predecessor goes on with its connections. What the successor starts before the commit inherits
//! the 1000: start helpers at [`Event::Committed`](crate::Event::Committed). If the value cannot be
//! set, or set back, a warning says so, and so does [`Status::notes`](crate::Status). A unit needs
//! `OOMPolicy=continue`: otherwise systemd stops the service because one of its processes was ended
//! for memory.
//!
//! ## A `current` link
//!
//! A link that is switched leads to the new release: program and directory of the successor are
//! taken through the link again. It is found in the path by which the service was started, and in
//! `PWD`. The old release can be removed then.
//!
//! A restart that runs the same file as before succeeds, and says `the same file as before: PATH`
//! to the one who asks, in the log and in the status: the deploy has gone elsewhere. Two causes are
//! known. The unit names another path by now, which needs a true `systemctl restart`. Or the
//! program is one file that is mounted on its own: mount the directory above it.
//!
//! # The `restart` subcommand and its exit statuses
//!
//! A service can have such a subcommand: the lines below. Otherwise its operators use the program
//! `pollflip` of this crate: `pollflip restart SOCKET` and `pollflip status SOCKET [--json]`. That
//! program and `examples/restarter.rs` end with these statuses:
//!
//! | status | [`RequestError`](crate::RequestError) | who serves | what to do |
//! | --- | --- | --- | --- |
//! | 0 | | the new version; its pid is printed | |
//! | 1 | `Failed`, `Protocol` | the old version | mend the new one; the reason is printed |
//! | 2 | `Refused` | the old version | ask again later, or do first what the reason asks for |
//! | 3 | `Unreachable` | nobody, or elsewhere | see whether it runs, and check the path and the user |
//! | 4 | `TimedOut`, `HungUp` | one of the two, if any | ask for the status; wait longer than ready timeout and probation together |
//! | 5 | `Impossible` | the old version | asking again does not help: stop the service, mend what the reason names, start it |
//! | 64 | | as before | wrong usage |
//!
//! ```
//! use std::process::ExitCode;
//! use std::time::Duration;
//! use pollflip::restart_coordination_socket::request_restart;
//!
//! fn restart(socket: &str) -> ExitCode {
//!     let limit = Duration::from_secs(90); // ready timeout and probation together, and some seconds
//!     match request_restart(socket, limit, |progress| eprintln!("{progress}")) {
//!         Ok(pid) => {
//!             println!("{pid}");
//!             ExitCode::SUCCESS
//!         }
//!         Err(error) => {
//!             eprintln!("{error}");
//!             ExitCode::from(error.exit_status())
//!         }
//!     }
//! }
//! assert_eq!(restart("/nobody/is/here.sock"), ExitCode::from(3));
//! ```
//!
//! # Over a fleet
//!
//! Deploy on one host after the other, and stop at the first that fails: it has its old file back,
//! and serves. The script `examples/deploy/roll.sh` runs the one
//! [above](#a-deploy-step-by-step) on each:
//!
//! ```sh
#![doc = include_str!("../examples/deploy/roll.sh")]
//! ```
//!
//! The same with Ansible, as `examples/deploy/play.yaml`. `serial` makes it one host at a time, and
//! `max_fail_percentage` ends it at the first failure:
//!
//! ```yaml
#![doc = include_str!("../examples/deploy/play.yaml")]
//! ```
//!
//! # What to watch
//!
//! ## Log lines
//!
//! The `log` target is `pollflip`, or begins with `pollflip::`. Each line of a restart names the
//! process that writes it, the two generations, the restart (each process counts its own) and the
//! time since it was asked for:
//!
//! ```text
//! process 812, generation 3 → 4, restart 1 after 0.0 ms: starting /usr/local/bin/echo-server
//! process 812, generation 3 → 4, restart 1 after 2.4 ms: process 977 is getting ready
//! process 812, generation 3 → 4, restart 1 after 39.1 ms: the successor asks for the state
//! process 812, generation 3 → 4, restart 1 after 41.7 ms: process 977 has taken over
//! process 812, generation 3 → 4, restart 1 after 41.9 ms: final, process 977 serves
//! ```
//!
//! | level | what | who should look |
//! | --- | --- | --- |
//! | error | a restart failed, or was taken back; the successor ended after the commit; no restart is possible any more | a person, soon |
//! | warn | systemd cannot be told, or tells nobody; nobody keeps what the program keeps; a signal did nothing; a socket is not what was expected | the one who set the service up |
//! | info | each step of each restart | the one who reads up on a restart |
//! | debug | what other versions and helpers say that means nothing here | the one who writes the program |
//!
//! ## The status
//!
//! The `status` of the coordination socket ([`Status`](crate::Status), as JSON for programs) says
//! who serves, in which generation, with which program and version, which earlier processes still
//! finish their work, and how the last restarts ended, those of earlier processes included. Worth
//! an alarm:
//!
//! - an outcome that is not `ok`;
//! - a generation that does not move with a deploy (it is 0 again after a kill);
//! - earlier processes that do not end: more than two in the unit, for longer than a drain may
//!   take.
//!
//! ## Who may ask
//!
//! Root, and the user that the service runs as. The kernel says who asks, and the mode of the path
//! changes nothing about it. To let a group deploy, give it `sudo` for the one command, or for
//! `systemctl reload`. More on it [below](#the-coordination-socket-under-attack).
//!
//! # Fewer privileges
//!
//! A restart is started by a thread of its own, which
//! [`RestartConfig::build`](crate::RestartConfig::build) starts with the rights of the moment. What
//! other threads give up later does not bind it, as long as the kernel or the C library keeps it to
//! the thread that asks:
//!
//! | what is given up after `build` | whom it binds | restarts |
//! | --- | --- | --- |
//! | a seccomp filter, without TSYNC | the thread that installs it, and threads that it starts | work; the successor has none of it until it installs its own |
//! | capabilities, by `capset` | the same | work; the successor is born with those of the restart thread |
//! | `no_new_privs` | the same | work; a successor that is setuid gets its user |
//! | a seccomp filter with TSYNC | all threads | fail with `Operation not permitted` if it forbids `execve`, `clone`, `vfork`, `chdir` or `dup2` |
//! | `setuid`, `setgid`, `setgroups` of the C library | all threads | work as the new user: it must be allowed to execute the program (and to enter the directory to start in, if that is not where this process is), and the successor cannot take the old rights back (if the program is setuid, it does, and then refuses: [see below](#more-rights-than-the-caller)). Sockets are inherited, so that privileged ports stay |
//! | the user, by the bare system calls (`setresuid` of the kernel) | the thread that asks | work; the successor is born as the user of the restart thread, root say, and has to give that up again |
//! | `chroot` | all threads | work if the program, its libraries and the directory to start in ([`current_dir`](crate::RestartConfig::current_dir)) are at the same paths in the new root |
//! | namespaces, by `setns` or `unshare` | the thread that asks, and threads that it starts | work; the successor is born in those of the restart thread |
//! | the shared descriptor table, by `unshare(CLONE_FILES)` | the thread that asks | fail with `Bad file descriptor` if that is the loop's: the restart thread has the other table |
//! | resource limits | the process, and its successors | work; as many descriptors are needed as there are sockets, and a few |
//!
//! So a filter can forbid the threads that talk to strangers to execute anything, and the service
//! can still be restarted.
//!
//! # More rights than the caller
//!
//! A program that is setuid or setgid, or has capabilities of its file, can be started by anybody:
//! by a symbolic link of theirs, from any directory, with any environment. The kernel marks such a
//! process (`AT_SECURE`), and the mark stays when the program changes its user. A security module
//! can set the mark too, as SELinux does when a program changes its domain without `noatsecure`.
//!
//! In a process with that mark, a restart starts nothing that the caller may have chosen:
//!
//! | what the caller chooses | what becomes of it |
//! | --- | --- |
//! | the path of the program, its name (`argv[0]`), a relative [`program`](crate::RestartConfig::program) | not used. Without an absolute `program` every restart is refused ([`Refusal::Privileged`](crate::Refusal::Privileged)); the service serves, and a warning is logged |
//! | the arguments | handed down, unless [`args`](crate::RestartConfig::args) names others: the program has to check them anyway |
//! | the directory | not used. A successor starts in [`current_dir`](crate::RestartConfig::current_dir), or in `/`. A relative `current_dir`, [`coordination_socket`](crate::RestartConfig::coordination_socket) or [`pid_file`](crate::RestartConfig::pid_file) is an error of [`build`](crate::RestartConfig::build) |
//! | the environment | not handed down. A successor gets what [`env`](crate::RestartConfig::env) sets, and `NOTIFY_SOCKET`, `SYSTEMD_EXEC_PID` and `INVOCATION_ID` if they have the form that systemd gives them |
//! | `NOTIFY_SOCKET` | used if it is an absolute path or an abstract name: a caller can choose who is told how the service is |
//! | `SYSTEMD_EXEC_PID`, `INVOCATION_ID` | used: all that they can do is to have restarts refused |
//! | `LISTEN_FDS` | a socket counts if root has made it and it has no peer, or if a predecessor passes it. Another one is left alone, with a warning. A program that reads the variable on its own has to judge on its own |
//! | `POLLFLIP_LIFELINE` | used if the predecessor at its other end is root, or has the same user and group in effect, and one of its threads has all capabilities of the new process, in the same user namespace. The predecessor has to prove that: it must live, poll within 10 s, and be seen in `/proc` (no `hidepid`). Such a program cannot follow a predecessor that has given its rights up, and a release with more capabilities than the one before needs a fresh start |
//! | `POLLFLIP_BIRTH` | not used: by it, the thread that starts a successor tells it of its descriptors and its `oom_score_adj` |
//! | what stands at the path of the program | the reason of a failed start does not show it |
//! | limits, the umask, ignored signals, open descriptors, the terminal | inherited as by any program: the program sets them itself |
//!
//! So such a service restarts with `RestartConfig::new().program("/usr/sbin/server")`: a path that
//! the program has from its source or from a file of root's, and not from its arguments, its
//! environment or `current_exe` (a hard link of the caller's may stand there). What it needs of its
//! environment, such as `WATCHDOG_USEC` of a watchdog, it sets by `env` once it has checked it.
//!
//! If the service gives its rights up in all threads (`setuid` of the C library), its own file is
//! of no use to a restart: started again, it has the rights again, and refuses the lifeline. Name a
//! copy as `program` that is not setuid and has no capabilities: it runs as the new user, and gets
//! the sockets.
//!
//! Under systemd, `AmbientCapabilities=` gives a service its capabilities without the mark: there
//! is no file then by which others get them, the environment is handed down, and sockets are taken
//! from any service manager.
//!
//! # The coordination socket under attack
//!
//! Root and the user that the service runs as may ask; all others are turned away at once and take
//! no room, whatever the mode of the path. The path belongs to the user that has built the
//! restarter, with mode 600. If a service is built as root and then becomes another user, only root
//! may ask, unless the service gives the path to its new user after `build` (`chown`). If it runs
//! as the user 65534 (often called nobody), only root may ask in any case: processes of another
//! user namespace can look like that user.
//!
//! The service talks to 64 clients at a time. Each has 5 s to say what it wants and to take its
//! answer, in frames of at most 64 KiB. That bounds what an attack can cost: 16 MiB of memory, and
//! turns of the loop of a few milliseconds.
//!
//! When all 64 places are taken, the service hangs up on the oldest client to make room for the
//! next, whether it has asked or not. A client that waits for the end of a restart is never sent
//! away, and every client keeps its place for 10 ms. Until then those who come wait in the kernel's
//! queue. So a flood gets no more than 6,400 connections a second out of the loop, and a client
//! that comes when the queue is full (4,096, or `net.core.somaxconn`) is served after a second or
//! so. A client that was hung up on before its request was read can ask again:
//! [`request_restart`](crate::restart_coordination_socket::request_restart) and
//! [`request_status`](crate::restart_coordination_socket::request_status) do so until their time is
//! over.
//!
//! # The system calls of the loop
//!
//! What the thread that calls [`Restarter`](crate::Restarter)'s methods needs after
//! [`build`](crate::RestartConfig::build) and the binding of [`Sockets`](crate::Sockets), for a
//! seccomp filter. It needs neither `execve` nor anything that makes a process or a thread. The
//! names are those of 64-bit machines; one that a machine does not have is left out there. The
//! program's own calls come on top: its connections, its files, its log.
//!
//! | calls | for |
//! | --- | --- |
//! | `epoll_wait`, `epoll_pwait`, `epoll_ctl` | the loop |
//! | `poll`, `ppoll` | waiting for the predecessor in `ready`, for systemd and for a child's end when a restarter is dropped |
//! | `read`, `write`, `timerfd_settime`, `clock_gettime` | wakers and deadlines |
//! | `socketpair`, `sendmsg`, `recvmsg`, `fcntl`, `close` | lifelines, and the descriptors on them |
//! | `memfd_create`, `pread64`, `fstat`, `newfstatat`, `prlimit64` | blobs |
//! | `pidfd_open`, `pidfd_send_signal`, `waitid`, `getpid` | watching, killing and reaping the successor |
//! | `accept4`, `getsockopt`, `geteuid`, `recvfrom`, `sendto` | clients of the coordination socket, and who they are; the handler of the restart signal |
//! | `open`, `openat`, `stat`, `lstat`, `statx`, `unlink`, `unlinkat`, `rename`, `renameat`, `renameat2` | the coordination socket's path, the pid file, what `/proc` tells of a successor or a predecessor |
//! | `setsockopt` | telling the kernel whose a datagram of a [UDP group](crate::Sockets::udp_group) is |
//! | `getdents64` | the threads of one whose first one has ended |
//! | `socket`, `connect`, `ioctl`, `pipe2` | telling systemd, and waiting until it has understood; `ioctl` also before a line of progress |
//! | `futex`, `sched_yield` | what is shared with the restart thread and with handles in other threads |
//! | `brk`, `mmap`, `munmap`, `mremap`, `mprotect`, `madvise`, `getrandom` | memory, and the seeds of hash maps |
//! | `rt_sigprocmask`, `rt_sigreturn`, `restart_syscall` | the handler of the restart signal; going on after a signal, or after the process was stopped |
//!
//! With [`RestartConfig::keep`](crate::RestartConfig::keep) come `setsockopt` and `shutdown` in each
//! thread that keeps connections, `kcmp` in one that keeps something under a name for the second
//! time, `getsockname` in the loop, and `pwrite64` there with UDP groups.
//!
//! A filter that has a call fail (`SystemCallErrorNumber=`) is noticed too: calls that every
//! restart needs are tried in [`build`](crate::RestartConfig::build), which logs a warning, and
//! each restart is refused by the name of the call
//! ([`Refusal::MissingCall`](crate::Refusal::MissingCall)). Of one that is forbidden later, the
//! failed restart names it. Without `pidfd_send_signal` a successor that hangs cannot be killed: an
//! error is logged, and the status says so until somebody else has killed it.
//!
//! One call more is made in a process that leads the session of a terminal, when it is asked for a
//! restart: `rt_sigaction`, which tells whether the end of this process would be that of the
//! successor.
