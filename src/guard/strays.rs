//! Children of the guard that are no generation of the service, and come from it; and who was told to
//! end besides the generations.
//!
//! Knows: who they are, and what they were sent. Does not know: when they are sent something.

use std::io;

use crate::error::Error;
use crate::sys::{self, ProcessKey};

use super::family;
use super::generations::Generations;

#[derive(Debug)]
pub(super) struct Strays {
    /// Children that this process had before it became a guard: a script has started them, and then
    /// executed this.
    others: Vec<u32>,
    /// What strays are sent, and who of them was: an end can leave more of them.
    signal: Option<i32>,
    signalled: Vec<ProcessKey>,
    /// Who was told to end, besides those who are or were the main process then.
    told: Vec<ProcessKey>,
}

impl Strays {
    pub(super) fn new() -> Result<Strays, Error> {
        let others = family::children().map_err(Error::os("cannot see the children of this process"))?;
        Ok(Strays { others, signal: None, signalled: Vec::new(), told: Vec::new() })
    }

    /// All that live. An error: it cannot be seen whether there are any.
    pub(super) fn all(&self, generations: &Generations) -> io::Result<Vec<u32>> {
        let mut children = family::children()?;
        children.retain(|pid| generations.find(*pid).is_none() && !self.others.contains(pid));
        Ok(children)
    }

    /// A child was reaped. Its number can be another's from here on.
    pub(super) fn reaped(&mut self, pid: u32) {
        self.others.retain(|other| *other != pid);
    }

    /// These were told to end, and nobody else.
    pub(super) fn set_told(&mut self, told: Vec<ProcessKey>) {
        self.told = told;
    }

    pub(super) fn was_told(&self, pid: u32) -> bool {
        !self.told.is_empty() && sys::process_key(pid).is_some_and(|key| self.told.contains(&key))
    }

    /// From now on they are sent that; `anew`: those too who were told to end before.
    pub(super) fn begin(&mut self, signal: i32, anew: bool) {
        self.signal = Some(signal);
        self.signalled = if anew { Vec::new() } else { self.told.clone() };
    }

    /// From now on they are sent nothing.
    pub(super) fn leave_alone(&mut self) {
        self.signal = None;
    }

    /// Sends it to each that has not been sent it yet.
    pub(super) fn signal(&mut self, generations: &Generations) {
        let Some(signal) = self.signal else { return };
        let before = std::mem::take(&mut self.signalled);
        for pid in self.all(generations).unwrap_or_default() {
            let key = sys::process_key(pid);
            if key.is_none_or(|key| !before.contains(&key)) {
                sys::signal_child(pid, signal);
                self.told.extend(key);
            }
            self.signalled.extend(key);
        }
    }
}
