//! The attempt under way as the driver holds it: what the state machine only names.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ChildSpawnError, Exit, Failure};
use crate::exec::Memory;
use crate::handover::{Ending, Mailbox};
use crate::lifeline::{Incoming, Lifeline};
use crate::machine::{Attempt, Cause, GRANT_TIMEOUT, Input, Limits, Violation};
use crate::precopy::{Copying, CopyingNews};
use crate::sys::Process;
use crate::wire::{self, Message};

use super::super::reactor::{Deadline, Due, earliest};
use super::life::Life;

/// How many messages are read before others have their turn.
const TURN: usize = 64;

/// One try at a restart, from the spawn until the successor has ended.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) attempt: Attempt,
    pub(super) lifeline: Arc<Lifeline>,
    /// What goes ahead of the state, until that is asked for.
    pub(super) copying: Option<Copying>,
    /// How the handover ends, while it is open.
    pub(super) handover: Option<Arc<Mailbox>>,
    /// The program has been asked for the state.
    pub(super) is_frozen: bool,
    pub(super) process: Option<Arc<Process>>,
    pub(super) words: Words,
    /// Its standing when memory is short.
    pub(super) memory: Memory,
    /// It was killed by this process.
    killed: bool,
    /// When the next line is passed on, at the earliest.
    pub(super) next_line: Duration,
    /// It is being told that the service is its own.
    granting: bool,
    /// It has been told: the kernel has taken it.
    pub(super) granted: bool,
    /// A service manager takes it for the service, and is to learn how it ends.
    pub(super) supervised: bool,
    /// It is being told that this is final.
    committing: bool,
    /// Nothing more can be heard of it.
    closed: bool,
    /// It takes nothing any more, although it may still have said something.
    deaf: bool,
    pub(super) life: Life,
}

/// The words that belong to the causes of this attempt.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) spawn: Option<ChildSpawnError>,
    pub(super) refusal: Option<String>,
    pub(super) handover: Option<String>,
    pub(super) steering: Option<String>,
    /// The last line that it said of itself: until somebody is told, from then on, and until the program has been told.
    pub(super) heard: Option<String>,
    pub(super) progress: Option<String>,
    pub(super) untold: Option<String>,
    /// The last error that it got from this crate.
    trouble: Option<String>,
    /// The last that was heard of it, line or error.
    last: Option<String>,
    violation: Option<String>,
    /// The path of its program, if that is the very file that this process executes.
    pub(super) again: Option<String>,
}

/// What the successor has said or done.
#[derive(Debug)]
pub(super) enum Said {
    Input(Input),
    Progress(String),
}

impl Current {
    pub(super) fn new(attempt: Attempt, lifeline: Lifeline) -> Current {
        Current {
            attempt,
            lifeline: Arc::new(lifeline),
            copying: None,
            handover: None,
            is_frozen: false,
            process: None,
            words: Words::default(),
            memory: Memory::default(),
            killed: false,
            next_line: Duration::ZERO,
            granting: false,
            granted: false,
            supervised: false,
            committing: false,
            closed: false,
            deaf: false,
            life: Life::default(),
        }
    }

    /// Looks for the end of the process and of the handover, then reads the lifeline empty. The flag says that there may be more.
    pub(super) fn read(&mut self) -> (Vec<Said>, bool) {
        let mut said = Vec::new();
        // Before all else: what was said and done before it ended counts, and is there once it has.
        if self.life.exit().is_none()
            && let Some(exit) = self.process.as_ref().and_then(|process| self.end_of(process))
        {
            self.life.ends(exit);
        }
        if self.granting && self.life.exit().is_some() {
            // A helper may have a copy of its end, and would take the grant.
            self.granting = false;
            self.tell_the_end();
        }
        self.lifeline.flush();
        if let Some(error) = self.lifeline.take_failure() {
            if self.granted {
                log::warn!(target: "pollflip", "the successor cannot be told that the restart is final, and takes no request for one while this process lives: {error}");
                self.deaf = true;
            } else {
                self.granting = false;
                self.words.handover.get_or_insert_with(|| format!("the kernel does not take what was given: {error}"));
                said.push(Said::Input(Input::HandoverFailed(self.attempt)));
            }
        }
        if self.has_taken_the_grant() {
            said.push(Said::Input(Input::Granted(self.attempt)));
        }
        said.extend(self.has_taken_the_commit().map(Said::Input));
        self.look_at_copying(&mut said);
        self.look_at_handover(&mut said);
        let was_closed = self.closed;
        let mut more = true;
        for _ in 0..TURN {
            more = false;
            if self.process.is_none() || self.closed {
                break;
            }
            match self.lifeline.receive() {
                None if self.lifeline.may_have_unread() => break,
                None if self.deaf => self.closed = true,
                None => break,
                Some(Incoming::Message(message, _)) => self.hear(message, &mut said),
                Some(Incoming::Garbage(why)) => self.garbage(why, &mut said),
                Some(Incoming::Closed) => self.closed = true,
            }
            more = true;
        }
        // The end waits for the last words, which may be the reason. `Unread` does not do that: it puts deadlines off, and the end is
        // none, after which nothing is asked for.
        if !more && matches!(self.life, Life::Ended(_)) && !self.lifeline.may_have_unread() {
            self.life.closes();
            // Nothing more is read of what it has said.
            self.lifeline.read_no_more();
            self.closed = true;
            said.push(Said::Input(Input::Exited(self.attempt)));
        } else if self.closed && !was_closed {
            said.push(Said::Input(Input::LifelineClosed(self.attempt)));
        } else if self.lifeline.may_have_unread() {
            said.push(Said::Input(Input::Unread(self.attempt)));
        }
        (said, more)
    }

    /// Tells it that the service is its own; `false`: it takes nothing any more.
    pub(super) fn grant(&mut self) -> bool {
        // It may have died since it said that it is ready: then the service stays here.
        let told = !self.has_ended() && !self.is_dying() && self.lifeline.send(&Message::Granted, &[]).is_ok();
        self.granting = told;
        // If it does not end, that is as good as a closed lifeline.
        self.deaf |= !told;
        told
    }

    /// Whether its end has begun, and is not over.
    pub(super) fn is_dying(&mut self) -> bool {
        let begun = self.process.as_ref().filter(|process| !process.has_ended()).and_then(|process| process.dying());
        if let Some(exit) = begun {
            self.life.begins_to_end(exit);
        }
        begun.is_some()
    }

    /// Says once that the grant has left this process: one that only waits to be sent would be lost with it.
    pub(super) fn has_taken_the_grant(&mut self) -> bool {
        let taken = self.granting && self.lifeline.has_sent_all();
        if taken {
            (self.granting, self.granted) = (false, true);
        }
        taken
    }

    /// Tells it that this is final.
    pub(super) fn tell_commit(&mut self) -> Option<Input> {
        self.committing = true;
        if let Err(error) = self.lifeline.send(&Message::Commit, &[]) {
            // If it has gone, that is told by its end.
            let level = if error.kind() == io::ErrorKind::BrokenPipe { log::Level::Debug } else { log::Level::Warn };
            log::log!(target: "pollflip", level, "the successor cannot be told that the restart is final: {error}");
        }
        self.has_taken_the_commit()
    }

    /// Says once that the commit has left this process, or never will.
    fn has_taken_the_commit(&mut self) -> Option<Input> {
        let taken = self.committing && self.lifeline.waiting() == 0;
        self.committing &= !taken;
        taken.then_some(Input::CommitTaken(self.attempt))
    }

    fn end_of(&self, process: &Process) -> Option<Exit> {
        let exit = if self.supervised { process.try_wait_leaving_failures() } else { process.try_wait() }?;
        Some(if self.killed { exit } else { self.memory.explain(exit) })
    }

    fn look_at_copying(&mut self, said: &mut Vec<Said>) {
        match self.copying.as_ref().and_then(|copying| copying.poll()) {
            Some(CopyingNews::Room) => said.push(Said::Input(Input::PrecopyRoom(self.attempt))),
            Some(CopyingNews::Failed(reason)) => {
                self.words.handover.get_or_insert(reason);
                said.push(Said::Input(Input::HandoverFailed(self.attempt)));
            }
            // It may have refused before, and ends in a moment: both say more.
            Some(CopyingNews::Gone) => self.deaf |= !self.killed,
            None => {}
        }
    }

    fn look_at_handover(&mut self, said: &mut Vec<Said>) {
        let Some(ending) = self.handover.as_ref().and_then(|mailbox| mailbox.take()) else { return };
        self.handover = None;
        match ending {
            Ending::Sent => said.push(Said::Input(Input::HandoverSent(self.attempt))),
            Ending::Failed(reason) => {
                self.words.handover.get_or_insert(reason);
                said.push(Said::Input(Input::HandoverFailed(self.attempt)));
            }
            // It may have refused before, and ends in a moment: both say more.
            Ending::Gone => self.deaf |= !self.killed,
        }
    }

    /// Whether it takes nothing any more: its end tells why.
    pub(super) fn is_gone(&self) -> bool {
        let is_found_gone =
            self.copying.as_ref().is_some_and(Copying::is_gone) || self.handover.as_ref().is_some_and(|mailbox| mailbox.is_gone());
        self.deaf || is_found_gone
    }

    fn hear(&mut self, message: Message, said: &mut Vec<Said>) {
        let attempt = self.attempt;
        if message == Message::Ready {
            // Another thread may have completed the handover just now, and this is the answer to it.
            self.look_at_handover(said);
        }
        said.push(match message {
            Message::Here { version, oldest, pid, again } => {
                self.words.again = again.map(|path| wire::line(&path));
                if let Err(why) = wire::serves(version, oldest) {
                    return self.garbage(why, said);
                }
                if self.process.as_ref().is_some_and(|process| process.pid() != pid) {
                    let why = format!(
                        "process {pid} answers in place of the one that was started; a wrapper must exec the program, which must not put \
                         itself into the background"
                    );
                    self.words.violation.get_or_insert(why);
                }
                Said::Input(Input::Here(attempt, pid))
            }
            Message::Challenge { number } => {
                // One that asks and does not read the answers is not to have them kept for it, each with a descriptor.
                if let Some(process) = self.process.as_ref().filter(|_| self.lifeline.waiting() == 0) {
                    // If it is gone, that is told by its end.
                    let _ = self.lifeline.send(&Message::Proof { number }, &[process.as_fd()]);
                }
                return;
            }
            Message::PrecopyPull => Said::Input(Input::PrecopyRequested(attempt)),
            Message::Pull => Said::Input(Input::StateRequested(attempt)),
            Message::Refuse { reason } => {
                self.words.refusal.get_or_insert(wire::line(&reason));
                Said::Input(Input::Refused(attempt))
            }
            Message::Progress { text } => {
                let text = wire::line(&text);
                self.words.last = Some(text.clone());
                Said::Progress(text)
            }
            Message::Trouble { reason } => {
                let reason = wire::line(&reason);
                (self.words.trouble, self.words.last) = (Some(reason.clone()), Some(reason));
                return;
            }
            Message::Ready => Said::Input(Input::Ready(attempt)),
            Message::Unknown => return log::debug!("the successor says something that this version does not know"),
            other => return self.garbage(format!("a message for the other side ({})", wire::line(&format!("{other:?}"))), said),
        });
    }

    fn garbage(&mut self, why: String, said: &mut Vec<Said>) {
        self.words.violation.get_or_insert(why);
        said.push(Said::Input(Input::Garbage(self.attempt)));
    }

    /// The last line that the successor said of itself, for the machine; the next one is passed on at that moment at the earliest.
    pub(super) fn pass_on_progress(&mut self, next_line: Duration) -> Option<Input> {
        self.words.untold = Some(self.words.heard.take()?);
        self.next_line = next_line;
        Some(Input::Progress(self.attempt))
    }

    /// When [`Current::read`] is next needed although nothing came.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Due> {
        earliest([
            self.lifeline.retry_in().map(|left| (now + left, Deadline::Unsent)),
            self.words.heard.as_ref().map(|_| (self.next_line, Deadline::Progress)),
        ])
    }

    /// Whether it has ended, reaped or not.
    pub(super) fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.has_ended())
    }

    /// Whether its end has begun, and it is only that nothing has been said of it yet.
    pub(super) fn has_failed_in_silence(&mut self) -> bool {
        if self.has_ended() {
            self.life.begins_to_end(Exit::Unknown);
        }
        self.life.own_end().is_some() || self.is_dying()
    }

    /// Tells the process at the other end that it will not get the service: one that a wrapper has started is out of the reach of a kill. When
    /// it looks, this process may have ended, after a later restart that succeeded: it would take itself for the only one left.
    pub(super) fn tell_the_end(&self) {
        self.lifeline.send_last(&Message::GivenUp);
    }

    /// Returns it if this thread may not kill it.
    pub(super) fn kill(&mut self) -> Option<&Arc<Process>> {
        self.granting = false;
        self.killed = true;
        if self.closed && self.life == Life::Alive {
            // It may have had gigabytes to give back.
            self.is_dying();
        }
        let left = self.process.as_ref().filter(|process| !process.kill());
        self.tell_the_end();
        left
    }

    /// The failure for people: the cause that the machine names, with the words for it.
    pub(super) fn failure(&self, cause: Cause, limits: &Limits) -> Failure {
        let words = &self.words;
        let exit = self.life.exit().unwrap_or(Exit::Unknown);
        match cause {
            Cause::SpawnFailed => match &words.spawn {
                Some(error) => Failure::Spawn(error.clone()),
                None => self.exited(Exit::Unknown),
            },
            Cause::Exited => self.exited(exit),
            Cause::DiedOnProbation => Failure::DiedOnProbation(exit),
            Cause::TimedOut => Failure::TimedOut { limit: limits.ready, last: words.last.clone() },
            Cause::FreezeTimedOut => Failure::FreezeTimedOut { limit: limits.freeze, last: words.last.clone() },
            Cause::Refused => Failure::Refused(words.refusal.clone().unwrap_or_default()),
            Cause::GrantNotTaken => Failure::Handover(format!("the kernel has not taken the grant for {GRANT_TIMEOUT:?}")),
            Cause::HandoverFailed => Failure::Handover(words.handover.clone().unwrap_or_default()),
            Cause::Steering => Failure::Steering(words.steering.clone().unwrap_or_default()),
            // It was on its way out when it was killed: then the way it ended says more, or how it was about to.
            Cause::HungUp => self.life.own_end().map_or(Failure::HungUp, |exit| self.ended_by(exit)),
            Cause::Protocol(violation) => Failure::Protocol(match (violation, &words.violation) {
                (Violation::AskedTwice, _) => "it asked for the state twice".into(),
                (Violation::PrecopyOutOfTurn, _) => "it asked for what can go ahead of the state twice, or after the state".into(),
                (Violation::ReadyTooSoon, _) => "it said that it is ready before it had all of the state it had asked for".into(),
                (Violation::ReadyWithoutState, _) => {
                    "it said that it is ready and had not asked for the state that belongs to what has gone ahead".into()
                }
                (Violation::WrongPid | Violation::Garbage, Some(why)) => why.clone(),
                (Violation::WrongPid | Violation::Garbage, None) => "what it said makes no sense".into(),
            }),
            // Succession has the reason.
            Cause::Cancelled => Failure::Cancelled(String::new()),
            Cause::Stopping => Failure::Stopping,
        }
    }

    fn ended_by(&self, exit: Exit) -> Failure {
        if self.granted { Failure::DiedOnProbation(exit) } else { self.exited(exit) }
    }

    fn exited(&self, exit: Exit) -> Failure {
        Failure::Exited { exit, reason: self.words.trouble.clone() }
    }
}
