//! A UDP group: one socket for each generation that can be alive, at one address, and the program that tells whose a datagram is.
//!
//! Knows: the slots and who has them, and how the kernel and the next start are told. Does not know: when they are told, or how a group gets
//! to a successor or a keeper.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::Error;
use crate::predecessor::GroupGift;
use crate::steering::{self, Layout, MOST, Steering};
use crate::sys;

use super::roster::{Reader, Roster};
use super::{Kind, duplicate, set_nonblocking};

/// So long after it was vacated a slot is looked at: a datagram for which the kernel had run the old program lands a moment later.
const STRAY: Duration = Duration::from_millis(100);
/// No slot.
const NONE: u8 = u8::MAX;
/// What is in force of the program is not known.
const UNKNOWN: u64 = u64::MAX;

/// The UDP sockets of a service at one address, one for each generation that can be alive:
/// [`Sockets::udp_group`](super::Sockets::udp_group). A flow that bears the mark of a generation stays
/// with it until that generation ends, and every other datagram goes to the one that serves.
///
/// It is cheap to clone and can be used by any thread. Keep it until the last flow has ended: the
/// sockets of all slots have to stay open in each generation that reads one.
///
/// It needs no [`Gate`](crate::Gate): the kernel sends a successor nothing before the grant. The
/// program registers [`socket`](UdpGroup::socket) with its poll before
/// [`ready`](crate::Restarter::ready) or after it, and deregisters it when its last flow has ended.
///
/// | limit | |
/// | --- | --- |
/// | `connect()` | never on what [`socket`](UdpGroup::socket) returns, nor on a duplicate: it takes the socket out of the group, and the next restart fails |
/// | broadcast, multicast | each generation gets a copy: use [`udp_socket`](super::Sockets::udp_socket) |
/// | error queue | `IP_RECVERR` reports may go to another generation than the one that sent |
/// | GRO | a train of segments goes where its first one does: drop what [`owner`](UdpGroup::owner) gives to another generation, and do not answer it |
/// | options | those of a slot (`SO_RCVBUF`, `UDP_GRO`) stay from the generation that had it before: set all that matter |
/// | trust | a client can name any generation: a mark proves nothing |
/// | a generation that is killed | what it has not read is read by the one that serves; its flows end, and their clients are told to begin anew |
/// | the one that serves is killed | with [`keep`](crate::RestartConfig::keep) the next start goes on with the group; without, it finds the address in use until the last flow of an earlier generation has ended |
/// | kernel | Linux with classic BPF for `SO_REUSEPORT`: not gVisor, nor where a sandbox forbids option 51 of `SOL_SOCKET` |
///
/// ```no_run
/// use pollflip::{Mark, RestartConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut restarter = RestartConfig::new().build()?;
/// // Clients copy the first byte of what they get into what they send. Its high half is the mark.
/// let group = restarter.sockets().udp_group("game", "0.0.0.0:7777", Mark::byte(0, 0xf0))?;
/// let socket = group.socket()?;
/// restarter.ready()?;
/// // When the poll says that the socket is readable:
/// let mut datagram = [0; 1500];
/// let (length, client) = socket.recv_from(&mut datagram)?;
/// datagram[0] = datagram[0] & 0x0f | group.mark();
/// socket.send_to(&datagram[..length], client)?; // the client's next datagram comes to this process
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UdpGroup(Arc<Group>);

/// Whose a datagram is, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// It bears the mark of this process.
    This,
    /// It bears the mark of an earlier generation, which is alive.
    #[non_exhaustive]
    Earlier {
        /// The process id of that.
        pid: u32,
    },
    /// It goes to the generation that serves: it bears no mark, or one that nobody has whom this
    /// process knows.
    Unmarked,
}

impl UdpGroup {
    pub(super) fn new(group: Arc<Group>) -> UdpGroup {
        UdpGroup(group)
    }

    /// The socket of this generation, non-blocking: a duplicate, as any other of [`Sockets`](super::Sockets).
    /// Read it and answer over it until the flows of this generation have ended, after
    /// [`Event::Completed`](crate::Event::Completed) too. All generations answer from the same address.
    ///
    /// # Errors
    ///
    /// The socket cannot be duplicated.
    pub fn socket(&self) -> Result<UdpSocket, Error> {
        let group = &self.0;
        duplicate(&group.name, group.own_socket())
    }

    /// The mark of this generation. The server puts these bits into the byte that its clients send
    /// back, and a datagram with them comes to this generation. They are never all 0, so a client
    /// without a flow sends 0 there. A mark of [QUIC](crate::Mark::quic) can be 0: the server uses
    /// [`stamp`](UdpGroup::stamp) there.
    pub fn mark(&self) -> u8 {
        self.0.layout.mark(self.0.own)
    }

    /// Makes a QUIC connection ID one of this generation: the first two bytes change. `false`: it has
    /// another length than the mark says, or the mark is none of QUIC; nothing has changed.
    ///
    /// A server stamps each ID that it gives out: of a handshake, of a Retry, in NEW_CONNECTION_ID. See the
    /// [recipe](crate::recipes#quic).
    pub fn stamp(&self, cid: &mut [u8]) -> bool {
        self.0.layout.stamp(self.0.own, cid)
    }

    /// To which generation the kernel sends a datagram, as far as this process knows. It looks
    /// which generations are alive when it is given the service, and when one of them ends. It does
    /// not know the marks of later generations: in a process that has been replaced, theirs are
    /// `Unmarked`.
    ///
    /// For relays, for tests, and for programs whose answer to an unknown flow ends it: a segment that has
    /// come in a train (GRO) can be for another generation.
    pub fn owner(&self, datagram: &[u8]) -> Owner {
        let Some(slot) = self.0.layout.marked(datagram) else { return Owner::Unmarked };
        match self.0.owners.get(usize::from(slot)).map(|owner| owner.load(Ordering::Acquire)) {
            None | Some(0) => Owner::Unmarked,
            Some(_) if slot == self.0.own => Owner::This,
            Some(pid) => Owner::Earlier { pid },
        }
    }

    /// Takes the next datagram that a generation has left unread which has ended: an earlier one,
    /// or a successor that did not take over. `WouldBlock`: there is none.
    ///
    /// Call it until it returns `WouldBlock`: after [`ready`](crate::Restarter::ready), at
    /// [`PredecessorGone`](crate::Event::PredecessorGone),
    /// [`GenerationEnded`](crate::Event::GenerationEnded), [`Failed`](crate::Event::Failed) and
    /// [`Resumed`](crate::Event::Resumed), and whenever the socket has been read empty, since a
    /// straggler may come some microseconds later. Where there is nothing to look for, it makes no
    /// system call.
    ///
    /// Answer over [`socket`](UdpGroup::socket). Each flow is one that this process does not know:
    /// tell the client to begin anew.
    ///
    /// ```no_run
    /// # fn begin_anew(_: &[u8]) -> &[u8] { b"" }
    /// # use std::net::UdpSocket;
    /// # fn tell(group: &pollflip::UdpGroup, socket: &UdpSocket, mut buffer: [u8; 1500]) {
    /// while let Ok((length, client)) = group.recv_orphaned(&mut buffer) {
    ///     let _ = socket.send_to(begin_anew(&buffer[..length]), client);
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `WouldBlock`, and what `recv_from` returns.
    pub fn recv_orphaned(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_orphaned(buffer)
    }
}

impl fmt::Debug for UdpGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Group { name, layout, own, .. } = &*self.0;
        f.debug_struct("UdpGroup").field("name", name).field("mark", layout).field("slot", own).finish_non_exhaustive()
    }
}

/// What [`UdpGroup`] and [`Sockets`](super::Sockets) share of a group. The loop changes it, any thread reads it.
#[derive(Debug)]
pub(super) struct Group {
    name: String,
    layout: Layout,
    /// The slot of this process.
    own: u8,
    /// One for each slot.
    sockets: Vec<UdpSocket>,
    /// The process that reads it; 0: none.
    owners: Vec<AtomicU32>,
    /// When those were born: it is looked at once, and not while a successor waits for its grant.
    births: Vec<OnceLock<Option<u64>>>,
    /// A keeper gave it to this process: its slot is that of the process which served before.
    is_back: bool,
    /// Where the next start finds who reads what, if a keeper holds the group.
    roster: OnceLock<File>,
    /// The slot that the next successor has, or the one that takes over.
    next: AtomicU8,
    /// What the kernel has been told by this process.
    in_force: AtomicU64,
    /// Slots that nobody has and that may not have been read empty, one bit each,
    orphaned: AtomicU32,
    /// and when that was last found, in milliseconds since this was made.
    vacated: AtomicU64,
    made: Instant,
}

/// One socket of a group, as a successor gets it.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) layout: Layout,
    pub(crate) slot: u8,
    /// The process that reads it.
    pub(crate) owner: Option<u32>,
    /// It is the successor that does.
    pub(crate) is_successors: bool,
    pub(crate) socket: BorrowedFd<'a>,
}

impl Group {
    fn new(name: &str, layout: Layout, own: u8, sockets: Vec<UdpSocket>, owners: impl IntoIterator<Item = Option<u32>>) -> Group {
        let owner = |(slot, owner): (usize, Option<u32>)| if slot == usize::from(own) { process::id() } else { owner.unwrap_or(0) };
        let owners: Vec<_> = owners.into_iter().enumerate().map(|owner_of| AtomicU32::new(owner(owner_of))).collect();
        Group {
            name: name.into(),
            layout,
            own,
            sockets,
            births: owners.iter().map(|_| OnceLock::new()).collect(),
            owners,
            is_back: false,
            roster: OnceLock::new(),
            next: AtomicU8::new(NONE),
            in_force: AtomicU64::new(UNKNOWN),
            orphaned: AtomicU32::new(0),
            vacated: AtomicU64::new(0),
            made: Instant::now(),
        }
    }

    /// Binds a group at the first of the addresses that can be had, of which this process has the first slot.
    pub(super) fn bind(name: &str, layout: Layout, addresses: &[SocketAddr]) -> io::Result<Group> {
        let mut failed = io::Error::from(io::ErrorKind::InvalidInput);
        for address in addresses {
            match first(*address) {
                Ok(first) => return Group::around(name, layout, vec![first]),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Makes a group of a socket that is bound already, and that no other is bound beside.
    pub(super) fn of(name: &str, layout: Layout, socket: OwnedFd) -> io::Result<Group> {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
        let first = UdpSocket::from(socket);
        // There is no group to have a program before there are two. What goes to the second until then is read as what nobody has read.
        let second = beside(&first)?;
        sys::steer(&first, &steering::to_one(0))?;
        Group::around(name, layout, vec![first, second])
    }

    /// Binds what is missing.
    fn around(name: &str, layout: Layout, mut sockets: Vec<UdpSocket>) -> io::Result<Group> {
        while sockets.len() < usize::from(layout.generations())
            && let Some(first) = sockets.first()
        {
            let socket = beside(first)?;
            sockets.push(socket);
        }
        let owners = vec![None; sockets.len()];
        Ok(Group::new(name, layout, 0, sockets, owners))
    }

    /// What a predecessor or a keeper has given.
    pub(super) fn inherited(gift: GroupGift) -> Group {
        let sockets = gift.sockets.into_iter().map(UdpSocket::from).collect();
        let mut group = Group::new(&gift.name, gift.layout, gift.own, sockets, gift.owners);
        group.is_back = gift.is_back;
        group.roster = gift.roster.map(|file| OnceLock::from(File::from(file))).unwrap_or_default();
        group
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.own_socket())
    }

    pub(super) fn own_socket(&self) -> BorrowedFd<'_> {
        // There are as many as slots, and this one is one.
        self.sockets[usize::from(self.own)].as_fd()
    }

    /// Makes the slot of this process its own. The generation that had it before has ended, and what is in it was another one's to read: it is
    /// thrown away. But where that generation served until it was killed, it is this process's.
    pub(super) fn move_in(&self) -> io::Result<()> {
        let own = &self.sockets[usize::from(self.own)];
        // That generation does not wait in it any more.
        set_nonblocking(own)?;
        if self.is_back {
            return Ok(());
        }
        let is_over = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while !own.recv(&mut [0]).is_err_and(|error| is_over(&error)) {}
        Ok(())
    }

    /// Whether this process may tell the kernel whose a datagram is.
    pub(super) fn check(&self) -> Result<(), Error> {
        check(&self.name, self.own_socket())
    }

    /// Chooses the slot of the next successor: the one that has been free for longest. `None`: each one has somebody who reads it.
    pub(super) fn reserve(&self, lives: impl Fn(u32) -> bool) -> Option<u8> {
        let count = self.layout.generations();
        let free = (1..count).map(|ahead| (self.own + ahead) % count).find(|slot| self.is_free(*slot, &lives))?;
        self.next.store(free, Ordering::Release);
        // What is there is not this process's to read any more.
        self.orphaned.fetch_and(!bit(free), Ordering::AcqRel);
        Some(free)
    }

    /// Whether a successor can have one.
    pub(super) fn has_room(&self, lives: impl Fn(u32) -> bool) -> bool {
        (0..self.layout.generations()).any(|slot| slot != self.own && self.is_free(slot, &lives))
    }

    fn is_free(&self, slot: u8, lives: impl Fn(u32) -> bool) -> bool {
        let owner = self.owners.get(usize::from(slot)).map_or(0, |owner| owner.load(Ordering::Acquire));
        slot != self.own && (owner == 0 || !lives(owner))
    }

    /// All of it, for the successor that has the slot that is reserved.
    pub(super) fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let next = self.next.load(Ordering::Acquire);
        self.sockets.iter().zip(&self.owners).zip(0..MOST).map(move |((socket, owner), slot)| Member {
            name: &self.name,
            layout: self.layout,
            slot,
            owner: Some(owner.load(Ordering::Acquire)).filter(|owner| *owner != 0 && slot != next),
            is_successors: slot == next,
            socket: socket.as_fd(),
        })
    }

    /// From now on what is unmarked goes to the successor.
    pub(super) fn steer_to_successor(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        let next = self.next.load(Ordering::Acquire);
        // From here on it is the successor that reads what nobody has read, and gives the slots away anew.
        self.orphaned.store(0, Ordering::Release);
        let steering = self.steering(next, lives);
        let program = steering::program(self.layout, steering);
        // By each of them: one that somebody has connected is in the group no more, and gets what is others'.
        for (slot, socket) in self.sockets.iter().enumerate() {
            sys::steer(socket, &program).map_err(|error| self.why_not(slot, &error))?;
            self.in_force.store(word(steering), Ordering::Release);
        }
        Ok(())
    }

    /// From now on what is unmarked goes to this process, and what generations have left that have ended is its to read.
    pub(super) fn steer_to_this(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        let before = self.in_force.load(Ordering::Acquire);
        let steering = self.steering(self.own, lives);
        if before != word(steering) {
            let program = steering::program(self.layout, steering);
            let mut failed = None;
            let from_own = (0..self.sockets.len()).map(|ahead| (usize::from(self.own) + ahead) % self.sockets.len());
            let is_done = from_own.into_iter().any(|slot| match sys::steer(&self.sockets[slot], &program) {
                Ok(()) => true,
                Err(error) => {
                    failed.get_or_insert_with(|| self.why_not(slot, &error));
                    false
                }
            });
            if let (false, Some(why)) = (is_done, failed) {
                return Err(why);
            }
            self.in_force.store(word(steering), Ordering::Release);
        }
        self.note();
        self.vacate(!steering.live);
        Ok(())
    }

    /// From now on the next start can be told who reads what.
    pub(super) fn keep(&self) -> io::Result<()> {
        let roster = self.as_roster();
        if self.roster.get().is_none() {
            let file = sys::memory_file()?;
            roster.write_to(&file)?;
            // Nobody else does this at the same time.
            let _ = self.roster.set(file);
        }
        Ok(())
    }

    /// Where the next start finds that, and all sockets: what a keeper has to hold.
    pub(super) fn kept(&self) -> Option<(&File, impl Iterator<Item = BorrowedFd<'_>>)> {
        self.roster.get().map(|roster| (roster, self.sockets.iter().map(UdpSocket::as_fd)))
    }

    /// A keeper has given it to this process, and holds it.
    pub(super) fn is_back(&self) -> bool {
        self.is_back
    }

    /// Says to the next start that this process serves, and who else reads what.
    fn note(&self) {
        if let Some(file) = self.roster.get()
            && let Err(error) = self.as_roster().write_to(file)
        {
            log::error!(target: "pollflip", "UDP group {:?}: after a kill the next start will not know who reads what: {error}", self.name);
        }
    }

    fn as_roster(&self) -> Roster {
        let reader = |(owner, birth): (&AtomicU32, &OnceLock<_>)| {
            let pid = Some(owner.load(Ordering::Acquire)).filter(|pid| *pid != 0)?;
            Some(Reader { pid, born: *birth.get_or_init(|| sys::birth_of(pid)) })
        };
        Roster { layout: self.layout, serving: self.own, readers: self.owners.iter().zip(&self.births).map(reader).collect() }
    }

    /// Who reads what, with those left out that have ended.
    fn steering(&self, serving: u8, lives: impl Fn(u32) -> bool) -> Steering {
        let mut live = bit(serving);
        for (slot, owner) in (0..MOST).zip(&self.owners) {
            let pid = owner.load(Ordering::Acquire);
            if slot == self.own || pid != 0 && lives(pid) {
                live |= bit(slot);
            } else {
                owner.store(0, Ordering::Release);
            }
        }
        Steering { live, serving }
    }

    /// What is in these slots is this process's to read.
    fn vacate(&self, slots: u32) {
        let mut orphaned = 0;
        for (slot, socket) in (0..MOST).zip(&self.sockets).filter(|(slot, _)| slots & bit(*slot) != 0) {
            // The one that may have waited in it has ended.
            match set_nonblocking(socket) {
                Ok(()) => orphaned |= bit(slot),
                Err(error) => log::warn!(target: "pollflip", "what an ended generation has not read of {:?} is lost: {error}", self.name),
            }
        }
        self.vacated.store(self.made.elapsed().as_millis() as u64, Ordering::Release);
        self.orphaned.fetch_or(orphaned, Ordering::AcqRel);
    }

    fn recv_orphaned(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let orphaned = self.orphaned.load(Ordering::Acquire);
        if orphaned == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let vacated = self.vacated.load(Ordering::Acquire);
        let is_quiet = self.made.elapsed() >= Duration::from_millis(vacated).saturating_add(STRAY);
        let slots = (0..MOST).zip(&self.sockets).filter(|(slot, _)| orphaned & bit(*slot) != 0);
        for (slot, socket) in slots {
            match socket.recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Vacated anew meanwhile, it is looked at once more.
                    if is_quiet && self.vacated.load(Ordering::Acquire) == vacated {
                        self.orphaned.fetch_and(!bit(slot), Ordering::AcqRel);
                    }
                }
                received => return received,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn why_not(&self, slot: usize, error: &io::Error) -> String {
        let name = &self.name;
        match error.raw_os_error() {
            Some(libc::EINVAL) => format!(
                "socket {slot} of the UDP group {name:?} is in the group no more: somebody has called connect() on it, or on a duplicate; \
                 mend that, then stop and start the service"
            ),
            _ => format!("the kernel does not take the program of the UDP group {name:?} (SO_ATTACH_REUSEPORT_CBPF): {error}{FORBIDDEN}"),
        }
    }
}

/// Where that is refused.
const FORBIDDEN: &str = "; a sandbox that has setsockopt must have option 51 of SOL_SOCKET too (seccomp, SystemCallFilter=)";

fn bit(slot: u8) -> u32 {
    1_u32.checked_shl(slot.into()).unwrap_or(0)
}

/// Both numbers in one.
fn word(steering: Steering) -> u64 {
    u64::from(steering.serving) << 32 | u64::from(steering.live)
}

/// The first socket of a group. It is bound as one that nobody can be bound beside, so that a second instance is told; and its program is
/// there before it is, so that nothing goes to a socket that nobody reads.
fn first(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = sys::udp_socket(address)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    sys::steer(&socket, &steering::to_one(0))?;
    setsockopt(&socket, sockopt::ReusePort, &false)?;
    sys::bind(&socket, address)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    Ok(socket.into())
}

/// One more socket of the group that this one is in, or can be.
fn beside(first: &UdpSocket) -> io::Result<UdpSocket> {
    let address = first.local_addr()?;
    let socket = sys::udp_socket(address)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    sys::bind(&socket, address)?;
    Ok(socket.into())
}

/// Whether a program can be given to the kernel here, seen by one that is none.
pub(super) fn check(name: &str, socket: impl AsFd) -> Result<(), Error> {
    match sys::steer(&socket, &[]) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Ok(()) => Err(Error::Unsuitable(
            format!(
                "UDP group {name:?}: this kernel takes a program for SO_REUSEPORT and does nothing with it (as gVisor does): use udp_socket, and \
                 hand the state over"
            )
            .into(),
        )),
        Err(error) => Err(Error::os_with(
            format!("UDP group {name:?}: the kernel cannot be told whose a datagram is (SO_ATTACH_REUSEPORT_CBPF)"),
            error,
            format!("{FORBIDDEN}; or use udp_socket"),
        )),
    }
}

/// The same before anything is bound.
pub(super) fn check_any(name: &str, addresses: &[SocketAddr]) -> Result<(), Error> {
    let Some(address) = addresses.first() else { return Ok(()) };
    let socket = sys::udp_socket(*address).map_err(Error::os(format!("cannot make a socket for UDP group {name:?}")))?;
    check(name, &socket)
}
