//! A ledger as this process has it open: the memory, and which of the accounts are in use here.
//!
//! Knows: the file, and who has an account. Does not know: what is recorded.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys::{Origin, SharedMemory};

use super::Judgement;
use super::layout::{Layout, NAME, Unfit, Words};

#[derive(Debug)]
pub(super) struct Book {
    file: File,
    memory: SharedMemory,
    layout: Layout,
    /// How many have opened it before this one, and one.
    number: u64,
    origin: Origin,
    index: Mutex<Index>,
    /// A process was seen to serve since the last one before this has opened it.
    has_served_before: bool,
    /// How many had opened it when this process was last seen to serve.
    served_as_of: AtomicU64,
    judgement: OnceLock<Judgement>,
}

/// What is found quickly in this process, of what stands in the memory.
#[derive(Debug, Default)]
struct Index {
    by_cookie: HashMap<u64, usize>,
    /// The lowest at the end.
    free: Vec<usize>,
    /// Who has begun or recovered an account here, and not let go of it.
    held: BTreeSet<usize>,
    /// So many accounts were ever begun that this index knows of.
    as_of: u64,
}

impl Index {
    fn of(words: Words<'_>) -> Index {
        // Before the look: what is begun meanwhile is looked for again.
        let mut index = Index { as_of: words.begun(), ..Index::default() };
        for account in (0..words.layout().accounts).rev() {
            match words.cookie(account) {
                0 => index.free.push(account),
                cookie => drop(index.by_cookie.insert(cookie, account)),
            }
        }
        index
    }

    fn refresh(&mut self, words: Words<'_>) {
        let held = std::mem::take(&mut self.held);
        *self = Index { held, ..Index::of(words) };
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Book {
    pub(super) fn new(name: &str, accounts: usize, capacity: usize) -> io::Result<Book> {
        check_name(name)?;
        let layout = Layout::new(accounts as u64, capacity as u64);
        let words = layout.and_then(|layout| NonZeroUsize::new(layout.words()?));
        let (Some(layout), Some(length)) = (layout, words) else {
            return Err(invalid(format!("a ledger of {accounts} accounts of {capacity} bytes is larger than any memory: make it smaller")));
        };
        let (file, memory) = SharedMemory::new(length)?;
        Words::make(&memory, layout, name);
        Ok(Book::enter(file, memory, layout))
    }

    pub(super) fn open(name: &str, file: OwnedFd) -> io::Result<Book> {
        check_name(name)?;
        let file = File::from(file);
        let unfit = |why: &dyn std::fmt::Display| format!("cannot open the ledger {name:?}: {why}");
        let memory = SharedMemory::map(file.as_fd()).map_err(|error| io::Error::new(error.kind(), unfit(&error)))?;
        let words = Words::read(&memory, name).map_err(|error: Unfit| io::Error::new(io::ErrorKind::InvalidData, unfit(&error)))?;
        let layout = words.layout();
        Ok(Book::enter(file, memory, layout))
    }

    fn enter(file: File, memory: SharedMemory, layout: Layout) -> Book {
        let words = Words::again(&memory, layout);
        let number = words.enter();
        let has_served_before = words.last_that_served() == number.wrapping_sub(1);
        let index = Mutex::new(Index::of(words));
        Book {
            file,
            memory,
            layout,
            number,
            origin: Origin::here(),
            index,
            has_served_before,
            served_as_of: AtomicU64::new(0),
            judgement: OnceLock::new(),
        }
    }

    pub(super) fn words(&self) -> Words<'_> {
        Words::again(&self.memory, self.layout)
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// An error in a forked child, before any lock is asked for.
    pub(super) fn check_here(&self) -> io::Result<()> {
        self.origin.check("Ledger")
    }

    /// This process serves. Said again when another has opened the ledger since: that one may be a
    /// successor that fails.
    pub(super) fn serves(&self) {
        let opened = self.words().opened();
        if self.served_as_of.load(Ordering::Relaxed) != opened && self.is_here() {
            self.served_as_of.store(opened, Ordering::Relaxed);
            self.words().set_last_that_served(opened);
        }
    }

    pub(super) fn has_served_before(&self) -> bool {
        self.has_served_before
    }

    /// Judges once.
    pub(super) fn judged(&self, judge: impl FnOnce() -> Judgement) -> &Judgement {
        self.judgement.get_or_init(judge)
    }

    /// How many accounts are free, as far as this process knows.
    pub(super) fn free(&self) -> usize {
        if self.is_here() { self.lock().free.len() } else { 0 }
    }

    /// A free account becomes that of a connection.
    pub(super) fn claim(&self, cookie: u64) -> io::Result<usize> {
        self.check_here()?;
        let (mut index, words) = (self.lock(), self.words());
        if Self::find_in(&mut index, words, cookie).is_some() {
            let why = "the connection has an account already: recover that, or close it";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        for _ in 0..2 {
            while let Some(account) = index.free.pop() {
                // Another process may have been quicker.
                if words.claim(account, cookie) {
                    index.by_cookie.insert(cookie, account);
                    index.held.insert(account);
                    index.as_of = index.as_of.wrapping_add(1);
                    return Ok(account);
                }
            }
            // Another process may have freed some.
            index.refresh(words);
        }
        let why = format!("all {} accounts of the ledger are in use: close some, or begin a ledger with more", self.layout.accounts);
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    /// The account of a connection, for one that takes it. `None`: it has none.
    pub(super) fn take(&self, cookie: u64) -> io::Result<Option<usize>> {
        self.check_here()?;
        let mut index = self.lock();
        let Some(account) = Self::find_in(&mut index, self.words(), cookie) else { return Ok(None) };
        if !index.held.insert(account) {
            let why = "the account of the connection is in use in this process: drop that Account first";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        Ok(Some(account))
    }

    fn find_in(index: &mut Index, words: Words<'_>, cookie: u64) -> Option<usize> {
        // Somebody else may have closed it, and begun another one.
        let is_so = |account: &usize| words.cookie(*account) == cookie;
        if let Some(account) = index.by_cookie.get(&cookie).copied().filter(is_so) {
            return Some(account);
        }
        if words.begun() == index.as_of {
            return None;
        }
        index.refresh(words);
        index.by_cookie.get(&cookie).copied().filter(is_so)
    }

    /// Lets go of an account, which stays in the ledger.
    pub(super) fn leave(&self, account: usize) {
        if self.is_here() {
            self.lock().held.remove(&account);
        }
    }

    /// Closes the account of a connection.
    pub(super) fn free_account(&self, account: usize, cookie: u64) {
        if self.is_here() {
            let mut index = self.lock();
            index.by_cookie.remove(&cookie);
            self.words().free(account, cookie);
            index.held.remove(&account);
            index.free.push(account);
        }
    }

    /// Closes the accounts that nobody has begun or recovered here.
    pub(super) fn free_unclaimed(&self) -> io::Result<usize> {
        self.check_here()?;
        let (mut index, words) = (self.lock(), self.words());
        let unclaimed = |account: &usize| words.cookie(*account) != 0 && !index.held.contains(account);
        let unclaimed: Vec<_> = (0..self.layout.accounts).filter(unclaimed).collect();
        unclaimed.iter().for_each(|account| words.free(*account, words.cookie(*account)));
        index.refresh(words);
        Ok(unclaimed.len())
    }

    /// No foreign code runs under this lock, so a poisoned one has lost nothing.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Book {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() > NAME || name.contains('\0') {
        return Err(invalid(format!("the name of a ledger has 1 to {NAME} bytes and no NUL, and {name:?} has not")));
    }
    Ok(())
}
