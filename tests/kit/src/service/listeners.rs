//! The sockets of the service, and who is connected: it greets and echoes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, accept, bind, listen, send, setsockopt, socket, sockopt,
};
use pollflip::Restarter;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::report::say;

/// Connections have the tokens above.
const CONNECTIONS: usize = 1000;

/// A socket, or another descriptor, that is asked for: by this name, or made at this address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    pub kind: Kind,
    pub name: String,
    pub address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    Tcp,
    Unix,
    Udp,
    Datagram,
    Seqpacket,
    /// One of a group that shares an address.
    Shared,
    File,
    /// A listener whose flags are none of the crate's business.
    Blocking,
    /// A file from a library that does not know of CLOEXEC.
    Inheritable,
    /// So many descriptors of a file, under that name and a number, and one under the name alone.
    Many(usize),
}

impl Kind {
    pub fn socket(self, name: &str, address: impl ToString) -> Socket {
        Socket { kind: self, name: name.into(), address: address.to_string() }
    }
}

/// The commonest kind.
pub fn tcp(name: &str, address: impl ToString) -> Socket {
    Kind::Tcp.socket(name, address)
}

#[derive(Debug)]
pub struct Listeners {
    greeting: String,
    sockets: Vec<Held>,
    connections: Slab<Connection>,
}

#[derive(Debug)]
enum Held {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Seqpacket(OwnedFd),
    Other(OwnedFd),
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    output: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listeners {
    pub fn new(generation: u32) -> Listeners {
        let greeting = format!("pid {} generation {generation}\n", std::process::id());
        Listeners { greeting, sockets: Vec::new(), connections: Slab::new() }
    }

    /// Asks for a socket. Tells what came.
    pub fn claim(&mut self, restarter: &mut Restarter, registry: &Registry, wanted: &Socket) -> Result<(), String> {
        let Socket { kind, name, address } = wanted;
        let sockets = restarter.sockets();
        let text = |error: pollflip::Error| error.to_string();
        let mut socket = match kind {
            Kind::Tcp => Held::Tcp(TcpListener::from_std(sockets.tcp_listener(name, address).map_err(text)?)),
            Kind::Unix => Held::Unix(UnixListener::from_std(sockets.unix_listener(name, address).map_err(text)?)),
            Kind::Udp => Held::Udp(UdpSocket::from_std(sockets.udp_socket(name, address).map_err(text)?)),
            Kind::Datagram => Held::Datagram(UnixDatagram::from_std(sockets.unix_datagram(name, address).map_err(text)?)),
            Kind::Seqpacket => Held::Seqpacket(sockets.unix_seqpacket(name, address).map_err(text)?),
            Kind::Shared => Held::Tcp(TcpListener::from_std(sockets.or_insert_with(name, || shared(address)).map_err(text)?)),
            Kind::File => {
                let open = || OpenOptions::new().create(true).append(true).open(address).map(OwnedFd::from);
                Held::Other(sockets.or_insert_with(name, open).map_err(text)?)
            }
            Kind::Blocking => {
                let bind = || std::net::TcpListener::bind(address).map(OwnedFd::from);
                Held::Other(sockets.or_insert_with(name, bind).map_err(text)?)
            }
            Kind::Inheritable => {
                let open = || {
                    let file = File::open(address).map(OwnedFd::from)?;
                    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
                    Ok(file)
                };
                Held::Other(sockets.or_insert_with(name, open).map_err(text)?)
            }
            Kind::Many(count) => {
                let open = || File::open(address).map(OwnedFd::from);
                for number in 0..*count {
                    drop(sockets.or_insert_with(&format!("{name}{number}"), open).map_err(text)?);
                }
                Held::Other(sockets.or_insert_with(name, open).map_err(text)?)
            }
        };
        socket.register(registry, Token(self.sockets.len())).map_err(|error| error.to_string())?;
        say(&format!("socket {name} {}", socket.description().map_err(|error| error.to_string())?));
        self.sockets.push(socket);
        Ok(())
    }

    /// Where clients find the first of them.
    pub fn address(&self) -> String {
        match self.sockets.first() {
            Some(Held::Tcp(listener)) => listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string()),
            _ => "nowhere".into(),
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Takes nobody new in.
    pub fn stop(&mut self, registry: &Registry) -> io::Result<()> {
        self.sockets.iter_mut().try_for_each(|socket| socket.deregister(registry))
    }

    /// Takes clients in again.
    pub fn go_on(&mut self, registry: &Registry) -> io::Result<()> {
        self.sockets.iter_mut().enumerate().try_for_each(|(index, socket)| socket.register(registry, Token(index)))
    }

    pub fn close(&mut self) {
        self.sockets.clear();
    }

    pub fn serve(&mut self, registry: &Registry, token: Token) {
        if token.0 >= CONNECTIONS {
            let key = token.0 - CONNECTIONS;
            let goes_on = self.connections.get_mut(key).is_some_and(|connection| connection.echo().unwrap_or(false));
            if !goes_on {
                self.connections.try_remove(key);
            }
            return;
        }
        while let Some(socket) = self.sockets.get(token.0) {
            match socket.take_in(&self.greeting) {
                Ok(Some(stream)) => {
                    let entry = self.connections.vacant_entry();
                    let mut connection = Connection { stream, output: self.greeting.clone().into_bytes() };
                    let token = Token(CONNECTIONS + entry.key());
                    if connection.stream.source().register(registry, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                        entry.insert(connection);
                    }
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
}

/// A listener that lets others listen on the same address.
fn shared(address: &str) -> io::Result<std::net::TcpListener> {
    let address: std::net::SocketAddr = address.parse().expect("an address");
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    setsockopt(&listener, sockopt::ReusePort, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener.into())
}

impl Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Tcp(socket) => socket.as_fd(),
            Held::Unix(socket) => socket.as_fd(),
            Held::Udp(socket) => socket.as_fd(),
            Held::Datagram(socket) => socket.as_fd(),
            Held::Seqpacket(socket) | Held::Other(socket) => socket.as_fd(),
        }
    }

    /// `inode N flags F cloexec C`: what shows that it is the same, and as it was.
    fn description(&self) -> nix::Result<String> {
        use nix::fcntl::{FcntlArg, fcntl};
        let inode = nix::sys::stat::fstat(self.as_fd())?.st_ino;
        let flags = fcntl(self.as_fd(), FcntlArg::F_GETFL)?;
        let own = fcntl(self.as_fd(), FcntlArg::F_GETFD)?;
        Ok(format!("inode {inode} flags {flags:o} cloexec {own}"))
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Held::Other(_) => Ok(()),
            socket => SourceFd(&socket.as_fd().as_raw_fd()).register(registry, token, Interest::READABLE),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Held::Other(_) => Ok(()),
            socket => SourceFd(&socket.as_fd().as_raw_fd()).deregister(registry),
        }
    }

    /// A new connection, or an answer to a datagram.
    fn take_in(&self, greeting: &str) -> io::Result<Option<Stream>> {
        let mut buffer = [0; 256];
        match self {
            Held::Tcp(listener) => Ok(Some(Stream::Tcp(listener.accept()?.0))),
            Held::Unix(listener) => Ok(Some(Stream::Unix(listener.accept()?.0))),
            Held::Udp(socket) => {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(greeting.as_bytes(), from).map(|_| None)
            }
            Held::Datagram(socket) => {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(greeting.as_bytes(), from.as_pathname().ok_or(ErrorKind::NotFound)?).map(|_| None)
            }
            Held::Seqpacket(socket) => {
                let connection = accept(socket.as_raw_fd())?;
                let _ = send(connection, greeting.as_bytes(), MsgFlags::MSG_NOSIGNAL);
                nix::unistd::close(connection)?;
                Ok(None)
            }
            Held::Other(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

impl Connection {
    /// Until the client has ended and has got everything back: then `false`.
    fn echo(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            while !self.output.is_empty() {
                match self.stream.write(&self.output) {
                    Ok(count) => drop(self.output.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.output.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }
}
