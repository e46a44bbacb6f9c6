//! Real connections on the loopback, and books that change while they are looked at.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::*;

/// The side that has connected, and the one that has accepted.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    (client, server)
}

fn of(stream: &TcpStream) -> Position {
    Position::of(stream).expect("an answer").expect("a TCP connection")
}

/// Waits until what is known to come has come.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// A generator: the next number below a limit.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// A seed that is printed, or the one of POLLFLIP_SEED.
fn dice() -> Dice {
    let given = std::env::var("POLLFLIP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x5_eed1);
    println!("POLLFLIP_SEED={seed}");
    Dice(seed | 1)
}

#[test]
fn a_new_connection_has_read_and_written_nothing_on_either_side() {
    let (client, server) = pair();
    for stream in [&client, &server] {
        let position = of(stream);
        assert_eq!((position.read, position.written, position.unread), (0, 0, 0), "{position:?}");
        assert!(!position.finished && !position.peer_finished && !position.is_over, "{position:?}");
    }
}

#[test]
fn a_byte_that_is_only_looked_at_is_not_read() {
    let (mut client, server) = pair();
    client.write_all(b"look").expect("a write");
    let mut buffer = [0; 4];
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
    assert_eq!(recv(server.as_raw_fd(), &mut buffer, peek), Ok(4));
    let position = of(&server);
    assert_eq!((position.read, position.unread), (0, 4));
}

#[test]
fn the_end_of_the_peer_is_no_byte_read_or_unread_or_written() {
    let (mut client, mut server) = pair();
    client.write_all(&[7; 100]).expect("a write");
    server.read_exact(&mut [0; 30]).expect("a read");
    client.shutdown(Shutdown::Write).expect("an end");
    wait_until("the end comes", || of(&server).peer_finished);
    assert_eq!((of(&server).read, of(&server).unread), (30, 70));
    assert_eq!((of(&client).written, of(&client).finished), (100, true));
    // The end is read too, and changes nothing.
    assert_eq!(server.read_to_end(&mut Vec::new()).expect("an end"), 70);
    assert_eq!((of(&server).read, of(&server).unread), (100, 0));
    // Half of it goes on.
    server.write_all(&[8; 10]).expect("a write");
    client.read_exact(&mut [0; 10]).expect("a read");
    assert_eq!((of(&server).written, of(&client).read), (10, 10));
    server.shutdown(Shutdown::Write).expect("an end");
    wait_until("both ends come", || of(&client).is_over && of(&server).is_over);
    assert_eq!((of(&client).written, of(&server).written), (100, 10), "SYN and both FINs are acknowledged");
}

#[test]
fn an_end_that_waits_behind_bytes_is_not_written() {
    let (client, server) = pair();
    let mut written = 0;
    client.set_nonblocking(true).expect("a flag");
    // Until nothing more fits: some of it was never sent.
    while let Ok(bytes) = (&client).write(&[1; 65_536]) {
        written += bytes as u64;
    }
    client.shutdown(Shutdown::Write).expect("an end");
    let position = of(&client);
    assert_eq!((position.written, position.finished), (written, true));
    assert_eq!((&server).take(u64::MAX).read_to_end(&mut Vec::new()).expect("an end") as u64, written);
    wait_until("the end is acknowledged", || sys::tcp_queues(&client).expect("an answer").1 == 0);
    assert_eq!(of(&client).written, written);
}

#[test]
fn a_reset_leaves_the_counts_of_a_connection_as_they_were() {
    let (mut client, mut server) = pair();
    client.write_all(&[1; 100]).expect("a write");
    server.write_all(&[2; 5]).expect("a write");
    server.read_exact(&mut [0; 40]).expect("a read");
    wait_until("all has come", || of(&client).unread == 5 && of(&server).unread == 60);
    // Closed so, it sends an RST.
    setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    drop(client);
    wait_until("the reset comes", || of(&server).is_over);
    let position = of(&server);
    assert_eq!((position.read, position.written, position.unread), (40, 5, 60));
    assert!(position.peer_finished && position.finished);
}

#[test]
fn what_has_no_books_has_no_position() {
    let (one, _other) = UnixStream::pair().expect("a pair");
    assert_eq!(Position::of(&one).expect("an answer"), None);
    assert_eq!(Position::of(&std::fs::File::open("/dev/null").expect("a file")).expect("an answer"), None);
}

#[test]
fn a_listener_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let error = Position::of(&listener).expect_err("it is none");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("listener"), "{error}");
}

/// Two threads write in bursts at each other and close as they like. Each knows what it has read
/// and written itself; the kernel is asked from the start, while the other side's bytes come in.
#[test]
fn the_books_of_the_kernel_are_those_of_both_sides_while_bytes_arrive() {
    let mut dice = dice();
    let mut looks = 0;
    for round in 0..40 {
        let (client, server) = pair();
        let seeds = [dice.below(u64::MAX), dice.below(u64::MAX)];
        let side = |stream: TcpStream, seed: u64| {
            let mut dice = Dice(seed | 1);
            let (mut read, mut written, mut looks) = (0, 0, 0);
            let mut is_open = true;
            stream.set_nonblocking(true).expect("a flag");
            let mut buffer = vec![0; 70_000];
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(Instant::now() < deadline, "round {round}");
                if is_open && dice.below(3) == 0 {
                    let length = dice.below(buffer.len() as u64) as usize;
                    written += (&stream).write(&buffer[..length]).unwrap_or(0) as u64;
                }
                if is_open && (dice.below(40) == 0 || written > 4_000_000) {
                    stream.shutdown(Shutdown::Write).expect("an end");
                    is_open = false;
                }
                let length = dice.below(buffer.len() as u64) as usize + 1;
                let has_ended = match (&stream).read(&mut buffer[..length]) {
                    Ok(0) => true,
                    Ok(bytes) => {
                        read += bytes as u64;
                        false
                    }
                    Err(_) => false,
                };
                let position = of(&stream);
                looks += 1;
                assert!(position.written == written, "{position:?}, and {written} bytes were written, {looks} looks");
                let fin = u64::from(position.is_over);
                assert!((read..=read + fin).contains(&position.read), "{position:?}, and {read} bytes were read, {looks} looks");
                if has_ended && !is_open {
                    return looks;
                }
            }
        };
        looks += thread::scope(|scope| {
            let both = [(client, seeds[0]), (server, seeds[1])].map(|(stream, seed)| scope.spawn(move || side(stream, seed)));
            both.into_iter().map(|side| side.join().expect("no panic")).sum::<u32>()
        });
    }
    println!("{looks} looks");
    assert!(looks > 400, "{looks} looks");
}

/// One look at the books and one at the queues, as they come, do not belong together.
#[test]
fn books_that_change_between_two_looks_are_looked_at_again() {
    let (client, server) = pair();
    let stop = AtomicBool::new(false);
    let (mut wrong, mut looks) = (0, 0_u32);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = (&client).write(&[3; 50]);
            }
            client.shutdown(Shutdown::Both).expect("an end");
        });
        let mut read = 0;
        let mut buffer = [0; 4_000];
        let deadline = Instant::now() + Duration::from_secs(20);
        // Until it was seen that one look is not enough.
        while (wrong == 0 || looks < 1_000) && Instant::now() < deadline {
            read += (&server).read(&mut buffer).expect("bytes") as u64;
            let books = sys::tcp_books(&server).expect("books");
            let (unread, _) = sys::tcp_queues(&server).expect("queues");
            wrong += u32::from(books.received.checked_sub(unread.into()) != Some(read));
            looks += 1;
            let position = of(&server);
            if position.read != read {
                stop.store(true, Ordering::Relaxed);
                panic!("{position:?}, and {read} bytes were read");
            }
        }
        stop.store(true, Ordering::Relaxed);
        while !matches!((&server).read(&mut buffer), Ok(0) | Err(_)) {}
    });
    println!("of {looks} single looks {wrong} were wrong");
    assert!(wrong > 0, "nothing came between two looks");
}

const BOOKS: TcpBooks = TcpBooks { state: 1, received: 10, acknowledged: 21, sent: 25, sent_again: 5, unsent: 0 };

#[test]
fn only_books_that_stay_the_same_are_believed() {
    let looks = Cell::new(0);
    let books = || {
        looks.set(looks.get() + 1);
        // Two bytes come before the third look.
        Ok(TcpBooks { received: if looks.get() < 3 { 10 } else { 12 }, acknowledged: if looks.get() < 5 { 20 } else { 21 }, ..BOOKS })
    };
    let queues = || Ok((if looks.get() < 2 { 10 } else { 12 }, 0));
    // The first two looks agree already, and the queue between them as well.
    let position = settle(books, queues).expect("a position");
    assert_eq!((position.read, position.unread, looks.get()), (0, 10, 2));

    looks.set(0);
    let rising = || {
        looks.set(looks.get() + 1);
        Ok(TcpBooks { received: looks.get().min(7), ..BOOKS })
    };
    let position = settle(rising, || Ok((looks.get().min(7) as u32, 0))).expect("a position");
    assert_eq!((position.read, position.unread, looks.get()), (0, 7, 8), "the first two looks that are the same");
}

#[test]
fn books_that_never_rest_are_an_error_and_no_endless_loop() {
    let looks = Cell::new(0);
    let rising = || {
        looks.set(looks.get() + 1);
        Ok(TcpBooks { received: looks.get(), ..BOOKS })
    };
    let error = settle(rising, || Ok((0, 0))).expect_err("they never rest");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(looks.get(), u64::from(LOOKS) + 1);
}

#[test]
fn a_syn_is_told_by_the_bytes_that_were_sent() {
    let accepted = TcpBooks { acknowledged: 20, ..BOOKS };
    let on_its_way = TcpBooks { acknowledged: 17, ..accepted };
    assert_eq!(position(on_its_way, 0, 3).written, 20, "what is not acknowledged was sent");
    assert_eq!(position(BOOKS, 0, 0).written, 20, "the side that has connected");
    // Packets that were lost within this machine are counted as sent, and their repetition as well.
    let disturbed = TcpBooks { sent: 40, ..accepted };
    assert_eq!(position(disturbed, 0, 0).written, 20, "the acknowledgements count then");
    let memory_short = TcpBooks { sent_again: 17, ..accepted };
    assert_eq!(position(memory_short, 0, 0).written, 20);
}
