//! A service with two sockets of systemd, "web" and "admin", taken in one of two ways.
//!
//!     cargo build --example socket_activation
//!     systemd-socket-activate -l 8001 -l 8002 --fdname=web:admin target/debug/examples/socket_activation
//!     cat </dev/tcp/127.0.0.1/8001                     # web pid 4711 generation 0
//!     kill -USR1 4711                                  # the same sockets, a new process
//!
//! By name, from the `Sockets` of this crate: without systemd they are bound here, at the addresses
//! given. Or with `--listenfd` by the library of that name, as a program might have done before it
//! knew this crate: by number then, so that the order in the socket unit matters.
//!
//! The units to go with it are in `examples/systemd`.

use lexopt::{Arg, Parser, ValueExt};
use listenfd::ListenFd;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use pollflip::{Event, RestartConfig, Restarter};
use signal_hook_mio::v1_0::Signals;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::{self, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{self, ExitCode};

const HELP: &str = "\
A service with two sockets, web and admin, from systemd or its own.

usage: socket_activation [--web ADDRESS] [--admin ADDRESS] [--listenfd] [--socket PATH] [--pid-file PATH]

  --web ADDRESS    where to serve if systemd passes no socket of that name (127.0.0.1:8001)
  --admin ADDRESS  likewise (127.0.0.1:8002)
  --listenfd       take the first two sockets of systemd by number instead
  --socket PATH    the coordination socket (none: restart with SIGUSR1)
  --pid-file PATH  names the process that serves (none)";

const NAMES: [&str; 2] = ["web", "admin"];
const RESTARTER: Token = Token(NAMES.len());
const SIGNALS: Token = Token(NAMES.len() + 1);

fn main() -> ExitCode {
    // Before there is a second thread, and only since `listenfd` reads the environment by itself.
    let result = pollflip::fixup_systemd_env().map_err(Into::into).and_then(|()| serve());
    if let Err(error) = result {
        eprintln!("socket_activation: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::parse()? else {
        return Ok(writeln!(io::stdout(), "{HELP}")?);
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let mut config = RestartConfig::new();
    if let Some(path) = &options.socket {
        config = config.coordination_socket(path);
    }
    if let Some(path) = &options.pid_file {
        config = config.pid_file(path);
    }
    let mut restarter = config.build()?;
    if let Some(predecessor) = restarter.predecessor() {
        predecessor.progress("taking the sockets");
    }
    let sockets = if options.listenfd { by_listenfd()? } else { by_name(&mut restarter, options.addresses)? };
    run(&mut restarter, sockets.map(TcpListener::from_std))
}

/// From the predecessor if there is one, else from systemd, else bound here.
fn by_name(restarter: &mut Restarter, addresses: [SocketAddr; 2]) -> Result<[net::TcpListener; 2], pollflip::Error> {
    let [web, admin] = addresses;
    let sockets = restarter.sockets();
    Ok([sockets.tcp_listener(NAMES[0], web)?, sockets.tcp_listener(NAMES[1], admin)?])
}

/// `Sockets` is not used at all: what systemd passed then stays where it is, in every generation.
fn by_listenfd() -> Result<[net::TcpListener; 2], Box<dyn Error>> {
    let mut passed = ListenFd::from_env();
    let mut take = |number| -> Result<_, Box<dyn Error>> {
        let socket = passed.take_tcp_listener(number)?.ok_or("systemd has passed fewer than two sockets")?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    Ok([take(0)?, take(1)?])
}

fn run(restarter: &mut Restarter, mut listeners: [TcpListener; 2]) -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let mut signals = Signals::new([signal_hook::consts::SIGTERM])?;
    for (token, listener) in listeners.iter_mut().enumerate() {
        poll.registry().register(listener, Token(token), Interest::READABLE)?;
    }
    poll.registry().register(restarter, RESTARTER, Interest::READABLE)?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    restarter.ready()?;

    let text = format!("pid {} generation {}\n", process::id(), restarter.generation());
    let mut accepting = true;
    let mut events = Events::with_capacity(64);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                RESTARTER => {
                    while let Some(event) = restarter.poll() {
                        match event {
                            Event::HandedOff(_) => {
                                accepting = false;
                                for listener in &mut listeners {
                                    poll.registry().deregister(listener)?;
                                }
                            }
                            // Each connection has been answered and closed at once: nothing is left to finish.
                            Event::Completed(_) => return Ok(()),
                            _ => {}
                        }
                    }
                }
                SIGNALS => {
                    restarter.stop();
                    return Ok(());
                }
                Token(number) if accepting => answer(&listeners[number], NAMES[number], &text),
                _ => {}
            }
        }
    }
}

fn answer(listener: &TcpListener, name: &str, text: &str) {
    loop {
        match listener.accept() {
            // A line that short fits in the socket's buffer. Who has gone does not want it.
            Ok((mut stream, _)) => drop(stream.write_all(format!("{name} {text}").as_bytes())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return log::warn!("cannot accept on {name}: {error}"),
        }
    }
}

struct Options {
    addresses: [SocketAddr; 2],
    listenfd: bool,
    socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl Options {
    /// `None`: help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let addresses = [8001, 8002].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut options = Self { addresses, listenfd: false, socket: None, pid_file: None };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("web") => options.addresses[0] = arguments.value()?.parse()?,
                Arg::Long("admin") => options.addresses[1] = arguments.value()?.parse()?,
                Arg::Long("listenfd") => options.listenfd = true,
                Arg::Long("socket") => options.socket = Some(arguments.value()?.into()),
                Arg::Long("pid-file") => options.pid_file = Some(arguments.value()?.into()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}
