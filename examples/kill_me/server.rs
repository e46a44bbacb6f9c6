//! The server: it answers each connection by the rule *peek, record, take*, and goes on with all of
//! them after a kill.
//!
//! Who holds what it keeps, and starts it again, it does not know: a guard or systemd.

use super::chain::Chain;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use nix::time::{ClockId, clock_gettime};
use pollflip::ledger::{Account, Advance, Draft, Ledger, NoAccount, Recovered, Scope};
use pollflip::{Event, Gate, Handover, Keeper, RestartConfig, Restarter};
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process;
use std::time::Duration;

const LISTENER: Token = Token(0);
const RESTARTER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;
/// What is worked on at once, and what a record has room for: as much output, and the state.
const AT_ONCE: usize = 4_096;
const RECORD: usize = AT_ONCE + 8;
const STATES: &str = "kill_me.v1";
/// A server that gets this dies of it, and would again in each of its next lives.
pub(crate) const POISON: &[u8] = b"POISON!";
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

pub(crate) struct Options {
    pub(crate) listen: String,
    pub(crate) socket: PathBuf,
    pub(crate) connections: usize,
    /// It reads, and records then: at times it is killed in between.
    pub(crate) is_wrong: bool,
}

struct Server {
    poll: Poll,
    ledger: Ledger,
    keeper: Keeper,
    accounts: HashMap<Token, Account<TcpStream>>,
    next: usize,
    buffer: Vec<u8>,
    is_wrong: bool,
}

/// All that comes of input. It is called again if the process was killed before this was recorded.
fn answer(input: &[u8], draft: &mut Draft<'_>) -> io::Result<usize> {
    if input.starts_with(POISON) {
        process::abort();
    }
    let mut chain = Chain::of_bytes(draft.state()).ok_or(ErrorKind::InvalidData)?;
    let output: Vec<u8> = input.iter().map(|byte| chain.answer(*byte)).collect();
    draft.write_all(&output)?;
    draft.state().copy_from_slice(&chain.to_bytes());
    Ok(input.len())
}

/// What a program does that knows nothing of the rule. No ledger knows what it has read.
fn advance_wrongly(account: &mut Account<TcpStream>, buffer: &mut [u8]) -> io::Result<Advance> {
    if !account.flush()? {
        return Ok(Advance::Blocked);
    }
    let length = match account.connection_mut().read(buffer) {
        Ok(0) => return Ok(Advance::Finished),
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Advance::Idle),
        Err(error) => return Err(error),
    };
    account.push(|draft| answer(&buffer[..length], draft).map(drop))?;
    Ok(Advance::Worked)
}

impl Server {
    /// Goes on with a connection that has outlived a process, or was handed over by one. `None`: it
    /// does not.
    fn resume(&mut self, stream: std::net::TcpStream) -> io::Result<Option<Token>> {
        match self.ledger.recover(TcpStream::from_std(stream)).map_err(|failed| self.end(failed))? {
            Recovered::Even(account) | Recovered::Behind(account) => self.add(account).map(Some),
            // The last process was killed just after it had accepted it.
            Recovered::Untouched(stream) if self.ledger.free() > 0 => self.begin(stream).map(Some),
            // Over, dropped because it was in hand, read past the ledger, or one too many.
            other => {
                self.keeper.forget_stream(&other.into_connection());
                Ok(None)
            }
        }
    }

    fn begin(&mut self, stream: TcpStream) -> io::Result<Token> {
        let _ = stream.set_nodelay(true); // records are written one by one
        let account = self.ledger.begin(stream, &Chain::START.to_bytes()).map_err(|failed| self.end(failed))?;
        self.add(account)
    }

    /// Of a connection that is only dropped the keeper has a copy.
    fn end(&self, failed: NoAccount<TcpStream>) -> io::Error {
        self.keeper.forget_stream(&failed.connection);
        failed.error
    }

    fn add(&mut self, mut account: Account<TcpStream>) -> io::Result<Token> {
        let token = Token(self.next);
        self.next += 1;
        self.poll.registry().register(account.connection_mut(), token, INTEREST)?;
        self.accounts.insert(token, account);
        Ok(token)
    }

    /// The poll is edge-triggered: all that has come is worked on.
    fn attend(&mut self, token: Token) {
        let Some(account) = self.accounts.get_mut(&token) else { return };
        loop {
            let advanced = match self.is_wrong {
                false => account.advance(&mut self.buffer, answer),
                true => advance_wrongly(account, &mut self.buffer),
            };
            match advanced {
                Ok(Advance::Worked) => {}
                Ok(Advance::Idle | Advance::Blocked) => return,
                // The peer has finished, or is gone.
                _ => break,
            }
        }
        if let Some(account) = self.accounts.remove(&token) {
            let mut stream = account.close();
            let _ = self.poll.registry().deregister(&mut stream);
            self.keeper.forget_stream(&stream);
        }
    }

    /// Frozen, the connections leave the epoll, and nothing is read or written.
    fn freeze_or_thaw(&mut self, gate: &mut Gate<TcpListener>, restarter: &Restarter) -> io::Result<()> {
        let was_open = gate.is_open();
        let registry: &Registry = self.poll.registry();
        gate.follow(restarter, registry)?;
        for (token, account) in &mut self.accounts {
            match (was_open, gate.is_open()) {
                (true, false) => registry.deregister(account.connection_mut())?,
                (false, true) => registry.register(account.connection_mut(), *token, INTEREST)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A restart needs nothing but the connections: all state is in the ledger, which goes along as
    /// everything does that is kept by name.
    fn hand_over(&self, mut handover: Handover) -> io::Result<()> {
        handover.fds(self.accounts.iter().map(|(token, account)| (format!("connection/{}", token.0), account.connection())))?;
        handover.send();
        Ok(())
    }
}

/// `when_it_serves` comes between the grant and the first turn of the loop.
pub(crate) fn serve(options: &Options, when_it_serves: impl FnOnce()) -> Result<(), Box<dyn Error>> {
    let began = now();
    let mut restarter = RestartConfig::new().coordination_socket(&options.socket).keep(true).build()?;
    let keeper = restarter.keeper();
    let ledger = match keeper.take("ledger").map(|file| Ledger::open(STATES, file)) {
        Some(Ok(ledger)) => ledger,
        // The predecessor goes on with it.
        Some(Err(error)) if restarter.predecessor().is_some() => return Err(error.into()),
        // Of another release, or damaged: its connections end, and the service does not.
        _ => Ledger::new(STATES, options.connections + 1_000, RECORD)?,
    };
    keeper.keep("ledger", &ledger)?;
    let listener = restarter.sockets().tcp_listener("kill_me", &*options.listen)?;
    let address = listener.local_addr()?;
    let (accounts, buffer) = (HashMap::new(), vec![0; AT_ONCE]);
    let mut server = Server { poll: Poll::new()?, ledger, keeper, accounts, next: FIRST_CONNECTION, buffer, is_wrong: options.is_wrong };
    let mut resumed = 0;
    match restarter.predecessor().map(|old| old.receive(Duration::from_secs(10))) {
        // Of one that was killed in the middle of a restart there are survivors.
        None | Some(Err(pollflip::Error::PredecessorGone { .. })) => {}
        Some(state) => {
            for (_, descriptor) in state?.drain() {
                let stream = descriptor.into();
                server.keeper.keep_stream(&stream)?;
                resumed += usize::from(server.resume(stream)?.is_some());
            }
        }
    }
    if let Some(mut survivors) = restarter.survivors() {
        let judgement = server.ledger.judge(survivors.cause())?;
        if judgement.scope != Scope::All && !judgement.is_strike {
            survivors.absolve();
        }
        for survivor in survivors.streams() {
            if let Some(token) = server.resume(survivor.into())? {
                resumed += 1;
                // Nobody else serves: it need not wait for the others.
                server.attend(token);
            }
        }
        server.ledger.close_unclaimed()?;
    }
    let mut gate = Gate::new(TcpListener::from_std(listener), LISTENER);
    server.poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE)?;
    restarter.ready()?;
    server.ledger.serves();
    gate.follow(&restarter, server.poll.registry())?;
    println!("serving {} {address} {resumed} {began} {} {}", process::id(), now(), options.socket.display());
    when_it_serves();
    // What a killed process has left undone.
    for token in server.accounts.keys().copied().collect::<Vec<_>>() {
        server.attend(token);
    }
    let mut events = Events::with_capacity(1_024);
    while !gate.is_closed() {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            server.freeze_or_thaw(&mut gate, &restarter)?;
            match event {
                Event::StateRequested(handover) => drop(server.hand_over(handover)), // or `Failed` comes
                // Their accounts stay in the ledger.
                Event::HandedOff(_) => server.accounts.clear(),
                _ => {}
            }
        }
        while let Ok(Some((stream, _))) = gate.accept() {
            // One for which there is no room is turned away, and one may be gone by now. Nobody ends the server.
            if server.ledger.free() > 0 && server.keeper.keep_stream(&stream).is_ok() {
                let _ = server.begin(stream);
            }
        }
        for event in events.iter().filter(|event| event.token().0 >= FIRST_CONNECTION && gate.is_open()) {
            server.attend(event.token());
        }
    }
    Ok(())
}

/// In nanoseconds, by the clock that all processes of the machine have.
fn now() -> u128 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default().as_nanos()
}
