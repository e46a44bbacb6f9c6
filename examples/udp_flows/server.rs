//! The server: it answers flows that it knows, begins new ones, and after a restart goes on until its own have ended.
//!
//! With `--keep`, under a guard or systemd, it comes back from a kill with the same mark. What it knew of its flows is lost then, and
//! their clients are told; those of earlier generations notice nothing.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser, ValueExt};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};
use pollflip::{Event, RestartConfig, Restarter, UdpGroup};
use signal_hook::consts::SIGTERM;
use signal_hook_mio::v1_0::Signals;

use super::protocol::{BEGIN, DATA, Datagram, END, MARK, UNKNOWN};

const FLOWS: Token = Token(0);
const RESTARTER: Token = Token(1);
const SIGNALS: Token = Token(2);

/// In bytes: for one datagram of each client while this process has no time. The usual 208 KiB have room for some 200 of the smallest;
/// the kernel gives twice what it is asked for, of which `net.core.rmem_max` is the most.
const ROOM: usize = 1 << 20;
/// So long a process that was replaced waits for the end of its flows.
const DRAIN: Duration = Duration::from_secs(30);

pub(crate) struct Options {
    listen: SocketAddr,
    socket: PathBuf,
    keeps: bool,
}

impl Options {
    pub(crate) fn parse(parser: &mut Parser) -> Result<Self, lexopt::Error> {
        let (mut listen, mut socket, mut keeps) = (SocketAddr::from(([127, 0, 0, 1], 0)), PathBuf::from("udp_flows.sock"), false);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("listen") => listen = parser.value()?.parse()?,
                Arg::Long("keep") => keeps = true,
                Arg::Long("socket") => socket = parser.value()?.into(),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Self { listen, socket, keeps })
    }
}

struct Server {
    group: UdpGroup,
    socket: UdpSocket,
    /// By the addresses of the clients and their own numbers.
    flows: HashSet<(SocketAddr, u32)>,
    /// When this process was replaced, or told to end.
    drains_since: Option<Instant>,
}

pub(crate) fn serve(options: &Options) -> io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let mut poll = Poll::new()?;
    let mut restarter = RestartConfig::new().coordination_socket(&options.socket).keep(options.keeps).build()?;
    let group = restarter.sockets().udp_group("flows", options.listen, MARK)?;
    let socket = UdpSocket::from_std(group.socket()?);
    setsockopt(&socket, sockopt::RcvBuf, &ROOM)?;
    let address = socket.local_addr()?;
    let mut server = Server { group, socket, flows: HashSet::new(), drains_since: None };
    let mut signals = Signals::new([SIGTERM])?;
    poll.registry().register(&mut server.socket, FLOWS, Interest::READABLE)?;
    poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    restarter.ready()?; // from here on new flows come to this process
    let _ = writeln!(io::stdout(), "listening on {address}, pid {}", std::process::id());

    let mut events = Events::with_capacity(64);
    while !server.is_done() {
        let limit = server.drains_since.map(|since| DRAIN.saturating_sub(since.elapsed()));
        match poll.poll(&mut events, limit) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            server.on_event(&event);
        }
        if signals.pending().next().is_some() {
            server.end(&mut restarter);
        }
        server.answer_all()?;
    }
    Ok(())
}

impl Server {
    fn on_event(&mut self, event: &Event) {
        // At `HandedOff` there is nothing to do: this process goes on with the flows that it has begun.
        if let Event::Completed(_) = event {
            self.drains_since = Some(Instant::now());
        }
    }

    /// There is no successor: its flows are not waited for.
    fn end(&mut self, restarter: &mut Restarter) {
        restarter.stop();
        self.drains_since = Some(Instant::now());
        self.flows.clear();
    }

    fn is_done(&self) -> bool {
        self.drains_since.is_some_and(|since| self.flows.is_empty() || since.elapsed() >= DRAIN)
    }

    /// What has come to this process, then what others have left unread. Readiness is told once: all of it is read.
    fn answer_all(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1500];
        loop {
            let received = match self.socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.group.recv_orphaned(&mut buffer),
                received => received,
            };
            match received {
                Ok((length, client)) => self.answer(&buffer[..length], client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], client: SocketAddr) {
        let Some(asked) = Datagram::decode(bytes) else { return };
        let flow = (client, asked.flow);
        let is_known = match asked.kind {
            BEGIN => {
                self.flows.insert(flow);
                true
            }
            DATA => self.flows.contains(&flow),
            END => self.flows.remove(&flow),
            _ => return,
        };
        let kind = if is_known { asked.kind } else { UNKNOWN };
        let answer = Datagram { mark: self.group.mark(), kind, pid: std::process::id(), ..asked };
        // What the kernel does not take is lost, as any datagram can be.
        let _ = self.socket.send_to(&answer.encode(), client);
    }
}
