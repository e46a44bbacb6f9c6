//! The sockets of the service, and who is connected: it greets and echoes.

use std::fs::OpenOptions;
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
use slab::Slab;

use super::report::say;

/// Connections have the tokens above.
const CONNECTIONS: usize = 1000;

#[derive(Debug)]
pub struct Listeners {
    greeting: String,
    sockets: Vec<Socket>,
    connections: Slab<Connection>,
}

#[derive(Debug)]
enum Socket {
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

    /// Asks for a socket: `KIND NAME ADDRESS`. Tells what came.
    pub fn claim(&mut self, restarter: &mut Restarter, registry: &Registry, wanted: &str) -> Result<(), String> {
        let mut words = wanted.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, name, address) = (word(), word(), word());
        let sockets = restarter.sockets();
        let text = |error: pollflip::Error| error.to_string();
        let mut socket = match kind {
            "tcp" => Socket::Tcp(TcpListener::from_std(sockets.tcp_listener(name, address).map_err(text)?)),
            "unix" => Socket::Unix(UnixListener::from_std(sockets.unix_listener(name, address).map_err(text)?)),
            "udp" => Socket::Udp(UdpSocket::from_std(sockets.udp_socket(name, address).map_err(text)?)),
            "datagram" => Socket::Datagram(UnixDatagram::from_std(sockets.unix_datagram(name, address).map_err(text)?)),
            "seqpacket" => Socket::Seqpacket(sockets.unix_seqpacket(name, address).map_err(text)?),
            // One of a group that shares an address.
            "shared" => Socket::Tcp(TcpListener::from_std(sockets.or_insert_with(name, || shared(address)).map_err(text)?)),
            "file" => {
                let open = || OpenOptions::new().create(true).append(true).open(address).map(OwnedFd::from);
                Socket::Other(sockets.or_insert_with(name, open).map_err(text)?)
            }
            // A listener whose flags are none of the crate's business.
            "blocking" => {
                let bind = || std::net::TcpListener::bind(address).map(OwnedFd::from);
                Socket::Other(sockets.or_insert_with(name, bind).map_err(text)?)
            }
            // From a library that does not know of CLOEXEC.
            "inheritable" => {
                let open = || {
                    let file = std::fs::File::open("/dev/null").map(OwnedFd::from)?;
                    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
                    Ok(file)
                };
                Socket::Other(sockets.or_insert_with(name, open).map_err(text)?)
            }
            // So many descriptors.
            "many" => {
                for number in 0..address.parse().unwrap_or(0) {
                    let open = || std::fs::File::open("/dev/null").map(OwnedFd::from);
                    drop(sockets.or_insert_with(&format!("{name}{number}"), open).map_err(text)?);
                }
                Socket::Other(sockets.or_insert_with(name, || std::fs::File::open("/dev/null").map(OwnedFd::from)).map_err(text)?)
            }
            _ => return Err(format!("no such kind: {kind}")),
        };
        socket.register(registry, Token(self.sockets.len())).map_err(|error| error.to_string())?;
        say(&format!("socket {name} {}", socket.description().map_err(|error| error.to_string())?));
        self.sockets.push(socket);
        Ok(())
    }

    /// Where clients find the first of them.
    pub fn address(&self) -> String {
        match self.sockets.first() {
            Some(Socket::Tcp(listener)) => listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string()),
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

impl Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Datagram(socket) => socket.as_fd(),
            Socket::Seqpacket(socket) | Socket::Other(socket) => socket.as_fd(),
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
            Socket::Other(_) => Ok(()),
            socket => SourceFd(&socket.as_fd().as_raw_fd()).register(registry, token, Interest::READABLE),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Socket::Other(_) => Ok(()),
            socket => SourceFd(&socket.as_fd().as_raw_fd()).deregister(registry),
        }
    }

    /// A new connection, or an answer to a datagram.
    fn take_in(&self, greeting: &str) -> io::Result<Option<Stream>> {
        let mut buffer = [0; 256];
        match self {
            Socket::Tcp(listener) => Ok(Some(Stream::Tcp(listener.accept()?.0))),
            Socket::Unix(listener) => Ok(Some(Stream::Unix(listener.accept()?.0))),
            Socket::Udp(socket) => {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(greeting.as_bytes(), from).map(|_| None)
            }
            Socket::Datagram(socket) => {
                let (_, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(greeting.as_bytes(), from.as_pathname().ok_or(ErrorKind::NotFound)?).map(|_| None)
            }
            Socket::Seqpacket(socket) => {
                let connection = accept(socket.as_raw_fd())?;
                let _ = send(connection, greeting.as_bytes(), MsgFlags::MSG_NOSIGNAL);
                nix::unistd::close(connection)?;
                Ok(None)
            }
            Socket::Other(_) => Err(ErrorKind::WouldBlock.into()),
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
