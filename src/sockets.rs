//! Named sockets: inherited from the predecessor, passed by systemd, or bound fresh.
//!
//! Knows: names, kinds and addresses of sockets. Does not know: when they are passed on, or by what means.

mod directory;
mod group;
mod grouped;
mod groups;
mod holder;
mod kind;
mod path;
mod regained;
mod roster;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, listen};

use crate::error::Error;
use crate::keep::{Keeper, Listener};
use crate::predecessor::{GroupGift, tell_trouble};
use crate::sys;
use crate::systemd::{FIRST_PASSED, Passed};
use crate::wire;

pub(crate) use directory::{Directory, Found};
pub use group::{Owner, UdpGroup};
pub(crate) use holder::Family;
pub(crate) use kind::Kind;
pub(crate) use path::{PathLock, TEMPORARY, beside, find_stale, lock_name, named, temporary_name, unix_client, unix_socket};
pub(crate) use regained::regained;

use grouped::kept_group;
use groups::Groups;
use holder::Holder;
use path::bind_unix;

/// The named sockets of a service: what [`Restarter::sockets`](crate::Restarter::sockets) returns.
///
/// A program asks for each socket by name, in every generation in the same way. A successor gets the
/// socket that its predecessor had under that name. The first generation gets the one that systemd
/// passed under it (`FileDescriptorName=`). Otherwise a fresh one is bound.
///
/// What is returned is a duplicate, and CLOEXEC. The original stays here, to be passed on. So the
/// kernel goes on listening when the program closes its own: to stop listening, the program
/// [removes](Sockets::remove) it here too, as [`Restarter::stop`](crate::Restarter::stop) does with all.
///
/// A successor is given what is there when it is started: after
/// [`Event::Restarting`](crate::Event::Restarting). An attempt during which a socket is bound or
/// removed after that fails, and says so: ask for the restart again.
///
/// # Non-blocking or not
///
/// What is bound here is non-blocking, and so is what systemd passed to a first generation. What is
/// inherited is as the generations before left it. O_NONBLOCK belongs to the socket and not to a
/// descriptor: all duplicates in all processes share it. So nothing here changes it for an
/// inherited socket, since the predecessor may be waiting in a call that blocks. The call that
/// returns an inherited socket that blocks logs a warning: a loop that accepts until `WouldBlock`
/// would hang in it.
///
/// - A [`Gate`](crate::Gate) makes its listener non-blocking when it opens, which is after the
///   grant.
/// - A program without one calls `set_nonblocking(true)` after
///   [`Restarter::ready`](crate::Restarter::ready).
/// - A program that wants to block has nothing to do.
///
/// A socket that a predecessor or systemd gave, and that the program has not asked for when it
/// becomes ready, is closed. The numbers that systemd gave stay open, for programs that read
/// `LISTEN_FDS` on their own: such a socket is closed with the process.
///
/// ```no_run
/// # fn main() -> Result<(), pollflip::Error> {
/// let mut restarter = pollflip::RestartConfig::new().build()?;
/// let listener = restarter.sockets().tcp_listener("web", "0.0.0.0:80")?;
/// let mut listener = mio::net::TcpListener::from_std(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sockets {
    /// By name; systemd may pass several of one: an IPv4 and an IPv6 one, say.
    entries: HashMap<String, Vec<Entry>>,
    groups: Groups,
    /// What systemd passed, as long as the program has not used `Sockets`: it may take them by itself.
    untouched: Vec<(Passed, OwnedFd)>,
    /// Who may still have an address that this process wants.
    family: Family,
    /// What has first changed since a successor was given all of them.
    changed: Option<String>,
    closed: bool,
    /// Holds them, if the program wants that.
    keeper: Keeper,
}

#[derive(Debug)]
struct Entry {
    socket: OwnedFd,
    /// A manager or a keeper has given it to this process.
    passed: bool,
    /// It came with this process: from a predecessor or from systemd.
    inherited: bool,
    claimed: bool,
}

impl Sockets {
    /// A first generation has no predecessor that may be waiting on a socket of systemd.
    pub(crate) fn new(inherited: Vec<(String, OwnedFd)>, groups: Vec<GroupGift>, passed: Vec<Passed>, family: Family) -> Sockets {
        let mut entries: HashMap<String, Vec<Entry>> = HashMap::with_capacity(inherited.len());
        for (name, socket) in inherited {
            entries.entry(name).or_default().push(Entry { socket, passed: false, inherited: true, claimed: false });
        }
        let mut untouched = Vec::new();
        let above = passed.iter().map(|passed| passed.number + 1).max().unwrap_or(0);
        for passed in passed {
            // Held from the start: the number may be something else by the time it is passed on.
            match sys::peek(passed.number, |fd| sys::duplicate(fd, above)) {
                Some(Ok(socket)) => untouched.push((passed, socket)),
                Some(Err(error)) => log::warn!("cannot keep socket {:?} of systemd: {error}", passed.name),
                None => {}
            }
        }
        Sockets { entries, groups: Groups::inherited(groups), untouched, family, changed: None, closed: false, keeper: Keeper::inert() }
    }

    /// From now on a keeper holds what is here. What it or a manager has given to this process is its
    /// own: no number of it stays open.
    pub(crate) fn keep_by(&mut self, keeper: Keeper, given: Vec<(String, OwnedFd)>) {
        self.keeper = keeper;
        let inherited = self.entries.iter().flat_map(|(name, entries)| entries.iter().map(move |entry| (name, &entry.socket)));
        inherited.for_each(|(name, socket)| self.tell_keeper(name, socket));
        self.kept_groups().for_each(|group| self.tell_keeper_of_parts(&group));
        for (name, socket) in given {
            self.take_over(name, socket);
        }
    }

    /// That such a socket is kept without the program's doing, as what outlives this process is.
    fn tell_keeper(&self, name: &str, socket: &OwnedFd) {
        if self.keeper.is_for_program() && !matches!(Kind::of(socket), Kind::Other(_)) {
            self.keeper.has_socket(name, socket.as_fd());
        }
    }

    /// What outlives this process, if a keeper holds it: sockets, and no other descriptors.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&str, Listener<'_>)> {
        let all = self.entries.iter().flat_map(|(name, entries)| entries.iter().map(move |entry| (name, entry)));
        let sockets = all.filter(|(_, entry)| !matches!(Kind::of(&entry.socket), Kind::Other(_)));
        sockets.map(|(name, entry)| (name.as_str(), if entry.passed { Listener::Held } else { Listener::New(entry.socket.as_fd()) }))
    }

    /// A listening TCP socket on `address`: `"0.0.0.0:80"`, `("::", 80)`, … Port 0 stands for any port. If the address is a name with
    /// several addresses, the first that can be bound is.
    ///
    /// An inherited socket of that name is taken although the name of the address cannot be
    /// resolved now: a name server that is away stops no restart. Then nothing can compare the
    /// addresses, which is logged as a warning.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the socket of that name is of another kind or at another address.
    pub fn tcp_listener(&mut self, name: &str, address: impl ToSocketAddrs) -> Result<TcpListener, Error> {
        let addresses = match kind::resolve(name, address) {
            Err(error) => return self.unresolved(name, |kind| matches!(kind, Kind::Tcp(_)), error).inspect_err(tell_trouble),
            Ok(addresses) => addresses,
        };
        self.named(name, &Kind::Tcp(addresses), |wanted| {
            let listener = TcpListener::bind(wanted.addresses())?;
            listener.set_nonblocking(true)?;
            // std's own is short for a service under load.
            listen(&listener, sys::BACKLOG)?;
            Ok(listener.into())
        })
        .inspect_err(tell_trouble)
    }

    /// A UDP socket on `address`, as for [`tcp_listener`](Sockets::tcp_listener).
    ///
    /// What was set on the socket is there in every generation: options, and the multicast groups that it is in. To join one again is an
    /// error (`EADDRINUSE`). A program joins only where the socket is fresh, or lets that error pass:
    ///
    /// ```no_run
    /// # use std::net::Ipv4Addr;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut restarter = pollflip::RestartConfig::new().build()?;
    /// let is_inherited = restarter.sockets().is_inherited("discovery");
    /// let socket = restarter.sockets().udp_socket("discovery", "0.0.0.0:5353")?;
    /// if !is_inherited {
    ///     socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &Ipv4Addr::UNSPECIFIED)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the socket of that name is of another kind or at another address.
    pub fn udp_socket(&mut self, name: &str, address: impl ToSocketAddrs) -> Result<UdpSocket, Error> {
        let addresses = match kind::resolve(name, address) {
            Err(error) => return self.unresolved(name, |kind| matches!(kind, Kind::Udp(_)), error).inspect_err(tell_trouble),
            Ok(addresses) => addresses,
        };
        self.named(name, &Kind::Udp(addresses), |wanted| {
            let socket = UdpSocket::bind(wanted.addresses())?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .inspect_err(tell_trouble)
    }

    /// A listening unix stream socket at `path`. One that is left over from a process that died is replaced; one that somebody serves,
    /// or anything else at that path, is an error. The path stays when the process ends: the next one finds it or replaces it.
    ///
    /// # Errors
    ///
    /// The path cannot be bound, or the socket of that name is of another kind or at another path.
    pub fn unix_listener(&mut self, name: &str, path: impl AsRef<Path>) -> Result<UnixListener, Error> {
        self.named(name, &Kind::UnixStream(path.as_ref().into()), |_| bind_unix(path.as_ref(), SockType::Stream)).inspect_err(tell_trouble)
    }

    /// A unix datagram socket at `path`, as for [`unix_listener`](Sockets::unix_listener).
    ///
    /// # Errors
    ///
    /// The path cannot be bound, or the socket of that name is of another kind or at another path.
    pub fn unix_datagram(&mut self, name: &str, path: impl AsRef<Path>) -> Result<UnixDatagram, Error> {
        self.named(name, &Kind::UnixDatagram(path.as_ref().into()), |_| bind_unix(path.as_ref(), SockType::Datagram))
            .inspect_err(tell_trouble)
    }

    /// A listening unix seqpacket socket at `path`, as for [`unix_listener`](Sockets::unix_listener). std has no type for it.
    ///
    /// # Errors
    ///
    /// The path cannot be bound, or the socket of that name is of another kind or at another path.
    pub fn unix_seqpacket(&mut self, name: &str, path: impl AsRef<Path>) -> Result<OwnedFd, Error> {
        self.named(name, &Kind::UnixSeqpacket(path.as_ref().into()), |_| bind_unix(path.as_ref(), SockType::SeqPacket))
            .inspect_err(tell_trouble)
    }

    /// Any other descriptor: the one of that name if there is one, otherwise what `bind` makes.
    /// This crate checks neither its kind nor whether it blocks: both versions of the program have
    /// to agree on that.
    ///
    /// A file may have a [lock](crate::Handover::fd) of `flock` or `F_OFD_SETLK`, which all
    /// generations then have in common. It ends for all of them when one unlocks it. So the old
    /// process closes the file, and does not drop a guard that unlocks it.
    ///
    /// # Errors
    ///
    /// Whatever `bind` returns; the name is not fit.
    pub fn or_insert_with<T>(&mut self, name: &str, bind: impl FnOnce() -> io::Result<T>) -> Result<T, Error>
    where
        T: From<OwnedFd> + Into<OwnedFd>,
    {
        self.get_any(name, bind).inspect_err(tell_trouble)
    }

    fn get_any<T>(&mut self, name: &str, bind: impl FnOnce() -> io::Result<T>) -> Result<T, Error>
    where
        T: From<OwnedFd> + Into<OwnedFd>,
    {
        self.check(name)?;
        self.claim_of_systemd();
        if let Some(socket) = self.of_group(name, |_| true) {
            return socket;
        }
        if let Some(entry) = self.entries.get_mut(name).and_then(|entries| entries.first_mut()) {
            entry.claimed = true;
            return duplicate(name, &entry.socket);
        }
        let socket: OwnedFd = bind().map_err(Error::os(format!("cannot make {name:?}")))?.into();
        // It goes to successors by its name, and to nobody as something that is there and has none.
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|error| Error::os(format!("cannot make {name:?}"))(error.into()))?;
        self.insert(name, socket)
    }

    /// The socket of that name if there is one: inherited, passed by systemd, or bound here before.
    /// Binds nothing. Of several that came by one name, each call returns another one; when all
    /// have been returned, it begins anew.
    ///
    /// The descriptor becomes what it is: `TcpListener::from(fd)`, say.
    ///
    /// # Errors
    ///
    /// The name is not fit; the socket cannot be duplicated; this process has handed over, or is
    /// stopping.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), pollflip::Error> {
    /// let mut restarter = pollflip::RestartConfig::new().build()?;
    /// // A debug port that only an operator who passes a socket has.
    /// let debug = restarter.sockets().get("debug")?.map(std::net::TcpListener::from);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&mut self, name: &str) -> Result<Option<OwnedFd>, Error> {
        self.existing(name).inspect_err(tell_trouble)
    }

    fn existing(&mut self, name: &str) -> Result<Option<OwnedFd>, Error> {
        self.check(name)?;
        self.claim_of_systemd();
        if let Some(socket) = self.of_group(name, |_| true) {
            return socket.map(Some);
        }
        let Some(entries) = self.entries.get_mut(name) else { return Ok(None) };
        let next = entries.iter().position(|entry| !entry.claimed).unwrap_or(0);
        let Some(entry) = entries.get_mut(next) else { return Ok(None) };
        match Kind::of(&entry.socket) {
            // Whether such a descriptor blocks is between the versions of the program.
            Kind::Other(_) => {
                entry.claimed = true;
                duplicate(name, &entry.socket).map(Some)
            }
            _ => entry.claim(name).map(Some),
        }
    }

    /// Whether what is kept under that name came with this process, from its predecessor or from
    /// systemd. `false`: it was bound here, or there is nothing of that name.
    pub fn is_inherited(&self, name: &str) -> bool {
        let untouched = self.untouched.iter().any(|(passed, _)| passed.name == name);
        untouched
            || self.groups.is_inherited(name)
            || self.entries.get(name).is_some_and(|entries| entries.iter().any(|entry| entry.inherited))
    }

    /// Closes what is kept under that name, so that it is not passed on any more; says whether there was something. The duplicate that
    /// the program was given is not touched.
    pub fn remove(&mut self, name: &str) -> bool {
        self.claim_of_systemd();
        let was_listener = self.entries.remove(name).is_some();
        if was_listener {
            self.keeper.listens_no_more(name);
        }
        if let Some(group) = self.groups.get(name).and_then(|group| kept_group(name, group)) {
            self.keeper.has_group_no_more(&group);
        }
        let removed = was_listener || self.groups.remove(name);
        if removed {
            self.changed.get_or_insert_with(|| format!("socket {name:?} was removed"));
        }
        removed
    }

    /// The names of what was inherited and has not been asked for. It is closed when the process becomes ready.
    pub fn unclaimed(&mut self) -> Vec<String> {
        self.claim_of_systemd();
        let unclaimed = self.entries.iter().filter(|(_, entries)| entries.iter().any(|entry| !entry.claimed));
        let mut names: Vec<_> = unclaimed.map(|(name, _)| name.clone()).collect();
        names.extend(self.groups.unclaimed().map(String::from));
        names.sort_unstable();
        names
    }

    fn named<T: From<OwnedFd>>(&mut self, name: &str, wanted: &Kind, bind: impl FnOnce(&Kind) -> io::Result<OwnedFd>) -> Result<T, Error> {
        self.check(name)?;
        self.claim_of_systemd();
        if let Some(socket) = self.of_group(name, |kind| kind.serves_as(wanted)) {
            return socket;
        }
        let mut other = self.groups.get(name).map(|group| group.kind());
        for entry in self.entries.get_mut(name).into_iter().flatten() {
            let found = Kind::of(&entry.socket);
            if found.serves_as(wanted) {
                return entry.claim(name);
            }
            other = other.or(Some(found));
        }
        if let Some(found) = other {
            return Err(another(name, &found, wanted));
        }
        let socket = bind(wanted).map_err(|error| self.why_unbound(name, wanted, error))?;
        self.insert(name, socket)
    }

    fn why_unbound(&self, name: &str, wanted: &Kind, error: io::Error) -> Error {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => self.holder_of(wanted),
            kind => wanted.advice(kind).into(),
        };
        Error::os_with(format!("cannot bind {name:?} as {wanted}"), error, advice)
    }

    /// Who has an address that is in use.
    fn holder_of(&self, wanted: &Kind) -> String {
        let is_there = |entry: &Entry| Kind::of(&entry.socket).serves_as(wanted);
        let plain = self.entries.iter().find(|(_, entries)| entries.iter().any(is_there)).map(|(name, _)| name.as_str());
        if let Some(name) = plain.or_else(|| self.groups.name_of(wanted)) {
            return format!("; this process has it already, under the name {name:?}: ask for it by that name");
        }
        let is_socket = |entry: &Entry, inode| sys::identity(entry.socket.as_raw_fd()).is_some_and(|file| file.inode == inode);
        let name_of = |inode| {
            let mut entries = self.entries.iter();
            entries.find(|(_, entries)| entries.iter().any(|entry| is_socket(entry, inode))).map(|(name, _)| name.clone())
        };
        match Holder::of(wanted, &self.family, name_of) {
            Some(holder) => format!("; {holder}"),
            None => "; which process has it cannot be seen: another service, or one that a failed release has left behind, with POLLFLIP_LIFELINE in \
                     its environment"
                .into(),
        }
    }

    /// The one inherited socket of that name that is of the right kind, although nobody can say
    /// where it was wanted.
    fn unresolved<T: From<OwnedFd>>(&mut self, name: &str, fits: impl Fn(&Kind) -> bool, error: Error) -> Result<T, Error> {
        self.check(name)?;
        self.claim_of_systemd();
        if !is_passing(&error) {
            return Err(error);
        }
        if let Some(socket) = self.of_group(name, &fits) {
            log::warn!(target: "pollflip", "{error}; the inherited UDP group of that name is taken as it is");
            return socket;
        }
        let candidates = self.entries.get_mut(name).into_iter().flatten().filter(|entry| entry.inherited);
        let mut candidates = candidates.filter(|entry| fits(&Kind::of(&entry.socket)));
        match (candidates.next(), candidates.next()) {
            (Some(entry), None) => {
                log::warn!(target: "pollflip", "{error}; the inherited socket of that name is taken as it is");
                entry.claim(name)
            }
            // Which of them is meant only their addresses tell.
            _ => Err(error),
        }
    }

    fn insert<T: From<OwnedFd>>(&mut self, name: &str, socket: OwnedFd) -> Result<T, Error> {
        let given = duplicate(name, &socket)?;
        self.tell_keeper(name, &socket);
        if self.keeper.is_active() && !matches!(Kind::of(&socket), Kind::Other(_)) {
            self.keeper.listens(name, socket.as_fd());
        }
        self.entries.entry(name.into()).or_default().push(Entry { socket, passed: false, inherited: false, claimed: true });
        self.changed.get_or_insert_with(|| format!("socket {name:?} was bound"));
        Ok(given)
    }

    fn check(&self, name: &str) -> Result<(), Error> {
        if self.closed {
            return Err(Error::TooLate(
                format!("socket {name:?} is asked for too late: this process has handed over, or is stopping").into(),
            ));
        }
        wire::check_name(name).map_err(|why| Error::InvalidName(format!("socket {name:?}: {why}").into()))
    }

    /// From the first use of `Sockets` on, what systemd passed is ours.
    fn claim_of_systemd(&mut self) {
        for (passed, socket) in mem::take(&mut self.untouched) {
            // The number stays open, in case the program has taken it by itself, but nothing inherits it any more. Compared, since the
            // program may have closed it before, and opened something of its own there.
            if sys::identity(passed.number) == sys::identity(socket.as_raw_fd()) {
                sys::peek(passed.number, |fd| fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)));
            }
            self.take_over(passed.name, socket);
        }
    }

    /// A first generation has no predecessor that may be waiting on the socket.
    fn take_over(&mut self, name: String, socket: OwnedFd) {
        if self.family.predecessor.is_none()
            && let Err(error) = set_nonblocking(&socket)
        {
            log::warn!("cannot make socket {name:?} of systemd non-blocking: {error}");
        }
        self.tell_keeper(&name, &socket);
        self.entries.entry(name).or_default().push(Entry { socket, passed: true, inherited: true, claimed: false });
    }

    /// What a successor is to get by name.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.iter().flat_map(|(name, entries)| entries.iter().map(|entry| (name.as_str(), entry.socket.as_fd())))
    }

    /// A successor has been given what there is.
    pub(crate) fn are_given(&mut self) {
        self.changed = None;
    }

    /// What has changed since then, in words.
    pub(crate) fn changed(&self) -> Option<&str> {
        self.changed.as_deref()
    }

    /// The sockets of systemd, as long as the program has not used `Sockets`: the successor gets
    /// them with these numbers. LISTEN_FDS says how many there are, and no more, so the numbers have no gap:
    /// one socket that is not passed on would change the names of all after it.
    pub(crate) fn untouched(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>, i32)> {
        self.untouched.iter().zip(FIRST_PASSED..).map(|((passed, socket), number)| (passed.name.as_str(), socket.as_fd(), number))
    }

    pub(crate) fn close_unclaimed(&mut self) {
        let keeper = &self.keeper;
        self.entries.retain(|name, entries| {
            entries.retain(|entry| {
                if !entry.claimed {
                    log::info!("socket {name:?} was inherited and is not used any more: closed");
                }
                entry.claimed
            });
            if entries.is_empty() {
                // Who connected to what a keeper holds on would wait for ever.
                keeper.listens_no_more(name);
            }
            !entries.is_empty()
        });
        for (name, group) in self.groups.all_unclaimed() {
            kept_group(name, group).iter().for_each(|group| keeper.has_group_no_more(group));
        }
        self.groups.close_unclaimed();
    }

    /// There will be no successor.
    pub(crate) fn close_all(&mut self) {
        self.close();
        self.groups.let_go();
    }

    /// The successor has them. All sockets of a UDP group stay open as long as this process reads one: the kernel knows them by their number.
    pub(crate) fn close(&mut self) {
        self.entries.clear();
        self.untouched.clear();
        self.closed = true;
    }
}

impl Entry {
    /// A duplicate for a program that may take it to be non-blocking.
    fn claim<T: From<OwnedFd>>(&mut self, name: &str) -> Result<T, Error> {
        self.claimed = true;
        if self.inherited && is_blocking(&self.socket) {
            log::warn!(
                target: "pollflip",
                "socket {name:?} was inherited, and an earlier generation has made it blocking: a loop that accepts or reads until \
                 WouldBlock hangs in it; have a Gate open it, or call set_nonblocking(true) after ready()"
            );
        }
        duplicate(name, &self.socket)
    }
}

/// Whether an address may be resolved another time. One that is none is the program's mistake.
fn is_passing(error: &Error) -> bool {
    !matches!(error, Error::Os { error, .. } if error.kind() == io::ErrorKind::InvalidInput)
}

fn another(name: &str, found: &Kind, wanted: &Kind) -> Error {
    let why =
        format!("socket {name:?} is {found}, and {wanted} was asked for: call remove({name:?}) first, or give the new one another name");
    Error::WrongSocket(why.into())
}

fn duplicate<T: From<OwnedFd>>(name: &str, socket: impl AsFd) -> Result<T, Error> {
    sys::duplicate(socket, 3).map(T::from).map_err(|error| Error::os(format!("cannot duplicate socket {name:?}"))(error))
}

/// Makes a socket non-blocking, for all who have it.
pub(crate) fn set_nonblocking(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let flags = flags(socket)?;
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Whether a call on it may wait. Not where that cannot be found out.
fn is_blocking(socket: &OwnedFd) -> bool {
    flags(socket).is_ok_and(|flags| !flags.contains(OFlag::O_NONBLOCK))
}

fn flags(socket: impl AsFd) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?))
}
