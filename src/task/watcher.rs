//! A thread that waits for a descriptor and wakes a task: what an executor's reactor would do, for executors that have none or one that
//! is not known here.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use crate::sys::{Flag, Origin};

/// How soon it is tried again, if the kernel does not let anybody wait: where a process may have no descriptor at all, say.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread is in.
    origin: Origin,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    armed: Condvar,
    /// Readable when the thread is to end.
    end: Flag,
}

#[derive(Debug, Default)]
struct State {
    /// Who is woken next. Taken by that: a task that has not been polled since need not be woken again, and the thread does not spin.
    waker: Option<Waker>,
    /// A waker is being called: foreign code, which may wait for the thread that drops the task.
    waking: bool,
    ended: bool,
}

impl Watcher {
    /// Starts the thread, which waits for nothing yet.
    pub(super) fn new(watched: BorrowedFd<'_>) -> io::Result<Watcher> {
        let watched = watched.try_clone_to_owned()?;
        let end = Flag::new(false)?;
        let shared = Arc::new(Shared { state: Mutex::default(), armed: Condvar::new(), end });
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("pollflip-watcher".into()).spawn(move || {
            // The program's signals are for the program's threads.
            if let Err(error) = SigSet::all().thread_set_mask() {
                log::warn!("cannot set the signal mask of the watching thread: {error}");
            }
            theirs.serve(&watched);
        })?;
        Ok(Watcher { shared, thread: Some(thread), origin: Origin::here() })
    }

    /// Has this waker, and no earlier one, woken once the descriptor is readable: at once if it is already.
    pub(super) fn arm(&self, waker: &Waker) {
        let mut state = self.shared.state();
        let earlier = match &mut state.waker {
            Some(earlier) if earlier.will_wake(waker) => return,
            earlier => earlier.replace(waker.clone()),
        };
        drop(state);
        self.shared.armed.notify_one();
        // Foreign code, not to be run under the lock.
        drop(earlier);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            // The copy of a forked child: it has no such thread, and that of the parent is to go on.
            return mem::forget(self.thread.take());
        }
        let mut state = self.shared.state();
        state.ended = true;
        let waker = state.waker.take();
        let waking = state.waking;
        drop(state);
        drop(waker);
        self.shared.armed.notify_one();
        self.shared.end.raise();
        // If it is just calling a waker, which may be where this drop comes from, it ends right after that.
        if let (false, Some(thread)) = (waking, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, watched: &OwnedFd) {
        loop {
            let state = self.state();
            let state = self.armed.wait_while(state, |state| state.waker.is_none() && !state.ended);
            if state.unwrap_or_else(PoisonError::into_inner).ended {
                return;
            }
            let mut fds = [PollFd::new(watched.as_fd(), PollFlags::POLLIN), PollFd::new(self.end.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    log::error!("cannot wait for the restarter: {error}; trying again");
                    // Or until it is told to end.
                    drop(self.armed.wait_timeout(self.state(), RETRY));
                }
            }
            if fds[0].any() == Some(true) {
                let mut state = self.state();
                let waker = state.waker.take();
                state.waking = waker.is_some();
                drop(state);
                if let Some(waker) = waker {
                    // One that panics has told so by itself, and the next must still be woken.
                    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                }
                self.state().waking = false;
            }
        }
    }
}
