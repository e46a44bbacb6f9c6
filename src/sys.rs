//! The one room with `unsafe` in it: what neither std nor nix offer as safe calls, and what goes with that.
//!
//! Knows: system calls. Does not know: what they are for. Every descriptor leaves here owned or borrowed, never as a bare number.
#![allow(unsafe_code, reason = "this is the room for it; each block says why it is sound")]

mod aside;
mod books;
mod children;
mod descriptors;
mod dying;
mod fork;
mod guarding;
mod kin;
mod memory;
mod oom;
mod orders;
mod packet;
mod probe;
mod process;
mod rights;
mod shared;
pub(crate) mod simulation;
mod sockets;
mod spawn;
mod stat;
mod unix;
mod watched;
mod wiped;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::fstatat;

use crate::wire::FileId;

pub(crate) use aside::{close_aside, discard_datagram};
pub(crate) use books::{TcpBooks, is_tcp, socket_cookie, tcp_books, tcp_queues};
pub(crate) use children::{end_by, ended_child, foreground_of, ignore, reap, set_to_default, signal_child};
pub(crate) use descriptors::{Descriptors, descriptor_table_size, name_of, named_by};
pub(crate) use fork::{Origin, PerProcess};
pub(crate) use guarding::{
    Datagram, exit_of_another, fork_and_execute, is_same_open_file, next_sender, pass_credentials, receive_datagram,
};
pub(crate) use kin::{ProcessKey, birth_of, descends_from, has_ancestor, is_first_child_of, parent_of, proc_is_ours, process_key};
pub(crate) use memory::{Mapping, memory_file, seal};
pub(crate) use oom::{OomKills, OomScore, OwnOomScore, kill_counter, own_oom_score};
pub(crate) use orders::{Execution, Spawn};
pub(crate) use packet::{peek_from, peek_packet, receive, send};
pub(crate) use probe::{missing_call, naming};
pub(crate) use process::{Process, kill_and_reap};
pub(crate) use rights::{Maker, Thread, own_capabilities, threads_with};
pub(crate) use shared::SharedMemory;
pub(crate) use simulation::{has_waited, is_simulated, may_fail, now, writable_part};
pub(crate) use sockets::{
    BACKLOG, LONGEST_PATH, bind, bind_abstract, bind_private, has_hung_up, is_named, manager_address, name_senders, packet_sockets,
    peer_uid, send_part, steer, udp_socket, unix_socket,
};
pub(crate) use spawn::{may_enter, spawn};
pub(crate) use unix::{
    adopt, duplicate, file_id, identity, identity_behind, identity_of, is_at_default, is_over, is_readable_within, may_grow_to,
    own_program, peek, read_proc,
};
pub(crate) use watched::{Countdown, Flag, HangUps, SignalQueue, pipe};

/// Whether this system has what a restart needs.
pub(crate) const CAN_RESTART: bool = true;
/// For a directory whose names are looked at, and that is not read.
pub(crate) const PATH_ALONE: OFlag = OFlag::O_PATH;

/// So many descriptors there is room for in any case.
const SPARE: RawFd = 512;

/// The working directory of this process, which it need not be able to enter anew.
pub(crate) fn working_directory() -> Option<FileId> {
    fstatat(AT_FDCWD, c"", AtFlags::AT_EMPTY_PATH).ok().map(|stat| file_id(&stat))
}

/// How much of what was sent on a unix socket has not been read, as the kernel counts it.
pub(crate) fn unread(socket: &impl AsFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes nothing but one int.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).ok().filter(|_| result == 0)
}

/// Whether a socket reads nothing any more because somebody has shut it down.
pub(crate) fn is_shut_down(socket: &impl AsFd) -> bool {
    let mut looked_at = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the descriptor is open, and the call writes nothing but what it has found of that one.
    unsafe { libc::poll(&mut looked_at, 1, 0) == 1 && looked_at.revents & libc::POLLRDHUP != 0 }
}

/// Makes the kernel enlarge the table of descriptors now, for this many descriptors and [`SPARE`]
/// more, as far as the limit allows. In a process with threads that takes some ten milliseconds, in
/// which the thread that opens one descriptor too many would wait.
pub(crate) fn enlarge_descriptor_table(descriptors: RawFd) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let last = RawFd::try_from(limit).unwrap_or(RawFd::MAX).saturating_sub(1).min(descriptors.saturating_add(SPARE));
    // If there is none to be had, the same will be said to who needs one.
    let _ = memory_file().and_then(|file| duplicate(&file, last));
}

/// The path by which this program was executed, as the kernel was given it.
pub(crate) fn executed_path() -> Option<PathBuf> {
    // SAFETY: getauxval has no preconditions.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if address == 0 {
        return None;
    }
    // SAFETY: the kernel put a NUL-terminated string there when it started this process, and it stays for the life of it.
    let path = unsafe { CStr::from_ptr(address as *const libc::c_char) };
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Whether this process has rights that the one which executed its program need not have: the
/// program is setuid or setgid, or the file has capabilities, or a security module says so.
pub(crate) fn has_gained_rights() -> bool {
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Gives what one name of a directory names another name, under which nothing may be.
pub(crate) fn rename_to_free(directory: impl AsFd, from: &OsStr, to: &OsStr) -> io::Result<()> {
    let [from, to] = [CString::new(from.as_bytes())?, CString::new(to.as_bytes())?];
    let directory = directory.as_fd().as_raw_fd();
    // By its number: not every C library has it.
    // SAFETY: the descriptor is open, and both names are NUL-terminated and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, directory, from.as_ptr(), directory, to.as_ptr(), libc::RENAME_NOREPLACE) };
    Ok(Errno::result(result).map(drop)?)
}

/// Sets an environment variable if this process has one thread only; says whether it did.
pub(crate) fn set_variable_if_alone(name: &str, value: &OsString) -> io::Result<bool> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Ok(false);
    }
    // SAFETY: no other thread exists that could read the environment meanwhile, as was just counted.
    unsafe { std::env::set_var(name, value) };
    Ok(true)
}

/// The signal that the end of its parent brings this process. A real-time one is an error (EINVAL).
pub(crate) fn death_signal() -> nix::Result<Option<Signal>> {
    prctl::get_pdeathsig()
}

/// From now on the end of its parent brings this process that signal.
pub(crate) fn set_death_signal(signal: Signal) -> io::Result<()> {
    Ok(prctl::set_pdeathsig(signal)?)
}

/// From now on orphans among the descendants of this process become its children.
pub(crate) fn take_orphans_in() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Takes away what has come of a signal that is blocked in this thread.
pub(crate) fn forget_pending(signal: Signal) -> io::Result<()> {
    let waiting = SignalQueue::new(&[signal].into_iter().collect())?;
    while waiting.next()?.is_some() {}
    Ok(())
}
