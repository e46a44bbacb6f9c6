//! A test that stands in for systemd.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::harness::Setup;
use crate::hub::DEADLINE;

/// What others tell systemd.
pub const JUNK: &[u8] = b"X";

/// Stands in for systemd.
#[derive(Debug)]
pub struct Manager(UnixDatagram);

/// One message: its lines, and the descriptors that came with it.
#[derive(Debug)]
pub struct Notification {
    pub lines: Vec<String>,
    pub descriptors: Vec<i32>,
}

impl Manager {
    pub fn new(setup: Setup) -> (Manager, Setup) {
        let path: PathBuf = setup.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        (Manager(socket), setup.env("NOTIFY_SOCKET", path))
    }

    pub fn receive(&self) -> Notification {
        loop {
            let found = self.receive_any();
            if found.lines != [String::from_utf8_lossy(JUNK)] {
                return found;
            }
        }
    }

    pub fn receive_any(&self) -> Notification {
        let mut buffer = [0; 4096];
        let mut control = nix::cmsg_space!([i32; 4]);
        let mut part = [std::io::IoSliceMut::new(&mut buffer)];
        let raw = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        let message = loop {
            match recvmsg::<()>(raw, &mut part, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
                // A machine that was paused goes on with that.
                Err(Errno::EINTR) => {}
                result => break result.expect("a notification"),
            }
        };
        let descriptors = message
            .cmsgs()
            .expect("whole control messages")
            .flat_map(|control| if let ControlMessageOwned::ScmRights(numbers) = control { numbers } else { Vec::new() })
            .collect();
        let length = message.bytes;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Notification { lines: text.lines().map(String::from).collect(), descriptors }
    }

    /// The next message, which must consist of these lines; one that ends with `=` may have any value. That more time is asked for is
    /// not looked at.
    pub fn expect(&self, lines: &[&str]) -> Notification {
        let mut found = self.receive();
        found.lines.retain(|line| !line.starts_with("EXTEND_TIMEOUT_USEC="));
        let fits = |(found, wanted): (&String, &&str)| found == wanted || wanted.ends_with('=') && found.starts_with(wanted);
        assert!(found.lines.len() == lines.len() && found.lines.iter().zip(lines).all(fits), "{lines:?} expected: {found:?}");
        found
    }

    /// The barrier of a handoff; closing its descriptor answers it.
    pub fn expect_barrier(&self) -> i32 {
        let barrier = self.expect(&["BARRIER=1"]);
        assert_eq!(barrier.descriptors.len(), 1);
        barrier.descriptors[0]
    }

    pub fn answer(barrier: i32) {
        nix::unistd::close(barrier).expect("a descriptor");
    }

    /// Others tell it so much that nothing more fits in.
    pub fn is_kept_busy(&self) {
        let address = self.0.local_addr().expect("an address");
        // One that cannot send may have no room of its own left; when another cannot either, it is the manager that has none.
        loop {
            let other = UnixDatagram::unbound().expect("a socket");
            other.set_nonblocking(true).expect("a socket");
            if other.send_to_addr(JUNK, &address).is_err() {
                return;
            }
            while other.send_to_addr(JUNK, &address).is_ok() {}
        }
    }

    /// What is left over when nothing more should come.
    pub fn expect_nothing(&self) {
        self.0.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 4096];
        let more = self.0.recv(&mut buffer).map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned());
        assert!(more.is_err(), "{more:?}");
        self.0.set_nonblocking(false).expect("a socket");
    }
}
