//! The steps between which a process can be killed. In a test it can be killed before any of them:
//! nothing that it does from there on comes to anything.

#[cfg(test)]
use std::cell::Cell;
use std::io;

#[cfg(test)]
thread_local! {
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether this process still lives, asked before each step.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn lives() -> bool {
    true
}

#[cfg(test)]
pub(super) fn lives() -> bool {
    match LEFT.get() {
        None => true,
        Some(0) => false,
        Some(left) => {
            LEFT.set(Some(left - 1));
            true
        }
    }
}

/// The same before a system call.
#[inline(always)]
pub(super) fn call<T>(call: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
    if !lives() {
        return Err(io::Error::other("killed"));
    }
    Ok(call()?)
}

/// Kills this process after so many steps; `None`: not at all. Returns how many were left.
#[cfg(test)]
pub(super) fn kill_after(steps: Option<u64>) -> Option<u64> {
    LEFT.replace(steps)
}
