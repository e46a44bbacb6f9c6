//! The names under which a keeper holds what is not a listener, and under which a successor is given it.
//!
//! Knows: how a name is made up, and which of two is the later. Does not know: what is held.

use crate::notify::MAX_FDNAME;

/// What the program keeps has one of these before its name. Something else under that name goes under the next of them before the
/// one before is removed: with two of the three it is known which is the later.
const KEPT: [&str; 3] = ["pollflip.kept.", "pollflip.kept1.", "pollflip.kept2."];
/// Before what tells the queues of connections apart.
const QUEUE: &str = "pollflip.streams.";
/// Before the same, if the queue is the successor's that is given it.
const LENT: &str = "pollflip.lent.";

/// Before the name of a UDP group: the memory file that says who reads which socket of it.
const GROUP: &str = "pollflip.group.";
/// Before the number of a slot and the name of a UDP group: its socket.
const MEMBER: &str = "pollflip.member.";

/// How long the name of a UDP group may be that is held. A slot has two digits at the most.
pub(super) const LONGEST_GROUP: usize = MAX_FDNAME - MEMBER.len() - "31.".len();

/// How long a name may be that a program keeps something by.
pub(super) const LONGEST: usize = MAX_FDNAME - KEPT[1].len();

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Slot(usize);

impl Slot {
    pub(super) fn all() -> impl Iterator<Item = Slot> {
        (0..KEPT.len()).map(Slot)
    }

    pub(super) fn next(self) -> Slot {
        Slot((self.0 + 1) % KEPT.len())
    }

    pub(super) fn full_name(self, name: &str) -> String {
        format!("{}{name}", KEPT[self.0])
    }
}

/// How long the full name is at the most.
pub(super) fn length_of(name: &str) -> usize {
    KEPT[1].len() + name.len()
}

/// The name of a queue: of those that this process makes, by the number.
pub(super) fn of_queue(pid: u32, number: u32) -> String {
    format!("{QUEUE}{pid}.{number}")
}

/// Under which a successor is given the queue of that name, as its own.
pub(super) fn as_lent(queue: &str) -> String {
    format!("{LENT}{}", queue.strip_prefix(QUEUE).unwrap_or(queue))
}

/// The name of the memory file of a UDP group.
pub(super) fn of_roster(group: &str) -> String {
    format!("{GROUP}{group}")
}

/// The name of a socket of a UDP group.
pub(super) fn of_member(group: &str, slot: usize) -> String {
    format!("{MEMBER}{slot}.{group}")
}

/// What a full name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// What the program keeps by that name.
    Kept(Slot, &'a str),
    /// A queue of a process before.
    Queue,
    /// The queue of this process, which has that name.
    Lent(String),
    /// The memory file of the UDP group of that name.
    Roster(&'a str),
    /// The socket of a UDP group in that slot.
    Member(u8, &'a str),
    /// A listener, or what a manager passes.
    Other,
}

impl Meaning<'_> {
    pub(super) fn of(full_name: &str) -> Meaning<'_> {
        let kept = |slot: Slot| Some(Meaning::Kept(slot, full_name.strip_prefix(KEPT[slot.0])?));
        if full_name.starts_with(QUEUE) {
            Meaning::Queue
        } else if let Some(rest) = full_name.strip_prefix(LENT) {
            Meaning::Lent(format!("{QUEUE}{rest}"))
        } else if let Some(group) = full_name.strip_prefix(GROUP) {
            Meaning::Roster(group)
        } else if let Some((slot, group)) = full_name.strip_prefix(MEMBER).and_then(|rest| rest.split_once('.'))
            && let Ok(slot) = slot.parse()
        {
            Meaning::Member(slot, group)
        } else {
            Slot::all().find_map(kept).unwrap_or(Meaning::Other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_what_it_was_made_for() {
        for slot in Slot::all() {
            assert_eq!(Meaning::of(&slot.full_name("a.b")), Meaning::Kept(slot, "a.b"));
            assert!(slot.full_name(&"x".repeat(LONGEST)).len() <= MAX_FDNAME);
            assert_ne!(slot.next(), slot);
            assert_ne!(slot.next().next(), slot);
            assert_eq!(slot.next().next().next(), slot);
        }
        assert_eq!(Meaning::of(&of_queue(7, 3)), Meaning::Queue);
        assert_eq!(Meaning::of(&as_lent(&of_queue(7, 3))), Meaning::Lent(of_queue(7, 3)));
        assert_eq!(Meaning::of(&of_roster("a.b")), Meaning::Roster("a.b"));
        assert_eq!(Meaning::of(&of_member("a.b", 31)), Meaning::Member(31, "a.b"));
        assert_eq!(of_member(&"x".repeat(LONGEST_GROUP), 31).len(), MAX_FDNAME);
        for other in [
            "web",
            "pollflip.web",
            "pollflip.kept3.a",
            "pollflip.kept",
            "",
            "pollflip.member.x.a",
            "pollflip.member.256.a",
            "pollflip.member.1",
        ] {
            assert_eq!(Meaning::of(other), Meaning::Other, "{other:?}");
        }
    }
}
