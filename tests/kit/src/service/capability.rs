//! What a test program adds to the service.

use pollflip::{Event, RestartConfig, Restarter};

use super::act::Act;
use super::listeners::Socket;

/// What a process of the service can besides, or does otherwise. Each function is called at a step of its life, in this order.
pub trait Capability {
    /// It has told that it is there.
    fn born(&mut self) {}

    /// It has given up what its settings say, and has no restarter.
    fn before_build(&mut self) {}

    /// Completes what the restarter is built by.
    fn complete(&mut self, config: RestartConfig) -> RestartConfig {
        config
    }

    /// It has a restarter, and has not asked for a socket. An error ends the process.
    fn built(&mut self, _: &mut Restarter) -> Result<(), String> {
        Ok(())
    }

    /// The sockets to ask for before this process is ready, instead of those of its settings.
    fn sockets(&mut self, _: &mut Restarter) -> Option<Vec<Socket>> {
        None
    }

    /// It has its sockets.
    fn claimed(&mut self) {}

    /// It serves. Sockets to ask for from now on.
    fn ready(&mut self, _: &mut Restarter) -> Result<Vec<Socket>, String> {
        Ok(Vec::new())
    }

    /// Returns an event that it has no use for.
    fn event(&mut self, event: Event) -> Option<Event> {
        Some(event)
    }

    /// Does what a test wants, if it is an act of this capability.
    fn perform(&mut self, _: &Act) -> Option<String> {
        None
    }
}

/// Nothing besides.
impl Capability for () {}
