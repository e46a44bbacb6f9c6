//! A TCP proxy that can be replaced under its connections.
//!
//!     cargo run --example tcp_proxy -- --listen 127.0.0.1:7000 --to 127.0.0.1:8080 --socket proxy.sock
//!     kill -USR1 PID
//!
//! After a restart the new process takes what comes in, and the old one keeps the connections that it has until they end
//! by themselves, since nobody but the two ends knows where a request stops. Each pair of connections holds a
//! `ShutdownHandle`; the `Shutdown` is registered in the loop beside the sockets and becomes readable when the last pair is
//! gone. What has not ended within the time limit is cut.

use lexopt::{Arg, Parser, ValueExt};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::{Event, Gate, RestartConfig, Restarter, Shutdown, ShutdownCoordinator, ShutdownHandle};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

const HELP: &str = "\
Passes TCP connections on to a server, and can be restarted without dropping one.

usage: tcp_proxy --to ADDRESS [OPTIONS]
  --listen ADDRESS  take connections in here (127.0.0.1:7000); port 0 is any
  --to ADDRESS      and pass them on to the server there
  --drain SECONDS   after a restart, how long the old process keeps its connections (60)
  --socket PATH     coordination socket (none: restart with SIGUSR1)

SIGTERM and SIGINT end it when its connections have ended, or at once if asked twice.
The exit status is 0 for success, 1 for failure, 2 for wrong usage. RUST_LOG=debug shows more.";

const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);
const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);
const SIGNALS: Token = Token(usize::MAX - 3);
const DRAINED: Token = Token(usize::MAX - 4);

/// How many reads and writes one connection may have before others have their turn.
const TURN: usize = 32;

const SIGINT: i32 = signal_hook::consts::SIGINT;
const SIGTERM: i32 = signal_hook::consts::SIGTERM;

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = writeln!(io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("tcp_proxy: {error} (see --help)");
            return ExitCode::from(2);
        }
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> io::Result<()> {
    let mut config = RestartConfig::new();
    if let Some(path) = &options.socket {
        config = config.coordination_socket(path);
    }
    let mut restarter = config.build()?;
    // From the predecessor if there is one, else bound here.
    let listener = restarter.sockets().tcp_listener("proxy", options.listen)?;
    let address = listener.local_addr()?;
    let mut proxy = Proxy::new(listener, options)?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    proxy.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    proxy.poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    // From here on the predecessor may leave. An error means that it stays, without us.
    restarter.ready()?;
    proxy.gate.follow(&restarter, proxy.poll.registry())?;

    // Nobody may be reading: no reason to end.
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());
    proxy.run(&mut restarter, &mut signals)
}

struct Proxy {
    poll: Poll,
    options: Options,
    /// The listener: open as long as this process takes clients in.
    gate: Gate<TcpListener>,
    /// The two streams of a pair have the tokens `2 * key` and `2 * key + 1`.
    pairs: Slab<Pair>,
    /// Gone once the shutdown has begun.
    coordinator: Option<ShutdownCoordinator>,
    /// What is waited for then, and until when.
    draining: Option<(Shutdown, Instant)>,
}

impl Proxy {
    fn new(listener: net::TcpListener, options: Options) -> io::Result<Proxy> {
        Ok(Proxy {
            poll: Poll::new()?,
            options,
            gate: Gate::new(TcpListener::from_std(listener), LISTENER),
            pairs: Slab::new(),
            coordinator: Some(ShutdownCoordinator::new()),
            draining: None,
        })
    }

    fn run(&mut self, restarter: &mut Restarter, signals: &mut Signals) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let mut timeout = None;
            if let Some((shutdown, until)) = &self.draining {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    log::warn!("{} connections have not ended in time and are cut", shutdown.remaining());
                    return Ok(());
                }
                timeout = Some(left);
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    RESTARTER => {
                        // The restarter itself has logged what went wrong, if anything did.
                        while let Some(event) = restarter.poll() {
                            self.gate.follow(restarter, self.poll.registry())?;
                            if let Event::Completed(_) = event {
                                self.drain()?;
                            }
                        }
                    }
                    SIGNALS => {
                        for _ in signals.pending() {
                            if self.draining.is_some() {
                                return Ok(());
                            }
                            restarter.stop();
                            self.accept(); // nobody else will take what is in the queue
                            self.drain()?;
                        }
                    }
                    DRAINED => return Ok(()),
                    Token(token) => self.pass_on(token / 2),
                }
            }
        }
    }

    /// No new connections, and the old ones until they end.
    fn drain(&mut self) -> io::Result<()> {
        self.gate.close(self.poll.registry())?;
        if let Some(coordinator) = self.coordinator.take() {
            let mut shutdown = coordinator.shutdown();
            log::info!("{} connections left", shutdown.remaining());
            // Readable when the last handle is dropped, which may be now.
            self.poll.registry().register(&mut shutdown, DRAINED, Interest::READABLE)?;
            self.draining = Some((shutdown, Instant::now() + self.options.drain));
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Some(coordinator) = &self.coordinator {
            let client = match self.gate.accept() {
                Ok(Some((client, _))) => client,
                Ok(None) => return,
                // No descriptors left, most likely: `pass_on` tries again when one is free.
                Err(error) => return log::warn!("cannot accept now: {error}"),
            };
            let entry = self.pairs.vacant_entry();
            match Pair::new(client, self.options.to, coordinator.handle(), &self.poll, entry.key()) {
                Ok(pair) => drop(entry.insert(pair)),
                Err(error) => log::warn!("cannot pass a connection on to {}: {error}", self.options.to),
            }
        }
    }

    fn pass_on(&mut self, key: usize) {
        // The event may be older than the pair that has this key by now: that does no harm.
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let going_on = pair.pass_on(self.poll.registry(), key).unwrap_or_else(|error| {
            log::debug!("a connection ended: {error}");
            false
        });
        if !going_on {
            self.pairs.remove(key);
            self.accept(); // there will be no event for who had to wait for a free descriptor
        }
    }
}

/// A client's connection, and the one to the server that belongs to it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    to_server: Direction,
    to_client: Direction,
    /// What the shutdown waits for.
    _handle: ShutdownHandle,
}

impl Pair {
    fn new(mut client: TcpStream, to: SocketAddr, handle: ShutdownHandle, poll: &Poll, key: usize) -> io::Result<Pair> {
        let mut server = TcpStream::connect(to)?;
        for (stream, token) in [(&mut client, 2 * key), (&mut server, 2 * key + 1)] {
            stream.set_nodelay(true)?; // what one side has sent, the other need not wait for
            poll.registry().register(stream, Token(token), INTEREST)?;
        }
        Ok(Pair { client, server, to_server: Direction::default(), to_client: Direction::default(), _handle: handle })
    }

    /// False once both sides have said all that they have to say.
    fn pass_on(&mut self, registry: &Registry, key: usize) -> io::Result<bool> {
        let mut more = self.to_server.pass_on(&mut self.client, &mut self.server)?;
        more |= self.to_client.pass_on(&mut self.server, &mut self.client)?;
        if more {
            // Asked for once more, what is ready is told once more: in the next turn of the loop.
            registry.reregister(&mut self.client, Token(2 * key), INTEREST)?;
            registry.reregister(&mut self.server, Token(2 * key + 1), INTEREST)?;
        }
        Ok(!(self.to_server.shut && self.to_client.shut))
    }
}

#[derive(Default)]
struct Direction {
    /// Read and not yet written.
    waiting: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// The other side knows that.
    shut: bool,
}

impl Direction {
    /// Moves bytes until a stream refuses a read or a write, as edge-triggered readiness demands, or others have waited for
    /// long enough: true then. Reads on only when all is written, so that one who does not read cannot fill the memory.
    fn pass_on(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        for _ in 0..TURN {
            let result = if !self.waiting.is_empty() {
                to.write(&self.waiting).map(|length| drop(self.waiting.drain(..length)))
            } else if self.ended {
                if !self.shut {
                    if to.peer_addr().is_err() {
                        // Not connected yet, and this would end the try; or not any more.
                        return to.take_error()?.map_or(Ok(false), Err);
                    }
                    to.shutdown(net::Shutdown::Write)?;
                    self.shut = true;
                }
                return Ok(false);
            } else {
                from.read(&mut chunk).map(|length| {
                    self.waiting.extend_from_slice(&chunk[..length]);
                    self.ended = length == 0;
                })
            };
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }
}

struct Options {
    listen: SocketAddr,
    to: SocketAddr,
    drain: Duration,
    socket: Option<PathBuf>,
}

impl Options {
    /// `None`: help is wanted.
    fn parse() -> Result<Option<Options>, lexopt::Error> {
        let (mut listen, mut to) = (SocketAddr::from(([127, 0, 0, 1], 7000)), None);
        let (mut drain, mut socket) = (60.0, None);
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("listen") => listen = arguments.value()?.parse()?,
                Arg::Long("to") => to = Some(arguments.value()?.parse()?),
                Arg::Long("drain") => drain = arguments.value()?.parse::<f64>()?,
                Arg::Long("socket") => socket = Some(arguments.value()?.into()),
                other => return Err(other.unexpected()),
            }
        }
        if !(0.0..=86400.0).contains(&drain) {
            return Err("a time is given in seconds, from 0 to 86400".into());
        }
        let to = to.ok_or("--to says where the server is, and is missing")?;
        Ok(Some(Options { listen, to, drain: Duration::from_secs_f64(drain), socket }))
    }
}
