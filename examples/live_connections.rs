//! Live connections cross a restart, each with its state: how much its client has sent, ever.
//!
//!     cargo run --example live_connections    # serves at 127.0.0.1:7000, or at a given address
//!     nc 127.0.0.1 7000                       # tells after each line how many bytes have come
//!     kill -USR1 PID                          # nc stays connected, and the count goes on
//!
//! The test at the end is the rehearsal of `save` and `load`.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use pollflip::{Error, Event, Gate, Handover, Inheritance, RestartConfig, Restarter};
use std::io::{self, ErrorKind, Read, Write};
use std::{collections::HashMap, error, os::fd::AsRawFd, time::Duration};

/// By the number of the descriptor, which is the token too.
type Clients = HashMap<usize, (TcpStream, u64)>;

/// The gate is shut from `StateRequested` on, and opens again at `Failed`: what goes for new clients
/// goes for those that are here. Frozen, they leave the epoll, and nothing is read or written.
fn freeze_or_thaw(gate: &mut Gate<TcpListener>, clients: &mut Clients, restarter: &Restarter, registry: &Registry) -> io::Result<()> {
    let was_open = gate.is_open();
    gate.follow(restarter, registry)?;
    let mut all = clients.iter_mut().map(|(id, (stream, _))| (Token(*id), stream));
    match (was_open, gate.is_open()) {
        (true, false) => all.try_for_each(|(_, stream)| registry.deregister(stream)),
        (false, true) => all.try_for_each(|(id, stream)| registry.register(stream, id, Interest::READABLE)),
        _ => Ok(()),
    }
}

fn save(clients: &Clients, mut handover: Handover) -> io::Result<()> {
    for (id, (stream, count)) in clients {
        handover.fd(&format!("client/{id}"), stream)?;
        handover.bytes(&format!("count/{id}"), &count.to_le_bytes())?;
    }
    handover.send();
    Ok(())
}

fn load(mut from: Inheritance) -> Result<Clients, Box<dyn error::Error>> {
    let mut clients = Clients::new();
    for name in from.names() {
        let Some(id) = name.strip_prefix("client/") else { continue };
        let count = from.bytes(&format!("count/{id}"))?.ok_or("a client without a count")?;
        let stream = TcpStream::from_std(from.fd(&name).ok_or("a client without a stream")?);
        clients.insert(stream.as_raw_fd() as usize, (stream, u64::from_le_bytes(count[..].try_into()?)));
    }
    Ok(clients)
}

fn read(clients: &mut Clients, id: usize, registry: &Registry) -> io::Result<()> {
    while let Some((stream, count)) = clients.get_mut(&id) {
        match stream.read(&mut [0; 4096]) {
            Ok(length @ 1..) => {
                *count += length as u64;
                let _ = writeln!(stream, "{count} bytes so far"); // lost on a client that never reads
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            _ => {
                registry.deregister(stream)?; // a new process that is given up may still have it
                clients.remove(&id);
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn error::Error>> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut restarter = RestartConfig::new().build()?;
    poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
    let listener = restarter.sockets().tcp_listener("live", std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into()))?;
    let address = listener.local_addr()?;
    let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
    let mut clients = Clients::new();
    if let Some(old) = restarter.predecessor() {
        match old.receive(Duration::from_secs(5)) {
            Err(why @ Error::PredecessorGone { .. }) => eprintln!("{why}"), // and its clients are gone
            state => clients = load(state?).inspect_err(|why| old.refuse(&why.to_string()))?,
        }
    }
    restarter.ready()?;
    freeze_or_thaw(&mut gate, &mut clients, &restarter, poll.registry())?;
    println!("listening on {address}, pid {}", std::process::id());
    while !gate.is_closed() {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            freeze_or_thaw(&mut gate, &mut clients, &restarter, poll.registry())?;
            match event {
                Event::StateRequested(handover) => drop(save(&clients, handover)), // or `Failed` comes
                Event::HandedOff(_) => clients.clear(),
                _ => {}
            }
        }
        while let Ok(Some((mut stream, _))) = gate.accept() {
            let id = stream.as_raw_fd() as usize;
            poll.registry().register(&mut stream, Token(id), Interest::READABLE)?;
            clients.insert(id, (stream, 0));
        }
        for event in events.iter().filter(|_| gate.is_open()) {
            read(&mut clients, event.token().0, poll.registry())?;
        }
    }
    Ok(())
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let clients = HashMap::from([(7, (TcpStream::from_std(listener.accept().unwrap().0), 42))]);
    let loaded = load(Handover::rehearse(|handover| save(&clients, handover).unwrap()).unwrap()).unwrap();
    let found: Vec<_> = loaded.values().map(|(stream, count)| (stream.peer_addr().unwrap(), *count)).collect();
    assert_eq!(found, [(client.local_addr().unwrap(), 42)]);
}
