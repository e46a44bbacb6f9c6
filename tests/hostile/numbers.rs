//! Numbers of processes come back.

use std::{fs, mem, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
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

/// A process of that number, if nobody has it. No other one gets a number by this that it would not have had.
#[allow(unsafe_code, reason = "std cannot choose a number")]
fn with_number(number: u32) -> nix::Result<Pid> {
    let wanted = number as libc::pid_t;
    // SAFETY: zeroes stand for "none of that".
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = ptr::from_ref(&wanted) as u64;
    arguments.set_tid_size = 1;
    // SAFETY: the arguments are of that size and outlive the call; without shared memory this is a fork, after which the child makes three
    // system calls that touch nothing.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, mem::size_of::<libc::clone_args>()) } {
        0 => {
            // SAFETY: as above. What other tests have open must not stay open here; and it ends with this test.
            unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: as above.
                unsafe { libc::syscall(libc::SYS_pause) };
            }
        }
        pid => Errno::result(pid).map(|pid| Pid::from_raw(pid as i32)),
    }
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
    let innocent = match innocent {
        Ok(innocent) => innocent,
        Err(error) => return eprintln!("skipped {test}: no process can be had that has it: {error}"),
    };
    assert_eq!(waitpid(innocent, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
    kill(innocent, Signal::SIGKILL).expect("a child");
    waitpid(innocent, None).expect("a child");
    service.restart();
}
