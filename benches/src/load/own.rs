//! Clients for a machine without wrk: they keep their connections, and repeat nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Tally;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    pub fn start(address: SocketAddr, connections: usize) -> io::Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = stop.clone();
            thread::Builder::new().stack_size(128 * 1024).spawn(move || ask_on(address, &stop))
        };
        let clients = (0..connections).map(client).collect::<io::Result<_>>()?;
        Ok(Load { stop, clients })
    }

    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .filter_map(|client| client.join().ok())
            .fold(Tally::default(), |all, one| Tally { requests: all.requests + one.requests, failed: all.failed + one.failed })
    }
}

fn ask_on(address: SocketAddr, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        match ask(&mut connection, address) {
            Ok(true) => tally.requests += 1,
            Ok(false) => {
                tally.requests += 1;
                connection = None;
            }
            Err(_) => {
                tally.failed += 1;
                connection = None;
            }
        }
    }
    tally
}

/// Whether the connection lives on after the answer.
fn ask(connection: &mut Option<TcpStream>, address: SocketAddr) -> io::Result<bool> {
    let stream = match connection {
        Some(stream) => stream,
        none => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.set_nodelay(true)?;
            none.insert(stream)
        }
    };
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&chunk[..count]),
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&answer).map_err(|_| ErrorKind::InvalidData)?;
        let httparse::Status::Complete(head) = parsed else { continue };
        let value = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
        let length = value("content-length").and_then(|text| str::from_utf8(text).ok()?.parse::<usize>().ok());
        if response.code != Some(200) || length.is_none() {
            return Err(ErrorKind::InvalidData.into());
        }
        if length.is_some_and(|length| answer.len() >= head + length) {
            return Ok(!value("connection").is_some_and(|text| text.eq_ignore_ascii_case(b"close")));
        }
    }
}
