//! The machine of the guard: the pid that stays while generations of a service come and go.
//!
//! Knows: which process is the service, when one is started again, and when the guard has nothing
//! left to wait for. Does not know: processes, descriptors, clocks, sockets, text. Time is a
//! [`Duration`] since any fixed moment, handed in.
//!
//! The contract: take the deeds of [`Supervision::poll_deed`] until it returns `None`, carrying
//! each out in order; feed each fact to [`Supervision::handle`], and take the deeds again; feed
//! [`Fact::Timeout`] when [`Supervision::poll_timeout`] has passed. `handle` is total: a pair of
//! stage and fact that is no row of the table on [`Stage`] changes nothing. The driver answers a
//! [`Deed::Start`] with `Started` or `StartFailed` before it feeds anything else. It feeds
//! notifications before ends: a process names its successor and ends. It feeds `Ended` once for
//! each process that is or was the main process, and `Alone` as long as
//! [`Supervision::awaits_strays`] holds and no stray is left. A *stray* is a child of the guard
//! that neither is nor was the main process.

mod stage;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM};

use crate::error::Exit;

pub use stage::Stage;
pub use words::{Deed, Fact, Notification, Policy, Remark, Rules, Strikes};

/// How long a successor may take to name itself after the main process has ended in a restart that
/// did not say how long it takes.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long strays may take to end when they are told to, and again when they are killed.
pub const STRAYS_LIMIT: Duration = Duration::from_secs(5);

/// The machine: where the service stands, what it goes by, and what has yet to be carried out.
#[derive(Debug, Clone)]
pub struct Supervision {
    rules: Rules,
    stage: Stage,
    /// Former main processes that live.
    earlier: Vec<u32>,
    /// The signal by which the service was told to end. Each process that becomes the main process
    /// later is sent it too, unless it has been told already.
    told: Option<i32>,
    /// Nothing is started any more.
    closing: bool,
    /// How the last generation has ended.
    last: Option<Exit>,
    /// When the service has ended without a successor, as far back as strikes count.
    ends: VecDeque<Duration>,
    /// The last of them can still be absolved.
    absolvable: bool,
    /// The main process was killed by this guard.
    killed: bool,
    deeds: VecDeque<Deed>,
}

impl Supervision {
    /// A guard that is about to start its service: the first deed.
    pub fn new(rules: Rules) -> Supervision {
        Supervision {
            rules,
            stage: Stage::Starting { due: None },
            earlier: Vec::new(),
            told: None,
            closing: false,
            last: None,
            ends: VecDeque::new(),
            absolvable: false,
            killed: false,
            deeds: VecDeque::from([Deed::Start]),
        }
    }

    /// Where the service stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The main process, while there is one.
    pub fn main(&self) -> Option<u32> {
        match self.stage {
            Stage::Running { main, .. } => Some(main),
            _ => None,
        }
    }

    /// Former main processes that live, the oldest first.
    pub fn earlier(&self) -> &[u32] {
        &self.earlier
    }

    /// How the last generation has ended; `None`: none has been started yet, or none has ended.
    pub fn status(&self) -> Option<Exit> {
        self.last
    }

    /// Why that process has ended, where its status does not tell: this guard has killed the main
    /// process because it hung.
    pub fn cause(&self, pid: u32, exit: Exit) -> Exit {
        let is_killed = self.killed && self.main() == Some(pid) && exit == Exit::Signal(SIGKILL);
        if is_killed { Exit::NotReady } else { exit }
    }

    /// How many ends count as strikes now.
    pub fn strikes(&self, now: Duration) -> usize {
        self.ends.iter().filter(|end| now.saturating_sub(**end) < self.rules.strikes.within).count()
    }

    /// Whether what the service stores is of use: it may be started again. [`Deed::EmptyStore`]
    /// says when that ends.
    pub fn keeps(&self) -> bool {
        self.rules.policy != Policy::No && !self.is_told() && !self.closing && self.stage != Stage::Over
    }

    /// Whether the service was told to end.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Whether [`Fact::Alone`] means something now.
    pub fn awaits_strays(&self) -> bool {
        matches!(self.stage, Stage::Between { .. } | Stage::Clearing { .. })
    }

    /// Whether the end of the main process is the end of the service, if it comes in order: only
    /// then may a manager above be told that the service stops.
    pub fn ends_with_main(&self) -> bool {
        self.is_told() || self.rules.policy == Policy::No
    }

    /// Whether what this process tells a manager concerns the service of now.
    pub fn listens_to(&self, pid: u32) -> bool {
        self.stage != Stage::Over && !self.earlier.contains(&pid)
    }

    /// The next thing to do.
    pub fn poll_deed(&mut self) -> Option<Deed> {
        self.deeds.pop_front()
    }

    /// When `handle(Fact::Timeout)` is next needed.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.stage {
            Stage::Starting { due } => due,
            Stage::Running { ready_by, .. } => ready_by,
            Stage::Between { until } | Stage::Clearing { until, .. } => Some(until),
            Stage::Stopping | Stage::Over => None,
        }
    }

    /// Takes one thing in.
    pub fn handle(&mut self, now: Duration, fact: Fact) {
        match fact {
            Fact::Started(pid) => self.started(now, pid),
            Fact::StartFailed => self.start_failed(now),
            Fact::Notified(from, notification) => self.notified(now, from, notification),
            Fact::Ended(pid, exit) => self.ended(now, pid, exit),
            Fact::Alone => {
                if self.awaits_strays() {
                    self.decide(now);
                }
            }
            Fact::Told { signal, heard } => self.told(signal, heard),
            Fact::Signalled(signal) => {
                if let Stage::Running { main, .. } = self.stage {
                    self.act(Deed::Signal(main, signal));
                }
            }
            Fact::Timeout => {
                if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
                    self.timeout(now);
                }
            }
        }
    }

    fn started(&mut self, now: Duration, pid: u32) {
        if self.stage == (Stage::Starting { due: None }) {
            let ready_by = self.rules.ready.map(|limit| now.saturating_add(limit));
            self.becomes_main(pid, ready_by, false);
        }
    }

    fn start_failed(&mut self, now: Duration) {
        if self.stage == (Stage::Starting { due: None }) {
            if self.last.is_none() {
                return self.finish();
            }
            self.count_end(now);
            self.decide(now);
        }
    }

    fn becomes_main(&mut self, pid: u32, ready_by: Option<Duration>, has_heard: bool) {
        if let Stage::Running { main, .. } = self.stage {
            self.earlier.push(main);
        }
        self.earlier.retain(|earlier| *earlier != pid);
        self.closing = false;
        self.killed = false;
        self.stage = Stage::Running { main: pid, ready_by, reloading: None };
        self.act(Deed::Tell(Remark::Main(pid)));
        if let Some(signal) = self.told.filter(|_| !has_heard) {
            self.act(Deed::Signal(pid, signal));
        }
    }

    fn notified(&mut self, now: Duration, from: u32, notification: Notification) {
        if self.earlier.contains(&from) {
            return;
        }
        match (self.stage, notification.main) {
            // What is killed does not become the service any more, and what is being started is it.
            (Stage::Over | Stage::Starting { due: None } | Stage::Clearing { killed: true, .. }, _) | (_, None) => {}
            (Stage::Running { main, .. }, Some(pid)) if pid == main => {}
            (_, Some(pid)) => self.becomes_main(pid, None, notification.has_heard),
        }
        if notification.absolved && self.main() == Some(from) && std::mem::take(&mut self.absolvable) {
            self.ends.pop_back();
        }
        let longer = notification.extend.map(|by| now.saturating_add(by));
        match &mut self.stage {
            Stage::Running { ready_by, reloading, .. } => {
                if notification.ready {
                    *ready_by = None;
                }
                if notification.ready || notification.stopping {
                    *reloading = None;
                } else if notification.reloading {
                    *reloading = Some(longer.unwrap_or_else(|| now.saturating_add(PATIENCE)));
                }
                // A limit that is there is moved, and none is made.
                for limit in [ready_by, reloading].into_iter().flatten() {
                    *limit = (*limit).max(longer.unwrap_or_default());
                }
            }
            Stage::Between { until } => *until = (*until).max(longer.unwrap_or_default()),
            Stage::Starting { .. } | Stage::Clearing { .. } | Stage::Stopping | Stage::Over => {}
        }
    }

    fn ended(&mut self, now: Duration, pid: u32, exit: Exit) {
        match self.stage {
            Stage::Running { main, reloading, .. } if main == pid => {
                let exit = self.cause(pid, exit);
                self.last = Some(exit);
                self.absolvable = self.killed || !is_from_outside(exit);
                if self.absolvable {
                    self.count_end(now);
                }
                match reloading {
                    Some(until) => {
                        self.stage = Stage::Between { until: until.max(now) };
                        self.act(Deed::Tell(Remark::AwaitsSuccessor));
                        if let Some(signal) = self.told {
                            self.act(Deed::TellStrays(signal));
                        }
                    }
                    None => self.clear(now),
                }
            }
            _ => {
                let before = self.earlier.len();
                self.earlier.retain(|earlier| *earlier != pid);
                if self.stage == Stage::Stopping && before > 0 && self.earlier.is_empty() {
                    self.clear(now);
                }
            }
        }
    }

    /// Nothing that the service has left behind goes on beside what comes next.
    fn clear(&mut self, now: Duration) {
        self.stage = Stage::Clearing { killed: false, until: now.saturating_add(STRAYS_LIMIT) };
        self.act(Deed::SignalStrays(SIGTERM));
    }

    fn kill_strays(&mut self, now: Duration) {
        self.stage = Stage::Clearing { killed: true, until: now.saturating_add(STRAYS_LIMIT) };
        self.act(Deed::Tell(Remark::KillsStrays));
        self.act(Deed::SignalStrays(SIGKILL));
    }

    fn told(&mut self, signal: i32, heard: bool) {
        if self.stage == Stage::Over {
            return;
        }
        self.told = Some(signal);
        self.act(Deed::EmptyStore);
        if !heard {
            for earlier in self.earlier.clone() {
                self.act(Deed::Signal(earlier, signal));
            }
        }
        match self.stage {
            Stage::Running { main, .. } if !heard => self.act(Deed::Signal(main, signal)),
            Stage::Between { .. } => self.act(Deed::TellStrays(signal)),
            Stage::Starting { due: Some(_) } => self.finish(),
            _ => {}
        }
    }

    fn timeout(&mut self, now: Duration) {
        match &mut self.stage {
            Stage::Starting { due } => {
                *due = None;
                self.act(Deed::Start);
            }
            Stage::Running { main, ready_by, .. } => {
                let main = *main;
                *ready_by = None;
                self.killed = true;
                self.act(Deed::Tell(Remark::NotReady(main)));
                self.act(Deed::Signal(main, SIGKILL));
            }
            Stage::Between { .. } | Stage::Clearing { killed: false, .. } => self.kill_strays(now),
            Stage::Clearing { killed: true, .. } => {
                self.act(Deed::Tell(Remark::StraysStay));
                self.decide(now);
            }
            Stage::Stopping | Stage::Over => {}
        }
    }

    /// Nothing of the last generation is left: what comes next.
    fn decide(&mut self, now: Duration) {
        if self.closing || self.is_told() || !self.is_wanted_again() {
            return self.finish();
        }
        if self.ends.len() >= self.rules.strikes.count.max(1) as usize {
            self.act(Deed::Tell(Remark::StruckOut));
            return self.finish();
        }
        self.act(Deed::Tell(Remark::StartsAgain));
        self.stage = Stage::Starting { due: Some(now.saturating_add(self.rules.delay)) };
    }

    fn finish(&mut self) {
        self.closing = true;
        self.act(Deed::EmptyStore);
        self.stage = if self.earlier.is_empty() { Stage::Over } else { Stage::Stopping };
    }

    fn is_wanted_again(&self) -> bool {
        match self.rules.policy {
            Policy::No => false,
            Policy::OnFailure => self.last.is_some_and(is_failure),
            Policy::Always => true,
        }
    }

    /// A strike is counted until it is older than strikes are.
    fn count_end(&mut self, now: Duration) {
        let Strikes { count, within } = self.rules.strikes;
        self.ends.retain(|end| now.saturating_sub(*end) < within);
        self.ends.push_back(now);
        while self.ends.len() > count.max(1) as usize {
            self.ends.pop_front();
        }
    }

    fn act(&mut self, deed: Deed) {
        self.deeds.push_back(deed);
    }
}

/// Whether somebody has ended the process, who may do that as often as they like: such an end is no
/// strike. When the kernel ends a process for memory, that is [`Exit::OutOfMemory`].
fn is_from_outside(exit: Exit) -> bool {
    matches!(exit, Exit::Signal(SIGHUP | SIGINT | SIGKILL | SIGTERM))
}

/// Whether [`Policy::OnFailure`] starts the service again after such an end. As with systemd, the
/// signals by which people end a program are no failures. A status that nobody knows may be that
/// of a crash.
fn is_failure(exit: Exit) -> bool {
    match exit {
        Exit::Code(code) => code != 0,
        Exit::Signal(signal) => ![SIGHUP, SIGINT, SIGPIPE, SIGTERM].contains(&signal),
        Exit::OutOfMemory | Exit::NotReady | Exit::Unknown => true,
    }
}
