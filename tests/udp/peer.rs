//! A client that sends what a test wants.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use pollflip_kit::hub::DEADLINE;
use udp_flows::protocol::{BEGIN, DATA, Datagram};

#[derive(Debug)]
pub struct Peer {
    pub socket: UdpSocket,
    next: u32,
}

/// A flow as the client knows it.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub number: u32,
    pub mark: u8,
    /// The process that has begun it.
    pub pid: u32,
}

impl Peer {
    pub fn new(to: SocketAddr) -> Peer {
        let to = match to.ip() {
            ip if ip.is_unspecified() && to.is_ipv6() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), to.port()),
            _ => to,
        };
        let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).expect("a client");
        socket.connect(to).expect("an address");
        Peer { socket, next: 0 }
    }

    pub fn send(&self, mark: u8, kind: u8, flow: u32) {
        self.socket.send(&Datagram { mark, kind, flow, number: 1, pid: 0 }.encode()).expect("room");
    }

    /// Waits for an answer.
    pub fn hears(&self) -> Datagram {
        self.hears_within(DEADLINE).expect("an answer")
    }

    pub fn hears_within(&self, limit: Duration) -> Option<Datagram> {
        self.socket.set_read_timeout(Some(limit)).expect("a limit");
        let mut buffer = [0; 64];
        let length = self.socket.recv(&mut buffer).ok()?;
        Datagram::decode(&buffer[..length])
    }

    pub fn begins(&mut self) -> Flow {
        self.next += 1;
        self.send(0, BEGIN, self.next);
        let answer = self.hears();
        assert_eq!((answer.kind, answer.flow), (BEGIN, self.next));
        Flow { number: self.next, mark: answer.mark, pid: answer.pid }
    }

    /// A datagram of a flow, and who answers in which way.
    pub fn goes_on(&self, flow: Flow) -> (u32, u8) {
        self.send(flow.mark, DATA, flow.number);
        let answer = self.hears();
        assert_eq!(answer.flow, flow.number);
        (answer.pid, answer.kind)
    }

    /// It does, with the process that has begun it.
    pub fn stays(&self, flow: Flow) {
        assert_eq!(self.goes_on(flow), (flow.pid, DATA));
    }
}
