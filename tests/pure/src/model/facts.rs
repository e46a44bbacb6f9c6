//! The model: one flat record that obeys the rows.

use std::collections::VecDeque;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{
    Action, Attempt, Cause, Input, Limits, Notice, Output, Reply, Side, TakeoverNotice, Ticket, Whose, refusals,
};

use super::rows::{If, Out, ROWS, Row, Then};
use super::{On, Room, View};

/// The successor has been ready, with or without a state.
const READY: [Room; 12] = [
    Room::Granting,
    Room::Proving,
    Room::Checking,
    Room::Settled,
    Room::Untold,
    Room::UntoldManaged,
    Room::Telling,
    Room::TellingManaged,
    Room::Heard,
    Room::Left,
    Room::LettingGo,
    Room::Committed,
];

/// All that is known. What has no meaning in a room is left over from an earlier one and ignored.
#[derive(Debug)]
pub struct Facts {
    limits: Limits,
    room: Room,
    /// Whether the process was ever told to stop, or has ever lost its restart thread.
    stop: bool,
    /// And not only that its restarter is dropped.
    ends: bool,
    /// And the service manager is told, or about to be.
    told: bool,
    lost: bool,
    /// When a successor must have ended, since its lifeline is closed.
    hung: Option<Duration>,
    attempts: u64,
    asker: Ticket,
    asked: Duration,
    pid: u32,
    /// Whether the successor has a state.
    gave: bool,
    until: Duration,
    /// When the program has stood still for long enough.
    thaws: Duration,
    cause: Cause,
    /// What keeps an idle process from restarting, as somebody outside says.
    obstacle: Option<Refusal>,
    queue: VecDeque<Output>,
}

impl Facts {
    pub fn new(limits: Limits) -> Facts {
        Facts {
            limits,
            room: Room::NotReady,
            stop: false,
            ends: false,
            told: false,
            hung: None,
            lost: false,
            attempts: 0,
            asker: Ticket(0),
            asked: Duration::ZERO,
            pid: 0,
            gave: false,
            until: Duration::ZERO,
            thaws: Duration::ZERO,
            cause: Cause::Cancelled,
            obstacle: None,
            queue: VecDeque::new(),
        }
    }

    pub fn room(&self) -> Room {
        self.room
    }

    /// The newest attempt; 0 before the first.
    pub fn attempt(&self) -> Attempt {
        Attempt(self.attempts)
    }

    /// What is remembered without being seen: a stop, a lost thread, an obstacle.
    pub fn remembered(&self) -> (bool, bool, bool, Option<Refusal>) {
        (self.stop, self.ends, self.lost, self.obstacle)
    }

    pub fn obstruct(&mut self, obstacle: Option<Refusal>) {
        self.obstacle = obstacle;
    }

    pub fn queue(&self) -> &VecDeque<Output> {
        &self.queue
    }

    /// Takes an input, and says which row of the table it was.
    pub fn take(&mut self, now: Duration, input: Input) -> Option<usize> {
        let on = On::of(input, self.pid);
        let foreign = attempt_of(input).is_some_and(|attempt| attempt != self.attempt());
        let early = on == On::Timeout && self.timeout().is_none_or(|until| now < until);
        let is_on_order = |order: Action| self.queue.contains(&order.into());
        let unasked = on == On::SteeringFailed && is_on_order(Action::Steer(Side::Successor))
            || on == On::Granted && is_on_order(Action::Grant(self.attempt()))
            || on == On::Sound && is_on_order(Action::Check(self.attempt()));
        if foreign || early || unasked {
            return None;
        }
        self.stop |= matches!(on, On::Stop | On::Dropped);
        self.ends |= on == On::Stop;
        self.lost |= on == On::ThreadLost;
        if (self.room, on) == (Room::Idle, On::Request) && self.obstacle.is_some() {
            self.put(Out::Refuse, now, input);
            return None;
        }
        let index = ROWS.iter().position(|row| self.fits(row, on, now))?;
        self.note(now, input, on);
        let row = &ROWS[index];
        if matches!(row.only, If::Lost | If::LostForGood) {
            self.cause = Cause::HungUp;
        }
        for out in row.out {
            self.put(*out, now, input);
        }
        match row.then {
            Then::Stay => {}
            Then::To(room) => self.enter(room, now, on),
            Then::Rest if self.stop => self.enter(Room::Stopping, now, on),
            Then::Rest if self.lost => {
                self.put(Out::Broken, now, input);
                self.enter(Room::Broken, now, on);
            }
            Then::Rest => self.enter(Room::Idle, now, on),
        }
        Some(index)
    }

    pub fn next_output(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub fn timeout(&self) -> Option<Duration> {
        match self.room {
            Room::NotReady | Room::Sole | Room::Stopping | Room::StoppingUntold | Room::Broken => None,
            Room::Idle | Room::Checking | Room::Settled | Room::TellingManaged | Room::Committed => None,
            Room::Undying | Room::UndyingGranted => None,
            Room::Waiting | Room::Copying | Room::Giving | Room::Given | Room::Granting | Room::Proving => {
                Some(self.hung.map_or(self.deadline(), |hung| hung.min(self.deadline())))
            }
            _ => Some(self.until),
        }
    }

    /// Of a successor that is waited for: the earlier of the two.
    fn deadline(&self) -> Duration {
        if matches!(self.room, Room::Giving | Room::Given) { self.until.min(self.thaws) } else { self.until }
    }

    pub fn refusal(&self, now: Duration) -> Option<Refusal> {
        let since = now.saturating_sub(self.asked);
        match self.room {
            Room::Idle => self.obstacle,
            Room::NotReady | Room::Sole => self.obstacle.or(Some(Refusal::NotReady)),
            Room::Stopping | Room::StoppingUntold => Some(Refusal::Stopping),
            Room::Broken => Some(Refusal::RestartThreadGone),
            Room::Proving | Room::Checking => Some(refusals::on_probation(Some(self.pid))),
            Room::Settled
            | Room::Untold
            | Room::UntoldManaged
            | Room::Telling
            | Room::TellingManaged
            | Room::Heard
            | Room::Left
            | Room::LettingGo
            | Room::Committed => Some(refusals::handed_off(self.pid)),
            _ => Some(refusals::under_way(since)),
        }
    }

    pub fn view(&self) -> View {
        let (attempt, asker, pid) = (Some(self.attempt()), Some(self.asker), Some(self.pid));
        let bare = View { gave: READY.contains(&self.room).then_some(self.gave), ..View::bare(self.room) };
        match self.room {
            Room::NotReady | Room::Sole | Room::Stopping | Room::StoppingUntold | Room::Broken | Room::Idle => bare,
            Room::LettingGo => View { attempt, pid, deadline: self.timeout(), ..bare },
            Room::Committed => View { attempt, pid, ..bare },
            Room::Checking => View { attempt, ticket: asker, pid, since: Some(self.asked), ..bare },
            Room::Settled | Room::Untold | Room::UntoldManaged | Room::Telling | Room::TellingManaged | Room::Heard | Room::Left => {
                View { attempt, ticket: asker, pid, deadline: self.timeout(), ..bare }
            }
            Room::Spawning => View { attempt, ticket: asker, since: Some(self.asked), deadline: self.timeout(), ..bare },
            Room::Waiting | Room::Copying | Room::Giving | Room::Given | Room::Granting | Room::Proving => {
                View { attempt, ticket: asker, pid, since: Some(self.asked), deadline: Some(self.deadline()), lost: self.hung, ..bare }
            }
            Room::Killing | Room::KillingGranted | Room::Undying | Room::UndyingGranted => {
                let told = matches!(self.room, Room::Undying | Room::UndyingGranted);
                let ticket = asker.filter(|_| !told);
                View { attempt, ticket, pid, since: Some(self.asked), deadline: self.timeout(), cause: Some(self.cause), ..bare }
            }
        }
    }

    fn fits(&self, row: &Row, on: On, now: Duration) -> bool {
        let set_up_for = match row.only {
            If::Always => true,
            If::ProbationIsSet => self.limits.probation.is_some(),
            If::NoProbation => self.limits.probation.is_none(),
            If::Lost => self.hung.is_some(),
            If::LostForGood => self.hung.is_some_and(|hung| now >= hung),
            If::Heard => self.hung.is_none(),
            If::Gave => self.gave,
        };
        set_up_for && row.at.contains(&self.room) && row.on.contains(&on)
    }

    /// Writes down what the input says.
    fn note(&mut self, now: Duration, input: Input, on: On) {
        match (self.room, input) {
            (Room::Idle, Input::Request(ticket)) => {
                self.attempts += 1;
                self.asker = ticket;
                self.asked = now;
            }
            (Room::Spawning, Input::Spawned(_, pid)) => (self.pid, self.hung, self.gave) = (pid, None, false),
            (Room::Giving, Input::HandoverSent(_)) => self.gave = true,
            (Room::Killing | Room::KillingGranted | Room::Undying | Room::UndyingGranted, _) => {}
            (Room::Giving | Room::Given, Input::Timeout) if self.thaws < self.asked.saturating_add(self.limits.ready) => {
                self.cause = Cause::FreezeTimedOut;
            }
            (room, _) => self.cause = on.cause(room).unwrap_or(self.cause),
        }
    }

    fn enter(&mut self, room: Room, now: Duration, on: On) {
        let wait = match room {
            Room::Spawning => Some(self.limits.ready),
            Room::Proving => self.limits.probation,
            Room::Granting => Some(Duration::from_secs(5)),
            Room::Untold | Room::Telling => Some(Duration::from_secs(5)),
            // One that is gone takes no time from the service manager, nor gives it any.
            Room::Left if matches!(on, On::ManagerAsked | On::ManagerTold) => Some(Duration::from_secs(5)),
            Room::Killing | Room::KillingGranted => Some(Duration::from_secs(5)),
            Room::LettingGo => Some(Duration::from_millis(2)),
            _ => None,
        };
        if let Some(wait) = wait {
            self.until = now.checked_add(wait).unwrap_or(Duration::MAX);
        }
        if room == Room::Giving {
            self.thaws = now.saturating_add(self.limits.freeze);
        }
        self.room = room;
    }

    fn put(&mut self, out: Out, now: Duration, input: Input) {
        let (attempt, asker, pid, cause) = (self.attempt(), self.asker, self.pid, self.cause);
        let output = match out {
            Out::Abandon if self.takes_back(Action::Spawn(attempt)) => return,
            Out::Abandon => Action::Abandon(attempt).into(),
            Out::Ungrant => {
                self.ungrants();
                return;
            }
            Out::Refuse => {
                let (Input::Request(ticket), Some(refusal)) = (input, self.refusal(now)) else { unreachable!("only requests are refused") };
                let at_rest = matches!(self.room, Room::Idle | Room::Broken);
                let reply = if at_rest { Reply::Forbidden(refusal) } else { Reply::Refused(refusal) };
                Action::Reply(ticket, reply).into()
            }
            Out::Spawn => Action::Spawn(attempt).into(),
            Out::Kill => {
                self.ungrants();
                self.takes_back(Action::Check(attempt));
                Action::Kill(attempt).into()
            }
            Out::SteerThere => Action::Steer(Side::Successor).into(),
            Out::SteerHere => Action::Steer(Side::This).into(),
            Out::Grant => Action::Grant(attempt).into(),
            Out::Check => Action::Check(attempt).into(),
            Out::Uncheck => {
                self.takes_back(Action::Check(attempt));
                return;
            }
            Out::TellCommit => Action::TellCommit(attempt).into(),
            Out::ReplyCompleted => Action::Reply(asker, Reply::Completed(pid)).into(),
            Out::ReplyFailed => Action::Reply(asker, Reply::Failed(cause)).into(),
            Out::ReplyBroken => Action::Reply(asker, Reply::Refused(Refusal::RestartThreadGone)).into(),
            Out::Restarting => Notice::Restarting.into(),
            Out::Spawned => Notice::Spawned(pid).into(),
            Out::PrecopyRequested => Notice::PrecopyRequested(attempt).into(),
            Out::PrecopyRoom => Notice::PrecopyRoom(attempt).into(),
            Out::StateRequested => Notice::StateRequested(attempt).into(),
            Out::Progress => Notice::Progress(attempt).into(),
            Out::HoldBoth => Action::Hold(Whose::Both).into(),
            Out::HoldThis if self.told => return,
            Out::HoldThisAfter if self.ends => return,
            Out::HoldThis | Out::HoldThisAfter => Action::Hold(Whose::This).into(),
            Out::HoldReturned => Action::Hold(Whose::Returned).into(),
            Out::HandedOff | Out::HoldSuccessor | Out::Commit => {
                let output = match out {
                    Out::HandedOff => Notice::HandedOff(pid).into(),
                    Out::HoldSuccessor => Action::Hold(Whose::Successor).into(),
                    _ => Action::Commit(attempt).into(),
                };
                let before = self
                    .queue
                    .iter()
                    .take_while(|queued| !matches!(queued, Output::Notice(Notice::Predecessor(_) | Notice::GenerationEnded)))
                    .count();
                self.queue.insert(before, output);
                return;
            }
            Out::TellStopping | Out::TellStoppingLast if !self.ends || self.told => return,
            Out::TellStoppingLast => {
                self.told = true;
                Action::TellStopping.into()
            }
            Out::HangUp => {
                self.hung.get_or_insert(now.saturating_add(Duration::from_secs(1)));
                return;
            }
            Out::PutOff => {
                let later = now.saturating_add(Duration::from_millis(20));
                (self.until, self.thaws) = (self.until.max(later), self.thaws.max(later));
                return;
            }
            Out::TellStopping => {
                self.told = true;
                self.queue.retain(|queued| !matches!(queued, Output::Action(Action::Hold(Whose::This | Whose::Both))));
                // A program that is about to have its service again has what it kept first.
                let returns = self.queue.iter().rposition(|queued| *queued == Action::Hold(Whose::Returned).into());
                self.queue.insert(returns.map_or(0, |place| place + 1), Action::TellStopping.into());
                return;
            }
            Out::Predecessor => {
                let Input::Predecessor(notice) = input else { unreachable!("nothing else has one") };
                Notice::Predecessor(notice).into()
            }
            Out::LetSurvivorsGo if input != Input::Predecessor(TakeoverNotice::PredecessorGone) => return,
            Out::LetSurvivorsGo => Action::LetSurvivorsGo.into(),
            Out::Completed => Notice::Completed(pid).into(),
            Out::Failed => Notice::Failed(cause).into(),
            Out::Resumed => Notice::Resumed(cause).into(),
            Out::SuccessorGone => Notice::SuccessorGone(pid).into(),
            Out::Broken => Notice::Broken.into(),
            Out::GenerationEnded => Notice::GenerationEnded.into(),
        };
        self.queue.push_back(output);
    }

    /// What waits of a grant is taken back; if it has been carried out that new flows go there, they come here again.
    fn ungrants(&mut self) {
        self.takes_back(Action::Grant(self.attempt()));
        if self.room == Room::Granting && !self.takes_back(Action::Steer(Side::Successor)) {
            self.queue.push_back(Action::Steer(Side::This).into());
        }
    }

    /// Whether there was such an order that nobody has carried out; now there is none.
    fn takes_back(&mut self, order: Action) -> bool {
        let place = self.queue.iter().position(|queued| *queued == order.into());
        place.and_then(|place| self.queue.remove(place)).is_some()
    }
}

fn attempt_of(input: Input) -> Option<Attempt> {
    match input {
        Input::Spawned(attempt, _)
        | Input::SpawnFailed(attempt)
        | Input::Here(attempt, _)
        | Input::PrecopyRequested(attempt)
        | Input::PrecopyRoom(attempt)
        | Input::StateRequested(attempt)
        | Input::HandoverSent(attempt)
        | Input::HandoverFailed(attempt)
        | Input::Refused(attempt)
        | Input::Progress(attempt)
        | Input::Ready(attempt)
        | Input::SteeringFailed(attempt)
        | Input::Granted(attempt)
        | Input::LifelineClosed(attempt)
        | Input::Unread(attempt)
        | Input::Garbage(attempt)
        | Input::Dying(attempt)
        | Input::Sound(attempt)
        | Input::CommitTaken(attempt)
        | Input::Exited(attempt) => Some(attempt),
        Input::Sole | Input::Opened | Input::Predecessor(_) | Input::MarksFreed | Input::Request(_) => None,
        Input::Cancel | Input::Stop | Input::ThreadLost | Input::ManagerAsked | Input::ManagerTold | Input::BarrierPassed => None,
        Input::Dropped | Input::GivingUp | Input::Timeout => None,
    }
}
