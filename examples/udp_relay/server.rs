//! The server: it answers the flows that it knows, and relays what it does not know to the process before it.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::time::{ClockId, clock_gettime};
use pollflip::{Event, RestartConfig, Restarter};

use crate::protocol::{BEGIN, DATA, REPORT, UNKNOWN};
use crate::relay::{self, PACKET, Sender};

/// How many datagrams are read in one turn, which is then at an end however many there are: a flood must not keep the restarter waiting.
const TURN: usize = 64;

pub(crate) fn serve(listen: SocketAddr, coordination: &str) -> io::Result<()> {
    let mut restarter = RestartConfig::new().max_draining(0).coordination_socket(coordination).build()?;
    let socket = restarter.sockets().udp_socket("flows", listen)?;
    // Both ends go from one generation to the next. Two use the pair at a time: the one that serves writes, and the one before it reads.
    let mut made = None;
    let one: OwnedFd = restarter.sockets().or_insert_with("relay 0", || {
        let (one, other) = relay::pair()?;
        made = Some(other);
        Ok(one)
    })?;
    let other: OwnedFd = restarter.sockets().or_insert_with("relay 1", || made.take().ok_or_else(|| ErrorKind::NotFound.into()))?;
    let mut server = Server {
        socket,
        flows: HashSet::new(),
        older: Sender::new(one),
        newer: other,
        has_older: restarter.predecessor().is_some(),
        is_old: false,
        answered: 0,
        longest: Turn::default(),
    };
    restarter.ready()?;
    let _ = writeln!(io::stdout(), "listening on {}, pid {}", server.socket.local_addr()?, process::id());
    server.run(&mut restarter)
}

struct Server {
    socket: UdpSocket,
    flows: HashSet<(SocketAddr, u8)>,
    /// To the process before this one,
    older: Sender,
    /// and the end on which the process after this one is heard.
    newer: OwnedFd,
    has_older: bool,
    /// The socket is the successor's to read.
    is_old: bool,
    answered: u64,
    longest: Turn,
}

impl Server {
    fn run(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let mut buffer = vec![0; PACKET];
        loop {
            // A process that is replaced leaves the socket to its successor, and hears of its flows from that.
            let flows = if self.is_old { self.newer.as_fd() } else { self.socket.as_fd() };
            poll(&mut [PollFd::new(flows, PollFlags::POLLIN), PollFd::new(restarter.as_fd(), PollFlags::POLLIN)], 1000_u16)?;
            let turn = Stopwatch::start();
            while let Some(event) = restarter.poll() {
                match event {
                    Event::HandedOff(_) => self.is_old = true,
                    Event::Resumed(_) => self.is_old = false,
                    Event::PredecessorGone => self.has_older = false,
                    Event::Completed(_) if self.flows.is_empty() => return Ok(()),
                    _ => {}
                }
            }
            // What is left is there in the next turn: `poll` says so again.
            if self.is_old {
                let length = relay::receive(&self.newer, &mut buffer);
                for (client, datagram) in relay::unpack(&buffer[..length]) {
                    self.answer(client, datagram);
                }
            } else {
                for _ in 0..TURN {
                    let Ok((length, client)) = self.socket.recv_from(&mut buffer) else { break };
                    self.answer(client, &buffer[..length]);
                }
                self.older.flush();
            }
            self.longest = self.longest.max(turn.stop());
        }
    }

    fn answer(&mut self, client: SocketAddr, datagram: &[u8]) {
        let (kind, flow) = match datagram {
            [kind, flow, ..] => (*kind, *flow),
            _ => return,
        };
        let text = match kind {
            BEGIN => {
                self.flows.insert((client, flow));
                process::id().to_string()
            }
            DATA if self.flows.contains(&(client, flow)) => {
                self.answered += 1;
                format!("{} {}", process::id(), self.answered)
            }
            DATA if self.has_older && !self.is_old => return self.older.push(client, datagram),
            REPORT => {
                self.older.flush();
                let Turn { lasted, worked } = std::mem::take(&mut self.longest);
                let refusal = self.older.refusal();
                format!("{} {} {} {}", self.older.dropped(), refusal.as_nanos(), lasted.as_micros(), worked.as_micros())
            }
            _ => return self.send(UNKNOWN, "", client),
        };
        self.send(kind, &text, client);
    }

    fn send(&self, kind: u8, text: &str, client: SocketAddr) {
        let _ = self.socket.send_to(format!("{}{text}", char::from(kind)).as_bytes(), client);
    }
}

/// A turn of the loop.
#[derive(Clone, Copy, Default)]
struct Turn {
    lasted: Duration,
    /// The time of the processor: without what the machine gave to other processes meanwhile.
    worked: Duration,
}

impl Turn {
    fn max(self, other: Turn) -> Turn {
        Turn { lasted: self.lasted.max(other.lasted), worked: self.worked.max(other.worked) }
    }
}

struct Stopwatch {
    begun: Instant,
    worked: Duration,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { begun: Instant::now(), worked: worked() }
    }

    fn stop(&self) -> Turn {
        Turn { lasted: self.begun.elapsed(), worked: worked().saturating_sub(self.worked) }
    }
}

fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
