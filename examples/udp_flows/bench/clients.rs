//! The clients: each has one flow at a time, and one datagram on its way.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::protocol::{BEGIN, DATA, Datagram, END, UNKNOWN};

/// Several flows share an address, so that several generations answer to it.
const SOCKETS: usize = 8;
/// How long a datagram is waited for until it counts as lost.
const LOST: Duration = Duration::from_secs(5);
/// How long a client waits between an answer and its next datagram.
const PACE: Duration = Duration::from_millis(10);
/// How many datagrams a flow has, at least; up to four times as many.
const LENGTH: u32 = 40;
const WAIT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub answered: u64,
    pub lost: u64,
    pub misrouted: u64,
    pub begun_anew: u64,
}

pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Flows that a server has begun.
    begun: AtomicU64,
    tally: Mutex<Tally>,
}

struct Flow {
    number: u32,
    sent: u32,
    length: u32,
    /// The process that has begun it, and its mark.
    owner: Option<(u32, u8)>,
    waits_since: Option<Instant>,
    due: Instant,
}

impl Clients {
    pub fn start(to: SocketAddr, flows: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for index in 0..SOCKETS.min(flows) {
            let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" })?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            let share = (flows - index).div_ceil(SOCKETS);
            let shared = shared.clone();
            threads.push(thread::spawn(move || talk(&socket, share, &shared)));
        }
        Ok(Self { shared, threads })
    }

    /// Until so many more flows have begun.
    pub fn wait_for_flows(&self, count: u64) -> Result<(), String> {
        let wanted = self.shared.begun.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + WAIT_LIMIT;
        while self.shared.begun.load(Ordering::Relaxed) < wanted {
            if Instant::now() > deadline {
                return Err("the server does not answer".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn stop(self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.shared.tally.lock().map(|tally| *tally).unwrap_or_default()
    }
}

/// The flows of one address, until all have been told to stop and have their last answer.
fn talk(socket: &UdpSocket, flows: usize, shared: &Shared) {
    let mut tally = Tally::default();
    let mut next = 0_u32;
    let mut begin = || {
        next += 1;
        let length = LENGTH + next.wrapping_mul(2_654_435_761) % (3 * LENGTH);
        Flow { number: next, sent: 0, length, owner: None, waits_since: None, due: Instant::now() }
    };
    let mut all: VecDeque<Flow> = (0..flows).map(|_| begin()).collect();
    let mut buffer = [0; 64];
    while !all.is_empty() {
        let stops = shared.stop.load(Ordering::Relaxed);
        if stops {
            // One that has not begun need not be ended.
            all.retain(|flow| flow.sent > 0);
        }
        for flow in &mut all {
            match flow.waits_since {
                Some(since) if since.elapsed() > LOST => {
                    tally.lost += 1;
                    eprintln!("lost, with no answer in {} s: {}", LOST.as_secs(), flow.last(socket));
                    *flow = begin();
                }
                None if flow.due <= Instant::now() || stops => {
                    if stops {
                        flow.length = flow.sent.min(flow.length);
                    }
                    flow.send(socket);
                }
                _ => {}
            }
        }
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            // Nobody is there: its datagram counts as lost in time.
            Err(_) => continue,
        };
        let Some(answer) = Datagram::decode(&buffer[..length]) else { continue };
        let Some(flow) = all.iter_mut().find(|flow| flow.number == answer.flow && flow.waits_since.is_some()) else { continue };
        if flow.sent != answer.number {
            continue;
        }
        flow.waits_since = None;
        flow.due = Instant::now() + PACE;
        tally.answered += 1;
        shared.begun.fetch_add(u64::from(flow.owner.is_none()), Ordering::Relaxed);
        let (pid, mark) = *flow.owner.get_or_insert((answer.pid, answer.mark));
        if answer.kind == UNKNOWN {
            tally.begun_anew += 1;
        } else if (pid, mark) != (answer.pid, answer.mark) {
            tally.misrouted += 1;
        }
        let is_over = answer.kind == UNKNOWN || flow.sent > flow.length;
        match all.iter().position(|flow| flow.number == answer.flow).filter(|_| is_over) {
            Some(at) if stops => drop(all.remove(at)),
            Some(at) => all[at] = begin(),
            None => {}
        }
    }
    if let Ok(mut all) = shared.tally.lock() {
        all.answered += tally.answered;
        all.lost += tally.lost;
        all.misrouted += tally.misrouted;
        all.begun_anew += tally.begun_anew;
    }
}

impl Flow {
    /// What was sent last, in words.
    fn last(&self, socket: &UdpSocket) -> String {
        let to = self.owner.map_or("the one that serves".into(), |(pid, mark)| format!("process {pid} by mark {mark}"));
        let from = socket.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
        format!("datagram {} of flow {} of {from}, to {to}", self.sent, self.number)
    }

    fn send(&mut self, socket: &UdpSocket) {
        self.sent += 1;
        let kind = match self.sent {
            1 => BEGIN,
            sent if sent > self.length => END,
            _ => DATA,
        };
        let mark = self.owner.map_or(0, |(_, mark)| mark);
        let datagram = Datagram { mark, kind, flow: self.number, number: self.sent, pid: 0 };
        // What is not taken is lost, and counted so when nobody has answered it.
        let _ = socket.send(&datagram.encode());
        self.waits_since = Some(Instant::now());
    }
}
