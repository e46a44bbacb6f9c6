//! What the guard keeps while the server is dead: the listener, the ledger, the connections. By the
//! messages of systemd's descriptor store.

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket};
use pollflip::ledger::{Ledger, cookie};
use pollflip::{Exit, Restarter};
use std::io::{self, IoSlice};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) struct Kept {
    manager: Option<(OwnedFd, UnixAddr)>,
    file: Option<OwnedFd>,
    streams: Vec<TcpStream>,
    has_listener: bool,
    end: Option<Exit>,
}

impl Kept {
    pub(crate) fn find(restarter: &mut Restarter) -> Result<Kept, Box<dyn std::error::Error>> {
        let manager = match std::env::var("NOTIFY_SOCKET") {
            Ok(name) => {
                let own = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
                let address = match name.strip_prefix('@') {
                    Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
                    None => UnixAddr::new(name.as_str())?,
                };
                Some((own, address))
            }
            Err(_) => None,
        };
        let is_successor = restarter.predecessor().is_some();
        let mut kept = Kept { manager, file: None, streams: Vec::new(), has_listener: is_successor, end: None };
        for name in restarter.sockets().unclaimed() {
            if name == "kill_me" {
                kept.has_listener = true;
                continue;
            }
            let descriptor = restarter.sockets().get(&name)?;
            restarter.sockets().remove(&name);
            match descriptor {
                Some(file) if name == "ledger" => kept.file = Some(file),
                Some(stream) => kept.streams.push(stream.into()),
                None => {}
            }
        }
        if let (Ok(end), false) = (std::env::var("POLLFLIP_LAST_END"), is_successor) {
            kept.end = Some(match &*end {
                "unknown" => Exit::Unknown,
                "memory" => Exit::OutOfMemory,
                end => end.strip_prefix("signal:").and_then(|number| number.parse().ok()).map_or(Exit::Code(1), Exit::Signal),
            });
        }
        Ok(kept)
    }

    pub(crate) fn streams(&mut self) -> Vec<TcpStream> {
        std::mem::take(&mut self.streams)
    }

    pub(crate) fn file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    pub(crate) fn end(&self) -> Option<Exit> {
        self.end
    }

    pub(crate) fn listener(&mut self, listener: &TcpListener) -> io::Result<()> {
        if self.has_listener { Ok(()) } else { self.store("kill_me", listener) }
    }

    pub(crate) fn ledger(&self, ledger: &Ledger) -> io::Result<()> {
        self.store("ledger", ledger)
    }

    pub(crate) fn stream(&self, stream: &impl AsFd) -> io::Result<()> {
        self.store(&format!("c-{}", cookie(stream)?), stream)
    }

    /// What is shut down, the guard forgets.
    pub(crate) fn forget(&self, _stream: &impl AsFd) {}

    fn store(&self, name: &str, descriptor: &impl AsFd) -> io::Result<()> {
        let Some((own, address)) = &self.manager else { return Ok(()) };
        let text = format!("FDSTORE=1\nFDNAME={name}");
        let fds = [descriptor.as_fd().as_raw_fd()];
        sendmsg(own.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), Some(address))?;
        Ok(())
    }
}
