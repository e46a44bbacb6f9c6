//! The loop of a guard: signals, notifications and ends of processes become facts.
//!
//! Knows: what the system has to tell, and in which order it is told. Does not know: what comes of
//! it; that is the machine's. What the machine wants done is carried out in [`deeds`].

mod deeds;

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::error::{Error, Exit};
use crate::machine::supervision::{Fact, Rules, Stage, Supervision};
use crate::notify::{MAX_MESSAGE, Message, Wish};
use crate::sys::{self, Datagram, OomKills, Process, SignalQueue};
use crate::wire::KillCounter;

use super::command::Command;
use super::generations::Generations;
use super::inbox::{Inbox, Next};
use super::manager::{Manager, RETRY};
use super::store::{Refused, Store};
use super::strays::Strays;
use super::{Ended, family, watched_signals};

const SIGNALS: Token = Token(0);
const NOTIFICATIONS: Token = Token(1);
const PROCESSES: Token = Token(2);
const STORE: Token = Token(3);
/// So many messages, and so many signals, are taken in before anything else is looked at.
const TURN: usize = 64;
/// The sender of a message, the process that it names, and a look into `/proc`.
const SPARES: usize = 3;
/// How long a loop rests that cannot wait.
const REST: Duration = Duration::from_millis(10);
/// How many descriptors a service can store, if nothing else is said.
pub(super) const STORE_SIZE: usize = 512;
/// So many descriptors this process needs besides.
const OTHERS: usize = 64;
/// A terminal has sent a signal, and not a process.
const BY_KERNEL: i32 = 0x80;

#[derive(Debug)]
pub(super) struct Driver {
    command: Command,
    machine: Supervision,
    manager: Manager,
    store: Store,
    /// Whether the store is watched for what has hung up.
    watches_store: bool,
    /// Counts what the kernel has ended for memory since there is this main process.
    oom_kills: Option<OomKills>,
    /// Where that is counted, as long as the guard is in the same control group.
    kill_counter: Option<KillCounter>,
    poll: Poll,
    signals: SignalQueue,
    inbox: Inbox,
    generations: Generations,
    strays: Strays,
    epoch: Instant,
    own_group: bool,
    /// There may be more to hear.
    unheard: bool,
    /// What spares are copies of: to open it each time is slow.
    null: Option<File>,
    /// Their places are for what a turn needs, should there be no others.
    spares: Vec<File>,
    /// Why the last start has failed.
    failure: Option<io::Error>,
}

impl Driver {
    /// `size`: how many descriptors the service can store, if something was said of that.
    pub(super) fn new(mut command: Command, rules: Rules, size: Option<usize>) -> Result<Driver, Error> {
        let machine = Supervision::new(rules);
        let size = if machine.keeps() { store_size(size)? } else { 0 };
        if size > 0 {
            command.set_store_size(size)?;
        }
        let poll = Poll::new().map_err(Error::os("cannot make an epoll"))?;
        let signals = SignalQueue::new(&watched_signals()).map_err(Error::os("cannot make a signalfd"))?;
        let (inbox, address) = Inbox::new()?;
        command.set_notify_socket(&address)?;
        let watch = |fd: i32, token| poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
        watch(signals.as_fd().as_raw_fd(), SIGNALS).map_err(Error::os("cannot watch signals"))?;
        watch(inbox.as_fd().as_raw_fd(), NOTIFICATIONS).map_err(Error::os("cannot watch notifications"))?;
        Ok(Driver {
            store: Store::new(size, command.room_for_names()),
            watches_store: false,
            oom_kills: None,
            kill_counter: sys::kill_counter(),
            command,
            machine,
            manager: Manager::new(),
            poll,
            signals,
            inbox,
            generations: Generations::new(PROCESSES),
            strays: Strays::new()?,
            epoch: Instant::now(),
            own_group: !is_in_foreground(),
            unheard: false,
            null: None,
            spares: Vec::with_capacity(SPARES),
            failure: None,
        })
    }

    /// Until no generation is left.
    pub(super) fn run(mut self) -> Result<Ended, Error> {
        let mut events = Events::with_capacity(16);
        self.reserve();
        self.carry_out();
        loop {
            if self.machine.stage() == Stage::Over {
                let failure = self.failure.take().unwrap_or_else(|| io::ErrorKind::Other.into());
                let step = format!("cannot start {}", self.command.name().display());
                let exit = self.machine.status().ok_or_else(|| Error::os(step)(failure))?;
                return Ok(Ended { exit, was_told: self.machine.is_told() });
            }
            let manager_waits = self.manager.flush();
            let timeout = if self.unheard {
                Some(Duration::ZERO)
            } else {
                let due = self.machine.poll_timeout().map(|deadline| deadline.saturating_sub(self.now()));
                let retry = manager_waits.then_some(RETRY);
                [due, retry].into_iter().flatten().min()
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // It is not known for what the kernel has no room. What has happened is looked at
                // all the same.
                thread::sleep(REST);
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.spares.clear();
        self.hear(TURN);
        self.take_signals();
        self.reap();
        self.look_at_others();
        self.let_hung_up_go();
        if !self.machine.awaits_strays() {
            self.strays.leave_alone();
        }
        self.strays.signal(&self.generations);
        // Each may leave strays behind, whose end is a turn of its own.
        if self.machine.awaits_strays() && self.strays.all(&self.generations).is_ok_and(|strays| strays.is_empty()) {
            self.feed(Fact::Alone);
        }
        self.feed(Fact::Timeout);
        self.reserve();
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn feed(&mut self, fact: Fact) {
        self.machine.handle(self.now(), fact);
        self.carry_out();
    }

    // --- what comes in ---

    /// Takes messages in, so many at the most.
    fn hear(&mut self, most: usize) {
        let mut buffer = [0; MAX_MESSAGE + 1];
        for _ in 0..most {
            match self.inbox.next(&mut buffer, |sender| self.generations.knows(sender)) {
                Next::Message(mut datagram) => {
                    let length = datagram.length.min(buffer.len());
                    self.heard(&mut datagram, &buffer[..length]);
                    sys::close_aside(mem::take(&mut datagram.descriptors));
                }
                Next::LeftOut => {}
                Next::Nothing => {
                    self.unheard = false;
                    return;
                }
            }
        }
        self.unheard = true;
    }

    fn heard(&mut self, datagram: &mut Datagram, bytes: &[u8]) {
        if !self.generations.is_its_own(datagram) {
            return self.inbox.leave_out_stranger(datagram.sender);
        }
        let message = if datagram.truncated { None } else { Message::new(bytes) };
        let Some(message) = message else {
            return self.inbox.leave_out(datagram.sender, "it is no text, or too long");
        };
        let mut notification = message.notification();
        notification.main = notification.main.filter(|pid| self.is_main_or_may_be(datagram.sender, *pid));
        notification.has_heard = notification.main.is_some_and(|pid| self.strays.was_told(pid));
        let concerns = self.machine.listens_to(datagram.sender);
        self.feed(Fact::Notified(datagram.sender, notification));
        // What has not become the service, since it is being killed, is a stray as before.
        if let Some(pid) = notification.main
            && self.machine.main() != Some(pid)
            && !self.machine.earlier().contains(&pid)
        {
            self.generations.forget(self.poll.registry(), pid);
        }
        if let Some(wish) = message.wish().filter(|_| concerns) {
            self.grant(wish, datagram);
        }
        if concerns {
            let stopping = notification.stopping && self.machine.ends_with_main();
            self.manager.pass_on(&message, stopping);
        }
    }

    /// Does what the service wants of the store.
    fn grant(&mut self, wish: Wish<'_>, datagram: &mut Datagram) {
        match wish {
            Wish::Remove { name } => {
                let count = self.store.remove(name);
                log::debug!("process {} has {count} of name {name:?} removed from the store", datagram.sender);
            }
            Wish::Store { name, watched } => {
                if !self.machine.keeps() && !datagram.descriptors.is_empty() {
                    return self.inbox.leave_out(datagram.sender, "it stores something, and the service is not started again");
                }
                if datagram.lacks_descriptors || !self.has_room_besides() {
                    let why = format!("this guard has no room for what it stores as {name:?}: raise RLIMIT_NOFILE");
                    return self.inbox.leave_out(datagram.sender, &why);
                }
                for descriptor in mem::take(&mut datagram.descriptors) {
                    let Err((why, descriptor)) = self.store.put(name, descriptor, watched) else { continue };
                    datagram.descriptors.push(descriptor);
                    let why = match why {
                        Refused::Full => format!("the store has {} descriptors, and no more may be (--store)", self.store.size()),
                        Refused::NamesTooLong => {
                            "no program could be given the names of all that is stored: store under shorter names, or less".into()
                        }
                        Refused::NoMemory => "there is no memory for it".into(),
                        Refused::Unwatchable(error) => format!("what it stores cannot be watched: {error}"),
                    };
                    self.inbox.leave_out(datagram.sender, &format!("descriptor {name:?}: {why}"));
                }
                self.watch_store();
            }
        }
    }

    fn watch_store(&mut self) {
        if let Some(hang_ups) = self.store.hang_ups().filter(|_| !self.watches_store) {
            let watched = self.poll.registry().register(&mut SourceFd(&hang_ups.as_raw_fd()), STORE, Interest::READABLE);
            // It is tried again with the next one, and what has hung up is seen in any turn.
            self.watches_store = watched.is_ok();
        }
    }

    fn let_hung_up_go(&mut self) {
        let count = self.store.remove_hung_up();
        if count > 0 {
            log::debug!("{count} descriptors of the store have hung up, and are closed");
        }
    }

    fn empty_store(&mut self) {
        if !self.store.is_empty() {
            log::info!("{} stored descriptors are closed: the service is not started again", self.store.len());
        }
        // With it goes what watches.
        self.store.clear();
        self.watches_store = false;
    }

    /// Whether that process can be the main one, which is watched from now on if it is another.
    fn is_main_or_may_be(&mut self, from: u32, pid: u32) -> bool {
        if self.generations.find(pid).is_some() {
            return true;
        }
        if !self.machine.listens_to(from) {
            return false;
        }
        let watched = Process::open(pid).and_then(|process| {
            // Looked at after it was opened: if it is one of ours by then, it is the one that was
            // opened.
            if self.generations.has_descendant(pid) {
                self.generations.watch(self.poll.registry(), process)
            } else {
                Err(io::Error::other("that is no descendant"))
            }
        });
        watched.inspect_err(|error| self.inbox.leave_out(from, &format!("it names {pid} the main process, and {error}"))).is_ok()
    }

    /// Whether there is room for a new main process beside what is open now: what is stored must not
    /// take that.
    fn has_room_besides(&mut self) -> bool {
        self.reserve();
        let has_room = self.spares.len() == SPARES;
        self.spares.clear();
        has_room
    }

    /// Without a descriptor for it, a new main process would not be known, and the end of the one
    /// before would be taken for that of the service.
    fn reserve(&mut self) {
        if self.null.is_none() {
            self.null = File::open("/dev/null").ok();
        }
        while self.spares.len() < SPARES
            && let Some(Ok(file)) = self.null.as_ref().map(File::try_clone)
        {
            self.spares.push(file);
        }
    }

    /// Takes signals in, so many at the most: some are kept in a queue, and the sender of those can
    /// send without end.
    fn take_signals(&mut self) {
        for _ in 0..TURN {
            let Ok(Some((signal, code))) = self.signals.next() else { return };
            let by_terminal = code == BY_KERNEL && self.shares_group();
            match signal {
                libc::SIGCHLD => {}
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => {
                    self.strays.set_told(if by_terminal { family::told_by_terminal(signal) } else { Vec::new() });
                    self.feed(Fact::Told { signal, heard: by_terminal });
                }
                libc::SIGWINCH if by_terminal => {}
                _ => self.feed(Fact::Signalled(signal)),
            }
        }
        self.unheard = true;
    }

    /// Whether a terminal that signals the foreground reaches the service as it does the guard.
    fn shares_group(&self) -> bool {
        match self.machine.main() {
            Some(main) => getpgid(Some(Pid::from_raw(main as i32))) == Ok(getpgrp()),
            None => !self.own_group,
        }
    }

    /// Each child that has ended, orphans too. What it has said before comes first.
    fn reap(&mut self) {
        while let Some(pid) = sys::ended_child() {
            self.hear(self.inbox.length());
            let exit = sys::reap(pid);
            self.strays.reaped(pid);
            self.has_ended(pid, exit);
        }
    }

    /// Generations that are no children of this process: their predecessor lives.
    fn look_at_others(&mut self) {
        while let Some(pid) = self.generations.ended_elsewhere() {
            self.hear(self.inbox.length());
            let Some(process) = self.generations.find(pid) else { continue };
            let exit = sys::exit_of_another(process);
            self.has_ended(pid, exit);
        }
    }

    fn has_ended(&mut self, pid: u32, exit: Exit) {
        if self.generations.find(pid).is_none() {
            return;
        }
        let by_kernel = exit == Exit::Signal(libc::SIGKILL) && self.oom_kills.as_ref().is_some_and(OomKills::has_risen);
        let exit = if by_kernel && self.machine.main() == Some(pid) { Exit::OutOfMemory } else { exit };
        match self.machine.cause(pid, exit) {
            Exit::Unknown => log::warn!(
                "process {pid} has ended, and how is not known: its predecessor has reaped it, and before Linux 6.15 the kernel tells \
                 nobody else; that counts as a failure. A service should reap no child that it has not started itself, and not ignore \
                 SIGCHLD"
            ),
            exit => log::info!("process {pid} {exit}"),
        }
        self.generations.forget(self.poll.registry(), pid);
        self.feed(Fact::Ended(pid, exit));
    }
}

/// How many descriptors can be stored: as many as are wanted, or as this process may have.
fn store_size(wanted: Option<usize>) -> Result<usize, Error> {
    // While the service is started, it has each of them twice.
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let possible = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(OTHERS) / 2;
    match wanted {
        Some(wanted) if wanted > possible => Err(Error::setting(format!(
            "a store of {wanted} descriptors needs more than the {limit} that this process may have: raise that (ulimit -n, LimitNOFILE=) to {}",
            wanted.saturating_mul(2).saturating_add(OTHERS)
        ))),
        wanted => Ok(wanted.unwrap_or(STORE_SIZE).min(possible)),
    }
}

/// Whether the terminal of this process, if it has one, signals the group of this process. In a
/// group that is in the background, others do: who starts several programs, and ends them.
fn is_in_foreground() -> bool {
    let terminal = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/tty");
    terminal.is_ok_and(|terminal| sys::foreground_of(&terminal) == getpgrp().as_raw())
}
