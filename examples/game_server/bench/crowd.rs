//! All players, in one thread of this process, which is not the server's.
//!
//! Each player asks once a second, all of them spread evenly over the second, so that at any moment somebody has just asked. The longest
//! that anybody has waited for an answer is then as long as the server stood still, with what piled up meanwhile; the longest that
//! nobody was told anything, while ticks should have come, ends with the first byte after it.

use super::client::Client;
use super::loopback::Loopback;
use super::seen::{Seen, Span};
use super::visitors::Visitors;
use crate::clock;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// All players ask once in this time.
const ROUND: Duration = Duration::from_secs(1);
/// The second half of an input comes so much later.
const HALF: Duration = Duration::from_millis(100);
/// A slow player takes a sip as often as this.
const SIP: Duration = Duration::from_millis(5);
/// So many connect at a time, and the next ones when these have been greeted.
const BATCH: usize = 100;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Shorter silences are nothing.
const SHORT: Duration = Duration::from_micros(100);

/// What the players have seen.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) connected: usize,
    pub(crate) disconnected: u64,
    pub(crate) out_of_sequence: u64,
    pub(crate) answers: u64,
    /// How many players were answered in this round.
    pub(crate) answered: usize,
    rounds: u64,
    /// Why the first one was disconnected.
    pub(crate) why: Option<String>,
}

pub(crate) struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    /// Players who stay, and as many visitors a second.
    pub(crate) fn gather(address: SocketAddr, players: usize, visitors: u32) -> Result<Self, String> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let mut field = Field::new(theirs).map_err(|error| format!("cannot watch players: {error}"))?;
        field.connect_all(&Loopback::new(address), players)?;
        field.visitors = Visitors::new(Loopback::new(address), visitors, players);
        let thread = thread::Builder::new().name("players".into()).spawn(move || field.play());
        Ok(Self { shared, thread: Some(thread.map_err(|error| format!("cannot start a thread: {error}"))?) })
    }

    pub(crate) fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// What was seen since the last look.
    pub(crate) fn look(&self) -> Seen {
        std::mem::take(&mut self.shared.seen())
    }

    /// From now on it is counted who is answered.
    pub(crate) fn begin_round(&self) {
        let mut tally = self.shared.tally();
        tally.rounds += 1;
        tally.answered = 0;
    }

    pub(crate) fn leave(mut self) -> Tally {
        self.end();
        self.tally()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.shared.tally().why = Some("the players' thread panicked".into());
            self.shared.tally().disconnected += 1;
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

struct Field {
    shared: Arc<Shared>,
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client>>,
    /// In which round each was last answered.
    answered_in: Vec<u64>,
    halves: VecDeque<(Duration, usize)>,
    slow: Vec<usize>,
    heard_at: Duration,
    visitors: Option<Visitors>,
}

impl Field {
    fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            shared,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            answered_in: Vec::new(),
            halves: VecDeque::new(),
            slow: Vec::new(),
            heard_at: clock::now(),
            visitors: None,
        })
    }

    fn connect_all(&mut self, loopback: &Loopback, players: usize) -> Result<(), String> {
        let deadline = clock::now() + CONNECT_LIMIT;
        while self.clients.len() < players {
            for key in self.clients.len()..players.min(self.clients.len() + BATCH) {
                let stream = loopback.connect(key).map_err(|why| format!("player {key} cannot connect: {why}"))?;
                self.welcome(key, stream).map_err(|error| format!("player {key}: {error}"))?;
            }
            while self.shared.tally().connected < self.clients.len() {
                self.turn(Duration::from_millis(1));
                self.sip();
                let Tally { disconnected, why, .. } = self.shared.tally().clone();
                if disconnected > 0 || clock::now() > deadline {
                    return Err(format!("not all players were greeted: {}", why.unwrap_or_else(|| "it takes too long".into())));
                }
            }
        }
        Ok(())
    }

    fn welcome(&mut self, key: usize, stream: std::net::TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut client = Client::new(key, TcpStream::from_std(stream));
        if client.is_slow() {
            self.slow.push(key);
        } else {
            self.poll.registry().register(&mut client.stream, Token(key), Interest::READABLE)?;
        }
        self.clients.push(Some(client));
        self.answered_in.push(u64::MAX);
        Ok(())
    }

    fn play(mut self) {
        let begun = clock::now();
        let players = self.clients.len();
        let mut asked = 0u128;
        let mut sipped = begun;
        self.heard_at = begun;
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.turn(Duration::from_millis(1));
            let now = clock::now();
            let due = (now - begun).as_micros() * players as u128 / ROUND.as_micros();
            // A player who was held up does not ask twice.
            for turn in asked.max(due.saturating_sub(players as u128))..due {
                let key = (turn % players as u128) as usize;
                if self.with(key, |client| client.ask(now)) == Some(true) {
                    self.halves.push_back((now + HALF, key));
                }
            }
            asked = due;
            while let Some(&(time, key)) = self.halves.front()
                && time <= now
            {
                self.halves.pop_front();
                self.with(key, |client| client.ask_second_half(now));
            }
            if now - sipped >= SIP {
                sipped = now;
                self.sip();
            }
            if let Some(visitors) = &mut self.visitors
                && let Err(why) = visitors.turn(now, self.poll.registry())
            {
                self.lose(&format!("a visitor: {why}"));
            }
        }
    }

    fn sip(&mut self) {
        for key in self.slow.clone() {
            self.hear(key);
        }
    }

    fn turn(&mut self, limit: Duration) {
        if let Err(error) = self.poll.poll(&mut self.events, Some(limit)) {
            if error.kind() != io::ErrorKind::Interrupted {
                self.shared.tally().why = Some(format!("cannot poll: {error}"));
            }
            return;
        }
        let keys: Vec<_> = self.events.iter().map(|event| event.token().0).collect();
        for key in keys {
            match &mut self.visitors {
                Some(visitors) if key >= self.clients.len() => match visitors.hear(key) {
                    Ok(farewell) => self.shared.seen().farewells.extend(farewell),
                    Err(why) => self.lose(&format!("a visitor: {why}")),
                },
                _ => self.hear(key),
            }
        }
    }

    fn lose(&self, why: &str) {
        let mut tally = self.shared.tally();
        tally.disconnected += 1;
        tally.why.get_or_insert_with(|| why.into());
    }

    fn hear(&mut self, key: usize) {
        let Some(heard) = self.with(key, Client::hear) else { return };
        if !heard.any {
            return;
        }
        let now = clock::now();
        let mut seen = self.shared.seen();
        // What a slow one reads may have been there for long.
        if !self.clients[key].as_ref().is_some_and(Client::is_slow) {
            let silence = Span { begin: std::mem::replace(&mut self.heard_at, now), end: now };
            seen.silences.extend((silence.length() >= SHORT).then_some(silence));
        }
        seen.waits.extend(&heard.waits);
        drop(seen);
        let mut tally = self.shared.tally();
        tally.out_of_sequence += heard.out_of_sequence;
        tally.answers += heard.waits.len() as u64;
        if self.answered_in[key] == u64::MAX {
            // Greeted.
            tally.connected += 1;
            self.answered_in[key] = u64::MAX - 1;
        }
        if !heard.waits.is_empty() && self.answered_in[key] != tally.rounds {
            self.answered_in[key] = tally.rounds;
            tally.answered += 1;
        }
    }

    /// Does something with a player who is still connected.
    fn with<T>(&mut self, key: usize, what: impl FnOnce(&mut Client) -> io::Result<T>) -> Option<T> {
        match what(self.clients[key].as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.clients[key] = None;
                self.lose(&format!("player {key}: {error}"));
                None
            }
        }
    }
}
