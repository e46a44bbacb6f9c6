//! The proxy in front of an HTTP server, restarted under load.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use pollflip::restart_coordination_socket::request_restart;

use crate::examples::{example, listening};
use pollflip_kit::group::{DEADLINE, Group, has_ended, signal, state, wait_until};
use pollflip_kit::surroundings::directory;

pub(crate) const TRIALS: &[(&str, fn())] = &[
    ("tcp_proxy_restarts_under_load_without_a_failed_request", restarts_under_load),
    ("tcp_proxy_that_drains_refuses_who_comes", refuses),
    ("tcp_proxy_cuts_what_does_not_end_in_time", cuts),
    ("tcp_proxy_passes_half_closed_connections_on", half_closed),
    ("tcp_proxy_passes_on_that_a_client_is_silent_when_the_server_is_reached", silent),
];

const RESTARTS: usize = 10;
const CLIENTS: usize = 8;
/// How many requests a client makes over one connection.
const KEPT_ALIVE: usize = 40;
/// How many are answered before the next restart.
const BETWEEN: usize = 300;

fn start(to: SocketAddr, drain: &str) -> Group {
    let directory = directory();
    let mut command = example("tcp_proxy");
    command.args(["--listen", "127.0.0.1:0", "--to", &to.to_string(), "--drain", drain, "--socket"]);
    command.arg(directory.path().join("restart.sock"));
    Group::start(command, directory)
}

fn restarts_under_load() {
    let group = start(http_server(), "600");
    let (address, mut current) = listening(&group, 0);
    let load = Load::start(address);
    let mut generations = vec![current];
    for number in 1..=RESTARTS {
        load.wait_for(number * BETWEEN);
        current = request_restart(group.socket(), DEADLINE, |_| {}).expect("a restart");
        assert_eq!(listening(&group, number), (address, current));
        generations.push(current);
    }
    load.wait_for((RESTARTS + 1) * BETWEEN);
    let (served, failed) = load.stop();
    println!("tcp_proxy: {served} requests over {RESTARTS} restarts, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(generations.iter().rev().skip(1).all(|old| *old != current));
    signal(current, Signal::SIGTERM);
    for pid in generations {
        wait_until("every generation to end", || has_ended(pid));
    }
    assert_eq!(group.stderr(), "");
}

/// Nobody waits in a queue that nobody looks at any more.
fn refuses() {
    let group = start(http_server(), "600");
    let (address, pid) = listening(&group, 0);
    let mut kept = Client::connect(address).expect("a connection");
    kept.get("/before").expect("an answer");
    signal(pid, Signal::SIGTERM);
    wait_until("a refusal", || Client::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused));
    kept.get("/while it drains").expect("an answer");
    drop(kept);
    wait_until("its end", || has_ended(pid));
}

fn cuts() {
    let group = start(http_server(), "0.2");
    let (address, first) = listening(&group, 0);
    let mut client = Client::connect(address).expect("a connection");
    client.get("/before").expect("an answer");
    request_restart(group.socket(), DEADLINE, |_| {}).expect("a restart");
    assert!(client.get("/after the end").is_err() || client.read_to_its_end());
    wait_until("the old process to end", || has_ended(first));
    assert!(group.stderr().contains("1 connections have not ended in time and are cut"), "{}", group.stderr());
    Client::connect(address).expect("a connection").get("/new").expect("an answer");
}

/// A server that answers when it has heard everything: the client ends its half first.
fn half_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("everything");
        stream.write_all(&all).expect("it is read");
    });
    let group = start(address, "600");
    let mut stream = TcpStream::connect(listening(&group, 0).0).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    // More than all buffers hold.
    let sent: Vec<u8> = (0..8_000_000_u32).flat_map(|number| number.to_le_bytes()[..1].to_vec()).collect();
    let mut writer = stream.try_clone().expect("a descriptor");
    let writing = thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write_all(&sent).expect("it is read");
            writer.shutdown(std::net::Shutdown::Write).expect("it is open");
        }
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("everything");
    writing.join().expect("no panic");
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
}

/// A client that has nothing to say ends its half while the server, which speaks first, has yet to be reached.
fn silent() {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("an address");
    // Its queue takes one, and who comes after that tries again and again.
    listen(&socket, Backlog::new(0).expect("a length")).expect("a listener");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    let _first = TcpStream::connect(address).expect("a connection");
    let group = start(address, "600");
    let mut stream = TcpStream::connect(listening(&group, 0).0).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    // It sleeps when it has seen that, and the kernel is still trying.
    let trying = format!("{:04X} 02 ", address.port());
    wait_until("the proxy to wait for the server", || {
        fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&trying)) && state(group.first()) == Some('S')
    });
    let _first = listener.accept().expect("the first");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"hello").expect("it is read");
    });
    let mut received = String::new();
    stream.read_to_string(&mut received).expect("everything");
    assert_eq!(received, "hello");
}

// ---- an HTTP server, as small as one can be ----

/// Answers each request with its path. Keeps connections until their clients end them.
fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A connection that breaks is missed by its client.
            thread::spawn(move || drop(answer(stream)));
        }
    });
    address
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut path = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => path = path.or_else(|| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1").map(str::to_owned)),
            }
        }
        let body = path.unwrap_or_default();
        reader.get_mut().write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
}

// ---- its clients ----

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Client(BufReader::new(stream)))
    }

    fn get(&mut self, path: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n").as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut body = vec![0; path.len()];
        self.0.read_exact(&mut body)?;
        let right = head.starts_with("HTTP/1.1 200") && body == path.as_bytes();
        if right { Ok(()) } else { Err(std::io::Error::other(format!("{head}{}", String::from_utf8_lossy(&body)))) }
    }

    fn read_to_its_end(&mut self) -> bool {
        self.0.read_to_end(&mut Vec::new()).map_or(true, |length| length == 0)
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let client = |number: usize| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let connection = || -> std::io::Result<()> {
                        let mut client = Client::connect(address)?;
                        for request in 0..KEPT_ALIVE {
                            client.get(&format!("/client/{number}/request/{request}"))?;
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    };
                    if let Err(error) = connection() {
                        failed.push(format!("client {number}: {error}"));
                        if failed.len() > 100 {
                            break;
                        }
                    }
                }
                failed
            })
        };
        Load { clients: (0..CLIENTS).map(client).collect(), stop, served }
    }

    fn wait_for(&self, count: usize) {
        wait_until("requests to be answered", || self.served.load(Ordering::Relaxed) >= count);
    }

    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        (self.served.load(Ordering::Relaxed), failed)
    }
}
