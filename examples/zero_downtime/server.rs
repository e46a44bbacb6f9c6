//! The server that is restarted: one thread, one mio loop, one `Restarter` in it.
//!
//! What makes a restart lose nothing is in three places: the listener is asked of the restarter by
//! name, so that every generation accepts from the same queue; `restart` stops accepting when the
//! successor has taken over; and from then on each connection is told with its next answer that it
//! was the last (see `connection.rs`), instead of being closed while its client is just writing.

use crate::connection::{Connection, Fate};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use pollflip::{Event, RestartConfig, Restarter};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);
const SIGNALS: Token = Token(usize::MAX - 3);

const SIGINT: i32 = signal_hook::consts::SIGINT;
const SIGTERM: i32 = signal_hook::consts::SIGTERM;

/// How often time is looked at while there are connections.
const TICK: Duration = Duration::from_millis(100);
/// How long a client that was told to close may take to do it.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: Option<PathBuf>,
    /// How long an idle connection is kept once this process drains.
    pub(crate) drain: Duration,
    pub(crate) probation: Option<Duration>,
}

pub(crate) fn serve(options: Options) -> io::Result<()> {
    let mut config = RestartConfig::new();
    if let Some(path) = &options.socket {
        config = config.coordination_socket(path);
    }
    if let Some(time) = options.probation {
        config = config.probation(time);
    }
    let mut restarter = config.build()?;
    // From the predecessor if there is one, else bound here.
    let listener = restarter.sockets().tcp_listener("http", options.listen)?;
    let address = listener.local_addr()?;
    let mut server = Server::new(TcpListener::from_std(listener), restarter.generation(), options.drain)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let registry = server.poll.registry();
    registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
    registry.register(&mut restarter, RESTARTER, Interest::READABLE)?;
    // From here on the predecessor may leave. An error means that it stays, without us.
    restarter.ready()?;

    // Whoever reads this may be gone by the time of a later generation.
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());
    server.run(&mut restarter, &mut signals)
}

struct Server {
    poll: Poll,
    /// Gone once nobody can come back to this process.
    listener: Option<TcpListener>,
    accepting: bool,
    /// A connection was left in the queue because accepting it failed.
    accept_failed: bool,
    connections: Slab<Connection>,
    draining_since: Option<Instant>,
    drain: Duration,
    stopped: bool,
    text: String,
}

impl Server {
    fn new(listener: TcpListener, generation: u32, drain: Duration) -> io::Result<Self> {
        let mut server = Self {
            poll: Poll::new()?,
            listener: Some(listener),
            accepting: false,
            accept_failed: false,
            connections: Slab::new(),
            draining_since: None,
            drain,
            stopped: false,
            text: format!("pid {} generation {generation}\n", process::id()),
        };
        server.start_accepting()?;
        Ok(server)
    }

    fn run(&mut self, restarter: &mut Restarter, signals: &mut Signals) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut last_tick = Instant::now();
        while self.draining_since.is_none() || !self.connections.is_empty() {
            let timeout = if self.connections.is_empty() && !self.accept_failed { None } else { Some(TICK) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    RESTARTER => {
                        while let Some(event) = restarter.poll() {
                            self.restart(event)?;
                        }
                    }
                    SIGNALS => {
                        for _ in signals.pending() {
                            if self.stopped {
                                return Ok(()); // asked twice
                            }
                            self.stop(restarter)?;
                        }
                    }
                    Token(key) => self.drive(key),
                }
            }
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                self.tick(last_tick);
            }
        }
        Ok(())
    }

    /// What a restart means for this server. The restarter itself has logged what went wrong, if anything did.
    fn restart(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::HandedOff(_) => self.stop_accepting()?,
            Event::Resumed(_) => self.start_accepting()?,
            Event::Completed(_) => self.begin_to_drain(),
            _ => {}
        }
        Ok(())
    }

    /// Ends without a successor.
    fn stop(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        self.stopped = true;
        restarter.stop();
        if self.accepting {
            self.accept(); // nobody else will take what is in the queue
            self.stop_accepting()?;
        }
        self.begin_to_drain();
        Ok(())
    }

    fn start_accepting(&mut self) -> io::Result<()> {
        if let Some(listener) = &mut self.listener {
            self.poll.registry().register(listener, LISTENER, Interest::READABLE)?;
            self.accepting = true;
        }
        Ok(())
    }

    /// The successor takes the rest of the queue, which belongs to both. The listener has to leave
    /// the epoll before it is closed: the successor's copy would keep it alive in there.
    fn stop_accepting(&mut self) -> io::Result<()> {
        if let (true, Some(listener)) = (self.accepting, &mut self.listener) {
            self.poll.registry().deregister(listener)?;
        }
        self.accepting = false;
        self.accept_failed = false;
        Ok(())
    }

    /// Closes no connection: each learns with its next answer that it was the last.
    fn begin_to_drain(&mut self) {
        log::info!("{} connections left", self.connections.len());
        self.listener = None;
        self.draining_since.get_or_insert_with(Instant::now);
    }

    fn accept(&mut self) {
        self.accept_failed = false;
        while let (true, Some(listener)) = (self.accepting, &self.listener) {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                    // No descriptors left, most likely. There will be no second event for it.
                    _ => {
                        log::warn!("cannot accept now: {error}");
                        self.accept_failed = true;
                        return;
                    }
                },
            };
            let _ = stream.set_nodelay(true); // an answer need not wait for the next one
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            match self.poll.registry().register(&mut stream, Token(entry.key()), interest) {
                Ok(()) => {
                    entry.insert(Connection::new(stream));
                }
                Err(error) => log::warn!("cannot watch a connection: {error}"),
            }
        }
    }

    fn drive(&mut self, key: usize) {
        // An event may be left of a connection that is closed, even if another has its key by now:
        // driving that one does no harm.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let last = self.draining_since.is_some();
        let fate = connection.drive(&self.text, last).unwrap_or_else(|error| {
            log::debug!("a connection ended: {error}");
            Fate::Close
        });
        if fate == Fate::Close {
            self.connections.remove(key);
        }
    }

    /// Closes what was told to close and does not, and, while draining, what has been idle too long.
    fn tick(&mut self, now: Instant) {
        if self.accept_failed {
            self.accept();
        }
        let mut overdue = Vec::new();
        for (key, connection) in &self.connections {
            let limit = match (connection.is_lingering(), self.draining_since) {
                (true, _) => connection.last_moved + LINGER,
                (false, Some(since)) => connection.last_moved.max(since) + self.drain,
                (false, None) => continue,
            };
            if limit <= now {
                overdue.push(key);
            }
        }
        for key in overdue {
            // A request may have come in this very moment: it is answered, and told to close.
            self.drive(key);
            if self.connections.get(key).is_some_and(|connection| connection.last_moved < now) {
                self.connections.remove(key);
            }
        }
    }
}
