//! For whoever deploys and operates a service that restarts itself: no code, only this page.
//!
//! - [Under systemd](#under-systemd)
//! - [In a container](#in-a-container)
//! - [Under a guard](#under-a-guard)
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
//! The unit of `examples/systemd/restarter.service`, whole, with the reason for each line and a list of what cannot be set. Beside it lie
//! a socket unit, a service with two sockets of two names, and a drop-in for `Type=notify-reload`.
//!
//! ```ini
#![doc = include_str!("../examples/systemd/restarter.service")]
//! ```
//!
//! What systemd is told, always by the process that it takes for the main one:
//!
//! | when | message | what `systemctl` shows |
//! | --- | --- | --- |
//! | the first process is ready | `READY` | active |
//! | a restart begins | `RELOADING`, `MONOTONIC_USEC`, `EXTEND_TIMEOUT_USEC`, `STATUS` | reloading |
//! | the successor says how far it is | `STATUS` | its line |
//! | it has taken over for good | `MAINPID`, `READY`, then `BARRIER` | active, another main PID |
//! | the restart has failed | `READY`, `STATUS` | active, the same main PID, the reason |
//! | a signal asks for one that cannot be | `RELOADING`, `READY`, `STATUS` | the same |
//! | the service ends | `STOPPING`, `EXTEND_TIMEOUT_USEC` again and again | deactivating |
//!
//! The old process does not learn that a restart is final before systemd has taken the new main PID in, or 5 s have passed: so it does
//! not end too early. With a probation the restart is final, and the unit active again, when that is over.
//!
//! **How to ask.** `ExecReload=… restart --socket …` waits for the outcome and passes it on as the exit status of `systemctl reload`: the
//! one to deploy with. `ExecReload=kill -USR1 $MAINPID` needs no socket and always succeeds: a signal that comes while a restart is not
//! final yet, be it for a millisecond, is in vain, and only the log says so. `Type=notify-reload` (253) waits, but succeeds
//! after a failed or refused restart too, since the service did answer; the reason is in `systemctl status`. A unit that is stopped while
//! `ExecReload=… restart` waits is called failed for that command's end; it stays stopped.
//!
//! **If nobody listens** (no `Type=notify`, or `NotifyAccess=none`), systemd would take the end of the old process for the end of the
//! service and kill the new one. So the service starts and serves, logs a warning, and refuses restarts
//! ([`Refusal::NoNotifyAccess`](crate::Refusal::NoNotifyAccess), exit status 2). Two remedies: `NotifyAccess=main`, or
//! `PIDFile=` on the path of [`RestartConfig::pid_file`](crate::RestartConfig::pid_file). `ExitType=cgroup` is none by itself: a process cannot
//! see it. Nor can it see that its messages are thrown
//! away for another reason, such as a wrapper that does not `exec` the program under `NotifyAccess=main`: look for `Got notification
//! message from PID` in the journal.
//!
//! **How to stop it.** systemd does not wait for a main process that was not its own child when it was named, and a successor is the child
//! of its predecessor. After a reload `systemctl stop`, and whatever else stops the unit, would send SIGTERM and in the same breath SIGKILL,
//! unless another process of the unit is there to wait for. Hence the `ExecStop=` of the unit, which tells the main process and waits for its
//! end, as long as that asks for more time. Older processes that are still at work then have `TimeoutStopSec=` for the rest. What systemd logs at each reload (`Supervising process … which is not our child`) means this,
//! and no more.
//!
//! **If the new process crashes while the old one still finishes its work**, the log has an error at once, and a program can see to it
//! ([`Event::SuccessorGone`](crate::Event::SuccessorGone)). systemd learns of it when the old one has ended as well, and then starts the
//! service again, with `Restart=on-failure` too: until then the dead process stays a zombie, so that systemd can see how it ended. Where `PIDFile=` stands in for notifications, it goes by the exit
//! status of the old one, which must then be a failure.
//!
//! **If the old process is killed in the middle of a restart**, systemd sees a service whose main process has crashed: it ends what is
//! left, and starts it again with `Restart=on-failure`. With socket activation, who connects meanwhile waits. `ExitType=cgroup` with
//! `NotifyAccess=all` cannot be relied on to change that: a successor that is ready then names itself the main process, and stays if systemd
//! hears of it before it hears of the end.
//!
//! **What a reload does not do** is read the unit again: environment, limits, users and hardening are those of the first process. After
//! a change there, `systemctl restart`.
//!
//! **A watchdog** (`WatchdogSec=`) is the program's own affair: it must be fed by whichever process is the main one, so by the old one until
//! [`Event::Completed`](crate::Event::Completed), and by the new one from [`Event::Committed`](crate::Event::Committed) on.
//!
//! **Socket activation.** [`Sockets`](crate::Sockets) takes sockets by the names in `FileDescriptorName=`. A program that takes them by
//! itself calls [`fixup_systemd_env`](crate::fixup_systemd_env) first. See `examples/socket_activation.rs`.
//!
//! # In a container
//!
//! A container ends with the process that it was started with (PID 1), and the kernel ends all others in it. A service that is that process
//! refuses restarts. An init that ends with its first child is not enough either: `docker run --init`, tini and catatonit reap, but end
//! as soon as the old process does. The first process has to be a parent that lives as long as any generation: a [guard](#under-a-guard),
//! a supervisor that follows a pid file, or systemd in the container.
//!
//! ```dockerfile
#![doc = include_str!("../examples/guard/container/Dockerfile")]
//! ```
//!
//! A pod needs neither a root that can be written nor a capability; one directory for the coordination socket is enough:
//!
//! ```yaml
#![doc = include_str!("../examples/guard/container/pod.yaml")]
//! ```
//!
//! In most fleets of containers the new version is a new image, and a rolling update replaces the container: then graceful
//! [`shutdown`](crate::shutdown) is what is needed, and a restart in place serves configuration and certificates.
//!
//! # Under a guard
//!
//! The [guard](crate::guard) is a pid that stays. It starts the service, lives as long as any generation does, passes signals on, and ends as
//! the last generation did. It is the program `pollflip guard -- PROGRAM ARGUMENT…` (`cargo install pollflip`), or a part of the service
//! itself: [`Guard::from_env`](crate::guard::Guard::from_env) on the first line of `main`, which is active as PID 1 and with
//! `POLLFLIP_GUARD=1`.
//!
//! The program guards any service that speaks systemd's notify protocol. It has nothing to set for a service that is restarted by its
//! operator alone. It can also start a service again that has crashed:
//!
//! | option | meaning |
//! | --- | --- |
//! | `--restart no` | the end of the service is the end of the guard; the default |
//! | `--restart on-failure` | a service is started again that ended with another status than 0, or by another signal than HUP, INT, PIPE and TERM |
//! | `--restart always` | a service is started again however it ended, unless the guard was told to end |
//! | `--strikes N/SECONDS` | a service that has ended N times within so long is not started again (5/60) |
//! | `--delay MS` | so long after its end it is started again (100) |
//! | `--ready SECONDS` | a service that has not said by then that it is ready is killed |
//!
//! A service that is started again is started by the same path. After a failed deploy that is the broken file, until strikes end it: put
//! the old file back when a restart has failed.
//!
//! | what ends | what the guard does | how the guard ends |
//! | --- | --- | --- |
//! | the last generation exits | it exits | with the same status |
//! | the last generation is killed by a signal | it dies | by the same signal; as PID 1 with 128 and its number |
//! | the main process, while earlier generations finish their work | it waits for them, or starts the service again beside them | as the main process has ended |
//! | the main process, in the middle of a restart | it waits until the successor names itself | as the last generation ends |
//! | the guard is told to end (TERM, INT, QUIT) | it tells all generations, and each that comes later | as the last generation ends |
//! | the guard is killed | nothing any more | the kernel sends each generation SIGTERM |
//!
//! The program could not be started: 127 if it is not there, 126 otherwise. There can be no guard (no `/proc`): 125.
//!
//! **What it needs.** `/proc` of its own PID namespace, and an abstract unix socket, for which the service must be in the same network
//! namespace: in another one it refuses restarts. No directory, no capability, no user. The service must
//! stay in the foreground. What it leaves behind when it ends is sent SIGTERM, and SIGKILL after 5 s.
//!
//! **Under runit.** `sv 1` restarts, `sv down` ends all generations. The file `run` of the service directory:
//!
//! ```sh
#![doc = include_str!("../examples/guard/runit/run")]
//! ```
//!
//! **Under s6.** `s6-svc -1` restarts, `s6-svc -d` ends all generations. The file `run` of the service directory:
//!
//! ```sh
#![doc = include_str!("../examples/guard/s6/run")]
//! ```
//!
//! **Under supervisord.** A section of its configuration:
//!
//! ```ini
#![doc = include_str!("../examples/guard/supervisord/restarter.conf")]
//! ```
//!
//! **Under systemd** a guard is not needed. With one the main PID stays, and systemd needs no `ExecStop=`:
//!
//! ```ini
#![doc = include_str!("../examples/guard/systemd/restarter.service")]
//! ```
//!
//! **Under foreman, overmind and others** that read a Procfile:
//!
//! ```text
#![doc = include_str!("../examples/guard/Procfile")]
//! ```
//!
//! **On a terminal** the guard and the service are one job: Ctrl-C, Ctrl-Z, `fg` and a hang-up reach both, and the prompt comes back when
//! the last generation has ended.
//!
//! # By hand, or under another supervisor
//!
//! From a shell or from cron: start it, and ask with the `restart` subcommand. For supervisors that know a service by a pid file (monit,
//! OpenRC), set [`RestartConfig::pid_file`](crate::RestartConfig::pid_file): it names a live and ready process at any moment (during a probation
//! the old one), is replaced by rename, and removed by the last one. Supervisors that know a service as their own child (runit, s6, supervisord) take the end of the
//! old process for the end of the service and start another one, which finds the addresses in use: under them a service needs a
//! [guard](#under-a-guard).
//!
//! **The first process of a terminal** (`ssh -t host echo-server`, `docker exec -it`, `script -c 'exec echo-server'`) leads its session:
//! when it ends, the kernel hangs the terminal up, and SIGHUP would kill the successor. So a restart is refused there
//! ([`Refusal::SessionLeader`](crate::Refusal::SessionLeader); whether there is a terminal is looked at in `build`), unless SIGHUP is ignored
//! (`nohup`), handled by the program, or blocked when the restarter is built. Otherwise start it from a shell that stays, with `setsid`, or under a [guard](#under-a-guard).
//! A shell that leads the session and ends with the service does the same harm, and is not noticed.
//!
//! **A new process that is stopped** (SIGSTOP, Ctrl-Z) at the moment the old one ends is sent SIGHUP by the kernel, and dies of it unless
//! it ignores or handles that: if the service was started by a process of the same session and another process group, such as a shell with
//! job control, nobody is left then to continue it. With `setsid`, and under systemd, there is no such signal.
//!
//! **A program that puts itself into the background** (`daemon`, a fork whose parent exits) must not do so as a successor: the process that
//! was started would end, and another one answer in its place, which fails the restart. Leave that to `setsid` or a supervisor, or give
//! successors other arguments ([`RestartConfig::args`](crate::RestartConfig::args)).
//!
//! **A program that asks for a signal at the end of its parent** (`PR_SET_PDEATHSIG`) would be killed by each restart, since the parent of
//! a successor is its predecessor. A successor that has asked for one before `build`, in the same thread, is an error there, and the old
//! process serves on: ask after `build`, where there is no [`predecessor`](crate::Restarter::predecessor). Later than in `build` it is not
//! looked for.
//!
//! **Stopping it while a restart is on probation** takes two signals. The old process, told to [stop](crate::Restarter::stop), leaves the
//! service to the new one for good; the new one, if it ends, gives it back. The status names both (`pid` and `successor`).
//!
//! # A deploy, step by step
//!
//! 1. Put the new version beside the old and rename it over it, or switch a `current` link. A program that runs cannot be overwritten.
//! 2. Ask for the restart, and look at the exit status. The successor is started by the path by which the running program was
//!    executed, with its arguments, environment and directory. A script that executes another program is left out from the second restart on:
//!    name it with [`RestartConfig::program`](crate::RestartConfig::program) if the new version is put in its place.
//! 3. If it failed: the old version serves on. Put the old file back, so that a crash does not start the broken one.
//!
//! ```sh
//! install -m 755 build/echo-server /usr/local/bin/.echo-server.new
//! cp -p /usr/local/bin/echo-server /usr/local/bin/.echo-server.old
//! mv /usr/local/bin/.echo-server.new /usr/local/bin/echo-server
//! if ! systemctl reload echo-server; then
//!     mv /usr/local/bin/.echo-server.old /usr/local/bin/echo-server
//!     exit 1
//! fi
//! ```
//!
//! Two processes run for a while: memory, process limits and connections to databases must allow for it. Both versions must understand the
//! state that is handed over, and whatever both write to.
//!
//! **If memory gets short**, the kernel ends a process, of the control group or of the machine. Until the restart is final, that is the
//! successor: its `oom_score_adj` is 1000 from its start on, and is set back when the restart is final. Then the restart has failed, whoever
//! has asked is told that it was memory, and the old process goes on with its connections. Processes that the successor starts meanwhile
//! inherit the 1000: start helpers when the restart is final ([`Event::Committed`](crate::Event::Committed)). A unit needs
//! `OOMPolicy=continue`: otherwise systemd stops the service because one of its processes was ended for memory. If the value cannot be set or
//! set back, a warning says so, and [`Status::notes`](crate::Status) does.
//!
//! **A `current` link** that is switched leads to the new release: the program and the directory of the successor are taken through the link
//! again. It is found in the path by which the service was started, and in `PWD`. The old release can be removed then. A restart that runs the
//! very file of before succeeds, and says `the same file as before: PATH` to whoever asks, in the log and in the status: the deploy has
//! gone elsewhere. That is so where the unit names another path by now (it needs a true `systemctl restart`), or where the program is one
//! file that is mounted by itself: mount the directory above it.
//!
//! # The `restart` subcommand and its exit statuses
//!
//! A service gives its operators one with few lines, or they use the program `pollflip` of this crate: `pollflip restart SOCKET` and
//! `pollflip status SOCKET [--json]`. These are its statuses and those of `examples/restarter.rs`, which deploy scripts can go by:
//!
//! | status | [`RequestError`](crate::RequestError) | who serves | what to do |
//! | --- | --- | --- | --- |
//! | 0 | | the new version; its pid is printed | |
//! | 1 | `Failed`, `Protocol` | the old version | mend the new one; the reason is printed |
//! | 2 | `Refused` | the old version | ask again later; the reason says what is going on |
//! | 3 | `Unreachable` | nobody, or not there | look whether it runs, and at the path and the user |
//! | 4 | `TimedOut`, `HungUp` | one of the two, if any | ask for the status; wait longer than ready timeout and probation together |
//! | 64 | | as before | wrong usage |
//!
//! ```
//! use std::process::ExitCode;
//! use std::time::Duration;
//! use pollflip::{RequestError, restart_coordination_socket::request_restart};
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
//!             ExitCode::from(match error {
//!                 RequestError::Refused(_) => 2,
//!                 RequestError::Unreachable(_) => 3,
//!                 RequestError::TimedOut(_) | RequestError::HungUp(_) => 4,
//!                 _ => 1,
//!             })
//!         }
//!     }
//! }
//! assert_eq!(restart("/nobody/is/here.sock"), ExitCode::from(3));
//! ```
//!
//! # Over a fleet
//!
//! One host after the other, and no further than the first whose restart failed. All that it takes is the exit status:
//!
//! ```sh
//! #!/bin/sh
//! # usage: roll.sh HOST…
//! for host in "$@"; do
//!     echo "== $host"
//!     scp -q build/echo-server "$host:/usr/local/bin/.echo-server.new" &&
//!         ssh "$host" 'mv /usr/local/bin/.echo-server.new /usr/local/bin/echo-server &&
//!             echo-server restart --socket /run/echo/restart.sock' || {
//!         echo "stopped at $host, status $?; it serves on, and so do those after it" >&2
//!         exit 1
//!     }
//! done
//! ```
//!
//! The same with Ansible. `serial` makes it one host at a time, and `max_fail_percentage` ends it at the first failure:
//!
//! ```yaml
//! - hosts: echo
//!   serial: 1
//!   max_fail_percentage: 0
//!   tasks:
//!     - name: the new version (copy writes beside it and renames)
//!       ansible.builtin.copy: { src: build/echo-server, dest: /usr/local/bin/echo-server, mode: "0755" }
//!     - name: restart in place
//!       ansible.builtin.command: echo-server restart --socket /run/echo/restart.sock
//!       register: restart
//!       # Somebody else's restart is under way: that may be waited for.
//!       retries: 3
//!       delay: 10
//!       until: restart.rc != 2
//! ```
//!
//! # What to watch
//!
//! The `log` target is `pollflip`, or begins with `pollflip::`. Lines of a restart carry its number (counted in each process anew), the time since it was asked for, and the pids.
//!
//! | level | what | who should look |
//! | --- | --- | --- |
//! | error | a restart failed, or was taken back; the successor ended after it had taken over; no restart is possible any more | a person, soon |
//! | warn | systemd cannot be told, or tells nobody; a signal did nothing; a socket is not what was expected | the one who set the service up |
//! | info | each step of each restart | whoever reads up on one |
//! | debug | what other versions and helpers say that means nothing here | whoever writes a program |
//!
//! The `status` of the coordination socket ([`Status`](crate::Status), as JSON for programs) says who serves, in which generation, and how
//! the last restarts ended, those of earlier processes included. Worth an alarm: an outcome that is not `ok`; a generation that does not
//! move with a deploy; old processes that do not end (more than two in the unit, for longer than a drain may take).
//!
//! # Fewer privileges
//!
//! A restart is started by a thread of its own, which [`RestartConfig::build`](crate::RestartConfig::build) starts with the rights of the
//! moment. What other threads give up later does not bind it, as long as the kernel or the C library keeps it to the thread that asks:
//!
//! | what is given up after `build` | whom it binds | restarts |
//! | --- | --- | --- |
//! | a seccomp filter, without TSYNC | the thread that installs it, and threads that it starts | work; the successor has none of it until it installs its own |
//! | capabilities, by `capset` | the same | work; the successor is born with those of the restart thread |
//! | `no_new_privs` | the same | work; a successor that is setuid gets its user |
//! | a seccomp filter with TSYNC | all threads | fail with `Operation not permitted` if it forbids `execve`, `clone` or `vfork` |
//! | `setuid`, `setgid`, `setgroups` of the C library | all threads | work as the new user: it must be allowed to execute the program (and to enter the directory to start in, if that is not where this process is), and the successor cannot take the old rights back (if the program is setuid, it does, and then refuses: [see below](#more-rights-than-the-caller)). Sockets are inherited, so that privileged ports stay |
//! | the user, by the bare system calls (`setresuid` of the kernel) | the thread that asks | work; the successor is born as the user of the restart thread, root say, and has to give that up again |
//! | `chroot` | all threads | work if the program, its libraries and the directory to start in ([`current_dir`](crate::RestartConfig::current_dir)) are at the same paths in the new root |
//! | namespaces, by `setns` or `unshare` | the thread that asks, and threads that it starts | work; the successor is born in those of the restart thread |
//! | the shared descriptor table, by `unshare(CLONE_FILES)` | the thread that asks | fail with `Bad file descriptor` if that is the loop's: the restart thread has the other table |
//! | resource limits | the process, and its successors | work; as many descriptors are needed as there are sockets, and a few |
//!
//! So a thread that talks to strangers can be forbidden to execute anything while the service can still be replaced.
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
//! If the service gives its rights up in all threads (`setuid` of the C library), its own file is of
//! no use to a restart: started again, it has the rights again, and refuses the lifeline. Name a copy
//! as `program` that is not setuid and has no capabilities: it runs as the new user, and gets the sockets.
//!
//! Under systemd, `AmbientCapabilities=` gives a service its capabilities without the mark: there
//! is no file then by which others get them, the environment is handed down, and sockets are taken
//! from any service manager.
//!
//! # The coordination socket under attack
//!
//! Root and the user that the service runs as may ask; all others are turned away at once and take no room, whatever the mode of the path.
//! The path belongs to the user that has built the restarter, with mode 600. A service that is built as root and then becomes another user is
//! asked by root alone, unless it gives the path to its new user after `build` (`chown`). One that runs as the user for those without a
//! number (65534, often called nobody) is asked by root alone in any case: anybody from another user namespace could come as that one.
//!
//! Of those who may ask, 64 are talked to at a time; each has 5 s to say what it wants and to take its answer, in frames of 64 KiB at the most.
//! That bounds what an attack can cost: 16 MiB of memory, and turns of the loop of a few milliseconds.
//!
//! When all 64 places are taken, the oldest makes room for whoever comes: it is hung up on, whether it has asked or not. Only the one that
//! waits for the end of a restart is never sent away, and everybody keeps its place for 10 ms. Until then those who come wait in the
//! kernel's queue; so a flood gets no more than 6,400 connections a second out of the loop, and an asker who comes when the queue is full
//! (4,096, or `net.core.somaxconn`) is served after a second or so. Whoever is hung up on before its request was read loses nothing by
//! asking again: [`request_restart`](crate::restart_coordination_socket::request_restart) and
//! [`request_status`](crate::restart_coordination_socket::request_status) do that by themselves until their time is over.
//!
//! # The system calls of the loop
//!
//! What the thread that calls [`Restarter`](crate::Restarter)'s methods needs after [`build`](crate::RestartConfig::build) and the binding of
//! [`Sockets`](crate::Sockets), for a seccomp filter. It needs neither `execve` nor anything that makes a process or a thread. The names are those of
//! 64-bit machines; one that a machine does not have is left out there. The program's own calls come on top: its connections, its files, its log.
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
//! | `getdents64` | the threads of one whose first one has ended |
//! | `socket`, `connect`, `ioctl`, `pipe2` | telling systemd, and waiting until it has understood; `ioctl` also before a line of progress |
//! | `futex`, `sched_yield` | what is shared with the restart thread and with handles in other threads |
//! | `brk`, `mmap`, `munmap`, `mremap`, `mprotect`, `madvise`, `getrandom` | memory, and the seeds of hash maps |
//! | `rt_sigprocmask`, `rt_sigreturn`, `restart_syscall` | the handler of the restart signal; going on after a signal, or after the process was stopped |
//!
//! One call more is made in a process that leads the session of a terminal, when it is asked for a restart: `rt_sigaction`, which tells
//! whether the end of this process would be that of the successor.
