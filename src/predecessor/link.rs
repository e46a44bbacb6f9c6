//! This end of the lifeline to the predecessor, and what has come over it.
//!
//! Knows: the messages between the two. Does not know: what the program does with them. Whoever reads, the loop or a thread that waits,
//! leaves what it found in one inbox.

mod standing;
mod state;

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::handover::Inheritance;
use crate::lifeline::{DYING, Incoming, Lifeline};
use crate::sys::{self, Process};
use crate::wire::{self, Hello, Message, Outcome};

pub(crate) use standing::Standing;
use state::State;

/// How soon a thread looks again for what another one has.
const RETRY: Duration = Duration::from_millis(5);

/// How long the state is waited for beyond its time, if it may have come and cannot be read for a
/// moment.
const UNREAD: Duration = Duration::from_secs(1);

/// This end of the lifeline to the predecessor.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) line: Lifeline,
    /// Which socket the lifeline is: its number may come to mean another one, if the program closes what it does not know.
    identity: Option<(u64, u64)>,
    process: Process,
    /// The same for the descriptor by which the predecessor is held: one that is closed looks to poll as that of a process that has ended.
    process_identity: Option<(u64, u64)>,
    /// It was the parent of this process when this one began. The thread that has started this one may be gone before the others.
    was_parent: bool,
    hello: Hello,
    /// Never held for long, unlike the inbox. Of the two, this one is locked last.
    said: Mutex<Said>,
    inbox: Mutex<Inbox>,
}

/// What this process has said.
#[derive(Debug, Default)]
struct Said {
    ready: bool,
    pull: bool,
    /// The program has the state that it asked for, or it cannot come any more.
    served: bool,
}

/// What has come from the predecessor since its first message.
#[derive(Debug, Default)]
struct Inbox {
    granted: Option<Instant>,
    committed: bool,
    /// It has said so, before it granted anything.
    given_up: bool,
    closed: Option<Instant>,
    /// It was this process that closed it, or another socket has its number.
    strayed: bool,
    /// When somebody last looked.
    looked: Option<Instant>,
    gone: bool,
    /// Its end has begun, and is not over: it may have to give gigabytes back.
    dying: bool,
    state: Option<State>,
}

impl Link {
    pub(super) fn new(line: Lifeline, process: Process, hello: Hello) -> Link {
        let [identity, process_identity] = [line.as_fd(), process.as_fd()].map(|fd| sys::identity(fd.as_raw_fd()));
        let was_parent = process.is_parent();
        Link { line, identity, process, process_identity, was_parent, hello, said: Mutex::default(), inbox: Mutex::default() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.hello.pid
    }

    /// The generation of this process.
    pub(crate) fn generation(&self) -> u32 {
        self.hello.generation
    }

    /// How the last restarts have ended.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.hello.outcomes.clone()
    }

    /// The signal that the predecessor has blocked in this process.
    pub(crate) fn blocked_signal(&self) -> Option<i32> {
        self.hello.signal
    }

    /// The pid file of the predecessor.
    pub(crate) fn pid_file(&self) -> Option<&Path> {
        self.hello.pid_file.as_deref().map(Path::new)
    }

    pub(crate) fn line(&self) -> &Lifeline {
        &self.line
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The predecessor, if it still lives and can be watched.
    pub(crate) fn living(&self) -> Option<&Process> {
        (self.is_the_process() && !self.process.has_ended()).then_some(&self.process)
    }

    /// Tells the predecessor who this is.
    pub(crate) fn introduce(&self) {
        self.say(&Message::Here { version: wire::VERSION, oldest: wire::OLDEST, pid: std::process::id() });
    }

    pub(crate) fn refuse(&self, reason: &str) {
        self.say(&Message::Refuse { reason: wire::line(reason) });
    }

    /// Says that this process can serve, once; `false`: not yet, for the state that it has asked for has not been taken.
    pub(crate) fn say_ready(&self) -> bool {
        let mut said = self.said();
        if said.pull && !said.served {
            return false;
        }
        if !std::mem::replace(&mut said.ready, true) {
            self.say(&Message::Ready);
        }
        true
    }

    /// Without descriptors nothing can fail but what the other side's end explains.
    pub(super) fn say(&self, message: &Message) {
        if !self.is_the_lifeline() {
            return log::warn!("cannot write to the predecessor: this program has closed the lifeline");
        }
        if let Err(error) = self.line.send(message, &[]) {
            log::warn!("cannot write to the predecessor: {error}");
        }
    }

    /// Whether the number is still that of the lifeline: what another socket under it brings is the program's, and nothing is for that one.
    fn is_the_lifeline(&self) -> bool {
        sys::identity(self.line.as_fd().as_raw_fd()) == self.identity
    }

    /// Whether the predecessor can be watched: this program may have closed the descriptor for that.
    fn is_the_process(&self) -> bool {
        sys::identity(self.process.as_fd().as_raw_fd()) == self.process_identity
    }

    /// Sends what has waited, and says whether something still waits.
    fn flush(&self) -> bool {
        if self.line.waiting() > 0 && !self.is_the_lifeline() {
            self.line.give_up();
        }
        self.line.flush()
    }

    /// Reads what has come. `None` while another thread waits for it: that one will wake the loop.
    pub(crate) fn look(&self) -> Option<Standing> {
        self.flush();
        let mut inbox = match self.inbox.try_lock() {
            Ok(inbox) => inbox,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.read(&mut inbox);
        Some(self.standing(&inbox))
    }

    /// Blocks until the service is this process's: granted, or left to it by a predecessor that has ended.
    pub(super) fn wait_until_granted(&self) -> Result<(), Error> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.read(&mut inbox);
            let standing = self.standing(&inbox);
            if standing.gave_up {
                return Err(Error::GivenUp(self.pid()));
            }
            if standing.granted || standing.gone {
                return Ok(());
            }
            self.wait_for_news(&inbox, None);
        }
    }

    /// Waits until the lifeline or the predecessor's end has something to say, or the deadline passes.
    fn wait_for_news(&self, inbox: &Inbox, deadline: Option<Instant>) {
        let unsent = self.flush();
        if self.line.wait_in_shortage(Duration::MAX) {
            return;
        }
        let interest = if unsent { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut fds = Vec::with_capacity(2);
        if self.is_the_process() {
            fds.push(PollFd::new(self.process.as_fd(), PollFlags::POLLIN));
        }
        let mut limit = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if inbox.closed.is_none() {
            fds.push(PollFd::new(self.line.as_fd(), interest));
        } else {
            limit = Some(limit.unwrap_or(DYING).min(DYING));
        }
        let timeout = limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        // Interrupted or failed: the caller looks again.
        let _ = poll(&mut fds, timeout);
    }

    /// Asks for the state, once; `false`: too late, this process has said that it is ready without it.
    pub(super) fn pull(&self) -> bool {
        let mut said = self.said();
        if said.ready && !said.pull {
            return false;
        }
        let first = !std::mem::replace(&mut said.pull, true);
        drop(said);
        if first {
            self.say(&Message::Pull);
        }
        true
    }

    /// Asks for the state and waits for it. Has the inbox from before the question until the state is there, so that the loop does not get it
    /// first.
    pub(super) fn wait_for_state(&self, limit: Duration) -> Result<Inheritance, Error> {
        let deadline = Instant::now().checked_add(limit);
        let mut inbox = self.inbox_until(deadline).ok_or(Error::TimedOut(limit))?;
        if !self.pull() {
            return Err(Error::rule("receive comes too late: this process has said that it is ready"));
        }
        if let Some(State::Come { told: true, .. }) = inbox.state {
            return Err(Error::rule("the state of the predecessor has been received already"));
        }
        loop {
            // What has come by then is in time, although this process may be stopped at any point.
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            self.read(&mut inbox);
            match self.take_inherited(&mut inbox) {
                Some(Ok(inheritance)) => return Ok(inheritance),
                Some(Err(why)) => return Err(Error::rule(format!("the state of the predecessor cannot be used: {why}"))),
                None => {}
            }
            if self.standing(&inbox).gave_up {
                return Err(Error::GivenUp(self.pid()));
            }
            if inbox.gone {
                return Err(Error::Alone(self.pid()));
            }
            if is_over && !self.line.is_short_for_less_than(UNREAD) {
                return Err(Error::TimedOut(limit));
            }
            self.wait_for_news(&inbox, deadline);
        }
    }

    /// The inbox. Another thread has it for as long as that one waits, and lets go of it without a sign.
    fn inbox_until(&self, deadline: Option<Instant>) -> Option<MutexGuard<'_, Inbox>> {
        loop {
            match self.inbox.try_lock() {
                Ok(inbox) => return Some(inbox),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            let left = deadline.map_or(RETRY, |deadline| deadline.saturating_duration_since(Instant::now()).min(RETRY));
            if left.is_zero() {
                return None;
            }
            thread::sleep(left);
        }
    }

    /// The lifeline first: what the predecessor said before it ended counts.
    fn read(&self, inbox: &mut Inbox) {
        // Before the look at the process: how long it has lived on without its lifeline is known up to then, whatever stops this one.
        inbox.looked = Some(sys::now());
        let ended = self.process.has_ended() && self.is_the_process();
        inbox.dying = !ended && inbox.closed.is_some() && self.is_the_process() && self.was_parent && self.process.may_have_begun_to_die();
        // Those are the last that there is to say.
        let is_over = |inbox: &Inbox| inbox.closed.is_some() || (inbox.granted.is_some() && inbox.committed);
        if !is_over(inbox) && !self.is_the_lifeline() {
            (inbox.closed, inbox.strayed) = (Some(sys::now()), true);
            self.line.read_no_more();
        }
        while !is_over(inbox)
            && let Some(incoming) = self.line.receive()
        {
            match incoming {
                Incoming::Message(Message::Granted, _) => {
                    inbox.granted.get_or_insert(sys::now());
                    if let Some(State::Come { collected, .. }) = &inbox.state {
                        collected.close();
                    }
                }
                Incoming::Message(Message::Commit, _) => inbox.committed = true,
                Incoming::Message(Message::GivenUp, _) => inbox.given_up |= inbox.granted.is_none(),
                Incoming::Message(message @ (Message::Items { .. } | Message::End { .. }), descriptors) => {
                    self.take_in(inbox, message, descriptors);
                }
                Incoming::Message(message, _) => log::debug!("the predecessor says what means nothing here: {message:?}"),
                Incoming::Garbage(why) => {
                    log::warn!("the predecessor broke the protocol: {why}");
                    if self.is_coming(inbox) {
                        self.cannot_use(inbox, why);
                    }
                }
                Incoming::Closed => inbox.closed = Some(sys::now()),
            }
        }
        // What it may have said last decides whose the service is.
        inbox.gone |= ended && !self.line.is_short();
        if inbox.gone && !matches!(inbox.state, Some(State::Come { .. })) {
            // What it has not given it will not give.
            self.said().served = true;
        }
        match &inbox.state {
            // The rest will not come, and whoever is at the other end of what has must learn that nobody is here.
            Some(State::Coming(collected)) if inbox.gone || inbox.closed.is_some() => collected.close(),
            // Nobody is left to grant it.
            Some(State::Come { collected, .. }) if inbox.gone && self.said().ready => collected.close(),
            _ => {}
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
