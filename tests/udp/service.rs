//! A server of UDP flows: it echoes what belongs to a flow that it knows, and says of all else that it knows no such flow. Whether it was
//! orphaned is told by the hub.
//!
//! Settings, lines of `key=value`: `address`, `bits` of byte `offset` or `quic` (the length of connection IDs), `generations`, `kind`
//! (`group` or `plain`) and its `name`, `probation_ms`, `uid`, `linger`, `keep` (`yes`), `hold` (at `born` or `claimed`: waits there until it
//! is told to go on), and `deny`: from when on no program is taken for a group. At `born` and `serving` no process from this one on can have
//! one, at `granting` this one alone cannot, and with `ignored` the kernel says yes from the start and does nothing.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{self, ExitCode};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, connect, getsockname};
use pollflip::{Event, Mark, Owner, RestartConfig, Restarter, UdpGroup};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
    apply_filter_all_threads,
};

use pollflip_kit::hub::Command;
use pollflip_kit::procfs;
use pollflip_kit::service;
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::settings::Settings;
use serde::{Deserialize, Serialize};
use udp_flows::protocol::{BEGIN, DATA, Datagram, END, UNKNOWN};

pub use pollflip_kit::service::{COORDINATION, HUB, ROLE};

pub fn main() -> ExitCode {
    let (_, settings) = service::begin();
    let directory = settings.directory().to_owned();
    match Service::start(settings, &directory).and_then(Service::serve) {
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
    let mark = match settings.number("quic") {
        Some(length) => Mark::quic(length as u8),
        None => Mark::byte(settings.number("offset").unwrap_or(0) as u16, settings.number("bits").unwrap_or(0xf0) as u8),
    };
    settings.number("generations").map_or(mark, |generations| mark.generations(generations as u8))
}

fn hold_at(settings: &Settings, step: &str) {
    if settings.get("hold") == Some(step) {
        report::wait_for_go();
    }
}

fn deny_at(settings: &Settings, step: &str) {
    let is_meant = |word: &str| settings.get("deny") == Some(word);
    match step {
        "born" if is_meant("born") => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
        "born" if is_meant("ignored") => apply_filter_all_threads(&filter(0)).expect("a filter for all threads"),
        "serving" if is_meant("serving") => apply_filter_all_threads(&filter(libc::EPERM)).expect("a filter for all threads"),
        // The restart thread has none, and so no successor.
        "serving" if is_meant("granting") => apply_filter(&filter(libc::EPERM)).expect("a filter for this thread"),
        _ => {}
    }
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
    fn start(settings: Settings, directory: &Path) -> Result<Service, String> {
        if let Some(uid) = settings.number("uid") {
            let uid = nix::unistd::Uid::from_raw(uid as u32);
            // A successor is that user from birth, and has it already.
            for path in [directory.to_owned(), directory.join(HUB)] {
                let _ = nix::unistd::chown(&path, Some(uid), None);
            }
            nix::unistd::setresuid(uid, uid, uid).expect("another user");
        }
        hold_at(&settings, "born");
        deny_at(&settings, "born");
        let mut config = RestartConfig::new().coordination_socket(directory.join(COORDINATION)).ready_timeout(Duration::from_secs(120));
        config = config.keep(settings.get("keep") == Some("yes"));
        if let Some(probation) = settings.number("probation_ms") {
            config = config.probation(Duration::from_millis(probation));
        }
        let mut restarter = config.build().map_err(|error| format!("build {error}"))?;
        let address = settings.get("address").unwrap_or("127.0.0.1:0");
        let text = |error: pollflip::Error| format!("socket {error}");
        let name = settings.get("name").unwrap_or("flows");
        let (flows, socket) = if settings.get("kind") == Some("plain") {
            (Flows::Plain, restarter.sockets().udp_socket(name, address).map_err(text)?)
        } else {
            let group = restarter.sockets().udp_group(name, address, mark(&settings)).map_err(text)?;
            let socket = group.socket().map_err(text)?;
            (Flows::Group(group), socket)
        };
        say("claimed");
        hold_at(&settings, "claimed");
        restarter.ready().map_err(|error| format!("ready {error}"))?;
        deny_at(&settings, "serving");
        let at = socket.local_addr().map_err(|error| error.to_string())?;
        say(&format!("serving {at}"));
        Ok(Service {
            settings,
            restarter: Some(restarter),
            flows,
            socket,
            known: HashSet::new(),
            completed: false,
            is_silent: false,
            told_to_end: false,
        })
    }

    fn serve(mut self) -> Result<(), String> {
        while !self.told_to_end && (!self.completed || self.settings.get("linger").is_some() || !self.known.is_empty()) {
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
