//! What the process has open, the lifeline among it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrStorage, getsockname, send, shutdown};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use pollflip::Restarter;

use super::process::answer;
use crate::procfs;
use crate::service::COORDINATION;

pub(super) fn leak(path: &Path) -> String {
    let file = open(path, OFlag::O_RDONLY, Mode::empty()).expect("a file");
    let number = file.as_raw_fd();
    mem::forget(file);
    number.to_string()
}

pub(super) fn leak_last(number: i32) -> String {
    let file = File::open("/dev/zero").expect("a file");
    let opened = fcntl(&file, FcntlArg::F_DUPFD(number)).expect("a descriptor");
    let limit = number as u64 + 1;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("a limit");
    (opened == number).to_string()
}

/// It is CLOEXEC.
pub(super) fn open_as(number: i32, path: &Path) -> String {
    let file = File::open(path).expect("a file");
    let opened = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(number)).expect("a descriptor");
    (opened == number).to_string()
}

pub(super) fn open_files(count: usize) -> String {
    let files: Vec<_> = (0..count).map(|_| File::open("/dev/null").expect("a file")).collect();
    mem::forget(files);
    "open".into()
}

/// Behind the back of whose it is.
pub(super) fn close(number: i32) -> String {
    answer(nix::unistd::close(number), "closed")
}

pub(super) fn say_on_lifeline(text: &str) -> String {
    format!("{:?}", send(lifeline(), text.as_bytes(), MsgFlags::MSG_NOSIGNAL))
}

pub(super) fn spare(count: usize) -> String {
    let room = 128;
    setrlimit(Resource::RLIMIT_NOFILE, room, room).expect("a limit");
    let mut held: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    held.truncate(held.len() - count);
    mem::forget(held);
    "held".into()
}

/// Under all the numbers that are free, up to some.
pub(super) fn hold_pipe(content: &str) -> String {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    nix::unistd::write(&write, content.as_bytes()).expect("room in the pipe");
    let copies: Vec<_> = std::iter::repeat_with(|| read.try_clone().expect("a descriptor")).take(16).collect();
    mem::forget((read, write, copies));
    "held".into()
}

pub(super) fn read_pipe() -> String {
    let all = procfs::descriptors(std::process::id()).into_iter().filter(|(_, what)| what.contains("pipe:"));
    let number = all.map(|(number, _)| number).max().expect("a pipe");
    let pipe = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(format!("/proc/self/fd/{number}"));
    let mut bytes = [0; 100];
    let length = pipe.and_then(|mut pipe| pipe.read(&mut bytes)).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..length]).into()
}

/// How many of them there were.
pub(super) fn shut_listeners_down() -> usize {
    let sockets = procfs::descriptors(std::process::id()).into_iter().filter(|(_, what)| what.starts_with("socket:"));
    // The coordination socket is the restarter's, and was bound under another name.
    let is_ours = |number: i32| match getsockname::<SockaddrStorage>(number) {
        Ok(address) => match address.as_unix_addr() {
            Some(address) => address.path().is_some_and(|path| !path.display().to_string().contains(COORDINATION)),
            None => address.as_sockaddr_in().is_some(),
        },
        Err(_) => false,
    };
    sockets.filter(|(number, _)| is_ours(*number) && shutdown(*number, Shutdown::Read).is_ok()).count()
}

/// What its owner reads from such a connection, and what comes out at the other end of it.
pub(super) fn reuse_lifeline(restarter: &mut Restarter) -> io::Result<String> {
    let number = lifeline();
    nix::unistd::close(number)?;
    let mut between = Vec::new();
    let (mut own, mut other) = loop {
        match UnixStream::pair()? {
            (own, other) if own.as_raw_fd() == number => break (own, other),
            (other, own) if own.as_raw_fd() == number => break (own, other),
            others => between.push(others),
        }
    };
    own.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    other.write_all(b"a request")?;
    restarter.predecessor().expect("a predecessor").progress("still here");
    restarter.cancel("by a test");
    while restarter.poll().is_some() {}
    let read = |stream: &mut UnixStream| {
        let mut bytes = [0; 100];
        stream
            .read(&mut bytes)
            .map_or_else(|error| format!("{:?}", error.kind()), |length| String::from_utf8_lossy(&bytes[..length]).into())
    };
    let (requested, answered): (String, String) = (read(&mut own), read(&mut other));
    // The number is the restarter's to close.
    mem::forget(own);
    mem::forget(other);
    Ok(format!("{requested}, {answered}"))
}

pub(super) fn reuse_pidfd() -> String {
    let (mut between, number) = (Vec::new(), pidfd());
    nix::unistd::close(number).expect("an open pidfd");
    while !between.iter().any(|end: &OwnedFd| end.as_raw_fd() == number) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        between.extend([read, write]);
    }
    // The number is the restarter's to close.
    mem::forget(between);
    "reused".into()
}

/// That of the predecessor, which comes first.
pub(super) fn pidfd() -> i32 {
    let all = procfs::descriptors(std::process::id()).into_iter().filter(|(_, what)| what.contains("pidfd"));
    all.map(|(number, _)| number).min().expect("a pidfd")
}

pub(super) fn lifeline() -> i32 {
    let text = std::env::var("POLLFLIP_LIFELINE").expect("a lifeline");
    text.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
}
