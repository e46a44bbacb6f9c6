//! The service under test: that of the kit, which is a server of UDP flows besides. It echoes what belongs to a flow that it knows, and says of all else that it knows no such flow. Whether it was
//! orphaned is told by the hub.
//!

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{self, ExitCode};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::libc;
use nix::sys::socket::{SockaddrStorage, connect, getsockname};
use pollflip::{Event, Mark, Owner, UdpGroup};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
    apply_filter_all_threads,
};

use pollflip_kit::hub::Command;
use pollflip_kit::procfs;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{self, Act, Capability, Core, RunAs, Settings, Socket};
use serde::{Deserialize, Serialize};
use udp_flows::protocol::{BEGIN, DATA, Datagram, END, UNKNOWN};

pub use pollflip_kit::service::{HUB, ROLE};

pollflip_kit::settings![Address, Name, Has, Marks, Generations, Deny];

/// None of the kit's.
const SOCKET: Token = Token(usize::MAX - 3);

/// Where it listens, if not at an address of 127.0.0.1.
#[derive(Debug, Serialize, Deserialize)]
pub struct Address(pub String);

/// By which name, if not "flows".
#[derive(Debug, Serialize, Deserialize)]
pub struct Name(pub String);

/// What it asks for: a group, if it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Has {
    Group,
    PlainSocket,
}

/// What the mark of a group is.
#[derive(Debug, Serialize, Deserialize)]
pub enum Marks {
    /// These bits of the byte at that offset.
    Byte(u16, u8),
    /// A part of connection IDs of that length.
    Quic(u8),
}

/// How many generations a group has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Generations(pub u8);

/// From when on no program is taken for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deny {
    /// From its birth on, to this process and those that it starts.
    Born,
    /// From when it serves.
    Serving,
    /// The same, to this process alone.
    Granting,
    /// The kernel says yes from the birth on, and does nothing.
    Ignored,
}

pub fn main() -> ExitCode {
    service::main_with(|_| Box::new(Server::default()))
}

fn mark(settings: &Settings) -> Mark {
    let mark = match settings.get().unwrap_or(Marks::Byte(0, 0xf0)) {
        Marks::Byte(offset, bits) => Mark::byte(offset, bits),
        Marks::Quic(length) => Mark::quic(length),
    };
    settings.get().map_or(mark, |Generations(count)| mark.generations(count))
}

/// With it the kernel answers so to a program for sockets that share an address, and does not look at it.
fn filter(errno: i32) -> BpfProgram {
    let is = |argument, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).expect("a condition");
    let rule = SeccompRule::new(vec![is(1, libc::SOL_SOCKET as u64), is(2, libc::SO_ATTACH_REUSEPORT_CBPF as u64)]).expect("a rule");
    let machine = std::env::consts::ARCH.try_into().expect("a machine that has filters");
    let rules = [(libc::SYS_setsockopt, vec![rule])].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), machine).expect("a filter");
    filter.try_into().expect("a program")
}

/// What it can be told to do besides.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Connects a socket of its group that is not its own: "connected".
    ConnectAnother,
}

impl Command for Ask {}

/// What the program has of the address.
enum Flows {
    Group(UdpGroup),
    Plain,
}

#[derive(Default)]
struct Server {
    has: Option<(Flows, UdpSocket)>,
    known: HashSet<(SocketAddr, u32)>,
    is_silent: bool,
}

impl Server {
    /// Nothing before that.
    fn has(&self) -> (&Flows, &UdpSocket) {
        self.has.as_ref().map(|(flows, socket)| (flows, socket)).expect("its socket")
    }

    fn answer_all(&mut self) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut buffer = vec![0; 65_536];
        loop {
            let mut is_orphaned = false;
            let (flows, socket) = self.has();
            let received = match (socket.recv_from(&mut buffer), flows) {
                (Err(error), Flows::Group(group)) if error.kind() == ErrorKind::WouldBlock => {
                    is_orphaned = true;
                    group.recv_orphaned(&mut buffer)
                }
                (received, _) => received,
            };
            match received {
                Ok((length, client)) => {
                    if is_orphaned {
                        say("orphan");
                    }
                    self.answer(&buffer[..length], client);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], client: SocketAddr) {
        let Some(asked) = Datagram::decode(bytes) else {
            say(&format!("datagram of {} bytes", bytes.len()));
            return;
        };
        if let (Flows::Group(group), _) = self.has() {
            // What is read is this process's, or nobody's.
            assert!(!matches!(group.owner(bytes), Owner::Earlier { .. }), "{:?}", group.owner(bytes));
        }
        let flow = (client, asked.flow);
        let is_known = match asked.kind {
            BEGIN => {
                self.known.insert(flow);
                true
            }
            DATA => self.known.contains(&flow),
            END => self.known.remove(&flow),
            _ => return,
        };
        let (flows, socket) = self.has();
        let mark = match flows {
            Flows::Group(group) => group.mark(),
            Flows::Plain => 0,
        };
        let kind = if is_known { asked.kind } else { UNKNOWN };
        let answer = Datagram { mark, kind, pid: process::id(), ..asked };
        let _ = socket.send_to(&answer.encode(), client);
    }
}

impl Capability for Server {
    fn born(&mut self, settings: &Settings) {
        if let Some(RunAs(user)) = settings.get() {
            // A successor is that user from birth, and has it already.
            for path in [service::directory(), service::directory().join(HUB)] {
                let _ = std::os::unix::fs::chown(&path, Some(user), None);
            }
        }
    }

    fn before_build(&mut self, settings: &Settings) {
        match settings.get() {
            Some(Deny::Born) => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
            Some(Deny::Ignored) => apply_filter_all_threads(&filter(0)).expect("a filter for all threads"),
            _ => {}
        }
    }

    fn sockets(&mut self, _: &mut Core) -> Option<Vec<Socket>> {
        Some(Vec::new())
    }

    fn built(&mut self, core: &mut Core) -> Result<(), String> {
        let settings = core.settings.clone();
        let address = settings.get().map_or("127.0.0.1:0".into(), |Address(address)| address);
        let name = settings.get().map_or("flows".into(), |Name(name)| name);
        let text = |error: pollflip::Error| format!("socket-error {error}");
        let sockets = core.restarter().sockets();
        let (flows, socket) = match settings.get().unwrap_or(Has::Group) {
            Has::PlainSocket => (Flows::Plain, sockets.udp_socket(&name, &address).map_err(text)?),
            Has::Group => {
                let group = sockets.udp_group(&name, &address, mark(&settings)).map_err(text)?;
                let socket = group.socket().map_err(text)?;
                (Flows::Group(group), socket)
            }
        };
        let readable = Interest::READABLE;
        core.registry.register(&mut SourceFd(&socket.as_raw_fd()), SOCKET, readable).map_err(|error| error.to_string())?;
        self.has = Some((flows, socket));
        say("claimed");
        Ok(())
    }

    fn ready(&mut self, core: &mut Core) -> Result<Vec<Socket>, String> {
        match core.settings.get() {
            Some(Deny::Serving) => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
            // The restart thread has none, and so no successor.
            Some(Deny::Granting) => apply_filter(&filter(libc::EPERM)).expect("a filter for this thread"),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn address(&self) -> Option<String> {
        Some(self.has().1.local_addr().expect("an address").to_string())
    }

    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_millis(50))
    }

    fn wakes(&mut self, _: &mut Core) -> Result<bool, String> {
        self.answer_all().map(|()| false).map_err(|error| format!("receive {error}"))
    }

    fn event(&mut self, _: &mut Core, event: Event) -> Result<Option<Event>, String> {
        // Who has no group shares the socket, and leaves it to the other.
        self.is_silent = matches!((&event, self.has()), (Event::HandedOff(_) | Event::Completed(_), (Flows::Plain, _)));
        if self.is_silent {
            self.known.clear();
        }
        Ok(None)
    }

    fn perform(&mut self, _: &mut Core, act: &Act) -> Option<String> {
        let Ask::ConnectAnother = act.other()?;
        Some(connect_another(self.has().1).map_or_else(|error| error.to_string(), |()| "connected".into()))
    }

    fn has_work(&self) -> bool {
        !self.known.is_empty()
    }
}

/// Connects the last socket at the address that is not this process's own.
fn connect_another(own: &UdpSocket) -> io::Result<()> {
    let identity = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| stat.st_ino);
    let (inode, address) = (identity(own.as_fd())?, own.local_addr()?);
    let numbers = procfs::descriptors(process::id()).into_iter().filter(|(_, what)| what.starts_with("socket:"));
    let mut others: Vec<_> = numbers
        .filter(|(number, what)| {
            let at = getsockname::<SockaddrStorage>(*number).ok().and_then(|at| at.as_sockaddr_in().map(|at| at.port()));
            at == Some(address.port()) && !what.contains(&inode.to_string())
        })
        .map(|(number, _)| number)
        .collect();
    others.sort_unstable();
    let last = others.last().copied().ok_or(ErrorKind::NotFound)?;
    Ok(connect(last, &SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 1], 9))))?)
}
