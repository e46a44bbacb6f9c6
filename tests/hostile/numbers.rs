//! Numbers of processes come back.

use std::fs;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;

use crate::harness::Setup;
use crate::hub::{wait_for, wait_until};
use crate::is_root;

trials![promise_03_a_process_that_has_got_the_number_of_a_dead_successor_is_left_alone];

/// Stops that thread, which this one debugs from then on.
fn stop(thread: Pid) -> nix::Result<()> {
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop)
}

/// Lets it go on until it makes that system call.
fn go_on_until(thread: Pid, call: libc::c_long) {
    loop {
        ptrace::syscall(thread, None).expect("a stopped thread");
        if let WaitStatus::PtraceSyscall(_) = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a thread") {
            let registers = ptrace::getregs(thread).expect("a stopped thread");
            if registers.orig_rax == call as u64 && registers.rax as i64 == -(Errno::ENOSYS as i64) {
                return;
            }
        }
    }
}

/// A process of that number.
fn with_number(number: u32) -> Option<Child> {
    (0..100).find_map(|_| {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).ok()?;
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a process");
        if child.id() == number {
            return Some(child);
        }
        child.kill().and_then(|()| child.wait()).expect("a child");
        None
    })
}

fn promise_03_a_process_that_has_got_the_number_of_a_dead_successor_is_left_alone() {
    let test = "the one of a number that comes back";
    if !is_root(test) {
        return;
    }
    // Its program waits for any child, as one that starts many does.
    let service = Setup::new().plan("granted reap-any").start();
    let old = service.first();
    let thread = wait_for("the restart thread", || {
        let mut threads = fs::read_dir(format!("/proc/{}/task", old.pid)).expect("a live process").flatten();
        let thread =
            threads.find(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.starts_with("pollflip-restar")))?;
        thread.file_name().to_str()?.parse().ok().map(Pid::from_raw)
    });
    if let Err(error) = stop(thread) {
        return eprintln!("skipped {test}: a thread cannot be debugged here: {error}");
    }
    service.plan_next("born exit 3");
    let asker = service.restart_meanwhile();
    // It has started the successor, and does not hold it yet.
    go_on_until(thread, libc::SYS_pidfd_open);
    let new = service.hub.nth(1);
    wait_until("the successor to be gone", || !fs::exists(format!("/proc/{}", new.pid)).expect("a look"));
    let innocent = with_number(new.pid);
    ptrace::detach(thread, None).expect("a stopped thread");
    match asker.join().expect("a thread") {
        Err(RequestError::Failed(why)) => assert!(why.contains("before it was ready"), "{why}"),
        other => panic!("{other:?}"),
    }
    let Some(mut innocent) = innocent else { return eprintln!("skipped {test}: another process has it") };
    assert_eq!(innocent.try_wait().expect("a child"), None);
    innocent.kill().and_then(|()| innocent.wait()).expect("a child");
    service.restart();
}
