//! A listener that follows the restarter: registered while this process takes new connections in,
//! and only then.
//!
//! Knows: the listener, its token, and when [`Restarter::accepts`] says yes. Does not know: why;
//! that is the restarter's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::libc;

use crate::restarter::Restarter;
use crate::sockets::set_nonblocking;

/// A listener of mio that a [`Gate`] can follow a restarter with: `TcpListener`, `UnixListener`, or
/// one of your own.
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
/// use std::os::fd::{AsFd, BorrowedFd};
///
/// use mio::event::Source;
/// use mio::net::{TcpListener, TcpStream};
/// use mio::{Interest, Registry, Token};
/// use pollflip::Accept;
///
/// /// Its connections do not wait to fill their packets.
/// struct Prompt(TcpListener);
///
/// impl Accept for Prompt {
///     type Accepted = (TcpStream, SocketAddr);
///
///     fn accept(&self) -> io::Result<Self::Accepted> {
///         let (stream, address) = self.0.accept()?;
///         stream.set_nodelay(true)?;
///         Ok((stream, address))
///     }
/// }
///
/// impl AsFd for Prompt {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl Source for Prompt {
///     fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
///         self.0.register(registry, token, interests)
///     }
///
///     fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
///         self.0.reregister(registry, token, interests)
///     }
///
///     fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
///         self.0.deregister(registry)
///     }
/// }
/// ```
pub trait Accept: Source + AsFd {
    /// What [`accept`](Accept::accept) returns: a connection, and of a TCP listener the address of
    /// the client too.
    type Accepted;

    /// Takes one connection in. Never blocks: the socket is non-blocking when this is called.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if no connection waits; anything else that the kernel says.
    fn accept(&self) -> io::Result<Self::Accepted>;
}

impl Accept for TcpListener {
    type Accepted = (TcpStream, SocketAddr);

    fn accept(&self) -> io::Result<Self::Accepted> {
        TcpListener::accept(self)
    }
}

impl Accept for UnixListener {
    /// Without an address: clients have none as a rule.
    type Accepted = UnixStream;

    fn accept(&self) -> io::Result<Self::Accepted> {
        UnixListener::accept(self).map(|(stream, _)| stream)
    }
}

/// A listener that follows a [`Restarter`]: registered in a `mio::Poll` as long as
/// [`Restarter::accepts`] says that this process takes new connections in.
///
/// A gate is *shut* at first. [`follow`](Gate::follow) opens and shuts it, and closes it once
/// the restart is final. Call `follow` after [`Restarter::ready`] and after each event.
///
/// | after | the gate |
/// | --- | --- |
/// | [`ready`](Restarter::ready), [`Event::Granted`](crate::Event::Granted) | opens |
/// | [`Event::StateRequested`](crate::Event::StateRequested) | shuts: this process is frozen, clients wait in the queue of the listener |
/// | [`Event::Failed`](crate::Event::Failed) | opens if it was shut; a client that came meanwhile is told of |
/// | [`Event::HandedOff`](crate::Event::HandedOff) | shuts: the successor takes the clients in |
/// | [`Event::Resumed`](crate::Event::Resumed) | opens |
/// | [`Event::Completed`](crate::Event::Completed) | is closed, and the listener with it |
///
/// A gate takes the listener out of the poll before it closes it. A listener that is only closed
/// stays in the epoll as long as the successor has it, and can no longer be removed. **Dropping** a
/// gate that is open leaves exactly that behind: [`close`](Gate::close) it first, unless the poll
/// goes too.
///
/// The gate makes the listener non-blocking when it opens, and never before the grant. That flag
/// belongs to the socket, and so to both processes: a predecessor that waits in a blocking `accept`
/// would get an error that it does not expect. After a roll-back
/// ([`Event::Resumed`](crate::Event::Resumed)) such a predecessor finds the socket non-blocking.
///
/// ```no_run
/// use mio::{Events, Interest, Poll, Token, net::TcpListener};
/// use pollflip::{Event, Gate, RestartConfig};
///
/// # fn main() -> std::io::Result<()> {
/// let mut poll = Poll::new()?;
/// let mut restarter = RestartConfig::new().build()?;
/// let listener = restarter.sockets().tcp_listener("web", "127.0.0.1:8080")?;
/// let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
/// poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
/// restarter.ready()?;
/// gate.follow(&restarter, poll.registry())?;
///
/// let mut events = Events::with_capacity(64);
/// while !gate.is_closed() {
///     match poll.poll(&mut events, None) {
///         Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error),
///         _ => {}
///     }
///     for event in &events {
///         match event.token() {
///             Token(0) => while let Some((connection, _)) = gate.accept()? { /* serve it */ drop(connection) },
///             _ => while let Some(event) = restarter.poll() {
///                 if let Event::Failed(why) = event { eprintln!("still here: {why}") }
///                 gate.follow(&restarter, poll.registry())?;
///             },
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Gate<L: Accept> {
    /// Gone when the gate is closed.
    listener: Option<L>,
    token: Token,
    is_open: bool,
}

impl<L: Accept> Gate<L> {
    /// A gate that is shut. The listener must not be registered anywhere; the gate registers it
    /// under that token.
    pub fn new(listener: L, token: Token) -> Gate<L> {
        Gate { listener: Some(listener), token, is_open: false }
    }

    /// Opens, shuts or closes the gate, as the restarter says. Costs no system call where nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// The listener cannot be registered, or deregistered: it is tried again at the next call. The
    /// restarter is a copy in a forked child, whose poll may be the parent's as well: nothing
    /// changes.
    pub fn follow(&mut self, restarter: &Restarter, registry: &Registry) -> io::Result<()> {
        restarter.check_here()?;
        if restarter.has_handed_over() {
            return self.close(registry);
        }
        match restarter.accepts() {
            true => self.open(registry),
            false => self.shut(registry),
        }
    }

    /// The next connection; `None`: no more wait, or the gate is not open. When the token is ready,
    /// call it until it returns `None`. A connection that its client has given up again is passed
    /// over.
    ///
    /// # Errors
    ///
    /// What the kernel says, most likely that this process has no descriptors left. The connection
    /// stays in the queue, and mio does not tell of it again: call this once a descriptor is free,
    /// after a connection has ended, say.
    pub fn accept(&self) -> io::Result<Option<L::Accepted>> {
        while let (true, Some(listener)) = (self.is_open, &self.listener) {
            match listener.accept() {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => break,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // Another word of the kernel for the same.
                    _ if error.raw_os_error() == Some(libc::EPROTO) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(None)
    }

    /// Closes the gate and the listener: for a process that ends without a successor,
    /// after [`Restarter::stop`](crate::Restarter::stop). What waits in the queue of the listener
    /// is lost then, so [`accept`](Gate::accept) it first.
    ///
    /// # Errors
    ///
    /// The listener cannot be deregistered, and is not closed.
    pub fn close(&mut self, registry: &Registry) -> io::Result<()> {
        self.shut(registry)?;
        self.listener = None;
        Ok(())
    }

    /// Whether connections are taken in.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the listener is closed: no connection will come any more.
    pub fn is_closed(&self) -> bool {
        self.listener.is_none()
    }

    /// The listener, unless the gate is closed.
    pub fn listener(&self) -> Option<&L> {
        self.listener.as_ref()
    }

    fn open(&mut self, registry: &Registry) -> io::Result<()> {
        if let (false, Some(listener)) = (self.is_open, &mut self.listener) {
            set_nonblocking(&*listener)?;
            listener.register(registry, self.token, Interest::READABLE)?;
            self.is_open = true;
        }
        Ok(())
    }

    fn shut(&mut self, registry: &Registry) -> io::Result<()> {
        if let (true, Some(listener)) = (self.is_open, &mut self.listener) {
            listener.deregister(registry)?;
            self.is_open = false;
        }
        Ok(())
    }
}

impl<L: Accept> fmt::Debug for Gate<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.listener, self.is_open) {
            (None, _) => "closed",
            (Some(_), true) => "open",
            (Some(_), false) => "shut",
        };
        f.debug_struct("Gate").field("token", &self.token).field("state", &state).finish_non_exhaustive()
    }
}
