//! A service that keeps all it has: this test program, in that role. Each byte that it answers with
//! depends on all bytes before; the client knows them too.
//!
//! It has a loop of its own and no hub: it is killed at any moment, and what it has said must be there. What
//! a [`Wish`] says it does is a file in its directory, for whatever process comes next.
//!
//! A client says what it wants by its first byte: `B` to be answered byte by byte, and `!` to be told
//! the process id, generation and how many connections there are. Of a `B` client a `P` later on is poison: the process dies
//! of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use pollflip::ledger::{Account, Advance, Draft, Ledger, Recovered, Scope};
use pollflip::{Error, Event, Inheritance, Keeper, Restarter};
use pollflip_kit::service::{Settings, directory};
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Accounts, Drains];

/// How many connections it has at the most.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accounts(pub usize);

/// It hands over some of its connections, and finishes those itself whose peer [`is_drained`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Drains;

/// What a file of that name in its directory has it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The start that finds this takes it away, and hangs.
    Hang,
    /// It dies of connections that were kept.
    Abort,
    /// It dies of something else that was kept.
    AbortOfMore,
    /// There is no account that a new connection fits into.
    LongState,
    /// It wants its listener kept by name too.
    KeepListener,
    /// It binds and keeps its listener itself.
    OwnListener,
    /// A successor asks for no state.
    NoState,
    /// It recovers nothing before it has read a byte from this pipe.
    Gate,
    /// The first one keeps a connection to this socket too.
    Peer,
    /// It stops.
    Stop,
    /// It waits at that step of a restart until it has read a byte from this pipe.
    At(Step),
    /// That process keeps another file under a name.
    Renumber(u32),
}

/// A step of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    // --- of the new process ---
    Built,
    Received,
    Ready,
    Committed,
    // --- of the old one ---
    Restarting,
    Spawned,
    Asked,
    Given,
    HandedOff,
    Completed,
}

impl Wish {
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{self:?}"))
    }

    fn own_path(self) -> PathBuf {
        self.path(&directory())
    }

    fn is_there(self) -> bool {
        self.own_path().exists()
    }

    /// Whether it was there.
    fn take(self) -> bool {
        std::fs::remove_file(self.own_path()).is_ok()
    }
}

const LEDGER: &str = "sums.v1";

/// The next state and the answer to a byte.
pub fn step(state: u64, byte: u8) -> (u64, u8) {
    let state = (state ^ u64::from(byte)).wrapping_mul(1_099_511_628_211).wrapping_add(12_345);
    (state, (state >> 40) as u8)
}

struct Server {
    ledger: Ledger,
    keeper: Keeper,
    accounts: BTreeMap<u64, Account<TcpStream>>,
    /// What has no position.
    others: Vec<UnixStream>,
    /// What is kept under "number", as often as it was kept anew.
    number: u32,
    buffer: Vec<u8>,
}

pub fn main() -> ExitCode {
    serve().expect("the service");
    ExitCode::SUCCESS
}

fn say(text: &str) {
    let path = directory().join("said");
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    // At once: it may be killed between two parts.
    file.write_all(format!("{} {text}\n", std::process::id()).as_bytes()).expect("room");
}

/// Where a test may hold this process: at a pipe of that name. `other`: the other process of the restart.
fn at(step: Step, other: Option<u32>) {
    if let Ok(mut pipe) = File::open(Wish::At(step).own_path()) {
        say(&format!("is at {step:?}, and the other is {}", other.unwrap_or_default()));
        pipe.read_exact(&mut [0]).expect("a byte");
    }
}

fn drains(stream: &TcpStream) -> bool {
    Settings::read().has::<Drains>() && stream.peer_addr().is_ok_and(is_drained)
}

/// Every other one of those that the kernel gives, which are even.
pub fn is_drained(peer: SocketAddr) -> bool {
    peer.port() & 2 != 0
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut restarter = Settings::read().config().build()?;
    let keeper = restarter.keeper();
    let predecessor = restarter.predecessor().map(|predecessor| predecessor.pid());
    let is_at = |step| predecessor.into_iter().for_each(|pid| at(step, Some(pid)));
    is_at(Step::Built);
    let mut server = Server::new(&keeper, predecessor.is_some())?;
    server.recover(&mut restarter)?;
    server.keep_more()?;
    if Wish::Hang.take() {
        say("hangs");
        loop {
            std::thread::park();
        }
    }
    let listener = listen(&mut restarter)?;
    if Wish::KeepListener.is_there() {
        say(&format!("keeps its listener by name: {:?}", keeper.keep("listener", &listener).map_err(|error| error.kind())));
    }
    if restarter.generation() == 0 {
        std::fs::write(directory().join("address.new"), listener.local_addr()?.to_string())?;
        std::fs::rename(directory().join("address.new"), directory().join("address"))?;
    }
    let tell_whether_it_has_ended = |restarter: &Restarter| {
        let has_ended = restarter.predecessor().map(|predecessor| predecessor.has_ended());
        say(&format!("of the predecessor it is {has_ended:?} that it has ended"));
    };
    if Wish::NoState.is_there() {
        tell_whether_it_has_ended(&restarter);
    } else if let Some(predecessor) = restarter.predecessor() {
        match predecessor.receive(Duration::from_secs(5)) {
            Ok(inheritance) => server.inherit(inheritance)?,
            // It was killed: what it has kept is here all the same.
            Err(Error::PredecessorGone { .. }) => server.recover(&mut restarter)?,
            Err(error) => return Err(error.into()),
        }
    }
    is_at(Step::Received);
    restarter.ready()?;
    is_at(Step::Ready);
    say(&format!("serves {} {}", server.accounts.len(), keeper.is_active()));
    let (mut frozen, mut over) = (false, false);
    while !over || !server.accounts.is_empty() {
        while let Some(event) = restarter.wait(if frozen { Duration::from_secs(1) } else { Duration::from_micros(200) }) {
            let successor = restarter.status().successor;
            match event {
                Event::Restarting => at(Step::Restarting, None),
                Event::Spawned(_) => at(Step::Spawned, successor),
                Event::StateRequested(mut handover) => {
                    frozen = true;
                    at(Step::Asked, successor);
                    for (cookie, account) in server.accounts.iter().filter(|(_, account)| !drains(account.connection())) {
                        handover.fd(&cookie.to_string(), account.connection())?;
                    }
                    handover.send();
                    at(Step::Given, successor);
                }
                Event::HandedOff(_) => {
                    at(Step::HandedOff, successor);
                    server.accounts.retain(|_, account| drains(account.connection()));
                }
                Event::Failed(_) => frozen = false,
                Event::Resumed(_) => {
                    frozen = false;
                    let streams: Vec<_> = restarter.returned().map(TcpStream::from).collect();
                    say(&format!("resumed {}", streams.len()));
                    for stream in streams {
                        // What it drains it has still.
                        if !server.accounts.contains_key(&pollflip::ledger::cookie(&stream)?) {
                            server.go_on(stream)?;
                        }
                    }
                }
                Event::Completed(_) => {
                    (frozen, over) = (false, true);
                    say("has handed over");
                    at(Step::Completed, successor);
                }
                Event::Committed => is_at(Step::Committed),
                Event::PredecessorGone => {
                    tell_whether_it_has_ended(&restarter);
                    // It may have been killed when this process had looked already, and had yet to be granted the service.
                    server.find(&mut restarter)?;
                }
                _ => {}
            }
        }
        if frozen {
            continue;
        }
        if over {
            server.turn();
            continue;
        }
        for _ in 0..64 {
            let Ok((stream, _)) = listener.accept() else { break };
            stream.set_nonblocking(true)?;
            server.keep(&stream);
            server.go_on(stream)?;
        }
        server.turn();
        if Wish::Renumber(std::process::id()).take() {
            server.renumber()?;
        }
        if Wish::Stop.take() {
            restarter.stop();
            drop(listener);
            say("stops");
            while restarter.wait(Duration::from_millis(10)).is_some() {}
            return Ok(());
        }
    }
    Ok(())
}

/// As a release does that has no use for `Sockets`, or as the one after it.
fn listen(restarter: &mut Restarter) -> Result<TcpListener, Box<dyn std::error::Error>> {
    let keeper = restarter.keeper();
    let own = keeper.take("listener").map(TcpListener::from);
    if Wish::OwnListener.is_there() {
        let own = own.map_or_else(|| TcpListener::bind("127.0.0.1:0"), Ok)?;
        own.set_nonblocking(true)?;
        keeper.keep("listener", &own)?;
        return Ok(own);
    }
    let Some(own) = own else { return Ok(restarter.sockets().tcp_listener("web", "127.0.0.1:0")?) };
    let listener = restarter.sockets().or_insert_with("web", || Ok(own))?;
    keeper.forget("listener");
    Ok(listener)
}

impl Server {
    fn new(keeper: &Keeper, is_successor: bool) -> io::Result<Server> {
        let ledger = match keeper.take("ledger").map(|file| Ledger::open(LEDGER, file)) {
            Some(Ok(ledger)) => ledger,
            Some(Err(error)) if is_successor => return Err(error),
            damaged => {
                if let Some(Err(error)) = damaged {
                    say(&error.to_string());
                }
                let accounts = Settings::read().get().map_or(4_096, |Accounts(count)| count);
                Ledger::new(LEDGER, accounts, 16_384)?
            }
        };
        keeper.keep("ledger", &ledger)?;
        let number = keeper.take("number").map(|file| read_number(&file.into()));
        say(&format!("has number {number:?}"));
        Ok(Server {
            ledger,
            keeper: keeper.clone(),
            accounts: BTreeMap::new(),
            others: Vec::new(),
            number: number.unwrap_or_default(),
            buffer: vec![0; 4_096],
        })
    }

    /// Keeps another file under the name.
    fn renumber(&mut self) -> io::Result<()> {
        self.number += 1;
        let path = directory().join(format!("number {}", self.number));
        std::fs::write(&path, self.number.to_string())?;
        self.keeper.keep("number", &File::open(path)?)
    }

    /// Goes on with what the process before has left, if it was killed.
    fn recover(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        if let Ok(mut gate) = File::open(Wish::Gate.own_path()) {
            say("at the gate");
            gate.read_exact(&mut [0])?;
        }
        self.find(restarter)
    }

    fn find(&mut self, restarter: &mut Restarter) -> io::Result<()> {
        let Some(mut survivors) = restarter.survivors() else { return Ok(()) };
        let judgement = self.ledger.judge(survivors.cause())?;
        if !judgement.is_strike && judgement.scope != Scope::All {
            survivors.absolve();
        }
        say(&format!("after {:?} {}", survivors.cause(), survivors.strikes()));
        for survivor in survivors.streams() {
            match survivor.position()? {
                Some(_) => self.go_on(survivor.into())?,
                None => self.go_on_without_position(survivor.into())?,
            }
        }
        // Not while an earlier process may finish connections with it.
        if !Settings::read().has::<Drains>() {
            self.ledger.close_unclaimed()?;
        }
        if Wish::Abort.is_there() && !self.accounts.is_empty() {
            std::process::abort();
        }
        if judgement.scope != Scope::Listeners && Wish::AbortOfMore.is_there() && survivors.take("more").is_some() {
            std::process::abort();
        }
        Ok(())
    }

    fn keep_more(&mut self) -> io::Result<()> {
        if Wish::AbortOfMore.is_there() {
            self.keeper.keep("more", &File::open("/dev/null")?)?;
        }
        if Wish::Peer.is_there() && self.others.is_empty() {
            let stream = UnixStream::connect(Wish::Peer.own_path())?;
            self.keeper.keep_stream(&stream)?;
            self.others.push(stream);
        }
        Ok(())
    }

    fn go_on_without_position(&mut self, stream: OwnedFd) -> io::Result<()> {
        let failed = self.ledger.recover(stream).expect_err("it has no position");
        say(&failed.to_string());
        let mut stream = UnixStream::from(failed.connection);
        stream.write_all(b"back")?;
        self.others.push(stream);
        Ok(())
    }

    fn inherit(&mut self, mut inheritance: Inheritance) -> Result<(), Box<dyn std::error::Error>> {
        for (_, descriptor) in inheritance.drain() {
            let stream = TcpStream::from(descriptor);
            self.keep(&stream);
            self.go_on(stream)?;
        }
        Ok(())
    }

    fn keep(&self, stream: &TcpStream) {
        if let Err(error) = self.keeper.keep_stream(stream) {
            say(&format!("not kept: {error}"));
        }
    }

    fn go_on(&mut self, stream: TcpStream) -> io::Result<()> {
        let cookie = pollflip::ledger::cookie(&stream)?;
        let long = Wish::LongState.is_there().then(|| vec![0; self.ledger.capacity() + 1]);
        let state = long.as_deref().unwrap_or(&[0; 8]);
        let account = match self.ledger.recover(stream) {
            Ok(Recovered::Even(account) | Recovered::Behind(account)) => Ok(account),
            Ok(Recovered::Untouched(stream)) if self.ledger.free() > 0 => self.ledger.begin(stream, state),
            Ok(other) => {
                say(&format!("ends {other:?}"));
                self.keeper.forget_stream(&other.into_connection());
                return Ok(());
            }
            Err(failed) => Err(failed),
        };
        match account {
            Ok(account) => drop(self.accounts.insert(cookie, account)),
            Err(failed) => {
                self.keeper.forget_stream(&failed.connection);
                say(&format!("{failed}; {} are kept", self.keeper.streams()));
            }
        }
        Ok(())
    }

    fn turn(&mut self) {
        let (count, mut ended) = (self.accounts.len(), Vec::new());
        for (cookie, account) in &mut self.accounts {
            loop {
                let work = |input: &[u8], draft: &mut Draft<'_>| work(input, draft, count);
                match account.advance(&mut self.buffer, work) {
                    Ok(Advance::Worked) => {}
                    Ok(Advance::Finished) | Err(_) => {
                        ended.push(*cookie);
                        break;
                    }
                    Ok(_) => break,
                }
            }
        }
        for cookie in ended {
            if let Some(account) = self.accounts.remove(&cookie) {
                self.keeper.forget_stream(&account.close());
            }
        }
    }
}

fn read_number(file: &File) -> u32 {
    let mut text = [0; 10];
    let length = file.read_at(&mut text, 0).expect("a file");
    String::from_utf8_lossy(&text[..length]).parse().expect("a number")
}

fn work(input: &[u8], draft: &mut Draft<'_>, count: usize) -> io::Result<usize> {
    let mut state = u64::from_ne_bytes(draft.state()[..8].try_into().expect("eight bytes"));
    let mut taken = 0;
    for byte in input {
        if *byte == b'P' {
            std::process::abort();
        }
        if state == 0 && *byte == b'!' {
            writeln!(draft, "{} {count}", std::process::id())?;
            taken += 1;
            continue;
        }
        if draft.room() == 0 {
            break;
        }
        let (next, answer) = step(state, *byte);
        draft.write_all(&[answer])?;
        state = next;
        taken += 1;
    }
    draft.state()[..8].copy_from_slice(&state.to_ne_bytes());
    Ok(taken)
}
