//! The loop of a guard: signals, notifications and ends of processes become facts, and deeds are
//! carried out.
//!
//! Knows: what the system has to tell, and in which order it is told. Does not know: what comes of
//! it; that is the machine's.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{SockType, setsockopt, sockopt};
use nix::unistd::{Pid, getpgid, getpgrp};
use std::os::fd::OwnedFd;

use crate::error::{Error, Exit};
use crate::machine::supervision::{Deed, Fact, Remark, Rules, Stage, Supervision};
use crate::notify::{MAX_MESSAGE, Message, Wish};
use crate::sys::{self, Datagram, OomKills, Process, ProcessKey, SignalQueue};

use super::command::Command;
use super::manager::{Manager, RETRY};
use super::store::{Refused, Store};
use super::{Ended, family, watched_signals};

const SIGNALS: Token = Token(0);
const NOTIFICATIONS: Token = Token(1);
const PROCESSES: Token = Token(2);
const STORE: Token = Token(3);
/// So many messages, and so many signals, are taken in before anything else is looked at.
const TURN: usize = 64;
/// More messages than a queue holds, where the kernel does not say how many that are.
const QUEUE: usize = 4096;
/// So many messages that are left out are told of.
const TOLD_OF: u32 = 10;
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
    poll: Poll,
    signals: SignalQueue,
    socket: OwnedFd,
    /// So many messages are taken in before the end of a process is: all that were said before, and
    /// no flood keeps the guard from that.
    queue: usize,
    /// The main process, and earlier ones that live.
    watched: Vec<Process>,
    /// Children that this process had before it became a guard: a script has started them, and then
    /// executed this.
    others: Vec<u32>,
    /// What strays were sent, and who of them was: an end can leave more of them.
    stray_signal: Option<i32>,
    signalled: Vec<ProcessKey>,
    /// Who was told to end, besides those who are or were the main process then.
    told: Vec<ProcessKey>,
    epoch: Instant,
    own_group: bool,
    /// The last of this family, no generation, that has said something.
    last_known: Option<ProcessKey>,
    /// So many messages meant nothing.
    left_out: u32,
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
        let (socket, address) = notify_socket().map_err(Error::os("cannot make a socket for notifications"))?;
        command.set_notify_socket(&address)?;
        let watch = |fd: i32, token| poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
        watch(signals.as_fd().as_raw_fd(), SIGNALS).map_err(Error::os("cannot watch signals"))?;
        watch(socket.as_raw_fd(), NOTIFICATIONS).map_err(Error::os("cannot watch notifications"))?;
        Ok(Driver {
            store: Store::new(size, command.room_for_names()),
            watches_store: false,
            oom_kills: None,
            command,
            machine,
            manager: Manager::new(),
            poll,
            signals,
            socket,
            queue: queue_length(),
            watched: Vec::new(),
            others: family::children().map_err(Error::os("cannot see the children of this process"))?,
            stray_signal: None,
            signalled: Vec::new(),
            told: Vec::new(),
            epoch: Instant::now(),
            own_group: !is_in_foreground(),
            last_known: None,
            left_out: 0,
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
            self.stray_signal = None;
        }
        self.signal_strays();
        // Each may leave strays behind, whose end is a turn of its own.
        if self.machine.awaits_strays() && self.strays().is_ok_and(|strays| strays.is_empty()) {
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
            match sys::receive_datagram(&self.socket, &mut buffer) {
                Ok(mut datagram) => {
                    let length = datagram.length.min(buffer.len());
                    self.heard(&mut datagram, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.unheard = false;
                    return;
                }
            }
        }
        self.unheard = true;
    }

    fn heard(&mut self, datagram: &mut Datagram, bytes: &[u8]) {
        if !self.knows(datagram) {
            let why = if datagram.sender == 0 { "the process is in another PID namespace" } else { "it is no descendant of this guard" };
            datagram.descriptors.iter().for_each(end_lingering);
            return self.leave_out(datagram.sender, why);
        }
        let message = if datagram.truncated { None } else { Message::new(bytes) };
        let Some(message) = message else {
            return self.leave_out(datagram.sender, "it is no text, or too long");
        };
        let mut notification = message.notification();
        notification.main = notification.main.filter(|pid| self.is_main_or_may_be(datagram.sender, *pid));
        notification.has_heard = notification.main.is_some_and(|pid| self.was_told(pid));
        let concerns = self.machine.listens_to(datagram.sender);
        self.feed(Fact::Notified(datagram.sender, notification));
        // What has not become the service, since it is being killed, is a stray as before.
        if let Some(pid) = notification.main
            && self.machine.main() != Some(pid)
            && !self.machine.earlier().contains(&pid)
        {
            self.forget(pid);
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
                if datagram.lacks_descriptors {
                    self.leave_out(datagram.sender, &format!("this guard has no room for what it stores as {name:?}: raise RLIMIT_NOFILE"));
                }
                for descriptor in datagram.descriptors.drain(..) {
                    if !self.machine.keeps() {
                        self.leave_out(datagram.sender, "it stores something, and the service is not started again");
                        break;
                    }
                    let why = match self.store.put(name, descriptor, watched) {
                        Ok(()) => continue,
                        Err(Refused::Full) => format!("the store has {} descriptors, and no more may be (--store)", self.store.size()),
                        Err(Refused::NamesTooLong) => {
                            "no program could be given the names of all that is stored: store under shorter names, or less".into()
                        }
                        Err(Refused::Unwatchable(error)) => format!("what it stores cannot be watched: {error}"),
                    };
                    self.leave_out(datagram.sender, &format!("descriptor {name:?}: {why}"));
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

    /// Tells of a message that means nothing here, as long as there are few.
    fn leave_out(&mut self, sender: u32, why: &str) {
        self.left_out = self.left_out.saturating_add(1);
        if self.left_out <= TOLD_OF {
            log::warn!("a message of process {sender} is left out: {why}");
        }
    }

    /// Whether a message comes from this family. One that is the main process, or was, is known
    /// even when it has ended: its number is still its own.
    fn knows(&mut self, datagram: &Datagram) -> bool {
        if datagram.sender == 0 {
            return false;
        }
        if self.watched.iter().any(|process| process.pid() == datagram.sender) {
            return true;
        }
        // The number was looked up: if it still is the sender's now, be that a zombie, it was then.
        let is_its_own = || datagram.process.as_ref().is_none_or(|process| process.signal(0).map_or_else(exists, |()| true));
        // The way up may be long, and there may be many messages.
        let key = sys::process_key(datagram.sender);
        let is_the_last = key.is_some() && key == self.last_known;
        if !is_the_last && !self.is_in_family(datagram.sender) || !is_its_own() {
            return false;
        }
        self.last_known = key;
        true
    }

    /// Whether that process descends from this one. The number of a generation that lives is its
    /// own, and a process that has it for a parent descends too.
    fn is_in_family(&self, pid: u32) -> bool {
        let is_generation = |parent| self.watched.iter().any(|process| process.pid() == parent && !process.has_ended());
        sys::has_ancestor(pid, |parent| parent == process::id() || is_generation(parent))
    }

    /// Whether that process can be the main one, which is watched from now on if it is another.
    fn is_main_or_may_be(&mut self, from: u32, pid: u32) -> bool {
        if self.watched.iter().any(|process| process.pid() == pid) {
            return true;
        }
        if !self.machine.listens_to(from) {
            return false;
        }
        let watched = Process::open(pid).and_then(|process| {
            // Looked at after it was opened: if it is one of ours by then, it is the one that was
            // opened.
            if self.is_in_family(pid) { self.watch(process) } else { Err(io::Error::other("that is no descendant")) }
        });
        watched.inspect_err(|error| self.leave_out(from, &format!("it names {pid} the main process, and {error}"))).is_ok()
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

    fn watch(&mut self, process: Process) -> io::Result<()> {
        let fd = process.as_fd().as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&fd), PROCESSES, Interest::READABLE)?;
        self.watched.push(process);
        Ok(())
    }

    fn forget(&mut self, pid: u32) {
        let registry = self.poll.registry();
        self.watched.retain(|process| {
            if process.pid() == pid {
                // It may be watched no more for another reason, and is closed now in any case.
                let _ = registry.deregister(&mut SourceFd(&process.as_fd().as_raw_fd()));
            }
            process.pid() != pid
        });
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
                    // One that is born between the signal and this look counts as told: the kernel
                    // does not say when a signal was sent.
                    self.told = if by_terminal { family::group() } else { Vec::new() };
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

    fn was_told(&self, pid: u32) -> bool {
        !self.told.is_empty() && sys::process_key(pid).is_some_and(|key| self.told.contains(&key))
    }

    /// Each child that has ended, orphans too. What it has said before comes first.
    fn reap(&mut self) {
        while let Some(pid) = sys::ended_child() {
            self.hear(self.queue);
            let exit = sys::reap(pid);
            // Its number can be another's from here on.
            self.others.retain(|other| *other != pid);
            self.has_ended(pid, exit);
        }
    }

    /// Generations that are no children of this process: their predecessor lives.
    fn look_at_others(&mut self) {
        let has_ended = |process: &&Process| process.has_ended() && !process.is_child();
        while let Some(pid) = self.watched.iter().find(has_ended).map(Process::pid) {
            self.hear(self.queue);
            let Some(process) = self.watched.iter().find(|process| process.pid() == pid) else { continue };
            let exit = sys::exit_of_another(process);
            self.has_ended(pid, exit);
        }
    }

    fn has_ended(&mut self, pid: u32, exit: Exit) {
        let by_kernel = exit == Exit::Signal(libc::SIGKILL) && self.oom_kills.as_ref().is_some_and(OomKills::has_risen);
        let exit = if by_kernel && self.machine.main() == Some(pid) { Exit::OutOfMemory } else { exit };
        if self.watched.iter().any(|process| process.pid() == pid) {
            match exit {
                Exit::Unknown => log::warn!(
                    "process {pid} has ended, and how is not known: its predecessor has reaped it, and before Linux 6.15 the kernel tells \
                     nobody else; that counts as a failure. A service should reap no child that it has not started itself, and not ignore \
                     SIGCHLD"
                ),
                _ => log::info!("process {pid} {exit}"),
            }
            self.forget(pid);
            self.feed(Fact::Ended(pid, exit));
        }
    }

    /// Children that are no generation of the service, and come from it. An error: it cannot be
    /// seen whether there are any.
    fn strays(&self) -> io::Result<Vec<u32>> {
        let mut children = family::children()?;
        children.retain(|pid| self.watched.iter().all(|process| process.pid() != *pid) && !self.others.contains(pid));
        Ok(children)
    }

    // --- what goes out ---

    fn carry_out(&mut self) {
        while let Some(deed) = self.machine.poll_deed() {
            match deed {
                Deed::Start => self.start(),
                Deed::Signal(pid, signal) => {
                    let process = self.watched.iter().find(|process| process.pid() == pid);
                    match process.map(|process| process.signal(signal)) {
                        Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => {
                            log::warn!("cannot send signal {signal} to process {pid}: {error}");
                        }
                        _ => {}
                    }
                }
                Deed::TellStrays(signal) => {
                    self.stray_signal = Some(signal);
                    self.signalled = self.told.clone();
                    self.signal_strays();
                }
                Deed::SignalStrays(signal) => {
                    let strays = self.strays().unwrap_or_default();
                    if !strays.is_empty() && signal != libc::SIGKILL {
                        log::warn!(
                            "the main process has ended and left {strays:?}, which are told to end (signal {signal}): a service stays in the \
                             foreground and ends what it has started"
                        );
                    }
                    self.stray_signal = Some(signal);
                    self.signalled.clear();
                    self.signal_strays();
                }
                Deed::EmptyStore => self.empty_store(),
                Deed::Tell(remark) => self.tell(remark),
            }
        }
    }

    /// Each stray that has not been sent yet what strays are sent now.
    fn signal_strays(&mut self) {
        let Some(signal) = self.stray_signal else { return };
        let before = std::mem::take(&mut self.signalled);
        for pid in self.strays().unwrap_or_default() {
            let key = sys::process_key(pid);
            if key.is_none_or(|key| !before.contains(&key)) {
                sys::signal_child(pid, signal);
                self.told.extend(key);
            }
            self.signalled.extend(key);
        }
    }

    fn start(&mut self) {
        self.told.clear();
        let last = self.machine.status().map(|exit| (exit, self.machine.strikes(self.now())));
        let started = self.command.start(self.own_group, &self.store, last).and_then(|pid| {
            let watched = Process::open(pid).and_then(|process| self.watch(process));
            watched.map(|()| pid).inspect_err(|_| {
                let _ = sys::kill_and_reap(pid);
            })
        });
        let fact = match started {
            Ok(pid) => Fact::Started(pid),
            Err(error) => {
                let error = self.command.explain(error);
                // The caller tells of the first one.
                if self.machine.status().is_some() {
                    log::error!("cannot start {}: {error}", self.command.name().display());
                }
                self.failure = Some(error);
                Fact::StartFailed
            }
        };
        self.machine.handle(self.now(), fact);
    }

    fn tell(&mut self, remark: Remark) {
        match remark {
            Remark::Main(pid) => {
                self.oom_kills = OomKills::since_now(None);
                log::info!("the service is process {pid}");
            }
            Remark::AwaitsSuccessor => log::warn!("the main process has ended in the middle of a restart; its successor may go on"),
            Remark::NotReady(pid) => {
                log::error!("process {pid} has not said in time that it is ready, and is killed; does it call ready()?")
            }
            Remark::KillsStrays => {
                log::warn!("what the service has left behind does not end, and is killed: {:?}", self.strays().unwrap_or_default())
            }
            Remark::StraysStay => {
                log::error!("what was killed does not die, and is left to itself: {:?}", self.strays().unwrap_or_default())
            }
            Remark::StartsAgain => log::warn!("the service is started again"),
            Remark::StruckOut => {
                log::error!("the service has ended too often (--strikes), and is not started again; its own messages say why")
            }
        }
    }
}

/// The last process to close a socket that lingers waits, for as long as a stranger likes.
fn end_lingering(descriptor: &OwnedFd) {
    // Most are no sockets.
    let _ = setsockopt(descriptor, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
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

/// A socket and its name.
fn notify_socket() -> io::Result<(OwnedFd, OsString)> {
    let socket = sys::unix_socket(SockType::Datagram)?;
    sys::pass_credentials(&socket)?;
    // Room for bursts; what a queue may hold besides is the system's affair.
    let _ = setsockopt(&socket, sockopt::RcvBuf, &(1 << 20));
    let name = sys::bind_abstract(&socket)?;
    Ok((socket, OsString::from_vec([b"@", &name[..]].concat())))
}

/// How many messages wait at the most in a socket that has just been made.
fn queue_length() -> usize {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok();
    // One more gets in before the queue counts as full.
    text.and_then(|text| text.trim().parse::<usize>().ok()).map_or(QUEUE, |length| length.saturating_add(2))
}

/// Whether there was a process to signal.
fn exists(error: io::Error) -> bool {
    error.raw_os_error() != Some(libc::ESRCH)
}

/// Whether the terminal of this process, if it has one, signals the group of this process. In a
/// group that is in the background, others do: who starts several programs, and ends them.
fn is_in_foreground() -> bool {
    let terminal = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/tty");
    terminal.is_ok_and(|terminal| sys::foreground_of(&terminal) == getpgrp().as_raw())
}
