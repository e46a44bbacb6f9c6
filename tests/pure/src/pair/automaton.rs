//! A machine as a table that fills while it is used: each state once, and what each input makes of it.
//!
//! A real machine takes every step, once: a state is reached again by the shortest way to it. Two states are one if they have the same
//! future: times, and the numbers of what is over, do not count. So a search over the pair costs look-ups.
//!
//! Knows: how a machine is driven. Does not know: by whom.

use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{
    Action, Attempt, Input, Line, Machine, Output, Prompt, Reply, Stage, State, Takeover, TakeoverInput, TakeoverNotice, TakeoverOutput,
    Ticket,
};

use super::plant::Plant;
use super::room::{Room, View};
use super::{LIMITS, on_probation};

/// Which state of a machine.
pub type Node = u16;

/// A machine that is driven by steps.
pub trait Subject {
    type Step: Copy;
    /// What decides what comes next, and what the driver wants to know.
    type Facts: Debug;
    /// What came of a step.
    type Effect;

    /// How many kinds of steps there are.
    const STEPS: usize;
    fn index(step: Self::Step) -> usize;
    fn take(&mut self, step: Self::Step) -> Self::Effect;
    /// Reads the queue of outputs empty: nothing else follows.
    fn facts(self) -> Self::Facts;
}

/// Where a step leads, and what came of it.
type Edge<S> = (Node, Rc<<S as Subject>::Effect>);

pub struct Automaton<S: Subject> {
    birth: Box<dyn Fn() -> S>,
    ways: Vec<Vec<S::Step>>,
    facts: Vec<S::Facts>,
    known: HashMap<String, Node>,
    edges: Vec<Vec<Option<Edge<S>>>>,
}

impl<S: Subject> Automaton<S> {
    /// The first state is node 0.
    pub fn new(birth: impl Fn() -> S + 'static) -> Automaton<S> {
        let mut automaton =
            Automaton { birth: Box::new(birth), ways: Vec::new(), facts: Vec::new(), known: HashMap::new(), edges: Vec::new() };
        automaton.learn((automaton.birth)().facts(), Vec::new());
        automaton
    }

    pub fn facts(&self, node: Node) -> &S::Facts {
        &self.facts[usize::from(node)]
    }

    pub fn step(&mut self, node: Node, step: S::Step) -> Edge<S> {
        let (from, index) = (usize::from(node), S::index(step));
        if let Some(edge) = &self.edges[from][index] {
            return edge.clone();
        }
        let way = [&self.ways[from][..], &[step]].concat();
        let mut subject = (self.birth)();
        let effect = way.iter().map(|step| subject.take(*step)).last().expect("at least one step");
        let edge = (self.learn(subject.facts(), way), Rc::new(effect));
        self.edges[from][index] = Some(edge.clone());
        edge
    }

    fn learn(&mut self, facts: S::Facts, way: Vec<S::Step>) -> Node {
        let key = format!("{facts:?}");
        if let Some(node) = self.known.get(&key) {
            return *node;
        }
        let node = Node::try_from(self.facts.len()).expect("a machine has not so many states");
        self.known.insert(key, node);
        self.ways.push(way);
        self.facts.push(facts);
        self.edges.push(vec![None; S::STEPS]);
        node
    }

    /// What is known of each state that was reached.
    pub fn all(&self) -> &[S::Facts] {
        &self.facts
    }

    /// How many states of the machine were reached.
    pub fn len(&self) -> usize {
        self.facts.len()
    }
}

/// What is done with the restart machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    Sole,
    Opened,
    /// Something is heard of the predecessor.
    Predecessor,
    Request,
    /// While something outside forbids it.
    RequestObstructed,
    Spawned,
    SpawnFailed,
    Here,
    HereAnother,
    PrecopyRequested,
    PrecopyRoom,
    StateRequested,
    HandoverSent,
    HandoverFailed,
    Refused,
    Progress,
    Ready,
    SteeringFailed,
    Granted,
    LifelineClosed,
    Unread,
    Garbage,
    Dying,
    Sound,
    CommitTaken,
    Exited,
    Cancel,
    Stop,
    Dropped,
    ThreadLost,
    ManagerAsked,
    ManagerTold,
    BarrierPassed,
    GivingUp,
    /// The deadline has passed.
    Timeout,
    /// The next output is carried out.
    Output,
}

/// A restart machine, with what has come of it.
pub struct Restarts {
    machine: Machine,
    plant: Option<Plant>,
    now: Duration,
    attempts: u64,
    tickets: u64,
    stopped: bool,
    ends: bool,
    lost: bool,
}

/// The pid of every successor: it is told from another one's by nothing else.
const PID: u32 = 1001;

#[derive(Debug)]
pub struct RestartFacts {
    /// Without times and numbers.
    pub room: Room,
    /// A deadline is set.
    pub waits: bool,
    /// The lifeline is closed.
    pub line_lost: bool,
    /// The successor that is ready, or has the service, has a state.
    pub gave: bool,
    /// What is remembered of the past.
    pub stopped: bool,
    pub ends: bool,
    pub lost: bool,
    /// What has yet to be carried out; attempts and tickets are counted from the newest.
    pub queue: Vec<String>,
    /// A request would be taken.
    pub willing: bool,
}

impl Restarts {
    pub fn new(probation: bool, plant: Option<Plant>) -> Restarts {
        let machine = Machine::new(on_probation(LIMITS, probation));
        Restarts { machine, plant, now: Duration::ZERO, attempts: 0, tickets: 0, stopped: false, ends: false, lost: false }
    }

    fn input(&mut self, step: Move) -> Input {
        let attempt = Attempt(self.attempts);
        match step {
            Move::Sole => Input::Sole,
            Move::Opened => Input::Opened,
            Move::Predecessor => Input::Predecessor(TakeoverNotice::PredecessorGone),
            Move::Request | Move::RequestObstructed => {
                self.tickets += 1;
                Input::Request(Ticket(self.tickets))
            }
            Move::Spawned => Input::Spawned(attempt, PID),
            Move::SpawnFailed => Input::SpawnFailed(attempt),
            Move::Here => Input::Here(attempt, PID),
            Move::HereAnother => Input::Here(attempt, PID + 1),
            Move::PrecopyRequested => Input::PrecopyRequested(attempt),
            Move::PrecopyRoom => Input::PrecopyRoom(attempt),
            Move::StateRequested => Input::StateRequested(attempt),
            Move::HandoverSent => Input::HandoverSent(attempt),
            Move::HandoverFailed => Input::HandoverFailed(attempt),
            Move::Refused => Input::Refused(attempt),
            Move::Progress => Input::Progress(attempt),
            Move::Ready => Input::Ready(attempt),
            Move::SteeringFailed => Input::SteeringFailed(attempt),
            Move::Granted => Input::Granted(attempt),
            Move::LifelineClosed => Input::LifelineClosed(attempt),
            Move::Unread => Input::Unread(attempt),
            Move::Garbage => Input::Garbage(attempt),
            Move::Dying => Input::Dying(attempt),
            Move::Sound => Input::Sound(attempt),
            Move::CommitTaken => Input::CommitTaken(attempt),
            Move::Exited => Input::Exited(attempt),
            Move::Cancel => Input::Cancel,
            Move::Stop => Input::Stop,
            Move::Dropped => Input::Dropped,
            Move::ThreadLost => Input::ThreadLost,
            Move::ManagerAsked => Input::ManagerAsked,
            Move::ManagerTold => Input::ManagerTold,
            Move::BarrierPassed => Input::BarrierPassed,
            Move::GivingUp => Input::GivingUp,
            Move::Timeout | Move::Output => Input::Timeout,
        }
    }

    /// Numbers from the newest on, and no cause: those are of the past.
    fn name(&self, output: Output) -> String {
        let of = |attempt: Attempt| self.attempts - attempt.0;
        match output {
            Output::Action(Action::Spawn(attempt)) => format!("Spawn({})", of(attempt)),
            Output::Action(Action::Abandon(attempt)) => format!("Abandon({})", of(attempt)),
            Output::Action(Action::Kill(attempt)) => format!("Kill({})", of(attempt)),
            Output::Action(Action::Grant(attempt)) => format!("Grant({})", of(attempt)),
            Output::Action(Action::Check(attempt)) => format!("Check({})", of(attempt)),
            Output::Action(Action::Commit(attempt)) => format!("Commit({})", of(attempt)),
            Output::Action(Action::TellCommit(attempt)) => format!("TellCommit({})", of(attempt)),
            Output::Action(Action::Reply(ticket, reply)) => {
                let reply = match reply {
                    Reply::Completed(_) => "Completed".into(),
                    Reply::Failed(_) => "Failed".into(),
                    Reply::Refused(Refusal::UnderWay { .. }) => "UnderWay".into(),
                    Reply::Refused(refusal) | Reply::Forbidden(refusal) => format!("{refusal:?}"),
                };
                format!("Reply({}, {reply})", self.tickets - ticket.0)
            }
            Output::Action(Action::Steer(side)) => format!("Steer({side:?})"),
            Output::Action(Action::Hold(whose)) => format!("Hold({whose:?})"),
            Output::Action(action @ (Action::TellStopping | Action::LetSurvivorsGo)) => format!("{action:?}"),
            Output::Notice(notice) => format!("{notice:?}").split('(').next().unwrap_or_default().into(),
        }
    }
}

impl Subject for Restarts {
    type Step = Move;
    type Facts = RestartFacts;
    type Effect = Vec<Output>;

    const STEPS: usize = Move::Output as usize + 1;

    fn index(step: Move) -> usize {
        step as usize
    }

    fn take(&mut self, step: Move) -> Vec<Output> {
        if step == Move::Output {
            let output = self.machine.poll_output();
            return output.into_iter().flat_map(|output| Plant::machine_output(self.plant, output)).collect();
        }
        if !is_final(View::from(self.machine.state()).room) {
            self.stopped |= matches!(step, Move::Stop | Move::Dropped);
            self.ends |= step == Move::Stop;
            self.lost |= step == Move::ThreadLost;
        }
        let is_lost = View::from(self.machine.state()).lost.is_some();
        if step == Move::Timeout && is_lost && self.plant == Some(Plant::LostIsFine) {
            return Vec::new();
        }
        if step == Move::Timeout {
            self.now = self.machine.poll_timeout().unwrap_or(self.now).max(self.now);
        }
        let obstacle = (step == Move::RequestObstructed).then_some(Refusal::NotReady);
        self.machine.set_obstacle(obstacle);
        let input = self.input(step);
        for input in Plant::machine_inputs(self.plant, View::from(self.machine.state()).room, input) {
            self.machine.handle(self.now, input);
        }
        self.machine.set_obstacle(None);
        if let State::Spawning { attempt, .. } = self.machine.state() {
            self.attempts = attempt.0;
        }
        Vec::new()
    }

    fn facts(mut self) -> RestartFacts {
        let View { room, lost: line_lost, gave, .. } = View::from(self.machine.state());
        let waits = self.machine.poll_timeout().is_some();
        let willing = self.machine.refusal(self.now).is_none();
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll_output()).collect();
        let queue = outputs.into_iter().map(|output| self.name(output)).collect();
        RestartFacts {
            room,
            waits,
            line_lost: line_lost.is_some(),
            // It decides how the program is told that all know.
            gave: gave == Some(true) && !matches!(room, Room::LettingGo | Room::Committed),
            stopped: self.stopped,
            ends: self.ends,
            lost: self.lost,
            queue,
            willing,
        }
    }
}

/// Whether the service is the successor's for good.
pub fn is_final(room: Room) -> bool {
    matches!(room, Room::LettingGo | Room::Committed) || is_committing(room)
}

/// Whether that is so, and not all know.
pub fn is_committing(room: Room) -> bool {
    use Room::{Heard, Left, Settled, Telling, TellingManaged, Untold, UntoldManaged};
    matches!(room, Settled | Untold | UntoldManaged | Telling | TellingManaged | Heard | Left)
}

/// Whether a successor gets ready.
pub fn is_awaiting(room: Room) -> bool {
    matches!(room, Room::Waiting | Room::Copying | Room::Giving | Room::Given | Room::Granting)
}

/// Whether its end is awaited.
pub fn is_killing(room: Room) -> bool {
    matches!(room, Room::Killing | Room::KillingGranted | Room::Undying | Room::UndyingGranted)
}

/// What is done with the takeover machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Attach,
    PullPrecopy,
    PrecopyComplete,
    Pull,
    StateComplete,
    StateUnusable,
    StateTaken,
    SayReady,
    SayRefuse,
    Granted,
    Commit,
    GivenUp,
    LineClosed,
    LineClosedByUs,
    PredecessorDying,
    PredecessorEnded,
    /// The deadline has passed.
    Timeout,
    /// The loop does all that there is to do.
    Outputs,
}

impl Turn {
    pub const ALL: [Turn; 18] = [
        Turn::Attach,
        Turn::PullPrecopy,
        Turn::PrecopyComplete,
        Turn::Pull,
        Turn::StateComplete,
        Turn::StateUnusable,
        Turn::StateTaken,
        Turn::SayReady,
        Turn::SayRefuse,
        Turn::Granted,
        Turn::Commit,
        Turn::GivenUp,
        Turn::LineClosed,
        Turn::LineClosedByUs,
        Turn::PredecessorDying,
        Turn::PredecessorEnded,
        Turn::Timeout,
        Turn::Outputs,
    ];

    fn input(self) -> TakeoverInput {
        match self {
            Turn::Attach => TakeoverInput::Attach,
            Turn::PullPrecopy => TakeoverInput::PullPrecopy,
            Turn::PrecopyComplete => TakeoverInput::PrecopyComplete,
            Turn::Pull => TakeoverInput::Pull,
            Turn::StateComplete => TakeoverInput::StateComplete,
            Turn::StateUnusable => TakeoverInput::StateUnusable,
            Turn::StateTaken => TakeoverInput::StateTaken,
            Turn::SayReady => TakeoverInput::SayReady,
            Turn::SayRefuse => TakeoverInput::SayRefuse,
            Turn::Granted => TakeoverInput::Granted,
            Turn::Commit => TakeoverInput::Commit,
            Turn::GivenUp => TakeoverInput::GivenUp,
            Turn::LineClosed => TakeoverInput::LineClosed { by_us: false },
            Turn::LineClosedByUs => TakeoverInput::LineClosed { by_us: true },
            Turn::PredecessorDying => TakeoverInput::PredecessorDying,
            Turn::PredecessorEnded => TakeoverInput::PredecessorEnded,
            Turn::Timeout | Turn::Outputs => TakeoverInput::Timeout,
        }
    }
}

pub struct Takes {
    takeover: Takeover,
    plant: Option<Plant>,
    now: Duration,
}

#[derive(Debug)]
pub struct TakeoverFacts {
    /// Without times.
    pub stage: Stage,
    pub waits: bool,
    pub may_be_ready: bool,
    pub has_state: bool,
    /// Nothing here forbids a restart.
    pub permits: bool,
    pub queue: Vec<TakeoverOutput>,
}

/// What comes out: for the driver at once, and for the loop.
#[derive(Debug, Default)]
pub struct TakeoverEffect {
    pub prompts: Vec<Prompt>,
    pub outputs: Vec<TakeoverOutput>,
}

impl Takes {
    pub fn new(probation: bool, plant: Option<Plant>) -> Takes {
        let mut takeover = Takeover::successor(on_probation(LIMITS, probation).probation);
        takeover.handle(Duration::ZERO, TakeoverInput::Attach);
        Takes { takeover, plant, now: Duration::ZERO }
    }
}

impl Subject for Takes {
    type Step = Turn;
    type Facts = TakeoverFacts;
    type Effect = TakeoverEffect;

    const STEPS: usize = Turn::Outputs as usize + 1;

    fn index(step: Turn) -> usize {
        step as usize
    }

    fn take(&mut self, step: Turn) -> TakeoverEffect {
        let mut effect = TakeoverEffect::default();
        if step == Turn::Outputs {
            let outputs = std::iter::from_fn(|| self.takeover.poll_output());
            effect.outputs = outputs.flat_map(|output| Plant::takeover_output(self.plant, output)).collect();
            return effect;
        }
        if step == Turn::Timeout {
            self.now = self.takeover.poll_timeout().unwrap_or(self.now).max(self.now);
        }
        for input in Plant::takeover_inputs(self.plant, self.takeover.stage(), step.input()) {
            self.takeover.handle(self.now, input);
        }
        effect.prompts.extend(std::iter::from_fn(|| self.takeover.poll_prompt()));
        effect
    }

    fn facts(mut self) -> TakeoverFacts {
        let timeless = |line: Line| match line {
            Line::Lost { .. } => Line::Lost { until: Duration::ZERO },
            other => other,
        };
        let stage = match self.takeover.stage() {
            Stage::Starting { line, state } => Stage::Starting { line: timeless(line), state },
            Stage::ReadySent { line } => Stage::ReadySent { line: timeless(line) },
            Stage::Granted { line, .. } => Stage::Granted { line: timeless(line), look_at: Duration::ZERO },
            other => other,
        };
        TakeoverFacts {
            stage,
            waits: self.takeover.poll_timeout().is_some(),
            may_be_ready: self.takeover.may_be_ready(),
            has_state: self.takeover.has_state(),
            permits: Plant::permits(self.plant, &self.takeover),
            queue: std::iter::from_fn(|| self.takeover.poll_output()).collect(),
        }
    }
}

/// Whether a process in this stage is one whose program serves.
pub fn serves(stage: Stage) -> bool {
    matches!(stage, Stage::Granted { .. } | Stage::Final { .. } | Stage::Alone { ready: true, .. })
}
