//! The server that is restarted: one thread, one mio loop, one `Restarter` in it.
//!
//! What makes a restart lose nothing is in three places: the listener is asked of the restarter by
//! name, so that every generation accepts from the same queue; `save` hands all connections over,
//! with what is in their buffers, and touches none from then on until they are the successor's or,
//! if the restart fails, still its own; and `restart` lets go of them when the successor has taken
//! over, as the gate does with the listener. No client is told anything: its next request is
//! answered by another.
//!
//! A server that ends without a successor tells each connection with its next answer that it was the
//! last (see `connection.rs`), instead of closing it while its client is just writing.

use crate::connection::{Connection, Fate};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, setrlimit};
use pollflip::{Event, Gate, Handover, Inheritance, RestartConfig, Restarter};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

/// How items of the handover are called, before the number of the connection.
const CONNECTION: &str = "connection/";
const BUFFERS: &str = "buffers/";

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);
const SIGNALS: Token = Token(usize::MAX - 3);

const SIGINT: i32 = signal_hook::consts::SIGINT;
const SIGTERM: i32 = signal_hook::consts::SIGTERM;

/// How often time is looked at while there are connections.
const TICK: Duration = Duration::from_millis(100);
/// How long a client that was told to close may take to do it.
const LINGER: Duration = Duration::from_secs(2);
/// How long the predecessor may take to hand its connections over.
const STATE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: Option<PathBuf>,
    /// How long an idle connection is kept once this process drains.
    pub(crate) drain: Duration,
    pub(crate) probation: Option<Duration>,
    /// It is a bad release, and lives for so long.
    pub(crate) crash_after: Option<Duration>,
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
    if let Some(predecessor) = restarter.predecessor() {
        match predecessor.receive(STATE_LIMIT) {
            Ok(connections) => server.take_over(connections).inspect_err(|error| predecessor.refuse(&error.to_string()))?,
            // It has ended, and its connections with it; the listener is here. If it lives, `ready` says so.
            Err(error) => log::warn!("{error}"),
        }
    }
    // From here on the predecessor may leave. An error means that it stays, without us.
    restarter.ready()?;
    server.gate.follow(&restarter, server.poll.registry())?;

    // The reader of this may be gone by the time of a later generation.
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());
    if let Some(time) = options.crash_after {
        crash_after(time);
    }
    server.run(&mut restarter, &mut signals)
}

/// What a bad release does. It leaves no core file behind.
fn crash_after(time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        process::abort();
    });
}

struct Server {
    poll: Poll,
    /// The listener: open as long as this process takes clients in.
    gate: Gate<TcpListener>,
    /// A connection was left in the queue because accepting it failed.
    accept_failed: bool,
    connections: Slab<Connection>,
    /// The connections may be the successor's already: nothing is read or written, and nobody taken in.
    frozen: bool,
    draining_since: Option<Instant>,
    drain: Duration,
    stopped: bool,
    text: String,
}

impl Server {
    fn new(listener: TcpListener, generation: u32, drain: Duration) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            gate: Gate::new(listener, LISTENER),
            accept_failed: false,
            connections: Slab::new(),
            frozen: false,
            draining_since: None,
            drain,
            stopped: false,
            text: format!("pid {} generation {generation}\n", process::id()),
        })
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
                            self.gate.follow(restarter, self.poll.registry())?;
                            self.restart(event)?;
                            self.end_if_stopped()?;
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
                    Token(key) if !self.frozen => self.drive(key),
                    _ => {} // looked at when it thaws
                }
            }
            if last_tick.elapsed() >= TICK && !self.frozen {
                last_tick = Instant::now();
                self.tick(last_tick);
            }
        }
        Ok(())
    }

    /// What a restart means for this server. The restarter itself has logged what went wrong, if anything did.
    fn restart(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::StateRequested(handover) => {
                self.frozen = true;
                // What goes wrong comes back as `Failed`.
                let _ = self.save(handover);
            }
            Event::Failed(_) => self.thaw(),
            Event::HandedOff(_) => self.let_go()?,
            Event::Completed(_) => self.begin_to_drain()?,
            // `Resumed` is the gate's: the connections have gone with the successor.
            _ => {}
        }
        Ok(())
    }

    /// Gives all connections, and beside those that are not idle what is in their buffers.
    fn save(&self, mut handover: Handover) -> io::Result<()> {
        for (key, connection) in &self.connections {
            handover.fd(&format!("{CONNECTION}{key}"), &connection.stream)?;
            if let Some(saved) = connection.save() {
                handover.bytes(&format!("{BUFFERS}{key}"), &saved)?;
            }
        }
        handover.send();
        Ok(())
    }

    /// Takes them. What came for them meanwhile is found when they are first looked at.
    fn take_over(&mut self, mut from: Inheritance) -> io::Result<()> {
        for name in from.names() {
            let Some(key) = name.strip_prefix(CONNECTION) else { continue };
            let saved = from.bytes(&format!("{BUFFERS}{key}"))?;
            let Some(stream) = from.fd(&name) else { continue };
            let mut connection = Connection::load(TcpStream::from_std(stream), saved.as_deref())?;
            let entry = self.connections.vacant_entry();
            self.poll.registry().register(&mut connection.stream, Token(entry.key()), BOTH)?;
            entry.insert(connection);
        }
        Ok(())
    }

    /// Goes on where it stopped.
    fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            let keys: Vec<_> = self.connections.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.drive(key));
        }
    }

    /// They are the successor's. Like the listener they leave the epoll first.
    fn let_go(&mut self) -> io::Result<()> {
        self.frozen = false;
        for mut connection in self.connections.drain() {
            self.poll.registry().deregister(&mut connection.stream)?;
        }
        Ok(())
    }

    /// Ends without a successor.
    fn stop(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        self.stopped = true;
        restarter.stop();
        self.end_if_stopped()
    }

    /// Not while a successor may still have the service, or the connections: what becomes of that
    /// is told.
    fn end_if_stopped(&mut self) -> io::Result<()> {
        if self.stopped && self.gate.is_open() {
            self.accept(); // nobody else will take what is in the queue
            self.begin_to_drain()?;
        }
        Ok(())
    }

    /// Closes no connection: each learns with its next answer that it was the last.
    fn begin_to_drain(&mut self) -> io::Result<()> {
        log::info!("{} connections left", self.connections.len());
        self.gate.close(self.poll.registry())?;
        self.draining_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn accept(&mut self) {
        self.accept_failed = false;
        loop {
            let mut stream = match self.gate.accept() {
                Ok(Some((stream, _))) => stream,
                Ok(None) => return,
                // No descriptors left, most likely. There will be no second event for it.
                Err(error) => {
                    log::warn!("cannot accept now: {error}");
                    self.accept_failed = true;
                    return;
                }
            };
            let _ = stream.set_nodelay(true); // an answer need not wait for the next one
            let entry = self.connections.vacant_entry();
            match self.poll.registry().register(&mut stream, Token(entry.key()), BOTH) {
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
            self.close(key);
        }
    }

    /// Out of the poll first: a connection that another process has too is told of as long as it is
    /// in there, though it is closed here, and can no longer be taken out.
    fn close(&mut self, key: usize) {
        let mut connection = self.connections.remove(key);
        if let Err(error) = self.poll.registry().deregister(&mut connection.stream) {
            log::warn!("a connection that is closed is still watched: {error}");
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
                self.close(key);
            }
        }
    }
}
