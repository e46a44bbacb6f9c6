//! What the rule of the ledger costs, beside a read and a write. Nothing is asserted of it:
//! `cargo test --release --test ledger_cost -- --ignored --nocapture` prints it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pollflip::ledger::{Account, Advance, Ledger};
use std::os::fd::AsFd;

const ROUNDS: usize = 2_000;
const BLOCKS: usize = 40;

fn wait(socket: &impl AsFd) {
    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).expect("a poll");
}

/// Until there is no more to read, as behind an edge-triggered poll.
fn plain(mut connection: TcpStream) {
    let mut buffer = [0; 4_096];
    loop {
        wait(&connection);
        loop {
            match connection.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => connection.write_all(&buffer[..length]).expect("a write"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn recorded(mut account: Account<TcpStream>) {
    let mut buffer = [0; 4_096];
    loop {
        wait(account.connection());
        loop {
            let echo = account.advance(&mut buffer, |input, draft| {
                draft.state().clear();
                draft.state().extend((input.len() as u64).to_ne_bytes());
                draft.write_all(input).map(|()| input.len())
            });
            match echo.expect("work") {
                Advance::Worked => {}
                Advance::Idle => break,
                Advance::Finished => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The median of the microseconds that a round trip takes in a block of them.
fn round_trips(client: &mut TcpStream, length: usize) -> f64 {
    let (message, mut answer) = (vec![7; length], vec![0; length]);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        client.write_all(&message).expect("a write");
        client.read_exact(&mut answer).expect("a read");
    }
    start.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64
}

#[test]
#[ignore = "it measures"]
fn an_echo_with_and_without_a_ledger() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let ledger = Ledger::new("echo", 10, 16_384).expect("a ledger");
    let connect = || {
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let connection = listener.accept().expect("a connection").0;
        for socket in [&client, &connection] {
            socket.set_nodelay(true).expect("an option");
        }
        connection.set_nonblocking(true).expect("a flag");
        (client, connection)
    };
    let (mut one, connection) = connect();
    thread::spawn(move || plain(connection));
    let (mut other, connection) = connect();
    let account = ledger.begin(connection, b"").expect("an account");
    thread::spawn(move || recorded(account));
    for length in [100, 1_000, 4_000] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..BLOCKS {
            times[0].push(round_trips(&mut one, length));
            times[1].push(round_trips(&mut other, length));
        }
        let [without, with] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        println!("echo_bytes={length} read_write_us={without:.2} peek_record_take_us={with:.2} ratio={:.3}", with / without);
    }
}
