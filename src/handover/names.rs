//! Which names have been given, so that none is given twice.
//!
//! Knows: names. Does not know: what they stand for.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// The names that have been given. There can be ten thousand, in the middle of a pause: they stand
/// behind each other in one text and are found by their hash, which takes less than half the time
/// of a set of strings.
#[derive(Debug, Default)]
pub(super) struct Names<S = RandomState> {
    hasher: S,
    text: String,
    /// Where in the text a name begins and ends, by its hash.
    places: HashMap<u64, (usize, usize), BuildHasherDefault<AsItIs>>,
    /// Those whose hash another name has as well.
    others: HashSet<Box<str>>,
}

impl<S: BuildHasher> Names<S> {
    /// Adds a name; `false`: it is there already.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        match self.places.entry(self.hasher.hash_one(name)) {
            Entry::Vacant(place) if self.others.is_empty() || !self.others.contains(name) => {
                let begin = self.text.len();
                self.text.push_str(name);
                place.insert((begin, self.text.len()));
                true
            }
            Entry::Occupied(place) if self.text.get(place.get().0..place.get().1) != Some(name) => self.others.insert(name.into()),
            Entry::Vacant(_) | Entry::Occupied(_) => false,
        }
    }

    /// Takes a name back; `false`: it was not there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        match self.places.entry(self.hasher.hash_one(name)) {
            Entry::Occupied(place) if self.text.get(place.get().0..place.get().1) == Some(name) => {
                place.remove();
                true
            }
            Entry::Vacant(_) | Entry::Occupied(_) => self.others.remove(name),
        }
    }

    /// Whether a name is there.
    pub(super) fn contains(&self, name: &str) -> bool {
        let Names { hasher, text, places, others } = self;
        let is_here = |place: &(usize, usize)| text.get(place.0..place.1) == Some(name);
        !places.is_empty() && places.get(&hasher.hash_one(name)).is_some_and(is_here) || !others.is_empty() && others.contains(name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() + self.others.len()
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

    #[test]
    fn each_name_is_taken_once() {
        let mut names = Names::<RandomState>::default();
        for _ in 0..2 {
            for number in 0..5000 {
                let is_new = names.len() == number;
                assert_eq!(names.insert(&format!("player/{number}")), is_new);
            }
            assert_eq!(names.len(), 5000);
        }
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
