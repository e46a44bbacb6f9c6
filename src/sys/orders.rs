//! What is ordered of the system: which program, and what the new process is born with.
//!
//! Knows: the words. Does not know: how it is done.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, RawFd};

use nix::sys::signal::SigSet;

/// What the restart thread starts, and what that is born with.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) directory: Option<&'a CStr>,
    pub(crate) mask: &'a SigSet,
    /// Descriptors and the numbers that the child knows them by, in this order. All else that is CLOEXEC stays here.
    pub(crate) inherited: &'a [(BorrowedFd<'a>, RawFd)],
    /// What is closed in the child before anything else can hold it up, in rising order: until it executes the program, it has a copy
    /// of all that is open here.
    pub(crate) closed: &'a [RawFd],
    /// From this number on the child needs nothing at all, if that is known.
    pub(crate) closed_from: Option<RawFd>,
}

/// What a guard executes in a child, and what that is born with.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [&'a CStr],
    /// Variables whose value is the process id of the child.
    pub(crate) pid_variables: &'a [&'a str],
    /// Descriptors and the numbers that the child knows them by.
    pub(crate) inherited: &'a [(BorrowedFd<'a>, RawFd)],
    pub(crate) mask: &'a SigSet,
    /// Signals that do there what they do of themselves, whatever they do here.
    pub(crate) default_signals: &'a [i32],
    /// Whether it gets a process group of its own.
    pub(crate) own_group: bool,
    /// The signal that the end of this process brings it.
    pub(crate) death_signal: i32,
}
