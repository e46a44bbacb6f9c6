//! The takeover machine of this process behind its lock: the loop and a thread that blocks both feed it.
//!
//! Knows: the machine, the time, and that what it prompts is carried out under the lock. Does not know: how a prompt is carried out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Refusal;
use crate::machine::{Prompt, Stage, Takeover, TakeoverInput, TakeoverNotice, TakeoverOutput};
use crate::sys;

/// The machine, shared by the restarter, the lifeline's end and the threads of the program. Its lock is never held for long.
#[derive(Debug)]
pub(crate) struct SharedTakeover {
    epoch: Instant,
    machine: Mutex<Takeover>,
}

impl SharedTakeover {
    pub(crate) fn new(machine: Takeover) -> SharedTakeover {
        SharedTakeover { epoch: sys::now(), machine: Mutex::new(machine) }
    }

    /// The time that the machine goes by.
    pub(super) fn now(&self) -> Duration {
        sys::now() - self.epoch
    }

    /// Takes one thing in, and has carried out what cannot wait.
    pub(super) fn feed(&self, now: Duration, input: TakeoverInput, carry_out: impl FnMut(Prompt)) {
        feed(&mut self.machine(), now, input, carry_out);
    }

    /// The same now, where nothing can be prompted.
    pub(crate) fn feed_now(&self, input: TakeoverInput) {
        self.feed(self.now(), input, |_| {});
    }

    /// The same, if the machine says so.
    pub(super) fn feed_if(&self, holds: impl FnOnce(&Takeover) -> bool, input: TakeoverInput, carry_out: impl FnMut(Prompt)) -> bool {
        let now = self.now();
        let mut machine = self.machine();
        let holds = holds(&machine);
        if holds {
            feed(&mut machine, now, input, carry_out);
        }
        holds
    }

    /// Where it stands.
    pub(crate) fn stage(&self) -> Stage {
        self.machine().stage()
    }

    /// Whether nobody else has a claim to the service.
    pub(crate) fn is_sole(&self) -> bool {
        matches!(self.stage(), Stage::Final { .. } | Stage::Alone { .. })
    }

    /// Whether the state is here and waits to be taken.
    pub(super) fn has_state(&self) -> bool {
        self.machine().has_state()
    }

    /// Why a request for a restart would be refused; `None` if nothing here forbids one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.machine().refusal()
    }

    /// The next thing for the loop.
    pub(crate) fn poll_output(&self) -> Option<TakeoverOutput> {
        self.machine().poll_output()
    }

    /// A restarter that is dropped has not told the program this: the next one does.
    pub(crate) fn put_back(&self, notice: TakeoverNotice) {
        self.machine().put_back(notice);
    }

    /// How long until the machine must be told of the time.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let deadline = self.machine().poll_timeout()?;
        Some(deadline.saturating_sub(self.now()))
    }

    fn machine(&self) -> MutexGuard<'_, Takeover> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn feed(machine: &mut Takeover, now: Duration, input: TakeoverInput, mut carry_out: impl FnMut(Prompt)) {
    log::trace!("{input:?} in {:?}", machine.stage());
    machine.handle(now, input);
    while let Some(prompt) = machine.poll_prompt() {
        carry_out(prompt);
    }
}
