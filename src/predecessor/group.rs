//! The UDP groups in what a predecessor gives, put together of their sockets.
//!
//! Knows: what makes a group whole. Does not know: what it is used for.

use std::os::fd::OwnedFd;

use crate::steering::Layout;
use crate::wire::Given;

/// A UDP group of the predecessor, or of a process before that a keeper has held.
#[derive(Debug)]
pub(crate) struct GroupGift {
    pub(crate) name: String,
    pub(crate) layout: Layout,
    /// The slot of this process.
    pub(crate) own: u8,
    /// One for each slot, in their order.
    pub(crate) sockets: Vec<OwnedFd>,
    /// The process that reads it, if one does.
    pub(crate) owners: Vec<Option<u32>>,
    /// The memory file in which the next start finds who reads what, if a keeper holds the group.
    pub(crate) roster: Option<OwnedFd>,
    /// A keeper has given it: the process that served is dead.
    pub(crate) is_back: bool,
}

/// A group of which more may come.
#[derive(Debug)]
struct Part {
    name: String,
    mark: String,
    own: Option<u8>,
    members: Vec<Option<(OwnedFd, Option<u32>)>>,
}

/// Groups of which the sockets come one after the other.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<Part>);

impl Parts {
    /// Takes a socket of a group; an error says what is wrong with it.
    pub(super) fn take(&mut self, given: Given, socket: OwnedFd) -> Result<(), String> {
        let Given::Member { name, slot, of, mark, owner, yours } = given else { return Ok(()) };
        let known = self.0.iter().position(|part| part.name == name);
        let at = known.unwrap_or_else(|| {
            let members = (0..of).map(|_| None).collect();
            self.0.push(Part { name: name.clone(), mark: mark.clone(), own: None, members });
            self.0.len() - 1
        });
        let Some(part) = self.0.get_mut(at) else { return Ok(()) };
        if part.mark != mark || part.members.len() != usize::from(of) {
            return Err(format!("the sockets of the UDP group {name:?} do not belong together"));
        }
        if yours && part.own.replace(slot).is_some() {
            return Err(format!("two sockets of the UDP group {name:?} are to be this process's"));
        }
        match part.members.get_mut(usize::from(slot)) {
            Some(member @ None) => *member = Some((socket, owner)),
            Some(Some(_)) => return Err(format!("socket {slot} of the UDP group {name:?} comes twice")),
            None => return Err(format!("socket {slot} of the UDP group {name:?} is one of {of}")),
        }
        Ok(())
    }

    /// All of them, whole; an error says what is missing.
    pub(super) fn whole(self) -> Result<Vec<GroupGift>, String> {
        self.0.into_iter().map(Part::whole).collect()
    }
}

impl Part {
    fn whole(self) -> Result<GroupGift, String> {
        let Part { name, mark, own, members } = self;
        let Some(layout) = Layout::parse(&mark).filter(|layout| usize::from(layout.generations()) == members.len()) else {
            return Err(format!("the UDP group {name:?} is marked in a way that this version does not know: {mark:?}"));
        };
        let Some(own) = own else { return Err(format!("no socket of the UDP group {name:?} is this process's")) };
        let members: Option<Vec<_>> = members.into_iter().collect();
        let Some(members) = members else { return Err(format!("a socket of the UDP group {name:?} is missing")) };
        let (sockets, owners) = members.into_iter().unzip();
        Ok(GroupGift { name, layout, own, sockets, owners, roster: None, is_back: false })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn member(slot: u8, of: u8, mark: &str, yours: bool) -> Given {
        Given::Member { name: "game".into(), slot, of, mark: mark.into(), owner: Some(7).filter(|_| slot == 0), yours }
    }

    fn groups(given: impl IntoIterator<Item = Given>) -> Result<Vec<GroupGift>, String> {
        let mut parts = Parts::default();
        for given in given {
            parts.take(given, File::open("/dev/null").expect("a file").into())?;
        }
        parts.whole()
    }

    const MARK: &str = "byte:0:3/3";

    #[test]
    fn a_group_comes_in_any_order_and_whole_or_not_at_all() {
        let all = [(2, false), (0, false), (1, true)].map(|(slot, yours)| member(slot, 3, MARK, yours));
        let found = groups(all.clone()).expect("a group");
        let [group] = &found[..] else { panic!("{found:?}") };
        assert_eq!((group.own, &group.owners[..], group.sockets.len()), (1, &[Some(7), None, None][..], 3));
        assert!(groups([]).expect("none").is_empty());
        for (wrong, told) in [
            (all[..2].to_vec(), "is this process's"),
            (all[1..].to_vec(), "is missing"),
            ([&all[..], &all[..1]].concat(), "comes twice"),
            ([&all[..], &all[2..]].concat(), "two sockets"),
            (vec![member(3, 3, MARK, true)], "is one of 3"),
            (vec![member(0, 3, MARK, true), member(1, 4, MARK, false)], "belong together"),
            (vec![member(0, 3, MARK, true), member(1, 3, "byte:0:7/3", false)], "belong together"),
            (vec![member(0, 1, MARK, true)], "does not know"),
            (vec![member(0, 3, "stars", true), member(1, 3, "stars", false), member(2, 3, "stars", false)], "does not know"),
        ] {
            let why = groups(wrong).expect_err(told);
            assert!(why.contains(told), "{why}");
        }
    }
}
