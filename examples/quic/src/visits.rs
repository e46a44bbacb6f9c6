//! Visits to a server that is replaced again and again, and what came of them.
//!
//! Each thread has one client: some of its connections hold a download over several restarts, the others come and go all the time, so that
//! each restart finds handshakes, requests and answers on their way. After a restart a client moves to another port.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use quinn_proto::ClientConfig;

use crate::client::{Client, Download, Id};
use crate::protocol::{ALPN, Request, mix};
use crate::service::{Counted, Service};

/// How many clients there are, each with a port of its own.
const CLIENTS: u64 = 8;
/// So many visits of each client come and go at a time.
const SHORT: usize = 2;
/// The longest file of a visit that comes and goes, and the shortest of one that stays.
const LENGTH: u64 = 128 << 10;
/// A file of this length only says who answers.
const WHO: u64 = 1;
/// So many visits that have begun after a restart are waited for before the next.
const NEW: u64 = 16;
/// A client looks at least so often how many restarts there were.
const TICK: Duration = Duration::from_millis(5);
/// How long anything may take: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// What is asked for.
pub struct Plan {
    /// How often the server is replaced.
    pub restarts: u32,
    /// How many downloads are held over restarts at a time.
    pub held: usize,
    /// The longest pause before a restart, of which a part is left to chance.
    pub pause: Duration,
    /// For chance.
    pub seed: u64,
    /// Further arguments of the server.
    pub server: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Files that were asked for.
    pub downloads: u64,
    /// Those that have come, each byte as it has to be.
    pub whole: u64,
    /// Those that had begun before three restarts or more.
    pub over_three: u64,
    /// Connections begun after a restart, when the one who asked had been told that it is done.
    pub new: u64,
    /// Those of them that the new generation has answered.
    pub new_by_new: u64,
    /// Answers to a client that had moved to another port.
    pub moved: u64,
    /// Answers by another process than the one that had begun the connection.
    pub misrouted: u64,
    /// The most generations that were alive at a time.
    pub at_once: u64,
    /// What the servers have counted.
    pub counted: Counted,
}

impl Tally {
    /// Nothing was lost, and each generation has answered its own.
    pub fn is_good(&self) -> bool {
        self.whole == self.downloads && self.new_by_new == self.new && self.misrouted == 0 && self.counted.astray == 0
    }
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    restarts: AtomicU32,
    /// Downloads that are held, and of which something has come.
    holding: AtomicU64,
    /// Visits that have begun after the last restart, and have ended.
    new: AtomicU64,
    tally: Mutex<Tally>,
}

/// Has the server of this program replaced while clients visit it.
///
/// # Errors
///
/// The server does not start, does not end, or cannot be replaced.
pub fn run(program: &Path, plan: &Plan) -> Result<Tally, Box<dyn Error>> {
    let arguments: Vec<&str> = plan.server.iter().map(String::as_str).collect();
    let mut service = Service::start(program, &arguments)?;
    // A user who may not ask is told so here. Later it would look like a refusal that passes.
    service.status()?;
    let shared = Arc::new(Shared::default());
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let config = service.identity.client(vec![ALPN.to_vec()])?;
        let visitor = Visitor::new(config, service.address, plan, number, shared.clone())?;
        clients.push(thread::spawn(move || visitor.visit()));
    }
    let mut chance = Chance(mix(plan.seed));
    let mut at_once = 0;
    let mut replace = || -> Result<(), Box<dyn Error>> {
        wait_until("downloads do not begin", || shared.holding.load(Ordering::Relaxed) >= plan.held as u64)?;
        for restart in 1..=plan.restarts {
            thread::sleep(plan.pause.mul_f64(chance.below(1000) as f64 / 1000.0));
            let begun = Instant::now();
            // While each socket of the group has a generation that reads it, a restart is refused.
            while let Some(why) = service.restart()? {
                if begun.elapsed() > LIMIT {
                    return Err(why.into());
                }
                thread::sleep(TICK);
            }
            shared.new.store(0, Ordering::Relaxed);
            shared.restarts.store(restart, Ordering::Relaxed);
            at_once = at_once.max(1 + service.status()?.draining.len() as u64);
            wait_until("new connections do not end", || shared.new.load(Ordering::Relaxed) >= NEW)?;
        }
        Ok(())
    };
    let replaced = replace();
    shared.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client has panicked")?.map_err(|error| format!("a client has failed: {error}"))?;
    }
    replaced?;
    let counted = service.stop(0)?;
    let tally = *shared.tally.lock().map_err(|_| "a client has panicked")?;
    Ok(Tally { at_once, counted, ..tally })
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > LIMIT {
            return Err(what.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Numbers that look random; the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % limit
    }
}

/// One client with its visits.
struct Visitor {
    client: Client<UdpSocket>,
    shared: Arc<Shared>,
    chance: Chance,
    /// How many downloads are held at a time.
    held: usize,
    /// How many restarts there will be.
    restarts: u32,
    visits: HashMap<Id, Visit>,
    tally: Tally,
}

/// A connection.
struct Visit {
    /// How many restarts had been done when it began.
    begun: u32,
    /// It reads no more than a part of its file until so many have been.
    until: Option<u32>,
    length: u64,
    /// So many files are asked for, one after the other.
    files: u64,
    /// The process that has answered first.
    pid: Option<u32>,
    is_holding: bool,
    /// Its client has moved to another port.
    has_moved: bool,
}

impl Visitor {
    fn new(config: ClientConfig, server: SocketAddr, plan: &Plan, number: u64, shared: Arc<Shared>) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            client: Client::new(socket()?, config, server)?,
            shared,
            chance: Chance(mix(plan.seed ^ number << 32)),
            held: (plan.held + number as usize) / CLIENTS as usize,
            restarts: plan.restarts,
            visits: HashMap::new(),
            tally: Tally::default(),
        })
    }

    fn visit(mut self) -> Result<(), String> {
        let mut restarts = 0;
        let mut over_since = None;
        while !self.is_over() || !self.visits.is_empty() {
            // What has not come by then counts as failed.
            if self.is_over() && over_since.get_or_insert_with(Instant::now).elapsed() > LIMIT {
                break;
            }
            let seen = self.shared.restarts.load(Ordering::Relaxed);
            if restarts != seen {
                // A client may not move during a handshake: none is begun before it has moved.
                if self.client.may_move() {
                    restarts = seen;
                    self.move_on(restarts).map_err(|error| error.to_string())?;
                }
            } else if !self.is_over() {
                self.begin_all(seen).map_err(|error| error.to_string())?;
            }
            self.client.turn(TICK).map_err(|error| error.to_string())?;
            for id in self.visits.keys().copied().collect::<Vec<_>>() {
                self.look_at(id);
            }
        }
        let mut all = self.shared.tally.lock().map_err(|_| "another client has panicked")?;
        let mine = self.tally;
        all.downloads += mine.downloads;
        all.whole += mine.whole;
        all.over_three += mine.over_three;
        all.new += mine.new;
        all.new_by_new += mine.new_by_new;
        all.moved += mine.moved;
        all.misrouted += mine.misrouted;
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    /// As many as there should be.
    fn begin_all(&mut self, restarts: u32) -> Result<(), Box<dyn Error>> {
        let count = |visits: &HashMap<_, Visit>, holds: bool| visits.values().filter(|visit| visit.until.is_some() == holds).count();
        while count(&self.visits, true) < self.held {
            // Those of the beginning outlive three restarts at least, if there are so many.
            let over = if restarts == 0 { 3 + self.chance.below(4) } else { 1 + self.chance.below(6) };
            let until = self.restarts.min(restarts + over as u32);
            let length = LENGTH + self.chance.below(LENGTH);
            self.begin(Visit::new(restarts, Some(until), length, 1))?;
        }
        while count(&self.visits, false) < SHORT {
            let (length, files) = (self.chance.below(LENGTH), 1 + self.chance.below(3));
            self.begin(Visit::new(restarts, None, length, files))?;
        }
        Ok(())
    }

    fn begin(&mut self, visit: Visit) -> Result<(), Box<dyn Error>> {
        let id = self.client.connect()?;
        let allowance = if visit.until.is_some_and(|until| until > visit.begun) { visit.length / 8 } else { u64::MAX };
        self.ask(id, visit.length, allowance);
        self.visits.insert(id, visit);
        Ok(())
    }

    fn ask(&mut self, id: Id, length: u64, allowance: u64) {
        self.tally.downloads += 1;
        let file = self.chance.below(u64::MAX);
        self.client.download(id, Request { file, length }, allowance);
    }

    /// There was a restart: the client goes on from another port, reads a little more, and asks on its connections who answers.
    fn move_on(&mut self, restarts: u32) -> Result<(), Box<dyn Error>> {
        drop(self.client.move_to(socket()?)?);
        for id in self.visits.keys().copied().collect::<Vec<_>>() {
            let Some(visit) = self.visits.get_mut(&id) else { continue };
            visit.has_moved = true;
            let Some(until) = visit.until else { continue };
            let part = visit.length * u64::from(restarts - visit.begun) / 8;
            self.client.allow(id, if restarts < until { part } else { u64::MAX });
            self.ask(id, WHO, u64::MAX);
        }
        Ok(())
    }

    fn look_at(&mut self, id: Id) {
        let Some(visit) = self.visits.get_mut(&id) else { return };
        if !visit.is_holding && visit.until.is_some() && self.client.received(id) > 0 {
            visit.is_holding = true;
            self.shared.holding.fetch_add(1, Ordering::Relaxed);
        }
        for download in self.client.take_done(id) {
            self.count(id, &download);
        }
        let Some(session) = self.client.session(id) else { return };
        let Some(visit) = self.visits.get_mut(&id) else { return };
        if session.lost.is_none() && session.has_downloads() {
            return;
        }
        visit.files -= 1;
        // A server that has been replaced has asked not to be asked again.
        if visit.files > 0 && session.lost.is_none() && !session.is_told {
            let length = visit.length;
            return self.ask(id, length, u64::MAX);
        }
        if visit.begun == self.shared.restarts.load(Ordering::Relaxed) {
            self.shared.new.fetch_add(1, Ordering::Relaxed);
        }
        self.client.close(id);
        self.visits.remove(&id);
    }

    fn count(&mut self, id: Id, download: &Download) {
        if let Some(why) = &download.failed {
            let moved = self.visits.get(&id).is_some_and(|visit| visit.has_moved);
            let asked = download.request.length;
            eprintln!(
                "a download has failed: {why}; {} of {asked} bytes have come, of {:?}, moved: {moved}",
                download.received,
                download.head()
            );
        }
        let (Some(visit), Some(head)) = (self.visits.get_mut(&id), download.head()) else { return };
        let is_whole = download.is_whole();
        self.tally.whole += u64::from(is_whole);
        self.tally.misrouted += u64::from(visit.pid.is_some_and(|pid| pid != head.pid));
        if visit.pid.is_none() && visit.begun > 0 {
            self.tally.new += 1;
            self.tally.new_by_new += u64::from(head.generation >= visit.begun);
        }
        visit.pid = Some(head.pid);
        self.tally.moved += u64::from(is_whole && visit.has_moved);
        let restarts = self.shared.restarts.load(Ordering::Relaxed);
        self.tally.over_three +=
            u64::from(is_whole && download.request.length != WHO && visit.until.is_some() && restarts - visit.begun >= 3);
    }
}

impl Visit {
    fn new(begun: u32, until: Option<u32>, length: u64, files: u64) -> Self {
        Self { begun, until, length, files, pid: None, is_holding: false, has_moved: false }
    }
}

fn socket() -> std::io::Result<UdpSocket> {
    UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
}
