//! What a keeper is told.
//!
//! Knows: the messages. Does not know: who sends them, and when.

use std::os::fd::OwnedFd;

use crate::notify::{to_absolve, to_remove, to_store};

/// A message to the keeper, with what goes along.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) text: String,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Order {
    /// What goes along is held under that name; `watched`: until it hangs up.
    pub(super) fn store(name: &str, watched: bool, descriptors: Vec<OwnedFd>) -> Order {
        Order { text: to_store(name, watched), descriptors }
    }

    /// Nothing is held under that name any more.
    pub(super) fn remove(name: &str) -> Order {
        Order { text: to_remove(name), descriptors: Vec::new() }
    }

    /// The last end is no strike.
    pub(super) fn absolve() -> Order {
        Order { text: to_absolve(), descriptors: Vec::new() }
    }
}
