//! Something that blocks, on a thread of its own, for a task that must not.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use nix::sys::signal::SigSet;

/// It goes on when this is dropped, and its result is dropped then.
pub(super) struct Errand<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    result: Option<T>,
    /// Who is woken when it is there.
    waker: Option<Waker>,
}

impl<T: Send + 'static> Errand<T> {
    /// Starts the thread.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Errand<T>> {
        let shared = Arc::new(Mutex::new(State { result: None, waker: None }));
        let theirs = shared.clone();
        thread::Builder::new().name("pollflip-errand".into()).spawn(move || {
            // The program's signals are for the program's threads.
            if let Err(error) = SigSet::all().thread_set_mask() {
                log::warn!("cannot set the signal mask of a thread that waits: {error}");
            }
            let result = work();
            let mut state = lock(&theirs);
            state.result = Some(result);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                // Foreign code: one that panics has told so on its own.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        })?;
        Ok(Errand(shared))
    }

    /// The result, once. The last waker is woken when it is there.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        // Cloned before the lock, and the one before dropped after it: a waker is foreign code.
        let waker = context.waker().clone();
        let mut state = lock(&self.0);
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        let earlier = state.waker.replace(waker);
        drop(state);
        drop(earlier);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Errand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an errand")
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
