//! Numbers of processes come back.

use std::{fs, mem, ptr};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollflip::RequestError;

use crate::is_root;
use pollflip_kit::debugger::Stopped;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Step, at};

pollflip_kit::trials![promise_03_a_process_that_has_got_the_number_of_a_dead_successor_is_left_alone];

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
    let service = Setup::new().plan(at(Step::Granted, Act::ReapAny)).start();
    let old = service.first();
    let thread = wait_for("the restart thread", || procfs::restart_thread(old.pid));
    let Some(stopped) = Stopped::new(thread, test) else { return };
    service.plan_next(at(Step::Born, Act::Exit(3)));
    let asker = service.restart_meanwhile();
    // It has started the successor, and does not hold it yet.
    stopped.go_on_until(libc::SYS_pidfd_open);
    let new = service.hub.nth(1);
    wait_until("the successor to be gone", || !fs::exists(format!("/proc/{}", new.pid)).expect("a look"));
    let innocent = with_number(new.pid);
    drop(stopped);
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
