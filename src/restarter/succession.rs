//! The processes after this one: the successor under way, the thread that starts it, and what is left of earlier ones.
//!
//! Knows: the child, its lifeline, and the reasons that belong to the machine's causes. Does not know: who asked, paths, the service manager.

mod attempt;
mod history;
mod life;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task;
use std::time::Duration;

use mio::Waker;
use nix::libc;

use crate::error::{ChildSpawnError, Exit, Failure};
use crate::exec::{Exec, Job, Started, unkillable};
use crate::handover::Handover;
use crate::lifeline::{self, Lifeline};
use crate::machine::{Attempt, Cause, Input, Limits};
use crate::precopy::{Copying, Precopy};
use crate::sys::Process;
use crate::wire::Outcome;

use super::event::Successor;
use super::part::{Moment, Part};
use super::reactor::{Deadline, Due, LIFELINE, Reactor, SUCCESSOR, earliest};

use attempt::{Current, Said};
use history::History;
use life::Life;

/// How often lines of progress are passed on: a successor that has much to say must not hold this loop up.
const PROGRESS: Duration = Duration::from_millis(50);
/// How often a lifeline is looked at for more when a deadline has passed: it holds some 300 messages, all of which have come in time.
const LOOKS: usize = 8;
/// How often a child that waits to be reaped is looked at where it cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(1);

/// What comes after this process.
#[derive(Debug)]
pub(super) struct Succession {
    exec: Exec,
    program: PathBuf,
    limits: Limits,
    /// The successor under way, or the one that has taken over.
    current: Option<Current>,
    /// Successors that were given up and cannot be reaped yet: a debugger has them, or they were killed and do not die.
    unreaped: Vec<Arc<Process>>,
    /// One of them cannot be watched: it is looked at every now and then.
    is_unwatched: bool,
    /// Why attempts were called off whose failures are not told yet, in their order. A program may
    /// call one off, ask again and call that off before it is told of the first.
    cancel_reasons: VecDeque<Failure>,
    /// Why nothing could be started.
    spawn_error: Option<ChildSpawnError>,
    last_failure: Option<String>,
    history: History,
}

impl Succession {
    pub(super) fn new(exec: Exec, program: PathBuf, limits: Limits, outcomes: Vec<Outcome>) -> Succession {
        Succession {
            exec,
            program,
            limits,
            current: None,
            unreaped: Vec::new(),
            is_unwatched: false,
            cancel_reasons: VecDeque::new(),
            spawn_error: None,
            last_failure: None,
            history: History::new(outcomes),
        }
    }

    /// Takes in what the restart thread has done.
    fn poll_thread(&mut self, reactor: &Reactor, inputs: &mut Vec<Input>) {
        while let Some((attempt, result)) = self.exec.take() {
            match self.current.as_mut().filter(|current| current.attempt == attempt && current.process.is_none()) {
                Some(current) => match result.and_then(|started| watched(started, current, reactor, &self.exec, &self.program)) {
                    Ok(Started { process, memory }) => {
                        inputs.push(Input::Spawned(attempt, process.pid()));
                        current.process = Some(process);
                        current.memory = memory;
                    }
                    Err(error) => {
                        current.words.spawn = Some(error);
                        inputs.push(Input::SpawnFailed(attempt));
                    }
                },
                // It has just been given up.
                None => result.into_iter().for_each(|started| self.exec.discard(started.process)),
            }
        }
        for process in self.exec.take_held() {
            if let Err(error) = reactor.watch(process.as_fd(), SUCCESSOR) {
                log::warn!("process {} has been given up and waits to be reaped: {error}", process.pid());
                self.is_unwatched = true;
            }
            self.unreaped.push(process);
        }
        if self.exec.is_lost() {
            inputs.push(self.thread_lost());
        }
        self.exec.kill_again();
    }

    /// Nothing can be started any more, nor what was about to be.
    fn thread_lost(&mut self) -> Input {
        let error = ChildSpawnError::RestartThreadGone;
        match &mut self.current {
            Some(current) if current.process.is_none() && current.words.spawn.is_none() => current.words.spawn = Some(error),
            _ => self.spawn_error = Some(error),
        }
        Input::ThreadLost
    }

    /// Takes in what the successor has said and done. Says whether there may be more.
    fn poll_successor(&mut self, now: Duration, reactor: &Reactor, inputs: &mut Vec<Input>) -> bool {
        let Some(current) = &mut self.current else { return false };
        let (said, more) = current.read();
        for said in said {
            match said {
                Said::Input(input) => {
                    inputs.extend(current.pass_on_progress(now + PROGRESS));
                    inputs.push(input);
                }
                Said::Progress(text) => current.words.heard = Some(text),
            }
        }
        if now >= current.next_line {
            inputs.extend(current.pass_on_progress(now + PROGRESS));
        }
        if more {
            reactor.wake();
        }
        more
    }

    /// Has a successor of that attempt started, over a lifeline whose first messages are in it; or why there is none.
    pub(super) fn spawn(&mut self, attempt: Attempt, prepared: io::Result<(Lifeline, Job)>, reactor: &Reactor) -> Option<Input> {
        self.let_go(reactor);
        self.spawn_error = None;
        match prepared {
            Ok((lifeline, job)) => {
                self.current = Some(Current::new(attempt, lifeline));
                (!self.exec.spawn(job)).then(|| self.thread_lost())
            }
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::EMFILE) => format!("; {}", lifeline::descriptor_limit()),
                    _ => String::new(),
                };
                let note = format!("nothing was started: its lifeline cannot be made{hint}");
                self.spawn_error = Some(ChildSpawnError::new(&self.program, error, Some(note)));
                Some(Input::SpawnFailed(attempt))
            }
        }
    }

    /// What is still to be started of that attempt is not.
    pub(super) fn abandon(&mut self, attempt: Attempt) {
        self.exec.abandon(attempt);
        self.tell_the_end();
    }

    pub(super) fn kill(&mut self) {
        if let Some(process) = self.current.as_mut().and_then(Current::kill) {
            // It has become another user, over whom the loop has given its power up.
            self.exec.kill(process);
        }
    }

    /// Tells the successor that the service is its own.
    pub(super) fn grant(&mut self, attempt: Attempt, reactor: &Reactor, inputs: &mut Vec<Input>) {
        let Some(current) = &mut self.current else { return };
        if !current.grant() {
            if current.is_dying() {
                // The program stands still: nobody waits for its core dump.
                return inputs.push(Input::Dying(attempt));
            }
            self.poll_successor(reactor.now(), reactor, inputs);
        } else if current.has_taken_the_grant() {
            inputs.push(Input::Granted(attempt));
        }
    }

    /// What can go ahead in an attempt begins to.
    pub(super) fn begin_precopy(&mut self, attempt: Attempt, waker: Arc<Waker>) -> Option<Precopy> {
        let current = self.current.as_mut().filter(|current| current.attempt == attempt)?;
        let (precopy, copying) = Copying::new(current.lifeline.clone(), Some(waker));
        current.copying = Some(copying);
        Some(precopy)
    }

    /// The program goes on with its other work. Returns whether something goes ahead that waits for
    /// its next turn.
    pub(super) fn begin_turn(&self) -> bool {
        self.current.as_ref().and_then(|current| current.copying.as_ref()).is_some_and(Copying::begin_turn)
    }

    /// The handover of an attempt begins.
    pub(super) fn begin_handover(&mut self, attempt: Attempt, waker: Arc<Waker>) -> Option<Handover> {
        let current = self.current.as_mut().filter(|current| current.attempt == attempt)?;
        let ahead = current.copying.take().map(Copying::freeze);
        let (handover, mailbox) = Handover::new(current.lifeline.clone(), Some(waker), ahead);
        current.handover = Some(mailbox);
        current.is_frozen = true;
        Some(handover)
    }

    /// Whether the program has been given a handover, and has not sent it.
    pub(super) fn is_handing_over(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.handover.is_some())
    }

    /// Whether the program has been asked for the state, and has to leave it as it is until the attempt has ended.
    pub(super) fn is_frozen(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.is_frozen)
    }

    /// Whether the successor takes nothing any more, which is what a program that gives it something finds first: its end tells why.
    pub(super) fn is_gone(&self) -> bool {
        self.current.as_ref().is_some_and(Current::is_gone)
    }

    /// The successor cannot have what it needs, and why.
    pub(super) fn cannot_hand_over(&mut self, why: &str) {
        if let Some(current) = &mut self.current {
            current.words.handover.get_or_insert_with(|| why.into());
        }
    }

    /// New flows cannot become the successor's, and why.
    pub(super) fn cannot_steer(&mut self, why: String) -> Option<Input> {
        let current = self.current.as_mut()?;
        current.words.steering.get_or_insert(why);
        Some(Input::SteeringFailed(current.attempt))
    }

    /// The successor becomes the main process, and a service manager that is there learns how it ends.
    pub(super) fn successor_becomes_main(&mut self, is_supervised: bool) -> Option<u32> {
        let current = self.current.as_mut()?;
        current.supervised = is_supervised;
        let pid = current.process.as_ref()?.pid();
        current.memory.settle(pid);
        Some(pid)
    }

    /// The path of the successor's program, if that is the very file that this process executes.
    pub(super) fn same_program(&self) -> Option<&str> {
        self.current.as_ref()?.words.again.as_deref()
    }

    /// What an operator has to know of the successor.
    pub(super) fn problem(&self) -> Option<String> {
        self.current.as_ref()?.memory.problem()
    }

    /// Tells the successor that the restart is final.
    pub(super) fn tell_commit(&mut self) -> Option<Input> {
        self.current.as_mut()?.tell_commit()
    }

    /// A probation is about to end: has the successor failed without that having been told yet?
    pub(super) fn check(&mut self, attempt: Attempt) -> Input {
        let has_failed = self.current.as_mut().is_some_and(Current::has_failed_in_silence);
        if has_failed { Input::Dying(attempt) } else { Input::Sound(attempt) }
    }

    /// The service will not be the successor's, whatever becomes of this process. Said before anybody else knows.
    pub(super) fn tell_the_end(&self) {
        if let Some(current) = &self.current {
            current.tell_the_end();
        }
    }

    /// Nothing is under way: drops what is left of an attempt that has ended.
    pub(super) fn rest(&mut self, reactor: &Reactor) {
        if self.current.as_ref().is_some_and(|current| current.process.is_none() || matches!(current.life, Life::Over(_))) {
            self.let_go(reactor);
        }
    }

    fn let_go(&mut self, reactor: &Reactor) {
        if let Some(current) = self.current.take() {
            current.tell_the_end();
            reactor.unwatch(current.lifeline.as_fd());
            self.unreaped.extend(current.process);
        }
    }

    /// They are watched until then: when a debugger lets go of one that has ended, its descriptor tells of that once more.
    pub(super) fn reap(&mut self, reactor: &Reactor) {
        self.unreaped.retain(|process| {
            let is_held = process.is_held();
            if !is_held {
                reactor.unwatch(process.as_fd());
            }
            is_held
        });
        self.is_unwatched &= !self.unreaped.is_empty();
    }

    /// The successor, which is the caller's from now on.
    pub(super) fn take_successor(&mut self, reactor: &Reactor) -> Option<Successor> {
        let current = self.current.take()?;
        reactor.unwatch(current.lifeline.as_fd());
        let process = current.process?;
        reactor.unwatch(process.as_fd());
        Some(Successor::new(process, current.life.exit()))
    }

    /// The program has called the attempt off, for that reason.
    pub(super) fn cancelled_because(&mut self, why: Failure) {
        self.cancel_reasons.push_back(why);
    }

    /// The line that the program is told next of what the successor says of itself.
    pub(super) fn take_progress(&mut self) -> Option<String> {
        let words = &mut self.current.as_mut()?.words;
        let text = words.untold.take()?;
        words.progress = Some(text.clone());
        Some(text)
    }

    /// The last line that the successor has said of itself; of one that cannot be killed, that.
    pub(super) fn progress(&self) -> Option<String> {
        let current = self.current.as_ref()?;
        let condemned = current.process.as_ref().map(|process| process.pid()).filter(|pid| self.exec.cannot_kill(*pid));
        condemned.map(unkillable).or_else(|| current.words.progress.clone())
    }

    /// How the successor has ended, if it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.current.as_ref()?.life.exit()
    }

    /// The failure for people: what the program said when it called off, or the machine's cause in the words of the attempt.
    pub(super) fn failure(&self, cause: Cause) -> Failure {
        match (cause, self.cancel_reasons.front(), &self.spawn_error, &self.current) {
            (Cause::Cancelled, Some(why), ..) => why.clone(),
            (_, _, _, Some(current)) => current.failure(cause, &self.limits),
            // It ended before anything was started.
            (Cause::SpawnFailed, _, Some(error), None) => Failure::Spawn(error.clone()),
            (Cause::Stopping, .., None) => Failure::Stopping,
            (Cause::TimedOut, .., None) => Failure::TimedOut { limit: self.limits.ready, last: None },
            (.., None) => Failure::Cancelled(String::new()),
        }
    }

    /// The attempt has failed: goes down in history.
    pub(super) fn failed(&mut self, cause: Cause, now: Duration) -> Failure {
        let failure = self.failure(cause);
        if cause == Cause::Cancelled {
            self.cancel_reasons.pop_front();
        }
        let text = failure.to_string();
        self.history.end(false, &text, now);
        self.last_failure = Some(text);
        failure
    }

    pub(super) fn last_failure(&self) -> Option<String> {
        self.last_failure.clone()
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, attempt: Attempt, since: Duration) {
        self.history.begin(attempt, since);
    }

    /// An attempt begins that was called off before anybody was told of it.
    pub(super) fn begin_next(&mut self, now: Duration) {
        self.history.begin_next(now);
    }

    /// The restart that this process was started for has succeeded.
    pub(super) fn took_over(&mut self, text: &str, now: Duration) {
        self.history.end(true, text, now);
    }

    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.history.outcomes()
    }

    /// Which attempt, and for how long: what a line of the log begins with.
    pub(super) fn heading(&self, now: Duration) -> String {
        self.history.heading(now)
    }

    /// What is started.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// In a simulation: what the restart thread does next, if it has something to do.
    pub(super) fn run_thread(&mut self) -> bool {
        self.exec.carry_out_one()
    }

    /// In a simulation: the restart thread panics.
    pub(super) fn lose_thread(&mut self) {
        self.exec.lose();
    }

    /// Has the restart thread wake the loop after so long.
    pub(super) fn wake_loop_in(&self, time: Duration) {
        self.exec.wake_loop_in(time);
    }

    /// Has the restart thread call this waker, and no earlier one, after so long. `false`: the thread is gone.
    pub(super) fn wake_in(&self, time: Duration, waker: &task::Waker) -> bool {
        self.exec.wake_in(time, waker)
    }

    /// Has the restart thread call no waker any more.
    pub(super) fn wake_nobody(&self) {
        self.exec.wake_nobody();
    }
}

impl Part for Succession {
    /// What the restart thread has done comes first: a successor has nothing to say before it has been started.
    fn poll(&mut self, moment: &Moment, reactor: &Reactor, inputs: &mut Vec<Input>) {
        self.poll_thread(reactor, inputs);
        for _ in 0..if moment.is_late { LOOKS } else { 1 } {
            if !self.poll_successor(moment.now, reactor, inputs) {
                break;
            }
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Due> {
        earliest([
            self.current.as_ref().and_then(|current| current.next_deadline(now)),
            self.exec.next_timeout().map(|left| (now + left, Deadline::Kill)),
            self.is_unwatched.then(|| (now + UNWATCHED, Deadline::Unreaped)),
        ])
    }
}

/// The process, watched with its lifeline; or killed, and why.
fn watched(started: Started, current: &Current, reactor: &Reactor, exec: &Exec, program: &Path) -> Result<Started, ChildSpawnError> {
    let process = &started.process;
    let watched = reactor.watch(process.as_fd(), SUCCESSOR).and_then(|()| reactor.watch(current.lifeline.as_fd(), LIFELINE));
    match watched {
        Ok(()) => Ok(started),
        Err(error) => {
            reactor.unwatch(process.as_fd());
            exec.discard(started.process);
            let note = "it was started but cannot be watched, and has been killed".into();
            Err(ChildSpawnError::new(program, error.into(), Some(note)))
        }
    }
}
