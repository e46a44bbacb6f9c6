//! The server that is restarted: one thread, one mio loop, one `Restarter` in it.
//!
//! What makes a restart lose nothing is in three places: the listener is asked of the restarter by
//! name, so that every generation accepts from the same queue; `give_ahead` gives the connections
//! while they are still served, and `save` what is left, with what is in the buffers, and touches
//! none from then on until they are the successor's or, if the restart fails, still its own; and
//! `restart` drops them when the restart is final. No client is told anything: its next request is
//! answered by another.
//!
//! A server that ends without a successor tells each connection with its next answer that it was the
//! last (see `connection.rs`), instead of closing it while its client is just writing.

use crate::connection::{Connection, Fate};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use pollflip::{Arrival, Event, Gate, Handover, Inheritance, Precopy, Predecessor, RestartConfig, Restarter, Sweep, hang_up};
use signal_hook_mio::v1_0::Signals;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

/// How items of the handover are called, before the number of the connection.
const CONNECTION: &str = "connection/";
/// The buffers of all connections that are not idle, each with its number and its length.
const BUFFERS: &str = "buffers";

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
/// How long the predecessor may take to hand its connections over, ahead of the freeze and in it.
const COPY_LIMIT: Duration = Duration::from_secs(30);
const STATE_LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: Option<PathBuf>,
    /// How long an idle connection is kept once this process drains.
    pub(crate) drain: Duration,
    pub(crate) probation: Option<Duration>,
}

pub(crate) fn serve(options: Options, when_it_serves: impl FnOnce()) -> io::Result<()> {
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
        match server.receive(&predecessor) {
            Ok(buffers) => server.take_over(buffers).inspect_err(|error| predecessor.refuse(&error.to_string()))?,
            // It has ended, and its connections with it; the listener is here. If it lives, `ready` says so.
            Err(error) => {
                log::warn!("{error}");
                server.connections.clear();
            }
        }
    }
    // From here on the predecessor may leave. An error means that it stays, without us.
    restarter.ready()?;
    server.gate.follow(&restarter, server.poll.registry())?;
    std::mem::take(&mut server.touched).into_iter().for_each(|number| server.drive(number));

    // The reader of this may be gone by the time of a later generation.
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());
    when_it_serves();
    server.run(&mut restarter, &mut signals)
}

struct Server {
    poll: Poll,
    /// The listener: open as long as this process takes clients in.
    gate: Gate<TcpListener>,
    /// A connection was left in the queue because accepting it failed.
    accept_failed: bool,
    /// By their numbers, which are their tokens. No number is used twice, in no generation.
    connections: BTreeMap<usize, Connection>,
    next_number: usize,
    /// While connections go ahead: those with lower numbers have.
    ahead: Option<(Precopy, usize)>,
    /// What was told of before this process might look at it.
    touched: BTreeSet<usize>,
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
            connections: BTreeMap::new(),
            next_number: 0,
            ahead: None,
            touched: BTreeSet::new(),
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
                    Token(number) if self.frozen => drop(self.touched.insert(number)), // until it thaws
                    Token(number) => self.drive(number),
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
            // What goes wrong in the first three comes back as `Failed`.
            Event::PrecopyRequested(precopy) => {
                self.ahead = Some((precopy, 0));
                let _ = self.give_ahead();
            }
            Event::PrecopyRoom => drop(self.give_ahead()),
            Event::StateRequested(handover) => {
                self.frozen = true;
                let _ = self.save(handover);
            }
            Event::Failed(_) => self.thaw(),
            // The connections have ended with the successor: what it has read of them is nowhere else.
            Event::Resumed(_) => self.let_go()?,
            Event::Completed(_) => {
                self.let_go()?;
                self.begin_to_drain()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives connections ahead, as many as there is room for, and serves them.
    fn give_ahead(&mut self) -> io::Result<()> {
        let Some((precopy, reached)) = &mut self.ahead else { return Ok(()) };
        let some: Vec<_> = self.connections.range(*reached..).take(precopy.room()).collect();
        *reached = some.last().map_or(*reached, |(number, _)| *number + 1);
        precopy.fds(some.into_iter().map(named))?;
        if self.connections.range(*reached..).next().is_none() {
            precopy.complete();
        }
        Ok(())
    }

    /// Gives what has not gone ahead, and of those that are not idle what is in their buffers.
    fn save(&mut self, mut handover: Handover) -> io::Result<()> {
        let reached = self.ahead.take().map_or(0, |(_, reached)| reached);
        handover.fds(self.connections.range(reached..).map(named))?;
        let mut buffers = Vec::new();
        for (number, connection) in &self.connections {
            if let Some(saved) = connection.save() {
                buffers.extend((*number as u64).to_le_bytes());
                buffers.extend((saved.len() as u64).to_le_bytes());
                buffers.extend(saved);
            }
        }
        handover.bytes(BUFFERS, &buffers)?;
        handover.send();
        Ok(())
    }

    /// Takes the connections ahead, and what is left when the predecessor has frozen.
    fn receive(&mut self, predecessor: &Predecessor) -> io::Result<Inheritance> {
        if predecessor.receive_precopy(COPY_LIMIT, |arrival| self.arrive(arrival))? {
            // What has come while connections went ahead: the first poll need not go through all that.
            let mut sweep = Sweep::default();
            sweep.look(&mut self.poll)?;
            let readable = sweep.into_iter().filter(|event| event.is_readable());
            self.touched = readable.map(|event| event.token().0).collect();
        }
        Ok(predecessor.receive_each(STATE_LIMIT, |arrival| self.arrive(arrival))?)
    }

    /// A connection is registered as it comes. What comes for it is found after the grant.
    fn arrive(&mut self, arrival: Arrival) -> io::Result<()> {
        let number_of = |name: &str| {
            let number = name.strip_prefix(CONNECTION).and_then(|number| number.parse::<usize>().ok());
            number.ok_or_else(|| io::Error::other(format!("{name:?} is no connection")))
        };
        match arrival {
            Arrival::Gone(name) => self.close(number_of(&name)?),
            Arrival::Given(name, descriptor) => {
                let number = number_of(&name)?;
                let mut connection = Connection::new(TcpStream::from_std(descriptor.into()));
                self.poll.registry().register(&mut connection.stream, Token(number), BOTH)?;
                self.connections.insert(number, connection);
                self.next_number = self.next_number.max(number + 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_over(&mut self, mut from: Inheritance) -> io::Result<()> {
        let buffers = from.bytes(BUFFERS)?.ok_or(io::ErrorKind::InvalidData)?;
        let mut rest = buffers.as_slice();
        while let Some((head, behind)) = rest.split_first_chunk::<16>() {
            let [number, length] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|index| head[at + index])) as usize);
            let (saved, behind) = behind.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
            self.connections.get_mut(&number).ok_or(io::ErrorKind::InvalidData)?.load(saved)?;
            self.touched.insert(number);
            rest = behind;
        }
        Ok(())
    }

    /// Goes on where it stopped.
    fn thaw(&mut self) {
        self.ahead = None;
        self.frozen = false;
        std::mem::take(&mut self.touched).into_iter().for_each(|number| self.drive(number));
    }

    /// They are the successor's, or gone with it. Like the listener they leave the epoll first.
    fn let_go(&mut self) -> io::Result<()> {
        self.frozen = false;
        self.touched.clear();
        for mut connection in std::mem::take(&mut self.connections).into_values() {
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
            match self.poll.registry().register(&mut stream, Token(self.next_number), BOTH) {
                Ok(()) => {
                    self.connections.insert(self.next_number, Connection::new(stream));
                    self.next_number += 1;
                }
                Err(error) => log::warn!("cannot watch a connection: {error}"),
            }
        }
    }

    fn drive(&mut self, number: usize) {
        // An event may be left of a connection that is closed.
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let last = self.draining_since.is_some();
        let fate = connection.drive(&self.text, last).unwrap_or_else(|error| {
            log::debug!("a connection ended: {error}");
            Fate::Close
        });
        if fate == Fate::Close {
            self.close(number);
        }
    }

    /// Another process may have it too. So it leaves the poll first, which would go on to tell of it,
    /// and is shut down, or its client would not learn of the end.
    fn close(&mut self, number: usize) {
        let Some(mut connection) = self.connections.remove(&number) else { return };
        if let Err(error) = self.poll.registry().deregister(&mut connection.stream) {
            log::warn!("a connection that is closed is still watched: {error}");
        }
        hang_up(&connection.stream);
        if let Some((precopy, _)) = &mut self.ahead {
            precopy.gone(&name(number));
        }
    }

    /// Closes what was told to close and does not, and, while draining, what has been idle too long.
    fn tick(&mut self, now: Instant) {
        if self.accept_failed {
            self.accept();
        }
        let mut overdue = Vec::new();
        for (number, connection) in &self.connections {
            let limit = match (connection.is_lingering(), self.draining_since) {
                (true, _) => connection.last_moved + LINGER,
                (false, Some(since)) => connection.last_moved.max(since) + self.drain,
                (false, None) => continue,
            };
            if limit <= now {
                overdue.push(*number);
            }
        }
        for number in overdue {
            // A request may have come in this very moment: it is answered, and told to close.
            self.drive(number);
            if self.connections.get(&number).is_some_and(|connection| connection.last_moved < now) {
                self.close(number);
            }
        }
    }
}

/// How it is handed over.
fn named<'a>((number, connection): (&usize, &'a Connection)) -> (String, &'a TcpStream) {
    (name(*number), &connection.stream)
}

fn name(number: usize) -> String {
    format!("{CONNECTION}{number}")
}
