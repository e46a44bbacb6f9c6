//! What lies where in the memory of a ledger.
//!
//! Knows: words, and which of them belong together. Does not know: files, sockets, processes. All
//! functions are total: whatever the words are, the worst that comes of it is an error.
//!
//! ```text
//! words            what
//! 0                magic, stored last of all when a ledger is made
//! 1                version of this layout
//! 2, 3             how many accounts, and how many bytes a record holds
//! 4 … 7            the name of what the states are
//! 8                how many processes have opened it
//! 9                how many accounts were ever begun
//! 10               what the poison rules remember: how many strikes in the lowest byte, and when the last was in the others
//! 14               how many had opened it when a process was last seen to serve
//! 64 …             a cookie for each account; 0: it is free
//! then             a mark for each account: who has its connection in hand (all bits but the lowest two),
//!                  and for what
//! then             for each account: the mark that it last had at an end that may not have been its doing, until
//!                  such work was done; or its cookie with each bit turned: the service goes on without it
//! then             the accounts: a word that says which record counts, and two records
//! ```
//!
//! A record is the cookie of its connection, how far that was read and written, the lengths of
//! state and output, and their bytes. The even records lie in the first place, the odd ones in the
//! second. The one that does not count is written; the store of the next number makes it count.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use super::steps::lives;

const MAGIC: u64 = u64::from_ne_bytes(*b"pollflip");
pub(crate) const VERSION: u64 = 1;
/// The longest name.
pub(crate) const NAME: usize = 32;
/// More strikes than that are that many.
const STRIKES: u64 = u8::MAX as u64;
/// Room for what later versions have to say of all accounts.
const HEAD: usize = 64;
/// Cookie, read, written, length of the state, length of the output.
const RECORD_HEAD: usize = 5;
/// Two processors that work on neighbours do not write to the same line.
const LINE: usize = 8;
const WORD: usize = size_of::<u64>();
/// No process has more descriptors.
const MOST_ACCOUNTS: u64 = 1 << 30;
/// Lengths are told in so many bytes.
const MOST_BYTES: u64 = 1 << 40;

/// How many accounts there are, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) accounts: usize,
    /// The bytes of a record: a multiple of a word.
    pub(crate) capacity: usize,
}

impl Layout {
    /// `None`: no memory is so large.
    pub(crate) fn new(accounts: u64, capacity: u64) -> Option<Layout> {
        if accounts > MOST_ACCOUNTS || capacity > MOST_BYTES {
            return None;
        }
        let layout =
            Layout { accounts: accounts.try_into().ok()?, capacity: usize::try_from(capacity).ok()?.checked_next_multiple_of(WORD)? };
        layout.words().map(|_| layout)
    }

    /// How many words all of it has.
    pub(crate) fn words(self) -> Option<usize> {
        let stride = self.record_words()?.checked_mul(2)?.checked_add(1)?.checked_next_multiple_of(LINE)?;
        let words = self.tables_end()?.checked_add(stride.checked_mul(self.accounts)?)?;
        words.checked_mul(WORD).map(|_| words)
    }

    fn record_words(self) -> Option<usize> {
        (self.capacity / WORD).checked_add(RECORD_HEAD)
    }

    fn tables_end(self) -> Option<usize> {
        self.accounts.checked_mul(3)?.checked_add(HEAD)?.checked_next_multiple_of(LINE)
    }
}

/// What is wrong with a memory that should be a ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it is no ledger, or one that was never finished: begin a new one")]
    NoLedger,
    #[error("it has version {0} of the layout, and this release of pollflip reads version {VERSION}: begin a new one")]
    Version(u64),
    #[error(
        "it holds states called {found:?}, and this program reads {wanted:?}: open it by that name and convert them, or begin a new one"
    )]
    Name { found: String, wanted: String },
    #[error("it says that it has {accounts} accounts of {capacity} bytes, and does not have the length of that: begin a new one")]
    Length { accounts: u64, capacity: u64 },
}

/// What is wrong with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record says that it has {state} bytes of state and {output} of output, and there is room for {capacity} in all")]
pub(crate) struct Damaged {
    state: u64,
    output: u64,
    capacity: usize,
}

/// Why nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRecorded {
    /// There is no room for so many bytes.
    Full,
    /// The account is not that of the connection any more.
    Closed,
}

/// What stands in a record, but for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// So many bytes the connection is read when all of the record is done.
    pub read: u64,
    /// So many bytes it is written then.
    pub written: u64,
}

/// What a connection is in hand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Work {
    /// Input is worked on. It stays where it is until that is done, so the next process has the same.
    Input = 1,
    /// Something is sent that is no answer.
    Output = 2,
    /// What the program does itself.
    Other = 3,
}

/// Who has a connection in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worker {
    /// The process, by its number.
    pub(crate) process: u64,
    pub(crate) work: Work,
}

impl Worker {
    fn of(word: u64) -> Option<Worker> {
        let work = match word & 3 {
            1 => Work::Input,
            2 => Work::Output,
            3 => Work::Other,
            _ => return None,
        };
        Some(Worker { process: word >> 2, work })
    }

    fn word(self) -> u64 {
        self.process << 2 | self.work as u64
    }
}

/// A record that counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) entry: Entry,
    pub(crate) state: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

/// The words of a ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a> {
    words: &'a [AtomicU64],
    layout: Layout,
}

impl<'a> Words<'a> {
    /// Makes a ledger of words that are all zero.
    pub(crate) fn make(words: &'a [AtomicU64], layout: Layout, name: &str) -> Words<'a> {
        let made = Words { words, layout };
        made.set(1, VERSION);
        made.set(2, layout.accounts as u64);
        made.set(3, layout.capacity as u64);
        let mut bytes = [0; NAME];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        store_bytes(words.get(4..8).unwrap_or_default(), &bytes);
        made.set_last(0, MAGIC);
        made
    }

    /// Reads what somebody has made.
    pub(crate) fn read(words: &'a [AtomicU64], name: &str) -> Result<Words<'a>, Unfit> {
        let word = |at: usize| words.get(at).map_or(0, |word| word.load(Acquire));
        if word(0) != MAGIC {
            return Err(Unfit::NoLedger);
        }
        if word(1) != VERSION {
            return Err(Unfit::Version(word(1)));
        }
        let (accounts, capacity) = (word(2), word(3));
        // One that is not a multiple would be laid out in another way than it was.
        let layout = Layout::new(accounts, capacity).filter(|layout| layout.capacity as u64 == capacity);
        let Some(layout) = layout.filter(|layout| layout.words() == Some(words.len())) else {
            return Err(Unfit::Length { accounts, capacity });
        };
        let found = load_bytes(words.get(4..8).unwrap_or_default(), NAME);
        let found = String::from_utf8_lossy(&found).trim_end_matches('\0').to_owned();
        if found != name {
            return Err(Unfit::Name { found, wanted: name.into() });
        }
        Ok(Words { words, layout })
    }

    /// The same words, whose head was read before.
    pub(crate) fn again(words: &'a [AtomicU64], layout: Layout) -> Words<'a> {
        Words { words, layout }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Another process has opened it: its number, which is not 0.
    pub(crate) fn enter(&self) -> u64 {
        self.add(8)
    }

    /// How many accounts were ever begun.
    pub(crate) fn begun(&self) -> u64 {
        self.get(9)
    }

    /// How many strikes there are, and when the last of them was.
    pub(crate) fn memory(&self) -> (u32, Duration) {
        let word = self.get(10);
        ((word & STRIKES) as u32, Duration::from_nanos(word & !STRIKES))
    }

    /// In one store, so that a process that is killed leaves the one or the other.
    pub(crate) fn remember(&self, strikes: u32, last: Duration) {
        let last = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
        self.set(10, last & !STRIKES | u64::from(strikes).min(STRIKES));
    }

    /// How many have opened it.
    pub(crate) fn opened(&self) -> u64 {
        self.get(8)
    }

    pub(crate) fn last_that_served(&self) -> u64 {
        self.get(14)
    }

    pub(crate) fn set_last_that_served(&self, number: u64) {
        self.set(14, number);
    }

    /// Whose account it is; 0: nobody's.
    pub(crate) fn cookie(&self, account: usize) -> u64 {
        self.get(self.cookie_at(account))
    }

    /// Makes a free account that of a connection. `false`: somebody else has it.
    pub(crate) fn claim(&self, account: usize, cookie: u64) -> bool {
        let Some(word) = self.words.get(self.cookie_at(account)) else { return false };
        let is_ours = lives() && word.compare_exchange(0, cookie, AcqRel, Relaxed).is_ok();
        if is_ours {
            self.set_blame(account, None);
            self.add(9);
        }
        is_ours
    }

    /// The account is free, if it is that of the connection still. What stands in it belongs to a
    /// cookie that never comes again.
    pub(crate) fn free(&self, account: usize, cookie: u64) {
        if self.cookie(account) != cookie {
            return;
        }
        self.set_mark(account, None);
        self.set_last(self.cookie_at(account), 0);
    }

    /// Who has the connection in hand, and for what.
    pub(crate) fn mark(&self, account: usize) -> Option<Worker> {
        Worker::of(self.get(self.mark_at(account)))
    }

    pub(crate) fn set_mark(&self, account: usize, mark: Option<Worker>) {
        self.set_last(self.mark_at(account), mark.map_or(0, Worker::word));
    }

    /// The mark that it had at an end that may not have been its doing.
    pub(crate) fn blame(&self, account: usize) -> Option<Worker> {
        Worker::of(self.get(self.blame_at(account))).filter(|_| !self.is_condemned(account))
    }

    /// Work of that kind was done for the connection, and the process lives.
    pub(crate) fn clear(&self, account: usize, work: Work) {
        if let Some(blame) = self.blame(account).filter(|blame| blame.work == work)
            && let Some(word) = self.words.get(self.blame_at(account))
            && lives()
        {
            // Another process may have condemned it meanwhile.
            let _ = word.compare_exchange(blame.word(), 0, Relaxed, Relaxed);
        }
    }

    /// The service goes on without that connection, whichever process comes to it.
    pub(crate) fn condemn(&self, account: usize) {
        // No cookie is used again, so what is left in a free account is no word on the next one.
        self.set(self.blame_at(account), !self.cookie(account));
    }

    pub(crate) fn is_condemned(&self, account: usize) -> bool {
        self.cookie(account) != 0 && self.get(self.blame_at(account)) == !self.cookie(account)
    }

    pub(crate) fn set_blame(&self, account: usize, blame: Option<Worker>) {
        self.set(self.blame_at(account), blame.map_or(0, Worker::word));
    }

    /// The record of an account that counts. `None`: none was ever made for the connection.
    pub(crate) fn record(&self, account: usize) -> Result<Option<Record>, Damaged> {
        let cookie = self.cookie(account);
        let place = self.place(account, self.get(self.account_at(account)));
        let [owner, read, written, state, output] = [0, 1, 2, 3, 4].map(|at| place.get(at).map_or(0, |word| word.load(Relaxed)));
        if cookie == 0 || owner != cookie {
            return Ok(None);
        }
        let capacity = self.layout.capacity;
        let damaged = Damaged { state, output, capacity };
        let (Ok(state), Ok(output)) = (usize::try_from(state), usize::try_from(output)) else { return Err(damaged) };
        let length = state.checked_add(output).filter(|length| *length <= capacity).ok_or(damaged)?;
        let mut state_and_output = load_bytes(place.get(RECORD_HEAD..).unwrap_or_default(), length);
        let output = state_and_output.split_off(state);
        Ok(Some(Record { entry: Entry { read, written }, state: state_and_output, output }))
    }

    /// Records, by one store, what belongs to that connection.
    pub(crate) fn record_next(&self, account: usize, cookie: u64, entry: Entry, state: &[u8], output: &[u8]) -> Result<(), NotRecorded> {
        if state.len().saturating_add(output.len()) > self.layout.capacity {
            return Err(NotRecorded::Full);
        }
        if self.cookie(account) != cookie {
            return Err(NotRecorded::Closed);
        }
        let number = self.get(self.account_at(account)).wrapping_add(1);
        let place = self.place(account, number);
        let head = [cookie, entry.read, entry.written, state.len() as u64, output.len() as u64];
        place.iter().zip(head).for_each(|(word, value)| store(word, value));
        let bytes = place.get(RECORD_HEAD..).unwrap_or_default();
        // The word that has the end of one and the beginning of the other.
        let (whole, rest) = state.split_at(state.len() / WORD * WORD);
        store_bytes(bytes, whole);
        let bytes = bytes.get(whole.len() / WORD..).unwrap_or_default();
        let (first, output) = output.split_at(if rest.is_empty() { 0 } else { output.len().min(WORD - rest.len()) });
        let mut between = [0; WORD];
        between.iter_mut().zip(rest.iter().chain(first)).for_each(|(to, byte)| *to = *byte);
        match rest.is_empty() {
            true => store_bytes(bytes, output),
            false => {
                store_bytes(bytes, &between);
                store_bytes(bytes.get(1..).unwrap_or_default(), output);
            }
        }
        // From here on it counts.
        self.set_last(self.account_at(account), number);
        Ok(())
    }

    /// One of the two places for records.
    fn place(&self, account: usize, number: u64) -> &'a [AtomicU64] {
        let length = self.layout.capacity / WORD + RECORD_HEAD;
        let start = self.account_at(account) + 1 + (number & 1) as usize * length;
        self.words.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    fn cookie_at(&self, account: usize) -> usize {
        HEAD + account
    }

    fn mark_at(&self, account: usize) -> usize {
        HEAD + self.layout.accounts + account
    }

    fn blame_at(&self, account: usize) -> usize {
        HEAD + 2 * self.layout.accounts + account
    }

    fn account_at(&self, account: usize) -> usize {
        let length = self.layout.capacity / WORD + RECORD_HEAD;
        let stride = (2 * length + 1).next_multiple_of(LINE);
        (HEAD + 3 * self.layout.accounts).next_multiple_of(LINE) + account * stride
    }

    fn get(&self, at: usize) -> u64 {
        self.words.get(at).map_or(0, |word| word.load(Acquire))
    }

    fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.words.get(at) {
            store(word, value);
        }
    }

    /// Stored after all that was stored before.
    fn set_last(&self, at: usize, value: u64) {
        if let Some(word) = self.words.get(at)
            && lives()
        {
            word.store(value, Release);
        }
    }

    fn add(&self, at: usize) -> u64 {
        let Some(word) = self.words.get(at).filter(|_| lives()) else { return 0 };
        word.fetch_add(1, AcqRel).wrapping_add(1)
    }
}

fn store(word: &AtomicU64, value: u64) {
    if lives() {
        word.store(value, Relaxed);
    }
}

fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    let mut words = words.iter();
    // In this order: what is asked first for one more than there are loses it.
    for (bytes, word) in whole.iter().zip(words.by_ref()) {
        store(word, u64::from_ne_bytes(*bytes));
    }
    if let (Some(word), false) = (words.next(), rest.is_empty()) {
        let mut last = [0; WORD];
        last.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
        store(word, u64::from_ne_bytes(last));
    }
}

fn load_bytes(words: &[AtomicU64], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length.next_multiple_of(WORD));
    for word in words.iter().take(length.div_ceil(WORD)) {
        bytes.extend(word.load(Relaxed).to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(layout: Layout) -> Vec<AtomicU64> {
        (0..layout.words().expect("a length")).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn state_and_output_of_any_length_come_back() {
        let layout = Layout::new(2, 40).expect("a layout");
        let memory = words(layout);
        let words = Words::make(&memory, layout, "any");
        assert!(words.claim(1, 77));
        assert_eq!(words.record(1), Ok(None));
        let bytes: Vec<u8> = (1..=40).collect();
        let room = if cfg!(miri) { 5 } else { 40 };
        for state in 0..=room {
            for output in 0..=(room - state) {
                let entry = Entry { read: state as u64, written: output as u64 };
                assert_eq!(words.record_next(1, 77, entry, &bytes[..state], &bytes[state..state + output]), Ok(()));
                let record = words.record(1).expect("no damage").expect("a record");
                assert_eq!(record, Record { entry, state: bytes[..state].into(), output: bytes[state..state + output].into() });
            }
        }
        let before = words.record(1);
        assert_eq!(words.record_next(1, 77, Entry::default(), &bytes, &[1]), Err(NotRecorded::Full));
        assert_eq!(words.record_next(1, 78, Entry::default(), &bytes, &[]), Err(NotRecorded::Closed));
        assert_eq!(words.record(1), before);
        assert_eq!(words.cookie(0), 0, "the neighbour is another one");
    }

    #[test]
    fn an_account_that_is_begun_anew_has_no_record_of_the_connection_before() {
        let layout = Layout::new(1, 8).expect("a layout");
        let memory = words(layout);
        let words = Words::make(&memory, layout, "any");
        assert!(words.claim(0, 1) && !words.claim(0, 2));
        words.record_next(0, 1, Entry { read: 3, written: 4 }, b"state", b"").expect("room");
        words.set_mark(0, Some(Worker { process: 9, work: Work::Input }));
        words.set_blame(0, Some(Worker { process: 2, work: Work::Output }));
        words.free(0, 2);
        assert_eq!(words.cookie(0), 1, "it is another one's");
        words.free(0, 1);
        assert!(words.claim(0, 2));
        assert_eq!((words.record(0), words.mark(0), words.blame(0)), (Ok(None), None, None));
    }

    #[test]
    fn blame_goes_when_such_work_is_done_and_a_sentence_stays() {
        let layout = Layout::new(1, 8).expect("a layout");
        let memory = words(layout);
        let words = Words::make(&memory, layout, "any");
        assert!(words.claim(0, 77));
        let works = [Work::Input, Work::Output, Work::Other];
        for (process, work) in (1..).zip(works) {
            let mark = Some(Worker { process, work });
            words.set_mark(0, mark);
            words.set_blame(0, mark);
            assert_eq!((words.mark(0), words.blame(0)), (mark, mark));
            works.into_iter().filter(|other| *other != work).for_each(|other| words.clear(0, other));
            assert_eq!(words.blame(0), mark, "it was other work");
            words.clear(0, work);
            assert_eq!((words.mark(0), words.blame(0)), (mark, None));
        }
        words.condemn(0);
        works.into_iter().for_each(|work| words.clear(0, work));
        assert!(words.is_condemned(0));
    }

    #[test]
    fn another_layout_is_an_error_that_says_which() {
        let layout = Layout::new(3, 100).expect("a layout");
        assert_eq!(layout.capacity, 104, "whole words");
        let memory = words(layout);
        assert_eq!(Words::read(&memory, "a").err(), Some(Unfit::NoLedger));
        Words::make(&memory, layout, "a");
        assert_eq!(Words::read(&memory, "a").expect("a ledger").layout(), layout);
        assert_eq!(Words::read(&memory, "b").err(), Some(Unfit::Name { found: "a".into(), wanted: "b".into() }));
        assert!(matches!(Words::read(&memory[1..], "a").err(), Some(Unfit::NoLedger)));
        assert!(matches!(Words::read(&memory[..memory.len() - 1], "a").err(), Some(Unfit::Length { accounts: 3, capacity: 104 })));
        memory[1].store(2, Relaxed);
        assert_eq!(Words::read(&memory, "a").err(), Some(Unfit::Version(2)));
        assert!(Unfit::Version(2).to_string().contains("version 2"));
    }

    #[test]
    fn numbers_that_no_memory_has_are_no_layout() {
        for (accounts, capacity) in [(u64::MAX, 8), (1, u64::MAX), (MOST_ACCOUNTS, MOST_BYTES)] {
            assert_eq!(Layout::new(accounts, capacity), None);
        }
    }
}
