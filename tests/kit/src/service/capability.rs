//! What a test program adds to the service.

use std::time::Duration;

use pollflip::{Event, RestartConfig};

use super::act::Act;
use super::listeners::Socket;
use super::{Core, Settings};

/// What a process of the service can besides, or does otherwise. Each function is called at a step of its life, in this order.
pub trait Capability {
    /// It has told that it is there.
    fn born(&mut self, _: &Settings) {}

    /// It has given up what its settings say, and has no restarter.
    fn before_build(&mut self, _: &Settings) {}

    /// Completes what the restarter is built by.
    fn complete(&mut self, _: &Settings, config: RestartConfig) -> RestartConfig {
        config
    }

    /// It has a restarter, and has not asked for a socket. An error ends the process.
    fn built(&mut self, _: &mut Core) -> Result<(), String> {
        Ok(())
    }

    /// The sockets to ask for before this process is ready, instead of those of its settings.
    fn sockets(&mut self, _: &mut Core) -> Option<Vec<Socket>> {
        None
    }

    /// It has its sockets.
    fn claimed(&mut self, _: &mut Core) {}

    /// The loop turns as long as this is so, and only then it gets ready.
    fn waits(&self) -> bool {
        false
    }

    /// It serves. Sockets to ask for from now on.
    fn ready(&mut self, _: &mut Core) -> Result<Vec<Socket>, String> {
        Ok(Vec::new())
    }

    /// Where clients find it, if it has a socket of its own.
    fn address(&self) -> Option<String> {
        None
    }

    /// How long the loop sleeps at most.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// The loop has woken up. Whether the restarter may have something to tell for what is done here.
    fn wakes(&mut self, _: &mut Core) -> Result<bool, String> {
        Ok(false)
    }

    /// Returns an event that it has no use for. An error ends the process.
    fn event(&mut self, _: &mut Core, event: Event) -> Result<Option<Event>, String> {
        Ok(Some(event))
    }

    /// Does what a test wants, if it is an act of this capability ([`Act::other`]).
    fn perform(&mut self, _: &mut Core, _: &Act) -> Option<String> {
        None
    }

    /// It is told to go on, and does not wait.
    fn go_on(&mut self) {}

    /// Whether it goes on when a successor has taken over.
    fn has_work(&self) -> bool {
        false
    }

    /// Whether it ends now, although it might go on.
    fn is_over(&mut self, _: &mut Core) -> bool {
        false
    }
}

/// Nothing besides.
impl Capability for () {}
