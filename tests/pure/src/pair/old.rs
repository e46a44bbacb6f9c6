//! The driver of the old process: what `src/restarter` does with each output of the restart machine, and what it feeds.
//!
//! Knows: `turn.rs`, `carry_out.rs`, `manager.rs`, `end.rs` and `exec.rs`, with ideal means. Does not know: clients, systemd's protocol, words.

use pollflip::internals::machine::{Action, Notice, Output, Reply, Side, Whose};

use super::automaton::{Move, is_committing, is_killing};
use super::laws::Law;
use super::plant::Plant;
use super::room::Room;
use super::search::Run;
use super::setting::{Act, Power};
use super::world::{Barrier, Copying, Handover, Life, Manager, Message, Messages, Shortage, Successor, Thread, Wrapper};

impl Run<'_> {
    pub fn old_acts(&mut self, act: Act) {
        match act {
            Act::Request => {
                self.world.old.owed += 1;
                self.feed(Move::Request);
            }
            Act::Hear => self.feed(Move::Predecessor),
            Act::Cancel => self.feed(Move::Cancel),
            Act::Stop => {
                self.feed(Move::Stop);
                // `Restarter::stop`: the service manager is told at once.
                if self.pair.restarts.facts(self.world.old.machine).queue.first().is_some_and(|first| first == "TellStopping") {
                    self.next_output();
                }
            }
            Act::Drop => self.drop_restarter(),
            Act::Give => self.give(),
            Act::FailToGive => self.end_handover(Handover::Failed),
            Act::GiveAhead => self.give_ahead(Message::Ahead, Copying::Full),
            Act::EndAhead => self.give_ahead(Message::PrecopyComplete, Copying::None),
            Act::FailAhead => {
                self.end_copy();
                self.end_handover(Handover::Failed);
            }
            Act::Poll => self.poll(false),
            Act::PollAtDeadline => self.poll(true),
            Act::ThreadStarts | Act::ThreadStartsWrapper => {
                if let Some(current) = &mut self.world.current {
                    current.life = Life::Alive;
                    current.wrapper = if act == Act::ThreadStarts { Wrapper::None } else { Wrapper::Runs };
                }
                let late = self.pair.setting.has(Power::LateThread) && self.world.earlier.is_none();
                self.world.old.thread = if late { Thread::Starting } else { Thread::Started };
            }
            Act::ThreadFails => self.world.old.thread = Thread::Failed,
            Act::ThreadReports => self.world.old.thread = Thread::Started,
            Act::ThreadLost => {
                self.world.old.thread_lost = true;
                if self.world.old.thread == Thread::Ordered {
                    self.world.old.thread = Thread::Idle;
                }
            }
            Act::NoLifeline => self.world.old.lineless = true,
            Act::Unsteerable => self.world.old.unsteerable = true,
            Act::OldEnds => self.old_ends(),
            Act::OldStalls => self.world.old.stalled = true,
            Act::KernelRefuses => {
                if let Some(current) = &mut self.world.current {
                    current.line.unsent_by_old = Messages::NONE;
                    current.line.mute = true;
                    current.held.failed = true;
                }
            }
            Act::OldHelper => {
                if let Some(current) = &mut self.world.current {
                    current.line.old_copied = true;
                }
            }
            Act::OldGoesOn => self.world.old.stalled = false,
            Act::OldShort => self.world.old.shortage = Shortage::Short,
            Act::OldStaysShort => self.world.old.shortage = Shortage::Long,
            Act::OldReads => self.world.old.shortage = Shortage::None,
            Act::ManagerBusy => self.world.old.manager = Manager::Busy,
            Act::ManagerShort => self.world.old.manager = Manager::Short,
            Act::ManagerAttends => self.world.old.manager = Manager::Attends,
            Act::ManagerAnswers => self.world.old.barrier = Barrier::Passed,
            Act::New(..) => {}
        }
    }

    pub fn feed(&mut self, step: Move) {
        self.world.old.machine = self.pair.restarts.step(self.world.old.machine, step).0;
    }

    pub fn room(&self) -> Room {
        self.pair.restarts.facts(self.world.old.machine).room
    }

    /// `Restarter::poll`: what is left over, or one turn and what comes of it.
    fn poll(&mut self, is_due: bool) {
        if self.next_event() {
            return;
        }
        self.turn(is_due);
        if self.pair.setting.plant != Some(Plant::TurnsWithoutTelling) {
            self.next_event();
        }
    }

    /// `Restarter::next_event`: all up to the next thing to tell.
    fn next_event(&mut self) -> bool {
        loop {
            if self.pair.restarts.facts(self.world.old.machine).queue.is_empty() {
                self.settle();
                return false;
            }
            if self.next_output() {
                return true;
            }
        }
    }

    /// Carries one output out; `true`: the program is told of it.
    fn next_output(&mut self) -> bool {
        let (node, outputs) = self.pair.restarts.step(self.world.old.machine, Move::Output);
        self.world.old.machine = node;
        let mut told = false;
        for output in outputs.iter() {
            match output {
                Output::Action(action) => self.carry_out(*action),
                Output::Notice(notice) => {
                    self.tell(*notice);
                    told = true;
                }
            }
        }
        told
    }

    fn settle(&mut self) {
        let is_resting = matches!(self.room(), Room::Idle | Room::NotReady | Room::Stopping | Room::Broken);
        if is_resting && self.world.current.is_some_and(|current| !current.held.process || current.held.exited) {
            self.let_go();
        }
    }

    /// What is left of an attempt that has ended: it is told so, and its lifeline closes.
    fn let_go(&mut self) {
        self.tell_the_end();
        let Some(mut left) = self.world.current.take() else { return };
        left.line.old_end = false;
        left.line.unsent_by_old = Messages::NONE;
        self.world.old.astray |= left.steered;
        self.world.old.lends |= std::mem::take(&mut left.stored);
        let lives = left.life != Life::Unborn && left.life != Life::Ended;
        let is_out_of_reach = left.wrapper != Wrapper::None || left.late || !left.killed;
        if lives && is_out_of_reach {
            if self.world.earlier.is_some() {
                self.breaks(Law::OneAtATime);
            }
            self.world.earlier = Some(left);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn(_) => {
                if self.world.current.is_some_and(|current| current.held.process && !current.child_has_ended()) {
                    self.breaks(Law::OneAtATime);
                }
                self.let_go();
                if std::mem::take(&mut self.world.old.lineless) {
                    return self.feed(Move::SpawnFailed);
                }
                let stored = std::mem::take(&mut self.world.old.lends);
                self.world.current = Some(Successor { stored, ..Successor::unborn() });
                if self.world.old.thread_lost {
                    self.feed(Move::ThreadLost);
                } else {
                    self.world.old.thread = Thread::Ordered;
                }
            }
            Action::Abandon(_) => self.abandon(),
            Action::Kill(_) => {
                if let Some(current) = &mut self.world.current {
                    current.held.granting = false;
                    current.kill();
                }
                self.tell_the_end();
                if self.pair.setting.plant == Some(Plant::KilledIsEnded) {
                    self.feed(Move::Exited);
                }
            }
            Action::Steer(Side::Successor) => {
                let failed = std::mem::take(&mut self.world.old.unsteerable);
                if let Some(current) = &mut self.world.current {
                    // It may have been taken by some of the sockets.
                    current.steered = true;
                }
                if failed {
                    self.feed(Move::SteeringFailed);
                }
            }
            Action::Steer(Side::This) => {
                self.world.old.astray = false;
                for left in [&mut self.world.current, &mut self.world.earlier].into_iter().flatten() {
                    left.steered = false;
                }
            }
            Action::Grant(_) => self.grant(),
            Action::Check(_) => self.check(),
            Action::Hold(whose) => self.hold(whose),
            // What a process before this one has left.
            Action::LetSurvivorsGo => {}
            Action::Commit(_) => {
                // From here on the end of the successor has the next one started, which looks at what is held.
                if self.world.old.stored {
                    self.breaks(Law::DrainedHeld);
                }
                if self.pair.setting.probation && self.world.current.is_some_and(|current| current.child_has_ended()) {
                    self.breaks(Law::DeadGranted);
                }
                self.world.old.committed = true;
                self.begin_commit();
                if self.pair.setting.plant != Some(Plant::AskedUnheard) {
                    self.feed(Move::ManagerAsked);
                }
                self.look_at_manager();
            }
            Action::TellCommit(_) => self.tell_commit(),
            Action::TellStopping => {
                self.hold(Whose::This);
                (self.world.old.stored, self.world.old.stopped) = (false, true);
            }
            Action::Reply(_, reply) => {
                if matches!(reply, Reply::Failed(_)) {
                    self.tell_the_end();
                }
                match self.world.old.owed.checked_sub(1) {
                    Some(owed) => self.world.old.owed = owed,
                    None => self.breaks(Law::Ticket),
                }
            }
        }
    }

    /// `Keeper::hold`.
    fn hold(&mut self, whose: Whose) {
        match whose {
            Whose::Both => self.world.old.lends = true,
            Whose::This | Whose::Returned => {
                self.world.old.lends = false;
                if let Some(current) = &mut self.world.current {
                    current.stored = false;
                }
            }
            Whose::Successor => self.world.old.stored = false,
        }
    }

    fn tell(&mut self, notice: Notice) {
        let old = &mut self.world.old;
        match notice {
            Notice::PrecopyRequested(_) => {
                if let Some(current) = &mut self.world.current {
                    current.held.copy = Copying::Open;
                }
            }
            Notice::PrecopyRoom(_) => {}
            Notice::StateRequested(_) => {
                // `Succession::begin_handover`.
                self.end_copy();
                if let Some(current) = &mut self.world.current {
                    current.held.handover = Handover::Open;
                }
            }
            Notice::HandedOff(_) => old.serves = false,
            Notice::Resumed(_) => old.serves = true,
            Notice::Completed(_) => {
                old.completed = true;
                // `Manager::end_commit`.
                (old.naming, old.barrier) = (false, Barrier::None);
            }
            Notice::SuccessorGone(_) => old.told_gone = true,
            Notice::Predecessor(_) | Notice::GenerationEnded => {}
            Notice::Restarting | Notice::Spawned(_) | Notice::Progress(_) | Notice::Failed(_) | Notice::Broken => {}
        }
    }

    /// `Manager::begin_commit`. Where there is no manager, nothing is sent, and no sign is waited for.
    fn begin_commit(&mut self) {
        let is_there = self.pair.setting.has(Power::Manager);
        let old = &mut self.world.old;
        let is_asked = is_there && old.manager != Manager::Short;
        (old.naming, old.barrier) = (true, if is_asked { Barrier::Asked } else { Barrier::Passed });
    }

    /// `Manager::poll`.
    fn look_at_manager(&mut self) {
        let old = &mut self.world.old;
        let is_told = old.naming && old.manager == Manager::Attends;
        old.naming &= !is_told;
        let has_passed = old.barrier == Barrier::Passed;
        if has_passed {
            old.barrier = Barrier::None;
        }
        if is_told {
            self.feed(Move::ManagerTold);
        }
        if has_passed {
            self.feed(Move::BarrierPassed);
        }
    }

    /// `Restarter::turn`: the restart thread, the successor, the service manager, the clock.
    fn turn(&mut self, is_due: bool) {
        let deadline = self.deadline();
        self.look_at_thread();
        self.look_at_successor();
        self.look_at_manager();
        // What the turn has brought may have set another one, or put it off, which has not passed.
        if is_due && self.deadline() == deadline && !self.has_unread() {
            self.feed(Move::Timeout);
        }
    }

    /// Which deadline the machine has: that of a restart is the same until the successor is ready, and that of a commit until all know.
    fn deadline(&self) -> Option<(Room, bool)> {
        let facts = self.pair.restarts.facts(self.world.old.machine);
        let room = match facts.room {
            _ if !facts.waits => return None,
            Room::Waiting | Room::Copying | Room::Giving | Room::Given => Room::Spawning,
            room if is_committing(room) => Room::Untold,
            room => room,
        };
        Some((room, facts.line_lost))
    }

    fn give(&mut self) {
        let is_there = self.world.current.is_some_and(|current| !current.line.mute && !current.new_end_is_closed());
        self.end_handover(if is_there { Handover::Sent } else { Handover::Gone });
        self.send(Message::State);
    }

    /// `Precopy::fd` and `Precopy::complete`.
    fn give_ahead(&mut self, message: Message, copy: Copying) {
        self.send(message);
        if let Some(current) = &mut self.world.current {
            current.held.copy = copy;
            current.sent_ahead |= message == Message::Ahead;
        }
    }

    fn end_copy(&mut self) {
        if let Some(current) = &mut self.world.current {
            current.held.copy = Copying::None;
        }
    }

    fn end_handover(&mut self, ending: Handover) {
        if let Some(current) = &mut self.world.current {
            current.held.handover = ending;
        }
    }

    /// `impl Drop for Restarter`.
    fn drop_restarter(&mut self) {
        self.feed(Move::Dropped);
        self.carry_out_the_rest();
        // The restart thread gives up what it is at, and ends.
        if matches!(self.world.old.thread, Thread::Starting | Thread::Started)
            && let Some(current) = &mut self.world.current
        {
            current.kill();
        }
        if let Some(earlier) = self.world.earlier.as_mut().filter(|earlier| earlier.late) {
            earlier.late = false;
            earlier.kill();
        }
        self.world.old.thread = Thread::Idle;
        self.world.old.dropped = true;
        if let Some(current) = &mut self.world.current {
            current.line.old_end = false;
            current.line.unsent_by_old = Messages::NONE;
        }
    }

    /// `Restarter::carry_out_the_rest`: nobody will poll again, and what is under way is waited for, longer
    /// than the machine waits for anybody. What there is to tell is told nobody.
    fn carry_out_the_rest(&mut self) {
        let mut is_given_up = self.pair.setting.plant == Some(Plant::GivesUpUnheard);
        loop {
            while !self.pair.restarts.facts(self.world.old.machine).queue.is_empty() {
                let before = self.world.old;
                if self.next_output() {
                    let old = &mut self.world.old;
                    // But that the service has been handed off is what the program means by it.
                    (old.serves, old.told_gone) = (before.serves && old.serves, before.told_gone);
                }
            }
            let waits = is_committing(self.room()) || is_killing(self.room());
            if self.room() == Room::LettingGo {
                self.feed(Move::GivingUp);
                continue;
            }
            if !waits {
                return;
            }
            let before = self.world;
            // A child that was killed has ended by then.
            if let Some(current) = &mut self.world.current
                && current.killed
                && current.wrapper == Wrapper::None
                && !current.undying
            {
                current.life = Life::Ended;
            }
            self.look_at_successor();
            self.look_at_manager();
            self.feed(Move::Timeout);
            if self.world == before {
                if std::mem::replace(&mut is_given_up, true) {
                    return;
                }
                self.feed(Move::GivingUp);
            }
        }
    }

    fn old_ends(&mut self) {
        let slow = self.pair.setting.has(Power::SlowEnds);
        let old = &mut self.world.old;
        old.life = match old.life {
            Life::Alive if slow => Life::Dying,
            Life::Dying => Life::Closed,
            _ => Life::Ended,
        };
        // What the kernel has not taken dies with it.
        for left in [&mut self.world.current, &mut self.world.earlier].into_iter().flatten() {
            left.line.unsent_by_old = Messages::NONE;
            left.late = false;
        }
    }
}
