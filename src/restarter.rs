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
//! | `Keeper` | what outlives this process, if somebody holds it |

mod ancestry;
mod birth;
mod build;
mod carry_out;
mod driver;
mod end;
mod event;
mod manager;
mod owned_paths;
mod part;
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

use crate::error::{Error, Failure, Refusal};
use crate::keep::{Held, Keeper, KeptStream, Survivors};
use crate::machine::{Action, Closed, Input, Phase, State};
use crate::predecessor::{Claim, Predecessor, startup_complete};
use crate::restart_coordination_socket::{ServiceState, Status};
use crate::sockets::Sockets;
use crate::sys::{self, Process};
use crate::wire;

use ancestry::Ancestry;
use driver::Driver;
pub use event::{Event, Successor};
use manager::Manager;
use owned_paths::OwnedPaths;
use part::Moment;
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
/// One object that fits into any loop: register it in a `mio::Poll` (it is a `mio::event::Source`),
/// watch its descriptor with anything else (it is [`AsFd`]), or call [`poll`](Restarter::poll) once
/// a tick. The descriptor becomes readable when there is something to do, deadlines included, and
/// stays so until `poll` has returned `None`.
///
/// There can be one at a time in a process, and none after one that has handed the service over.
/// **Dropping** it ends what is under way: a successor that is not ready yet is killed, and one on
/// probation keeps the service. The restart signal does nothing afterwards. Dropping
/// waits for the child's end, for the restart thread, for the kernel to take the last message to a
/// successor, and for systemd to take in the new main process and what else it has to be told. That
/// takes a moment, and 5 s at the most for each.
///
/// # The contract
///
/// **Only one of the two processes touches what both have: until [`ready`](Restarter::ready) has
/// returned it is the predecessor, from [`Event::HandedOff`] on it is the successor.**
///
/// 1. Build the restarter early: before other threads start, before privileges are given up, before
///    the thread is pinned to a processor.
/// 2. Ask for each socket by name ([`sockets`](Restarter::sockets)), in every generation in the
///    same way. Bind nothing else that the predecessor has.
/// 3. Initialise, however long it takes; [`Predecessor::progress`] tells where it is. If it cannot
///    be done, [`Predecessor::refuse`] with the reason.
/// 4. Ask for the state last, if there is any: [`Predecessor::receive`]. The predecessor is frozen
///    from here on.
/// 5. Call [`ready`](Restarter::ready). Accept, read and write only after it has returned.
/// 6. Whenever the descriptor is readable, or once a tick, call [`poll`](Restarter::poll) until it
///    returns `None`. There is no timeout to compute.
/// 7. Do what each [`Event`] asks for before `poll` is called again. An error on the way, of saving
///    the state say, does not end the loop: this process keeps serving.
/// 8. At [`Event::Completed`], finish the old work and end.
/// 9. To end without a successor, call [`stop`](Restarter::stop), go on polling, finish the work
///    and end.
///
/// ```no_run
/// use std::time::Duration;
/// use pollflip::{Event, RestartConfig};
///
/// # fn main() -> Result<(), pollflip::Error> {
/// let mut restarter = RestartConfig::new().coordination_socket("/run/echo/restart.sock").build()?; // 1
/// let listener = restarter.sockets().tcp_listener("echo", "127.0.0.1:7000")?; // 2
/// if let Some(predecessor) = restarter.predecessor() {
///     predecessor.progress("warming the cache"); // 3
///     let state = predecessor.receive(Duration::from_secs(5))?; // 4
///     # drop(state);
/// }
/// restarter.ready()?; // 5
/// # drop(listener);
/// // 6: a program with nothing else to do. A loop registers the restarter and calls `poll`.
/// while let Some(event) = restarter.wait(Duration::MAX) {
///     match event { // 7
///         Event::StateRequested(handover) => handover.send(), // an empty state
///         Event::HandedOff(pid) => println!("process {pid} serves"),
///         Event::Failed(why) => println!("still here: {why}"),
///         Event::Completed(_) => break, // 8
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # In a forked child
///
/// A forked child has a copy of the restarter, which restarts nothing. Dropping the copy closes
/// descriptors of the child, waits for nothing, and does nothing that the parent can notice.
/// [`poll`](Restarter::poll) and [`wait`](Restarter::wait) return `None` at once;
/// [`ready`](Restarter::ready), [`request`](Restarter::request) and registering the copy return an
/// error; [`cancel`](Restarter::cancel) and [`stop`](Restarter::stop) do nothing. The descriptor of
/// the copy is the parent's too: it becomes readable when the parent has something to do, and the
/// child cannot change that, so do not watch it. A program that forks to put itself into the
/// background forks before it builds the restarter.
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
    keeper: Keeper,
    version: Option<String>,
    claim: Claim,
}

impl Restarter {
    /// The named sockets of the service.
    pub fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    /// Has things held that outlive this process: see [`RestartConfig::keep`](crate::RestartConfig::keep).
    /// Without that it does nothing.
    pub fn keeper(&self) -> Keeper {
        self.keeper.for_program()
    }

    /// What the process before has left that was killed or has crashed: its connections, what it kept
    /// by name, and how it has ended. `None`: there is nothing of that kind, or it was asked for
    /// before.
    ///
    /// Call it before [`ready`](Restarter::ready). What is not taken by then is closed, and kept no
    /// more.
    ///
    /// In a successor there is something only if the predecessor [has ended](Predecessor::has_ended)
    /// before it has handed the service over: after [`Predecessor::receive`] or another call has failed
    /// with [`Error::PredecessorGone`], say. It may also end after this was called, while `ready` waits
    /// for it. So a successor calls this once more at [`Event::PredecessorGone`]: until the next call of
    /// [`poll`](Restarter::poll) all of that is still held. What came from the predecessor and is kept
    /// by this process already is not among it.
    ///
    /// ```no_run
    /// use std::net::TcpStream;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut restarter = pollflip::RestartConfig::new().keep(true).build()?;
    /// let keeper = restarter.keeper();
    /// if let Some(mut survivors) = restarter.survivors() {
    ///     println!("the process before {}", survivors.cause());
    ///     for survivor in survivors.streams() {
    ///         let position = survivor.position()?;
    ///         let connection = TcpStream::from(survivor);
    ///         match position {
    ///             // Nothing was read or written: begin as if it had just been accepted.
    ///             Some(position) if position.read == 0 && position.written == 0 => drop(connection),
    ///             // Or go on where it was: see `pollflip::Position`.
    ///             _ => keeper.forget_stream(&connection),
    ///         }
    ///     }
    /// }
    /// restarter.ready()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn survivors(&mut self) -> Option<Survivors> {
        let has_ended = !self.is_anothers() && self.ancestry.has_ended_before_the_grant();
        self.keeper.for_program().survivors(has_ended)
    }

    /// The connections that this process has kept, when the service has come back to it
    /// ([`Event::Resumed`]): as they are now, those that were handed over too. Otherwise, and when it was
    /// asked for before, there are none.
    ///
    /// Connections that the program still has open are among them: it knows those by their
    /// [cookie](crate::ledger::cookie). From `Resumed` on a connection is kept only if the program
    /// takes it from here, or keeps it anew. A connection that was handed over, and is not taken
    /// before the next call of [`poll`](Restarter::poll), is closed.
    pub fn returned(&mut self) -> impl Iterator<Item = KeptStream> + use<> {
        self.keeper.for_program().returned()
    }

    /// Begins to keep, or has removed what a release has kept that did.
    fn keep(&mut self, keeps: bool, held: Held, given: Held) {
        if keeps {
            let is_successor = self.ancestry.predecessor_pid().is_some();
            let mut held = held;
            let passed = std::mem::take(&mut held.sockets);
            self.keeper = Keeper::new(held.and(given), is_successor, self.reactor.waker().clone());
            self.sockets.keep_by(self.keeper.clone(), passed);
        } else {
            let has_groups = self.sockets.kept_groups().next().is_some();
            self.keeper = Keeper::for_nothing(held.and(given), has_groups, self.reactor.waker().clone());
            self.sockets.keep_by(self.keeper.clone(), Vec::new());
        }
    }

    /// Tells the keeper what it has to hold.
    fn tell_keeper(&mut self) {
        self.manager.store(self.keeper.take_orders());
    }

    /// The process that started this one, if one did. It is still named here when it has ended.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.ancestry.predecessor()
    }

    /// How many restarts lie behind this process. It is 0 again in a process that a guard or systemd
    /// has started after a kill.
    pub fn generation(&self) -> u32 {
        self.ancestry.generation()
    }

    /// Says that this process can serve: to systemd, and to the predecessor, which then gives the service to this process. Sockets that
    /// were inherited and not asked for are closed. Once is enough, more often is harmless. The program can
    /// register listeners and connections before, but reads, writes and accepts only after this has returned.
    ///
    /// Blocks until the predecessor has answered, which takes one turn of its loop; the predecessor serves until then. If it ends instead, the
    /// service is this process's too: [`Event::PredecessorGone`] comes then, and no [`Event::Granted`]. Without a predecessor this does not
    /// block: a systemd that is too busy to be told is told by the next calls of [`poll`](Restarter::poll).
    ///
    /// Under a [guard](crate::guard), asks once more for SIGTERM at the guard's end: a change of user has taken that away.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`]: the predecessor has given this process up; the service goes on without it, and it should end. [`Error::TooEarly`]:
    /// the state that this process has asked for has not been taken yet: take it first.
    pub fn ready(&mut self) -> Result<(), Error> {
        self.check_here().map_err(Error::os("cannot say that this process can serve"))?;
        startup_complete()?;
        self.ancestry.stay_with_guard();
        self.poll_ancestry(&Moment::default());
        Ok(())
    }

    /// The next event. Does what there is to do, and never blocks; call it until it returns `None`.
    ///
    /// A loop that takes one event per wake-up loses nothing: until `None` has been returned the
    /// descriptor is readable, and becomes so anew with each event for loops that are
    /// edge-triggered.
    ///
    /// This call is what moves a restart on, step by step. Each event is returned before the next
    /// step is taken. If the program stops calling it, the restart stands still, and no deadline
    /// ends that.
    #[must_use = "an event tells what the program must do now"]
    pub fn poll(&mut self) -> Option<Event> {
        if self.is_anothers() {
            return None;
        }
        let begun = sys::now();
        for _ in 0..TURNS {
            if let Some(event) = self.next_event() {
                // What follows it is done by the next call, for which nothing else need come.
                self.reactor.wake();
                return Some(event);
            }
            if !self.turn() {
                if self.succession.begin_turn() {
                    self.reactor.wake();
                }
                return None;
            }
            if sys::now() - begun >= BUDGET {
                break;
            }
        }
        // What the last turn has brought: the program must not go on before it knows that the service is another's.
        let event = self.next_event();
        if event.is_none() {
            self.succession.begin_turn();
        }
        // More may be there, but others have waited long enough. An edge-triggered outer poll needs
        // a new edge.
        self.reactor.wake();
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
            Some(refusal) => {
                self.preconditions.asked_in_vain(refusal);
                // For a task, which ends with that.
                self.reactor.wake();
                Err(refusal)
            }
            None => {
                let request = self.requests.request(Asker::Program);
                self.feed(request);
                self.reactor.wake();
                Ok(())
            }
        }
    }

    /// Calls off the restart that is under way. `true`: it was early enough, and [`Event::Failed`] follows.
    ///
    /// The asker, the log and the [status](crate::Status::outcomes) are told the reason, in one
    /// line: "the cache is being rebuilt", say.
    ///
    /// On probation it is too late. To take the service back from a successor that hangs, kill the
    /// process that [`Event::HandedOff`] has named: [`Event::Resumed`] follows.
    ///
    /// ```no_run
    /// # let mut restarter = pollflip::RestartConfig::new().build().unwrap();
    /// if !restarter.cancel("the cache is being rebuilt") {
    ///     println!("nothing to call off, or too late for that");
    /// }
    /// ```
    pub fn cancel(&mut self, reason: &str) -> bool {
        self.cancel_as(Failure::Cancelled(wire::line(reason)))
    }

    /// The same as the failure that those who ask are told.
    fn cancel_as(&mut self, failure: Failure) -> bool {
        if self.is_anothers() {
            return false;
        }
        let early = matches!(self.driver.state(), State::Spawning { .. } | State::AwaitingReady { .. });
        self.feed(Input::Cancel);
        if early {
            self.succession.cancelled_because(failure);
        }
        self.reactor.wake();
        early
    }

    /// A hook has failed, without which the attempt cannot go on: it is called off, unless the successor is gone and the hook has found
    /// that. `false`: there is none, or it is too late for that.
    pub(crate) fn hook_failed(&mut self, why: &str) -> bool {
        if matches!(self.driver.state(), State::AwaitingReady { .. }) && self.succession.is_gone() {
            log::debug!("a hook of this program failed when the successor was gone: {why}");
            return true;
        }
        self.cancel_as(Failure::Hook(why.into()))
    }

    /// Says that this process is going to end. Further restarts are refused, one under way is called
    /// off, and one on probation becomes final. systemd is told.
    ///
    /// The process serves until the program ends it. The outcome of a restart under way comes as
    /// [`Event::Failed`], [`Event::Resumed`] or [`Event::Completed`]: poll until then.
    ///
    /// The listeners that [`Sockets`] keeps for a successor are closed. So when the program closes
    /// its own, new clients are refused at once, even while it finishes its work.
    pub fn stop(&mut self) {
        if self.is_anothers() {
            return;
        }
        // The service may have become this process's, and nobody has looked since.
        self.poll_ancestry(&Moment::default());
        self.feed(Input::Stop);
        // The program may be busy with its end, and not poll soon.
        if self.driver.begins_with(Action::TellStopping) {
            self.driver.next_output();
            self.carry_out(Action::TellStopping);
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
            State::Closed(Closed::NotReady { .. }) if self.ancestry.is_on_probation() => (ServiceState::OnProbation, None),
            State::Closed(Closed::NotReady { .. }) => (ServiceState::NotReady, None),
            State::Closed(Closed::Stopping { .. }) => (ServiceState::Stopping, None),
            State::Closed(Closed::Broken) => (ServiceState::NoMoreRestarts, None),
            State::Idle => (ServiceState::Serving, None),
            State::Spawning { .. } => (ServiceState::Spawning, None),
            State::AwaitingReady { pid, .. } => (ServiceState::AwaitingReady, Some(pid)),
            State::Handoff { pid, phase: Phase::Probation { .. } | Phase::Checking { .. }, .. } => (ServiceState::HandingOff, Some(pid)),
            State::Handoff { pid, phase: Phase::Committing { .. } | Phase::LettingGo { .. } | Phase::Committed, .. } => {
                (ServiceState::HandedOff, Some(pid))
            }
            State::Killing { pid, .. } => (ServiceState::Killing, Some(pid)),
        };
        let mut status = Status::new(std::process::id(), self.generation(), state);
        status.successor = successor;
        status.version = self.version.clone();
        status.program = self.succession.program().to_string_lossy().into_owned();
        if !matches!(self.driver.state(), State::Closed(Closed::NotReady { .. })) {
            // Until this process is given the service, its predecessor serves.
            status.draining = self.ancestry.living().map(Process::pid).collect();
        }
        if let Some(since) = self.driver.state().under_way_since() {
            status.under_way_ms = Some(self.reactor.now().saturating_sub(since).as_millis() as u64);
            status.progress = self.succession.progress();
        }
        let is_broken = self.driver.state() == State::Closed(Closed::Broken);
        let impossible = if is_broken { Some(Refusal::RestartThreadGone) } else { self.preconditions.permanent() };
        status.impossible = impossible.map(|refusal| refusal.to_string());
        status.last_failure = self.succession.last_failure();
        status.outcomes = self.succession.outcomes();
        status.notes = self.ancestry.problem().map(String::from).into_iter().chain(self.succession.problem()).collect();
        status.notes.extend(self.keeper.note());
        status
    }

    /// The process that has taken over, once [`Event::Completed`] has come: to watch it, and to learn
    /// how it ends.
    pub fn into_successor(mut self) -> Option<Successor> {
        if self.is_anothers() {
            return None;
        }
        if let State::Handoff { phase: Phase::Committing { .. } | Phase::LettingGo { .. }, .. } = self.driver.state() {
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
        if let State::Closed(Closed::NotReady { .. }) = self.driver.state() {
            // Not yet, if the program still has to take the state: it is asked again.
            self.ancestry.say_ready();
            self.poll_ancestry(&Moment::default());
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

    /// The permanent reason for which somebody has been refused who has asked for a restart.
    pub(crate) fn asked_in_vain(&self) -> Option<Refusal> {
        self.preconditions.told()
    }

    /// Whether the program has ruled restarts out.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.driver.state(), State::Closed(Closed::Stopping { .. }))
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
