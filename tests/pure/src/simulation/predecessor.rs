//! The predecessor's end of the lifeline, of a restarter that has one.

use std::io::{ErrorKind, IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use nix::unistd::pipe2;
use pollflip::internals::wire::{Given, Hello, Message, OLDEST, Op, OpKind, VERSION};

#[derive(Debug)]
pub struct Predecessor {
    line: Option<UnixStream>,
    /// It lives as long as this is open.
    life: Option<OwnedFd>,
    /// It grants the service when it is asked to.
    grants: bool,
}

impl Predecessor {
    /// And the lifeline that the new process is born with.
    pub fn new(probation: bool, signal: Option<i32>) -> (Predecessor, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a socket pair");
        let (pidfd, life) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let hello = Message::Hello(Hello {
            version: VERSION,
            oldest: OLDEST,
            pid: 1 << 29,
            // Whatever it says, another comes after it.
            generation: u32::MAX,
            probation_ms: probation.then_some(1000),
            signal,
            given: vec![Given::Predecessor],
            following: 0,
            pid_file: None,
            outcomes: Vec::new(),
        });
        let bytes = hello.encode();
        let descriptors = [pidfd.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::empty(), None).expect("room for one message");
        (Predecessor { line: Some(ours.into()), life: Some(life), grants: false }, theirs)
    }

    pub fn does(&mut self, what: u8) {
        match what % 11 {
            0 => self.grants |= self.line.is_some(),
            1 => drop(self.says(&Message::Commit)),
            2 => drop(self.says(&Message::End { items: 0, precopied: 0 })),
            3 => drop(self.says(&Message::Ready)),
            4 => drop(self.says(&Message::Unknown)),
            5 => self.line = None,
            8 => drop(self.says(&Message::PrecopyComplete { items: 0 })),
            9 => drop(self.says(&Message::Items { ops: vec![Op { kind: OpKind::Gone, name: "a".into() }] })),
            10 => self.gives(&Message::Items { ops: vec![Op { kind: OpKind::Descriptor, name: "a".into() }] }),
            _ => (self.line, self.life) = (None, None),
        }
    }

    /// Whether a process that is ready need not wait for it: it grants and can be heard, or is dead.
    pub fn has_decided(&self, is_unheard: bool) -> bool {
        self.grants && self.line.is_some() && !is_unheard || self.life.is_none()
    }

    /// The new process is about to say that it is ready, and reads the answer in the same call.
    pub fn answers(&mut self) {
        if self.grants {
            self.says(&Message::Granted);
        }
    }

    /// Whether it has been told that the new process will not take over.
    pub fn has_been_refused(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let mut packet = [0; 4096];
        loop {
            match line.read(&mut packet) {
                // It has left something unread. What it had said before is still there.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Ok(length @ 1..) => {
                    if let Ok(Message::Refuse { reason }) = Message::decode(&packet[..length]) {
                        return !reason.is_empty();
                    }
                }
                _ => return false,
            }
        }
    }

    /// Whether its end of the lifeline is open.
    pub fn is_open(&self) -> bool {
        self.line.is_some()
    }

    pub fn is_gone(&self) -> bool {
        self.life.is_none()
    }

    fn gives(&mut self, message: &Message) {
        let Some(line) = &self.line else { return };
        let (bytes, descriptors) = (message.encode(), [0]);
        let control = [ControlMessage::ScmRights(&descriptors)];
        // It may have no room, or nobody may be there.
        let _ = sendmsg::<()>(line.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::MSG_NOSIGNAL, None);
    }

    fn says(&mut self, message: &Message) -> bool {
        let Some(line) = &mut self.line else { return false };
        // What comes from the other side must not fill the socket up.
        let mut packet = [0; 4096];
        while let Ok(1..) = line.read(&mut packet) {}
        std::io::Write::write(line, &message.encode()).is_ok()
    }
}
