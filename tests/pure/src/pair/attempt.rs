//! What the old process does with an attempt that is under way: its end of the lifeline, the process, the restart thread.
//!
//! Knows: `succession.rs`, `attempt.rs`, `lifeline.rs` and `exec.rs`, with ideal means. Does not know: when an output is carried out.

use super::automaton::Move;
use super::laws::Law;
use super::plant::Plant;
use super::search::Run;
use super::setting::Power;
use super::world::{Copying, Handover, Life, Message, Messages, Shortage, Successor, Thread, Wrapper};

impl Run<'_> {
    /// `Exec::abandon`, and the word that goes with it.
    pub fn abandon(&mut self) {
        let plant = self.pair.setting.plant;
        let thread = std::mem::replace(&mut self.world.old.thread, Thread::Idle);
        if let Some(current) = &mut self.world.current {
            match thread {
                // The thread has its end of the lifeline as long as it is at it.
                Thread::Starting => {
                    current.line.to_new = Messages::NONE;
                    current.late = plant != Some(Plant::LeavesTheLate);
                }
                Thread::Started => current.kill(),
                Thread::Idle | Thread::Ordered | Thread::Failed => {}
            }
        }
        self.tell_the_end();
    }

    /// `Current::tell_the_end`: the last message, in the place of all that waits.
    pub fn tell_the_end(&mut self) {
        let is_lost = self.world.old.stalled && self.pair.setting.has(Power::LastWordLost);
        let Some(current) = &mut self.world.current else { return };
        // After the commit nobody is given up.
        current.given_up |= !self.world.old.committed;
        if self.pair.setting.plant == Some(Plant::GivesUpInSilence) {
            return;
        }
        current.line.unsent_by_old = Messages::NONE;
        if !std::mem::replace(&mut current.line.mute, true) && !is_lost && !current.new_end_is_closed() {
            current.line.to_new.push(Message::GivenUp);
        }
    }

    /// `Lifeline::send`; `false`: nobody is there to take it.
    pub fn send(&mut self, message: Message) -> bool {
        self.flush();
        let (stalled, plant) = (self.world.old.stalled, self.pair.setting.plant);
        let Some(current) = &mut self.world.current else { return false };
        if current.line.mute || current.new_end_is_closed() {
            return false;
        }
        if stalled || !current.line.unsent_by_old.is_empty() {
            current.line.unsent_by_old.push(message);
        } else if !Plant::loses(plant, message) {
            current.line.to_new.push(message);
            if Plant::overtakes(plant, message) {
                current.line.to_new.swap_last();
            }
        }
        true
    }

    pub fn flush(&mut self) {
        let stalled = self.world.old.stalled;
        let Some(current) = &mut self.world.current else { return };
        if stalled || current.line.unsent_by_old.is_empty() {
            return;
        }
        if current.new_end_is_closed() {
            current.line.unsent_by_old = Messages::NONE;
            current.line.mute = true;
        } else {
            current.line.to_new.append(&mut current.line.unsent_by_old);
        }
    }

    /// `Current::grant`, and what follows from it.
    pub fn grant(&mut self) {
        let is_dying = self.is_seen_dying();
        let Some(current) = &self.world.current else { return };
        let is_blind = self.pair.setting.plant == Some(Plant::GrantsTheDead);
        let may = is_blind || (!current.child_has_ended() && !is_dying);
        let told = may && (self.send(Message::Granted) || is_blind);
        if told && self.world.current.is_some_and(|current| current.child_has_ended()) {
            self.breaks(Law::DeadGranted);
        }
        let Some(current) = &mut self.world.current else { return };
        current.held.granting = told;
        current.held.deaf |= !told;
        if !told && is_dying {
            self.feed(Move::Dying);
        } else if !told {
            self.look_at_successor();
        } else if self.has_taken_the_grant() {
            self.feed(Move::Granted);
        }
    }

    pub fn has_taken_the_grant(&mut self) -> bool {
        let is_blind = self.pair.setting.plant == Some(Plant::GrantsTheDead);
        let Some(current) = &mut self.world.current else { return false };
        let sent = current.line.unsent_by_old.is_empty() && !current.line.mute;
        let taken = current.held.granting && (sent || is_blind);
        if taken && current.held.reaped {
            self.breaks(Law::DeadGranted);
        }
        let Some(current) = &mut self.world.current else { return false };
        if taken {
            current.held.granting = false;
            current.held.granted = true;
            current.granted = true;
        }
        taken
    }

    pub fn is_seen_dying(&self) -> bool {
        !self.pair.setting.has(Power::Unseen) && self.world.current.is_some_and(|current| current.child_is_dying())
    }

    /// `Current::tell_commit`.
    pub fn tell_commit(&mut self) {
        if let Some(current) = &mut self.world.current {
            current.held.committing = true;
        }
        self.send(Message::Commit);
        if self.has_taken_the_commit() {
            self.feed(Move::CommitTaken);
        }
    }

    fn has_taken_the_commit(&mut self) -> bool {
        let is_blind = self.pair.setting.plant == Some(Plant::TakenUnheard);
        let Some(current) = &mut self.world.current else { return false };
        let taken = current.held.committing && current.line.unsent_by_old.is_empty();
        current.held.committing &= !taken;
        taken && !is_blind
    }

    /// Whether the successor may have said something in time that cannot be read yet.
    pub fn has_unread(&self) -> bool {
        let reads = |current: &Successor| current.held.process && !current.held.closed;
        self.world.old.shortage == Shortage::Short && self.world.current.as_ref().is_some_and(reads)
    }

    /// `Succession::check`, and what is fed of it.
    pub fn check(&mut self) {
        let is_dying = self.is_seen_dying();
        let has_failed = self.world.current.is_some_and(|current| current.child_has_ended() || is_dying);
        let is_blind = self.pair.setting.plant == Some(Plant::ChecksBlindly);
        self.feed(if has_failed && !is_blind { Move::Dying } else { Move::Sound });
    }

    pub fn look_at_thread(&mut self) {
        let thread = self.world.old.thread;
        if matches!(thread, Thread::Started | Thread::Failed) {
            self.world.old.thread = Thread::Idle;
            let is_born = thread == Thread::Started;
            if let Some(current) = &mut self.world.current {
                current.held.process = is_born;
            }
            self.feed(if is_born { Move::Spawned } else { Move::SpawnFailed });
        }
        if self.world.old.thread_lost {
            self.feed(Move::ThreadLost);
        }
    }

    /// `Current::read`: the end of the process first, then the lifeline until it is empty; and what
    /// the loop feeds of it.
    pub fn look_at_successor(&mut self) {
        if let Some(current) = &mut self.world.current {
            current.held.reaped |= current.held.process && current.child_has_ended();
        }
        if self.world.current.is_some_and(|current| current.held.granting && current.held.reaped)
            && self.pair.setting.plant != Some(Plant::GrantsLate)
        {
            self.tell_the_end();
            self.world.current.iter_mut().for_each(|current| current.held.granting = false);
        }
        self.flush();
        let mut said = Vec::new();
        if let Some(current) = &mut self.world.current
            && std::mem::take(&mut current.held.failed)
        {
            if current.held.granted {
                current.held.deaf = true;
            } else {
                current.held.granting = false;
                said.push(Move::HandoverFailed);
            }
        }
        if self.has_taken_the_grant() {
            said.push(Move::Granted);
        }
        if self.has_taken_the_commit() {
            said.push(Move::CommitTaken);
        }
        let (plant, shortage) = (self.pair.setting.plant, self.world.old.shortage);
        let Some(current) = &mut self.world.current else { return };
        current.look_at_handover(&mut said);
        // `Outbox::has_room_again`.
        if current.held.copy == Copying::Full && current.line.unsent_by_old.is_empty() {
            current.held.copy = Copying::Open;
            said.push(Move::PrecopyRoom);
        }
        let (is_read, has_unread) = (shortage == Shortage::None, shortage == Shortage::Short && !current.held.closed);
        if plant == Some(Plant::CloseForgotten) && current.held.closed && !current.held.exited {
            current.held.closed = false;
            return;
        }
        let was_closed = current.held.closed;
        while current.held.process && !current.held.closed {
            let message = if is_read { current.line.to_old.pop() } else { None };
            if message == Some(Message::Ready) {
                current.look_at_handover(&mut said);
            }
            match message {
                Some(Message::Here) if current.wrapper != Wrapper::None => said.push(Move::HereAnother),
                Some(Message::Here) => said.push(Move::Here),
                Some(Message::PrecopyPull) => said.push(Move::PrecopyRequested),
                Some(Message::Pull) => said.push(Move::StateRequested),
                Some(Message::Refuse) => said.push(Move::Refused),
                Some(Message::Ready) => said.push(Move::Ready),
                Some(Message::Progress) => said.push(Move::Progress),
                Some(_) => said.push(Move::Garbage),
                None if has_unread => break,
                None if current.held.deaf || (is_read && current.new_end_is_closed()) => current.held.closed = true,
                None => break,
            }
        }
        if current.held.reaped && !current.held.exited && !has_unread {
            (current.held.exited, current.held.closed) = (true, true);
            said.push(Move::Exited);
        } else if current.held.closed && !was_closed {
            said.push(Move::LifelineClosed);
        } else if has_unread && current.held.process && !current.held.closed {
            said.push(Move::Unread);
        }
        for said in Plant::driver_says(plant, said) {
            self.feed(said);
        }
    }
}

impl Successor {
    /// What was started is killed.
    pub fn kill(&mut self) {
        self.killed = true;
        match self.wrapper {
            Wrapper::None if self.life == Life::Alive => self.life = Life::Dying,
            Wrapper::None => {}
            Wrapper::Runs | Wrapper::Ended => self.wrapper = Wrapper::Ended,
        }
    }

    fn look_at_handover(&mut self, said: &mut Vec<Move>) {
        match self.held.handover {
            Handover::None | Handover::Open => return,
            Handover::Sent => said.push(Move::HandoverSent),
            Handover::Failed => said.push(Move::HandoverFailed),
            Handover::Gone => self.held.deaf = true,
        }
        self.held.handover = Handover::None;
    }

    pub fn kill_late(&mut self) {
        self.late = false;
        self.kill();
    }
}
