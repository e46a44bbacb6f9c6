//! A program that has its guard keep descriptors, by nothing but systemd's protocol: this test
//! program, in that role. It notes what each start of it is given.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, getsockname, sendmsg};

use serde::{Deserialize, Serialize};

use crate::speaker::{NOTES, connected, words};

/// What a start does. The last start goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Does {
    /// Stores a memory file with that text, under that name.
    Memory(String, String),
    /// Stores a socket whose end the guard is not to look for.
    Unwatched(String),
    /// Stores a socket whose other end is closed.
    HungUp(String),
    Listener(String),
    /// Stores all that it was given, under that name.
    Again(String),
    Many(String, u32),
    /// Stores so many of names of that length.
    Long(usize, usize),
    Say(String),
    Die(i32),
    Hang,
    Exit(u8),
}

pub fn main() -> ExitCode {
    let path = std::env::var_os(NOTES).expect("a path");
    let number = fs::read_to_string(&path).unwrap_or_default().lines().count();
    let mut notes = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "-".into());
    let mine = variable("LISTEN_PID") == std::process::id().to_string();
    let count = if mine { variable("LISTEN_FDS").parse().expect("a count") } else { 0 };
    let names = if mine { variable("LISTEN_FDNAMES") } else { "-".into() };
    let given: Vec<RawFd> = (3..3 + count).collect();
    let what: Vec<String> = given.iter().map(describe).collect();
    let told = ["FDSTORE", "POLLFLIP_LAST_END", "POLLFLIP_STRIKES"].map(variable).join(" ");
    writeln!(notes, "{names} [{}] {told}", what.join(" ")).expect("room");
    let address = std::env::var("NOTIFY_SOCKET").expect("an address");
    let starts: Vec<Vec<Does>> = words();
    for does in starts.get(number).or(starts.last()).expect("words") {
        match does {
            Does::Memory(name, text) => send(&address, name, &[memory(text).as_raw_fd()]),
            Does::Unwatched(name) => {
                let (one, _) = UnixStream::pair().expect("a pair");
                send(&address, &format!("{name}\nFDPOLL=0"), &[one.as_raw_fd()]);
            }
            Does::HungUp(name) => {
                let (one, _) = UnixStream::pair().expect("a pair");
                send(&address, name, &[one.as_raw_fd()]);
            }
            Does::Listener(name) => {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
                send(&address, name, &[listener.as_raw_fd()]);
            }
            Does::Again(name) => given.iter().for_each(|number| send(&address, name, &[*number])),
            Does::Many(name, count) => {
                let all: Vec<File> = (0..*count).map(|number| memory(&number.to_string())).collect();
                let numbers: Vec<RawFd> = all.iter().map(AsRawFd::as_raw_fd).collect();
                numbers.chunks(200).for_each(|numbers| send(&address, name, numbers));
            }
            Does::Long(count, length) => {
                for number in 0..*count {
                    send(&address, &format!("{number:0length$}"), &[memory("x").as_raw_fd()]);
                    if number % 100 == 0 {
                        barrier(&address);
                    }
                }
            }
            Does::Say(text) => _ = connected(&address).send(text.as_bytes()).expect("room"),
            Does::Die(number) => {
                barrier(&address);
                // Rust's own handlers of a few signals end nothing the first time.
                let signal = Signal::try_from(*number).expect("a signal");
                for _ in 0..2 {
                    raise(signal).expect("a signal");
                }
            }
            Does::Hang => loop {
                std::thread::park();
            },
            Does::Exit(status) => {
                barrier(&address);
                return ExitCode::from(*status);
            }
        }
    }
    ExitCode::SUCCESS
}

/// What a descriptor is, by its number alone: what it has in it, or whether it listens.
fn describe(number: &RawFd) -> String {
    match getsockname::<SockaddrStorage>(*number) {
        Err(_) => fs::read_to_string(format!("/proc/self/fd/{number}")).expect("a text"),
        Ok(address) => match address.as_sockaddr_in() {
            Some(address) => TcpStream::connect(SocketAddrV4::from(*address)).map_or("deaf", |_| "listens").into(),
            None => "socket".into(),
        },
    }
}

fn memory(text: &str) -> File {
    let mut file = File::from(memfd_create(c"stored", MFdFlags::MFD_CLOEXEC).expect("a file"));
    file.write_all(text.as_bytes()).expect("room");
    file
}

fn send(address: &str, name: &str, numbers: &[RawFd]) {
    let text = format!("FDSTORE=1\nFDNAME={name}");
    let part = [IoSlice::new(text.as_bytes())];
    let socket = connected(address);
    sendmsg::<()>(socket.as_raw_fd(), &part, &[ControlMessage::ScmRights(numbers)], MsgFlags::empty(), None).expect("room");
}

fn barrier(address: &str) {
    let (ours, theirs) = std::io::pipe().expect("a pipe");
    let part = [IoSlice::new(b"BARRIER=1")];
    let socket = connected(address);
    sendmsg::<()>(socket.as_raw_fd(), &part, &[ControlMessage::ScmRights(&[theirs.as_raw_fd()])], MsgFlags::empty(), None).expect("room");
    drop(theirs);
    assert_eq!({ &ours }.read(&mut [0]).expect("an end"), 0);
}
