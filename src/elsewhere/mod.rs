//! Stands in the place of the room `sys` where the system is not Linux: macOS and the BSDs.
//!
//! Knows: the same functions. Does not know: who calls them. What any Unix has is shared with that
//! room. What a restart or a guard needs, and these systems do not have, is an error of the kind
//! `Unsupported`, or a type that has no value.
#![allow(unsafe_code, reason = "it stands for the room of it; each block says why it is sound")]

#[path = "../sys/children.rs"]
mod children;
#[path = "../sys/descriptors.rs"]
mod descriptors;
#[path = "../sys/fork.rs"]
mod fork;
#[path = "../sys/kin.rs"]
mod kin;
mod missing;
#[path = "../sys/orders.rs"]
#[allow(dead_code, reason = "what reads them is Linux's")]
mod orders;
#[path = "../sys/simulation.rs"]
#[allow(dead_code, reason = "there are no children to play")]
pub(crate) mod simulation;
mod sockets;
#[path = "../sys/stat.rs"]
#[allow(dead_code, reason = "what asks for the rest is Linux's")]
mod stat;
#[path = "../sys/unix.rs"]
mod unix;
mod watched;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::Signal;

use crate::wire::FileId;

pub(crate) use children::{end_by, ended_child, foreground_of, ignore, reap, set_to_default, signal_child};
pub(crate) use descriptors::{Descriptors, descriptor_table_size, name_of, named_by};
pub(crate) use fork::{Origin, PerProcess};
pub(crate) use kin::{ProcessKey, birth_of, descends_from, has_ancestor, is_first_child_of, parent_of, proc_is_ours, process_key};
pub(crate) use missing::{
    Datagram, HangUps, Maker, Mapping, OomKills, OomScore, OwnOomScore, Process, SharedMemory, TcpBooks, Thread, close_aside,
    discard_datagram, exit_of_another, fork_and_execute, is_same_open_file, is_tcp, kill_and_reap, kill_counter, may_enter, memory_file,
    next_sender, own_capabilities, own_oom_score, pass_credentials, receive_datagram, seal, socket_cookie, spawn, tcp_books, tcp_queues,
    threads_with,
};
pub(crate) use orders::{Execution, Spawn};
pub(crate) use simulation::{has_waited, is_simulated, may_fail, now, writable_part};
pub(crate) use sockets::{
    BACKLOG, LONGEST_PATH, bind, bind_abstract, bind_private, has_hung_up, is_named, manager_address, name_senders, packet_sockets,
    peek_from, peek_packet, peer_uid, receive, send, send_part, steer, udp_socket, unix_socket,
};
pub(crate) use unix::{
    adopt, duplicate, file_id, identity, identity_behind, identity_of, is_at_default, is_over, is_readable_within, may_grow_to,
    own_program, peek, read_proc,
};
pub(crate) use watched::{Countdown, Flag, SignalQueue, pipe};

/// Whether this system has what a restart needs.
pub(crate) const CAN_RESTART: bool = false;
/// For a directory whose names are looked at. It has to be readable.
pub(crate) const PATH_ALONE: OFlag = OFlag::O_RDONLY;

/// The error of all that is not here.
fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this needs Linux")
}

/// The calls that a restart needs are not looked at one by one: [`CAN_RESTART`] says it of all.
pub(crate) fn missing_call(_has_lifeline: bool) -> Option<(&'static str, i32)> {
    None
}

/// Names the call in an error that says that it is not to be had.
pub(crate) fn naming(call: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// The working directory of this process.
pub(crate) fn working_directory() -> Option<FileId> {
    identity_behind(Path::new("."))
}

/// How much of what was sent has not been read is not told.
pub(crate) fn unread(_socket: &impl AsFd) -> Option<usize> {
    None
}

/// Whether somebody has shut a socket down is seen by its end alone.
pub(crate) fn is_shut_down(_socket: &impl AsFd) -> bool {
    false
}

/// The table grows as it is needed.
pub(crate) fn enlarge_descriptor_table(_descriptors: RawFd) {}

/// The path by which this program was executed is not told.
pub(crate) fn executed_path() -> Option<PathBuf> {
    None
}

/// Whether this process has rights that the one which executed its program need not have.
pub(crate) fn has_gained_rights() -> bool {
    // SAFETY: issetugid has no preconditions.
    unsafe { libc::issetugid() != 0 }
}

/// There is no call for it in one step (ENOSYS): the caller knows another way.
pub(crate) fn rename_to_free(_directory: impl AsFd, _from: &OsStr, _to: &OsStr) -> io::Result<()> {
    Err(Errno::ENOSYS.into())
}

/// Nothing counts the threads of this process.
pub(crate) fn set_variable_if_alone(_name: &str, _value: &OsString) -> io::Result<bool> {
    Err(unsupported())
}

/// The end of its parent brings this process no signal.
pub(crate) fn death_signal() -> nix::Result<Option<Signal>> {
    Ok(None)
}

/// Nor can it.
pub(crate) fn set_death_signal(_signal: Signal) -> io::Result<()> {
    Err(unsupported())
}

/// Orphans go to init.
pub(crate) fn take_orphans_in() -> io::Result<()> {
    Err(unsupported())
}

/// What has come of a signal asks for a restart, which is refused: it can stay.
pub(crate) fn forget_pending(_signal: Signal) -> io::Result<()> {
    Ok(())
}

/// There is no memory that the kernel wipes in a forked child: [`fork`] does with a handler of the
/// C library and the number of the process.
mod wiped {
    use std::sync::atomic::AtomicU32;

    pub(super) fn wiped_page() -> Option<*mut AtomicU32> {
        None
    }

    pub(super) fn pid() -> u32 {
        std::process::id()
    }
}
