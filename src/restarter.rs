//! The restarter: the two machines with a mio loop around them.
//!
//! Knows: its parts, readiness → `Input` (`turn`), `Action` → call and `Notice` → [`Event`] (`carry_out`). Does not know: why the one
//! leads to the other; that is the machines'.
//!
//! | part | owns |
//! | --- | --- |
//! | `Reactor` | the inner poll, the waker, the timer |
//! | `Driver` | the restart machine |
//! | `Succession` | the restart thread, the successor and its lifeline, how restarts have ended |
//! | `Ancestry` | the lifeline to the predecessor and the takeover machine, earlier generations |
//! | `Requests` | signals, the coordination socket, tickets |
//! | `Manager` | what the service manager has to be told, and has to answer |
//! | `Preconditions` | why a restart cannot be |
//! | `OwnedPaths` | the pid file, paths of before |
//! | `Sockets` | the named sockets |

mod ancestry;
mod birth;
mod build;
mod carry_out;
mod driver;
mod end;
mod event;
mod manager;
mod owned_paths;
mod preconditions;
mod reactor;
mod requests;
pub(crate) mod simulation;
mod succession;
#[cfg(test)]
mod testing;
mod turn;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task;
use std::time::Duration;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::error::{Error, Refusal};
use crate::machine::{Closed, Input, Phase, State};
use crate::predecessor::{Claim, Predecessor, startup_complete};
use crate::restart_coordination_socket::Status;
use crate::sockets::Sockets;
use crate::sys;

use ancestry::Ancestry;
use driver::Driver;
pub use event::{Event, Successor};
use manager::Manager;
use owned_paths::OwnedPaths;
use preconditions::Preconditions;
use reactor::Reactor;
use requests::{Asker, Requests};
use succession::Succession;

/// How many turns one call of `poll` may take: a flood from outside must not hold the caller's loop up.
const TURNS: usize = 16;
/// So long it goes on with them: the last one may end some milliseconds later.
const BUDGET: Duration = Duration::from_millis(2);

/// Restarts this process, and knows the one that it was started by.
///
/// One object that fits into any loop: register it in a `mio::Poll` (it is a `mio::event::Source`), watch its descriptor with anything else
/// (it is [`AsFd`]), or call [`poll`](Restarter::poll) once a tick. The descriptor becomes readable when there is something to do, deadlines
/// included; then call `poll` until it returns `None`.
///
/// There can be one at a time in a process, and none after one that has handed the service over. **Dropping** it gives up what is under
/// way: a successor that is not ready yet is killed, one on probation gets the service for good. The restart signal does nothing afterwards.
/// Dropping waits for the child's end, for the restart thread, for the kernel to take the last message to a successor and for systemd to take
/// the new main process in, which takes a moment, and 5 s at the most for each.
///
/// # In a forked child
///
/// A copy of it in a forked child is not the restarter: dropping that closes descriptors of the child, waits for nothing, and does nothing
/// that the parent can notice. [`poll`](Restarter::poll) and [`wait`](Restarter::wait) return `None` there at once,
/// [`ready`](Restarter::ready), [`request`](Restarter::request) and registering it an error, and [`cancel`](Restarter::cancel) and
/// [`stop`](Restarter::stop) do nothing. Its descriptor is the parent's as well, becomes readable with that, and stays so: do not watch it.
/// So a program that puts itself into the background does that first.
///
/// The sockets of the service, the coordination socket too, are open in the child as long as it keeps its copy. If the service is killed
/// meanwhile, a new one finds its addresses in use until that child has ended. So drop the copy in the child, and what was made from
/// [`Sockets`], or execute another program there.
///
/// A child can build a restarter of its own, which knows no predecessor; its coordination socket needs another path. A restart signal that
/// is sent to the child wakes the loop of the parent, which finds nothing to do.
#[must_use = "a restarter that is dropped restarts nothing"]
pub struct Restarter {
    reactor: Reactor,
    driver: Driver,
    succession: Succession,
    ancestry: Ancestry,
    requests: Requests,
    manager: Manager,
    preconditions: Preconditions,
    paths: OwnedPaths,
    sockets: Sockets,
    claim: Claim,
}

impl Restarter {
    /// The named sockets of the service.
    pub fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    /// The process that started this one, if one did. It is still named here when it has ended.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.ancestry.predecessor()
    }

    /// How many restarts lie behind this process.
    pub fn generation(&self) -> u32 {
        self.ancestry.generation()
    }

    /// Says that this process can serve: to systemd, and to the predecessor, which then gives the service to this process. Sockets that
    /// were inherited and not asked for are closed. Once is enough, more often is harmless. Whatever is to be served can be registered before,
    /// and is not to be read, written or accepted from until this has returned.
    ///
    /// Blocks until the predecessor has answered, which takes one turn of its loop; the predecessor serves until then. Without one it does
    /// not block: a systemd that is too busy to be told is told by the next calls of [`poll`](Restarter::poll).
    ///
    /// Under a [guard](crate::guard), asks once more for SIGTERM at the guard's end: a change of user has taken that away.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`]: the predecessor has given this process up; the service goes on without it, and it should end. [`Error::TooEarly`]:
    /// the state that was asked for has not been taken yet, which is to be done first.
    pub fn ready(&mut self) -> Result<(), Error> {
        self.check_here().map_err(Error::os("cannot say that this process can serve"))?;
        startup_complete()?;
        self.ancestry.stay_with_guard();
        self.poll_ancestry();
        Ok(())
    }

    /// The next event. Does what there is to do, and never blocks; call it until it returns `None`: what is left over is done when it is
    /// called again, and the descriptor need not become readable for it: a restart can stand still, and beyond its deadline too.
    ///
    /// What a restart consists of is done here, in order, and each event is returned before what follows it is done.
    #[must_use = "an event tells what the program must do now"]
    pub fn poll(&mut self) -> Option<Event> {
        if self.is_anothers() {
            return None;
        }
        let begun = sys::now();
        for _ in 0..TURNS {
            if let Some(event) = self.next_event() {
                return Some(event);
            }
            if !self.turn() {
                return None;
            }
            if sys::now() - begun >= BUDGET {
                break;
            }
        }
        // What the last turn has brought: the program must not go on before it knows that the service is another's.
        let event = self.next_event();
        if event.is_none() {
            // More is there, but others have waited long enough. An edge-triggered outer poll needs a new edge.
            self.reactor.wake();
        }
        event
    }

    /// The next event, waiting at most so long for it. It is for programs that have a thread to spare, and for tests. A loop with a fixed
    /// tick that stands still for a handover calls it in the place of its sleep: the pause is then as long as the handover, and not as the
    /// tick.
    #[must_use = "an event tells what the program must do now"]
    pub fn wait(&mut self, limit: Duration) -> Option<Event> {
        let deadline = sys::now().checked_add(limit);
        loop {
            if let Some(event) = self.poll() {
                return Some(event);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(sys::now()));
            if left.is_zero() || self.is_anothers() {
                return None;
            }
            sys::is_readable_within(&*self, left);
        }
    }

    /// Asks for a restart, as a signal or a client of the coordination socket does. The outcome comes as an event.
    ///
    /// # Errors
    ///
    /// No restart can be begun now; nothing has changed.
    pub fn request(&mut self) -> Result<(), Refusal> {
        if self.is_anothers() {
            return Err(Refusal::Forked);
        }
        self.look_for_obstacles();
        match self.driver.refusal(self.reactor.now()) {
            Some(refusal) => Err(refusal),
            None => {
                let request = self.requests.request(Asker::Program);
                self.feed(request);
                self.reactor.wake();
                Ok(())
            }
        }
    }

    /// Calls a restart off that is under way; says whether it was early enough. The end comes as [`Event::Failed`].
    /// On probation it is too late for that: to take the service back from a successor that hangs, or is not well, kill the process that
    /// [`Event::HandedOff`] has named. [`Event::Resumed`] comes then.
    pub fn cancel(&mut self) -> bool {
        if self.is_anothers() {
            return false;
        }
        let early = matches!(self.driver.state(), State::Spawning { .. } | State::AwaitingReady { .. });
        self.feed(Input::Cancel);
        self.reactor.wake();
        early
    }

    /// The same with a reason.
    pub(crate) fn cancel_because(&mut self, why: &str) -> bool {
        let early = self.cancel();
        if early {
            self.succession.cancelled_because(why);
        }
        early
    }

    /// Rules restarts out, since this process is ending: one under way is called off, and one on probation becomes final. systemd is told.
    /// The process goes on serving until it ends by itself. What becomes of a restart under way comes as [`Event::Failed`],
    /// [`Event::Resumed`] or [`Event::Completed`]: go on polling until then.
    /// What [`Sockets`] keeps for a successor is closed: who connects is refused from the moment on at which the program closes its own
    /// listeners, however long it finishes its work after that.
    pub fn stop(&mut self) {
        if self.is_anothers() {
            return;
        }
        // The service goes on in a successor, if it has one.
        let ends = !matches!(self.driver.state(), State::Handoff { .. });
        self.feed(Input::Stop);
        if ends {
            self.tell_of_the_end();
        }
        self.reactor.wake();
    }

    /// Whether this process takes new connections in: what a [`Gate`](crate::Gate) goes by, and
    /// what a loop without one can ask after [`ready`](Restarter::ready) and after each event.
    ///
    /// | since | |
    /// | --- | --- |
    /// | the start | no |
    /// | the grant; of a first generation [`ready`](Restarter::ready) | yes |
    /// | [`Event::StateRequested`] | no: what came in now would be in nobody's state |
    /// | [`Event::Failed`] | yes |
    /// | [`Event::HandedOff`] | no |
    /// | [`Event::Resumed`] | yes |
    ///
    /// A process that is [stopped](Restarter::stop) goes on until it closes its listeners. In a
    /// forked child the answer is no.
    pub fn accepts(&self) -> bool {
        let must_wait = match self.driver.state() {
            State::Closed(_) | State::Idle | State::Spawning { .. } => false,
            State::AwaitingReady { .. } => self.succession.is_frozen(),
            // The program has been told of the failure, although the successor is still there.
            State::Killing { granted: false, deadline: None, .. } => false,
            State::Killing { granted, .. } => granted || self.succession.is_frozen(),
            State::Handoff { .. } => true,
        };
        !must_wait && !self.is_anothers() && self.ancestry.is_granted()
    }

    /// Whether the service is a successor's, and cannot come back.
    pub(crate) fn has_handed_over(&self) -> bool {
        matches!(self.driver.state(), State::Handoff { phase: Phase::Committed, .. })
    }

    /// Where the restarter stands.
    pub fn status(&self) -> Status {
        let (state, successor) = match self.driver.state() {
            State::Closed(Closed::NotReady) if self.ancestry.is_on_probation() => ("on probation", None),
            State::Closed(Closed::NotReady) => ("not ready", None),
            State::Closed(Closed::Stopping) => ("stopping", None),
            State::Closed(Closed::Broken) => ("broken", None),
            State::Idle => ("idle", None),
            State::Spawning { .. } => ("spawning", None),
            State::AwaitingReady { pid, .. } => ("awaiting ready", Some(pid)),
            State::Handoff { pid, phase: Phase::Probation { .. } | Phase::Checking { .. }, .. } => ("handing off", Some(pid)),
            State::Handoff { pid, phase: Phase::Committing { .. } | Phase::Committed, .. } => ("handed off", Some(pid)),
            State::Killing { pid, .. } => ("killing", Some(pid)),
        };
        let mut status = Status::new(std::process::id(), self.generation(), state);
        status.successor = successor;
        if let Some(since) = self.driver.state().under_way_since() {
            status.under_way_ms = Some(self.reactor.now().saturating_sub(since).as_millis() as u64);
            status.progress = self.succession.progress();
        }
        status.last_failure = self.succession.last_failure();
        status.outcomes = self.succession.outcomes();
        status.notes = [self.ancestry.problem(), self.succession.problem()].into_iter().flatten().map(String::from).collect();
        status
    }

    /// The process that has taken over, once [`Event::Completed`] has come; to watch it, or to hold its end off this process's.
    pub fn into_successor(mut self) -> Option<Successor> {
        if self.is_anothers() {
            return None;
        }
        if let State::Handoff { phase: Phase::Committing { .. } | Phase::Committed, .. } = self.driver.state() {
            self.carry_out_the_rest();
        }
        self.take_successor()
    }

    pub(crate) fn take_successor(&mut self) -> Option<Successor> {
        let State::Handoff { phase: Phase::Committed, .. } = self.driver.state() else { return None };
        self.succession.take_successor(&self.reactor)
    }

    /// Says that this process can serve, as [`ready`](Restarter::ready) does, but does not wait for the answer.
    pub(crate) fn begin_ready(&mut self) {
        if self.driver.state() == State::Closed(Closed::NotReady) {
            // Not yet, if the program still has to take the state: it is asked again.
            self.ancestry.say_ready();
            self.poll_ancestry();
        }
    }

    /// Whether this is the copy that a forked child has.
    pub(crate) fn is_anothers(&self) -> bool {
        !self.claim.is_here()
    }

    /// An error in a forked child.
    pub(crate) fn check_here(&self) -> io::Result<()> {
        self.claim.check_here()
    }

    /// Has the restart thread call this waker, and no earlier one, after so long: for a task that cannot
    /// have a thread of its own. `false`: the restart thread is gone.
    pub(crate) fn wake_in(&self, time: Duration, waker: &task::Waker) -> bool {
        self.succession.wake_in(time, waker)
    }

    /// Has the restart thread call no waker any more.
    pub(crate) fn wake_nobody(&self) {
        self.succession.wake_nobody();
    }

    /// Whether the program has ruled restarts out.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.driver.state(), State::Closed(Closed::Stopping))
    }
}

impl fmt::Debug for Restarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restarter").field("state", &self.driver.state()).field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl AsFd for Restarter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reactor.as_fd()
    }
}

impl AsRawFd for Restarter {
    fn as_raw_fd(&self) -> RawFd {
        self.reactor.as_raw_fd()
    }
}

impl Source for Restarter {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_here()?;
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_here()?;
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        // The poll may be the parent's as well.
        self.check_here()?;
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}
