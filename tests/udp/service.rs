//! A server of UDP flows: it echoes what belongs to a flow that it knows, and says of all else that it knows no such flow. Whether it was
//! orphaned is told by the hub.
//!
//! Its plan can have acts for the steps at which it is born and has its socket.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{self, ExitCode};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, connect, getsockname};
use pollflip::{Event, Mark, Owner, Restarter, UdpGroup};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
    apply_filter_all_threads,
};

use pollflip_kit::hub::Command;
use pollflip_kit::procfs;
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::{self, Linger, Plan, RunAs, Settings, Step};
use serde::{Deserialize, Serialize};
use udp_flows::protocol::{BEGIN, DATA, Datagram, END, UNKNOWN};

pub use pollflip_kit::service::{HUB, ROLE};

pollflip_kit::settings![Address, Name, Has, Marks, Generations, Deny];

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
    let (plan, settings) = service::begin();
    match Service::start(settings, plan).and_then(Service::serve) {
        Ok(()) => {
            say("ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error {error}"));
            ExitCode::from(2)
        }
    }
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

/// What a server can be told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Ends at once.
    End,
    /// Has the restarter stop: "stops".
    Stop,
    /// Gives its sockets up. Whether it had some.
    Remove,
    /// Connects a socket of the group that is not its own: "connected".
    Connect,
}

impl Command for Ask {}

/// What the program has of the address.
enum Flows {
    Group(UdpGroup),
    Plain,
}

struct Service {
    settings: Settings,
    restarter: Option<Restarter>,
    flows: Flows,
    socket: UdpSocket,
    known: HashSet<(SocketAddr, u32)>,
    completed: bool,
    is_silent: bool,
    told_to_end: bool,
}

impl Service {
    fn start(settings: Settings, mut plan: Plan) -> Result<Service, String> {
        if let Some(RunAs(user)) = settings.get() {
            // A successor is that user from birth, and has it already.
            for path in [service::directory(), service::directory().join(HUB)] {
                let _ = std::os::unix::fs::chown(&path, Some(user), None);
            }
        }
        settings.give_up_rights();
        plan.carry_out(Step::Born, &mut None);
        let denied = settings.get();
        match denied {
            Some(Deny::Born) => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
            Some(Deny::Ignored) => apply_filter_all_threads(&filter(0)).expect("a filter for all threads"),
            _ => {}
        }
        let mut restarter = settings.config().build().map_err(|error| format!("build {error}"))?;
        let address = settings.get().map_or("127.0.0.1:0".into(), |Address(address)| address);
        let text = |error: pollflip::Error| format!("socket {error}");
        let name = settings.get().map_or("flows".into(), |Name(name)| name);
        let (flows, socket) = match settings.get().unwrap_or(Has::Group) {
            Has::PlainSocket => (Flows::Plain, restarter.sockets().udp_socket(&name, &address).map_err(text)?),
            Has::Group => {
                let group = restarter.sockets().udp_group(&name, &address, mark(&settings)).map_err(text)?;
                let socket = group.socket().map_err(text)?;
                (Flows::Group(group), socket)
            }
        };
        say("claimed");
        let mut restarter = Some(restarter);
        plan.carry_out(Step::Claimed, &mut restarter);
        restarter.as_mut().expect("a restarter").ready().map_err(|error| format!("ready {error}"))?;
        match denied {
            Some(Deny::Serving) => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
            // The restart thread has none, and so no successor.
            Some(Deny::Granting) => apply_filter(&filter(libc::EPERM)).expect("a filter for this thread"),
            _ => {}
        }
        let at = socket.local_addr().map_err(|error| error.to_string())?;
        say(&format!("serving {at}"));
        Ok(Service { settings, restarter, flows, socket, known: HashSet::new(), completed: false, is_silent: false, told_to_end: false })
    }

    fn serve(mut self) -> Result<(), String> {
        while !self.told_to_end && (!self.completed || self.settings.has::<Linger>() || !self.known.is_empty()) {
            let hub = report::descriptor();
            #[allow(unsafe_code, reason = "the hub has a number alone")]
            // SAFETY: it stays open for the life of the process.
            let hub = unsafe { BorrowedFd::borrow_raw(hub) };
            let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(hub, PollFlags::POLLIN)];
            fds.extend(self.restarter.as_ref().map(|restarter| PollFd::new(restarter.as_fd(), PollFlags::POLLIN)));
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
            while let Some(event) = self.restarter.as_mut().and_then(Restarter::poll) {
                report::event(&event);
                self.completed |= matches!(event, Event::Completed(_));
                // Who has no group shares the socket, and leaves it to the other.
                self.is_silent = matches!((&event, &self.flows), (Event::HandedOff(_) | Event::Completed(_), Flows::Plain));
                if self.is_silent {
                    self.known.clear();
                }
            }
            self.answer_all().map_err(|error| format!("receive {error}"))?;
            for command in report::commands() {
                let answer = self.obey(&command);
                say(&format!("answer {answer}"));
            }
        }
        Ok(())
    }

    fn answer_all(&mut self) -> io::Result<()> {
        if self.is_silent {
            return Ok(());
        }
        let mut buffer = vec![0; 65_536];
        loop {
            let mut is_orphaned = false;
            let received = match (self.socket.recv_from(&mut buffer), &self.flows) {
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
        if let Flows::Group(group) = &self.flows {
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
        let mark = match &self.flows {
            Flows::Group(group) => group.mark(),
            Flows::Plain => 0,
        };
        let kind = if is_known { asked.kind } else { UNKNOWN };
        let answer = Datagram { mark, kind, pid: process::id(), ..asked };
        let _ = self.socket.send_to(&answer.encode(), client);
    }

    fn obey(&mut self, command: &Ask) -> String {
        match command {
            Ask::End => {
                self.told_to_end = true;
                "ends".into()
            }
            Ask::Stop => {
                if let Some(restarter) = &mut self.restarter {
                    restarter.stop();
                }
                "stops".into()
            }
            Ask::Remove => self.restarter.as_mut().is_some_and(|restarter| restarter.sockets().remove("flows")).to_string(),
            Ask::Connect => connect_another(&self.socket).map_or_else(|error| error.to_string(), |()| "connected".into()),
        }
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
