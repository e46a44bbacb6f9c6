//! The process: how it ends, signals, variables, memory, children.

use std::ffi::{CString, OsString};
use std::mem;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal};
use nix::sys::wait::waitpid;
use pollflip::fixup_systemd_env;
use pollflip::restart_coordination_socket::{request_restart, request_status};

use crate::service::plan::Plan;
use crate::service::report::say;
use crate::service::{NEXT, directory};

static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// That word, or the error.
pub(in crate::service) fn answer<T, E: ToString>(result: Result<T, E>, word: &str) -> String {
    result.map_or_else(|error| error.to_string(), |_| word.into())
}

/// What becomes of a process that this thread starts by itself.
pub fn spawn_directly() -> String {
    Command::new("/bin/true").status().map_or_else(|error| error.to_string(), |status| format!("ended {status}"))
}

pub(super) fn park() -> ! {
    loop {
        thread::park();
    }
}

pub(super) fn execute_by_descriptor(program: &Path) -> String {
    let file = std::fs::File::open(program).expect("a program");
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).expect("no NUL")
    };
    let environment: Vec<_> = std::env::vars_os().map(variable).collect();
    let name = CString::new(program.as_os_str().to_owned().into_vec()).expect("no NUL");
    format!("{:?}", nix::unistd::fexecve(file, &[name], &environment))
}

pub(super) fn leave_plan(plan: &Plan) -> String {
    plan.clone().append(&directory().join(NEXT));
    "left".into()
}

#[allow(unsafe_code, reason = "a handler")]
pub(super) fn count(signal: Signal) -> String {
    let count = || {
        COUNTED.fetch_add(1, Ordering::SeqCst);
    };
    // SAFETY: an atomic addition is all that the handler does.
    answer(unsafe { signal_hook::low_level::register(signal as i32, count) }, "counting")
}

#[allow(unsafe_code, reason = "std ignores SIGPIPE before main, and has no call to take that back")]
pub(super) fn set_to_default(signal: Signal) -> String {
    // SAFETY: no handler is installed.
    answer(unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }, "set")
}

#[allow(unsafe_code, reason = "as what loads a file of variables does")]
pub(super) fn set_variable(name: &str, value: &str) -> String {
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var(name, value) };
    "set".into()
}

#[allow(unsafe_code, reason = "what some libraries do")]
pub(super) fn forget_variable(name: &str) -> String {
    // SAFETY: the restart thread, the only other one, waits for orders.
    unsafe { std::env::remove_var(name) };
    "forgotten".into()
}

pub(super) fn touch(bytes: usize) -> String {
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(1024).for_each(|byte| *byte = 1);
    mem::forget(std::hint::black_box(memory));
    "touched".into()
}

pub(super) fn reap_any() {
    loop {
        if waitpid(None, None).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(super) fn start_helper(script: &str) -> String {
    #[allow(clippy::zombie_processes, reason = "it outlives this process on purpose; the test reaps it")]
    let child = Command::new("/bin/sh").args(["-c", script]).spawn().expect("a process");
    child.id().to_string()
}

pub(super) fn notify(lines: &[String]) -> String {
    let address = std::env::var("NOTIFY_SOCKET").expect("an address");
    let address = SocketAddr::from_abstract_name(address.trim_start_matches('@')).expect("an address");
    answer(UnixDatagram::unbound().expect("a socket").send_to_addr(lines.join("\n").as_bytes(), &address), "told")
}

pub(super) fn hang() -> ! {
    say("hangs");
    park()
}

pub(super) fn run_as_child() -> ! {
    let status = Command::new(std::env::current_exe().expect("a path")).status().expect("a process");
    std::process::exit(status.code().unwrap_or(99));
}

pub(super) fn counted() -> String {
    COUNTED.load(Ordering::SeqCst).to_string()
}

pub(super) fn fix_up_systemd_variables() -> String {
    fixup_systemd_env().map_or_else(|error| error.to_string(), |()| std::env::var("LISTEN_PID").unwrap_or_default())
}

pub(super) fn status_of(path: &Path) -> String {
    match request_status(path, Duration::from_secs(60)) {
        Ok(status) => status.state.as_str().into(),
        Err(error) => error.to_string(),
    }
}

pub(super) fn restart_of(path: &Path, limit: Duration) -> String {
    request_restart(path, limit, |_| {}).map_or_else(|error| error.to_string(), |pid| pid.to_string())
}
