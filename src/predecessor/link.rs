//! This end of the lifeline to the predecessor: what comes over it is fed to the takeover machine, and what that prompts is sent.
//!
//! Knows: the messages between the two, and which of them is which input. Does not know: what follows from an input; that is the
//! machine's. The loop reads the lifeline, or a thread that waits; never both.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::handover::{Arrival, Collected, Inheritance};
use crate::lifeline::{Incoming, Lifeline};
use crate::machine::{Inbound, Line, Prompt, Stage, Takeover, TakeoverInput};
use crate::sys::{self, Origin, OwnOomScore, Process};
use crate::wire::{self, Birth, FileId, Hello, Message, Outcome};

use super::takeover::SharedTakeover;

/// How many items that have come ahead may wait for the program.
const AHEAD_LIMIT: usize = 1024;
/// How soon a thread looks again for what another one has.
const RETRY: Duration = Duration::from_millis(5);

/// This end of the lifeline to the predecessor.
#[derive(Debug)]
pub(crate) struct Link {
    /// The process that has the predecessor. A forked child has a copy of this.
    pub(super) origin: Origin,
    pub(super) line: Lifeline,
    /// Which socket the lifeline is: its number may come to mean another one, if the program closes what it does not know.
    identity: Option<FileId>,
    process: Process,
    /// The same for the descriptor by which the predecessor is held: one that is closed looks to poll as that of a process that has ended.
    process_identity: Option<FileId>,
    /// It was the parent of this process when this one began. The thread that has started this one may be gone before the others.
    was_parent: bool,
    hello: Hello,
    birth: Option<Birth>,
    /// Until the service is this process's.
    score: Mutex<Option<OwnOomScore>>,
    /// The path of the program, if it is the very file that the predecessor executes.
    again: Option<String>,
    takeover: Arc<SharedTakeover>,
    /// Held by the one that reads: for as long as it waits, unlike the machine's lock.
    reader: Mutex<()>,
    /// Locked last.
    received: Mutex<Received>,
}

/// What has come of the state.
#[derive(Debug, Default)]
struct Received {
    collected: Collected,
    /// Why it cannot be used.
    unusable: Option<String>,
    /// The loop tells what comes ahead of it, and has told that this was all.
    tells_arrivals: bool,
    has_told_all: bool,
}

/// What the loop has to tell of what comes ahead.
#[derive(Debug)]
pub(crate) enum Ahead {
    Arrived(Arrival),
    All,
}

impl Link {
    pub(super) fn new(line: Lifeline, process: Process, hello: Hello, birth: Option<Birth>) -> Link {
        let [identity, process_identity] = [line.as_fd(), process.as_fd()].map(|fd| sys::identity(fd.as_raw_fd()));
        let was_parent = process.is_parent();
        let takeover = Takeover::successor(hello.probation_ms.map(Duration::from_millis));
        Link {
            origin: Origin::here(),
            line,
            identity,
            process,
            process_identity,
            was_parent,
            hello,
            score: Mutex::new(birth.as_ref().and_then(|birth| OwnOomScore::open(birth.oom_score_adj?))),
            again: birth.as_ref().and_then(|birth| again(birth.program?)),
            birth,
            takeover: Arc::new(SharedTakeover::new(takeover)),
            reader: Mutex::default(),
            received: Mutex::default(),
        }
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

    pub(crate) fn takeover(&self) -> &Arc<SharedTakeover> {
        &self.takeover
    }

    /// The predecessor, if it still lives and can be watched.
    pub(crate) fn living(&self) -> Option<&Process> {
        (self.is_the_process() && !self.process.has_ended()).then_some(&self.process)
    }

    /// Tells the predecessor who this is.
    pub(crate) fn introduce(&self) {
        let again = self.again.clone();
        self.say(&Message::Here { version: wire::VERSION, oldest: wire::OLDEST, pid: std::process::id(), again });
    }

    /// What the predecessor tells of the start of this process.
    pub(crate) fn birth(&self) -> Option<Birth> {
        self.birth.clone()
    }

    /// The `oom_score_adj` of this process, which its predecessor should have set back by the moment at which this is called.
    pub(crate) fn take_score(&self) -> Option<OwnOomScore> {
        self.score.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The path of the program, if it is the very file that the predecessor executes.
    pub(crate) fn again(&self) -> Option<&str> {
        self.again.as_deref()
    }

    /// Tells the predecessor that this process will not take over.
    pub(crate) fn refuse(&self, reason: &str) {
        self.feed_because(TakeoverInput::SayRefuse, reason);
    }

    /// Tells the predecessor of an error that the program has got, as long as that can be why it ends.
    pub(super) fn tell_trouble(&self, reason: &str) {
        if matches!(self.takeover.stage(), Stage::Starting { line: Line::Open, .. }) && self.line.has_room() {
            self.say(&Message::Trouble { reason: wire::line(reason) });
        }
    }

    /// Says that this process can serve, once; `false`: not yet, for the state that it has asked for has not been taken.
    pub(crate) fn say_ready(&self) -> bool {
        self.takeover.feed_if(Takeover::may_be_ready, TakeoverInput::SayReady, |prompt| self.carry_out(prompt, ""))
    }

    /// Asks for the state, once; `false`: too late, this process has said that it is ready.
    pub(super) fn pull(&self) -> bool {
        let is_early = |takeover: &Takeover| {
            matches!(takeover.stage(), Stage::Starting { .. } | Stage::Alone { ready: false, .. } | Stage::GivenUp { .. })
        };
        self.takeover.feed_if(is_early, TakeoverInput::Pull, |prompt| self.carry_out(prompt, ""))
    }

    /// Asks for what can go ahead of the state, once; `false`: too late, the state has been asked for.
    pub(super) fn pull_precopy(&self) -> bool {
        let is_early = |takeover: &Takeover| match takeover.stage() {
            Stage::Starting { state, .. } => matches!(state, Inbound::NotAsked | Inbound::Precopy | Inbound::Precopied),
            Stage::Alone { ready, .. } => !ready,
            Stage::GivenUp { .. } => true,
            Stage::ReadySent { .. } | Stage::Granted { .. } | Stage::Final { .. } => false,
        };
        self.takeover.feed_if(is_early, TakeoverInput::PullPrecopy, |prompt| self.carry_out(prompt, ""))
    }

    /// From now on the loop tells what comes ahead.
    pub(super) fn tell_arrivals(&self) {
        self.received().tells_arrivals = true;
    }

    fn feed(&self, input: TakeoverInput) {
        self.feed_because(input, "");
    }

    /// The reason is for the predecessor, should it be told one.
    fn feed_because(&self, input: TakeoverInput, reason: &str) {
        self.takeover.feed(self.takeover.now(), input, |prompt| self.carry_out(prompt, reason));
    }

    fn carry_out(&self, prompt: Prompt, reason: &str) {
        match prompt {
            Prompt::SendPrecopyPull => {
                self.received().collected.expect_ahead();
                self.say(&Message::PrecopyPull);
            }
            Prompt::SendPull => {
                self.received().collected.ask();
                self.say(&Message::Pull);
            }
            Prompt::SendReady => self.say(&Message::Ready),
            Prompt::SendRefuse => self.say(&Message::Refuse { reason: wire::line(reason) }),
            Prompt::CloseUntaken => self.received().collected.close(),
            // The predecessor tells it, which the manager still takes for the service.
            Prompt::TellManager => {}
        }
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
    /// Asked at each look, since nothing tells when a program closes a number that it does not know.
    fn is_the_lifeline(&self) -> bool {
        sys::identity(self.line.as_fd().as_raw_fd()) == self.identity
    }

    /// Whether the predecessor can be watched: this program may have closed the descriptor for that. Asked at each look, as with the
    /// lifeline: something else under that number could look like the end of the predecessor.
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

    /// Reads what has come, unless another thread waits for it, which wakes the loop when it is done.
    pub(crate) fn look(&self) {
        self.flush();
        if let Some(_reader) = self.try_reader() {
            self.read();
        }
    }

    /// Whether the predecessor has ended, as far as the machine has it.
    pub(crate) fn has_ended(&self) -> bool {
        self.look();
        match self.takeover.stage() {
            Stage::Final { predecessor_ended } | Stage::GivenUp { predecessor_ended } => predecessor_ended,
            Stage::Alone { .. } => true,
            Stage::Starting { .. } | Stage::ReadySent { .. } | Stage::Granted { .. } => false,
        }
    }

    /// How long until [`Link::look`] is needed although nothing came; `None` while another thread waits.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let _reader = self.try_reader()?;
        self.takeover.next_timeout()
    }

    /// Blocks until the service is this process's: granted, or left to it by a predecessor that has ended.
    pub(super) fn wait_until_granted(&self) -> Result<(), Error> {
        let _reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.read();
            match self.takeover.stage() {
                Stage::GivenUp { .. } => return Err(Error::GivenUp { pid: self.pid() }),
                Stage::Granted { .. } | Stage::Final { .. } | Stage::Alone { .. } => return Ok(()),
                Stage::Starting { .. } | Stage::ReadySent { .. } => self.wait_for_news(None),
            }
        }
    }

    /// Asks for the state and waits for it. Reads from before the question until the state is there, so that the loop does not get it
    /// first.
    pub(super) fn wait_for_state(&self, limit: Duration) -> Result<Inheritance, Error> {
        let deadline = Instant::now().checked_add(limit);
        let _reader = self.reader_until(deadline).ok_or(Error::TimedOut { limit })?;
        self.received().collected.take_as_they_come(false);
        self.read_state(limit, deadline, |_| Ok(()))
    }

    /// The same, and hands each descriptor out as it comes. An error of `each` makes the state unusable.
    pub(super) fn wait_for_each(&self, limit: Duration, each: impl FnMut(Arrival) -> io::Result<()>) -> Result<Inheritance, Error> {
        let deadline = Instant::now().checked_add(limit);
        let _reader = self.reader_until(deadline).ok_or(Error::TimedOut { limit })?;
        self.received().collected.take_as_they_come(true);
        let result = self.read_state(limit, deadline, each);
        self.received().collected.take_as_they_come(false);
        result
    }

    /// The caller is the reader.
    fn read_state(
        &self,
        limit: Duration,
        deadline: Option<Instant>,
        mut each: impl FnMut(Arrival) -> io::Result<()>,
    ) -> Result<Inheritance, Error> {
        if !self.pull() {
            return Err(Error::TooLate("receive comes too late: this process has said that it is ready".into()));
        }
        if let Stage::Starting { state: Inbound::Taken, .. } | Stage::Alone { state: Inbound::Taken, .. } = self.takeover.stage() {
            return Err(Error::TooLate("the state of the predecessor has been received already".into()));
        }
        loop {
            // What has come by then is in time, although this process may be stopped at any point.
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            self.read();
            let arrivals = self.received().collected.take_arrivals();
            if !arrivals.is_empty() {
                // The predecessor gives more meanwhile, and what is here by now is in time.
                let Err(error) = arrivals.into_iter().try_for_each(&mut each) else { continue };
                let is_here = self.takeover.has_state();
                self.cannot_use(error.to_string());
                if is_here {
                    // All of it had come before: that it cannot be used is no news of what comes.
                    self.refuse(&format!("the state cannot be taken over: {error}"));
                }
                return Err(self.unusable_state());
            }
            if let Some(inheritance) = self.take_state() {
                return Ok(inheritance);
            }
            match self.takeover.stage() {
                Stage::Starting { state: Inbound::Unusable, .. } | Stage::Alone { state: Inbound::Unusable, .. } => {
                    return Err(self.unusable_state());
                }
                Stage::GivenUp { .. } => return Err(Error::GivenUp { pid: self.pid() }),
                Stage::Alone { .. } => {
                    let pid = self.pid();
                    log::warn!(target: "pollflip", "the predecessor (process {pid}) has ended before it gave its state, which is lost");
                    return Err(Error::PredecessorGone { pid });
                }
                _ if is_over && !self.line.may_have_unread() => return Err(Error::TimedOut { limit }),
                _ => self.wait_for_news(deadline),
            }
        }
    }

    /// Asks for what can go ahead, and hands it out until all of it is here. Asked again, hands out what has come since. `false`: nothing
    /// has gone ahead.
    pub(super) fn wait_for_precopy(&self, limit: Duration, mut each: impl FnMut(Arrival) -> io::Result<()>) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(limit);
        let _reader = self.reader_until(deadline).ok_or(Error::TimedOut { limit })?;
        if !self.pull_precopy() {
            return Err(Error::TooLate("receive_precopy comes too late: the state has been asked for already".into()));
        }
        loop {
            // What has come by then is in time, although this process may be stopped at any point.
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            self.read();
            let mut is_any = false;
            while let Some(arrival) = self.take_ahead() {
                is_any = true;
                if let Err(error) = each(arrival) {
                    self.cannot_use(error.to_string());
                }
            }
            match self.takeover.stage() {
                Stage::Starting { state: Inbound::Precopied, .. } if !is_any => return Ok(self.received().collected.is_any_ahead()),
                Stage::Starting { state: Inbound::Unusable, .. } | Stage::Alone { state: Inbound::Unusable, .. } => {
                    return Err(self.unusable_state());
                }
                Stage::GivenUp { .. } => return Err(Error::GivenUp { pid: self.pid() }),
                Stage::Alone { .. } => return Err(Error::PredecessorGone { pid: self.pid() }),
                _ if is_any => {}
                _ if is_over && !self.line.may_have_unread() => return Err(Error::TimedOut { limit }),
                _ => self.wait_for_news(deadline),
            }
        }
    }

    /// The next that has come ahead, while that is of use.
    fn take_ahead(&self) -> Option<Arrival> {
        if self.comes_ahead() { self.received().collected.next_ahead() } else { None }
    }

    /// What the loop has to tell next of what comes ahead; nothing while another thread waits for it.
    pub(crate) fn next_arrival(&self) -> Option<Ahead> {
        if !self.comes_ahead() || !self.received().tells_arrivals {
            return None;
        }
        let _reader = self.try_reader()?;
        if let Some(arrival) = self.take_ahead() {
            return Some(Ahead::Arrived(arrival));
        }
        let is_complete = matches!(self.takeover.stage(), Stage::Starting { state: Inbound::Precopied, .. });
        (is_complete && !std::mem::replace(&mut self.received().has_told_all, true)).then_some(Ahead::All)
    }

    /// Whether what comes now comes ahead of the state.
    pub(super) fn comes_ahead(&self) -> bool {
        matches!(self.takeover.stage(), Stage::Starting { state: Inbound::Precopy | Inbound::Precopied, .. })
    }

    /// Whether so much has come ahead and waits to be taken that the rest waits in the kernel: the predecessor goes on when it has room. A
    /// thread that takes it takes each packet before the next.
    fn is_full(&self) -> bool {
        let received = self.received();
        let limit = if received.tells_arrivals { AHEAD_LIMIT } else { 1 };
        let waiting = received.collected.waiting_ahead();
        drop(received);
        waiting >= limit && self.comes_ahead()
    }

    fn unusable_state(&self) -> Error {
        let why = self.received().unusable.clone().unwrap_or_default();
        Error::UnusableState(format!("the state of the predecessor cannot be used: {why}").into())
    }

    /// The state for the loop, when it has come; `None` while another thread waits for it. A process that has it may be ready.
    pub(crate) fn inherited(&self) -> Option<Inheritance> {
        if !self.takeover.has_state() {
            return None;
        }
        let _reader = self.try_reader()?;
        self.take_state()
    }

    /// The state, once.
    fn take_state(&self) -> Option<Inheritance> {
        let taken = self.takeover.feed_if(Takeover::has_state, TakeoverInput::StateTaken, |prompt| self.carry_out(prompt, ""));
        taken.then(|| self.received().collected.finish())
    }

    /// Waits until the lifeline or the predecessor's end has something to say, or the deadline passes.
    fn wait_for_news(&self, deadline: Option<Instant>) {
        let unsent = self.flush();
        if self.line.wait_in_shortage(Duration::MAX) {
            return;
        }
        let interest = if unsent { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut fds = Vec::with_capacity(2);
        if self.is_the_process() {
            fds.push(PollFd::new(self.process.as_fd(), PollFlags::POLLIN));
        }
        if self.reads() {
            fds.push(PollFd::new(self.line.as_fd(), interest));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.into_iter().chain(self.takeover.next_timeout()).min();
        let timeout = limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        // Interrupted or failed: the caller looks again.
        let _ = poll(&mut fds, timeout);
    }

    /// The lifeline first: what the predecessor said before it ended counts. The caller is the reader.
    fn read(&self) {
        // Before the look at the process: how long it has lived on without its lifeline is known up to then, whatever stops this one.
        let now = self.takeover.now();
        let ended = self.process.has_ended() && self.is_the_process();
        if self.reads() && !self.is_the_lifeline() {
            self.line.read_no_more();
            self.feed(TakeoverInput::LineClosed { by_us: true });
        }
        // What is taken as it comes is taken before the next is read: it may not be wanted.
        let mut is_more = false;
        while self.reads()
            && !is_more
            && (ended || !self.is_full())
            && let Some(incoming) = self.line.receive()
        {
            self.hear(incoming);
            is_more = self.received().collected.has_arrivals();
        }
        // What it may have said last decides whose the service is.
        if ended && !is_more && !self.line.is_short() {
            self.feed(TakeoverInput::PredecessorEnded);
        } else if !ended && self.was_parent && self.is_lost() && self.is_the_process() && self.process.may_have_begun_to_die() {
            self.feed(TakeoverInput::PredecessorDying);
        }
        self.takeover.feed(now, TakeoverInput::Timeout, |prompt| self.carry_out(prompt, ""));
    }

    fn hear(&self, incoming: Incoming) {
        match incoming {
            Incoming::Message(Message::Granted, _) => self.feed(TakeoverInput::Granted),
            Incoming::Message(Message::Commit, _) => self.feed(TakeoverInput::Commit),
            Incoming::Message(Message::GivenUp, _) => self.feed(TakeoverInput::GivenUp),
            Incoming::Message(Message::PrecopyComplete { items }, _) if self.comes_ahead() => {
                let result = self.received().collected.ahead_complete(items);
                match result {
                    Ok(()) => self.feed(TakeoverInput::PrecopyComplete),
                    Err(why) => self.cannot_use(why),
                }
            }
            Incoming::Message(message @ (Message::Items { .. } | Message::End { .. }), _) if !self.is_wanted(&message) => {
                log::debug!("the predecessor hands over what was not asked for: {message:?}");
            }
            Incoming::Message(message @ (Message::Items { .. } | Message::End { .. }), descriptors) => {
                let result = self.received().collected.take_in(message, descriptors);
                match result {
                    Ok(false) => {}
                    Ok(true) => self.feed(TakeoverInput::StateComplete),
                    Err(why) => self.cannot_use(why),
                }
            }
            Incoming::Message(message, _) => log::debug!("the predecessor says what means nothing here: {message:?}"),
            Incoming::Garbage(why) => {
                log::warn!("the predecessor broke the protocol: {why}");
                if self.is_coming() {
                    self.cannot_use(why);
                }
            }
            Incoming::Closed => self.feed(TakeoverInput::LineClosed { by_us: false }),
        }
    }

    fn cannot_use(&self, why: String) {
        let reason = format!("the state cannot be taken over: {why}");
        self.received().unusable = Some(why);
        self.feed_because(TakeoverInput::StateUnusable, &reason);
    }

    /// Whether what comes over the lifeline matters.
    fn reads(&self) -> bool {
        match self.takeover.stage() {
            Stage::Starting { line, .. } | Stage::ReadySent { line } | Stage::Granted { line, .. } => line == Line::Open,
            Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => false,
        }
    }

    fn is_lost(&self) -> bool {
        match self.takeover.stage() {
            Stage::Starting { line, .. } | Stage::ReadySent { line } | Stage::Granted { line, .. } => matches!(line, Line::Lost { .. }),
            Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => false,
        }
    }

    /// Whether the state, or what goes ahead of it, has been asked for, and not all of it has come.
    fn is_coming(&self) -> bool {
        matches!(self.takeover.stage(), Stage::Starting { state, .. } if state.is_coming())
    }

    /// Whether such a message is what has been asked for.
    fn is_wanted(&self, message: &Message) -> bool {
        self.is_coming() && !(self.comes_ahead() && matches!(message, Message::End { .. }))
    }

    /// The right to read, if no other thread has it.
    fn try_reader(&self) -> Option<MutexGuard<'_, ()>> {
        match self.reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The right to read. Another thread has it for as long as that one waits, and lets go of it without a sign.
    fn reader_until(&self, deadline: Option<Instant>) -> Option<MutexGuard<'_, ()>> {
        loop {
            if let Some(reader) = self.try_reader() {
                return Some(reader);
            }
            let left = deadline.map_or(RETRY, |deadline| deadline.saturating_duration_since(Instant::now()).min(RETRY));
            if left.is_zero() {
                return None;
            }
            thread::sleep(left);
        }
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of the program of this process, if it is that file.
fn again(program: FileId) -> Option<String> {
    let is_it = sys::own_program() == Some(program);
    is_it.then(|| fs::read_link("/proc/self/exe").ok()).flatten().map(|path| wire::line(&path.to_string_lossy()))
}
