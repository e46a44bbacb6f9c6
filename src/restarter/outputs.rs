//! What the machine puts out: actions are done, notices become events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process;

use log::Level;

use crate::error::{ChildSpawnError, Error, Exit, Failure, Refusal};
use crate::exec::Job;
use crate::handover::Handover;
use crate::lifeline::Lifeline;
use crate::machine::{Action, Attempt, Cause, Closed, Input, KILL_TIMEOUT, Notice, Output, Phase, Reply, State, Ticket};
use crate::sys::{self, Process};
use crate::systemd::{self, Barrier};
use crate::wire::{self, Given, Hello, MAX_DESCRIPTORS, MAX_PACKET, Message, Response};

use super::attempt::Current;
use super::{Asker, BARRIER, Event, Restarter, unwatch, watch};

/// What comes out, in order.
impl Restarter {
    /// Does what the machine wants done, up to the next thing to tell.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(event);
            }
            if self.is_held_up() {
                return None;
            }
            let Some(output) = self.machine.poll_output() else {
                self.settle();
                return None;
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

    /// systemd must know the new main process before the old one may end: nothing more comes out until it does.
    fn is_held_up(&mut self) -> bool {
        let Some((barrier, limit)) = &self.barrier else { return false };
        if !barrier.has_answered() {
            if self.epoch.elapsed() < *limit {
                return true;
            }
            log::warn!("systemd has not answered in time; it may not know the new main process");
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
        self.open_server();
        self.rearm();
    }

    /// Drops what is left of an attempt that has ended.
    fn let_go(&mut self) {
        if let Some(current) = self.current.take() {
            unwatch(self.poll.registry(), current.lifeline.as_fd());
            if let Some(process) = &current.process {
                unwatch(self.poll.registry(), process.as_fd());
            }
        }
    }

    fn act(&mut self, action: Action) {
        log::trace!("{action:?}");
        match action {
            Action::Spawn(attempt) => {
                self.let_go();
                self.called_off = None;
                let job = self.prepare(attempt);
                let lost = match job {
                    Ok(job) => !self.exec.spawn(job),
                    Err(error) => {
                        let why =
                            ChildSpawnError::new(&self.program, &error, Some("nothing was started: its lifeline cannot be made".into()));
                        if let Some(current) = &mut self.current {
                            current.words.spawn = Some(why);
                        }
                        self.feed(Input::SpawnFailed(attempt));
                        false
                    }
                };
                if lost {
                    self.feed(Input::ThreadLost);
                }
            }
            Action::Abandon(attempt) => self.exec.abandon(attempt),
            Action::Kill(_) => {
                if let Some(current) = &self.current {
                    current.kill();
                }
            }
            Action::Grant(_) => {
                self.say(&Message::Granted);
                if let Some(current) = &mut self.current {
                    current.granted = true;
                }
            }
            Action::Commit(_) => self.commit(),
            Action::Reply(ticket, reply) => self.reply(ticket, reply),
        }
    }

    /// The lifeline with the first messages in it, and all else that a successor is given.
    fn prepare(&mut self, attempt: Attempt) -> io::Result<Job> {
        let (lifeline, theirs) = Lifeline::pair()?;
        let current = self.current.insert(Current::new(attempt, lifeline));
        let passed: Vec<_> = self
            .sockets
            .untouched()
            .map(|(name, socket, number)| Ok((name.to_owned(), socket.try_clone_to_owned()?, number)))
            .collect::<io::Result<_>>()?;
        // Above the numbers that the sockets of systemd take in the child.
        let above = passed.iter().map(|(.., number)| number + 1).max().unwrap_or(0);
        let lifeline = if above > 0 { sys::duplicate(theirs, above)? } else { theirs };
        let passed = passed
            .into_iter()
            .map(|(name, socket, number)| Ok((name, sys::duplicate(socket, above)?, number)))
            .collect::<io::Result<_>>()?;

        let own = Process::open(std::process::id())?;
        let mut gifts = vec![(Given::Predecessor, own.as_fd())];
        if let Some(server) = &self.server
            && let (Some(path), Some(listener)) = (server.path().to_str(), server.listener())
        {
            gifts.push((Given::Coordination { path: path.into() }, listener));
        }
        let predecessor = self.link.iter().map(|link| link.process());
        for process in self.draining.iter().chain(predecessor).filter(|process| !process.has_ended()) {
            gifts.push((Given::Draining { pid: process.pid() }, process.as_fd()));
        }
        gifts.extend(self.sockets.given().map(|(name, socket)| (Given::Socket { name: name.into() }, socket)));
        let generation = self.link.as_ref().map_or(0, |link| link.generation()) + 1;
        let mut packets = packets(gifts).into_iter().peekable();
        let mut hello = Some(Hello {
            version: wire::VERSION,
            oldest: wire::OLDEST,
            pid: std::process::id(),
            generation,
            probation_ms: self.limits.probation.map(|time| time.as_millis() as u64),
            signal: self.signal.map(|signal| signal as i32),
            given: Vec::new(),
            more: false,
            outcomes: self.chronicle.outcomes(),
        });
        while let Some((given, descriptors)) = packets.next() {
            let more = packets.peek().is_some();
            let message = match hello.take() {
                Some(hello) => Message::Hello(Hello { given, more, ..hello }),
                None => Message::More { given, more },
            };
            current.lifeline.send(&message, &descriptors)?;
        }
        Ok(Job { attempt, lifeline, passed })
    }

    fn say(&mut self, message: &Message) {
        if let Some(current) = &self.current
            && let Err(error) = current.lifeline.send(message, &[])
        {
            // It has gone, which is told by its end.
            log::debug!("cannot write to the successor: {error}");
        }
    }

    /// The service is the successor's for good.
    fn commit(&mut self) {
        self.say(&Message::Commit);
        self.sockets.close();
        if let Some(server) = &mut self.server {
            server.hand_over(self.poll.registry());
        }
        if let Some(process) = self.current.as_ref().and_then(|current| current.process.as_ref()) {
            systemd::handed_over(process.pid());
            if let Some(file) = &self.pid_file {
                file.write(process.pid());
            }
            if let Some(barrier) = Barrier::new()
                && watch(self.poll.registry(), barrier.as_fd(), BARRIER).is_ok()
            {
                self.barrier = Some((barrier, self.epoch.elapsed() + systemd::BARRIER_LIMIT));
                self.rearm();
            }
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let failure = match reply {
            Reply::Failed(cause) => Some(self.failure(cause)),
            _ => None,
        };
        match self.askers.remove(&ticket) {
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
                    log::warn!("the restart signal came in vain: {refusal}");
                }
            }
            Some(Asker::Program) | None => {}
        }
    }

    /// The failure for people: what the program said when it called off, or the machine's cause in the words of the attempt.
    fn failure(&self, cause: Cause) -> Failure {
        match (cause, &self.called_off, &self.current) {
            (Cause::Cancelled, Some(why), _) => Failure::Hook(why.clone()),
            (_, _, Some(current)) => current.failure(cause, self.limits.ready),
            // It ended before anything was started.
            (Cause::Stopping, _, None) => Failure::Stopping,
            (Cause::TimedOut, _, None) => Failure::TimedOut(self.limits.ready),
            (_, _, None) => Failure::Cancelled,
        }
    }

    fn tell(&mut self, notice: Notice) -> Option<Event> {
        Some(match notice {
            Notice::Restarting => {
                if let State::Spawning { attempt, since, .. } = self.machine.state() {
                    self.chronicle.begin(attempt, since);
                }
                self.log(Level::Info, &format!("starting {}", self.program.display()));
                systemd::reloading(self.limits.ready + self.limits.probation.unwrap_or_default());
                Event::Restarting
            }
            Notice::Spawned(pid) => {
                self.log(Level::Info, &format!("process {pid} is getting ready"));
                Event::Spawned(pid)
            }
            Notice::StateRequested(attempt) => {
                let current = self.current.as_mut().filter(|current| current.attempt == attempt)?;
                let (handover, outcome) = Handover::new(current.lifeline.clone(), Some(self.waker.clone()));
                current.handover = Some(outcome);
                Event::StateRequested(handover)
            }
            Notice::Progress(_) => Event::Progress(self.current.as_ref()?.words.progress.clone()?),
            Notice::HandedOff(pid) => {
                self.log(Level::Info, &format!("process {pid} has taken over"));
                Event::HandedOff(pid)
            }
            Notice::Resumed(cause) => {
                let failure = self.failed(cause);
                self.log(Level::Error, &format!("process {} serves again: {failure}", process::id()));
                Event::Resumed(failure)
            }
            Notice::Completed(pid) => {
                self.log(Level::Info, &format!("final, process {pid} serves"));
                Event::Completed(pid)
            }
            Notice::Failed(cause) => {
                let failure = self.failed(cause);
                self.log(Level::Error, &format!("failed, process {} serves on: {failure}", process::id()));
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
                log::error!(target: "pollflip", "{}", Refusal::Broken);
                Event::Broken(Error::rule(Refusal::Broken.to_string()))
            }
            Notice::Committed => {
                log::info!(target: "pollflip", "the predecessor has committed: process {} serves", process::id());
                Event::Committed
            }
        })
    }

    fn failed(&mut self, cause: Cause) -> Failure {
        let failure = self.failure(cause);
        self.called_off = None;
        let text = failure.to_string();
        systemd::still_here(&text);
        self.chronicle.end(false, &text, self.epoch.elapsed());
        self.last_failure = Some(text);
        failure
    }

    fn log(&self, level: Level, text: &str) {
        log::log!(target: "pollflip", level, "{}: {text}", self.chronicle.heading(self.epoch.elapsed()));
    }
}

/// As many as go together.
fn packets<'a>(gifts: Vec<(Given, BorrowedFd<'a>)>) -> Vec<(Vec<Given>, Vec<BorrowedFd<'a>>)> {
    let mut packets: Vec<(Vec<Given>, Vec<_>)> = vec![Default::default()];
    let mut length = ROOM_FOR_HELLO;
    for (given, descriptor) in gifts {
        let room = match &given {
            Given::Socket { name } => wire::room_for(name),
            Given::Coordination { path } => wire::room_for(path),
            Given::Predecessor | Given::Draining { .. } | Given::Unknown => wire::room_for(""),
        };
        if length + room > MAX_PACKET || packets.last().is_some_and(|(given, _)| given.len() == MAX_DESCRIPTORS) {
            packets.push(Default::default());
            length = ROOM_FOR_HELLO;
        }
        length += room;
        if let Some((all, descriptors)) = packets.last_mut() {
            all.push(given);
            descriptors.push(descriptor);
        }
    }
    packets
}

/// More than a first message takes without its sockets: the last outcomes, in the main.
const ROOM_FOR_HELLO: usize = 8 * 1024;

/// Gives up what is under way.
impl Drop for Restarter {
    fn drop(&mut self) {
        match self.machine.state() {
            State::AwaitingReady { .. } | State::Killing { .. } => {
                // Before the lifeline closes, so that it does not take the predecessor for dead and the service for its own.
                if let Some(process) = self.current.as_ref().and_then(|current| current.process.as_ref()) {
                    process.kill();
                    if process.wait(KILL_TIMEOUT).is_none() {
                        log::warn!("the successor (process {}) does not die", process.pid());
                    }
                }
            }
            State::Handoff { phase: Phase::Probation { .. }, .. } => {
                self.feed(Input::Stop);
                while let Some(output) = self.machine.poll_output() {
                    if let Output::Action(action) = output {
                        self.act(action);
                    }
                }
            }
            State::Closed(_) | State::Idle | State::Spawning { .. } | State::Handoff { phase: Phase::Committed, .. } => {}
        }
        let serves = !matches!(self.machine.state(), State::Handoff { .. } | State::Closed(Closed::OnProbation));
        let was_granted = self.link.is_none() || self.heard.opened;
        if serves && was_granted {
            if let Some(server) = &mut self.server {
                server.remove_path();
            }
            if let Some(file) = &self.pid_file {
                file.remove();
            }
        }
    }
}
