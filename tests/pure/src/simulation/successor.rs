//! A successor's end of the lifeline.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use pollflip::internals::wire::{MAX_PACKET, Message, OLDEST, VERSION};

/// What it can say, as the fuzzer counts it.
pub const HERE: u8 = 0;
pub const PULL: u8 = 1;
pub const READY: u8 = 2;
pub const REFUSE: u8 = 3;
pub const PROGRESS: u8 = 4;
pub const GARBAGE: u8 = 5;
pub const ANOTHER: u8 = 6;
pub const COPY: u8 = 16;

/// It holds its end open as a process would, and writes what it is told to.
pub struct Successor {
    pub pid: u32,
    /// A stream's calls carry packets as well.
    line: Option<UnixStream>,
    packet: Vec<u8>,
    pub greeted: bool,
    /// How many descriptors its greeting still brings.
    following: u64,
    pub granted: bool,
    pub committed: bool,
    given_up: bool,
    /// It has all that it was given.
    pub served: bool,
    /// It has all that could go ahead.
    copied: bool,
    /// How many items of the state it has.
    items: u64,
    /// What it has said, by kind.
    pub said: Vec<Said>,
}

/// What it has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    PrecopyPull,
    Pull,
    Ready,
    Refuse,
    Nonsense,
    AnotherPid,
    Other,
}

impl Successor {
    pub fn new(pid: u32, line: OwnedFd) -> Successor {
        let packet = vec![0; MAX_PACKET];
        Successor { line: Some(line.into()), packet, greeted: false, ..Successor::stillborn(pid) }
    }

    /// It ended before anybody could look at it.
    pub fn stillborn(pid: u32) -> Successor {
        let (line, packet, said) = (None, Vec::new(), Vec::new());
        Successor {
            pid,
            line,
            packet,
            greeted: true,
            following: 0,
            granted: false,
            committed: false,
            given_up: false,
            served: false,
            copied: false,
            items: 0,
            said,
        }
    }

    pub fn close(&mut self) {
        self.line = None;
    }

    pub fn is_open(&self) -> bool {
        self.line.is_some()
    }

    /// Writes one packet, if somebody takes it.
    pub fn say(&mut self, what: u8) {
        let here = |pid, version, oldest| Message::Here { version, oldest, pid, again: None }.encode();
        let (said, packet) = match what % 17 {
            HERE => (Said::Other, here(self.pid, VERSION, OLDEST)),
            PULL => (Said::Pull, Message::Pull.encode()),
            COPY => (Said::PrecopyPull, Message::PrecopyPull.encode()),
            READY => (Said::Ready, Message::Ready.encode()),
            REFUSE => (Said::Refuse, Message::Refuse { reason: "not today".into() }.encode()),
            PROGRESS => (Said::Other, Message::Progress { text: format!("{what}%") }.encode()),
            GARBAGE => (Said::Nonsense, b"garbage".to_vec()),
            ANOTHER => (Said::AnotherPid, here(self.pid + 1, VERSION, OLDEST)),
            7 => (Said::Nonsense, Message::Granted.encode()),
            8 => (Said::Other, br#"{"type":"of a later version"}"#.to_vec()),
            9 => (Said::Nonsense, here(self.pid, VERSION + 1, VERSION + 1)),
            10 => (Said::Nonsense, Message::End { items: 0, precopied: 0 }.encode()),
            11 => (Said::Nonsense, vec![b'x'; MAX_PACKET + 1]),
            12 => (Said::Nonsense, Vec::new()),
            13 => (Said::Refuse, Message::Refuse { reason: "x\n".repeat(3000) }.encode()),
            14 => (Said::Nonsense, Message::Commit.encode()),
            _ => (Said::Nonsense, vec![0xff; 3]),
        };
        if let Some(line) = &mut self.line
            && line.write(&packet).is_ok()
        {
            self.said.push(said);
        }
    }

    /// Reads what has come for it.
    pub fn listen(&mut self) {
        let Some(line) = &mut self.line else { return };
        loop {
            let length = match line.read(&mut self.packet) {
                Ok(length @ 1..) => length,
                // The other side has left something unread. What it had said before is still there.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                _ => return,
            };
            let message = Message::decode(&self.packet[..length]).expect("it is told what makes sense");
            let came = message.descriptors() as u64;
            match message {
                Message::Hello(hello) => {
                    assert!(!std::mem::replace(&mut self.greeted, true), "one greeting");
                    self.following = hello.following;
                }
                Message::More { .. } | Message::Items { .. } if self.following > 0 => {
                    self.following = self.following.checked_sub(came).expect("no more than was announced");
                }
                Message::Items { ops } => {
                    let is_wanted = self.said.contains(&Said::Pull) || self.said.contains(&Said::PrecopyPull);
                    assert!(is_wanted && !self.served, "a state that nobody wants");
                    for op in ops {
                        self.items = if op.kind.bears_descriptor() { self.items + 1 } else { self.items - 1 };
                    }
                }
                Message::PrecopyComplete { items } => {
                    assert!(self.said.contains(&Said::PrecopyPull) && !self.served, "nobody has asked");
                    assert!(!std::mem::replace(&mut self.copied, true), "all of it once");
                    assert_eq!(items, self.items, "what went ahead is here");
                }
                Message::End { items, precopied } => {
                    assert!(self.said.contains(&Said::Pull), "a state that nobody wants");
                    assert_eq!(items + precopied, self.items, "what was given is here");
                    assert!(!std::mem::replace(&mut self.served, true), "one state");
                }
                Message::Granted => {
                    assert_eq!(self.following, 0, "a whole greeting");
                    assert!(self.said.contains(&Said::Ready), "the service for one that is not ready");
                    assert!(!std::mem::replace(&mut self.granted, true), "one grant");
                }
                Message::Commit => {
                    assert!(self.granted, "for good without a grant");
                    assert!(!std::mem::replace(&mut self.committed, true), "one commitment");
                }
                Message::GivenUp => {
                    assert!(!self.committed, "it has been told that it is for good");
                    assert!(!std::mem::replace(&mut self.given_up, true), "one end");
                }
                other => panic!("{other:?} is not for a successor"),
            }
        }
    }
}
