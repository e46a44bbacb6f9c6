//! Coming from shellflip, tableflip or ecdysis: no code, only what each call becomes, and what behaves differently.
//!
//! - [From shellflip](#from-shellflip)
//! - [From tableflip](#from-tableflip)
//! - [From ecdysis](#from-ecdysis)
//! - [The first deploy](#the-first-deploy)
//!
//! # From shellflip
//!
//! The names are the same where the things are. A program keeps its shape: [`RestartTask`] is a future for any executor, tokio's as well.
//!
//! | shellflip | here |
//! | --- | --- |
//! | `RestartConfig { … }` with public fields | [`RestartConfig::new`] and a method for each setting |
//! | `enabled`, `coordination_socket_path` | [`coordination_socket`]; not called, there is none |
//! | `environment` | [`env`], and [`env_remove`] |
//! | `restart_signal: SignalKind` | [`restart_signal`]`(Some(number))`; `None` for no signal |
//! | `exit_on_error: false` | always so: a failed restart does not resolve the task |
//! | `lifecycle_handler` | [`RestartTask::with_handler`] |
//! | `try_into_restart_task()`, `spawn_restart_task()` | [`try_into_restart_task`], [`spawn_restart_task`]; needs no runtime to be entered |
//! | the task resolves with a `std::process::Child` | with a [`Successor`]: `pid`, `try_wait`, and a descriptor |
//! | `request_restart().await`, `request_restart_sync()` | [`RestartConfig::request_restart`], which blocks, or [`request_restart`] with a limit and progress |
//! | `startup_complete()` | [`startup_complete`]; after the task has been made, not before |
//! | `fixup_systemd_env()` | [`fixup_systemd_env`]; it returns a `Result`, and `try_into_restart_task` does not call it |
//! | `ChildSpawnError` | [`ChildSpawnError`], the spawn part of [`Failure`], which also knows how else a successor can fail |
//! | no sockets are passed | [`Sockets`]: named, from the old process or bound fresh |
//!
//! The hooks are not async, and run on the thread that polls the task:
//!
//! | `LifecycleHandler` of shellflip | here |
//! | --- | --- |
//! | `pre_new_process()` | [`pre_new_process`], which can refuse the restart |
//! | `send_to_new_process(pipe)`, before the successor has asked | [`send_to_new_process`]`(handover)`, when it asks. Fill the [`Handover`] there, or move it to another thread |
//! | `pipe.write_all(…)` | write into a [`Blob`], then [`Handover::blob`] and [`Handover::send`]; [`Handover::fd`] for live connections |
//! | `new_process_failed()` | [`new_process_failed`]`(why)`, also for a successor that never came so far |
//! | | [`new_process_ready`]`(pid)` |
//! | `receive_from_old_process()` → a pipe, read to its end | [`Predecessor::receive`]`(limit)` → an [`Inheritance`]: `bytes`, `map` without a copy, `fd` |
//! | whether it is `Some` | [`Restarter::predecessor`]; of a task, [`RestartTask::restarter`]`().predecessor()` |
//!
//! | `shutdown` of shellflip | here |
//! | --- | --- |
//! | `coordinator.handle()` → `Arc<ShutdownHandle>` | [`ShutdownCoordinator::handle`], which is cheap to clone by itself |
//! | `coordinator.handle_weak()` → `Weak<…>` | [`ShutdownCoordinator::handle_weak`], with an `upgrade` |
//! | `ShutdownSignal::from(&*handle)` | [`ShutdownHandle::signal`] |
//! | `signal.on_shutdown().await`, once | [`ShutdownSignal::on_shutdown`], which resolves once more if the shutdown is forced |
//! | `coordinator.shutdown().await` | [`ShutdownCoordinator::shutdown`]`().await`, by whatever polls it |
//! | `coordinator.shutdown_with_timeout(30).await` | `coordinator.shutdown().wait(Duration::from_secs(30))`, which blocks; or the future and a timer of the runtime |
//!
//! What behaves differently:
//!
//! - There is a deadline, [`ready_timeout`], of 60 s. A successor that hangs is killed and reaped, and restarts work again.
//! - Requests are not queued: while a restart is under way the next is answered at once, with the reason.
//! - The successor asks for the state, so it can initialise first; the old process freezes later and for a shorter time.
//! - The program is the path it was started by, made absolute at the start, and not `argv[0]` found by way of PATH: `./service` works
//!   after a `chdir`. Set [`program`] for another.
//! - A successor gets no `OXY_…` in its environment but `POLLFLIP_LIFELINE`, and `LISTEN_PID=auto` only with sockets that systemd passed.
//! - A coordination socket is for root and the service's own user. Its path is never taken from a living server, nor from a file that is
//!   no socket.
//! - What is written to the log has a target that begins with `pollflip`.
//!
//! The wire of the coordination socket is shellflip's: its clients restart a service of this crate, and the clients of this crate one of
//! shellflip. What shellflip does not know, such as the status, its services answer by hanging up.
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
//! | `ListenWithCallback`, `AddListener` | [`or_insert_with`] |
//! | `AddConn`, `Conn`, kept from one generation to the next | [`Handover::fd`] when the successor asks, [`Inheritance::fd`] |
//! | `AddFile`, `File` | [`or_insert_with`], or [`Handover::fd`] |
//! | `upg.Ready()` | [`Restarter::ready`], which waits for the old process's answer |
//! | `<-upg.Exit()` | [`Event::Completed`]; for a socket server already [`Event::HandedOff`], when it stops accepting |
//! | `upg.Stop()` | [`Restarter::stop`] |
//! | `upg.HasParent()` | [`Restarter::predecessor`]`().is_some()` |
//! | `upg.WaitForParent(ctx)` | [`Event::PredecessorGone`] |
//! | `testing.Upgrader`, `testing.Fds` | [`Handover::rehearse`] for state; else a first generation, which needs no supervisor and changes nothing |
//!
//! What behaves differently:
//!
//! - Sockets have names, not addresses: a service that moves to another port says so instead of binding it in silence beside the old
//!   one, and port 0 is inherited.
//! - What was handed over is held by one process in the end: a client sees the end of a connection when the new process closes it.
//! - A restart is possible while an older generation still drains, up to [`max_draining`] of them.
//! - The path of a unix socket stays when a process stops. The next one takes it over if nobody listens.
//! - A restart can be taken back after the successor was ready: [`probation`].
//! - Linux only; tableflip runs on macOS too.
//!
//! # From ecdysis
//!
//! | ecdysis | here |
//! | --- | --- |
//! | `TokioEcdysisBuilder::new(SignalKind::hangup())` | [`RestartConfig::new`]`().restart_signal(Some(1))` and [`build`] |
//! | `Ecdysis::new()` | [`build`]; it does not end the process if something is wrong |
//! | `set_pid_file(path)` | [`pid_file`] |
//! | `upgrade_on_socket(path)`, to which one connects | [`coordination_socket`], which is asked and answers |
//! | `stop_on_signal`, `stop_on_socket`, `partial_stop_on_…` | the program's own signals and [`Restarter::stop`]; [`shutdown`](crate::shutdown) for the rest |
//! | `listen_tcp(StopOnShutdown::Yes, addr)` | [`tcp_listener`]`(name, addr)`, given to the runtime with its `from_std` |
//! | `build_listen_tcp(…, \|socket, addr\| …)` | [`or_insert_with`] |
//! | `listen_unix`, `listen_unix_seqpacket` | [`unix_listener`], [`unix_seqpacket`] |
//! | `build_socket_udp`, `build_stream_udp` | [`udp_socket`] |
//! | `unix_datagram_pair(name)`, to talk to the other process | [`Handover`] for state, [`Predecessor::progress`] for words; or a pair of your own through [`Handover::fd`] |
//! | `read_systemd_sockets`, `systemd_listen_…(name)` | the same methods of [`Sockets`] with the name in `FileDescriptorName=` |
//! | `enable_systemd_notifications`, `extend_systemd_timeouts` | always, and by itself: see the [`guide`](crate::guide) |
//! | `ready()` → a future | [`Restarter::ready`]; the future is [`RestartTask`] |
//! | `ExitMode::Upgrade` | the task resolves with `Ok`; [`Event::Completed`] |
//! | `ExitMode::FullStop`, `PartialStop`, and the `ExitReason` | the program knows, since it is the one that decides |
//! | `Stoppable`, `StoppableStream`, which end by themselves | deregister or drop the listener at [`Event::HandedOff`] |
//! | `std_ecdysis().upgrade()` | [`Restarter::request`] |
//! | `std_ecdysis().quit()` | nothing: the restarter closes its own copies at [`Event::Completed`] |
//! | `is_child()` | [`Restarter::predecessor`]`().is_some()` |
//!
//! What behaves differently:
//!
//! - The old process learns that the new one is ready when it is, and not at the next half second.
//! - The deadline is 60 s and can be set; ecdysis has 5 s.
//! - A listener is closed by whoever holds it: a stream that ecdysis ended is here the program's listener, which has to be dropped or
//!   deregistered.
//! - State and live connections can go over; ecdysis passes listeners, UDP sockets and its datagram pair.
//!
//! # The first deploy
//!
//! A process of one of these libraries cannot hand its sockets to one of another. The first deploy is a stop and a start, or, under systemd with
//! socket activation, a stop and a start in which whoever connects meanwhile waits. From the second one on it is a restart.
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
//! [`RestartTask::restarter`]: crate::RestartTask::restarter
//! [`Successor`]: crate::Successor
//! [`Restarter`]: crate::Restarter
//! [`Restarter::predecessor`]: crate::Restarter::predecessor
//! [`Restarter::ready`]: crate::Restarter::ready
//! [`Restarter::request`]: crate::Restarter::request
//! [`Restarter::stop`]: crate::Restarter::stop
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
//! [`new_process_failed`]: crate::LifecycleHandler::new_process_failed
//! [`new_process_ready`]: crate::LifecycleHandler::new_process_ready
//! [`ShutdownCoordinator::handle`]: crate::ShutdownCoordinator::handle
//! [`ShutdownCoordinator::handle_weak`]: crate::ShutdownCoordinator::handle_weak
//! [`ShutdownCoordinator::shutdown`]: crate::ShutdownCoordinator::shutdown
//! [`ShutdownHandle::signal`]: crate::ShutdownHandle::signal
//! [`ShutdownSignal::on_shutdown`]: crate::ShutdownSignal::on_shutdown
