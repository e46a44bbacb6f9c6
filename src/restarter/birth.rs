//! What a successor is born with.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process;
use std::sync::Arc;

use crate::exec::Job;
use crate::lifeline::Lifeline;
use crate::machine::Attempt;
use crate::sys::{self, Process};
use crate::wire::{self, Given, Hello, MAX_DESCRIPTORS, MAX_PACKET, Message, OpKind, Packed};

use super::Restarter;

impl Restarter {
    /// The lifeline with the first messages in it, and all else that a successor is given.
    pub(super) fn prepare(&self, attempt: Attempt) -> io::Result<(Lifeline, Job)> {
        let (lifeline, theirs) = Lifeline::pair()?;
        // Above the numbers that the sockets of systemd take in the child, and above those of a standard stream that is closed here.
        let above = self.sockets.untouched().map(|(.., number)| number + 1).max().unwrap_or(3);
        let theirs = if theirs.as_raw_fd() < above { sys::duplicate(theirs, above)? } else { theirs };
        let passed = self
            .sockets
            .untouched()
            .map(|(name, socket, number)| Ok((name.to_owned(), sys::duplicate(socket, above)?, number)))
            .collect::<io::Result<_>>()?;

        let living = self.ancestry.living_pids();
        self.sockets.reserve(|pid| living.contains(&pid));
        let own = Process::open(process::id()).map_err(sys::naming("pidfd_open"))?;
        let mut gifts = vec![(Given::Predecessor, own.as_fd())];
        if let Some((path, identities, listener)) = self.requests.listener()
            && let Some(path) = path.to_str()
        {
            let [file, root] = identities.map(|identity| identity.map_or(vec![], |file| file.to_numbers().into()));
            gifts.push((Given::Coordination { path: path.into(), file, root }, listener));
        }
        gifts.extend(self.ancestry.living().map(|process| (Given::Draining { pid: process.pid() }, process.as_fd())));
        gifts.extend(self.sockets.members().map(|member| {
            let (slot, of) = (member.slot, member.layout.generations());
            let (name, mark) = (member.name.into(), member.layout.to_string());
            (Given::Member { name, slot, of, mark, owner: member.owner, yours: member.is_successors }, member.socket)
        }));
        let (kept, rosters) = (self.keeper.given(), self.sockets.rosters());
        let mut packets = packets(gifts).into_iter();
        let (given, descriptors) = packets.next().unwrap_or_default();
        let following = packets.as_slice().iter().map(|(given, _)| given.len()).sum::<usize>()
            + self.sockets.given().count()
            + kept.len()
            + rosters.len();
        let hello = Message::Hello(Hello {
            version: wire::VERSION,
            oldest: wire::OLDEST,
            pid: process::id(),
            generation: self.generation().saturating_add(1),
            probation_ms: self.driver.limits().probation.map(|time| time.as_millis() as u64),
            signal: self.requests.signal().map(|signal| signal as i32),
            pid_file: self.paths.pid_file().filter(|path| wire::room_for(path) < LONGEST_PATH).map(String::from),
            given,
            following: following as u64,
            outcomes: self.succession.outcomes(),
        });
        let send = |bytes: &[u8], descriptors: &[_]| lifeline.send_packet(bytes, descriptors).map_err(sys::naming("sendmsg"));
        send(&hello.encode(), &descriptors)?;
        for (given, descriptors) in packets {
            send(&Message::More { given }.encode(), &descriptors)?;
        }
        let (mut names, mut sockets) = (Packed::default(), Vec::new());
        let kept = kept.iter().map(|(name, descriptor)| (name.as_str(), descriptor.as_fd()));
        let rosters = rosters.iter().map(|(name, roster)| (name.as_str(), *roster));
        for (name, socket) in self.sockets.given().chain(kept).chain(rosters) {
            if !names.push(OpKind::Descriptor, name) {
                send(names.bytes(), &sockets)?;
                names.clear();
                sockets.clear();
                // There is room for any name now: each has been checked.
                let _ = names.push(OpKind::Descriptor, name);
            }
            sockets.push(socket);
        }
        if !names.is_empty() {
            send(names.bytes(), &sockets)?;
        }
        Ok((lifeline, Job { attempt, lifeline: Arc::new(theirs), passed }))
    }
}

/// As many as go together.
fn packets<'a>(gifts: Vec<(Given, BorrowedFd<'a>)>) -> Vec<(Vec<Given>, Vec<BorrowedFd<'a>>)> {
    let mut packets: Vec<(Vec<Given>, Vec<_>)> = vec![Default::default()];
    let mut length = ROOM_FOR_HELLO;
    for (given, descriptor) in gifts {
        let room = match &given {
            Given::Member { name, mark, .. } => wire::room_for(name) + wire::room_for(mark),
            Given::Coordination { path, .. } => wire::room_for(path) + wire::room_for(""),
            Given::Predecessor | Given::Draining { .. } | Given::Unknown => wire::room_for(""),
        };
        if length + room > MAX_PACKET || packets.last().is_some_and(|(given, _)| given.len() == MAX_DESCRIPTORS) {
            packets.push(Default::default());
            length = ROOM_FOR_HELLO;
        }
        length += room;
        if let Some((all, descriptors)) = packets.last_mut() {
            all.push(given);
            descriptors.push(descriptor);
        }
    }
    packets
}

/// More than a first message takes without its sockets: the last outcomes and the pid file, in the main.
const ROOM_FOR_HELLO: usize = 8 * 1024 + LONGEST_PATH;
/// A path that takes more is not handed down.
const LONGEST_PATH: usize = 4 * 1024;
