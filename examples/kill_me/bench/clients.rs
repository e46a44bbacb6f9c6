//! The clients: each sends, waits for the answer, checks every byte of it, thinks, and sends again.

use crate::chain::Chain;
use crate::server::POISON;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest message.
const LONGEST: u64 = 2_000;
/// How long one of a thousand clients thinks at the most before it sends again. More of them think
/// longer: the load is that of some ten thousand messages a second, and no more.
const THOUGHT_MS: u64 = 200;
/// So often at least it is looked whether the clients are to stop.
const TURN: Duration = Duration::from_millis(20);
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of all clients.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) refused: u64,
    pub(crate) cut: u64,
    pub(crate) wrong: u64,
    pub(crate) bytes: u64,
    /// When each message was sent, and when the whole answer had come.
    pub(crate) answers: Vec<(Instant, Instant)>,
}

pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}

struct Client {
    stream: TcpStream,
    chain: Chain,
    unsent: Vec<u8>,
    expected: VecDeque<u8>,
    sent: Instant,
    has_answer: bool,
}

pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    /// How many have had an answer.
    answered: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<Tally>>,
}

impl Clients {
    /// Connects so many, and has them talk until they are told to stop.
    pub(crate) fn start(address: SocketAddr, count: usize, seed: u64) -> io::Result<Clients> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut crowd = Crowd::connect(address, count, seed)?;
        let (told, answered) = (Arc::clone(&stop), Arc::clone(&crowd.answered));
        let thread = thread::spawn(move || crowd.talk(&told).map(|()| crowd.tally));
        Ok(Clients { stop, answered, thread })
    }

    /// Waits until so many are live connections: the server has accepted them, and answered.
    pub(crate) fn wait_for(&self, count: usize) -> Result<(), String> {
        let started = Instant::now();
        while self.answered.load(Ordering::Relaxed) < count {
            if started.elapsed() > PATIENCE {
                return Err(format!("only {} of {count} clients have an answer", self.answered.load(Ordering::Relaxed)));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets each have its last answer.
    pub(crate) fn stop(self) -> io::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the clients have panicked")))
    }
}

struct Crowd {
    poll: Poll,
    clients: Vec<Option<Client>>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    dice: Dice,
    thought_ms: u64,
    tally: Tally,
    answered: Arc<AtomicUsize>,
}

impl Crowd {
    fn connect(address: SocketAddr, count: usize, seed: u64) -> io::Result<Crowd> {
        let poll = Poll::new()?;
        let (clients, due, dice, answered) = (Vec::new(), BinaryHeap::new(), Dice(seed | 1), Arc::default());
        let thought_ms = THOUGHT_MS.max(THOUGHT_MS * count as u64 / 1_000);
        let mut crowd = Crowd { poll, clients, due, dice, thought_ms, tally: Tally::default(), answered };
        for number in 0..count {
            let Ok(stream) = std::net::TcpStream::connect(address) else {
                crowd.tally.refused += 1;
                continue;
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            crowd.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            let now = Instant::now();
            let client =
                Client { stream, chain: Chain::START, unsent: Vec::new(), expected: VecDeque::new(), sent: now, has_answer: false };
            crowd.clients.resize_with(number, || None);
            crowd.clients.push(Some(client));
            crowd.think(number);
        }
        Ok(crowd)
    }

    fn think(&mut self, number: usize) {
        let thought = Duration::from_millis(self.dice.below(self.thought_ms));
        self.due.push(Reverse((Instant::now() + thought, number)));
    }

    fn talk(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut stopped = None;
        loop {
            if stopped.is_none() && stop.load(Ordering::Relaxed) {
                stopped = Some(Instant::now());
            }
            let waiting = |client: &&Client| !client.expected.is_empty();
            if let Some(since) = stopped {
                let waiting = self.clients.iter().flatten().filter(waiting).count();
                if waiting == 0 {
                    return Ok(());
                }
                if since.elapsed() > PATIENCE {
                    // They have no answer, and no end either.
                    self.tally.cut += waiting as u64;
                    return Ok(());
                }
            }
            let now = Instant::now();
            // Who is told to stop says no more.
            while let Some(Reverse((due, number))) = self.due.peek().copied().filter(|_| stopped.is_none())
                && due <= now
            {
                self.due.pop();
                self.speak(number);
            }
            let next = self.due.peek().filter(|_| stopped.is_none()).map_or(TURN, |Reverse((due, _))| due.saturating_duration_since(now));
            match self.poll.poll(&mut events, Some(next.min(TURN))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                self.write(event.token().0);
                self.listen(event.token().0);
            }
        }
    }

    fn speak(&mut self, number: usize) {
        let length = 1 + self.dice.below(LONGEST);
        let dice = &mut self.dice;
        let Some(Some(client)) = self.clients.get_mut(number) else { return };
        client.unsent = (0..length).map(|_| dice.below(256) as u8).collect();
        client.expected = client.unsent.iter().map(|byte| client.chain.answer(*byte)).collect();
        client.sent = Instant::now();
        self.write(number);
    }

    fn write(&mut self, number: usize) {
        let Some(Some(client)) = self.clients.get_mut(number) else { return };
        while !client.unsent.is_empty() {
            match client.stream.write(&client.unsent) {
                Ok(length) => drop(client.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Reading finds the same.
                Err(_) => return,
            }
        }
    }

    fn listen(&mut self, number: usize) {
        let mut buffer = [0; 4_096];
        while let Some(Some(client)) = self.clients.get_mut(number) {
            match client.stream.read(&mut buffer) {
                Ok(length @ 1..) => {
                    self.tally.bytes += length as u64;
                    let is_right = buffer[..length].iter().all(|byte| client.expected.pop_front() == Some(*byte));
                    if !is_right {
                        self.tally.wrong += 1;
                        self.clients[number] = None;
                        return;
                    }
                    if client.expected.is_empty() {
                        self.tally.answers.push((client.sent, Instant::now()));
                        if !std::mem::replace(&mut client.has_answer, true) {
                            self.answered.fetch_add(1, Ordering::Relaxed);
                        }
                        self.think(number);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.tally.cut += 1;
                    self.clients[number] = None;
                    return;
                }
            }
        }
    }
}

/// One that comes, has one answer, and goes. While the server is dead it waits in the queue of the
/// listener.
pub(crate) fn newcomer(address: SocketAddr, tally: &mut Tally) {
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        tally.refused += 1;
        return;
    };
    let (mut chain, message) = (Chain::START, [5; 100]);
    let expected = message.map(|byte| chain.answer(byte));
    let mut answer = [0; 100];
    let mut talk = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)
    };
    match talk() {
        Err(_) => tally.cut += 1,
        Ok(()) if answer != expected => tally.wrong += 1,
        Ok(()) => {}
    }
}

/// One whose bytes kill the server. It must get the end, and the server must not die of it again.
pub(crate) fn poison(address: SocketAddr) -> Result<(), String> {
    let mut end = Vec::new();
    let mut talk = || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(POISON)?;
        stream.read_to_end(&mut end)
    };
    match talk() {
        Ok(0) => Ok(()),
        Ok(_) => Err("a server that should have died has answered".into()),
        // It may be told so too.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!("a poisonous client was not dropped: {error}")),
    }
}
