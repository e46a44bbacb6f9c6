//! What the new process has got.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::Mapping;
use crate::wire::Message;

/// What the predecessor has handed over: taken by name, each once, as what the program wants it to be. What it does not take is closed
/// when the service is granted.
///
/// Connections may be taken at once, but neither read nor written before [`Granted`](crate::Event::Granted), or the return of
/// [`ready`](crate::Restarter::ready): until then the predecessor can still get them back.
#[derive(Debug)]
pub struct Inheritance {
    items: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
}

impl Inheritance {
    /// Takes a descriptor, as whatever is made from one: an [`OwnedFd`], a `TcpStream`, a `UnixStream`, a `File`, … A blob can be
    /// taken as a `File` too; its offset is shared with the predecessor, so it is to be read by position.
    pub fn fd<T: From<OwnedFd>>(&mut self, name: &str) -> Option<T> {
        self.items().remove(name).map(T::from)
    }

    /// Takes a blob, or any file, as bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read. It stays, and can be taken as something else.
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
            self.items().insert(name.into(), file.into());
        }
        result.map(Some)
    }

    /// The names of what has not been taken, sorted.
    pub fn names(&self) -> Vec<String> {
        self.items().keys().cloned().collect()
    }

    /// Takes all that is left, sorted by name.
    pub fn drain(&mut self) -> impl Iterator<Item = (String, OwnedFd)> + use<> {
        std::mem::take(&mut *self.items()).into_iter()
    }

    fn items(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob in memory, without a copy: nobody can change it.
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
    items: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
    count: u64,
}

impl Collected {
    /// Takes the next message in. `true`: that was the last; an error says why it cannot be used.
    pub(crate) fn take_in(&mut self, message: Message, descriptors: Vec<OwnedFd>) -> Result<bool, String> {
        match message {
            Message::Items { items } => {
                let mut held = self.items.lock().unwrap_or_else(PoisonError::into_inner);
                for (item, descriptor) in items.into_iter().zip(descriptors) {
                    self.count += 1;
                    if held.insert(item.name.clone(), descriptor).is_some() {
                        return Err(format!("two items of the handover have the name {:?}", item.name));
                    }
                }
                Ok(false)
            }
            Message::End { items } if items == self.count => Ok(true),
            Message::End { items } => Err(format!("{items} items were handed over, and {} have come", self.count)),
            _ => Ok(false),
        }
    }

    /// All of it.
    pub(crate) fn finish(&self) -> Inheritance {
        Inheritance { items: self.items.clone() }
    }

    /// Closes what the program has not taken.
    pub(crate) fn close(&self) {
        let left = std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(first) = left.keys().next() {
            log::warn!(target: "pollflip", "{} items of the handover were not taken and are closed, {first:?} and so on", left.len());
        }
    }
}

/// All that a file holds, whatever its offset.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // What cannot be had is an error; then asked for as zeroes, which the kernel has at hand and nobody writes.
    Vec::<u8>::new().try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
