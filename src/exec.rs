//! The restart thread: it starts successors, and kills and reaps one that comes too late.
//!
//! Knows: how to start one, and which attempts have been given up. Does not know: what a restart is. The thread is there from `build` on
//! and keeps the rights it is born with: what other threads give up later (a seccomp filter, capabilities) it still has. It is also
//! the thread that waits, so that the loop does not: for a program that is being written, for a slow file system, for a killed child.

mod alarm;
mod condemned;
mod descriptors;
mod diagnosis;
mod memory;
mod public;
mod start;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem, task};

use mio::Waker;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};

use crate::config::Launch;
use crate::error::ChildSpawnError;
use crate::lifeline;
use crate::machine::Attempt;
use crate::sys::{self, Origin, Process};
use crate::wire::{Birth, KillCounter};

use condemned::Condemned;
pub(crate) use condemned::unkillable;
pub(crate) use memory::Memory;
use start::start;

/// How long the end of the thread is waited for when the restarter is dropped, and the end of a killed
/// child before it is left to the loop.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A successor that takes longer than this becomes the first that the kernel ends when memory is
/// short. A shorter restart does not pay for it, and the machine is not told of either.
const SOON: Duration = Duration::from_millis(5);

/// The restart thread.
#[derive(Debug)]
pub(crate) struct Exec {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The process that the thread is in: a child that was forked has a copy of this, and no thread.
    origin: Origin,
    /// In a simulation: what the thread would be at. There is none.
    work: Option<Work>,
}

/// What the thread works with.
#[derive(Debug)]
struct Work {
    launch: Launch,
    signal: Option<Signal>,
    shared: Arc<Shared>,
    /// Where its memory is counted, as far as that is known.
    counter: Option<KillCounter>,
}

/// What one successor is given besides its [`Launch`].
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) attempt: Attempt,
    /// Its end of it.
    pub(crate) lifeline: Arc<OwnedFd>,
    /// Sockets of systemd, which keep their numbers, with their names.
    pub(crate) passed: Vec<(String, OwnedFd, RawFd)>,
}

/// A successor that was started.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) process: Arc<Process>,
    pub(crate) memory: Memory,
}

#[derive(Debug)]
enum Order {
    Spawn(Job),
    Kill(Condemned),
    Reap(Arc<Process>),
    PutFirst(Started),
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
    waker: Arc<Waker>,
}

#[derive(Debug, Default)]
struct Desk {
    orders: VecDeque<Order>,
    /// No more of them will come.
    closed: bool,
    /// Attempts up to this one are given up.
    abandoned: u64,
    /// The successor's end of the lifeline, while that one is being started.
    starting: Option<Arc<OwnedFd>>,
    done: VecDeque<(Attempt, Result<Started, ChildSpawnError>)>,
    /// The successor that is to be put first when memory is short, and from when on.
    to_put_first: Option<(Instant, Started)>,
    ended: bool,
    /// Given up, and cannot be reaped yet: a debugger has them, or they do not die. The loop reaps them when they can be.
    held: Vec<Arc<Process>>,
    /// Given up, and neither the loop nor the thread was allowed to kill them. That is tried again until
    /// they have ended.
    condemned: Vec<Condemned>,
    /// When that is tried next.
    next_kill: Option<Instant>,
    /// When the thread wakes the loop, if no timer can be set for that.
    alarm: Option<Instant>,
    /// When the thread wakes a task, if there is no other thread for that.
    sleeper: Option<(Instant, task::Waker)>,
    /// The thread is just waking it. That is foreign code, which may drop the restarter, or wait for the
    /// thread that drops it.
    waking: bool,
}

impl Exec {
    /// Starts the thread. `signal` is unblocked in it, so that it can be delivered when no other thread takes it.
    pub(crate) fn start(mut launch: Launch, birth: Option<Birth>, signal: Option<Signal>, waker: Arc<Waker>) -> io::Result<Exec> {
        launch.inherited_descriptors = birth.as_ref().map_or_else(descriptors::uncloexec, |birth| birth.inherited);
        let counter = birth.and_then(|birth| birth.counter).or_else(sys::kill_counter);
        let shared = Arc::new(Shared { desk: Mutex::default(), changed: Condvar::new(), waker });
        let work = Work { launch, signal, shared: shared.clone(), counter };
        let origin = Origin::here();
        sys::may_fail(&[libc::EAGAIN])?;
        if sys::is_simulated() {
            return Ok(Exec { shared, thread: None, origin, work: Some(work) });
        }
        let thread = thread::Builder::new().name("pollflip-restart".into()).spawn(move || {
            // The program's signals are for the program's threads.
            let mut mask = SigSet::all();
            if let Some(signal) = signal {
                mask.remove(signal);
            }
            if let Err(error) = mask.thread_set_mask() {
                log::warn!("cannot set the signal mask of the restart thread: {error}");
            }
            work.serve();
        })?;
        Ok(Exec { shared, thread: Some(thread), origin, work: None })
    }

    /// Has a successor started. `false`: the thread is gone.
    pub(crate) fn spawn(&self, job: Job) -> bool {
        self.order(Order::Spawn(job)).is_ok()
    }

    /// Cancels all attempts up to this one: a successor that was started for them, or is being
    /// started, is killed and reaped. The start of one may be held up until this process has ended.
    /// Such a successor finds nothing on its lifeline, and does not take over.
    pub(crate) fn abandon(&self, attempt: Attempt) {
        let mut desk = self.shared.desk();
        desk.abandoned = desk.abandoned.max(attempt.0);
        let starting = desk.starting.take();
        let late = mem::take(&mut desk.done);
        desk.to_put_first = None;
        drop(desk);
        self.shared.changed.notify_all();
        if let Some(lifeline) = starting {
            lifeline::take_back(&lifeline);
        }
        for started in late.into_iter().filter_map(|(_, result)| result.ok()) {
            self.discard(started.process);
        }
    }

    /// Has a child killed and reaped that nobody wants.
    pub(crate) fn discard(&self, process: Arc<Process>) {
        let is_killed = process.kill();
        // If the thread is gone it is reaped here, which takes a killed process a moment.
        if let Err(Order::Reap(process)) = self.order(Order::Reap(process)) {
            if !is_killed {
                self.shared.condemn(Condemned::new(process.clone()));
                self.shared.hold(process);
            } else if process.wait(END_LIMIT).is_none() {
                log::warn!("process {} has been killed and does not die", process.pid());
                self.shared.hold(process);
            }
        }
    }

    /// How a start went, if one has been tried.
    pub(crate) fn take(&self) -> Option<(Attempt, Result<Started, ChildSpawnError>)> {
        self.shared.desk().done.pop_front()
    }

    /// Those that were given up and cannot be reaped yet.
    pub(crate) fn take_held(&self) -> Vec<Arc<Process>> {
        mem::take(&mut self.shared.desk().held)
    }

    /// Whether this is the copy that a forked child has: neither the thread nor what it has started is that one's.
    fn is_anothers(&self) -> bool {
        !self.origin.is_here()
    }

    /// Whether the thread has ended, which it does by itself only in a panic.
    pub(crate) fn is_lost(&self) -> bool {
        self.shared.desk().ended
    }

    /// In a simulation: what the thread does next, if it has something to do.
    pub(crate) fn carry_out_one(&mut self) -> bool {
        let Some(work) = &self.work else { return false };
        let order = self.shared.desk().orders.pop_front();
        order.map(|order| work.carry_out(order)).is_some()
    }

    /// In a simulation: the thread panics.
    pub(crate) fn lose(&mut self) {
        self.work = None;
    }

    /// Puts an order on the desk, or gives it back if the thread is gone.
    fn order(&self, order: Order) -> Result<(), Order> {
        let mut desk = self.shared.desk();
        if desk.ended {
            return Err(order);
        }
        desk.orders.push_back(order);
        drop(desk);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.is_anothers() {
            // Not even the lock: the thread may have held it at the fork.
            return mem::forget(self.thread.take());
        }
        self.wake_nobody();
        self.abandon(Attempt(u64::MAX));
        self.shared.desk().closed = true;
        self.shared.changed.notify_all();
        if self.shared.desk().waking {
            // The waker may be what drops this, or wait for it. The thread ends when the waker has
            // returned and the orders are carried out.
            return drop(self.thread.take());
        }
        while self.carry_out_one() {}
        self.work = None;
        let desk = self.shared.desk();
        let waited = self.shared.changed.wait_timeout_while(desk, END_LIMIT, |desk| !desk.ended);
        let ended = waited.map_or_else(|poisoned| poisoned.into_inner().0.ended, |(desk, _)| desk.ended);
        if let Some(thread) = self.thread.take() {
            if ended {
                // What it panicked of has been logged by then.
                let _ = thread.join();
            } else {
                log::warn!("the restart thread is still busy after {} s and is left to itself", END_LIMIT.as_secs());
            }
        }
        let desk = self.shared.desk();
        for Condemned { process, .. } in &desk.condemned {
            process.kill();
        }
        for process in &desk.held {
            process.try_wait();
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_abandoned(&self, attempt: Attempt) -> bool {
        self.desk().abandoned >= attempt.0
    }

    /// Leaves a process to the loop.
    fn hold(&self, process: Arc<Process>) {
        self.desk().held.push(process);
        self.wake_loop();
    }

    fn wake_loop(&self) {
        if let Err(error) = self.waker.wake() {
            log::warn!("cannot wake the loop: {error}");
        }
    }

    /// Waits for the next order, and meanwhile wakes the loop and the task when their time has come.
    /// `None`: there are no more orders.
    fn next_order(&self) -> Option<Order> {
        let mut desk = self.desk();
        loop {
            if let Some(order) = desk.orders.pop_front() {
                return Some(order);
            }
            if desk.closed {
                return None;
            }
            let now = Instant::now();
            if desk.alarm.take_if(|at| now >= *at).is_some() {
                self.wake_loop();
            }
            if let Some((_, started)) = desk.to_put_first.take_if(|(at, _)| now >= *at) {
                return Some(Order::PutFirst(started));
            }
            if let Some((_, waker)) = desk.sleeper.take_if(|(at, _)| now >= *at) {
                desk.waking = true;
                drop(desk);
                // One that panics has told so by itself, and this thread is still needed.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                desk = self.desk();
                desk.waking = false;
                continue;
            }
            let to_put_first = desk.to_put_first.as_ref().map(|(at, _)| *at);
            let sleeper = desk.sleeper.as_ref().map(|(at, _)| *at);
            let next = [desk.alarm, to_put_first, sleeper].into_iter().flatten().min();
            // Woken early or late, what matters is what is there then.
            desk = match next {
                Some(at) => match self.changed.wait_timeout(desk, at.saturating_duration_since(now)) {
                    Ok((desk, _)) => desk,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Work {
    fn serve(self) {
        while let Some(order) = self.shared.next_order() {
            self.carry_out(order);
        }
    }

    fn carry_out(&self, order: Order) {
        let late = match order {
            Order::Kill(condemned) => {
                if !condemned.process.kill() {
                    self.shared.condemn(condemned);
                }
                None
            }
            Order::Reap(process) => Some(process),
            Order::PutFirst(Started { process, memory }) => {
                memory.put_first(&process, self.counter.as_ref());
                None
            }
            Order::Spawn(job) => self.spawn(job),
        };
        if let Some(process) = late {
            self.reap(process);
        }
    }

    /// Kills and reaps a child that nobody wants. One that takes longer is left to the loop: the next
    /// restart waits for this thread.
    fn reap(&self, process: Arc<Process>) {
        if process.kill() {
            process.wait(END_LIMIT);
        } else {
            self.shared.condemn(Condemned::new(process.clone()));
        }
        if process.is_held() {
            self.shared.hold(process);
        }
    }

    /// Returns what comes too late.
    fn spawn(&self, job: Job) -> Option<Arc<Process>> {
        {
            let mut desk = self.shared.desk();
            if desk.abandoned >= job.attempt.0 {
                // While something before it was waited for.
                return None;
            }
            desk.starting = Some(job.lifeline.clone());
        }
        let mut mask = self.launch.mask;
        if let Some(signal) = self.signal {
            // It would kill a process that has no handler yet; the successor unblocks it when it has.
            mask.add(signal);
        }
        let attempt = job.attempt;
        // The lowest number that was free: there are not many more descriptors than that.
        let descriptors = job.lifeline.as_raw_fd();
        let result = start(&self.launch, &mask, job, &self.shared, self.counter.as_ref());
        let mut desk = self.shared.desk();
        let theirs = desk.starting.take();
        if desk.abandoned >= attempt.0 {
            drop(desk);
            return result.ok().map(|(process, _)| Arc::new(process));
        }
        let (result, fate) = match result {
            Ok((process, fate)) => {
                let started = Started { process: Arc::new(process), memory: Memory::default() };
                desk.to_put_first = Some((Instant::now() + SOON, started.clone()));
                (Ok(started), Some(fate))
            }
            Err(error) => (Err(error), None),
        };
        desk.done.push_back((attempt, result));
        drop(desk);
        // The loop need not wait at the desk while the kernel closes that.
        drop(theirs);
        self.shared.wake_loop();
        // The loop does not wait for what follows, nor does the successor.
        if let Some(fate) = fate {
            fate.warn_of_growth(&self.launch);
        }
        // What is handed over may be held twice while it waits for the successor, which takes a while to ask for it.
        sys::enlarge_descriptor_table(descriptors.saturating_mul(2));
        None
    }
}

/// Tells that the thread has ended, however it did.
impl Drop for Work {
    fn drop(&mut self) {
        let sleeper = loop {
            let mut desk = self.shared.desk();
            let Some(order) = desk.orders.pop_front() else {
                desk.ended = true;
                break desk.sleeper.take();
            };
            drop(desk);
            match order {
                Order::Spawn(_) | Order::PutFirst(_) => {}
                // What nobody wants is to be killed and reaped even if nothing more is started.
                order @ (Order::Kill(_) | Order::Reap(_)) => self.carry_out(order),
            }
        };
        self.shared.changed.notify_all();
        // A loop that is gone need not be woken.
        let _ = self.shared.waker.wake();
        if let Some((_, waker)) = sleeper {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}
