//! The driver of a new process: what `src/predecessor` and `ancestry.rs` do with each prompt and output of the takeover machine, and what
//! they feed.
//!
//! Knows: `link.rs`, `hello.rs`, `ancestry.rs` and `turn.rs`, with ideal means. Does not know: sockets, files, the restarts of the new
//! process after its first.

use pollflip::internals::machine::{Inbound, Line, Prompt, Stage, TakeoverOutput};

use super::automaton::{Move, Turn, is_awaiting, serves};
use super::laws::Law;
use super::plant::Plant;
use super::room::Room;
use super::search::Run;
use super::setting::{Power, Step};
use super::world::{Life, Message, Successor, Thread, Which, Wrapper};

impl Run<'_> {
    pub fn new_acts(&mut self, which: Which, step: Step) {
        match step {
            Step::Adopt => self.adopt(which),
            Step::Look => self.look(which, false, false),
            Step::LookUnusable => self.look(which, true, false),
            Step::LookAtDeadline => self.look(which, false, true),
            Step::Loop => self.loops(which),
            Step::PullPrecopy => {
                self.of(which).precopied = true;
                self.takes_in(which, Turn::PullPrecopy);
            }
            Step::Pull | Step::PullTheRest => {
                self.of(which).asked = true;
                self.takes_in(which, Turn::Pull);
            }
            Step::TakeState => {
                self.of(which).taken = true;
                let of = *self.of(which);
                if of.sent_ahead && !of.holds_ahead {
                    self.breaks(Law::AheadMissing);
                }
                self.takes_in(which, Turn::StateTaken);
            }
            Step::TellProgress => {
                self.of(which).progressed = true;
                self.say(which, Message::Progress);
            }
            Step::SayReady => self.takes_in(which, Turn::SayReady),
            Step::Refuse => {
                self.of(which).refused = true;
                self.takes_in(which, Turn::SayRefuse);
            }
            Step::CloseLine => {
                let of = self.of(which);
                of.line.new_end = false;
                of.line.to_new = Default::default();
                of.line.unsent_by_new = Default::default();
            }
            Step::ShutLine => self.of(which).line.shut = true,
            Step::TalkGarbage => {
                self.of(which).garbled = true;
                self.say(which, Message::Garbage);
            }
            Step::Stalls => self.of(which).line.stalled = true,
            Step::GoesOn => self.of(which).line.stalled = false,
            Step::Short => self.of(which).line.short = true,
            Step::Reads => self.of(which).line.short = false,
            Step::Ends => self.new_ends(which),
            Step::WrapperEnds => self.of(which).wrapper = Wrapper::Ended,
            Step::Undying => self.of(which).undying = true,
            Step::DiesAtLast => self.of(which).undying = false,
            Step::LateKill => self.of(which).kill_late(),
            Step::Helper => self.of(which).line.new_copied = true,
            Step::Rebuild => {
                self.loops(which);
                let of = self.of(which);
                (of.machine, of.took_service) = (0, false);
                self.takes_in(which, Turn::Attach);
            }
            Step::Stop => {
                let machine = self.of(which).machine;
                self.of(which).machine = self.pair.restarts.step(machine, Move::Stop).0;
            }
        }
    }

    fn of(&mut self, which: Which) -> &mut Successor {
        let of = match which {
            Which::Current => &mut self.world.current,
            Which::Earlier => &mut self.world.earlier,
        };
        of.as_mut().expect("only a process that is there does something")
    }

    /// `Link::read_hello` and `Link::introduce`: what does not begin as it must makes no successor.
    fn adopt(&mut self, which: Which) {
        if self.of(which).line.to_new.pop() != Some(Message::Hello) {
            self.of(which).orphaned = true;
            return;
        }
        self.of(which).takeover = Some(0);
        self.say(which, Message::Here);
    }

    /// `Link::say`.
    fn say(&mut self, which: Which, message: Message) {
        let old = self.world.old.life;
        let of = self.of(which);
        if !of.line.new_end || of.old_end_is_closed(old) {
            return;
        }
        if of.line.stalled || !of.line.unsent_by_new.is_empty() {
            of.line.unsent_by_new.push(message);
        } else {
            of.line.to_old.push(message);
        }
    }

    fn stage(&mut self, which: Which) -> Stage {
        let node = self.of(which).takeover.expect("it has adopted its lifeline");
        self.pair.takeovers.facts(node).stage
    }

    /// Feeds the machine, and carries its prompts out.
    fn takes_in(&mut self, which: Which, turn: Turn) {
        let node = self.of(which).takeover.expect("it has adopted its lifeline");
        let (node, effect) = self.pair.takeovers.step(node, turn);
        self.of(which).takeover = Some(node);
        for prompt in &effect.prompts {
            match prompt {
                Prompt::SendPrecopyPull => self.say(which, Message::PrecopyPull),
                Prompt::SendPull => self.say(which, Message::Pull),
                Prompt::SendReady => self.say(which, Message::Ready),
                Prompt::SendRefuse => {
                    self.of(which).refused = true;
                    self.say(which, Message::Refuse);
                }
                Prompt::CloseUntaken => {
                    if self.pair.setting.plant != Some(Plant::KeepsWhatCameAhead) {
                        self.of(which).holds_ahead = false;
                    }
                }
                Prompt::TellManager => {}
            }
        }
    }

    /// `Link::read`: the lifeline first, then the predecessor, then the clock.
    fn look(&mut self, which: Which, is_unusable: bool, is_due: bool) {
        let of = self.of(which);
        if !of.line.stalled {
            let mut waiting = of.line.unsent_by_new;
            of.line.to_old.append(&mut waiting);
            of.line.unsent_by_new = waiting;
        }
        let was_lost = is_lost(self.stage(which));
        let old = self.world.old.life;
        if reads(self.stage(which)) && !self.of(which).line.new_end {
            self.takes_in(which, Turn::LineClosedByUs);
        }
        while reads(self.stage(which)) && !self.of(which).line.short {
            let is_coming = matches!(self.stage(which), Stage::Starting { state: Inbound::Asked, .. });
            let may_come_ahead = matches!(self.stage(which), Stage::Starting { state, .. } if state.is_coming());
            let of = self.of(which);
            let turn = match of.line.to_new.pop() {
                Some(Message::Granted) => Turn::Granted,
                Some(Message::Commit) => Turn::Commit,
                Some(Message::GivenUp) => Turn::GivenUp,
                Some(Message::Ahead) if may_come_ahead && is_unusable => Turn::StateUnusable,
                Some(Message::Ahead) => {
                    of.holds_ahead |= may_come_ahead;
                    continue;
                }
                Some(Message::PrecopyComplete) => Turn::PrecopyComplete,
                Some(Message::State) if !is_coming => continue,
                Some(Message::State) if is_unusable => Turn::StateUnusable,
                Some(Message::State) => Turn::StateComplete,
                Some(_) => continue,
                None if of.old_end_is_closed(old) => Turn::LineClosed,
                None => break,
            };
            self.takes_in(which, turn);
        }
        let is_child = self.of(which).wrapper == Wrapper::None;
        let is_dying = is_lost(self.stage(which)) && matches!(old, Life::Dying | Life::Closed);
        let is_seen = is_child && is_dying && !self.pair.setting.has(Power::Unseen);
        // What it may have said last decides whose the service is.
        let may_be_unread = reads(self.stage(which)) && self.of(which).line.short && self.pair.setting.plant != Some(Plant::EndBeforeWords);
        if old == Life::Ended && !may_be_unread {
            self.takes_in(which, Turn::PredecessorEnded);
        } else if is_seen {
            self.takes_in(which, Turn::PredecessorDying);
        }
        // What has just been set, or put off, has not passed.
        let is_put_off = is_seen && self.pair.setting.plant != Some(Plant::DyingUnseen);
        if is_due && was_lost && is_lost(self.stage(which)) && !is_put_off {
            self.takes_in(which, Turn::Timeout);
        }
    }

    /// `Restarter::poll_ancestry`.
    fn loops(&mut self, which: Which) {
        let node = self.of(which).takeover.expect("it has adopted its lifeline");
        let (node, effect) = self.pair.takeovers.step(node, Turn::Outputs);
        self.of(which).takeover = Some(node);
        for output in &effect.outputs {
            let step = match output {
                TakeoverOutput::Sole => Move::Sole,
                TakeoverOutput::TakeService { .. } => Move::Opened,
                TakeoverOutput::Open => {
                    for of in [&mut self.world.current, &mut self.world.earlier].into_iter().flatten() {
                        of.steered = false;
                    }
                    self.of(which).steered = true;
                    continue;
                }
                // What is free is nobody's here.
                TakeoverOutput::MarksFreed | TakeoverOutput::Answer | TakeoverOutput::Notice(_) => continue,
            };
            if step == Move::Opened {
                // `Keeper::take_service`.
                self.of(which).stored = true;
                if self.pair.setting.plant != Some(Plant::HoldsThePredecessors) {
                    self.world.old.stored = false;
                }
            }
            if step == Move::Opened && std::mem::replace(&mut self.of(which).took_service, true) {
                self.breaks(Law::TakenTwice);
            }
            let machine = self.of(which).machine;
            self.of(which).machine = self.pair.restarts.step(machine, step).0;
        }
    }

    /// Whether a request at the new process would begin a restart: `Restarter::look_for_obstacles`, and the machine.
    pub fn would_restart(&mut self, which: Which) -> bool {
        let Some(node) = self.of(which).takeover else { return false };
        let permits = self.pair.takeovers.facts(node).permits;
        let step = if permits { Move::Request } else { Move::RequestObstructed };
        let machine = self.of(which).machine;
        let to = self.pair.restarts.step(machine, step).0;
        self.pair.restarts.facts(to).room == Room::Spawning
    }

    fn new_ends(&mut self, which: Which) {
        let slow = self.pair.setting.has(Power::SlowEnds);
        let of = self.of(which);
        of.life = match of.life {
            Life::Alive if slow => Life::Dying,
            Life::Dying if slow => Life::Closed,
            _ => Life::Ended,
        };
        // What the kernel has not taken dies with it.
        of.line.unsent_by_new = Default::default();
    }

    /// What a new process can do, and what can be done to it.
    pub fn steps_of(&self, which: Which, of: &Successor, steps: &mut Vec<Step>) {
        let setting = &self.pair.setting;
        let old_is_there = self.world.old.life != Life::Ended;
        if of.life != Life::Alive {
            if matches!(of.life, Life::Dying | Life::Closed) {
                let may_be_undying = setting.has(Power::Undying) && of.killed && of.wrapper == Wrapper::None && of.life == Life::Dying;
                if !of.undying {
                    steps.push(Step::Ends);
                    if may_be_undying && which == Which::Current {
                        steps.push(Step::Undying);
                    }
                } else {
                    steps.push(Step::DiesAtLast);
                }
            }
            if of.wrapper == Wrapper::Runs {
                steps.push(Step::WrapperEnds);
            }
            return;
        }
        steps.push(Step::Ends);
        if of.late {
            steps.push(Step::LateKill);
        }
        if of.wrapper == Wrapper::Runs {
            steps.push(Step::WrapperEnds);
        }
        let Some(node) = of.takeover else {
            if !of.orphaned {
                steps.push(Step::Adopt);
            }
            return;
        };
        let facts = self.pair.takeovers.facts(node);
        steps.push(Step::Look);
        if !facts.queue.is_empty() {
            steps.push(Step::Loop);
        }
        if is_lost(facts.stage) && facts.waits && self.may_pass(of) {
            steps.push(Step::LookAtDeadline);
        }
        if facts.has_state {
            steps.push(Step::TakeState);
        }
        let is_early = matches!(facts.stage, Stage::Starting { .. } | Stage::Alone { ready: false, .. });
        let is_careless = matches!(setting.plant, Some(Plant::ReadyWithoutTheState | Plant::ServesWithoutTheRest));
        if is_early && !of.refused && (facts.may_be_ready || is_careless) {
            steps.push(Step::SayReady);
        }
        if matches!(facts.stage, Stage::Starting { .. } | Stage::ReadySent { .. }) && !of.refused && old_is_there {
            steps.push(Step::Refuse);
        }
        if setting.has(Power::Progress) && !of.progressed && old_is_there && which == Which::Current {
            steps.push(Step::TellProgress);
        }
        if setting.has(Power::Precopy) && !of.precopied && !of.asked && matches!(facts.stage, Stage::Starting { .. }) {
            steps.push(Step::PullPrecopy);
        }
        if setting.has(Power::State) && !of.asked && matches!(facts.stage, Stage::Starting { .. }) {
            let has_what_can_go_ahead = matches!(facts.stage, Stage::Starting { state: Inbound::Precopied, .. });
            steps.push(if has_what_can_go_ahead { Step::PullTheRest } else { Step::Pull });
        }
        if setting.has(Power::State)
            && !of.line.to_new.is_empty()
            && matches!(facts.stage, Stage::Starting { state, .. } if state.is_coming())
        {
            steps.push(Step::LookUnusable);
        }
        let is_in_reach = of.wrapper == Wrapper::None && !of.late && self.world.old.thread != Thread::Starting;
        let may_break = (is_in_reach || setting.has(Power::Unreachable)) && reads(facts.stage);
        let is_unread = (of.granted || of.given_up) && !of.line.to_new.is_empty() && !serves(facts.stage);
        let may_close = setting.has(Power::Closes) && (!is_unread || setting.has(Power::WordUnread));
        if may_close && of.line.new_end && may_break {
            steps.push(Step::CloseLine);
        }
        if setting.has(Power::Helpers) && !of.line.new_copied && of.line.new_end && reads(facts.stage) {
            steps.push(Step::Helper);
        }
        if setting.has(Power::Rebuilds) {
            steps.push(Step::Rebuild);
        }
        if self.pair.restarts.facts(of.machine).room == Room::NotReady && serves(facts.stage) {
            steps.push(Step::Stop);
        }
        if setting.has(Power::Breaks) && !of.line.shut && may_break && old_is_there {
            steps.push(Step::ShutLine);
        }
        if setting.has(Power::Breaks) && !of.garbled && of.line.old_end && old_is_there {
            steps.push(Step::TalkGarbage);
        }
        let has_come = !of.line.to_new.is_empty() || of.old_end_is_closed(self.world.old.life);
        if setting.has(Power::Shortages) && (of.line.short || (has_come && reads(facts.stage))) {
            steps.push(if of.line.short { Step::Reads } else { Step::Short });
        }
        if setting.has(Power::Stalls) && old_is_there && reads(facts.stage) {
            steps.push(if of.line.stalled { Step::GoesOn } else { Step::Stalls });
        }
    }

    /// Whether the deadline of a lost lifeline can pass now. Without the assumption it always can.
    fn may_pass(&self, of: &Successor) -> bool {
        if !self.pair.setting.has(Power::Punctual) {
            return true;
        }
        let is_held_up = !of.line.new_end && self.world.old.life == Life::Alive && self.is_about_to_kill();
        self.world.old.life != Life::Closed && !is_held_up
    }

    /// A lifeline that is closed has the old process kill what is not final, within a second.
    fn is_about_to_kill(&self) -> bool {
        let room = self.pair.restarts.facts(self.world.old.machine).room;
        let is_undecided = is_awaiting(room) || matches!(room, Room::Spawning | Room::Proving | Room::Checking);
        is_undecided && !self.world.old.dropped && self.world.current.is_some()
    }
}

/// Whether what comes over the lifeline matters.
fn reads(stage: Stage) -> bool {
    match stage {
        Stage::Starting { line, .. } | Stage::ReadySent { line } | Stage::Granted { line, .. } => line == Line::Open,
        Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => false,
    }
}

pub fn is_lost(stage: Stage) -> bool {
    match stage {
        Stage::Starting { line, .. } | Stage::ReadySent { line } | Stage::Granted { line, .. } => matches!(line, Line::Lost { .. }),
        Stage::Final { .. } | Stage::Alone { .. } | Stage::GivenUp { .. } => false,
    }
}

impl Run<'_> {
    /// Where a new process stands that has adopted its lifeline.
    pub fn stage_of(&self, of: &Successor) -> Option<Stage> {
        of.takeover.map(|node| self.pair.takeovers.facts(node).stage)
    }

    pub fn serves(&self, of: &Successor) -> bool {
        of.life == Life::Alive && self.stage_of(of).is_some_and(serves)
    }
}
