//! The clients: threads that make requests over plain blocking sockets and check every answer.
//! They repeat nothing: a request that was not answered in full, the first time, has failed.

use super::tally::{CONNECTING, Tally};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// An answer that takes longer is missing.
const DEADLINE: Duration = Duration::from_secs(10);
/// One answer in 32 is as long as this: it does not fit in a socket's buffer and takes a while.
const LONG_ANSWER: usize = 256 * 1024;
/// One request in 8 is a POST that comes in two pieces, so that some are half sent at a restart.
const BODY: &[u8] = &[b'.'; 2048];

pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    stop: AtomicBool,
    /// A new connection must not be answered by an older generation than this.
    oldest_generation: AtomicU32,
    bad_release: Mutex<Option<BadRelease>>,
    tally: Mutex<Tally>,
}

/// While it served, or might have, what it had in hand could die with it.
#[derive(Clone, Copy)]
struct BadRelease {
    over: Option<Instant>,
}

impl Load {
    /// Half of the connections are keep-alive, and half of those pause between requests.
    pub(crate) fn start(address: SocketAddr, connections: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            stop: AtomicBool::new(false),
            oldest_generation: AtomicU32::new(0),
            bad_release: Mutex::default(),
            tally: Mutex::default(),
        });
        let mut load = Self { shared, clients: Vec::new() };
        for number in 0..connections {
            let mut client = Client {
                shared: Arc::clone(&load.shared),
                keep_alive: number % 2 == 0,
                pauses: number % 4 == 2,
                connection: None,
                sound_at: None,
                turn: number, // not all in step
            };
            let thread = thread::Builder::new().name("client".into()).stack_size(256 * 1024);
            load.clients.push(thread.spawn(move || client.run())?);
        }
        Ok(load)
    }

    /// From now on new connections reach this generation or a later one.
    pub(crate) fn expect_generation(&self, generation: u32) {
        self.shared.oldest_generation.store(generation, Ordering::SeqCst);
    }

    /// From now on a release may serve that will die, and break the connections that it has then: those are counted apart.
    pub(crate) fn expect_bad_release(&self) {
        *lock(&self.shared.bad_release) = Some(BadRelease { over: None });
    }

    /// It is dead, and another serves.
    pub(crate) fn bad_release_is_over(&self) {
        *lock(&self.shared.bad_release) = Some(BadRelease { over: Some(Instant::now()) });
    }

    pub(crate) fn tally(&self) -> Tally {
        self.shared.tally().clone()
    }

    /// Lets the requests under way end.
    pub(crate) fn stop(mut self) -> Tally {
        self.end();
        self.tally()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            if client.join().is_err() {
                self.shared.fail("a client panicked".into());
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// Whether the bad release may have broken a connection, by what broke and when the connection was last known to be sound. One that
    /// was sound after that release's death, or was never made, has failed for another reason.
    fn is_lost(&self, reason: &str, sound_at: Option<Instant>) -> bool {
        let (Some(release), Some(sound_at)) = (*lock(&self.bad_release), sound_at) else { return false };
        let is_broken = reason.ends_with(": reset") || reason.ends_with(": closed");
        is_broken && release.over.is_none_or(|over| sound_at <= over)
    }

    fn fail(&self, reason: String) {
        *self.tally().failures.entry(reason).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Client {
    shared: Arc<Shared>,
    keep_alive: bool,
    pauses: bool,
    connection: Option<Connection>,
    /// When the connection in use, if there is one, was still to be made, or the last answer on it still to come.
    sound_at: Option<Instant>,
    turn: usize,
}

struct Connection {
    stream: TcpStream,
    /// Who answers on it: that changes with a restart, and never back.
    served_by: Option<Server>,
}

#[derive(Clone, Copy, PartialEq)]
struct Server {
    pid: u32,
    generation: u32,
}

struct Answer {
    from: Server,
    close: bool,
}

impl Client {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            if self.pauses {
                thread::sleep(Duration::from_millis(1 + self.turn as u64 % 5));
                self.notice_idle_close();
            }
            self.turn += 1;
            let begun = Instant::now();
            match self.request(begun) {
                Ok(answer) => self.succeeded(&answer, begun.elapsed()),
                Err(reason) if self.shared.is_lost(&reason, self.sound_at) => self.shared.tally().lost += 1,
                Err(reason) => {
                    let kind = if self.keep_alive { "keep-alive" } else { "one-shot" };
                    self.shared.fail(format!("{kind}: {reason}"));
                    thread::sleep(Duration::from_millis(10)); // a server that is gone fails fast
                }
            }
        }
    }

    fn succeeded(&self, answer: &Answer, took: Duration) {
        let mut tally = self.shared.tally();
        *if self.keep_alive { &mut tally.keep_alive } else { &mut tally.one_shot } += 1;
        tally.told_to_close += u64::from(self.keep_alive && answer.close);
        tally.slowest = tally.slowest.max(took);
        *tally.by_generation.entry(answer.from.generation).or_default() += 1;
    }

    /// A server may close a connection on which nothing is asked. It loses no request.
    fn notice_idle_close(&mut self) {
        let Some(connection) = &self.connection else { return };
        let stream = &connection.stream;
        let closed = stream.set_nonblocking(true).is_ok() && matches!(stream.peek(&mut [0]), Ok(0));
        let _ = stream.set_nonblocking(false);
        if closed {
            self.connection = None;
            self.shared.tally().closed_idle += 1;
        }
    }

    fn request(&mut self, begun: Instant) -> Result<Answer, String> {
        let deadline = begun + DEADLINE;
        let oldest = self.shared.oldest_generation.load(Ordering::SeqCst);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.sound_at = None;
                let made = self.connect(deadline)?;
                self.sound_at = Some(begun);
                made
            }
        };
        let (path, length) =
            if self.turn.is_multiple_of(32) { (format!("/bytes/{LONG_ANSWER}"), Some(LONG_ANSWER)) } else { ("/".to_string(), None) };
        connection.send(&path, self.turn % 8 == 1, self.keep_alive, deadline)?;
        let answer = connection.receive(length, deadline)?;
        // The answer came some time after that; how long ago, by now, nobody knows.
        self.sound_at = Some(begun);

        match connection.served_by.replace(answer.from) {
            None if answer.from.generation < oldest => return Err("answered by a process that was replaced".into()),
            Some(before) if before != answer.from && before.generation >= answer.from.generation => {
                return Err("answered by a process that had handed it over".into());
            }
            _ => {}
        }
        if answer.close || !self.keep_alive {
            connection.expect_end(deadline)?;
        } else {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self, deadline: Instant) -> Result<Connection, String> {
        let stream = TcpStream::connect_timeout(&self.shared.address, remaining(deadline))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| reason(CONNECTING, &error))?;
        self.shared.tally().connections += 1;
        Ok(Connection { stream, served_by: None })
    }
}

impl Connection {
    fn send(&mut self, path: &str, post: bool, keep_alive: bool, deadline: Instant) -> Result<(), String> {
        let method = if post { "POST" } else { "GET" };
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let body = if post { BODY } else { b"" };
        let length = body.len();
        let mut first = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{close}Content-Length: {length}\r\n\r\n").into_bytes();
        let (half, second) = body.split_at(length / 2);
        first.extend_from_slice(half);

        let mut write = || {
            self.stream.set_write_timeout(Some(remaining(deadline)))?;
            self.stream.write_all(&first)?;
            self.stream.write_all(second)
        };
        write().map_err(|error| reason("sending the request", &error))
    }

    fn receive(&mut self, length: Option<usize>, deadline: Instant) -> Result<Answer, String> {
        let mut input = Vec::new();
        loop {
            let arrived = self.read(&mut input, deadline);
            let step = if input.is_empty() { "waiting for the answer" } else { "in the middle of the answer" };
            if arrived.map_err(|error| reason(step, &error))? == 0 {
                return Err(format!("{step}: closed"));
            }
            if let Some(answer) = parse_answer(&input, length)? {
                return Ok(answer);
            }
        }
    }

    /// After its last answer the server closes, without a reset.
    fn expect_end(mut self, deadline: Instant) -> Result<(), String> {
        match self.read(&mut Vec::new(), deadline) {
            Ok(0) => Ok(()),
            Ok(_) => Err("more than the answer came".into()),
            Err(error) => Err(reason("after the last answer", &error)),
        }
    }

    fn read(&mut self, input: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(deadline)))?;
        let mut chunk = [0; 16 * 1024];
        let length = loop {
            match self.stream.read(&mut chunk) {
                // A program that was stopped for a while goes on with that.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        input.extend_from_slice(&chunk[..length]);
        Ok(length)
    }
}

/// `None` while it is not complete. `length` is what was asked for.
fn parse_answer(input: &[u8], length: Option<usize>) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let body = match head.parse(input) {
        Ok(httparse::Status::Complete(head)) => &input[head..],
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    if head.code != Some(200) {
        return Err(format!("status {}", head.code.unwrap_or_default()));
    }
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    };
    let announced: usize = value("content-length").and_then(|value| value.parse().ok()).ok_or("no Content-Length")?;
    if body.len() < announced {
        return Ok(None);
    }
    if body.len() > announced || length.is_some_and(|length| length != announced) {
        return Err("an answer of a wrong length".into());
    }
    let from = parse_body(body).ok_or("a wrong answer")?;
    Ok(Some(Answer { from, close: value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) }))
}

/// `pid N generation N`, a line end, and for a long answer dots.
fn parse_body(body: &[u8]) -> Option<Server> {
    let end = body.iter().position(|&byte| byte == b'\n')?;
    if body[end + 1..].iter().any(|&byte| byte != b'.') {
        return None;
    }
    let mut words = str::from_utf8(&body[..end]).ok()?.split(' ');
    let mut number = |name| if words.next()? == name { words.next()?.parse().ok() } else { None };
    Some(Server { pid: number("pid")?, generation: number("generation")? })
}

/// Never zero: to a socket that means "no deadline".
fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn reason(step: impl Display, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("{step}: refused"),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => format!("{step}: reset"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{step}: nothing for {} s", DEADLINE.as_secs()),
        _ => format!("{step}: {error}"),
    }
}
