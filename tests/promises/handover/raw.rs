//! The lifeline spoken by hand: packets of JSON or of names with descriptors, of whatever version.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::dup;
use pollflip::internals::wire::{MAX_DESCRIPTORS, MAX_PACKET, Message};

/// One end of a lifeline.
#[derive(Debug)]
pub struct Raw(pub OwnedFd);

impl Raw {
    /// The one that the environment names.
    pub fn adopt() -> Raw {
        let text = std::env::var("POLLFLIP_LIFELINE").expect("a lifeline");
        let number: RawFd = text.split(':').next().and_then(|number| number.parse().ok()).expect("its number");
        let stat = nix::sys::stat::fstat(Number(number)).expect("an open descriptor");
        assert_eq!(text, format!("{number}:{}:{}", stat.st_dev, stat.st_ino));
        Raw(dup(Number(number)).expect("a duplicate"))
    }

    pub fn say(&self, message: &Message) {
        self.send(&message.encode(), &[]);
    }

    /// The same, and waits until the other side has read what was said before.
    pub fn say_when_there_is_room(&self, message: &Message) {
        while self.try_send(&message.encode(), &[]) == Err(Errno::EAGAIN) {
            let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
        }
    }

    pub fn json(&self, json: &str) {
        self.send(json.as_bytes(), &[]);
    }

    /// A packed list, whatever stands in it.
    pub fn items(&self, ops: &[(u8, &[u8])], descriptors: &[RawFd]) {
        let mut packet = vec![1];
        for (kind, name) in ops {
            packet.push(*kind);
            packet.extend((name.len() as u32).to_le_bytes());
            packet.extend(*name);
        }
        self.send(&packet, descriptors);
    }

    pub fn send(&self, bytes: &[u8], descriptors: &[RawFd]) {
        // Whoever is gone hears nothing; the tests look at what it does.
        let _ = self.try_send(bytes, descriptors);
    }

    pub fn try_send(&self, bytes: &[u8], descriptors: &[RawFd]) -> nix::Result<usize> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control: &[_] = if descriptors.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)
    }

    /// The next message and how many descriptors came with it, which are closed; `None` at the end.
    pub fn hear(&self) -> Option<(Message, usize)> {
        let mut bytes = vec![0; MAX_PACKET];
        let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let (length, descriptors) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => {
                    let mut descriptors = Vec::new();
                    for control in message.cmsgs().expect("whole control messages") {
                        if let ControlMessageOwned::ScmRights(numbers) = control {
                            descriptors.extend(numbers);
                        }
                    }
                    break (message.bytes, descriptors);
                }
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                // The inherited end does not block.
                Err(Errno::EAGAIN) => drop(poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)),
                Err(error) => panic!("cannot receive: {error}"),
            }
        };
        for number in &descriptors {
            nix::unistd::close(*number).expect("it has come");
        }
        (length > 0).then(|| (Message::decode(&bytes[..length]).expect("a message"), descriptors.len()))
    }

    /// Waits for a message that is so; what comes before is skipped.
    pub fn wait_for(&self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            match self.hear() {
                Some((message, _)) if wanted(&message) => return message,
                Some(_) => {}
                None => panic!("the other side has closed the lifeline"),
            }
        }
    }
}

/// An inherited number.
struct Number(RawFd);

impl AsFd for Number {
    #[allow(unsafe_code, reason = "an inherited descriptor has no owner yet")]
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the lifeline was inherited, and nobody closes it in this process.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}
