//! Live connections cross a restart, each with its state: how much its client has sent, ever.
//!
//!     cargo run --example live_connections    # serves at 127.0.0.1:7000, or at a given address
//!     nc 127.0.0.1 7000                       # tells after each line how many bytes have come
//!     kill -USR1 PID                          # nc stays connected, and the count goes on
//!
//! The connections go ahead, while the old process serves them. The counts go once it has frozen.
//! The test at the end is the rehearsal of both.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::{Arrival, Error, Event, Gate, Handover, Inheritance, Precopy, RestartConfig, Restarter, Sweep, hang_up};
use std::io::{self, ErrorKind, Read, Write};
use std::{collections::BTreeMap, error, time::Duration};

const LIMIT: Duration = Duration::from_secs(5);

/// By their numbers, which are their tokens too. A process gives none out twice.
type Clients = BTreeMap<usize, (TcpStream, u64)>;

/// The old process, while it serves: as many as there is room for. Returns which number is next.
fn give(precopy: &mut Precopy, from: usize, clients: &Clients) -> usize {
    let some: Vec<_> = clients.range(from..).take(precopy.room()).collect();
    let next = some.last().map_or(from, |(id, _)| *id + 1);
    let _ = precopy.fds(some.into_iter().map(|(id, (stream, _))| (id.to_string(), stream)));
    if clients.range(next..).next().is_none() {
        precopy.complete();
    }
    next
}

/// The old process, frozen: gives who has not gone ahead, and the counts.
fn save(clients: &Clients, from: usize, mut handover: Handover) -> io::Result<()> {
    handover.fds(clients.range(from..).map(|(id, (stream, _))| (id.to_string(), stream)))?;
    let counts = clients.iter().flat_map(|(id, (_, count))| [*id as u64, *count]);
    handover.bytes("counts", &counts.flat_map(u64::to_le_bytes).collect::<Vec<_>>())?;
    handover.send();
    Ok(())
}

/// The new process: registers each as it comes, and neither reads nor writes it before the grant.
fn take(clients: &mut Clients, registry: &Registry, arrival: Arrival) -> io::Result<()> {
    let id = |name: String| name.parse().map_err(io::Error::other);
    match arrival {
        Arrival::Given(name, stream) => {
            let (id, mut stream) = (id(name)?, TcpStream::from_std(stream.into()));
            registry.register(&mut stream, Token(id), Interest::READABLE)?;
            clients.insert(id, (stream, 0));
            Ok(())
        }
        Arrival::Gone(name) => close(clients, registry, id(name)?),
        _ => Ok(()),
    }
}

/// The new process: all clients are here.
fn load(clients: &mut Clients, mut state: Inheritance) -> Result<(), Box<dyn error::Error>> {
    let counts = state.bytes("counts")?.ok_or("no counts have come")?;
    let mut numbers = counts.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    while let (Some(id), Some(count)) = (numbers.next(), numbers.next()) {
        clients.get_mut(&(id as usize)).ok_or("a count without a client")?.1 = count;
    }
    Ok(())
}

/// Another process may have it too: then the poll goes on telling of it, and the client hears nothing.
fn close(clients: &mut Clients, registry: &Registry, id: usize) -> io::Result<()> {
    let Some((mut stream, _)) = clients.remove(&id) else { return Ok(()) };
    registry.deregister(&mut stream)?;
    hang_up(stream);
    Ok(())
}

/// While clients go ahead: those with lower numbers have gone.
type Ahead = Option<(Precopy, usize)>;

fn read(clients: &mut Clients, ahead: &mut Ahead, registry: &Registry, id: usize) -> io::Result<()> {
    while let Some((stream, count)) = clients.get_mut(&id) {
        match stream.read(&mut [0; 4096]) {
            Ok(length @ 1..) => {
                *count += length as u64;
                let _ = writeln!(stream, "{count} bytes so far"); // lost on a client that never reads
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            _ => {
                close(clients, registry, id)?;
                ahead.iter_mut().for_each(|(precopy, _)| precopy.gone(&id.to_string()));
            }
        }
    }
    Ok(())
}

/// While the gate is shut this process is frozen: only the restart wakes it. What clients send waits
/// in the poll.
fn next_event(restarter: &mut Restarter, gate: &Gate<TcpListener>) -> Option<Event> {
    match gate.is_open() || gate.is_closed() {
        true => restarter.poll(),
        false => restarter.wait(Duration::MAX),
    }
}

fn main() -> Result<(), Box<dyn error::Error>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut restarter = RestartConfig::new().build()?;
    poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
    let listener = restarter.sockets().tcp_listener("live", std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into()))?;
    let address = listener.local_addr()?;
    let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
    let (mut clients, mut sweep) = (Clients::new(), Sweep::default());
    if let Some(old) = restarter.predecessor() {
        let ahead = old.receive_precopy(LIMIT, |arrival| take(&mut clients, poll.registry(), arrival));
        sweep.look(&mut poll)?; // or the first poll after the grant goes through all that has happened
        match ahead.and_then(|_| old.receive_each(LIMIT, |arrival| take(&mut clients, poll.registry(), arrival))) {
            Err(why @ Error::PredecessorGone { .. }) => {
                eprintln!("{why}");
                clients.clear(); // their counts are lost
            }
            state => load(&mut clients, state?).inspect_err(|why| old.refuse(&why.to_string()))?,
        }
    }
    restarter.ready()?;
    gate.follow(&restarter, poll.registry())?;
    println!("listening on {address}, pid {}", std::process::id());
    let (mut next, mut ahead) = (clients.keys().last().map_or(2, |id| id + 1), Ahead::None);
    for event in sweep {
        read(&mut clients, &mut ahead, poll.registry(), event.token().0)?;
    }
    while !gate.is_closed() {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            read(&mut clients, &mut ahead, poll.registry(), event.token().0)?;
        }
        while let Ok(Some((mut stream, _))) = gate.accept() {
            poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
            clients.insert(next, (stream, 0));
            next += 1;
        }
        while let Some(event) = next_event(&mut restarter, &gate) {
            gate.follow(&restarter, poll.registry())?;
            match event {
                Event::PrecopyRequested(precopy) => ahead = Some((precopy, 0)),
                Event::StateRequested(handover) => {
                    let _ = save(&clients, ahead.take().map_or(0, |(_, from)| from), handover); // or `Failed` comes
                }
                Event::Failed(_) => ahead = None,
                _ => {}
            }
            if let Some((precopy, from)) = &mut ahead {
                *from = give(precopy, *from, &clients);
            }
        }
    }
    Ok(()) // the clients, which are the successor's, are dropped only now
}

#[test]
fn what_is_given_is_what_is_loaded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peers = [7, 9].map(|id| (id, std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()));
    let clients: Clients = peers.iter().map(|(id, _)| (*id, (TcpStream::from_std(listener.accept().unwrap().0), 42))).collect();
    // All go ahead; none does, and all go when the old process has frozen.
    for from in [10, 0] {
        let ahead = |precopy: &mut Precopy| assert!(from == 0 || give(precopy, 0, &clients) == from);
        let (mut came, mut state) = Handover::rehearse_precopy(ahead, |handover| save(&clients, from, handover).unwrap()).unwrap();
        let rest = state.names().into_iter().filter(|name| name != "counts");
        came.extend(rest.map(|name| Arrival::Given(name.clone(), state.fd(&name).unwrap())).collect::<Vec<_>>());
        let (mut loaded, poll) = (Clients::new(), Poll::new().unwrap());
        came.into_iter().for_each(|arrival| take(&mut loaded, poll.registry(), arrival).unwrap());
        load(&mut loaded, state).unwrap();
        let found: Vec<_> = loaded.iter().map(|(id, (stream, count))| (*id, stream.peer_addr().unwrap(), *count)).collect();
        assert_eq!(found, peers.each_ref().map(|(id, peer)| (*id, peer.local_addr().unwrap(), 42)));
    }
}
