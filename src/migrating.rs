//! Coming from shellflip, tableflip or ecdysis: what each call becomes, and what behaves
//! differently.
//!
//! - [From shellflip](#from-shellflip)
//! - [From tableflip](#from-tableflip)
//! - [From ecdysis](#from-ecdysis)
//! - [The first deploy](#the-first-deploy)
//!
//! The facts about the others are those of shellflip 2.1.3, tableflip of 2024 and ecdysis 1.1.1.
//!
//! # From shellflip
//!
//! The names are the same where the things are. A program keeps its shape: [`RestartTask`] is a
//! future for any executor, tokio's as well.
//!
//! ## The configuration and the task
//!
//! | shellflip | here |
//! | --- | --- |
//! | `RestartConfig { … }` with public fields | [`RestartConfig::new`] and a method for each setting |
//! | `enabled`, `coordination_socket_path` | [`coordination_socket`]; without a call there is none |
//! | `environment` | [`env`], and [`env_remove`] |
//! | `restart_signal: SignalKind` | [`restart_signal`]`(Some(number))`; `None` for no signal |
//! | `exit_on_error`, which is `true` unless told otherwise: the task ends with the first failed restart | always as `false`: a failed restart does not resolve the task. It resolves with an error if no restart is possible any more, and the process can keep serving |
//! | `lifecycle_handler` | [`RestartTask::with_handler`] |
//! | `try_into_restart_task()`, `spawn_restart_task()` | [`try_into_restart_task`], [`spawn_restart_task`]; no runtime has to be entered |
//! | the task resolves with a `std::process::Child` | with a [`Successor`]: `pid`, `try_wait`, and a descriptor |
//! | `RestartResult<T>`, which is anyhow's | `Result<T, `[`Error`]`>` in the process, `Result<u32, `[`RequestError`]`>` for a client |
//! | `ChildSpawnError`, with two variants | [`ChildSpawnError`], with the same two: the spawn part of [`Failure`], which also knows how else a successor can fail |
//! | `request_restart().await`, `request_restart_sync()` | [`RestartConfig::request_restart`], which blocks, or [`request_restart`] with a limit and progress |
//! | `RestartCoordinationSocket::new(stream)`, `send_restart_command().await` | [`RestartCoordinationSocket::new`], [`request_restart`](crate::restart_coordination_socket::RestartCoordinationSocket::request_restart)`(limit, progress)`, which blocks |
//! | its messages: `RestartMessage`, `RestartRequest`, `RestartResponse` | not public; the bytes are the same |
//! | `startup_complete()` | [`startup_complete`], which blocks, or [`RestartTask::ready`]`().await`; after the task has been made, not before |
//! | `fixup_systemd_env()` | [`fixup_systemd_env`]; it returns a `Result`, and `try_into_restart_task` does not call it |
//! | no sockets are passed | [`Sockets`]: named, inherited or bound |
//!
//! ```no_run
//! use std::time::Duration;
//! use std::os::unix::net::UnixStream;
//! use pollflip::restart_coordination_socket::{RestartCoordinationSocket, request_restart};
//! use pollflip::{Error, RequestError, RestartConfig};
//! # struct Handler;
//! # impl pollflip::LifecycleHandler for Handler {}
//!
//! fn configured() -> RestartConfig {
//!     RestartConfig::new() // RestartConfig { …, ..Default::default() }
//!         .coordination_socket("/run/echo.sock") // enabled, coordination_socket_path
//!         .env("LEVEL", "debug") // environment
//!         .restart_signal(Some(10)) // restart_signal: SignalKind::user_defined1()
//! }
//!
//! async fn serve() -> Result<(), Error> {
//!     pollflip::fixup_systemd_env()?; // only if something else reads systemd's sockets
//!     let mut task = configured().try_into_restart_task()?.with_handler(Handler);
//!     let listener = task.restarter().sockets().tcp_listener("echo", "127.0.0.1:7000")?;
//!     task.ready().await?; // startup_complete(); otherwise the first poll of the task says it
//!     # drop(listener);
//!     match task.await { // beside other work, in a select!
//!         Ok(mut successor) => println!("{} serves now; ended: {:?}", successor.pid(), successor.try_wait()),
//!         Err(why) => eprintln!("{why}"), // this process keeps serving, and the task stays pending
//!     }
//!     Ok(())
//! }
//!
//! fn restart_command() -> Result<u32, RequestError> {
//!     configured().request_restart()?; // request_restart_sync()
//!     request_restart("/run/echo.sock", Duration::from_secs(90), |line| eprintln!("{line}"))
//! }
//!
//! fn restart_through(stream: UnixStream) -> Result<u32, RequestError> {
//!     RestartCoordinationSocket::new(stream).request_restart(Duration::from_secs(90), |_| {})
//! }
//! ```
//!
//! ## The hooks
//!
//! The hooks are not async, and run on the thread that polls the task.
//!
//! | `LifecycleHandler` of shellflip | here |
//! | --- | --- |
//! | `pre_new_process()` | [`pre_new_process`], which can refuse the restart |
//! | `send_to_new_process(pipe)`, before the successor has asked | [`send_to_new_process`]`(handover)`, when it asks. Fill the [`Handover`] there, or move it to another thread |
//! | `pipe.write_all(…)` | write into a [`Blob`], then [`Handover::blob`] and [`Handover::send`]; [`Handover::fd`] for live connections |
//! | none: the successor serves when the task resolves | [`new_process_granted`]`(pid)`: stop accepting; with a probation the task resolves later |
//! | `new_process_failed()` | [`new_process_failed`]`(why)`, also for a successor that never came so far |
//! | none | [`new_process_ready`]`(pid)`: the restart is final |
//! | `receive_from_old_process()` → a pipe, read to its end | [`RestartTask::receive`]`(limit).await`, or [`Predecessor::receive`], which blocks → an [`Inheritance`]: `bytes`, `map` without a copy, `fd` |
//! | whether it is `Some` | [`Restarter::predecessor`]; of a task, [`RestartTask::restarter`]`().predecessor()` |
//!
//! ```no_run
//! use std::{io::Write, net::TcpStream, time::Duration};
//! use pollflip::{Blob, Error, Failure, Handover, HookResult, LifecycleHandler, RestartTask};
//!
//! struct World {
//!     table: Vec<u8>,
//!     player: TcpStream,
//! }
//!
//! impl LifecycleHandler for World {
//!     fn pre_new_process(&mut self) -> HookResult {
//!         if self.table.is_empty() { Err("the table is being loaded".into()) } else { Ok(()) }
//!     }
//!     fn send_to_new_process(&mut self, mut handover: Handover) -> HookResult {
//!         let mut pipe = Blob::new()?;
//!         pipe.write_all(&self.table)?; // pipe.write_all(…).await
//!         handover.blob("table", pipe)?;
//!         handover.fd("player", &self.player)?;
//!         handover.send();
//!         Ok(())
//!     }
//!     fn new_process_granted(&mut self, pid: u32) { println!("{pid} serves: accept no more") }
//!     fn new_process_failed(&mut self, why: &Failure) { println!("thaw: {why}") }
//!     fn new_process_ready(&mut self, pid: u32) { println!("{pid} it is") }
//! }
//!
//! async fn receive_from_old_process(task: &mut RestartTask) -> Result<Option<World>, Box<dyn std::error::Error>> {
//!     let Some(mut inheritance) = task.receive(Duration::from_secs(5)).await? else { return Ok(None) };
//!     let (table, player) = (inheritance.bytes("table")?, inheritance.fd("player"));
//!     Ok(table.zip(player).map(|(table, player)| World { table, player }))
//! }
//! ```
//!
//! ## The shutdown
//!
//! | `shutdown` of shellflip | here |
//! | --- | --- |
//! | `coordinator.handle()` → `Arc<ShutdownHandle>` | [`ShutdownCoordinator::handle`], which can be cloned |
//! | `coordinator.handle_weak()` → `Weak<…>` | [`ShutdownCoordinator::handle_weak`], with an `upgrade` |
//! | `ShutdownSignal::from(&*handle)` | `ShutdownSignal::from(&handle)`, or [`ShutdownHandle::signal`] |
//! | `signal.on_shutdown().await`, once | [`ShutdownSignal::on_shutdown`], which resolves once more if the shutdown is forced |
//! | `coordinator.shutdown().await` | [`ShutdownCoordinator::shutdown`]`().await`, by the task that polls it |
//! | `coordinator.shutdown_with_timeout(30).await` | `coordinator.shutdown().wait(Duration::from_secs(30))`, which blocks; or the future and a timer of the runtime |
//!
//! ```no_run
//! use std::time::Duration;
//! use pollflip::{ShutdownCoordinator, ShutdownSignal};
//!
//! async fn end(coordinator: ShutdownCoordinator) {
//!     let (handle, weak) = (coordinator.handle(), coordinator.handle_weak());
//!     let mut signal = ShutdownSignal::from(&handle); // ShutdownSignal::from(&*handle)
//!     let work = async move {
//!         signal.on_shutdown().await;
//!         drop(handle); // this unit of work is over
//!     };
//!     # drop(work);
//!     assert!(weak.upgrade().is_some());
//!     coordinator.shutdown().await;
//! }
//!
//! fn end_within(coordinator: ShutdownCoordinator) {
//!     let left = coordinator.shutdown().wait(Duration::from_secs(30)); // shutdown_with_timeout(30)
//!     if let Err(count) = left { eprintln!("{count} connections are cut") }
//! }
//! ```
//!
//! ## What behaves differently
//!
//! - There is a deadline, [`ready_timeout`], of 60 s. A successor that hangs is killed and reaped,
//!   and restarts work again.
//! - Requests are not queued. While a restart is under way, the next request is refused at once,
//!   with the reason. With shellflip it waits and then restarts the process once more, also if its
//!   client has left.
//! - The successor asks for the state, so it can initialise first; the old process freezes later
//!   and for a shorter time.
//! - The program is the path it was started by, made absolute at the start, and not `argv[0]` found
//!   by way of PATH: `./service` works after a `chdir`. Set [`program`] for another.
//! - A successor gets no `OXY_…` in its environment but `POLLFLIP_LIFELINE` and `POLLFLIP_BIRTH`, and `LISTEN_PID=auto`
//!   only with sockets that systemd passed.
//! - A coordination socket is for root and the service's own user. Its path is never taken from a
//!   living server, nor from a file that is no socket.
//! - What is written to the log has a target that begins with `pollflip`.
//!
//! The wire of the coordination socket is shellflip's: its clients restart a service of this crate,
//! and the clients of this crate one of shellflip. What shellflip does not know, such as the
//! status, its services answer by hanging up.
//!
//! # From tableflip
//!
//! | tableflip | here |
//! | --- | --- |
//! | `tableflip.New(Options{})` | [`RestartConfig::build`] → [`Restarter`] |
//! | `UpgradeTimeout`, `PIDFile` | [`ready_timeout`], [`pid_file`] |
//! | `ListenConfig` | bind it yourself: [`or_insert_with`] |
//! | `signal.Notify(SIGHUP)` and `upg.Upgrade()` | [`restart_signal`]; or [`Restarter::request`], the outcome of which is an [`Event`] |
//! | `upg.Listen("tcp", addr)` | [`tcp_listener`]`(name, addr)` |
//! | `upg.Listen("unix", path)`, `"unixpacket"` | [`unix_listener`], [`unix_seqpacket`] |
//! | `upg.ListenPacket("udp", addr)`, `"unixgram"` | [`udp_socket`], [`unix_datagram`] |
//! | `ListenWithCallback`, `ListenPacketWithCallback` | [`or_insert_with`] |
//! | `AddListener`, `AddPacketConn`, `AddFile`, which overwrite what has that name | [`remove`]`(name)`, then [`or_insert_with`] |
//! | `Listener`, `PacketConn`, `File`: inherited, or nothing | [`get`]`(name)`, or [`Inheritance::fd`] |
//! | `AddConn`, `Conn`, kept from one generation to the next | [`Handover::fd`] when the successor asks, [`Inheritance::fd`] |
//! | `upg.Ready()` | [`Restarter::ready`], which waits for the old process's answer |
//! | `<-upg.Exit()` after an upgrade | [`Event::Completed`]; for a socket server already [`Event::HandedOff`], when it stops accepting |
//! | `<-upg.Exit()` after `Stop()` | no event: the program that calls [`Restarter::stop`] knows, and ends when its work is done |
//! | `upg.Stop()` | [`Restarter::stop`] |
//! | `upg.HasParent()` | [`Restarter::predecessor`]`().is_some()` |
//! | `upg.WaitForParent(ctx)` | [`Event::PredecessorGone`] |
//! | `testing.Upgrader`, `testing.Fds` | [`Handover::rehearse`] for state; else a first generation, which needs no supervisor and changes nothing |
//!
//! ```no_run
//! use std::{net::TcpListener, os::fd::OwnedFd, time::Duration};
//! use pollflip::{Error, Event, RestartConfig};
//!
//! fn main() -> Result<(), Error> {
//!     let mut upg = RestartConfig::new() // tableflip.New(Options{…})
//!         .ready_timeout(Duration::from_secs(60)) // UpgradeTimeout
//!         .pid_file("/run/echo/pid") // PIDFile
//!         .restart_signal(Some(1)) // signal.Notify(sig, syscall.SIGHUP)
//!         .build()?;
//!     let sockets = upg.sockets();
//!     let web = sockets.tcp_listener("web", "0.0.0.0:80")?; // upg.Listen("tcp", addr)
//!     let admin = sockets.unix_listener("admin", "/run/echo/admin.sock")?; // upg.Listen("unix", path)
//!     let packets = sockets.unix_seqpacket("packets", "/run/echo/packets.sock")?; // upg.Listen("unixpacket", path)
//!     let dns = sockets.udp_socket("dns", "0.0.0.0:53")?; // upg.ListenPacket("udp", addr)
//!     let log = sockets.unix_datagram("log", "/run/echo/log.sock")?; // upg.ListenPacket("unixgram", path)
//!     let own = sockets.or_insert_with("own", || TcpListener::bind("[::1]:7000"))?; // ListenWithCallback
//!     let file: Option<OwnedFd> = sockets.get("file")?; // upg.File(name)
//!     sockets.remove("extra"); // AddListener overwrites
//!     let extra: OwnedFd = sockets.or_insert_with("extra", || TcpListener::bind("[::1]:0").map(OwnedFd::from))?;
//!     # drop((web, admin, packets, dns, log, own, file, extra));
//!     let _has_parent = upg.predecessor().is_some(); // upg.HasParent()
//!     upg.ready()?; // upg.Ready()
//!     if let Err(refusal) = upg.request() { eprintln!("{refusal}") } // upg.Upgrade()
//!     while let Some(event) = upg.wait(Duration::MAX) {
//!         match event {
//!             Event::HandedOff(_) => {} // close the listeners
//!             Event::Completed(_) => break, // <-upg.Exit()
//!             Event::PredecessorGone => println!("alone"), // upg.WaitForParent(ctx)
//!             _ => {}
//!         }
//!     }
//!     upg.stop(); // upg.Stop()
//!     Ok(())
//! }
//! ```
//!
//! ## What behaves differently
//!
//! - Sockets have names, not addresses: a service that moves to another port says so instead of
//!   binding it in silence beside the old one, and port 0 is inherited.
//! - After a restart only the new process has what was handed over: a client sees the end of a
//!   connection when the new process closes it.
//! - A restart is possible while an older generation still drains, up to [`max_draining`] of them.
//!   tableflip waits until it has ended.
//! - The path of a unix socket stays when a process stops. The next one takes it over if nobody
//!   listens. tableflip removes it.
//! - A restart can be taken back after the successor was ready: [`probation`].
//! - Linux only; tableflip runs on macOS too.
//!
//! # From ecdysis
//!
//! | ecdysis | here |
//! | --- | --- |
//! | `TokioEcdysisBuilder::new(SignalKind::hangup())` | [`RestartConfig::new`]`().restart_signal(Some(1))` and [`build`] |
//! | `Ecdysis::new()`, which ends the process if something is wrong | [`build`], which returns an error |
//! | `set_pid_file(path)` | [`pid_file`] |
//! | `upgrade_on_socket(path)`, to which one connects | [`coordination_socket`], which is asked and answers |
//! | `stop_on_signal`, `stop_on_socket`, `partial_stop_on_…` | the program's own signals and [`Restarter::stop`]; [`shutdown`](crate::shutdown) for the rest |
//! | `listen_tcp(StopOnShutdown::Yes, addr)` | [`tcp_listener`]`(name, addr)`, given to the runtime with its `from_std` |
//! | `build_listen_tcp(…, \|socket, addr\| …)` | [`or_insert_with`] |
//! | `build_socket_udp`, `build_stream_udp`, `build_stoppable_socket_udp`, each with a closure that is called if nothing was inherited | [`or_insert_with`]; [`udp_socket`] where the closure only binds |
//! | `listen_unix`, `listen_unix_seqpacket` | [`unix_listener`], [`unix_seqpacket`] |
//! | `unix_datagram_pair(name)`, to talk to the other process | [`Handover`] for state, [`Predecessor::progress`] for words; or a pair of your own through [`Handover::fd`] |
//! | `read_systemd_sockets`, `systemd_listen_…(name)` | the same methods of [`Sockets`] with the name in `FileDescriptorName=` |
//! | `enable_systemd_notifications`, `extend_systemd_timeouts` | always done, without a call: see the [`guide`](crate::guide) |
//! | `ready()` → a future | [`Restarter::ready`]; the future is [`RestartTask`] |
//! | `ExitMode::Upgrade` | the task resolves with `Ok`; [`Event::Completed`] |
//! | `ExitMode::FullStop`, `PartialStop`, and the `ExitReason` | the program knows, since it decides |
//! | `StoppableStream`, `Stoppable`, which end at an upgrade | deregister or drop the listener at [`Event::HandedOff`] |
//! | `std_ecdysis().upgrade()` | [`Restarter::request`] |
//! | `std_ecdysis().quit()`, for an end without an upgrade: it closes its copies of the sockets | [`Restarter::stop`], which does that and rules restarts out |
//! | `is_child()` | [`Restarter::predecessor`]`().is_some()` |
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use pollflip::{Error, RestartConfig};
//!
//! fn main() -> Result<(), Error> {
//!     let mut ecdysis = RestartConfig::new() // TokioEcdysisBuilder::new(SignalKind::hangup())
//!         .restart_signal(Some(1))
//!         .coordination_socket("/run/echo/restart.sock") // upgrade_on_socket(path)
//!         .pid_file("/run/echo/pid") // set_pid_file(path)
//!         .build()?;
//!     let sockets = ecdysis.sockets();
//!     let web = sockets.tcp_listener("web", "0.0.0.0:80")?; // listen_tcp(StopOnShutdown::Yes, addr)
//!     let admin = sockets.unix_listener("admin", "/run/echo/admin.sock")?; // listen_unix(…, path)
//!     let dns = sockets.or_insert_with("dns", || { // build_socket_udp(addr, |socket, addr| …)
//!         let socket = UdpSocket::bind("0.0.0.0:53")?;
//!         socket.set_broadcast(true)?;
//!         Ok(socket)
//!     })?;
//!     # drop((web, admin, dns));
//!     let _is_child = ecdysis.predecessor().is_some(); // is_child()
//!     ecdysis.ready()?; // ready()
//!     // …
//!     ecdysis.stop(); // std_ecdysis().quit()
//!     Ok(())
//! }
//! ```
//!
//! ## What behaves differently
//!
//! - The old process learns that the new one is ready when it is, and not at the next half second.
//! - The deadline is 60 s and can be set; ecdysis has 5 s.
//! - A start that fails leaves restarts possible. In ecdysis, after a program that cannot be
//!   executed, every later upgrade is refused.
//! - A listener is closed by the program that holds it: a stream that ecdysis ended is here the
//!   program's listener, which has to be dropped or deregistered.
//! - State and live connections can go over; ecdysis passes listeners, UDP sockets and its datagram
//!   pair.
//!
//! # The first deploy
//!
//! A process of one of these libraries cannot hand its sockets to one of another. The first deploy
//! is a stop and a start. Under systemd with socket activation, clients that connect between the
//! two wait, and none is refused. From the second deploy on it is a restart.
//!
//! [`RestartConfig::new`]: crate::RestartConfig::new
//! [`coordination_socket`]: crate::RestartConfig::coordination_socket
//! [`env`]: crate::RestartConfig::env
//! [`env_remove`]: crate::RestartConfig::env_remove
//! [`restart_signal`]: crate::RestartConfig::restart_signal
//! [`program`]: crate::RestartConfig::program
//! [`pid_file`]: crate::RestartConfig::pid_file
//! [`probation`]: crate::RestartConfig::probation
//! [`max_draining`]: crate::RestartConfig::max_draining
//! [`ready_timeout`]: crate::RestartConfig::ready_timeout
//! [`build`]: crate::RestartConfig::build
//! [`RestartConfig::build`]: crate::RestartConfig::build
//! [`RestartConfig::request_restart`]: crate::RestartConfig::request_restart
//! [`request_restart`]: crate::restart_coordination_socket::request_restart
//! [`try_into_restart_task`]: crate::RestartConfig::try_into_restart_task
//! [`spawn_restart_task`]: crate::spawn_restart_task
//! [`startup_complete`]: crate::startup_complete
//! [`fixup_systemd_env`]: crate::fixup_systemd_env
//! [`ChildSpawnError`]: crate::ChildSpawnError
//! [`Failure`]: crate::Failure
//! [`RestartTask`]: crate::RestartTask
//! [`RestartTask::with_handler`]: crate::RestartTask::with_handler
//! [`RestartTask::ready`]: crate::RestartTask::ready
//! [`RestartTask::receive`]: crate::RestartTask::receive
//! [`RestartCoordinationSocket::new`]: crate::restart_coordination_socket::RestartCoordinationSocket::new
//! [`RestartTask::restarter`]: crate::RestartTask::restarter
//! [`Successor`]: crate::Successor
//! [`Restarter`]: crate::Restarter
//! [`Restarter::predecessor`]: crate::Restarter::predecessor
//! [`Restarter::ready`]: crate::Restarter::ready
//! [`Restarter::request`]: crate::Restarter::request
//! [`Restarter::stop`]: crate::Restarter::stop
//! [`Error`]: crate::Error
//! [`RequestError`]: crate::RequestError
//! [`Event`]: crate::Event
//! [`Event::Completed`]: crate::Event::Completed
//! [`Event::HandedOff`]: crate::Event::HandedOff
//! [`Event::PredecessorGone`]: crate::Event::PredecessorGone
//! [`Sockets`]: crate::Sockets
//! [`tcp_listener`]: crate::Sockets::tcp_listener
//! [`udp_socket`]: crate::Sockets::udp_socket
//! [`unix_listener`]: crate::Sockets::unix_listener
//! [`unix_seqpacket`]: crate::Sockets::unix_seqpacket
//! [`unix_datagram`]: crate::Sockets::unix_datagram
//! [`remove`]: crate::Sockets::remove
//! [`get`]: crate::Sockets::get
//! [`or_insert_with`]: crate::Sockets::or_insert_with
//! [`Handover`]: crate::Handover
//! [`Handover::fd`]: crate::Handover::fd
//! [`Handover::blob`]: crate::Handover::blob
//! [`Handover::send`]: crate::Handover::send
//! [`Handover::rehearse`]: crate::Handover::rehearse
//! [`Blob`]: crate::Blob
//! [`Inheritance`]: crate::Inheritance
//! [`Inheritance::fd`]: crate::Inheritance::fd
//! [`Predecessor::receive`]: crate::Predecessor::receive
//! [`Predecessor::progress`]: crate::Predecessor::progress
//! [`pre_new_process`]: crate::LifecycleHandler::pre_new_process
//! [`send_to_new_process`]: crate::LifecycleHandler::send_to_new_process
//! [`new_process_granted`]: crate::LifecycleHandler::new_process_granted
//! [`new_process_failed`]: crate::LifecycleHandler::new_process_failed
//! [`new_process_ready`]: crate::LifecycleHandler::new_process_ready
//! [`ShutdownCoordinator::handle`]: crate::ShutdownCoordinator::handle
//! [`ShutdownCoordinator::handle_weak`]: crate::ShutdownCoordinator::handle_weak
//! [`ShutdownCoordinator::shutdown`]: crate::ShutdownCoordinator::shutdown
//! [`ShutdownHandle::signal`]: crate::ShutdownHandle::signal
//! [`ShutdownSignal::on_shutdown`]: crate::ShutdownSignal::on_shutdown
