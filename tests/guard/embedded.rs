//! A program that has its guard within: this test program, in the role of one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Output, Stdio, Termination};
use std::thread;

use nix::sys::signal::{Signal, raise};
use nix::unistd::geteuid;
use pollflip::guard::Guard;

use crate::kit::{CONTAINER, End, end_of, has_children, how, there_are_containers};
use crate::service;
use pollflip_kit::harness::{Setup, install_copy, own_program};
use pollflip_kit::procfs;
use pollflip_kit::service::Act;
use serde::{Deserialize, Serialize};

pollflip_kit::trials![
    a_program_that_is_asked_for_a_guard_has_one,
    a_program_that_is_the_first_process_of_a_container_has_one,
    a_program_that_is_not_asked_has_none,
    a_program_that_always_has_one_has_one_only,
    what_is_no_answer_is_an_error,
    promise_10_a_program_with_more_rights_than_its_caller_has_no_guard,
    the_guard_ends_as_the_service_did,
    a_program_with_threads_cannot_fork,
    the_service_is_executed_with_the_arguments_and_directory_of_the_guard,
];

/// What the program does besides being a service.
const ACT: &str = "POLLFLIP_TEST_ACT";

/// What the program does.
#[derive(Debug, Serialize, Deserialize)]
enum Does {
    /// It is the service.
    Serves,
    /// It has a guard whether it is asked for one or not, and is the service.
    AlwaysGuarded,
    /// It starts a thread first, and is the service.
    Threads,
    Exit(u8),
    /// Sends itself the signal of that number.
    Raise(i32),
    /// Prints what it is executed with.
    Print,
    /// Prints as which user it runs.
    User,
}

fn text(does: &Does) -> String {
    serde_json::to_string(does).expect("text")
}

pub fn main() -> ExitCode {
    let does = std::env::var(ACT).map_or(Does::Serves, |text| serde_json::from_str(&text).expect("an act"));
    if let Does::Threads = does {
        thread::spawn(thread::park);
    }
    let guard = if let Does::AlwaysGuarded = does { Ok(Guard::new()) } else { Guard::from_env() };
    match guard.and_then(Guard::enter) {
        Ok(Some(ended)) => return ended.report(),
        Ok(None) => {}
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(77);
        }
    }
    match does {
        Does::Serves | Does::AlwaysGuarded | Does::Threads => service::main(),
        Does::Exit(status) => ExitCode::from(status),
        Does::Raise(signal) => {
            raise(Signal::try_from(signal).expect("a signal")).expect("raise");
            ExitCode::SUCCESS
        }
        Does::Print => {
            let variables: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with("POLLFLIP_GUARD")).map(|(name, _)| name).collect();
            let directory = std::env::current_dir().expect("a directory");
            println!("{:?} {variables:?} {}", std::env::args().skip(1).collect::<Vec<_>>(), directory.display());
            ExitCode::SUCCESS
        }
        Does::User => {
            println!("{} guarded: {}", geteuid(), std::env::var_os("POLLFLIP_GUARDED").is_some());
            ExitCode::SUCCESS
        }
    }
}

fn run(does: &Does, asked: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(own_program());
    command.env(service::ROLE, "embedded").env(ACT, text(does)).env("POLLFLIP_GUARD", asked).args(arguments);
    command.current_dir("/").stdin(Stdio::null()).output().expect("a process")
}

fn embedded(does: &Does, asked: &str) -> Setup {
    Setup::new().env(service::ROLE, "embedded").env(ACT, text(does)).env("POLLFLIP_GUARD", asked)
}

fn a_program_that_is_asked_for_a_guard_has_one() {
    let service = embedded(&Does::Serves, "1").start();
    let guard = service.launched();
    assert_ne!(service.first().pid, guard);
    for _ in 0..3 {
        let new = service.restart();
        new.says("event PredecessorGone");
        assert!(!procfs::variable_names(new.pid).iter().any(|name| name == "POLLFLIP_GUARD"));
    }
    has_children(guard, 1);
    service.hub.nth(3).tell(Act::Exit(8));
    assert_eq!(how(end_of(&service)), End::Code(8));
}

fn a_program_that_is_the_first_process_of_a_container_has_one() {
    if !there_are_containers() {
        return;
    }
    let shell = format!("exec {CONTAINER} \"$0\"");
    let service = Setup::new().env(service::ROLE, "embedded").shell(&shell).start();
    assert_ne!(service.first().own, 1);
    for _ in 0..3 {
        service.restart().says("event PredecessorGone");
    }
    service.hub.nth(3).tell(Act::Raise(Signal::SIGKILL));
    assert_eq!(how(end_of(&service)), End::Code(128 + Signal::SIGKILL as i32));
    // One that is told to have none is the service itself, and refuses restarts.
    let service = Setup::new().env(service::ROLE, "embedded").env("POLLFLIP_GUARD", "0").shell(&shell).start();
    assert_eq!(service.first().own, 1);
    service.try_restart().expect_err("the container would end");
}

fn a_program_that_is_not_asked_has_none() {
    for asked in ["", "0"] {
        let service = embedded(&Does::Serves, asked).start();
        assert_eq!(service.first().pid, service.launched());
    }
}

fn a_program_that_always_has_one_has_one_only() {
    let service = embedded(&Does::AlwaysGuarded, "").start();
    let guard = service.launched();
    for _ in 0..2 {
        let new = service.restart();
        new.says("event PredecessorGone");
        has_children(guard, 1);
        assert_eq!(procfs::children(guard), [new.pid]);
    }
}

fn what_is_no_answer_is_an_error() {
    let output = run(&Does::Exit(0), "yes", &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("POLLFLIP_GUARD=\"yes\" is neither 0 nor 1"), "{said}");
}

/// Its caller chooses the environment, the path and the name, and a guard would go by them.
fn promise_10_a_program_with_more_rights_than_its_caller_has_no_guard() {
    const CALLER: u32 = 47_011;
    if !geteuid().is_root() {
        eprintln!("skipped: it needs root, to make a program that is setuid");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a mode");
    let path = directory.path().join("program");
    install_copy(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o4755)).expect("a mode");
    let run = |does: &Does| {
        let mut command = Command::new(&path);
        command.env(service::ROLE, "embedded").env(ACT, text(does)).env("POLLFLIP_GUARD", "1").uid(CALLER).gid(CALLER);
        command.current_dir("/").stdin(Stdio::null()).output().expect("a process")
    };
    let said = run(&Does::User).stdout;
    if said != b"0 guarded: false\n" && said.starts_with(CALLER.to_string().as_bytes()) {
        eprintln!("skipped: no program has more rights than its caller here (nosuid, or no_new_privs)");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&said), "0 guarded: false\n");
    let output = run(&Does::AlwaysGuarded);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("this program has more rights than its caller"), "{said}");
}

fn the_guard_ends_as_the_service_did() {
    for status in [0, 3, 255] {
        assert_eq!(run(&Does::Exit(status), "1", &[]).status.code(), Some(status.into()));
    }
    for signal in [Signal::SIGABRT, Signal::SIGTERM, Signal::SIGKILL] {
        assert_eq!(run(&Does::Raise(signal as i32), "1", &[]).status.signal(), Some(signal as i32));
    }
}

fn a_program_with_threads_cannot_fork() {
    let output = run(&Does::Threads, "1", &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("other threads run already") && said.contains("first in main"), "{said}");
}

fn the_service_is_executed_with_the_arguments_and_directory_of_the_guard() {
    let output = run(&Does::Print, "1", &["a", "--b", ""]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[\"a\", \"--b\", \"\"] [\"POLLFLIP_GUARDED\"] /\n");
}
