//! Symptom, cause, remedy.
//!
//! Look at three things first: what the one who asked was told, the log of the predecessor
//! (`RUST_LOG=pollflip=info` with `env_logger`), and the standard error of the successor, which is
//! that of the service.
//!
//! - [Nothing happens](#nothing-happens)
//! - [The restart is refused](#the-restart-is-refused)
//! - [The restart fails](#the-restart-fails)
//! - [The restart succeeds, but](#the-restart-succeeds-but)
//! - [The loop](#the-loop)
//! - [State and connections](#state-and-connections)
//! - [Building and testing](#building-and-testing)
//!
//! # Nothing happens
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | a signal does nothing, or kills the service | the service has no restarter yet, or listens to another signal; the log says which signal does nothing | [`RestartConfig::restart_signal`](crate::RestartConfig::restart_signal); ask over the coordination socket, which answers |
//! | a request waits until its time is over | the loop does not poll: it blocks elsewhere, or the descriptor is not watched | call [`poll`](crate::Restarter::poll) until `None` whenever the descriptor is readable, or once a tick |
//! | nobody answers at the coordination socket | another path, another user, or another directory (`/tmp` of a unit with `PrivateTmp=`) | exit status 3 prints the path; ask as root or as the service's user |
//! | nothing is in the log | no logger is set up | `env_logger::init()`, or another logger of the `log` crate |
//!
//! # The restart is refused
//!
//! The refusal says the reason and the remedy. Some stay until the service is started differently:
//! PID 1 of a container, a terminal, a service manager that is not told, rights of the file.
//! [`Refusal`](crate::Refusal) has all of them, the [`guide`](crate::guide) the arrangements that
//! work.
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | "not ready:" for ever | the program never calls [`ready`](crate::Restarter::ready); of a task, nobody polls it | call it when the program can serve |
//! | "on probation:" after a deploy | the last restart is not final yet | wait until the probation is over |
//! | exit status 5 | the reason stays as long as this process lives ([`Refusal::is_permanent`](crate::Refusal::is_permanent)) | stop the service, mend what the reason names, start it |
//! | "generations still finish their work" | drains without an end | a time limit for the drain |
//!
//! # The restart fails
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | "the successor was not ready within" | the successor initialises for longer than [`ready_timeout`](crate::RestartConfig::ready_timeout), blocks before `ready`, or waits for something that the predecessor has | [`progress`](crate::Predecessor::progress) says where it is; raise the limit; see [locks](crate::recipes#locks-and-embedded-databases) |
//! | "after it had asked for the state, and has been killed" | the freeze lasts longer than [`freeze_timeout`](crate::RestartConfig::freeze_timeout), 5 s unless told otherwise: the state is large, or the successor hangs with it; the last line of progress says where | give large blobs as files that are [mapped](crate::Inheritance::map); ask for the state last, when all else is ready; raise the limit |
//! | "Address already in use" in the successor | the program binds the port itself in the place of asking [`Sockets`](crate::Sockets); or a library does; or the address overlaps the old one. The error names the holder where it can | [ports that a library binds](crate::recipes#ports-that-a-library-binds), [another address](crate::recipes#another-address) |
//! | "was asked for: call remove" | the configuration has changed: the name stands for another address or kind of socket | give the new one a new name. The old one is closed at `ready`, unless it is asked for |
//! | "does that program call ready()?" | another program stands at the path, or the new version ends early | look at what was deployed |
//! | "there is no such file" | the release was removed, or the service was started by a relative path | keep the old release until the restart is over; [`RestartConfig::program`](crate::RestartConfig::program) |
//! | the successor waits in `ready` or `receive` | the loop of the predecessor stands still | it answers within one turn of that loop |
//! | "was killed by the kernel because memory was short" | there is no memory for two processes, and the successor goes first | [memory](crate::guide#memory-and-descriptors-for-two-processes) |
//! | it fails under systemd only | hardening: no `execve`, too few processes, no memory for two | the list at the end of the unit in the [`guide`](crate::guide#under-systemd) |
//! | "Permission denied" after the user was changed | the new user may not execute the program, or enter the directory | [fewer privileges](crate::guide#fewer-privileges) |
//!
//! # The restart succeeds, but
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | "the same file as before": the old version runs again | the path by which the service was started still leads to it | [a deploy, step by step](crate::guide#a-deploy-step-by-step) |
//! | the service is gone a moment later | something above takes the end of the first process for the end of the service | a [guard](crate::guide#under-a-guard) |
//! | systemd kills the new process at `systemctl stop` | the unit has no `ExecStop=` | the one of `examples/systemd/restarter.service` |
//! | settings of the unit are not seen | environment, limits and arguments are those of the first process | `systemctl restart` |
//! | changes of a `.env` file are not seen | the program has loaded it into its environment, and successors inherit that | [`RestartConfig::env_as_executed`](crate::RestartConfig::env_as_executed) |
//! | the old process never ends | a connection never ends | a time limit for the drain; [`Shutdown::wait`](crate::Shutdown::wait) |
//! | clients see no end of a connection that the old process closed | a child of it, or a copy in the successor, has the descriptor too; a warning names descriptors that are not CLOEXEC when they grow | CLOEXEC for all descriptors; [`RestartConfig::inherit_descriptors`](crate::RestartConfig::inherit_descriptors)`(false)`; drop what was handed over |
//! | all generations run on one processor | the affinity was set before `build` | [affinity](crate::recipes#affinity-and-scheduling) |
//! | some connections are reset at each restart | the program closes before the client's request is answered, or each generation binds a listener of its own | drain as `examples/tcp_proxy.rs` does; [a listener for each thread](crate::recipes#a-listener-for-each-thread) |
//!
//! # The loop
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | the processor is busy after a restart | a listener or connection was closed without being deregistered: the successor has it too, so epoll goes on telling of it | deregister, then drop |
//! | the same in the successor | the predecessor called `shutdown` on the listener | drop it, never `shutdown` |
//! | the loop hangs in `accept` | an earlier generation made the listener blocking: the flag belongs to the socket, and so to both processes. A warning says so | a [`Gate`](crate::Gate), or `set_nonblocking(true)` after `ready` |
//! | a restart stops halfway | `poll` was called once, and an edge-triggered loop heard no more | call it until it returns `None` |
//! | `poll` of mio ends with `Interrupted` | a signal, the end of a child, SIGCONT | go on with the loop |
//!
//! # State and connections
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | bytes are lost or come twice | the program went on reading or writing after [`StateRequested`](crate::Event::StateRequested) | freeze: nothing is read, written or accepted until `Failed` or `Resumed` |
//! | answers are cut off | what was read and not answered, or answered and not written, was not saved | it is state: save it with the connection |
//! | "Too many open files" | there is no room for the descriptors that are under way | [memory and descriptors](crate::guide#memory-and-descriptors-for-two-processes) |
//! | "what is handed over is held twice for a moment" | the predecessor is near its limit of descriptors | [`Handover::fds`](crate::Handover::fds) duplicates only what must wait; most can go [ahead](crate::Precopy); or raise the limit |
//! | "dropped the Handover without sending it" | the release that serves does not handle [`StateRequested`](crate::Event::StateRequested), or saving has failed halfway | handle it from the first release on, if only to [`send`](crate::Handover::send) nothing; out of a release that does not, stop and start the service once |
//! | "after the successor had been given the sockets" | a socket was bound or removed while the successor started | ask for the restart again |
//! | the successor cannot read the state | the format has changed | a version in the name of the blob; [`Handover::rehearse`](crate::Handover::rehearse) in the program's tests |
//! | the service stands still for a long time | the successor initialises after it has asked for the state | ask last: `receive` stands right before `ready` |
//!
//! # Building and testing
//!
//! | symptom | cause | remedy |
//! | --- | --- | --- |
//! | "another Restarter or RestartTask lives in this process" in tests | there is one at a time, and tests are threads of one process | a test that builds one runs in a process of its own |
//! | it does not link | glibc before 2.29 | a newer glibc, or musl 1.1.24 or newer: `--target x86_64-unknown-linux-musl` |
//! | it does not build on Windows | the crate needs a unix system | build it for Linux: `--target x86_64-unknown-linux-gnu` |
//! | on macOS or a BSD it serves, and every restart is refused | a restart needs Linux: [`Refusal::Unsupported`](crate::Refusal::Unsupported) | run it on Linux |
