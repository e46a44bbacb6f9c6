//! The smallest server that can be restarted. It says what happens to it:
//!
//!     cargo run --example hello    # serves at 127.0.0.1:7000, or at an address that is given
//!     nc 127.0.0.1 7000            # tells which process serves
//!     kill -USR1 PID               # restarts it; kill PID ends it

use mio::{Events, Interest, Poll, Token, net::TcpListener};
use pollflip::{Event, Gate, RestartConfig};
use std::io::{ErrorKind, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pid = std::process::id();
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let mut poll = Poll::new()?;
    let mut restarter = RestartConfig::new().build()?;
    poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
    // Of the old process if there is one, or else bound. The gate is shut until this one serves.
    let listener = restarter.sockets().tcp_listener("hello", address)?;
    let address = listener.local_addr()?;
    let mut gate = Gate::new(TcpListener::from_std(listener), Token(0));
    restarter.ready()?; // from here on the old process may leave
    gate.follow(&restarter, poll.registry())?;
    println!("listening on {address}, pid {pid}");
    let mut events = Events::with_capacity(64);
    while !gate.is_closed() {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        while let Some(event) = restarter.poll() {
            gate.follow(&restarter, poll.registry())?;
            match event {
                Event::StateRequested(state) => state.send(), // none; a later release may have some
                Event::Spawned(new) => println!("{pid}: process {new} is getting ready"),
                Event::Failed(why) => println!("{pid}: goes on: {why}"),
                Event::Completed(new) => println!("{pid}: process {new} serves, this one ends"),
                _ => {}
            }
        }
        while let Ok(Some((mut client, _))) = gate.accept() {
            let _ = writeln!(client, "hello from process {pid}");
        }
    }
    Ok(())
}
