//! Players by number. A number is what a player has in every generation: its state, its name in a
//! handover and its token in the poll go by it.
//! Knows: which numbers are taken. Does not know: players.

use std::collections::BTreeSet;

pub(crate) struct Seats<T> {
    seats: Vec<Option<T>>,
    free: BTreeSet<usize>,
}

impl<T> Seats<T> {
    pub(crate) fn new() -> Self {
        Self { seats: Vec::new(), free: BTreeSet::new() }
    }

    /// The lowest number that is free.
    pub(crate) fn vacant(&self) -> usize {
        self.free.first().copied().unwrap_or(self.seats.len())
    }

    /// False: the number is taken, and stays so.
    pub(crate) fn take(&mut self, number: usize, who: T) -> bool {
        while self.seats.len() <= number {
            self.free.insert(self.seats.len());
            self.seats.push(None);
        }
        let is_free = self.free.remove(&number);
        if is_free {
            self.seats[number] = Some(who);
        }
        is_free
    }

    pub(crate) fn leave(&mut self, number: usize) -> Option<T> {
        let who = self.seats.get_mut(number)?.take()?;
        self.free.insert(number);
        Some(who)
    }

    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.seats.get(number)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.seats.get_mut(number)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    /// All numbers are below this one.
    pub(crate) fn end(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.seats.iter().enumerate().filter_map(|(number, who)| Some((number, who.as_ref()?)))
    }
}
