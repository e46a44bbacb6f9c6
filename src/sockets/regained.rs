//! UDP groups that a keeper has held, put together of their sockets and of what their rosters say; and the processes that still read them.
//!
//! Knows: which of those live. Does not know: keepers, or what becomes of a group.
//!
//! A drainer is in no relation to a process that a keeper has started: it may be neither parent nor child, and nobody has its pidfd any more. So
//! its number is in the roster, with its birth, by which it is told from a later process of that number. A pidfd opened by it tells of
//! its end, as that of a predecessor does.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use crate::keep::HeldGroup;
use crate::predecessor::GroupGift;
use crate::sys::{self, Process};

use super::Kind;
use super::roster::{Reader, Roster};

/// The groups that are whole, and the processes that still read one, the oldest first. What is not whole is closed.
pub(crate) fn regained(held: BTreeMap<String, HeldGroup>) -> (Vec<GroupGift>, Vec<Process>) {
    let mut draining = Vec::new();
    let mut groups = Vec::new();
    for (name, group) in held {
        match group_of(&name, group, &mut draining) {
            Ok(group) => groups.push(group),
            Err(why) => log::error!(
                target: "pollflip",
                "UDP group {name:?} was kept, and cannot be gone on with: {why}; a new one can be bound when no earlier generation reads it any more"
            ),
        }
    }
    (groups, draining)
}

fn group_of(name: &str, held: HeldGroup, draining: &mut Vec<Process>) -> Result<GroupGift, String> {
    let roster = held.roster.ok_or("its memory file is missing")?;
    let Roster { layout, serving, readers } =
        Roster::read_from(&File::from(sys::duplicate(&roster, 3).map_err(|error| error.to_string())?))?;
    let mut slots: Vec<Option<OwnedFd>> = (0..layout.generations()).map(|_| None).collect();
    for (slot, socket) in held.sockets {
        *slots.get_mut(usize::from(slot)).ok_or_else(|| format!("there is a socket {slot}, of {}", layout.generations()))? = Some(socket);
    }
    let missing = slots.iter().position(Option::is_none);
    let Some(sockets) = slots.into_iter().collect::<Option<Vec<_>>>() else {
        return Err(format!("socket {} is missing", missing.unwrap_or_default()));
    };
    let kinds = sockets.iter().map(Kind::of).collect::<Vec<_>>();
    if !kinds.iter().all(|kind| matches!(kind, Kind::Udp(_)) && Some(kind) == kinds.first()) {
        return Err("its sockets are not bound to one address".into());
    }
    // The slot of the process that served is this one's; if that should live, which a keeper gets wrong at times, the next free one.
    let count = layout.generations();
    let mut living: Vec<Option<Process>> = readers.into_iter().map(|reader| reader.and_then(alive)).collect();
    let in_turn = (0..count).map(|ahead| (serving + ahead) % count);
    let own = in_turn.clone().find(|slot| living.get(usize::from(*slot)).is_some_and(Option::is_none));
    let own = own.ok_or("each of its sockets has a process that reads it")?;
    let owners = living.iter().map(|reader| reader.as_ref().map(Process::pid)).collect();
    for slot in in_turn {
        if let Some(process) = living.get_mut(usize::from(slot)).and_then(Option::take)
            && !draining.iter().any(|known| known.pid() == process.pid())
        {
            draining.push(process);
        }
    }
    Ok(GroupGift { name: name.into(), layout, own, sockets, owners, roster: Some(roster), is_back: true })
}

/// The process that was meant, if it lives.
fn alive(Reader { pid, born }: Reader) -> Option<Process> {
    if pid == std::process::id() {
        // It had the number of this process.
        return None;
    }
    // Opened first: what is looked at afterwards is what was opened, or something that lives and has another birth.
    let process = Process::open(pid).ok()?;
    let is_meant = born.is_none() || sys::birth_of(pid) == born;
    (is_meant && !process.has_ended()).then_some(process)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::keep::Held;
    use crate::sockets::{Family, Sockets};
    use crate::steering::{Mark, layout};

    /// A group of three as a keeper gives it: slot 1 served, and the readers as told.
    fn held(readers: [Option<Reader>; 3]) -> HeldGroup {
        let mark = Mark::byte(0, 0x03);
        let mut all = Sockets::new(Vec::new(), Vec::new(), Vec::new(), Family::default());
        drop(all.udp_group("game", (Ipv4Addr::LOCALHOST, 0), mark).expect("a group"));
        let roster = Roster { layout: layout(mark).expect("a mark"), serving: 1, readers: readers.into() };
        let file = sys::memory_file().expect("memory");
        roster.write_to(&file).expect("room");
        let sockets = all.members().map(|member| sys::duplicate(member.socket, 3).expect("a duplicate"));
        // In any order.
        let mut sockets: Vec<_> = (0..3).zip(sockets).collect();
        sockets.reverse();
        HeldGroup { roster: Some(file.into()), sockets }
    }

    fn one(group: HeldGroup) -> (Vec<GroupGift>, Vec<Process>) {
        regained([("game".into(), group)].into())
    }

    /// One that lives, as long as the test that has started it, and one that has ended.
    fn reader(pid: u32) -> Option<Reader> {
        Some(Reader { pid, born: sys::birth_of(pid) })
    }

    #[test]
    fn the_slot_of_the_process_that_served_is_this_one_s_and_those_that_live_have_theirs() {
        let parent = std::os::unix::process::parent_id();
        let dead = Reader { pid: parent, born: Some(1) };
        let (groups, draining) = one(held([reader(parent), Some(dead), Some(dead)]));
        let [group] = &groups[..] else { panic!("{groups:?}") };
        assert_eq!((group.own, &group.owners[..], group.is_back), (1, &[Some(parent), None, None][..], true));
        assert_eq!(draining.iter().map(Process::pid).collect::<Vec<_>>(), [parent]);
        // Where a birth cannot be seen, a number has to do.
        let (groups, _) = one(held([None, None, Some(Reader { pid: parent, born: None })]));
        assert_eq!(groups[0].owners, [None, None, Some(parent)]);
        // A keeper that starts a second service beside a first one that lives.
        let (groups, draining) = one(held([None, reader(parent), None]));
        assert_eq!((groups[0].own, draining.len()), (2, 1));
        // One of before had the number of this process.
        let (groups, draining) = one(held([None, reader(std::process::id()), None]));
        assert_eq!((groups[0].own, draining.len()), (1, 0));
    }

    #[test]
    fn what_is_not_whole_is_closed() {
        let parent = std::os::unix::process::parent_id();
        let all = || held([None; 3]);
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let wrong: [(&str, HeldGroup); 7] = [
            ("no memory file", HeldGroup { roster: None, ..all() }),
            ("another memory file", HeldGroup { roster: Some(sys::memory_file().expect("memory").into()), ..all() }),
            ("no file", HeldGroup { roster: Some(elsewhere.try_clone().expect("a duplicate").into()), ..all() }),
            ("one is missing", {
                let mut group = all();
                group.sockets.remove(1);
                group
            }),
            ("one too many", {
                let mut group = all();
                group.sockets.push((3, elsewhere.into()));
                group
            }),
            ("one at another address", {
                let mut group = all();
                group.sockets[2].1 = stranger.into();
                group
            }),
            ("no slot is free", held([reader(parent); 3])),
        ];
        for (what, group) in wrong {
            let at = group.sockets.first().and_then(|(_, socket)| UdpSocket::from(socket.try_clone().ok()?).local_addr().ok());
            let (groups, draining) = one(group);
            assert!(groups.is_empty() && draining.is_empty(), "{what}");
            drop(UdpSocket::bind(at.expect("an address")).unwrap_or_else(|error| panic!("{what}: {error}")));
        }
    }

    #[test]
    fn it_comes_by_names_that_say_what_each_is() {
        let group = held([None; 3]);
        let sockets = group.sockets.into_iter().map(|(slot, socket)| (HeldGroup::member_name("a.b", slot.into()), socket));
        let named = sockets.chain([(HeldGroup::roster_name("a.b"), group.roster.expect("a file"))]);
        let mut held = Held::sort(named);
        assert!(held.sockets.is_empty());
        let (groups, _) = regained(std::mem::take(&mut held.groups));
        assert_eq!((groups[0].name.as_str(), groups[0].sockets.len()), ("a.b", 3));
        let null = || std::fs::File::open("/dev/null").expect("a file").into();
        for odd in ["pollflip.member.", "pollflip.member.x.a", "pollflip.member.256.a", "pollflip.member.1"] {
            let held = Held::sort([(odd.to_owned(), null())]);
            assert!(held.groups.is_empty() && held.sockets.len() == 1, "{odd}");
        }
        assert!(HeldGroup::is_fit_name(&"x".repeat(236)) && !HeldGroup::is_fit_name(&"x".repeat(237)) && !HeldGroup::is_fit_name("a:b"));
    }
}
