//! UDP groups as sockets by name: bound, inherited, or made of a socket that a predecessor had.
//!
//! Knows: what of the other sockets a group has to do with. Does not know: how a group works.

use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::Error;
use crate::keep::{HeldGroup, KeptGroup};
use crate::predecessor::tell_trouble;
use crate::steering::{self, Layout, Mark};

use super::group::{self, Group, Member};
use super::holder::sockets_at;
use super::{Kind, Sockets, UdpGroup, another, duplicate, is_passing, kind};

impl Sockets {
    /// UDP sockets on `address`, one for each generation that can be alive. The kernel sends each
    /// datagram to the generation whose mark it bears, and all others to the one that serves: so a
    /// process that has been replaced finishes its flows, and new ones begin with its successor.
    ///
    /// A server puts [`UdpGroup::mark`] into what clients send back, or into the connection IDs that it
    /// gives out ([`UdpGroup::stamp`]). Where the protocol has no room for a mark, hand the state over
    /// with a [`udp_socket`](Sockets::udp_socket): see the
    /// [three ways](crate::recipes#udp-three-ways-through-a-restart).
    ///
    /// | when | what the program does |
    /// | --- | --- |
    /// | a datagram of an unknown flow comes | begins a flow, or says "begin anew" |
    /// | [`HandedOff`](crate::Event::HandedOff) | goes on reading: its flows go on, and a few new ones may be queued |
    /// | [`Completed`](crate::Event::Completed) | ends when its flows have, or after a time |
    /// | an earlier generation, or a successor, has ended | [`recv_orphaned`](UdpGroup::recv_orphaned) |
    ///
    /// Restarts are refused ([`Refusal::Draining`](crate::Refusal::Draining)) while each socket of
    /// the group has a generation that still reads it.
    ///
    /// A plain `udp_socket` of the predecessor becomes the first socket of a group of that name, if
    /// the user of this process is the one that bound it, and may bind the port. A release that
    /// asks for a `udp_socket` under the name of a group gets one socket of the group, and the
    /// others go on for the earlier generations.
    ///
    /// With [`RestartConfig::keep`](crate::RestartConfig::keep) a keeper holds the group. If the
    /// process that serves is killed while earlier generations still have flows, the next start
    /// gets the group back, with the slot and the mark of the process that was killed, and the
    /// earlier generations notice nothing. What comes to that slot belongs to new flows, or to
    /// flows of the killed process. A program that has [kept
    /// those](crate::recipes#udp-flows-that-outlive-a-kill) goes on with them. Any other tells
    /// their clients to begin anew.
    ///
    /// ```no_run
    /// use std::{io::ErrorKind, time::Duration};
    /// use mio::{Events, Interest, Poll, Token, net::UdpSocket};
    /// use pollflip::{Event, Mark};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut restarter = pollflip::RestartConfig::new().build()?;
    /// let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    /// // Clients copy the first byte of what they get into what they send. Its high half is the mark.
    /// let group = restarter.sockets().udp_group("game", "0.0.0.0:7777", Mark::byte(0, 0xf0))?;
    /// let mut socket = UdpSocket::from_std(group.socket()?);
    /// poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    /// poll.registry().register(&mut restarter, Token(1), Interest::READABLE)?;
    /// restarter.ready()?;
    /// let (mut buffer, mut is_empty) = ([0; 1500], false);
    /// loop {
    ///     // What is left of the turn before is told no more: mio tells of a socket when more comes.
    ///     match poll.poll(&mut events, if is_empty { None } else { Some(Duration::ZERO) }) {
    ///         Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
    ///         _ => {}
    ///     }
    ///     // So many in a turn, for the restarter to have its own under a flood too.
    ///     for _ in 0..64 {
    ///         let received = socket.recv_from(&mut buffer);
    ///         is_empty = received.is_err();
    ///         let Ok((length, client)) = received else { break };
    ///         buffer[0] = buffer[0] & 0x0f | group.mark();
    ///         let _ = socket.send_to(&buffer[..length], client);
    ///     }
    ///     while let Some(event) = restarter.poll() {
    ///         if let Event::Completed(_) = event {
    ///             return Ok(()); // or when the last flow has ended
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The mark makes no sense, or is another than the predecessor's; the address cannot be bound, or
    /// the socket of that name is of another kind or at another address; the kernel or a sandbox does
    /// not let this process say whose a datagram is.
    pub fn udp_group(&mut self, name: &str, address: impl ToSocketAddrs, mark: Mark) -> Result<UdpGroup, Error> {
        let layout = steering::layout(mark).map_err(|why| Error::setting(format!("UDP group {name:?}: {why}")));
        layout.and_then(|layout| self.group(name, address, layout)).map(UdpGroup::new).inspect_err(tell_trouble)
    }

    fn group(&mut self, name: &str, address: impl ToSocketAddrs, layout: Layout) -> Result<Arc<Group>, Error> {
        self.check(name)?;
        self.claim_of_systemd();
        let wanted = match kind::resolve(name, address) {
            Ok(addresses) => addresses,
            Err(error) if self.groups.is_inherited(name) && is_passing(&error) => {
                log::warn!(target: "pollflip", "{error}; the inherited UDP group of that name is taken as it is");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let kind = Kind::Udp(wanted.clone());
        if let Some(group) = self.groups.get(name) {
            let found = group.kind();
            if !wanted.is_empty() && !found.serves_as(&kind) {
                return Err(another(name, &found, &kind));
            }
            if group.layout() != layout {
                let (found, wanted) = (group.layout().in_words(), layout.in_words());
                let why = format!(
                    "UDP group {name:?} is marked by {found}, and {wanted} were asked for: each release has to use the same mark; for another \
                     one, stop and start the service"
                );
                return Err(Error::WrongSocket(why.into()));
            }
        }
        if let Some(claimed) = self.groups.claim(name) {
            return claimed.inspect(|group| self.have_kept(name, group));
        }
        let group = match self.entries.get(name) {
            Some(_) => self.group_of_one(name, &kind, layout)?,
            None => {
                group::check_any(name, &wanted)?;
                Group::bind(name, layout, &wanted).map_err(|error| self.why_unbound(name, &kind, error))?
            }
        };
        self.changed.get_or_insert_with(|| format!("UDP group {name:?} was bound"));
        let group = self.groups.insert(name, group);
        self.have_kept(name, &group);
        Ok(group)
    }

    /// From now on a keeper holds it, if there is one.
    fn have_kept(&self, name: &str, group: &Group) {
        if !self.keeper.is_active() {
            return;
        }
        let why = if HeldGroup::is_fit_name(name) {
            group.keep().err().map(|error| error.to_string())
        } else {
            let longest = HeldGroup::LONGEST_NAME;
            Some(format!("its name has more than {longest} bytes, other characters than printable ASCII, or a colon: give it another one"))
        };
        if let Some(why) = why {
            log::warn!(target: "pollflip", "UDP group {name:?} is not kept, and ends with this process: {why}");
        }
        if let Some(group) = kept_group(name, group) {
            self.tell_keeper_of_parts(&group);
            self.keeper.has_group(&group);
        }
    }

    pub(super) fn tell_keeper_of_parts(&self, group: &KeptGroup<'_>) {
        group.parts.iter().for_each(|(_, part)| self.keeper.has_socket(group.name, *part));
    }

    /// The groups that outlive this process, if a keeper holds them.
    pub(crate) fn kept_groups(&self) -> impl Iterator<Item = KeptGroup<'_>> {
        self.groups.all().filter_map(|(name, group)| kept_group(name, group))
    }

    /// A group whose first socket is the one that the predecessor had under that name.
    fn group_of_one(&mut self, name: &str, wanted: &Kind, layout: Layout) -> Result<Group, Error> {
        let no_group = |why: &str| {
            let told = format!("socket {name:?} cannot become a UDP group: {why}; stop and start the service, which binds the group then");
            Error::WrongSocket(told.into())
        };
        let [entry] = self.entries.get(name).map_or(&[][..], |entries| &entries[..]) else {
            return Err(no_group("there are several of that name"));
        };
        let found = Kind::of(&entry.socket);
        if !found.serves_as(wanted) {
            return Err(another(name, &found, wanted));
        }
        if !entry.inherited {
            return Err(no_group("this process has bound it as a socket of its own"));
        }
        if self.family.predecessor.is_none() {
            return Err(no_group(if self.keeper.is_active() {
                "a keeper or systemd has given it to this process as it is; if systemd has bound it, take it out of the unit of its sockets"
            } else {
                "systemd has bound it; take it out of the unit of its sockets"
            }));
        }
        if sockets_at(&found).iter().filter(|(_, address)| found.is_exactly(*address)).count() > 1 {
            return Err(no_group("other sockets are bound beside it (SO_REUSEPORT)"));
        }
        group::check(name, &entry.socket)?;
        let group = Group::of(name, layout, duplicate(name, &entry.socket)?).map_err(|error| {
            let why = "others cannot be bound beside it, which takes the user that has bound it and, below port 1024, CAP_NET_BIND_SERVICE";
            no_group(&format!("{error}; {why}"))
        })?;
        self.entries.remove(name);
        // It is held as a part of the group from now on, and a keeper holds an open file once.
        self.keeper.listens_no_more(name);
        Ok(group)
    }

    /// This process's socket of the group of that name, if there is one and it fits.
    pub(super) fn of_group<T: From<OwnedFd>>(&mut self, name: &str, fits: impl FnOnce(&Kind) -> bool) -> Option<Result<T, Error>> {
        if !fits(&self.groups.get(name)?.kind()) {
            return None;
        }
        let claimed = self.groups.claim(name)?.inspect(|group| self.have_kept(name, group));
        Some(claimed.and_then(|group| duplicate(name, group.own_socket())))
    }

    /// Chooses the socket of each UDP group that the next successor reads.
    pub(crate) fn reserve(&self, lives: impl Fn(u32) -> bool) {
        self.groups.reserve(lives);
    }

    /// Whether each UDP group has a socket for one more generation beside those that live.
    pub(crate) fn have_room(&self, lives: impl Fn(u32) -> bool) -> bool {
        self.groups.have_room(lives)
    }

    /// The memory files of the groups that are kept, by the names under which a successor knows them.
    pub(crate) fn rosters(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let kept = self.groups.all().filter_map(|(name, group)| Some((name, group.kept()?.0)));
        kept.map(|(name, roster)| (HeldGroup::roster_name(name), roster.as_fd())).collect()
    }

    /// The sockets of UDP groups, for a successor.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.groups.members()
    }

    /// From now on what is unmarked goes to the successor. An error says why not.
    pub(crate) fn steer_to_successor(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        self.groups.steer_to_successor(lives)
    }

    /// From now on what is unmarked goes to this process, and what bears the mark of one that has ended. An error says why not.
    pub(crate) fn steer_to_this(&self, lives: impl Fn(u32) -> bool) -> Result<(), String> {
        self.groups.steer_to_this(lives)
    }
}

pub(super) fn kept_group<'a>(name: &'a str, group: &'a Group) -> Option<KeptGroup<'a>> {
    let (roster, sockets) = group.kept()?;
    let sockets = sockets.enumerate().map(|(slot, socket)| (HeldGroup::member_name(name, slot), socket));
    // The memory file comes last: without it a keeper has nothing that is of use.
    let parts = sockets.chain([(HeldGroup::roster_name(name), roster.as_fd())]).collect();
    Some(KeptGroup { name, is_held: group.is_back(), parts })
}
