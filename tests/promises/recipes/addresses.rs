//! Listeners that come and go between releases, and a group that is joined at each start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};

use crate::service::Recipe;
use nix::sys::signal::Signal;
use pollflip::Event;
use pollflip_kit::client::Load;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{Act, Capability, Config, Core, Kind, Linger, Plan, Socket, Step, at, ms, set, tcp};

pollflip_kit::trials![
    a_group_that_grows_and_shrinks_loses_no_connection,
    with_a_probation_a_group_grows_when_the_restart_is_final,
    an_address_that_overlaps_the_old_one_is_bound_beside_it_without_a_refusal,
    a_multicast_group_is_joined_once_for_all_generations,
];

/// Listeners that share an address or addresses that overlap: what a predecessor has is adopted, and the rest is bound when
/// this process serves.
pub struct Group {
    wanted: Vec<String>,
    adopted: Vec<String>,
    /// Whether the rest waits until the restart is final.
    is_late: bool,
    waiting: Vec<Socket>,
}

impl Group {
    pub fn new(wanted: Vec<String>, is_late: bool) -> Group {
        Group { wanted, adopted: Vec::new(), is_late, waiting: Vec::new() }
    }
}

impl Capability for Group {
    fn sockets(&mut self, core: &mut Core) -> Option<Vec<Socket>> {
        // All of them, also if fewer are wanted: connections wait in each.
        self.adopted = core.restarter().sockets().unclaimed();
        Some(self.adopted.iter().map(|name| named(Kind::Shared, name)).collect())
    }

    fn ready(&mut self, core: &mut Core) -> Result<Vec<Socket>, String> {
        let restarter = core.restarter();
        for name in &self.adopted {
            let adopted: OwnedFd =
                restarter.sockets().or_insert_with(name, || Err(std::io::ErrorKind::NotFound.into())).map_err(|error| error.to_string())?;
            // It may have been bound by a release that wanted no other beside it.
            setsockopt(&adopted, sockopt::ReusePort, &true).map_err(|error| error.to_string())?;
        }
        let names = self.wanted.iter().enumerate().map(|(number, address)| format!("{number}@{address}"));
        let missing: Vec<_> = names.filter(|name| !self.adopted.contains(name)).collect();
        say(&format!("adopts {} binds {}", self.adopted.len(), missing.len()));
        // The first release knows of no other.
        let kind = if self.wanted.len() == 1 && restarter.generation() == 0 { Kind::Tcp } else { Kind::Shared };
        let sockets = missing.iter().map(|name| named(kind, name)).collect();
        if self.is_late && restarter.generation() > 0 {
            self.waiting = sockets;
            return Ok(Vec::new());
        }
        Ok(sockets)
    }

    fn event(&mut self, core: &mut Core, event: Event) -> Result<Option<Event>, String> {
        if matches!(event, Event::Committed) {
            for socket in std::mem::take(&mut self.waiting) {
                core.claim(&socket)?;
                say(&format!("late {}", socket.name));
            }
        }
        Ok(Some(event))
    }
}

/// A socket by its name, `NUMBER@ADDRESS`.
fn named(kind: Kind, name: &str) -> Socket {
    kind.socket(name, name.split_once('@').expect("an address").1)
}

/// A port that was free a moment ago, and that nobody else takes: the test keeps it bound, without listening.
fn reserved() -> (OwnedFd, u16) {
    use nix::sys::socket::*;
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("an option");
    setsockopt(&socket, sockopt::ReusePort, &true).expect("an option");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("an address");
    let port = getsockname::<SockaddrIn>(socket.as_raw_fd()).expect("an address").port();
    (socket, port)
}

fn failing(service: &Service, change: &Plan) {
    for (plan, reason) in
        [(at(Step::Claimed, Act::Exit(3)), "exited with status 3"), (at(Step::Claimed, Act::Raise(Signal::SIGKILL)), "SIGKILL")]
    {
        service.plan_next(plan.and(change.clone()));
        let why = service.fail_to_restart();
        assert!(why.contains(reason), "{why}");
    }
}

fn a_group_that_grows_and_shrinks_loses_no_connection() {
    let (_reserved, port) = reserved();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let group = |count: usize| Recipe::Group(vec![address.to_string(); count]);
    let service = Setup::new().set(group(2)).start();
    let load = Load::start(address, 8);
    for round in 0..5 {
        for count in [4, 1, 2] {
            let change = set(group(count));
            failing(&service, &change);
            service.plan_next(change);
            let new = service.restart();
            let expected = if round == 0 && count == 4 { "2 binds 2" } else { "4 binds 0" };
            assert_eq!(new.says("adopts"), expected);
        }
    }
    let served = load.served();
    let failed = load.stop();
    println!("15 restarts and 30 failed ones of a group: {served} served, {} failed", failed.len());
    assert!(served > 0 && failed.is_empty(), "{failed:?}");
}

/// How many listen there.
fn listeners(address: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    let end = format!(":{:04X} 00000000:0000 0A", address.port());
    table.lines().filter(|line| line.contains(&end)).count()
}

fn with_a_probation_a_group_grows_when_the_restart_is_final() {
    let (_reserved, port) = reserved();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let group = |count: usize| Recipe::LateGroup(vec![address.to_string(); count]);
    let service = Setup::new().set(group(2)).set(Config::Probation(ms(120_000))).set(Linger).start();
    let first = service.first();
    let on_probation = |number| {
        service.plan_next(set(group(4)));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(number);
        new.says("serving");
        first.says_again("event HandedOff", number - 1);
        assert_eq!(listeners(address), 2);
        (new, asker)
    };
    // What waits when the successor dies, the predecessor takes in.
    let (new, asker) = on_probation(1);
    new.signal(Signal::SIGSTOP);
    wait_until("a stopped process", || procfs::state(new.pid) == Some('T'));
    let waiting: Vec<_> = (0..32).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    new.signal(Signal::SIGKILL);
    let why = asker.join().expect("a thread").expect_err("a restart that has failed").to_string();
    assert!(why.contains("on probation"), "{why}");
    for stream in waiting {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a greeting");
        assert_eq!(line, format!("pid {} generation 0\n", first.pid));
    }
    // Its end makes the restart final.
    let load = Load::start(address, 8);
    let (new, asker) = on_probation(2);
    first.ask(Act::Stop);
    assert_eq!([0, 1].map(|number| new.says_again("late", number)), [2, 3].map(|number| format!("{number}@{address}")));
    asker.join().expect("a thread").expect("a restart");
    assert_eq!(listeners(address), 4);
    let served = load.served();
    let failed = load.stop();
    println!("a group that grows on probation: {served} served, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
}

fn an_address_that_overlaps_the_old_one_is_bound_beside_it_without_a_refusal() {
    let (_reserved, port) = reserved();
    let [narrow, wide] = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].map(|ip| SocketAddr::from((ip, port)));
    for (from, to) in [(narrow, wide), (wide, narrow)] {
        let service = Setup::new().set(Recipe::Group(vec![from.to_string()])).start();
        let load = Load::start(narrow, 8);
        for number in 0..5 {
            let now = if number % 2 == 0 { to } else { from };
            let change = set(Recipe::Group(vec![now.to_string()]));
            failing(&service, &change);
            service.plan_next(change);
            let new = service.restart();
            assert_eq!(new.says("adopts"), if number == 0 { "1 binds 1" } else { "2 binds 0" });
        }
        let served = load.served();
        let failed = load.stop();
        println!("from {from} to {to}, to and fro: {served} served, {} failed", failed.len());
        assert!(served > 0 && failed.is_empty(), "{failed:?}");
        // All that the wide one means is served.
        let other = std::net::TcpStream::connect((Ipv4Addr::new(127, 0, 0, 9), port));
        assert!(other.is_ok(), "{other:?}");
    }
}

/// A UDP socket in a multicast group.
pub struct Multicast(pub String);

impl Capability for Multicast {
    fn sockets(&mut self, core: &mut Core) -> Option<Vec<Socket>> {
        let sockets = core.restarter().sockets();
        let is_inherited = sockets.unclaimed().iter().any(|name| name == "discovery");
        let socket: UdpSocket = sockets.udp_socket("discovery", &self.0).expect("a socket");
        let again = socket.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::LOCALHOST);
        say(&format!("inherited {is_inherited} joins {}", again.map_err(|error| error.kind().to_string()).err().unwrap_or("ok".into())));
        Some(vec![tcp("echo", "127.0.0.1:0")])
    }
}

/// Joining once more is the error that the guide tells to leave alone.
fn a_multicast_group_is_joined_once_for_all_generations() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let service = Setup::new().set(Recipe::Multicast(format!("0.0.0.0:{}", address.port()))).start();
    assert_eq!(service.first().says("inherited"), "false joins ok");
    service.plan_next(at(Step::Claimed, Act::Exit(3)));
    service.fail_to_restart();
    for _ in 0..2 {
        assert_eq!(service.restart().says("inherited"), "true joins address in use");
    }
}
