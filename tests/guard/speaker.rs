//! One who tells the guard nonsense: this test program, in that role. A descendant of the guard, or
//! a stranger. It is no service of the kit: it speaks nothing but systemd's protocol, as does the storer.

use std::fs::{self, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a process says or does: a list of [`Word`]s, or of what a storer [`Does`](crate::storer::Does).
pub const WORDS: &str = "POLLFLIP_TEST_WORDS";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Word {
    Text(String),
    /// Names as the service the process whose number is in that file.
    MainPidIn(PathBuf),
    /// So many messages, as fast as they are taken.
    Flood(usize),
    Descriptors,
    Garbage,
    /// Notes how long the guard takes.
    Time,
    /// Ends by a signal only.
    Stay,
}

/// As they are written to [`WORDS`].
pub fn text(words: &impl Serialize) -> String {
    serde_json::to_string(words).expect("text")
}

pub fn words<W: DeserializeOwned>() -> Vec<W> {
    serde_json::from_str(&std::env::var(WORDS).expect("words")).expect("words")
}

pub fn main() -> ExitCode {
    let address = std::env::var("NOTIFY_SOCKET").expect("an address");
    for word in words() {
        match word {
            Word::Text(text) => say(&address, text.as_bytes()),
            Word::MainPidIn(path) => {
                let pid = fs::read_to_string(path).expect("a number");
                say(&address, format!("MAINPID={}", pid.trim()).as_bytes());
            }
            Word::Flood(count) => flood(&address, count),
            Word::Descriptors => descriptors(&address),
            Word::Garbage => garbage(&address),
            Word::Time => time(&address),
            // Until it is killed: who has ended is nobody's descendant any more.
            Word::Stay => loop {
                std::thread::park();
            },
        }
    }
    ExitCode::SUCCESS
}

pub fn connected(address: &str) -> UnixDatagram {
    let socket = UnixDatagram::unbound().expect("a socket");
    let name = address.strip_prefix('@').expect("an abstract name");
    socket.connect_addr(&SocketAddr::from_abstract_name(name).expect("an address")).expect("a guard that listens");
    socket
}

pub fn say(address: &str, bytes: &[u8]) {
    connected(address).send(bytes).expect("room");
}

/// As fast as it takes them.
pub fn flood(address: &str, count: usize) {
    let socket = connected(address);
    for number in 0..count {
        socket.send(format!("STATUS={number}\nREADY=1").as_bytes()).expect("room");
    }
}

pub fn descriptors(address: &str) {
    let socket = connected(address);
    let numbers: Vec<RawFd> = vec![socket.as_raw_fd(); 253];
    for text in ["FDSTORE=1\nFDNAME=x", "READY=1", "BARRIER=1"] {
        let part = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(socket.as_raw_fd(), &part, &[ControlMessage::ScmRights(&numbers)], MsgFlags::empty(), None).expect("room");
    }
}

pub fn garbage(address: &str) {
    let socket = connected(address);
    let long = vec![b'x'; 100_000];
    let words: [&[u8]; 9] = [
        b"",
        b"\0",
        b"\xff\xfe\xfd",
        b"READY=1\0MAINPID=1",
        b"MAINPID=",
        b"MAINPID=-1",
        b"MAINPID=99999999999999999999",
        b"EXTEND_TIMEOUT_USEC=18446744073709551616",
        &long,
    ];
    for word in words {
        socket.send(word).expect("room");
    }
}

/// Names itself the service, and then its parent again; notes how many microseconds it takes until
/// the guard has taken the first in.
fn time(address: &str) {
    let socket = connected(address);
    let began = Instant::now();
    socket.send(format!("MAINPID={}", std::process::id()).as_bytes()).expect("room");
    let (ours, theirs) = std::io::pipe().expect("a pipe");
    let part = [IoSlice::new(b"BARRIER=1")];
    sendmsg::<()>(socket.as_raw_fd(), &part, &[ControlMessage::ScmRights(&[theirs.as_raw_fd()])], MsgFlags::empty(), None).expect("room");
    drop(theirs);
    assert_eq!({ &ours }.read(&mut [0]).expect("an end"), 0);
    let took = began.elapsed();
    socket.send(format!("MAINPID={}", std::os::unix::process::parent_id()).as_bytes()).expect("room");
    let mut notes = OpenOptions::new().create(true).append(true).open(std::env::var_os(NOTES).expect("a path")).expect("a file");
    writeln!(notes, "{}", took.as_micros()).expect("room");
}

/// Where the counter notes each signal that it gets.
pub const NOTES: &str = "POLLFLIP_TEST_NOTES";

/// A service that notes the signals that it gets, each by its number and by who has sent it: the
/// kernel, or a process. SIGUSR2 ends it.
pub fn count_signals() -> ExitCode {
    let mut notes = OpenOptions::new().create(true).append(true).open(std::env::var_os(NOTES).expect("a path")).expect("a file");
    let all = SigSet::all();
    all.thread_block().expect("a mask");
    let signals = SignalFd::new(&all).expect("a signalfd");
    writeln!(notes, "ready").expect("room");
    loop {
        let info = signals.read_signal().expect("a signal").expect("it waits for one");
        let who = if info.ssi_code == nix::libc::SI_USER { "process" } else { "kernel" };
        writeln!(notes, "{} {who}", Signal::try_from(info.ssi_signo as i32).expect("a signal")).expect("room");
        if info.ssi_signo == Signal::SIGUSR2 as u32 {
            return ExitCode::SUCCESS;
        }
    }
}
