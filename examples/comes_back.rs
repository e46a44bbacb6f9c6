//! The smallest server that comes back from `kill -9` with its connections: it answers each number
//! with the sum of all numbers of that client.
//!
//!     cargo build --example comes_back
//!     pollflip guard --restart always --delay 1 -- target/debug/examples/comes_back 127.0.0.1:7000
//!     nc 127.0.0.1 7000
//!
//! Type numbers, kill the server (not the guard), and go on.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::ledger::{Account, Advance, Draft, Ledger, Recovered, Scope};
use pollflip::{Event, Gate, Handover, Keeper, RestartConfig};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

const LISTENER: Token = Token(0);
const RESTARTER: Token = Token(1);

struct Server {
    ledger: Ledger,
    keeper: Keeper,
    accounts: BTreeMap<usize, Account<TcpStream>>,
    next: usize,
}

/// All that comes of input, and nothing else: it is recorded, or it has never happened.
fn sum(input: &[u8], draft: &mut Draft<'_>) -> io::Result<usize> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(0) };
    let number = std::str::from_utf8(&input[..end]).ok().and_then(|line| line.trim().parse::<i64>().ok());
    let before = i64::from_ne_bytes(draft.state()[..].try_into().map_err(|_| ErrorKind::InvalidData)?);
    let sum = before.wrapping_add(number.unwrap_or(0));
    *draft.state() = sum.to_ne_bytes().into();
    writeln!(draft, "{sum}")?;
    Ok(end + 1)
}

impl Server {
    /// Goes on with a connection: a new one, one that has outlived a process, or one that was handed over.
    /// No client ends the process: if there is no room for one, that one is turned away.
    fn go_on(&mut self, stream: TcpStream, registry: &Registry) -> io::Result<()> {
        if let Err(error) = self.keeper.keep_stream(&stream) {
            eprintln!("a connection ends with this process: {error}");
        }
        let _ = stream.set_nodelay(true); // records are written one by one
        let account = match self.ledger.recover(stream) {
            Ok(Recovered::Even(account) | Recovered::Behind(account)) => Ok(account),
            Ok(Recovered::Untouched(stream)) if self.ledger.free() > 0 => self.ledger.begin(stream, &0i64.to_ne_bytes()),
            Ok(other) => {
                self.keeper.forget_stream(&other.into_connection());
                return Ok(());
            }
            Err(error) => Err(error),
        };
        let mut account = match account {
            Ok(account) => account,
            Err(failed) => {
                eprintln!("a connection ends: {failed}");
                self.keeper.forget_stream(&failed.connection);
                return Ok(());
            }
        };
        self.next += 1;
        registry.register(account.connection_mut(), Token(self.next), Interest::READABLE | Interest::WRITABLE)?;
        self.accounts.insert(self.next, account);
        self.advance(self.next, registry)
    }

    fn advance(&mut self, number: usize, registry: &Registry) -> io::Result<()> {
        let Some(account) = self.accounts.get_mut(&number) else { return Ok(()) };
        loop {
            match account.advance(&mut [0; 256], sum) {
                Ok(Advance::Worked) => {}
                Ok(Advance::Finished) | Err(_) => break,
                Ok(_) => return Ok(()),
            }
        }
        if let Some(account) = self.accounts.remove(&number) {
            let mut stream = account.close();
            self.keeper.forget_stream(&stream);
            registry.deregister(&mut stream)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, mut handover: Handover) -> io::Result<()> {
        for (number, account) in &self.accounts {
            handover.fd(&number.to_string(), account.connection())?;
        }
        handover.send();
        Ok(())
    }

    /// They are the successor's.
    fn give_up(&mut self, registry: &Registry) -> io::Result<()> {
        while let Some((_, account)) = self.accounts.pop_first() {
            registry.deregister(&mut account.into_connection())?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let mut restarter = RestartConfig::new().keep(true).build()?;
    registry.register(&mut restarter, RESTARTER, Interest::READABLE)?;
    let keeper = restarter.keeper();
    let ledger = match keeper.take("ledger").map(|file| Ledger::open("comes_back.v1", file)) {
        Some(Ok(ledger)) => ledger,
        // The predecessor goes on with it.
        Some(Err(error)) if restarter.predecessor().is_some() => return Err(error.into()),
        // Of another release, or damaged: its connections end, and the service does not.
        _ => Ledger::new("comes_back.v1", 10_000, 256)?,
    };
    keeper.keep("ledger", &ledger)?;
    let mut server = Server { ledger, keeper, accounts: BTreeMap::new(), next: RESTARTER.0 };
    let listener = TcpListener::from_std(restarter.sockets().tcp_listener("sums", address)?);
    let mut gate = Gate::new(listener, LISTENER);
    let inherited = restarter.predecessor().map(|predecessor| predecessor.receive(Duration::from_secs(5)));
    match inherited {
        Some(Err(pollflip::Error::PredecessorGone { .. })) | None => {}
        Some(inherited) => {
            for (_, stream) in inherited?.drain() {
                server.go_on(TcpStream::from_std(stream.into()), &registry)?;
            }
        }
    }
    if let Some(mut survivors) = restarter.survivors() {
        let judgement = server.ledger.judge(survivors.cause())?;
        if judgement.scope != Scope::All && !judgement.is_strike {
            survivors.absolve();
        }
        for survivor in survivors.streams() {
            server.go_on(TcpStream::from_std(survivor.into()), &registry)?;
        }
        server.ledger.close_unclaimed()?;
    }
    restarter.ready()?;
    gate.follow(&restarter, &registry)?;
    let mut events = Events::with_capacity(64);
    while !gate.is_closed() {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            gate.follow(&restarter, &registry)?;
            match event {
                Event::StateRequested(handover) => server.hand_over(handover)?,
                Event::HandedOff(_) => server.give_up(&registry)?,
                // What came meanwhile is told once.
                Event::Failed(_) => (RESTARTER.0..=server.next).try_for_each(|number| server.advance(number, &registry))?,
                _ => {}
            }
        }
        while let Ok(Some((stream, _))) = gate.accept() {
            server.go_on(stream, &registry)?;
        }
        // Between the request for the state and its outcome, nothing is read or written.
        for number in events.iter().map(|event| event.token().0).filter(|_| restarter.accepts()) {
            server.advance(number, &registry)?;
        }
    }
    Ok(())
}
