//! One thread of a process that stands still while the others go on.

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use pollflip_kit::hub::Process;

/// The first thread of a process. It goes on when this is dropped, in the thread that has stopped it.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Frozen {
    /// `None`: nobody may do that here, which is said.
    pub fn new(process: &Process) -> Option<Frozen> {
        let thread = Pid::from_raw(process.pid as i32);
        let stopped = ptrace::seize(thread, Options::empty())
            .and_then(|()| ptrace::interrupt(thread))
            .and_then(|()| waitpid(thread, Some(WaitPidFlag::__WALL)));
        match stopped {
            Ok(_) => Some(Frozen(thread)),
            Err(error) => {
                eprintln!("skipped: a process cannot be debugged here: {error}");
                None
            }
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if ptrace::detach(self.0, None).is_err() {
            // It has been killed, and is kept from its parent until this thread has seen that.
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}
