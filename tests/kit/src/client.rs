//! Clients of the service: echo connections, load, and raw frames for the coordination socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::hub::DEADLINE;

/// A connection to the echo server, greeted by a process of some generation.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    pub pid: u32,
    pub generation: u32,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("a connection")
    }

    pub fn try_open(address: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut reader = BufReader::new(stream);
        let (pid, generation) = greeting(&read_line(&mut reader)?);
        Ok(Connection { reader, pid, generation })
    }

    pub fn echo(&mut self, text: &str) {
        self.try_echo(text).expect("an echo");
    }

    pub fn try_echo(&mut self, text: &str) -> std::io::Result<()> {
        self.reader.get_mut().write_all(format!("{text}\n").as_bytes())?;
        let answer = read_line(&mut self.reader)?;
        assert_eq!(answer, text);
        Ok(())
    }
}

/// "pid P generation G".
pub fn greeting(line: &str) -> (u32, u32) {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["pid", pid, "generation", generation] => (pid.parse().expect("a pid"), generation.parse().expect("a generation")),
        _ => panic!("no greeting: {line:?}"),
    }
}

fn read_line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.pop() {
        Some('\n') => Ok(line),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Clients that go on and on until they are stopped; what fails is counted.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Half of them open a connection for each request, the others keep theirs for some hundred.
    pub fn start(address: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let client = |number: usize| {
            let (stop, served) = (stop.clone(), served.clone());
            let requests = if number.is_multiple_of(2) { 1 } else { 300 };
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let attempt = || -> std::io::Result<()> {
                        let mut connection = Connection::try_open(address)?;
                        for request in 0..requests {
                            connection.try_echo(&format!("request {request} of client {number}"))?;
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    };
                    if let Err(error) = attempt() {
                        failed.push(format!("client {number}: {error}"));
                    }
                }
                failed
            })
        };
        Load { clients: (0..clients).map(client).collect(), stop, served }
    }

    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// What has failed.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    }
}

/// A client of the coordination socket that writes what it likes.
#[derive(Debug)]
pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Raw {
        let stream = UnixStream::connect(path).expect("the coordination socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Raw(stream)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it is read");
    }

    /// Sends a frame.
    pub fn send(&mut self, json: &str) {
        self.write(&frame(json));
    }

    /// The same to a service that may have hung up, on one that was silent for too long.
    pub fn try_send(&mut self, json: &str) -> std::io::Result<()> {
        self.0.write_all(&frame(json))
    }

    /// The JSON of the next frame.
    pub fn receive(&mut self) -> String {
        self.try_receive().expect("an answer")
    }

    pub fn try_receive(&mut self) -> std::io::Result<String> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut json)?;
        Ok(String::from_utf8(json).expect("text"))
    }

    /// Waits until the service has hung up without saying more.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b"", "more came: {:?}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

pub fn frame(json: &str) -> Vec<u8> {
    let mut frame = (json.len() as u32).to_be_bytes().to_vec();
    frame.extend(json.as_bytes());
    frame
}
