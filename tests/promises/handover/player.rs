//! A client of the service that never connects again.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use crate::dialects::Predecessor;
use crate::service;
use crate::taking::Take;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, Process};
use pollflip_kit::service::set;

/// A service whose first process is a predecessor of that kind; and its successor, a real one.
pub fn with_predecessor(how: Predecessor) -> (Service, Process, Process) {
    with_predecessor_and(how, Take::All)
}

/// The same with a successor that takes the state in that way.
pub fn with_predecessor_and(how: Predecessor, take: Take) -> (Service, Process, Process) {
    let service = Setup::new().set(take).plan(set(how)).launch();
    let old = service.first();
    old.says("waits");
    old.go();
    let new = service.hub.nth(1);
    (service, old, new)
}

#[derive(Debug)]
pub enum Player {
    Tcp(BufReader<TcpStream>),
    Unix(BufReader<UnixStream>),
}

impl Player {
    /// A connection that the service holds.
    pub fn tcp(service: &Service) -> Player {
        let stream = TcpStream::connect(service.address()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut player = Player::Tcp(BufReader::new(stream));
        player.echo("hello");
        player
    }

    pub fn unix(service: &Service) -> Player {
        let stream = UnixStream::connect(service.path(service::UNIX)).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut player = Player::Unix(BufReader::new(stream));
        player.echo("hello");
        player
    }

    pub fn write(&mut self, text: &str) {
        match self {
            Player::Tcp(stream) => stream.get_mut().write_all(text.as_bytes()),
            Player::Unix(stream) => stream.get_mut().write_all(text.as_bytes()),
        }
        .expect("it is taken");
    }

    /// The next line that is echoed, and by which process.
    pub fn hear(&mut self) -> (u32, String) {
        let mut line = String::new();
        match self {
            Player::Tcp(stream) => stream.read_line(&mut line),
            Player::Unix(stream) => stream.read_line(&mut line),
        }
        .expect("an answer");
        let (pid, text) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("no answer but {line:?}"));
        (pid.parse().expect("a pid"), text.into())
    }

    /// Says something, and returns who has echoed it.
    pub fn echo(&mut self, text: &str) -> u32 {
        self.write(&format!("{text}\n"));
        let (pid, echoed) = self.hear();
        assert_eq!(echoed, text);
        pid
    }

    /// Says that it will say nothing more.
    pub fn finish(&mut self) {
        match self {
            Player::Tcp(stream) => stream.get_ref().shutdown(Shutdown::Write),
            Player::Unix(stream) => stream.get_ref().shutdown(Shutdown::Write),
        }
        .expect("a connection");
    }

    /// Waits until the other side has closed it.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let result = match self {
            Player::Tcp(stream) => stream.read_to_end(&mut rest),
            Player::Unix(stream) => stream.read_to_end(&mut rest),
        };
        match result {
            Ok(_) => assert_eq!(rest, b""),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
