//! Which names have been given, so that none is given twice.
//!
//! Knows: names. Does not know: what they stand for.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// The names that have been given. There can be ten thousand, in the middle of a pause: they stand
/// behind each other in one text and are found by their hash, which takes less than half the time
/// of a set of strings.
///
/// Their places are in several tables, each for a part of the hashes. One table for all would hold
/// the loop up whenever it grows: for 0.25 ms at seven thousand names, for 2 ms at fifty thousand.
#[derive(Debug, Default)]
pub(super) struct Names<S = RandomState> {
    hasher: S,
    text: String,
    /// None as long as there is no name.
    tables: Vec<Places>,
    count: usize,
    /// Those whose hash another name has as well.
    others: HashSet<Box<str>>,
}

/// Where in the text a name begins and ends, by its hash.
type Places = HashMap<u64, (usize, usize), BuildHasherDefault<AsItIs>>;

const TABLES: usize = 64;

/// Which table a hash belongs to. By bits in the middle: within a table the others count.
fn table_of(hash: u64) -> usize {
    (hash >> 32) as usize % TABLES
}

impl<S: BuildHasher> Names<S> {
    /// Adds a name; `false`: it is there already.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, Places::default);
        }
        let hash = self.hasher.hash_one(name);
        let Some(places) = self.tables.get_mut(table_of(hash)) else { return false };
        let is_new = match places.entry(hash) {
            Entry::Vacant(place) if self.others.is_empty() || !self.others.contains(name) => {
                let begin = self.text.len();
                self.text.push_str(name);
                place.insert((begin, self.text.len()));
                true
            }
            Entry::Occupied(place) if self.text.get(place.get().0..place.get().1) != Some(name) => self.others.insert(name.into()),
            Entry::Vacant(_) | Entry::Occupied(_) => false,
        };
        self.count += usize::from(is_new);
        is_new
    }

    /// Takes a name back; `false`: it was not there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let Some(places) = self.tables.get_mut(table_of(hash)) else { return false };
        let was_here = match places.entry(hash) {
            Entry::Occupied(place) if self.text.get(place.get().0..place.get().1) == Some(name) => {
                place.remove();
                true
            }
            Entry::Vacant(_) | Entry::Occupied(_) => self.others.remove(name),
        };
        self.count -= usize::from(was_here);
        was_here
    }

    /// Whether a name is there.
    pub(super) fn contains(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let place = self.tables.get(table_of(hash)).and_then(|places| places.get(&hash));
        place.is_some_and(|place| self.text.get(place.0..place.1) == Some(name)) || self.others.contains(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// A hash is hashed as it is.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Miri takes a thousand times as long.
    const MANY: usize = if cfg!(miri) { 100 } else { 5000 };

    #[test]
    fn each_name_is_taken_once() {
        let mut names = Names::<RandomState>::default();
        for _ in 0..2 {
            for number in 0..MANY {
                let is_new = names.len() == number;
                assert_eq!(names.insert(&format!("player/{number}")), is_new);
            }
            assert_eq!(names.len(), MANY);
        }
    }

    #[test]
    fn a_name_that_is_taken_back_can_be_given_again() {
        let mut names = Names::<RandomState>::default();
        assert!(!names.remove("player/1") && !names.contains("player/1"));
        for number in 0..MANY {
            assert!(names.insert(&format!("player/{number}")));
        }
        for number in (0..MANY).step_by(2) {
            let name = format!("player/{number}");
            assert!(names.contains(&name) && names.remove(&name) && !names.remove(&name) && !names.contains(&name));
        }
        assert_eq!(names.len(), MANY / 2);
        assert!(names.insert("player/0") && !names.insert("player/1"));
        assert_eq!(names.len(), MANY / 2 + 1);
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        /// Names that begin with the same byte have the same hash.
        #[derive(Debug, Default)]
        struct First(Option<u8>);

        impl Hasher for First {
            fn finish(&self) -> u64 {
                self.0.map_or(0, u64::from)
            }

            fn write(&mut self, bytes: &[u8]) {
                self.0 = self.0.or(bytes.first().copied());
            }
        }

        let mut names = Names::<BuildHasherDefault<First>>::default();
        for name in ["a", "b", "ab", "bb", "abc"] {
            assert!(names.insert(name), "{name}");
            assert!(!names.insert(name), "{name}");
        }
        assert!(["a", "ab", "abc", "b", "bb"].iter().all(|name| !names.insert(name)));
        assert_eq!(names.len(), 5);
    }
}
