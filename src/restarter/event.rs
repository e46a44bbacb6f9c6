//! What a restarter tells the program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use crate::error::{Error, Exit, Failure};
use crate::handover::{Arrival, Handover, Inheritance};
use crate::precopy::Precopy;
use crate::sys::Process;

/// What [`Restarter::poll`](crate::Restarter::poll) returns: the public form of what the state machine notices. In the order in which
/// they can come, for the old process and then for the new one.
///
/// What a server does at each of them:
///
/// ```
/// use pollflip::{Event, Failure};
///
/// # #[derive(Default)]
/// # struct Server { accepting: bool, frozen: bool, done: bool }
/// # impl Server {
/// #     fn accept_no_more(&mut self) { self.accepting = false }
/// #     fn accept_again(&mut self) { self.accepting = true }
/// #     fn drop_connections(&mut self) {}
/// #     fn drain_and_end(&mut self) { self.done = true }
/// #     fn end(&mut self) { self.done = true }
/// # }
/// fn on_event(server: &mut Server, event: Event) {
///     match event {
///         // The predecessor.
///         Event::StateRequested(handover) => {
///             server.accept_no_more();
///             server.frozen = true; // nothing is read or written any more
///             handover.send(); // filled before
///         }
///         Event::HandedOff(_) => server.accept_no_more(),
///         Event::Failed(_) | Event::Resumed(_) => {
///             server.frozen = false;
///             server.accept_again();
///         }
///         Event::Completed(_) => {
///             server.drop_connections(); // those that were handed over
///             server.drain_and_end();
///         }
///         // The successor.
///         Event::GivenUp(_) => server.end(), // another process serves
///         _ => {} // for the log, and for programs that want to know
///     }
/// }
/// # let mut server = Server::default();
/// # on_event(&mut server, Event::Failed(Failure::Cancelled("not now".into())));
/// # assert!(server.accepting);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A restart has been asked for. The successor is started by the next call of `poll`; until then
    /// [`cancel`](crate::Restarter::cancel) prevents it.
    Restarting,
    /// The successor, of this process id, has been started and is getting ready.
    Spawned(u32),
    /// The successor asks for what can go ahead of the state, while this process serves: see [`Precopy`]. A program that has nothing of
    /// the kind drops it.
    PrecopyRequested(Precopy),
    /// More can go ahead, after [`Precopy::room`] was 0.
    ///
    /// It comes once until `poll` has returned `None`, so that a loop serves its connections between
    /// two of them. It also comes after [`complete`](Precopy::complete), when there was no room.
    PrecopyRoom,
    /// The successor is initialised and asks for the state: freeze, fill the [`Handover`] and send it. Dropped, it fails the attempt.
    StateRequested(Handover),
    /// The successor says how far it is.
    Progress(String),
    /// The successor, of this process id, serves. This process should take no new work: it must not accept any more, and not touch
    /// what it has handed over. It still holds that, and drops it at [`Completed`](Event::Completed). On probation the successor can still fail: [`Resumed`](Event::Resumed).
    ///
    /// To stop accepting, take the listeners out of the loop, and close them when the restart is
    /// final. Do not call `shutdown()` on a listener: both processes have the same one, so the
    /// successor could not accept any more, nor any later generation. The same is true of what else
    /// belongs to the open file and not to the descriptor: [locks](Handover::fd), the position in a
    /// file, its flags.
    HandedOff(u32),
    /// The successor had taken over and has ended within its probation: serve again. This comes only
    /// after the end of the successor, also where the predecessor has given it up. What was handed over is still there. The successor may
    /// have read and written it: close those connections, unless their protocol can go on from anywhere.
    Resumed(Failure),
    /// The restart is final. Drop what was handed over, finish the old work and end.
    ///
    /// If something was handed over, this comes no earlier than two milliseconds after the grant. To drop
    /// ten thousand connections takes some 12 ms of processor time, often of the very processor on which
    /// the successor has just been woken. The one who asked for the restart is not held back by that.
    Completed(u32),
    /// The restart has failed: go on as if nothing had happened.
    ///
    /// | before it came | what the program does |
    /// | --- | --- |
    /// | [`StateRequested`](Event::StateRequested) | [thaws](Handover#freeze-and-thaw): accepts, reads and writes again, and serves what came meanwhile |
    /// | [`PrecopyRequested`](Event::PrecopyRequested) alone | drops the [`Precopy`]. It has served all the while |
    /// | neither | nothing: it has served all the while |
    Failed(Failure),
    /// The process of this id, which had taken over, has ended after the commit, and this one still lives. It may have been replaced, or told
    /// to end, or it has crashed: then nobody serves but for what this process still does. systemd starts the service afresh when this
    /// process has ended too.
    SuccessorGone(u32),
    /// No further restart is possible in this process, which can go on serving.
    NoMoreRestarts(Error),

    /// Something has come ahead that was asked for with [`Predecessor::pull_precopy`](crate::Predecessor::pull_precopy), or is gone again.
    Arrived(Arrival),
    /// All that can go ahead has come; what changes still comes as [`Arrived`](Event::Arrived). Ask for the state with
    /// [`Predecessor::pull`](crate::Predecessor::pull), now or later.
    ArrivedAll,
    /// The state has come that was asked for with [`Predecessor::pull`](crate::Predecessor::pull).
    Inherited(Inheritance),
    /// The predecessor has given the service to this process. It comes once, also after [`ready`](crate::Restarter::ready) has returned; a
    /// first generation gets none. Programs that call `ready` need not wait for it.
    Granted,
    /// The grant is final: the predecessor has said so, or has hung up and cannot take the service back.
    /// From now on this process can be restarted.
    Committed,
    /// The predecessor has ended. If it had not granted the service yet, what it has kept is this process's: see
    /// [`Restarter::survivors`](crate::Restarter::survivors). So is what it has left unread of a UDP group: see
    /// [`UdpGroup::recv_orphaned`](crate::UdpGroup::recv_orphaned).
    PredecessorGone,
    /// An earlier generation than the predecessor, of this process id, has ended, as for
    /// [`PredecessorGone`](Event::PredecessorGone). The process that serves is told.
    GenerationEnded(u32),
    /// The predecessor, of this process id, has given this process up. The predecessor serves, or another
    /// process that it has started since: this process should end.
    GivenUp(u32),
}

/// The process that has taken over: what is left of a restart that succeeded. As a descriptor it is the process's pidfd, which becomes
/// readable when the process ends. One that ends before this process stays a zombie until it is waited for or this process ends.
///
/// ```no_run
/// use pollflip::Restarter;
///
/// /// After `Event::Completed`.
/// fn report(restarter: Restarter) {
///     let Some(mut successor) = restarter.into_successor() else { return };
///     match successor.try_wait() {
///         None => println!("process {} serves", successor.pid()),
///         Some(exit) => println!("process {} has ended already: it {exit}", successor.pid()),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Successor {
    process: Arc<Process>,
    exit: Option<Exit>,
}

impl Successor {
    /// `exit`: how it has ended, if that has been seen already. The kernel tells it once.
    pub(super) fn new(process: Arc<Process>, exit: Option<Exit>) -> Successor {
        Successor { process, exit }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> Option<Exit> {
        self.exit = self.exit.or_else(|| self.process.try_wait());
        self.exit
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl AsRawFd for Successor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
