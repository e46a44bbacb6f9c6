//! What the new process has got.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::mem;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::sys::{Mapping, Origin};
use crate::wire::{Message, Op, OpKind};

/// What the predecessor has handed over. The program takes each item once, by its name, and chooses
/// the type that it becomes. Items that it does not take are closed when the service is granted.
///
/// Connections may be taken at once, but neither read nor written before [`Granted`](crate::Event::Granted), or the return of
/// [`ready`](crate::Restarter::ready): until then the predecessor can still get them back.
///
/// A forked child has a copy. What the child takes, its parent still has. If another thread of the
/// parent was taking an item at the moment of the fork, the copy is empty.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use pollflip::Handover;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let player = TcpStream::connect(listener.local_addr()?)?;
/// // The predecessor's side, here in the same process.
/// let mut inheritance = Handover::rehearse(|mut handover| {
///     handover.bytes("table.v1", b"12 34").expect("it is taken");
///     handover.fd("player/7", &player).expect("it is taken");
///     handover.send();
/// })?;
///
/// assert_eq!(inheritance.names(), ["player/7", "table.v1"]);
/// let table = inheritance.bytes("table.v1")?.ok_or("no table")?;
/// assert_eq!(table, b"12 34");
/// // All that is left, by name.
/// for (name, descriptor) in inheritance.drain() {
///     assert_eq!(name, "player/7");
///     let player = TcpStream::from(descriptor);
///     # drop(player);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Inheritance {
    items: Arc<Mutex<Items>>,
    /// What had come before, was taken then, and is gone.
    gone: Vec<String>,
    /// The process in which it has come.
    origin: Origin,
}

/// All that has come, by name: sorted once it is complete. What was taken leaves its name.
type Items = Vec<Item>;

#[derive(Debug)]
struct Item {
    name: String,
    kind: OpKind,
    descriptor: Option<OwnedFd>,
}

/// What comes of a handover, as it comes: see [`Predecessor::receive_each`](crate::Predecessor::receive_each).
///
/// ```
/// use std::{collections::HashMap, net::TcpStream};
/// use pollflip::Arrival;
///
/// fn take(clients: &mut HashMap<String, TcpStream>, arrival: Arrival) {
///     match arrival {
///         Arrival::Given(name, descriptor) => drop(clients.insert(name, descriptor.into())),
///         Arrival::Gone(name) => drop(clients.remove(&name)),
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Arrival {
    /// A descriptor, with the name that the predecessor has given it.
    Given(String, OwnedFd),
    /// What was given under that name is taken back: the predecessor has closed it, and so does the
    /// successor.
    Gone(String),
}

impl Inheritance {
    /// Takes a descriptor, as whatever is made from one: an [`OwnedFd`], a `TcpStream`, a `UnixStream`, a `File`, … A blob can be
    /// taken as a `File` too; its offset is shared with the predecessor, so read it by position.
    /// Whether it blocks is as it was: that belongs to what both processes have in common.
    pub fn fd<T: From<OwnedFd>>(&mut self, name: &str) -> Option<T> {
        self.slot(name, Option::take).flatten().map(T::from)
    }

    /// Takes a blob, or any file, as bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no file. It stays, and can be taken as something else.
    pub fn bytes(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.fd::<File>(name) else { return Ok(None) };
        let result = read(&file);
        self.put_back_unless(result, name, file)
    }

    /// Takes a blob without copying it.
    ///
    /// # Errors
    ///
    /// It is no blob but, say, a memory file of the program's own, which may change while it is read; or it cannot be mapped. It stays,
    /// and can be taken as something else.
    pub fn map(&mut self, name: &str) -> io::Result<Option<Map>> {
        let Some(file) = self.fd::<File>(name) else { return Ok(None) };
        let result = Mapping::new(file.as_fd()).map(Map);
        self.put_back_unless(result, name, file)
    }

    fn put_back_unless<T>(&mut self, result: io::Result<T>, name: &str, file: File) -> io::Result<Option<T>> {
        if result.is_err() {
            self.slot(name, |slot| *slot = Some(file.into()));
        }
        result.map(Some)
    }

    /// The names of what is gone that the program has taken before: what had come
    /// [ahead](crate::Precopy), or what a [`receive_each`](crate::Predecessor::receive_each) handed
    /// out before its time was over. Drop these first. One of them may have been given again, and is
    /// among the [names](Inheritance::names).
    pub fn gone(&self) -> &[String] {
        &self.gone
    }

    /// The names of what has not been taken, sorted.
    pub fn names(&self) -> Vec<String> {
        let Some(items) = self.items() else { return Vec::new() };
        items.iter().filter(|item| item.descriptor.is_some()).map(|item| item.name.clone()).collect()
    }

    /// Takes all that is left, sorted by name.
    pub fn drain(&mut self) -> impl Iterator<Item = (String, OwnedFd)> + use<> {
        let left = self.items().map(|mut items| mem::take(&mut *items));
        left.unwrap_or_default().into_iter().filter_map(|item| Some((item.name, item.descriptor?)))
    }

    fn slot<T>(&self, name: &str, with: impl FnOnce(&mut Option<OwnedFd>) -> T) -> Option<T> {
        let mut items = self.items()?;
        let index = items.binary_search_by(|item| item.name.as_str().cmp(name)).ok()?;
        Some(with(&mut items[index].descriptor))
    }

    /// `None`: this is a forked child, where nobody releases them.
    fn items(&self) -> Option<MutexGuard<'_, Items>> {
        if self.origin.is_here() {
            return Some(lock(&self.items));
        }
        match self.items.try_lock() {
            Ok(items) => Some(items),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A blob in memory, without a copy: nobody can change it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut inheritance = pollflip::Handover::rehearse(|mut handover| {
/// #     handover.bytes("table.v1", b"12 34").expect("it is taken");
/// #     handover.send();
/// # })?;
/// let table = inheritance.map("table.v1")?.ok_or("no table")?;
/// assert!(table.starts_with(b"12")); // a slice of bytes, as long as the map lives
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Map(Mapping);

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A handover that is coming in.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    items: Arc<Mutex<Items>>,
    /// What is taken as it comes, while somebody does that: descriptors, and which are gone.
    arrivals: Option<Vec<Arrival>>,
    /// What comes ahead of it, once that has been asked for.
    ahead: Option<Ahead>,
    /// What the program has taken before, and is gone.
    gone: Vec<String>,
    /// Something was taken as it came. Which names that were is not kept: it may be thousands.
    has_arrived: bool,
    /// How many have come and are not gone.
    count: u64,
}

/// What comes ahead.
#[derive(Debug, Default)]
struct Ahead {
    /// What is here and not gone, taken or not.
    names: HashSet<String>,
    /// What the program has yet to take, each with its kind.
    waiting: VecDeque<(OpKind, Arrival)>,
    /// The state has been asked for: what comes now is of that.
    is_over: bool,
    /// Something has come.
    is_any: bool,
}

impl Ahead {
    fn take_in(&mut self, kind: OpKind, name: String, descriptor: Option<OwnedFd>) -> Result<(), String> {
        self.is_any = true;
        match descriptor {
            Some(descriptor) if kind.bears_descriptor() => {
                if !self.names.insert(name.clone()) {
                    return Err(format!("two items have come ahead under the name {name:?}"));
                }
                self.waiting.push_back((kind, Arrival::Given(name, descriptor)));
            }
            _ => {
                if !self.names.remove(&name) {
                    return Err(format!("{name:?} is taken back, and had not been given"));
                }
                self.waiting.push_back((kind, Arrival::Gone(name)));
            }
        }
        Ok(())
    }
}

impl Collected {
    /// Takes the next message in. `true`: that was the last; an error says why it cannot be used.
    pub(crate) fn take_in(&mut self, message: Message, descriptors: Vec<OwnedFd>) -> Result<bool, String> {
        match message {
            Message::Items { ops } => {
                let mut descriptors = descriptors.into_iter();
                for Op { kind, name } in ops {
                    let descriptor = if kind.bears_descriptor() { descriptors.next() } else { None };
                    self.count = if kind.bears_descriptor() { self.count + 1 } else { self.count.saturating_sub(1) };
                    match &mut self.ahead {
                        Some(ahead) if !ahead.is_over => ahead.take_in(kind, name, descriptor)?,
                        _ => self.settle(kind, name, descriptor)?,
                    }
                }
                Ok(false)
            }
            Message::End { precopied: precopied @ 1.., .. } if self.ahead.is_none() => {
                Err(format!("{precopied} items are said to have gone ahead, and none was asked for"))
            }
            Message::End { items, precopied } if items.saturating_add(precopied) == self.count => {
                let mut held = lock(&self.items);
                held.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                match held.windows(2).find(|pair| pair[0].name == pair[1].name) {
                    Some(pair) => Err(format!("two items of the handover have the name {:?}", pair[0].name)),
                    None => Ok(true),
                }
            }
            Message::End { items, precopied } => {
                Err(format!("{} items were handed over, and {} have come", items.saturating_add(precopied), self.count))
            }
            _ => Ok(false),
        }
    }

    /// What has come of the state, or ahead of it and was not taken then.
    fn settle(&mut self, kind: OpKind, name: String, descriptor: Option<OwnedFd>) -> Result<(), String> {
        if kind.bears_descriptor() && self.ahead.as_ref().is_some_and(|ahead| ahead.names.contains(&name)) {
            return Err(format!("two items of the handover have the name {name:?}"));
        }
        match (kind, &mut self.arrivals) {
            (OpKind::Gone, _) => {
                let was_ahead = self.ahead.as_mut().is_some_and(|ahead| ahead.names.remove(&name));
                let may_be_taken = was_ahead || self.arrivals.is_some() || self.has_arrived;
                if !self.drop_held(&name) && !may_be_taken {
                    return Err(format!("{name:?} is taken back, and had not been given"));
                }
            }
            (OpKind::Descriptor, Some(arrivals)) => arrivals.extend(descriptor.map(|descriptor| Arrival::Given(name, descriptor))),
            (OpKind::Descriptor | OpKind::Blob, _) => lock(&self.items).push(Item { name, kind, descriptor }),
        }
        Ok(())
    }

    /// What comes from now on comes ahead, until [`Collected::ask`].
    pub(crate) fn expect_ahead(&mut self) {
        self.ahead.get_or_insert_default();
    }

    /// Checks that all has come that is said to have gone ahead.
    pub(crate) fn ahead_complete(&self, items: u64) -> Result<(), String> {
        if items == self.count { Ok(()) } else { Err(format!("{items} items have gone ahead, and {} have come", self.count)) }
    }

    /// Whether something has come ahead.
    pub(crate) fn is_any_ahead(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.is_any)
    }

    /// How much waits to be taken of what has come ahead.
    pub(crate) fn waiting_ahead(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.waiting.len())
    }

    /// The next that has come ahead.
    pub(crate) fn next_ahead(&mut self) -> Option<Arrival> {
        self.ahead.as_mut()?.waiting.pop_front().map(|(_, arrival)| arrival)
    }

    /// The state is asked for. What has come ahead and was not taken belongs to it.
    pub(crate) fn ask(&mut self) {
        let Some(ahead) = &mut self.ahead else { return };
        ahead.is_over = true;
        let waiting = mem::take(&mut ahead.waiting);
        for (_, arrival) in &waiting {
            if let Arrival::Given(name, _) = arrival {
                ahead.names.remove(name);
            }
        }
        for (kind, arrival) in waiting {
            match (arrival, &mut self.arrivals) {
                (Arrival::Given(name, descriptor), Some(arrivals)) if kind == OpKind::Descriptor => {
                    arrivals.push(Arrival::Given(name, descriptor));
                }
                (Arrival::Given(name, descriptor), _) => lock(&self.items).push(Item { name, kind, descriptor: Some(descriptor) }),
                (Arrival::Gone(name), _) => _ = self.drop_held(&name),
            }
        }
    }

    /// Closes what is here under that name. If nothing is, the program has taken it, and is told
    /// that it is gone. Says whether something was here.
    fn drop_held(&mut self, name: &str) -> bool {
        let mut held = lock(&self.items);
        // Mostly one of the last.
        if let Some(given) = held.iter().rposition(|item| item.name == name) {
            drop(held.swap_remove(given));
            return true;
        }
        match &mut self.arrivals {
            Some(arrivals) => arrivals.push(Arrival::Gone(name.into())),
            None => self.gone.push(name.into()),
        }
        false
    }

    /// From now on descriptors are taken as they come, with those that have come already; or no
    /// more, and what has not been taken so belongs to the whole again.
    pub(crate) fn take_as_they_come(&mut self, are_taken: bool) {
        let mut held = lock(&self.items);
        let before = held.len();
        for arrival in self.arrivals.take().into_iter().flatten() {
            match arrival {
                Arrival::Given(name, descriptor) => held.push(Item { name, kind: OpKind::Descriptor, descriptor: Some(descriptor) }),
                // Of those alone: it stands behind what it is about.
                Arrival::Gone(name) => match held[before..].iter().rposition(|item| item.name == name) {
                    Some(given) => drop(held.swap_remove(before + given)),
                    None => self.gone.push(name),
                },
            }
        }
        if are_taken {
            let (descriptors, blobs): (Items, Items) = mem::take(&mut *held).into_iter().partition(|item| item.kind == OpKind::Descriptor);
            *held = blobs;
            // First what is gone: one of them may have been given again.
            let gone = mem::take(&mut self.gone).into_iter().map(Arrival::Gone);
            let given = descriptors.into_iter().filter_map(|item| Some(Arrival::Given(item.name, item.descriptor?)));
            self.arrivals = Some(gone.chain(given).collect());
        }
    }

    /// Whether something is here that is taken as it comes.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| !arrivals.is_empty())
    }

    /// What has come, in its order.
    pub(crate) fn take_arrivals(&mut self) -> Vec<Arrival> {
        let arrivals = self.arrivals.as_mut().map(mem::take).unwrap_or_default();
        self.has_arrived |= !arrivals.is_empty();
        arrivals
    }

    /// All of it.
    pub(crate) fn finish(&self) -> Inheritance {
        Inheritance { items: self.items.clone(), gone: self.gone.clone(), origin: Origin::here() }
    }

    /// Closes what the program has not taken.
    pub(crate) fn close(&mut self) {
        let arrivals = self.arrivals.as_mut().map(mem::take).unwrap_or_default();
        let ahead = self.ahead.as_mut().map(|ahead| mem::take(&mut ahead.waiting)).unwrap_or_default();
        let ahead = ahead.into_iter().map(|(_, arrival)| arrival);
        let arrived = arrivals.into_iter().chain(ahead).filter_map(|arrival| match arrival {
            Arrival::Given(name, descriptor) => Some((name, descriptor)),
            Arrival::Gone(_) => None,
        });
        let left = mem::take(&mut *lock(&self.items));
        let left = left.into_iter().filter_map(|item| Some((item.name, item.descriptor?)));
        let mut left = left.chain(arrived);
        if let Some((first, _)) = left.next() {
            let more = left.count();
            log::warn!(target: "pollflip", "{} items of the handover were not taken and are closed: {first:?} and {more} more", more + 1);
        }
    }
}

/// All that a file holds, whatever its offset.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    if !found.is_file() {
        let why = "it is a connection, a pipe or a device, and no file; take it as a descriptor";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let length = usize::try_from(found.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // What cannot be had is an error; then asked for as zeroes, which the kernel has at hand and nobody writes.
    Vec::<u8>::new().try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn lock(items: &Mutex<Items>) -> MutexGuard<'_, Items> {
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::hash::{BuildHasher, Hasher, RandomState};

    use nix::sys::stat::fstat;

    use super::*;

    /// SplitMix64.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % limit as u64) as usize
        }
    }

    /// One that Miri can make too.
    fn descriptor() -> OwnedFd {
        io::pipe().expect("a pipe").0.into()
    }

    fn inode(fd: &impl AsFd) -> u64 {
        fstat(fd).expect("a file").st_ino
    }

    /// Some changes: what is given and gone, as the predecessor would say it.
    fn changes(chance: &mut Chance, truth: &mut BTreeMap<String, u64>) -> (Vec<Op>, Vec<OwnedFd>) {
        let (mut ops, mut descriptors) = (Vec::new(), Vec::new());
        for _ in 0..chance.below(12) {
            let name = format!("item/{}", chance.below(8));
            if truth.remove(&name).is_some() {
                ops.push(Op { kind: OpKind::Gone, name });
            } else {
                let given = descriptor();
                truth.insert(name.clone(), inode(&given));
                let kind = if chance.below(4) == 0 { OpKind::Blob } else { OpKind::Descriptor };
                ops.push(Op { kind, name });
                descriptors.push(given);
            }
        }
        (ops, descriptors)
    }

    /// The program, with what it has taken.
    fn takes(held: &mut BTreeMap<String, OwnedFd>, arrival: Arrival) {
        match arrival {
            Arrival::Given(name, descriptor) => assert!(held.insert(name, descriptor).is_none(), "one of a name at a time"),
            Arrival::Gone(name) => assert!(held.remove(&name).is_some(), "it had it"),
        }
    }

    /// Whatever goes ahead and when the program takes it, before or with the state: it has in the end what the predecessor has.
    #[test]
    fn what_is_taken_ahead_and_with_the_state_is_what_the_predecessor_has() {
        let seed = RandomState::new().build_hasher().finish();
        println!("seed {seed}");
        let mut chance = Chance(seed);
        for round in 0..if cfg!(miri) { 5 } else { 3000 } {
            let (mut truth, mut held) = (BTreeMap::new(), BTreeMap::new());
            let mut collected = Collected::default();
            collected.expect_ahead();
            let take_some = |collected: &mut Collected, held: &mut BTreeMap<String, OwnedFd>, count: usize| {
                (0..count).map_while(|_| collected.next_ahead()).for_each(|arrival| takes(held, arrival));
            };
            for _ in 0..chance.below(6) {
                let (ops, descriptors) = changes(&mut chance, &mut truth);
                assert_eq!(collected.take_in(Message::Items { ops }, descriptors), Ok(false));
                assert_eq!(collected.ahead_complete(truth.len() as u64), Ok(()));
                take_some(&mut collected, &mut held, chance.below(9));
            }
            collected.take_as_they_come(chance.below(2) == 0);
            collected.ask();
            for _ in 0..chance.below(6) {
                let (ops, descriptors) = changes(&mut chance, &mut truth);
                assert_eq!(collected.take_in(Message::Items { ops }, descriptors), Ok(false), "round {round}");
                if chance.below(3) > 0 {
                    collected.take_arrivals().into_iter().for_each(|arrival| takes(&mut held, arrival));
                }
                // The time of one call is over, and the program calls again.
                if chance.below(3) == 0 {
                    collected.take_as_they_come(false);
                    collected.take_as_they_come(chance.below(2) == 0);
                }
            }
            let end = Message::End { items: truth.len() as u64, precopied: 0 };
            assert_eq!(collected.take_in(end, vec![]), Ok(true), "round {round}");
            collected.take_arrivals().into_iter().for_each(|arrival| takes(&mut held, arrival));
            let mut inheritance = collected.finish();
            let gone: BTreeSet<_> = inheritance.gone().iter().cloned().collect();
            assert_eq!(gone.len(), inheritance.gone().len());
            for name in gone {
                assert!(held.remove(&name).is_some(), "round {round}: {name}");
            }
            for (name, descriptor) in inheritance.drain() {
                takes(&mut held, Arrival::Given(name, descriptor));
            }
            let has: BTreeMap<_, _> = held.iter().map(|(name, descriptor)| (name.clone(), inode(descriptor))).collect();
            assert_eq!(has, truth, "round {round}");
        }
    }

    #[test]
    fn what_one_call_handed_out_and_is_gone_is_told_by_the_next() {
        let op = |kind, name: &str| Op { kind, name: name.into() };
        for each in [false, true] {
            let mut collected = Collected::default();
            collected.take_as_they_come(true);
            let ops = vec![op(OpKind::Descriptor, "early"), op(OpKind::Descriptor, "late"), op(OpKind::Blob, "blob")];
            assert_eq!(collected.take_in(Message::Items { ops }, vec![descriptor(), descriptor(), descriptor()]), Ok(false));
            assert_eq!(collected.take_arrivals().len(), 2);
            // One is gone before the time of the call is over, and one after that.
            assert_eq!(collected.take_in(Message::Items { ops: vec![op(OpKind::Gone, "early")] }, vec![]), Ok(false));
            collected.take_as_they_come(false);
            let ops = vec![op(OpKind::Gone, "late"), op(OpKind::Descriptor, "late"), op(OpKind::Gone, "blob")];
            assert_eq!(collected.take_in(Message::Items { ops }, vec![descriptor()]), Ok(false));
            collected.take_as_they_come(each);
            let arrivals = collected.take_arrivals();
            let told: Vec<_> = arrivals.iter().map(|arrival| matches!(arrival, Arrival::Given(..))).collect();
            assert_eq!(told, if each { vec![false, false, true] } else { vec![] });
            assert_eq!(collected.take_in(Message::End { items: 1, precopied: 0 }, vec![]), Ok(true));
            let inheritance = collected.finish();
            assert_eq!(inheritance.gone(), if each { &[] } else { &["early", "late"][..] });
            assert_eq!(inheritance.names(), if each { &[] } else { &["late"][..] });
        }
    }

    #[test]
    fn a_name_that_was_taken_ahead_is_not_given_again_with_the_state() {
        let mut collected = Collected::default();
        collected.expect_ahead();
        let item = || (vec![Op { kind: OpKind::Descriptor, name: "a".into() }], vec![descriptor()]);
        let (ops, descriptors) = item();
        assert_eq!(collected.take_in(Message::Items { ops }, descriptors), Ok(false));
        assert!(collected.next_ahead().is_some());
        collected.ask();
        let (ops, descriptors) = item();
        let why = collected.take_in(Message::Items { ops }, descriptors).expect_err("there are two");
        assert_eq!(why, "two items of the handover have the name \"a\"");
    }
}
