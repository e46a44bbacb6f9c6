//! The service manager: it reads what it is told when it likes to, and answers a barrier when it likes to.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::close;

/// What fills its queue.
const JUNK: &[u8] = b"X";

#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    name: String,
    /// Barriers that it has not answered.
    barriers: Vec<RawFd>,
    pub answered: bool,
    /// Nothing that is sent to it gets lost.
    pub hears_all: bool,
    said: Vec<String>,
}

impl Manager {
    pub fn new() -> Manager {
        let name = format!("pollflip-simulation-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else has that name");
        socket.set_nonblocking(true).expect("any socket can be made so");
        let (barriers, said) = (Vec::new(), Vec::new());
        Manager { socket: Some(socket), name, barriers, answered: false, hears_all: true, said }
    }

    pub fn address(&self) -> String {
        format!("@{}", self.name)
    }

    pub fn does(&mut self, what: u8) {
        match what % 8 {
            0 => self.attends(),
            1 => self.reads_on(),
            2 => self.reads(1),
            3 => self.answers(),
            4 | 5 => self.is_kept_busy(),
            6 => {}
            _ => {
                self.socket = None;
                self.hears_all = false;
                self.answers();
            }
        }
    }

    /// Reads everything, and answers.
    pub fn attends(&mut self) {
        self.reads_on();
        self.answers();
    }

    /// Others tell it so much that nothing more fits in.
    fn is_kept_busy(&mut self) {
        let other = UnixDatagram::unbound().expect("a socket");
        other.set_nonblocking(true).expect("any socket can be made so");
        let address = SocketAddr::from_abstract_name(&self.name).expect("a name");
        while other.send_to_addr(JUNK, &address).is_ok() {}
    }

    /// Reads everything.
    pub fn reads_on(&mut self) {
        self.reads(usize::MAX);
    }

    fn reads(&mut self, most: usize) {
        for _ in 0..most {
            let Some(socket) = &self.socket else { return };
            let mut bytes = [0; 4096];
            let mut control = cmsg_space!([RawFd; 1]);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) else { return };
            let mut brought = Vec::new();
            for control in message.cmsgs().expect("there is room for them") {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    brought.extend(descriptors);
                }
            }
            let length = message.bytes;
            let text = String::from_utf8(bytes[..length].to_vec()).expect("a text");
            assert_eq!(brought.len(), usize::from(text == "BARRIER=1"), "{text:?} brings {brought:?}");
            self.barriers.extend(brought);
            self.said.extend(text.lines().filter(|line| line.as_bytes() != JUNK).map(str::to_owned));
        }
    }

    fn answers(&mut self) {
        for barrier in self.barriers.drain(..) {
            self.answered = true;
            close(barrier).expect("it is open");
        }
    }

    /// Whether it takes that process for the main one.
    pub fn follows(&self, pid: u32) -> bool {
        self.said.iter().rev().find_map(|line| line.strip_prefix("MAINPID=")) == Some(pid.to_string().as_str())
    }

    /// Whether it waits for the end of a reload.
    pub fn believes_in_a_reload(&self) -> bool {
        self.said.iter().rev().find(|line| matches!(line.as_str(), "READY=1" | "RELOADING=1")).is_some_and(|line| line == "RELOADING=1")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.answers();
    }
}
