//! A TCP echo server that can be restarted, and the commands for its operator.
//!
//!     cargo run --example restarter                 # serves
//!     cargo run --example restarter -- restart      # replaces it, from another terminal
//!     cargo run --example restarter -- status --json
//!
//! Who connects (`nc 127.0.0.1 7000`) is greeted with the pid and the generation of the process that
//! serves it. That process serves it to its end: after a restart the old one accepts nothing new and
//! ends with its last connection. SIGTERM and Ctrl-C do the same without a successor; a second one
//! does not wait for the connections.

use lexopt::{Arg, Parser, ValueExt};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use pollflip::restart_coordination_socket::{Status, request_restart, request_status};
use pollflip::{Gate, RequestError, RestartConfig, Restarter};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{self, ExitCode};
use std::{env, error::Error, ffi::OsString, path::PathBuf, time::Duration};

const HELP: &str = "\
A TCP echo server that can be restarted without dropping a connection.

usage: restarter [--listen ADDRESS] [--socket PATH] [--probation SECONDS]
       restarter restart [--socket PATH] [--wait SECONDS]
       restarter status [--socket PATH] [--json]

  --listen ADDRESS     where to serve (127.0.0.1:7000)
  --socket PATH        the coordination socket (restarter.sock in $XDG_RUNTIME_DIR,
                       or else in the directory for temporary files)
  --probation SECONDS  serve again if the successor dies within this time (0)
  --wait SECONDS       for the outcome; longer than the server may take (90)
  --json               the status for a program to read

The exit status is 0 for success and 64 for wrong usage. Of `restart`: 1 it failed, 2 it was refused
(ask later), 5 no restart is possible (asking later does not help): in these cases the service keeps
serving; 3 nobody answers there; 4 no answer in time (it may yet succeed: ask for the status).
RUST_LOG=debug shows more.";

const LISTENER: Token = Token(usize::MAX - 1);
const RESTARTER: Token = Token(usize::MAX - 2);
const SIGNALS: Token = Token(usize::MAX - 3);
const STATUS_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if let Err(error) = run() {
        eprintln!("restarter: {error}");
        return ExitCode::from(exit_status(error.as_ref()));
    }
    ExitCode::SUCCESS
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::parse()?;
    match options.command {
        Command::Help => Ok(writeln!(io::stdout(), "{HELP}")?),
        Command::Serve => Ok(serve(&options)?),
        Command::Restart => restart(&options),
        Command::Status => status(&options),
    }
}

/// What deploy scripts tell the outcomes apart by: a part of the interface, see the help.
fn exit_status(error: &(dyn Error + 'static)) -> u8 {
    match error.downcast_ref::<RequestError>() {
        Some(error) => error.exit_status(),
        _ if error.is::<lexopt::Error>() => 64, // EX_USAGE: not to be taken for an outcome
        _ => 1,
    }
}

// --- for the operator ---

fn restart(options: &Options) -> Result<(), Box<dyn Error>> {
    let pid = request_restart(&options.socket, options.wait, |line| eprintln!("{line}"))?;
    let _ = writeln!(io::stdout(), "{pid}"); // it has succeeded, whether somebody reads it or not
    Ok(())
}

fn status(options: &Options) -> Result<(), Box<dyn Error>> {
    let status = request_status(&options.socket, STATUS_LIMIT)?;
    let text = if options.json { status.to_json() } else { describe(&status) };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn describe(status: &Status) -> String {
    let mut text = format!("process {}, generation {}: {}", status.pid, status.generation, status.state);
    if let Some(version) = &status.version {
        text += &format!("\nversion: {version}");
    }
    if !status.program.is_empty() {
        text += &format!("\nprogram: {}", status.program);
    }
    if let Some(pid) = status.successor {
        text += &format!("\nsuccessor: process {pid}");
    }
    for pid in &status.draining {
        text += &format!("\nfinishes its work: process {pid}");
    }
    if let Some(why) = &status.impossible {
        text += &format!("\nno restart is possible: {why}");
    }
    if let Some(line) = &status.progress {
        text += &format!("\nit says: {line}");
    }
    for note in &status.notes {
        text += &format!("\nnote: {note}");
    }
    for outcome in &status.outcomes {
        let how = if outcome.ok { "restarted" } else { "failed" };
        text += &format!("\n{how} after {} ms: {}", outcome.took_ms, outcome.text);
    }
    text
}

// --- the server ---

fn serve(options: &Options) -> io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let mut config = RestartConfig::new().coordination_socket(&options.socket);
    if let Some(time) = options.probation {
        config = config.probation(time);
    }
    let mut restarter = config.build()?;
    // From the predecessor if there is one, else bound here.
    let listener = restarter.sockets().tcp_listener("echo", options.listen)?;
    let address = listener.local_addr()?;
    let mut server = Server::new(TcpListener::from_std(listener), restarter.generation())?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let registry = server.poll.registry();
    registry.register(&mut signals, SIGNALS, Interest::READABLE)?;
    registry.register(&mut restarter, RESTARTER, Interest::READABLE)?;
    // From here on the predecessor may leave. An error means that it stays, without us.
    restarter.ready()?;
    server.gate.follow(&restarter, server.poll.registry())?;

    // Nobody may be reading: no reason to end.
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", process::id());
    server.run(&mut restarter, &mut signals)
}

struct Server {
    poll: Poll,
    /// The listener: open as long as this process takes clients in.
    gate: Gate<TcpListener>,
    connections: Slab<Connection>,
    stopped: bool,
    greeting: String,
}

impl Server {
    fn new(listener: TcpListener, generation: u32) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            gate: Gate::new(listener, LISTENER),
            connections: Slab::new(),
            stopped: false,
            greeting: format!("pid {} generation {generation}\n", process::id()),
        })
    }

    /// Until this process has given up its listener and served its last connection.
    fn run(&mut self, restarter: &mut Restarter, signals: &mut Signals) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while !self.gate.is_closed() || !self.connections.is_empty() {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    RESTARTER => {
                        // The restarter itself has logged what went wrong, if anything did.
                        while restarter.poll().is_some() {
                            self.gate.follow(restarter, self.poll.registry())?;
                        }
                    }
                    SIGNALS => {
                        for _ in signals.pending() {
                            if self.stopped {
                                return Ok(());
                            }
                            self.stop(restarter)?;
                        }
                    }
                    Token(key) => self.echo(key),
                }
            }
        }
        Ok(())
    }

    /// Ends without a successor.
    fn stop(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        self.stopped = true;
        restarter.stop();
        self.accept(); // nobody else will take what is in the queue
        self.gate.close(self.poll.registry())?;
        if !self.connections.is_empty() {
            eprintln!("restarter: waiting for {} connections; a second signal ends it now", self.connections.len());
        }
        Ok(())
    }

    fn accept(&mut self) {
        loop {
            let mut stream = match self.gate.accept() {
                Ok(Some((stream, _))) => stream,
                Ok(None) => return,
                // No descriptors left, most likely: `echo` tries again when one is free.
                Err(error) => return log::warn!("cannot accept now: {error}"),
            };
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            match self.poll.registry().register(&mut stream, Token(entry.key()), interest) {
                // It is writable at once, and so the greeting leaves with its first event.
                Ok(()) => {
                    entry.insert(Connection { stream, output: self.greeting.clone().into_bytes() });
                }
                Err(error) => log::warn!("cannot watch a connection: {error}"),
            }
        }
    }

    fn echo(&mut self, key: usize) {
        // The event may be older than the connection that has this key by now: that does no harm.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let going_on = connection.echo().unwrap_or_else(|error| {
            log::debug!("a connection ended: {error}");
            false
        });
        if !going_on {
            self.connections.remove(key);
            self.accept(); // there will be no event for who had to wait for a free descriptor
        }
    }
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
}

impl Connection {
    /// Moves bytes until the stream refuses a read or a write, as edge-triggered readiness demands.
    /// Reads on only when all is written, so that a client that does not read cannot fill the memory.
    /// False once the client has ended and has got everything back.
    fn echo(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            while !self.output.is_empty() {
                match self.stream.write(&self.output) {
                    Ok(length) => drop(self.output.drain(..length)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(length) => self.output.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

// --- the command line ---

struct Options {
    command: Command,
    listen: SocketAddr,
    socket: PathBuf,
    probation: Option<Duration>,
    wait: Duration,
    json: bool,
}

#[derive(PartialEq)]
enum Command {
    Help,
    Serve,
    Restart,
    Status,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        use Command::{Help, Restart, Serve, Status};
        let directory = env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map_or_else(env::temp_dir, PathBuf::from);
        let mut options = Self {
            command: Serve,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7000)),
            socket: directory.join("restarter.sock"),
            probation: None,
            wait: Duration::from_secs(90),
            json: false,
        };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Self { command: Help, ..options }),
                Arg::Value(word) if word == "restart" && options.command == Serve => options.command = Restart,
                Arg::Value(word) if word == "status" && options.command == Serve => options.command = Status,
                Arg::Long("socket") => options.socket = arguments.value()?.into(),
                Arg::Long("listen") if options.command == Serve => options.listen = arguments.value()?.parse()?,
                Arg::Long("probation") if options.command == Serve => options.probation = Some(seconds(arguments.value()?)?),
                Arg::Long("wait") if options.command == Restart => options.wait = seconds(arguments.value()?)?,
                Arg::Long("json") if options.command == Status => options.json = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

fn seconds(value: OsString) -> Result<Duration, lexopt::Error> {
    let number: f64 = value.parse()?;
    if !(0.0..=86400.0).contains(&number) {
        return Err("a time is given in seconds, from 0 to 86400".into());
    }
    Ok(Duration::from_secs_f64(number))
}
