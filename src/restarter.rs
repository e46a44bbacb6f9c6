//! The restarter: the state machine with a mio loop around it.
//!
//! Knows: readiness → [`Input`], [`Action`] → call. Does not know: why the one leads to the other; that is the machine's.

mod attempt;
mod event;
mod outputs;
mod timer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use nix::sys::signal::{SigSet, Signal};
use signal_hook_mio::v1_0::Signals;

use crate::config::RestartConfig;
use crate::error::{ChildSpawnError, Error, Failure, Refusal};
use crate::exec::{Exec, Job};
use crate::lifeline::Lifeline;
use crate::machine::{Action, Cause, Closed, Input, KILL_TIMEOUT, Limits, Machine, Notice, Output, Phase, Reply, State, Ticket};
use crate::predecessor::{Claim, Link, Predecessor, opened, startup_complete};
use crate::restart_coordination_socket::{Asked, Server, Status};
use crate::sockets::Sockets;
use crate::sys::{self, Process};
use crate::systemd::{self, Barrier};
use crate::wire::{self, Given, Hello, MAX_DESCRIPTORS, Message, Response};

use attempt::{Current, Said};
pub use event::{Event, Successor};
use timer::Timer;

/// How many events the inner poll takes at a time.
const CAPACITY: usize = 64;
/// How many turns one call of `poll` may take: a flood from outside must not hold the caller's loop up.
const TURNS: usize = 16;

const WAKER: Token = Token(0);
const TIMER: Token = Token(1);
const SIGNALS: Token = Token(2);
const COORDINATION: Token = Token(3);
const LIFELINE: Token = Token(4);
const SUCCESSOR: Token = Token(5);
const PREDECESSOR: Token = Token(6);
const BARRIER: Token = Token(7);
const FIRST_CLIENT: usize = 8;

/// Restarts this process, and knows the one that it was started by.
///
/// One object that fits into any loop: register it in a `mio::Poll` (it is a [`Source`]), watch its descriptor with anything else (it
/// is [`AsFd`]), or call [`poll`](Restarter::poll) once a tick. The descriptor becomes readable when there is something to do, deadlines
/// included; then call `poll` until it returns `None`.
///
/// There can be one at a time in a process. **Dropping** it gives up what is under way: a successor that is not ready yet is killed, one
/// on probation gets the service for good. The restart signal does nothing afterwards.
pub struct Restarter {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    timer: Timer,
    epoch: Instant,
    machine: Machine,
    limits: Limits,
    program: std::path::PathBuf,
    exec: Exec,
    signals: Option<Signals>,
    signal: Option<Signal>,
    server: Option<Server>,
    /// Clients that were answered and may have asked again already.
    again: Vec<Token>,
    sockets: Sockets,
    /// The successor under way, or the one that has taken over.
    current: Option<Current>,
    askers: BTreeMap<Ticket, Asker>,
    tickets: u64,
    /// What the predecessor had to say, for the program.
    told: VecDeque<Event>,
    link: Option<Arc<Link>>,
    heard: Heard,
    barrier: Option<(Barrier, Duration)>,
    last_failure: Option<String>,
    claim: Claim,
}

/// Who waits for the outcome of an attempt.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Program,
    Signal,
    Client,
}

/// What has been heard from the predecessor, so that each is told once.
#[derive(Debug, Default)]
struct Heard {
    opened: bool,
    granted: bool,
    gave_up: bool,
    gone: bool,
}

/// What a turn of the loop has found.
#[derive(Debug, Default)]
struct News {
    any: bool,
    signals: bool,
    accept: bool,
    clients: Vec<Token>,
}

impl RestartConfig {
    /// Makes the restarter: adopts the lifeline if this process is a successor, installs the signal's handler, binds the coordination
    /// socket and starts the restart thread. Drop privileges after this, not before.
    ///
    /// A successor should do its slow initialisation after this call, not before, and tell how far it is: see [`Predecessor`].
    ///
    /// # Errors
    ///
    /// Another restarter lives in this process; the configuration makes no sense; the coordination socket cannot be bound; a descriptor
    /// or the thread cannot be had. A predecessor is told why.
    pub fn build(&self) -> Result<Restarter, Error> {
        let claim = Claim::new()?;
        let signal = self.checked_signal()?;
        // Read before the restart signal is unblocked: a successor is born with the same mask, plus that signal.
        let (link, gifts) = claim.adopt_lifeline()?;
        let inherited = link.as_ref().and_then(|link| link.blocked_signal());
        let result = self.build_as(claim, link.clone(), gifts, signal, inherited.and_then(|number| Signal::try_from(number).ok()));
        if let (Err(error), Some(link)) = (&result, &link) {
            link.refuse(&error.to_string());
        }
        result
    }

    fn build_as(
        &self,
        claim: Claim,
        link: Option<Arc<Link>>,
        gifts: crate::predecessor::Gifts,
        signal: Option<Signal>,
        inherited: Option<Signal>,
    ) -> Result<Restarter, Error> {
        let poll = Poll::new().map_err(Error::os("cannot make an epoll"))?;
        let registry = poll.registry();
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(Error::os("cannot make a waker"))?);
        let timer = Timer::new().map_err(Error::os("cannot make a timer"))?;
        watch(registry, timer.as_fd(), TIMER)?;

        let mut launch = self.launch()?;
        let handled: Vec<Signal> = signal.into_iter().chain(inherited).collect();
        let signals = self.handle_signals(registry, &handled)?;
        for signal in &handled {
            // Blocked by the predecessor, not by the program: not to be handed down.
            launch.mask.remove(*signal);
        }
        let server = match self.absolute_socket()? {
            Some(path) => {
                let listener = gifts.coordination.filter(|(given, _)| *given == path).map(|(_, listener)| listener);
                let server = Server::new(&path, listener, FIRST_CLIENT);
                Some(server.map_err(Error::os(format!("cannot bind the coordination socket {}", path.display())))?)
            }
            None => None,
        };
        let program = launch.program.clone();
        let exec = Exec::start(launch, signal, waker.clone()).map_err(Error::os("cannot start the restart thread"))?;
        unblock(&handled)?;
        if let Some(link) = &link {
            watch(registry, link.line().as_fd(), PREDECESSOR)?;
            watch(registry, link.process().as_fd(), PREDECESSOR)?;
        }
        claim.built(waker.clone());
        let sockets = Sockets::new(gifts.sockets, systemd::passed(link.is_some()));
        let limits = Limits { ready: self.ready_timeout, probation: self.probation };
        Ok(Restarter {
            events: Events::with_capacity(CAPACITY),
            waker,
            timer,
            epoch: Instant::now(),
            machine: Machine::new(limits),
            limits,
            program,
            exec,
            signals,
            signal,
            server,
            again: Vec::new(),
            sockets,
            current: None,
            askers: BTreeMap::new(),
            tickets: 0,
            told: VecDeque::new(),
            link,
            heard: Heard::default(),
            barrier: None,
            last_failure: None,
            claim,
            poll,
        })
    }

    fn handle_signals(&self, registry: &Registry, handled: &[Signal]) -> Result<Option<Signals>, Error> {
        if handled.is_empty() {
            return Ok(None);
        }
        let numbers: Vec<i32> = handled.iter().map(|signal| *signal as i32).collect();
        let mut signals = Signals::new(&numbers).map_err(Error::os("cannot install the handler of the restart signal"))?;
        registry.register(&mut signals, SIGNALS, Interest::READABLE).map_err(Error::os("cannot watch the restart signal"))?;
        Ok(Some(signals))
    }
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
    /// were inherited and not asked for are closed. Once is enough, more often is harmless.
    ///
    /// Blocks until the predecessor has answered, which takes it one turn of its loop. Until then it serves.
    ///
    /// # Errors
    ///
    /// The predecessor lives and has given this process up; it serves on, and this process should end.
    pub fn ready(&mut self) -> Result<(), Error> {
        startup_complete()?;
        self.look_at_predecessor();
        Ok(())
    }

    /// The next event. Does what there is to do, and never blocks; call it until it returns `None`.
    ///
    /// What a restart consists of is done here, in order, and each event is returned before what follows it is done.
    pub fn poll(&mut self) -> Option<Event> {
        for _ in 0..TURNS {
            if let Some(event) = self.next_event() {
                return Some(event);
            }
            if !self.turn(Duration::ZERO) {
                return None;
            }
        }
        // More is there, but others have waited long enough. An edge-triggered outer poll needs a new edge.
        self.wake();
        None
    }

    /// The next event, waiting at most so long for it: for programs that have a thread to spare, and for tests.
    pub fn wait(&mut self, limit: Duration) -> Option<Event> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            if let Some(event) = self.poll() {
                return Some(event);
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            self.turn(left);
        }
    }

    /// Asks for a restart, as a signal or a client of the coordination socket does. The outcome comes as an event.
    ///
    /// # Errors
    ///
    /// No restart can be begun now; nothing has changed.
    pub fn request(&mut self) -> Result<(), Refusal> {
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
    pub fn cancel(&mut self) -> bool {
        let early = matches!(self.machine.state(), State::Spawning { .. } | State::AwaitingReady { .. });
        self.feed(Input::Cancel);
        self.wake();
        early
    }

    /// Rules restarts out, since this process is ending: one under way is called off, and one on probation becomes final. systemd is told.
    /// The process goes on serving until it ends by itself.
    pub fn stop(&mut self) {
        self.feed(Input::Stop);
        systemd::stopping();
        self.wake();
    }

    /// Where the restarter stands.
    pub fn status(&self) -> Status {
        let (state, successor) = match self.machine.state() {
            State::Closed(Closed::NotReady) => ("not ready", None),
            State::Closed(Closed::OnProbation) => ("on probation", None),
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
        if let Some(Refusal::UnderWay { since }) = self.machine.refusal(self.now()) {
            status.under_way_ms = Some(since.as_millis() as u64);
            status.progress = self.current.as_ref().and_then(|current| current.words.progress.clone());
        }
        status.last_failure = self.last_failure.clone();
        status
    }

    /// The process that has taken over, once [`Event::Completed`] has come; to watch it, or to hold its end off this process's.
    pub fn into_successor(mut self) -> Option<Successor> {
        match self.machine.state() {
            State::Handoff { phase: Phase::Committed, .. } => self.current.take()?.process.take().map(Successor),
            _ => None,
        }
    }
}

/// The loop.
impl Restarter {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("cannot wake the loop: {error}");
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.now();
        log::trace!("{input:?} in {:?}", self.machine.state());
        self.machine.handle(now, input);
    }

    /// Takes in what the inner poll has, and deals with it in a fixed order: what the restart thread, signals and clients bring, then the
    /// successor (its lifeline, its end), then the predecessor, then the clock. `false`: there was nothing.
    fn turn(&mut self, limit: Duration) -> bool {
        let news = self.collect(limit);
        if !news.any {
            return false;
        }
        self.look_at_thread();
        self.look_at_successor();
        self.look_at_predecessor();
        if news.signals {
            self.look_at_signals();
        }
        self.look_at_clients(&news);
        self.feed(Input::Timeout);
        self.rearm();
        true
    }

    /// Drains the inner poll: an outer edge-triggered one does not fire again for what is left in it.
    fn collect(&mut self, limit: Duration) -> News {
        let mut news = News::default();
        let mut limit = Some(limit);
        loop {
            match self.poll.poll(&mut self.events, limit) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("cannot poll: {error}");
                    return news;
                }
            }
            let mut count = 0;
            for event in &self.events {
                count += 1;
                news.any = true;
                match event.token() {
                    TIMER => self.timer.fired(),
                    SIGNALS => news.signals = true,
                    COORDINATION => news.accept = true,
                    WAKER | LIFELINE | SUCCESSOR | PREDECESSOR | BARRIER => {}
                    client => news.clients.push(client),
                }
            }
            if count < CAPACITY {
                return news;
            }
            limit = Some(Duration::ZERO);
        }
    }

    fn look_at_thread(&mut self) {
        while let Some((attempt, result)) = self.exec.take() {
            let Some(current) = self.current.as_mut().filter(|current| current.attempt == attempt) else { continue };
            let input = match result {
                Ok(process) => {
                    let pid = process.pid();
                    let watched = watch(self.poll.registry(), process.as_fd(), SUCCESSOR)
                        .and_then(|()| watch(self.poll.registry(), current.lifeline.as_fd(), LIFELINE));
                    if let Err(error) = watched {
                        log::error!("cannot watch the successor: {error}");
                        process.kill();
                    }
                    current.process = Some(process);
                    Input::Spawned(attempt, pid)
                }
                Err(error) => {
                    current.words.spawn = Some(error);
                    Input::SpawnFailed(attempt)
                }
            };
            self.feed(input);
        }
        if self.exec.is_lost() {
            self.feed(Input::ThreadLost);
        }
    }

    fn look_at_successor(&mut self) {
        let now = self.now();
        let Some(current) = &mut self.current else { return };
        let (said, more) = current.read(now);
        for said in said {
            match said {
                Said::Input(input) => self.feed(input),
                Said::Progress(text) => self.progress(text),
            }
        }
        if more {
            self.wake();
        }
    }

    fn progress(&mut self, text: String) {
        if let (Some(current), State::AwaitingReady { .. }) = (&mut self.current, self.machine.state()) {
            let attempt = current.attempt;
            if let Some(server) = &mut self.server {
                server.progress(&text);
            }
            systemd::progress(&text);
            current.words.progress = Some(text);
            self.feed(Input::Progress(attempt));
        }
    }

    fn look_at_predecessor(&mut self) {
        let standing = match &self.link {
            None => None,
            Some(link) => match link.look() {
                // Another thread waits for it, and wakes this loop when it is done.
                None => return,
                Some(standing) => Some((standing, link.pid())),
            },
        };
        if let Some((standing, pid)) = standing {
            if standing.granted && !std::mem::replace(&mut self.heard.granted, true) {
                self.told.push_back(Event::Granted);
            }
            if standing.said_ready && (standing.granted || standing.gone) && !self.claim.is_ready() {
                opened();
            }
            if standing.gave_up && !std::mem::replace(&mut self.heard.gave_up, true) {
                self.told.push_back(Event::Broken(Error::GivenUp(pid)));
            }
        }
        if self.claim.is_ready() && !std::mem::replace(&mut self.heard.opened, true) {
            self.sockets.close_unclaimed();
            self.feed(Input::Opened { on_probation: standing.is_some_and(|(standing, _)| !standing.gone || standing.committed) });
        }
        if let Some((standing, _)) = standing {
            if standing.committed {
                self.feed(Input::Committed);
            }
            if standing.gone {
                self.feed(Input::PredecessorGone);
                if !std::mem::replace(&mut self.heard.gone, true) {
                    self.told.push_back(Event::PredecessorGone);
                }
            }
        }
        self.open_server();
    }

    /// As long as the predecessor can take the service back, only that one takes requests in.
    fn open_server(&mut self) {
        if let (State::Idle, Some(server)) = (self.machine.state(), &mut self.server)
            && let Err(error) = server.open(self.poll.registry(), COORDINATION)
        {
            log::error!("cannot watch the coordination socket {}: {error}", server.path().display());
        }
    }

    fn look_at_signals(&mut self) {
        let pending: Vec<i32> = self.signals.iter_mut().flat_map(|signals| signals.pending().collect::<Vec<_>>()).collect();
        for number in pending {
            if self.signal.is_some_and(|signal| signal as i32 == number) {
                self.ask(Asker::Signal);
            } else {
                log::warn!("signal {number} restarted the predecessor, and does nothing in this process");
            }
        }
    }

    fn look_at_clients(&mut self, news: &News) {
        let now = self.now();
        let Some(server) = &mut self.server else { return };
        let accept = server.expire(now) || news.accept;
        if accept && server.accept(self.poll.registry(), now) {
            self.wake();
        }
        // One request of each client in a turn, so that none of them keeps the others waiting.
        let again = std::mem::take(&mut self.again);
        for token in again.into_iter().chain(news.clients.iter().copied()) {
            match self.server.as_mut().and_then(|server| server.client(token, now)) {
                Some(Asked::Restart(key)) => {
                    let ticket = self.ask(Asker::Client);
                    if let Some(server) = &mut self.server {
                        server.wait_for(key, ticket);
                    }
                }
                Some(Asked::Status(key)) => {
                    let status = self.status();
                    self.answer(key, Response::Status(status));
                }
                None => {}
            }
        }
    }

    /// Answers a client; what it wants next is looked at in the next turn.
    fn answer(&mut self, key: usize, response: Response) {
        let now = self.now();
        if let Some(server) = &mut self.server
            && let Some(token) = server.answer(key, response, now)
        {
            self.again.push(token);
            self.wake();
        }
    }

    /// Issues a ticket and puts the question to the machine.
    fn ask(&mut self, asker: Asker) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.askers.insert(ticket, asker);
        self.feed(Input::Request(ticket));
        ticket
    }

    fn rearm(&mut self) {
        let now = self.now();
        let deadlines = [
            self.machine.poll_timeout(),
            self.current.as_ref().and_then(|current| current.next_timeout(now)),
            self.server.as_ref().and_then(Server::next_timeout),
            self.link.as_ref().and_then(|link| link.next_timeout()).map(|left| now + left),
            self.barrier.as_ref().map(|(_, limit)| *limit),
        ];
        self.timer.arm(deadlines.into_iter().flatten().min(), now);
    }
}

/// Has the inner poll watch a descriptor.
fn watch(registry: &Registry, fd: BorrowedFd<'_>, token: Token) -> Result<(), Error> {
    let interest = if token == LIFELINE || token == PREDECESSOR { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    SourceFd(&fd.as_raw_fd()).register(registry, token, interest).map_err(Error::os("cannot watch a descriptor"))
}

fn unwatch(registry: &Registry, fd: BorrowedFd<'_>) {
    // It may never have been watched.
    let _ = SourceFd(&fd.as_raw_fd()).deregister(registry);
}

/// The signals that the predecessor has blocked in this process, in this thread; the restart thread has done so for itself.
fn unblock(signals: &[Signal]) -> Result<(), Error> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_unblock().map_err(|error| Error::os("cannot unblock the restart signal")(error.into()))
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
