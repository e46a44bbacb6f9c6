//! Who has an address that cannot be bound, as `/proc` tells.
//!
//! Knows: the kernel's tables of sockets, and the descriptors of processes. Does not know: the names of sockets.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use nix::unistd::geteuid;

use crate::sys;
use crate::wire::LIFELINE_VARIABLE;

use super::Kind;

/// The processes before this one, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) predecessor: Option<u32>,
    /// Earlier generations that still finished their work when this process was built.
    pub(crate) earlier: Vec<u32>,
}

/// A process that has a socket at an address, or at one that overlaps it.
#[derive(Debug)]
pub(super) struct Holder {
    address: SocketAddr,
    who: Who,
    /// The name under which this process keeps it.
    name: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Who {
    Own { number: String },
    Predecessor(u32),
    Earlier(u32),
    LeftBehind(u32),
    Other(u32),
}

impl Holder {
    /// Returns the first process that is found to have the address. Looks at earlier generations,
    /// at this process, and then at all others that it can see. A process with more rights than its
    /// caller does not look at others: the caller reads the error, and may not be allowed to see
    /// them. `name_of`: what this process calls a socket that it keeps, by the number of its inode.
    pub(super) fn of(wanted: &Kind, family: &Family, name_of: impl Fn(u64) -> Option<String>) -> Option<Holder> {
        let sockets = sockets_at(wanted);
        if sockets.is_empty() {
            return None;
        }
        let own = std::process::id();
        let find = |pid: u32| {
            let (number, inode, address) = number_of_one(pid, &sockets)?;
            let who = if family.predecessor == Some(pid) {
                Who::Predecessor(pid)
            } else if family.earlier.contains(&pid) {
                Who::Earlier(pid)
            } else if pid == own {
                Who::Own { number }
            } else if was_started_by_a_restart(pid) {
                Who::LeftBehind(pid)
            } else {
                Who::Other(pid)
            };
            Some(Holder { address, who, name: name_of(inode) })
        };
        let known = family.predecessor.into_iter().chain(family.earlier.iter().copied()).chain([own]);
        let others = || {
            let names = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.filter_map(|name| name.parse().ok()).find_map(find)
        };
        known.into_iter().find_map(find).or_else(|| if sys::has_gained_rights() { None } else { others() })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match (&self.who, &self.name) {
            (Who::Own { .. }, Some(name)) => write!(f, "this process has {address}, under the name {name:?}: remove it first"),
            (Who::Own { number }, None) => write!(
                f,
                "this process has {address}, as descriptor {number}, which has no name here: close that, or if it was passed to this \
                 process, see what the log says of LISTEN_FDS"
            ),
            (Who::Predecessor(pid), name) => {
                write!(f, "the predecessor (process {pid}) still has {address}")?;
                if let Some(name) = name {
                    write!(f, ", which is {name:?} here")?;
                }
                f.write_str(
                    ": bind the new address at Event::PredecessorGone, or beside the old one with SO_REUSEPORT, see \"Another address\" in \
                     the recipes",
                )
            }
            (Who::Earlier(pid), _) => write!(
                f,
                "an earlier generation (process {pid}), which still finishes its work, has {address}: bind it when that has ended, or have \
                 a program close what it has handed over"
            ),
            (Who::LeftBehind(pid), _) => {
                write!(f, "process {pid} has {address}, and a restart has started that process: if that restart has failed, end it")
            }
            (Who::Other(pid), _) => write!(f, "process {pid} has {address}: end that process, or take another address"),
        }
    }
}

/// The sockets at that address or at one that overlaps it, by the numbers of their inodes.
pub(super) fn sockets_at(wanted: &Kind) -> Vec<(u64, SocketAddr)> {
    // Of a stream it is the listener that is in the way.
    const LISTENS: &str = "0A";
    let (wanted, protocol, state) = match wanted {
        Kind::Tcp(wanted) => (wanted, "tcp", Some(LISTENS)),
        Kind::Udp(wanted) => (wanted, "udp", None),
        _ => return Vec::new(),
    };
    let tables = ["", "6"].map(|version| fs::read_to_string(format!("/proc/self/net/{protocol}{version}")).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let address = parsed(fields.get(1)?)?;
        let is_meant = state.is_none_or(|state| fields.get(3) == Some(&state)) && wanted.iter().any(|wanted| overlaps(address, *wanted));
        Some((fields.get(9)?.parse().ok().filter(|inode| is_meant && *inode != 0)?, address))
    });
    rows.collect()
}

/// An address as the kernel shows it: words of 32 bits in hexadecimal, each in the order of the machine.
fn parsed(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> =
        (0..ip.len() / 8).map(|index| Some(u32::from_str_radix(ip.get(8 * index..8 * index + 8)?, 16).ok()?.to_ne_bytes())).collect();
    let ip = match words?[..] {
        [word] => IpAddr::V4(Ipv4Addr::from(word)),
        [a, b, c, d] => {
            let bytes: [u8; 16] = [a, b, c, d].concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

/// Whether a socket at the one may keep another from being bound at the other.
fn overlaps(found: SocketAddr, wanted: SocketAddr) -> bool {
    let (found_ip, wanted_ip) = (found.ip(), wanted.ip().to_canonical());
    // The unspecified one of version 6 means those of version 4 too, unless it is told not to.
    let takes = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    found.port() == wanted.port() && (found_ip == wanted_ip || takes(found_ip, wanted_ip) || takes(wanted_ip, found_ip))
}

/// The number by which a process has one of these sockets, that of the inode, and the address.
fn number_of_one(pid: u32, sockets: &[(u64, SocketAddr)]) -> Option<(String, u64, SocketAddr)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries.flatten().find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let (_, address) = sockets.iter().find(|(known, _)| *known == inode)?;
        Some((entry.file_name().into_string().ok()?, inode, *address))
    })
}

/// The environment is in the memory of that process, which another user could make a trap: a file
/// mapped there whose pages never come would hold this process up. So only one of the same user is
/// looked into.
fn was_started_by_a_restart(pid: u32) -> bool {
    let is_ours = fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == geteuid().as_raw());
    let environment = if is_ours { fs::read(format!("/proc/{pid}/environ")).unwrap_or_default() } else { Vec::new() };
    let name = [LIFELINE_VARIABLE.as_bytes(), b"="].concat();
    environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&name))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_overlap_as_the_kernel_has_it() {
        for (one, other) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("127.0.0.1:1", "127.0.0.1:1")]
        {
            assert!(overlaps(at(one), at(other)) && overlaps(at(other), at(one)), "{one} {other}");
        }
        for (one, other) in [("0.0.0.0:1", "[::1]:1"), ("127.0.0.2:1", "127.0.0.1:1"), ("0.0.0.0:2", "127.0.0.1:1"), ("[::2]:1", "[::1]:1")]
        {
            assert!(!overlaps(at(one), at(other)) && !overlaps(at(other), at(one)), "{one} {other}");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found_by_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let everywhere = (Ipv4Addr::UNSPECIFIED, address.port()).into();
        for wanted in [address, everywhere] {
            let holder = Holder::of(&Kind::Tcp(vec![wanted]), &Family::default(), |_| None).expect("a holder");
            assert_eq!(holder.who, Who::Own { number: listener.as_raw_fd().to_string() });
            assert_eq!(holder.address, address);
        }
        let socket = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let holder = Holder::of(&Kind::Udp(vec![address]), &Family::default(), |_| None).expect("a holder");
        assert_eq!((holder.address, holder.who), (address, Who::Own { number: socket.as_raw_fd().to_string() }));
        assert!(Holder::of(&Kind::UnixStream("/nowhere".into()), &Family::default(), |_| None).is_none());
    }

    #[test]
    fn what_the_kernel_shows_is_read() {
        let shown = format!("{:08X}:1BC7", u32::from_ne_bytes([127, 0, 0, 1]));
        assert_eq!(parsed(&shown), Some(at("127.0.0.1:7111")));
        let zeroes = "0".repeat(24);
        assert_eq!(parsed(&format!("{zeroes}{:08X}:0001", u32::from_ne_bytes([0, 0, 0, 1]))), Some(at("[::1]:1")));
        for wrong in ["", ":", "0100007F", "0100007F:XX", "01:1", &"0".repeat(40)] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
