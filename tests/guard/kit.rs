//! What these tests share: a service under a guard, and how the guard has ended.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;

/// The operator's program.
pub const POLLFLIP: &str = env!("CARGO_BIN_EXE_pollflip-of-guard");

/// A new PID namespace with its own /proc.
pub const CONTAINER: &str = "unshare --pid --fork --kill-child --mount-proc";

/// Whether this machine lets us have one; says aloud if not.
pub fn there_are_containers() -> bool {
    let words = CONTAINER.split(' ').skip(1);
    let mut probe = Command::new("unshare");
    let there = probe.args(words).arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: no PID namespace can be had here; it needs root and unshare");
    }
    there
}

/// Whether a program is there; says aloud if not.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !there {
        eprintln!("skipped: {name} is not installed here");
    }
    there
}

/// The service as the child of a guard. What the guard says goes to a file of its own.
pub fn guarded(setup: Setup, options: &str) -> Setup {
    let log = setup.path("guard.log");
    setup
        .env("POLLFLIP", POLLFLIP)
        .env("LOG", log)
        .env("POLLFLIP_LOG", "info")
        .shell(&format!("exec \"$POLLFLIP\" guard {options} -- \"$0\" 2>>\"$LOG\""))
}

/// The same with the guard as PID 1 of a container.
pub fn contained(setup: Setup, options: &str) -> Setup {
    let log = setup.path("guard.log");
    let shell = format!("exec {CONTAINER} \"$POLLFLIP\" guard {options} -- \"$0\" 2>>\"$LOG\"");
    setup.env("POLLFLIP", POLLFLIP).env("LOG", log).env("POLLFLIP_LOG", "info").shell(&shell)
}

/// What the guard has said.
pub fn log(service: &Service) -> String {
    fs::read_to_string(service.path("guard.log")).unwrap_or_default()
}

/// Waits until the guard, or what it was started by, has ended. It is left for the harness to reap.
pub fn end_of(service: &Service) -> WaitStatus {
    let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let pid = Pid::from_raw(service.launched() as i32);
    wait_for(&format!("the end of the guard, which says:\n{}", log(service)), || match waitid(Id::Pid(pid), options) {
        Ok(WaitStatus::StillAlive) => None,
        status => Some(status.expect("a child")),
    })
}

/// As what a process ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(Signal),
}

pub fn how(status: WaitStatus) -> End {
    match status {
        WaitStatus::Exited(_, code) => End::Code(code),
        WaitStatus::Signaled(_, signal, _) => End::Signal(signal),
        other => panic!("{other:?}"),
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("a process that is there");
}

/// The process that a new PID namespace began with, as seen from here.
pub fn init_of(service: &Service) -> u32 {
    let children = wait_for("the first process of the container", || {
        Some(procfs::children(service.launched())).filter(|children| !children.is_empty())
    });
    children[0]
}

/// Waits until a process has no children but so many, and no zombies.
pub fn has_children(pid: u32, count: usize) {
    wait_until(&format!("process {pid} to have {count} children"), || procfs::children(pid).len() == count);
}

/// A signal as the mask of that one.
pub fn is_ignored(pid: u32, number: i32) -> bool {
    procfs::has_signal(pid, "SigIgn", number)
}

/// Runs a script under a guard, and hands back how that ends and what was said.
pub fn run(options: &[&str], script: &str) -> (End, String, String) {
    let mut command = Command::new(POLLFLIP);
    command.arg("guard").args(options).args(["--", "/bin/sh", "-c", script]);
    end_of_command(command)
}

pub fn end_of_output(output: &Output) -> End {
    use std::os::unix::process::ExitStatusExt;
    match output.status.signal() {
        Some(number) => End::Signal(Signal::try_from(number).expect("a signal")),
        None => End::Code(output.status.code().expect("a status")),
    }
}

pub fn end_of_command(mut command: Command) -> (End, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("a process");
    (end_of_output(&output), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What a loop of a process has slept through: how often it gave the processor away.
pub fn wake_ups(pid: u32) -> u64 {
    procfs::status(pid, "voluntary_ctxt_switches").and_then(|text| text.trim().parse().ok()).expect("a number")
}

/// What a guard has opened itself: an epoll, signals, notifications, and one for each generation.
/// The rest it was born with.
pub fn own_descriptors(pid: u32) -> usize {
    let own = |what: &String| what.starts_with("anon_inode:") || what.starts_with("socket:");
    procfs::descriptors(pid).into_iter().filter(|(_, what)| own(what)).count()
}

/// A terminal: its two ends, which no other process is born with.
pub fn terminal() -> Option<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let made = posix_openpt(flags).and_then(|master| {
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = open(ptsname_r(&master)?.as_str(), flags, Mode::empty())?;
        Ok((OwnedFd::from(master), slave))
    });
    match made {
        Ok(ends) => Some(ends),
        Err(error) => {
            eprintln!("skipped: no terminal can be had here: {error}");
            None
        }
    }
}
