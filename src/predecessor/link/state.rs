//! The state of the predecessor on its way in.
//!
//! Knows: how far it has come, and whether it can be used. Does not know: how to wait for it.

use std::mem;
use std::os::fd::OwnedFd;

use crate::handover::{Collected, Inheritance};
use crate::wire::Message;

use super::{Inbox, Link};

/// The state, since it was asked for.
#[derive(Debug)]
pub(super) enum State {
    Coming(Collected),
    /// It has come, and is held for as long as what is not taken from it must be closed at the grant.
    Come {
        collected: Collected,
        told: bool,
    },
    /// It cannot be used, and why.
    Unusable(String),
}

impl Link {
    /// The state for the loop, when it has come; `None` while another thread waits for it. Whoever has it may be ready.
    pub(crate) fn inherited(&self) -> Option<Inheritance> {
        self.take_inherited(&mut *self.inbox.try_lock().ok()?)?.ok()
    }

    pub(super) fn take_in(&self, inbox: &mut Inbox, message: Message, descriptors: Vec<OwnedFd>) {
        if !self.is_coming(inbox) {
            return log::debug!("the predecessor hands over what was not asked for");
        }
        let State::Coming(collected) = inbox.state.get_or_insert_with(|| State::Coming(Collected::default())) else { return };
        match collected.take_in(message, descriptors) {
            Ok(false) => {}
            Ok(true) => inbox.state = Some(State::Come { collected: mem::take(collected), told: false }),
            Err(why) => self.cannot_use(inbox, why),
        }
    }

    /// Nothing may be lost in silence: without all of the state this process does not take over.
    pub(super) fn cannot_use(&self, inbox: &mut Inbox, why: String) {
        self.refuse(&format!("the state cannot be taken over: {why}"));
        inbox.state = Some(State::Unusable(why));
    }

    /// Whether the state has been asked for, and not all of it has come.
    pub(super) fn is_coming(&self, inbox: &Inbox) -> bool {
        matches!(inbox.state, None | Some(State::Coming(_))) && self.said().pull
    }

    /// The state, once, or why it cannot be used.
    pub(super) fn take_inherited(&self, inbox: &mut Inbox) -> Option<Result<Inheritance, String>> {
        match &mut inbox.state {
            Some(State::Come { collected, told: told @ false }) => {
                *told = true;
                self.said().served = true;
                Some(Ok(collected.finish()))
            }
            Some(State::Unusable(why)) => Some(Err(why.clone())),
            Some(State::Coming(_) | State::Come { .. }) | None => None,
        }
    }
}
