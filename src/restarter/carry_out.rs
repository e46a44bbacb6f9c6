//! What the machines put out: actions are carried out, notices become events. The only place where two parts meet.
//!
//! Knows: which part does what. Does not know: when; that is the machines'.

use std::process;
use std::time::Duration;

use log::Level;

use crate::error::{Error, Exit, Refusal};
use crate::machine::{Action, Attempt, Cause, Input, Notice, Output, Reply, Side, State, TakeoverNotice, TakeoverOutput, Ticket};
use crate::predecessor::Ahead;
use crate::systemd;
use crate::wire::Response;

use super::part::{Moment, Part};
use super::requests::Asker;
use super::{Event, Restarter};

impl Restarter {
    /// Carries out what the machine has, up to the next thing to tell.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        loop {
            match self.ancestry.next_arrival() {
                Some(Ahead::Arrived(arrival)) => return Some(Event::Arrived(arrival)),
                Some(Ahead::All) => return Some(Event::ArrivedAll),
                None => {}
            }
            // Not before it goes to the program: with the state taken, that may be ready.
            if let Some(inheritance) = self.ancestry.inherited() {
                return Some(Event::Inherited(inheritance));
            }
            let Some(output) = self.driver.next_output() else {
                self.settle();
                return None;
            };
            match output {
                Output::Action(action) => self.carry_out(action),
                Output::Notice(notice) => {
                    if let Some(event) = self.tell(notice) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Nothing is left to do for now.
    fn settle(&mut self) {
        if matches!(self.driver.state(), State::Idle | State::Closed(_)) {
            self.succession.rest(&self.reactor);
        }
        self.succession.reap(&self.reactor);
        if self.is_stopped() {
            // Nobody comes to whom they could be passed on.
            self.sockets.close_all();
        }
        self.requests.open(&self.reactor);
        self.rearm();
    }

    pub(super) fn carry_out(&mut self, action: Action) {
        log::trace!("{action:?}");
        let mut inputs = Vec::new();
        match action {
            Action::Spawn(attempt) => {
                let prepared = self.prepare(attempt);
                self.sockets.are_given();
                inputs.extend(self.succession.spawn(attempt, prepared, &self.reactor));
            }
            Action::Abandon(attempt) => self.succession.abandon(attempt),
            Action::Kill(_) => self.succession.kill(),
            Action::Steer(Side::Successor) => inputs.extend(self.steer_to_successor()),
            Action::Steer(Side::This) => self.steer_to_this(),
            Action::Grant(attempt) => match self.lacks_sockets(attempt) {
                Some(failed) => inputs.push(failed),
                None => self.succession.grant(attempt, &self.reactor, &mut inputs),
            },
            Action::Check(attempt) => inputs.push(self.succession.check(attempt)),
            Action::Commit(_) => {
                if let Some(pid) = self.succession.successor_becomes_main(systemd::is_there()) {
                    self.manager.name_main_pid(pid);
                    self.paths.name(pid);
                }
                self.manager.begin_commit(&self.reactor);
                inputs.push(Input::ManagerAsked);
                let moment = Moment::at(self.reactor.now());
                self.manager.poll(&moment, &self.reactor, &mut inputs);
            }
            Action::TellCommit(_) => {
                // Until the successor is told, it takes nobody in.
                self.requests.hand_over(&self.reactor);
                inputs.extend(self.succession.tell_commit());
            }
            Action::Hold(whose) => {
                self.keeper.hold(whose);
                self.tell_keeper();
            }
            Action::LetSurvivorsGo => {
                self.keeper.let_survivors_go();
                self.tell_keeper();
            }
            Action::Reply(ticket, reply) => self.reply(ticket, reply),
            Action::TellStopping => {
                self.manager.stopping(self.reactor.now());
                self.keeper.stop();
                self.tell_keeper();
            }
        }
        self.feed_all(inputs);
    }

    /// The successor of that attempt has other sockets than this process, which it would serve from.
    pub(super) fn lacks_sockets(&mut self, attempt: Attempt) -> Option<Input> {
        let changed = self.sockets.changed()?;
        let why = format!("{changed} after the successor had been given the sockets; ask for the restart again");
        self.succession.cannot_hand_over(&why);
        Some(Input::HandoverFailed(attempt))
    }

    /// What is unmarked goes to the successor; or why it cannot.
    fn steer_to_successor(&mut self) -> Option<Input> {
        let living = self.ancestry.living_pids();
        let why = self.sockets.steer_to_successor(|pid| living.contains(&pid)).err()?;
        self.succession.cannot_steer(why)
    }

    /// What is unmarked goes to this process, and so does what bears the mark of a generation that has ended.
    fn steer_to_this(&mut self) {
        let living = self.ancestry.living_pids();
        if let Err(why) = self.sockets.steer_to_this(|pid| living.contains(&pid)) {
            log::error!(target: "pollflip", "what of the UDP datagrams was another generation's does not come to this process: {why}");
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if let Reply::Failed(_) = reply {
            // Before anybody knows: who is told may end this process at once.
            self.succession.tell_the_end();
        }
        let response = || match reply {
            Reply::Completed(pid) => Response::RestartComplete(pid),
            Reply::Refused(refusal) | Reply::Forbidden(refusal) if refusal.is_permanent() => {
                Response::RestartImpossible(refusal.to_string())
            }
            Reply::Refused(refusal) | Reply::Forbidden(refusal) => Response::RestartRefused(refusal.to_string()),
            Reply::Failed(cause) => Response::RestartFailed(self.succession.failure(cause).to_string()),
        };
        let asker = self.requests.reply(ticket, response, &self.reactor);
        if let Reply::Refused(refusal) | Reply::Forbidden(refusal) = reply {
            self.preconditions.asked_in_vain(refusal);
        }
        if let (Some(Asker::Signal), Reply::Refused(refusal) | Reply::Forbidden(refusal)) = (asker, reply) {
            log::warn!(target: "pollflip", "the restart signal does nothing: {refusal}");
            if let Reply::Forbidden(_) = reply {
                // With Type=notify-reload it is systemd that has sent the signal, and it waits for an answer.
                self.manager.reloading(Duration::ZERO);
                self.manager.still_here(&refusal.to_string());
            }
        }
    }

    fn tell(&mut self, notice: Notice) -> Option<Event> {
        Some(match notice {
            Notice::Restarting => {
                match self.driver.state() {
                    State::Spawning { attempt, since, .. } => self.succession.begin(attempt, since),
                    _ => self.succession.begin_next(self.reactor.now()),
                }
                self.log(Level::Info, &format!("starting {}", self.succession.program().display()));
                let limits = self.driver.limits();
                self.manager.reloading(limits.ready.saturating_add(limits.probation.unwrap_or_default()));
                Event::Restarting
            }
            Notice::Spawned(pid) => {
                self.log(Level::Info, &format!("process {pid} is getting ready"));
                Event::Spawned(pid)
            }
            Notice::PrecopyRequested(attempt) => {
                self.log(Level::Info, "the successor asks for what can go ahead of the state");
                Event::PrecopyRequested(self.succession.begin_precopy(attempt, self.reactor.waker().clone())?)
            }
            Notice::PrecopyRoom(_) => Event::PrecopyRoom,
            Notice::StateRequested(attempt) => {
                self.log(Level::Info, "the successor asks for the state");
                Event::StateRequested(self.succession.begin_handover(attempt, self.reactor.waker().clone())?)
            }
            Notice::Progress(_) => {
                let text = self.succession.take_progress()?;
                self.requests.progress(&text);
                self.manager.progress(&text);
                Event::Progress(text)
            }
            Notice::HandedOff(pid) => {
                let mut text = format!("process {pid} has taken over");
                if let Some(time) = self.driver.limits().probation {
                    text += &format!(", on probation for {time:?}");
                    // The one who asked has to wait for so long.
                    self.requests.progress(&text);
                }
                if let Some(path) = self.succession.same_program() {
                    self.requests.progress(&same_file(path));
                    text += &format!("; {}", same_file(path));
                }
                self.log(Level::Info, &text);
                Event::HandedOff(pid)
            }
            Notice::Resumed(cause) => {
                let failure = self.succession.failed(cause, self.reactor.now());
                self.manager.still_here(&failure.to_string());
                self.log(Level::Error, &format!("process {} serves again: {failure}", process::id()));
                Event::Resumed(failure)
            }
            Notice::Completed(pid) => {
                self.manager.end_commit(&self.reactor);
                // Not before those who asked have been answered: there can be many.
                self.sockets.close();
                self.keeper.close();
                self.log(Level::Info, &format!("final, process {pid} serves"));
                Event::Completed(pid)
            }
            Notice::Failed(cause) => {
                let failure = self.succession.failed(cause, self.reactor.now());
                self.manager.still_here(&failure.to_string());
                self.log(Level::Error, &format!("failed, process {} keeps serving: {failure}", process::id()));
                if matches!(cause, Cause::TimedOut | Cause::FreezeTimedOut) && self.succession.is_handing_over() {
                    self.log(Level::Error, "the successor waited for the state: this program still has the Handover, and has not sent it");
                }
                Event::Failed(failure)
            }
            Notice::SuccessorGone(pid) => {
                // It may have been replaced by a later one, or told to end.
                let end = self.succession.exit();
                let level = if end == Some(Exit::Code(0)) { Level::Info } else { Level::Error };
                self.log(level, &format!("process {pid}, which had taken over, {}", end.unwrap_or(Exit::Unknown)));
                Event::SuccessorGone(pid)
            }
            Notice::Broken => {
                let error = Error::NoMoreRestarts(Refusal::RestartThreadGone);
                log::error!(target: "pollflip", "{error}");
                self.manager.still_here("no restart is possible any more");
                Event::NoMoreRestarts(error)
            }
            Notice::Predecessor(TakeoverNotice::Granted) => Event::Granted,
            Notice::Predecessor(TakeoverNotice::Committed) => Event::Committed,
            Notice::Predecessor(TakeoverNotice::GivenUp) => Event::GivenUp(self.ancestry.predecessor_pid()?),
            Notice::GenerationEnded => Event::GenerationEnded(self.ancestry.next_ended(&self.reactor)?),
            Notice::Predecessor(TakeoverNotice::PredecessorGone) => Event::PredecessorGone,
            Notice::Predecessor(TakeoverNotice::LineLost) => return None,
        })
    }

    fn log(&self, level: Level, text: &str) {
        let (own, generation) = (process::id(), self.generation());
        let heading = self.succession.heading(self.reactor.now());
        log::log!(target: "pollflip", level, "process {own}, generation {generation} → {}, {heading}: {text}", generation.saturating_add(1));
    }

    pub(super) fn carry_out_takeover(&mut self, output: TakeoverOutput) {
        match output {
            TakeoverOutput::Sole => self.feed(Input::Sole),
            TakeoverOutput::Open => self.open(),
            TakeoverOutput::MarksFreed => self.feed(Input::MarksFreed),
            TakeoverOutput::Answer => self.requests.answer_alone(),
            TakeoverOutput::TakeService { name_main_pid } => self.take_service(name_main_pid),
            TakeoverOutput::Notice(notice) => {
                let (own, predecessor) = (process::id(), self.ancestry.predecessor_pid().unwrap_or_default());
                match notice {
                    TakeoverNotice::Committed => {
                        let how =
                            if self.ancestry.predecessor_lives() { "handed the service over, and cannot take it back" } else { "ended" };
                        log::info!(target: "pollflip", "the predecessor (process {predecessor}) has {how}: process {own} serves");
                    }
                    TakeoverNotice::LineLost => {
                        log::warn!(
                            target: "pollflip",
                            "the lifeline to the predecessor (process {predecessor}) is lost: nothing more is heard of it but its end"
                        );
                    }
                    TakeoverNotice::PredecessorGone => self.ancestry.stay_with_guard(),
                    TakeoverNotice::Granted | TakeoverNotice::GivenUp => {}
                }
                self.feed(Input::Predecessor(notice));
            }
        }
    }

    /// The program may serve.
    fn open(&mut self) {
        self.sockets.close_unclaimed();
        // The predecessor has done so, unless it has ended, or a generation has since.
        self.steer_to_this();
        if let Some(pid) = self.ancestry.predecessor_pid() {
            let end = if self.ancestry.is_alone() { ", which had ended" } else { "" };
            let again = self.ancestry.same_program().map(|path| format!("; {}", same_file(path))).unwrap_or_default();
            let text = format!("process {} took over from process {pid}{end}{again}", process::id());
            self.succession.took_over(&text, self.reactor.now());
        }
    }

    /// The service is this process's.
    fn take_service(&mut self, name_main_pid: bool) {
        let predecessor = self.ancestry.predecessor_pid();
        if name_main_pid {
            self.manager.name_main_pid(process::id());
        }
        self.paths.take(predecessor);
        self.keeper.take_service(self.ancestry.is_alone(), self.sockets.kept(), self.sockets.kept_groups());
        self.tell_keeper();
        self.ancestry.settle_memory();
        self.feed(Input::Opened);
    }
}

/// A restart that starts no new release is a success, and may not be what was wanted.
fn same_file(path: &str) -> String {
    format!("the same file as before: {path}")
}
