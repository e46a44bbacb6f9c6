//! The restarter: the state machine with a mio loop around it.
//!
//! Knows: readiness → `Input` (`turn`), `Action` → call and `Notice` → [`Event`] (`outputs`). Does not know: why the one leads to the
//! other; that is the machine's.

mod ancestry;
mod attempt;
mod birth;
mod build;
mod chronicle;
mod commit;
mod end;
mod event;
mod obstacles;
mod outputs;
mod pid_file;
pub(crate) mod simulation;
mod timer;
mod turn;
mod watching;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::sys::signal::Signal;
use signal_hook_mio::v1_0::Signals;

use crate::error::{ChildSpawnError, Error, Refusal};
use crate::exec::Exec;
use crate::machine::{Closed, Input, Limits, Machine, Phase, Stage, State, Ticket};
use crate::predecessor::{Claim, Link, Predecessor, SharedTakeover, say_ready, startup_complete};
use crate::restart_coordination_socket::{Server, Status};
use crate::sockets::Sockets;
use crate::sys::{self, Process};
use crate::systemd::{Barrier, Manager};

use attempt::Current;
use chronicle::Chronicle;
pub use event::{Event, Successor};
use pid_file::PidFile;
use simulation::Step;
use timer::Timer;
use watching::{BARRIER, COORDINATION, DRAINING, FIRST_CLIENT, LIFELINE, PREDECESSOR, SIGNALS, SUCCESSOR, TIMER, WAKER, unwatch, watch};

/// How many events the inner poll takes at a time.
const CAPACITY: usize = 64;
/// How many turns one call of `poll` may take: a flood from outside must not hold the caller's loop up.
const TURNS: usize = 16;
/// So long it goes on with them: the last one may end some milliseconds later.
const BUDGET: Duration = Duration::from_millis(2);

/// Restarts this process, and knows the one that it was started by.
///
/// One object that fits into any loop: register it in a `mio::Poll` (it is a [`Source`]), watch its descriptor with anything else (it
/// is [`AsFd`]), or call [`poll`](Restarter::poll) once a tick. The descriptor becomes readable when there is something to do, deadlines
/// included; then call `poll` until it returns `None`.
///
/// There can be one at a time in a process, and none after one that has handed the service over. **Dropping** it gives up what is under
/// way: a successor that is not ready yet is killed, one on probation gets the service for good. The restart signal does nothing afterwards.
/// Dropping waits for the child's end, for the restart thread, for the kernel to take the last message to a successor and for systemd to take
/// the new main process in, which takes a moment, and 5 s at the most for each. A copy of it in a forked child is not the restarter: dropping
/// that closes its descriptors and does nothing else. It must not be polled there: what is ready is the parent's as well, and would be taken
/// from it.
#[must_use = "a restarter that is dropped restarts nothing"]
pub struct Restarter {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    timer: Timer,
    epoch: Instant,
    machine: Machine,
    limits: Limits,
    program: PathBuf,
    exec: Exec,
    signals: Option<Signals>,
    signal: Option<Signal>,
    server: Option<Server>,
    /// The predecessor's coordination socket, if this process has it elsewhere: the path goes when the predecessor has committed.
    retired: Option<Server>,
    /// Clients that were answered and may have asked again already.
    again: Vec<Token>,
    sockets: Sockets,
    /// The successor under way, or the one that has taken over.
    current: Option<Current>,
    /// Successors that were given up and cannot be reaped yet: a debugger has them, or they were killed and do not die.
    held: Vec<Process>,
    askers: Vec<(Ticket, Asker)>,
    tickets: u64,
    /// Processes before the predecessor that still finish their work, the oldest first.
    draining: Vec<Process>,
    max_draining: usize,
    /// What has forbidden restarts from the start.
    forbidden: Option<Refusal>,
    /// A hang-up comes with the end of this process, to a successor that is not born deaf to it.
    leads_terminal: bool,
    /// What the program has yet to be told of the predecessor.
    pending_events: VecDeque<Event>,
    link: Option<Arc<Link>>,
    takeover: Arc<SharedTakeover>,
    manager: Manager,
    barrier: Option<(Barrier, Duration)>,
    /// Why an attempt was called off, if the program said so.
    called_off: Option<String>,
    /// Why nothing could be started.
    not_started: Option<ChildSpawnError>,
    last_failure: Option<String>,
    chronicle: Chronicle,
    pid_file: Option<PidFile>,
    /// The predecessor's, if it is another one: taken away when the service is this process's.
    retired_pid_file: Option<PidFile>,
    /// When systemd is to be told next that the end of this process takes longer.
    stopping: Option<Duration>,
    claim: Claim,
    /// What a test is to see of the machine.
    witness: Option<Vec<Step>>,
}

/// Who waits for the outcome of an attempt.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Program,
    Signal,
    Client,
}

impl Restarter {
    /// The named sockets of the service.
    pub fn sockets(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    /// The process that started this one, if one did. It is still named here when it has ended.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.link.clone().map(Predecessor::new)
    }

    /// How many restarts lie behind this process.
    pub fn generation(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.generation())
    }

    /// Says that this process can serve: to systemd, and to the predecessor, which then gives the service to this process. Sockets that
    /// were inherited and not asked for are closed. Once is enough, more often is harmless. Whatever is to be served can be registered before,
    /// and is not to be read, written or accepted from until this has returned.
    ///
    /// Blocks until the predecessor has answered, which takes that one turn of its loop; the predecessor serves until then. Without one it does
    /// not block: a systemd that is too busy to be told is told by the next calls of [`poll`](Restarter::poll).
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`]: the predecessor has given this process up; the service goes on without it, and it should end. [`Error::Rule`]:
    /// the state that was asked for has not been taken yet, which is to be done first.
    pub fn ready(&mut self) -> Result<(), Error> {
        startup_complete()?;
        self.look_at_predecessor();
        Ok(())
    }

    /// The next event. Does what there is to do, and never blocks; call it until it returns `None`: what is left over is done when it is
    /// called again, and the descriptor need not become readable for it: a restart can stand still, and beyond its deadline too.
    ///
    /// What a restart consists of is done here, in order, and each event is returned before what follows it is done.
    #[must_use = "an event tells what the program must do now"]
    pub fn poll(&mut self) -> Option<Event> {
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
            self.wake();
        }
        event
    }

    /// The next event, waiting at most so long for it: for programs that have a thread to spare, for tests, and for a loop with a fixed tick
    /// that stands still for a handover: the pause is then as long as the handover, and not as the tick.
    #[must_use = "an event tells what the program must do now"]
    pub fn wait(&mut self, limit: Duration) -> Option<Event> {
        let deadline = sys::now().checked_add(limit);
        loop {
            if let Some(event) = self.poll() {
                return Some(event);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(sys::now()));
            if left.is_zero() {
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
        self.look_for_obstacles();
        match self.machine.refusal(self.now()) {
            Some(refusal) => Err(refusal),
            None => {
                self.ask(Asker::Program);
                self.wake();
                Ok(())
            }
        }
    }

    /// Calls a restart off that is under way; says whether it was early enough. The end comes as [`Event::Failed`].
    /// On probation it is too late for that: to take the service back from a successor that hangs, or is not well, kill the process that
    /// [`Event::HandedOff`] has named. [`Event::Resumed`] comes then.
    pub fn cancel(&mut self) -> bool {
        let early = matches!(self.machine.state(), State::Spawning { .. } | State::AwaitingReady { .. });
        self.feed(Input::Cancel);
        self.wake();
        early
    }

    /// The same with a reason.
    pub(crate) fn cancel_because(&mut self, why: &str) -> bool {
        let early = self.cancel();
        if early {
            self.called_off = Some(crate::wire::line(why));
        }
        early
    }

    /// Rules restarts out, since this process is ending: one under way is called off, and one on probation becomes final. systemd is told.
    /// The process goes on serving until it ends by itself. What becomes of a restart under way comes as [`Event::Failed`],
    /// [`Event::Resumed`] or [`Event::Completed`]: go on polling until then.
    /// What [`Sockets`] keeps for a successor is closed: who connects is refused from the moment on at which the program closes its own
    /// listeners, however long it finishes its work after that.
    pub fn stop(&mut self) {
        self.look_at_probation();
        // The service goes on in a successor, if it has one.
        let ends = !matches!(self.machine.state(), State::Handoff { .. });
        self.feed(Input::Stop);
        if ends {
            self.tell_of_the_end();
        }
        self.wake();
    }

    /// Where the restarter stands.
    pub fn status(&self) -> Status {
        let (state, successor) = match self.machine.state() {
            State::Closed(Closed::NotReady) if matches!(self.takeover.stage(), Stage::Granted { .. }) => ("on probation", None),
            State::Closed(Closed::NotReady) => ("not ready", None),
            State::Closed(Closed::Stopping) => ("stopping", None),
            State::Closed(Closed::Broken) => ("broken", None),
            State::Idle => ("idle", None),
            State::Spawning { .. } => ("spawning", None),
            State::AwaitingReady { pid, .. } => ("awaiting ready", Some(pid)),
            State::Handoff { pid, phase: Phase::Probation { .. }, .. } => ("handing off", Some(pid)),
            State::Handoff { pid, phase: Phase::Committed, .. } => ("handed off", Some(pid)),
            State::Killing { pid, .. } => ("killing", Some(pid)),
        };
        let mut status = Status::new(std::process::id(), self.generation(), state);
        status.successor = successor;
        if let Some(since) = self.machine.state().under_way_since() {
            status.under_way_ms = Some(self.now().saturating_sub(since).as_millis() as u64);
            status.progress = self.current.as_ref().and_then(|current| current.words.progress.clone());
        }
        status.last_failure = self.last_failure.clone();
        status.outcomes = self.chronicle.outcomes();
        status
    }

    /// The process that has taken over, once [`Event::Completed`] has come; to watch it, or to hold its end off this process's.
    pub fn into_successor(mut self) -> Option<Successor> {
        if let State::Handoff { phase: Phase::Committed, .. } = self.machine.state() {
            self.carry_out_the_rest();
        }
        self.take_successor()
    }

    pub(crate) fn take_successor(&mut self) -> Option<Successor> {
        let State::Handoff { phase: Phase::Committed, .. } = self.machine.state() else { return None };
        let current = self.current.take()?;
        unwatch(self.poll.registry(), current.lifeline.as_fd());
        let process = current.process?;
        unwatch(self.poll.registry(), process.as_fd());
        Some(Successor::new(process, current.words.exit))
    }

    /// Says that this process can serve, as [`ready`](Restarter::ready) does, but does not wait for the answer.
    pub(crate) fn begin_ready(&mut self) {
        if self.machine.state() == State::Closed(Closed::NotReady) {
            // Not yet, if the program still has to take the state: it is asked again.
            say_ready(&self.takeover, self.link.as_deref());
            self.look_at_predecessor();
        }
    }

    /// Whether the program has ruled restarts out.
    pub(crate) fn is_stopped(&self) -> bool {
        self.machine.state() == State::Closed(Closed::Stopping)
    }
}

impl fmt::Debug for Restarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restarter").field("state", &self.machine.state()).field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl AsFd for Restarter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl AsRawFd for Restarter {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl Source for Restarter {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}
