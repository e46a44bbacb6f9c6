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

/// Descriptors of a service of this campaign are below.
const HIGHEST: RawFd = 1024;

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
            let what = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let how = suffer(&what);
            say(&format!("struck {what}: {how}"));
        }
    });
}

fn suffer(what: &str) -> String {
    let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
    match word {
        "exit" => std::process::exit(rest.parse().expect("a status")),
        "abort" => std::process::abort(),
        "close" => replace(lifeline(rest)),
        "vanish" => vanish(lifeline(rest)),
        "garbage" => format!("{:?}", send(lifeline(rest), b"GET / HTTP/1.1", MsgFlags::MSG_NOSIGNAL)),
        "helper" => helper(lifeline(rest)),
        // Waits until the other side has said something that is not read yet.
        "unread" => format!("{:?}", poll(&mut [PollFd::new(borrow(lifeline(rest)), PollFlags::POLLIN)], PollTimeout::NONE)),
        // Says what a later version might, until no more of it goes in.
        "fill" => {
            let line = lifeline(rest);
            (0..).find_map(|_| send(line, br#"{"type":"sing","song":1}"#, MsgFlags::MSG_NOSIGNAL).err()).expect("an end").to_string()
        }
        // Waits until something goes in again.
        "room" => format!("{:?}", poll(&mut [PollFd::new(borrow(lifeline(rest)), PollFlags::POLLOUT)], PollTimeout::NONE)),
        "full" => limit(Resource::RLIMIT_NOFILE, lowest_free()),
        "crowded" => limit(Resource::RLIMIT_NPROC, 0),
        "relieve" => {
            for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_NPROC] {
                let (_, hard) = getrlimit(resource).expect("a limit");
                setrlimit(resource, hard.min(4096), hard).expect("the limit as it was");
            }
            "relieved".into()
        }
        _ => format!("unknown: {what}"),
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

/// The lifeline to the predecessor (`up`) or to the successor (`down`).
pub fn lifeline(direction: &str) -> RawFd {
    let text = std::env::var("POLLFLIP_LIFELINE").unwrap_or_default();
    let up: Option<RawFd> = text.split(':').next().and_then(|number| number.parse().ok());
    match direction {
        "up" => up.expect("a lifeline"),
        _ => {
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
