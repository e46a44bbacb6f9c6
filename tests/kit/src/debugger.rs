//! A thread of another process, from system call to system call.

use nix::errno::Errno;
use nix::libc::{self, c_long, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A thread that goes no further than it is told to. It goes on by itself when this is dropped, in the thread that has stopped it.
pub struct Stopped(Pid);

/// A system call that is about to be made.
pub struct Call(user_regs_struct);

impl Stopped {
    /// `None`: nobody may do that here, which is said.
    pub fn new(thread: u32, test: &str) -> Option<Stopped> {
        let thread = Pid::from_raw(thread as i32);
        let stopped = ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD)
            .and_then(|()| ptrace::interrupt(thread))
            .and_then(|()| waitpid(thread, Some(WaitPidFlag::__WALL)));
        match stopped {
            Ok(_) => Some(Stopped(thread)),
            Err(error) => {
                eprintln!("skipped {test}: a thread cannot be debugged here: {error}");
                None
            }
        }
    }

    /// Lets it go on until it makes its next call. `None`: it has ended.
    pub fn next_call(&self) -> Option<Call> {
        let mut signal = None;
        loop {
            ptrace::syscall(self.0, signal.take()).ok()?;
            match waitpid(self.0, Some(WaitPidFlag::__WALL)).ok()? {
                WaitStatus::PtraceSyscall(_) => {
                    let registers = ptrace::getregs(self.0).ok()?;
                    if registers.rax as i64 == -(Errno::ENOSYS as i64) {
                        return Some(Call(registers));
                    }
                }
                WaitStatus::Stopped(_, sent) => signal = Some(sent),
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return None,
                _ => {}
            }
        }
    }

    /// Lets the call that it makes end.
    pub fn end_call(&self) {
        ptrace::syscall(self.0, None).expect("a stopped thread");
        waitpid(self.0, Some(WaitPidFlag::__WALL)).expect("a thread");
    }

    /// Has the call that it makes fail, before the kernel has done anything for it.
    pub fn fail_call(&self, call: Call, error: Errno) {
        ptrace::setregs(self.0, user_regs_struct { orig_rax: u64::MAX, ..call.0 }).expect("a stopped thread");
        self.end_call();
        let registers = ptrace::getregs(self.0).expect("a stopped thread");
        ptrace::setregs(self.0, user_regs_struct { rax: -(error as i64) as u64, ..registers }).expect("a stopped thread");
    }

    /// Lets it go on until it makes that call.
    pub fn go_on_until(&self, number: c_long) {
        while self.next_call().expect("a living thread").number() != number {}
    }

    /// Lets it go on until it waits for something that is yet to come. C libraries have different calls for that.
    pub fn go_on_until_it_waits(&self) {
        while !self.next_call().expect("a living thread").waits() {}
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // It has been killed, and is kept from its parent until this thread has seen that.
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}

impl Call {
    pub fn number(&self) -> c_long {
        self.0.orig_rax as c_long
    }

    /// Whether the thread may have a lock meanwhile that others wait for: it waits for one or leaves it, or it is the allocator that calls.
    pub fn may_hold_a_lock(&self) -> bool {
        let of_memory = [libc::SYS_brk, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise];
        self.number() == libc::SYS_futex || of_memory.contains(&self.number())
    }

    /// Whether it waits for something that is yet to come.
    pub fn waits(&self) -> bool {
        match self.number() {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => self.0.r10 as i32 != 0,
            libc::SYS_poll => self.0.rdx as i32 != 0,
            libc::SYS_ppoll => true,
            // Of the operations, with their flags in the other bits.
            libc::SYS_futex => matches!(self.0.rsi as i32 & 0x7f, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET),
            _ => false,
        }
    }
}
