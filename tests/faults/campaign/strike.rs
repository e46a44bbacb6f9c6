//! The side of a process on which faults strike it: a thread that does what the test sends, whatever the others of the process do.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, getsockopt, send, shutdown, socket, sockopt};

use pollflip_kit::service::report::say;
use serde::{Deserialize, Serialize};

/// Descriptors of a service of this campaign are below.
const HIGHEST: RawFd = 1024;

/// What happens to a process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Strike {
    Exit(i32),
    Abort,
    /// The lifeline is closed, and something else has its number.
    Close(Line),
    /// The lifeline is closed, and its number is free.
    Vanish(Line),
    /// It says what nobody understands.
    Garbage(Line),
    /// A helper has the lifeline open too.
    Helper(Line),
    /// It waits until the other side has said something that is not read yet.
    Unread(Line),
    /// It says what a later version might, until no more of it goes in.
    Fill(Line),
    /// It waits until something goes in again.
    Room(Line),
    /// It can open nothing more.
    Full,
    /// It can start nothing more.
    Crowded,
    /// It can again.
    Relieve,
}

/// The lifeline to its predecessor, or to its successor.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Line {
    Up,
    Down,
}

/// Where a process is struck.
pub fn path(directory: &Path, pid: u32) -> PathBuf {
    directory.join(format!("strike-{pid}"))
}

/// Starts the thread.
pub fn listen(directory: &Path) {
    let socket = UnixDatagram::bind(path(directory, std::process::id())).expect("a socket to be struck on");
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length) = socket.recv(&mut buffer) {
            let strike: Strike = serde_json::from_slice(&buffer[..length]).expect("a strike");
            say(&format!("struck {strike:?}: {}", suffer(strike)));
        }
    });
}

fn suffer(strike: Strike) -> String {
    match strike {
        Strike::Exit(status) => std::process::exit(status),
        Strike::Abort => std::process::abort(),
        Strike::Close(line) => replace(lifeline(line)),
        Strike::Vanish(line) => vanish(lifeline(line)),
        Strike::Garbage(line) => format!("{:?}", send(lifeline(line), b"GET / HTTP/1.1", MsgFlags::MSG_NOSIGNAL)),
        Strike::Helper(line) => helper(lifeline(line)),
        Strike::Unread(line) => format!("{:?}", poll(&mut [PollFd::new(borrow(lifeline(line)), PollFlags::POLLIN)], PollTimeout::NONE)),
        Strike::Fill(line) => {
            let line = lifeline(line);
            (0..).find_map(|_| send(line, br#"{"type":"sing","song":1}"#, MsgFlags::MSG_NOSIGNAL).err()).expect("an end").to_string()
        }
        Strike::Room(line) => format!("{:?}", poll(&mut [PollFd::new(borrow(lifeline(line)), PollFlags::POLLOUT)], PollTimeout::NONE)),
        Strike::Full => limit(Resource::RLIMIT_NOFILE, lowest_free()),
        Strike::Crowded => limit(Resource::RLIMIT_NPROC, 0),
        Strike::Relieve => {
            for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_NPROC] {
                let (_, hard) = getrlimit(resource).expect("a limit");
                setrlimit(resource, hard.min(4096), hard).expect("the limit as it was");
            }
            "relieved".into()
        }
    }
}

fn limit(resource: Resource, to: u64) -> String {
    let (_, hard) = getrlimit(resource).expect("a limit");
    setrlimit(resource, to, hard).expect("a lower limit");
    to.to_string()
}

fn lowest_free() -> u64 {
    (0..HIGHEST).find(|number| fcntl(borrow(*number), FcntlArg::F_GETFD).is_err()).expect("a free number") as u64
}

pub fn lifeline(line: Line) -> RawFd {
    let text = std::env::var("POLLFLIP_LIFELINE").unwrap_or_default();
    let up: Option<RawFd> = text.split(':').next().and_then(|number| number.parse().ok());
    match line {
        Line::Up => up.expect("a lifeline"),
        Line::Down => {
            let is_one = |number: &RawFd| getsockopt(&borrow(*number), sockopt::SockType) == Ok(SockType::SeqPacket);
            (3..HIGHEST).filter(|number| Some(*number) != up).find(is_one).expect("a lifeline of a successor")
        }
    }
}

/// Closes it, and puts a socket in its place on which nothing ever comes, so that the number stays this process's.
fn replace(number: RawFd) -> String {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mute = socket(AddressFamily::Unix, SockType::Datagram, flags, None).expect("a socket");
    let closed = nix::unistd::dup(borrow(number)).expect("a duplicate");
    put(&mute, number);
    // A thread that waits on it keeps it open for as long as it waits.
    shutdown(closed.as_raw_fd(), Shutdown::Both).expect("an open lifeline");
    "closed".into()
}

/// Closes it, and whatever is opened next gets its number.
#[allow(unsafe_code, reason = "a number that belongs to another part of the process")]
fn vanish(number: RawFd) -> String {
    // SAFETY: whose descriptor it was finds it gone, or another one in its place, which is what this is about.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    "vanished".into()
}

#[allow(unsafe_code, reason = "nix closes what it replaces by itself")]
fn put(fd: &OwnedFd, number: RawFd) {
    // SAFETY: two open descriptors; the one that is closed is closed behind the back of its owner, who keeps a valid number.
    let result = unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) };
    assert_eq!(result, number);
}

#[allow(unsafe_code, reason = "descriptors of other parts of the process")]
pub fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is only asked what it is, or used for one call; a number that is not open is an error of that call.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// A process that keeps the lifeline and outlives this one.
fn helper(number: RawFd) -> String {
    let flags = |flags| fcntl(borrow(number), FcntlArg::F_SETFD(flags)).expect("its flags");
    flags(FdFlag::empty());
    #[allow(clippy::zombie_processes, reason = "it outlives this process on purpose; the test reaps it")]
    let child = Command::new("/bin/sleep").arg("1000").spawn().expect("a process");
    flags(FdFlag::FD_CLOEXEC);
    child.id().to_string()
}
