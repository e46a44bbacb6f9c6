//! What the new process has got.

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
    /// taken as a `File` too; its offset is shared with the predecessor, so it is to be read by position.
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
    count: u64,
}

impl Collected {
    /// Takes the next message in. `true`: that was the last; an error says why it cannot be used.
    pub(crate) fn take_in(&mut self, message: Message, descriptors: Vec<OwnedFd>) -> Result<bool, String> {
        match message {
            Message::Items { ops } => {
                let mut held = lock(&self.items);
                let mut descriptors = descriptors.into_iter();
                for Op { kind, name } in ops {
                    match (kind, &mut self.arrivals) {
                        (OpKind::Gone, Some(arrivals)) => arrivals.push(Arrival::Gone(name)),
                        (OpKind::Gone, None) => {
                            let given = held.iter().rposition(|item| item.name == name);
                            let given = given.ok_or_else(|| format!("{name:?} is taken back, and had not been given"))?;
                            held.swap_remove(given);
                        }
                        (OpKind::Descriptor, Some(arrivals)) => {
                            arrivals.extend(descriptors.next().map(|descriptor| Arrival::Given(name, descriptor)));
                            self.count += 1;
                        }
                        (OpKind::Descriptor | OpKind::Blob, _) => {
                            held.push(Item { name, kind, descriptor: descriptors.next() });
                            self.count += 1;
                        }
                    }
                }
                Ok(false)
            }
            Message::End { precopied: precopied @ 1.., .. } => {
                Err(format!("{precopied} items are said to have gone ahead, and none was asked for"))
            }
            Message::End { items, .. } if items == self.count => {
                let mut held = lock(&self.items);
                held.sort_unstable_by(|one, other| one.name.cmp(&other.name));
                match held.windows(2).find(|pair| pair[0].name == pair[1].name) {
                    Some(pair) => Err(format!("two items of the handover have the name {:?}", pair[0].name)),
                    None => Ok(true),
                }
            }
            Message::End { items, .. } => Err(format!("{items} items were handed over, and {} have come", self.count)),
            _ => Ok(false),
        }
    }

    /// From now on descriptors are taken as they come, with those that have come already; or no
    /// more, and what has not been taken so belongs to the whole again.
    pub(crate) fn take_as_they_come(&mut self, are_taken: bool) {
        let mut held = lock(&self.items);
        let arrivals = if are_taken {
            let (descriptors, blobs) = mem::take(&mut *held).into_iter().partition(|item| item.kind == OpKind::Descriptor);
            *held = blobs;
            let descriptors: Items = descriptors;
            Some(descriptors.into_iter().filter_map(|item| Some(Arrival::Given(item.name, item.descriptor?))).collect())
        } else {
            None
        };
        for arrival in mem::replace(&mut self.arrivals, arrivals).into_iter().flatten() {
            match arrival {
                Arrival::Given(name, descriptor) => held.push(Item { name, kind: OpKind::Descriptor, descriptor: Some(descriptor) }),
                Arrival::Gone(name) => held.retain(|item| item.name != name),
            }
        }
    }

    /// Whether something is here that is taken as it comes.
    pub(crate) fn has_arrivals(&self) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| !arrivals.is_empty())
    }

    /// What has come, in its order.
    pub(crate) fn take_arrivals(&mut self) -> Vec<Arrival> {
        self.arrivals.as_mut().map(mem::take).unwrap_or_default()
    }

    /// All of it.
    pub(crate) fn finish(&self) -> Inheritance {
        Inheritance { items: self.items.clone(), origin: Origin::here() }
    }

    /// Closes what the program has not taken.
    pub(crate) fn close(&self) {
        let left = mem::take(&mut *lock(&self.items));
        let mut left = left.into_iter().filter_map(|item| Some((item.name, item.descriptor?)));
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
