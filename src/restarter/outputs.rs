//! What the machine puts out: actions are done, notices become events.

use std::mem;
use std::os::fd::AsFd;
use std::process;
use std::time::Duration;

use log::Level;
use nix::libc;

use crate::error::{ChildSpawnError, Error, Exit, Failure, Refusal};
use crate::handover::Handover;
use crate::lifeline;
use crate::machine::{Action, Cause, Input, Notice, Output, Reply, State, Ticket};
use crate::wire::Response;

use super::attempt::Current;
use super::{Asker, Event, Restarter, unwatch};

/// What comes out, in order.
impl Restarter {
    /// Does what the machine wants done, up to the next thing to tell.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        loop {
            // Not before it goes to the program: with the state taken, that may be ready.
            if let Some(inheritance) = self.link.as_ref().and_then(|link| link.inherited()) {
                return Some(Event::Inherited(inheritance));
            }
            if let Some(event) = self.told.pop_front() {
                return Some(event);
            }
            if self.is_held_up() {
                return None;
            }
            let Some(output) = self.next_output() else {
                self.settle();
                return mem::take(&mut self.heard.end_untold).then_some(Event::PredecessorGone);
            };
            match output {
                Output::Action(action) => self.act(action),
                Output::Notice(notice) => {
                    if let Some(event) = self.tell(notice) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// The successor must have been told that it is final, and systemd must know the new main process, before this one may end: nothing
    /// more comes out until then.
    fn is_held_up(&mut self) -> bool {
        if self.commit_waits() {
            return true;
        }
        let now = self.now();
        let Some((barrier, limit)) = &self.barrier else { return false };
        // The manager may have been too busy to be asked yet, and this process stopped since.
        self.manager.flush();
        if !barrier.has_answered() {
            if now < *limit {
                return true;
            }
            log::warn!(target: "pollflip", "systemd has not answered in time; it may not know the new main process");
        }
        unwatch(self.poll.registry(), barrier.as_fd());
        self.barrier = None;
        false
    }

    /// Nothing is left to do for now.
    fn settle(&mut self) {
        if matches!(self.machine.state(), State::Idle | State::Closed(_))
            && self.current.as_ref().is_some_and(|current| current.process.is_none() || current.has_exited())
        {
            self.let_go();
        }
        self.reap_the_held();
        if self.is_stopped() {
            // Nobody comes to whom they could be passed on.
            self.sockets.close();
        }
        self.open_server();
        self.rearm();
    }

    /// Drops what is left of an attempt that has ended.
    fn let_go(&mut self) {
        if let Some(current) = self.current.take() {
            current.tell_the_end();
            unwatch(self.poll.registry(), current.lifeline.as_fd());
            self.held.extend(current.process);
        }
    }

    /// They are watched until then: when a debugger lets go of one that has ended, its descriptor tells of that once more.
    fn reap_the_held(&mut self) {
        let registry = self.poll.registry();
        self.held.retain(|process| {
            let is_held = process.is_held();
            if !is_held {
                unwatch(registry, process.as_fd());
            }
            is_held
        });
        self.held_unwatched &= !self.held.is_empty();
    }

    pub(super) fn act(&mut self, action: Action) {
        log::trace!("{action:?}");
        match action {
            Action::Spawn(attempt) => {
                self.let_go();
                (self.called_off, self.not_started) = (None, None);
                let lost = match self.prepare(attempt) {
                    Ok((lifeline, job)) => {
                        self.current = Some(Current::new(attempt, lifeline));
                        !self.exec.spawn(job)
                    }
                    Err(error) => {
                        let hint = match error.raw_os_error() {
                            Some(libc::EMFILE) => format!("; {}", lifeline::descriptor_limit()),
                            _ => String::new(),
                        };
                        let note = format!("nothing was started: its lifeline cannot be made{hint}");
                        self.not_started = Some(ChildSpawnError::new(&self.program, &error, Some(note)));
                        self.feed(Input::SpawnFailed(attempt));
                        false
                    }
                };
                if lost {
                    self.lose_thread();
                }
            }
            Action::Abandon(attempt) => {
                self.exec.abandon(attempt);
                if let Some(current) = &self.current {
                    current.tell_the_end();
                }
            }
            Action::Kill(_) => {
                if let Some(process) = self.current.as_mut().and_then(Current::kill) {
                    // It has become another user, over whom the loop has given its power up.
                    self.exec.kill(process);
                }
            }
            Action::Grant(attempt) => {
                let now = self.now();
                let Some(current) = &mut self.current else { return };
                if !current.grant(now) {
                    if current.is_dying() {
                        // The program stands still: nobody waits for its core dump.
                        return self.feed(Input::LifelineClosed(attempt));
                    }
                    self.look_at_successor();
                } else if current.has_taken_the_grant() {
                    self.feed(Input::Granted(attempt));
                }
            }
            Action::Commit(_) => self.commit(),
            Action::Reply(ticket, reply) => self.reply(ticket, reply),
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if let (Reply::Failed(_), Some(current)) = (&reply, &self.current) {
            // Before anybody knows: who is told may end this process at once.
            current.tell_the_end();
        }
        let failure = match reply {
            Reply::Failed(cause) => Some(self.failure(cause)),
            _ => None,
        };
        let asker = self.askers.iter().position(|(asked, _)| *asked == ticket).map(|index| self.askers.swap_remove(index).1);
        match asker {
            Some(Asker::Client) => {
                let response = match (reply, failure) {
                    (Reply::Completed(pid), _) => Response::RestartComplete(pid),
                    (Reply::Refused(refusal), _) => Response::RestartRefused(refusal.to_string()),
                    (Reply::Failed(_), failure) => Response::RestartFailed(failure.map_or_else(String::new, |failure| failure.to_string())),
                };
                if let Some(key) = self.server.as_ref().and_then(|server| server.waiting(ticket)) {
                    self.answer(key, response);
                }
            }
            Some(Asker::Signal) => {
                if let Reply::Refused(refusal) = reply {
                    log::warn!(target: "pollflip", "the restart signal came in vain: {refusal}");
                    self.answer_systemd(refusal);
                }
            }
            Some(Asker::Program) | None => {}
        }
    }

    /// With Type=notify-reload it is systemd that has sent the signal, and it waits for an answer. Not if it has yet to get one, about the
    /// restart under way, nor if the service is another process by now or ends.
    fn answer_systemd(&mut self, refusal: Refusal) {
        let is_answered = match refusal {
            Refusal::Draining { .. } | Refusal::Terminal | Refusal::ContainerInit | Refusal::Unheard | Refusal::Broken => false,
            Refusal::NotReady | Refusal::UnderWay { .. } | Refusal::OnProbation { .. } | Refusal::HandedOff { .. } | Refusal::Stopping => {
                true
            }
        };
        if !is_answered {
            self.manager.reloading(Duration::ZERO);
            self.still_here(&refusal.to_string());
        }
    }

    /// The failure for people: what the program said when it called off, or the machine's cause in the words of the attempt.
    fn failure(&self, cause: Cause) -> Failure {
        match (cause, &self.called_off, &self.not_started, &self.current) {
            (Cause::Cancelled, Some(why), ..) => Failure::Hook(why.clone()),
            (_, _, _, Some(current)) => current.failure(cause, self.limits.ready),
            // It ended before anything was started.
            (Cause::SpawnFailed, _, Some(error), None) => Failure::Spawn(error.clone()),
            (Cause::Stopping, .., None) => Failure::Stopping,
            (Cause::TimedOut, .., None) => Failure::TimedOut(self.limits.ready),
            (.., None) => Failure::Cancelled,
        }
    }

    fn tell(&mut self, notice: Notice) -> Option<Event> {
        Some(match notice {
            Notice::Restarting => {
                if let State::Spawning { attempt, since, .. } = self.machine.state() {
                    self.chronicle.begin(attempt, since);
                }
                self.log(Level::Info, &format!("starting {}", self.program.display()));
                self.manager.reloading(self.limits.ready.saturating_add(self.limits.probation.unwrap_or_default()));
                Event::Restarting
            }
            Notice::Spawned(pid) => {
                self.log(Level::Info, &format!("process {pid} is getting ready"));
                Event::Spawned(pid)
            }
            Notice::StateRequested(attempt) => {
                let current = self.current.as_mut().filter(|current| current.attempt == attempt)?;
                let (handover, mailbox) = Handover::new(current.lifeline.clone(), Some(self.waker.clone()));
                current.handover = Some(mailbox);
                Event::StateRequested(handover)
            }
            Notice::Progress(_) => Event::Progress(self.current.as_mut()?.words.untold.take()?),
            Notice::HandedOff(pid) => {
                let mut text = format!("process {pid} has taken over");
                if let Some(time) = self.limits.probation {
                    text += &format!(", on probation for {time:?}");
                    // Whoever asked has to wait for so long.
                    if let Some(server) = &mut self.server {
                        server.progress(&text);
                    }
                }
                self.log(Level::Info, &text);
                Event::HandedOff(pid)
            }
            Notice::Resumed(cause) => {
                let failure = self.failed(cause);
                self.log(Level::Error, &format!("process {} serves again: {failure}", process::id()));
                Event::Resumed(failure)
            }
            Notice::Completed(pid) => {
                // Not before who asked has been answered: there can be many.
                self.sockets.close();
                self.log(Level::Info, &format!("final, process {pid} serves"));
                Event::Completed(pid)
            }
            Notice::Failed(cause) => {
                let failure = self.failed(cause);
                self.log(Level::Error, &format!("failed, process {} serves on: {failure}", process::id()));
                if cause == Cause::TimedOut && self.current.as_ref().is_some_and(|current| current.handover.is_some()) {
                    self.log(Level::Error, "the successor waited for the state: this program still has the Handover, and has not sent it");
                }
                Event::Failed(failure)
            }
            Notice::SuccessorGone(pid) => {
                // It may have been replaced in its turn, or told to end.
                let end = self.current.as_ref().and_then(|current| current.words.exit);
                let level = if end == Some(Exit::Code(0)) { Level::Info } else { Level::Error };
                self.log(level, &format!("process {pid}, which had taken over, {}", end.unwrap_or(Exit::Unknown)));
                Event::SuccessorGone(pid)
            }
            Notice::Broken => {
                let error = Error::Final(Refusal::Broken);
                log::error!(target: "pollflip", "{error}");
                self.still_here("no restart is possible any more");
                Event::Broken(error)
            }
            Notice::Committed => {
                log::info!(target: "pollflip", "final, the predecessor has committed or ended: process {} serves", process::id());
                Event::Committed
            }
        })
    }

    fn failed(&mut self, cause: Cause) -> Failure {
        let failure = self.failure(cause);
        self.called_off = None;
        let text = failure.to_string();
        self.still_here(&text);
        self.chronicle.end(false, &text, self.now());
        self.last_failure = Some(text);
        failure
    }

    /// Tells systemd that a restart is over. It goes by what it was told last: if this process is ending, it is told so once more.
    pub(super) fn still_here(&mut self, why: &str) {
        self.manager.still_here(why);
        if self.stopping.is_some() {
            self.manager.stopping();
        }
    }

    fn log(&self, level: Level, text: &str) {
        log::log!(target: "pollflip", level, "{}: {text}", self.chronicle.heading(self.now()));
    }
}
