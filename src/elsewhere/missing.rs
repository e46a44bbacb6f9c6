//! What only Linux has: processes held by descriptors, memory files, the senders of messages,
//! scores for a shortage of memory. Each function is an error, or finds nothing.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::error::Exit;
use crate::wire::KillCounter;

use super::orders::{Execution, Spawn};
use super::{is_readable_within, unsupported};

/// A process of which another one has told, by a descriptor that ends with it. No other can be had.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    end: OwnedFd,
}

impl Process {
    pub(crate) fn open(_pid: u32) -> io::Result<Process> {
        Err(unsupported())
    }

    pub(crate) fn gone(_pid: u32) -> io::Result<Process> {
        Err(unsupported())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn kill(&self) -> bool {
        false
    }

    pub(crate) fn signal(&self, _number: i32) -> io::Result<()> {
        Err(unsupported())
    }

    pub(crate) fn try_wait(&self) -> Option<Exit> {
        self.has_ended().then_some(Exit::Unknown)
    }

    pub(crate) fn try_wait_leaving_failures(&self) -> Option<Exit> {
        self.try_wait()
    }

    pub(crate) fn is_child(&self) -> bool {
        false
    }

    pub(crate) fn is_held(&self) -> bool {
        false
    }

    pub(crate) fn wait(&self, limit: Duration) -> Option<Exit> {
        is_readable_within(&self.end, limit);
        self.try_wait()
    }

    pub(crate) fn dying(&self) -> Option<Exit> {
        None
    }

    pub(crate) fn is_parent(&self) -> bool {
        false
    }

    pub(crate) fn may_have_begun_to_die(&self) -> bool {
        false
    }

    pub(crate) fn has_ended(&self) -> bool {
        is_readable_within(&self.end, Duration::ZERO)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl From<(u32, OwnedFd)> for Process {
    fn from((pid, end): (u32, OwnedFd)) -> Process {
        Process { pid, end }
    }
}

/// Nothing is started that this could be asked of.
pub(crate) fn kill_and_reap(_pid: u32) -> bool {
    false
}

pub(crate) fn spawn(_what: &Spawn<'_>) -> io::Result<u32> {
    Err(unsupported())
}

pub(crate) fn may_enter(_path: &CStr) -> io::Result<()> {
    Err(unsupported())
}

pub(crate) fn fork_and_execute(_what: &Execution<'_>) -> io::Result<u32> {
    Err(unsupported())
}

/// A datagram with its sender.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) sender: u32,
    pub(crate) process: Option<Process>,
    pub(crate) truncated: bool,
    pub(crate) lacks_descriptors: bool,
}

pub(crate) fn pass_credentials(_socket: &impl AsFd) -> io::Result<()> {
    Err(unsupported())
}

/// Who has sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) pid: u32,
    pub(crate) has_descriptors: bool,
}

pub(crate) fn next_sender(_socket: &impl AsFd) -> io::Result<Sender> {
    Err(unsupported())
}

pub(crate) fn close_aside(descriptors: Vec<OwnedFd>) {
    drop(descriptors);
}

pub(crate) fn discard_datagram(_socket: &impl AsFd) -> io::Result<()> {
    Err(unsupported())
}

pub(crate) fn receive_datagram(_socket: &impl AsFd, _buffer: &mut [u8]) -> io::Result<Datagram> {
    Err(unsupported())
}

pub(crate) fn is_same_open_file(_one: &impl AsFd, _other: &impl AsFd) -> io::Result<bool> {
    Err(unsupported())
}

/// Descriptors that are watched for their end alone.
#[derive(Debug)]
pub(crate) struct HangUps(Infallible);

impl HangUps {
    pub(crate) fn new() -> io::Result<HangUps> {
        Err(unsupported())
    }

    pub(crate) fn watch(&self, _fd: &impl AsFd, _key: u64) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn unwatch(&self, _fd: &impl AsFd) {
        match self.0 {}
    }

    pub(crate) fn next(&self) -> Option<u64> {
        match self.0 {}
    }
}

impl AsFd for HangUps {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

pub(crate) fn exit_of_another(_process: &Process) -> Exit {
    Exit::Unknown
}

pub(crate) fn memory_file() -> io::Result<File> {
    Err(unsupported())
}

pub(crate) fn seal(_file: &File) -> io::Result<()> {
    Err(unsupported())
}

/// A sealed memory file, mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping(Infallible);

impl Mapping {
    pub(crate) fn new(_file: BorrowedFd<'_>) -> io::Result<Mapping> {
        Err(unsupported())
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.0 {}
    }
}

/// The process that has made an end of a pair of sockets.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) process: Process,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Maker {
    pub(crate) fn of(_socket: &impl AsFd) -> io::Result<Maker> {
        Err(unsupported())
    }
}

/// A thread of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thread(Infallible);

pub(crate) fn own_capabilities() -> io::Result<u64> {
    Err(unsupported())
}

pub(crate) fn threads_with(_process: &Process, _capabilities: u64) -> io::Result<Vec<Thread>> {
    Err(unsupported())
}

/// How soon another process is ended when memory is short.
#[derive(Debug)]
pub(crate) struct OomScore(Infallible);

impl OomScore {
    pub(crate) fn open(_process: &Process) -> io::Result<Option<OomScore>> {
        Err(unsupported())
    }

    pub(crate) fn raised(self) -> io::Result<OomScore> {
        match self.0 {}
    }

    pub(crate) fn restore(&self) -> io::Result<()> {
        match self.0 {}
    }
}

pub(crate) fn own_oom_score() -> Option<i16> {
    None
}

/// The same of this process.
#[derive(Debug)]
pub(crate) struct OwnOomScore(Infallible);

impl OwnOomScore {
    pub(crate) fn open(_before: i16) -> Option<OwnOomScore> {
        None
    }

    pub(crate) fn restore(&self) -> io::Result<Option<i16>> {
        match self.0 {}
    }
}

/// Nothing counts the processes that are ended for memory.
pub(crate) fn kill_counter() -> Option<KillCounter> {
    None
}

/// How many processes were ended for memory.
#[derive(Debug)]
pub(crate) struct OomKills(Infallible);

impl OomKills {
    pub(crate) fn since_now(_counter: Option<&KillCounter>) -> Option<OomKills> {
        None
    }

    pub(crate) fn has_risen(&self) -> bool {
        match self.0 {}
    }
}

/// What the kernel counts of a TCP connection. No two of these systems count the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpBooks {
    pub(crate) state: u8,
    pub(crate) received: u64,
    pub(crate) acknowledged: u64,
    pub(crate) sent: u64,
    pub(crate) sent_again: u64,
    pub(crate) unsent: u32,
}

pub(crate) fn is_tcp(_socket: &impl AsFd) -> io::Result<bool> {
    Err(unsupported())
}

pub(crate) fn socket_cookie(_socket: &impl AsFd) -> io::Result<u64> {
    Err(unsupported())
}

pub(crate) fn tcp_books(_socket: &impl AsFd) -> io::Result<TcpBooks> {
    Err(unsupported())
}

pub(crate) fn tcp_queues(_socket: &impl AsFd) -> io::Result<(u32, u32)> {
    Err(unsupported())
}

/// A memory file that several processes write to.
#[derive(Debug)]
pub(crate) struct SharedMemory(Infallible);

impl SharedMemory {
    pub(crate) fn new(_words: NonZeroUsize) -> io::Result<(File, SharedMemory)> {
        Err(unsupported())
    }

    pub(crate) fn map(_file: BorrowedFd<'_>) -> io::Result<SharedMemory> {
        Err(unsupported())
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match self.0 {}
    }
}
