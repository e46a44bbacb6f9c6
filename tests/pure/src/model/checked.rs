//! The driver: the code, the model and the laws in step. The first difference ends the test with the whole history.

use std::fmt;
use std::time::Duration;

use pollflip::Refusal;
use pollflip::internals::machine::{Attempt, Input, Limits, Machine, Output, State, Ticket};

use super::facts::Facts;
use super::laws::Laws;
use super::{On, Room, View};

/// One thing that came in, and what was carried out thereafter.
#[derive(Debug)]
struct Step {
    now: Duration,
    input: Input,
    outputs: Vec<Output>,
    state: State,
}

pub struct Checked {
    limits: Limits,
    machine: Machine,
    model: Facts,
    laws: Laws,
    now: Duration,
    tickets: u64,
    history: Vec<Step>,
    /// The rows of the table that were used, with the room and the kind of input.
    cells: Vec<(usize, Room, On)>,
}

/// All of it.
pub const ALL: usize = usize::MAX;

impl Checked {
    pub fn new(limits: Limits) -> Checked {
        Checked {
            limits,
            machine: Machine::new(limits),
            model: Facts::new(limits),
            laws: Laws::new(),
            now: Duration::ZERO,
            tickets: 0,
            history: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// Brought to where these inputs lead, each of the current attempt and carried out at once; a timeout comes at the deadline.
    pub fn after(limits: Limits, path: &[On]) -> Checked {
        let mut checked = Checked::new(limits);
        for on in path {
            checked.meets(*on);
        }
        checked
    }

    /// One more of the same kind.
    pub fn meets(&mut self, on: On) -> Vec<Output> {
        let after = if on == On::Timeout { self.to_deadline() } else { Duration::ZERO };
        let input = self.input(on, self.attempt());
        self.step(after, input, ALL)
    }

    /// Lets time pass, hands in one input, and carries out so many outputs.
    pub fn step(&mut self, after: Duration, input: Input, drain: usize) -> Vec<Output> {
        self.now = self.now.saturating_add(after);
        self.laws.goes_in(self.now, input);
        let (room, on) = (self.model.room(), On::of(input, self.pid()));
        self.machine.handle(self.now, input);
        let row = self.model.take(self.now, input);
        self.cells.extend(row.map(|row| (row, room, on)));
        self.history.push(Step { now: self.now, input, outputs: Vec::new(), state: self.machine.state() });
        if let Err(broken) = self.laws.moved(self.machine.state()) {
            self.differs(broken);
        }
        self.compare();
        if input == Input::Timeout && self.machine.poll_timeout().is_some_and(|deadline| deadline <= self.now && deadline != Duration::MAX)
        {
            self.differs("a timeout that has passed is asked for again");
        }
        self.drain(drain)
    }

    /// Something outside keeps the process from restarting, or does not any more.
    pub fn obstruct(&mut self, obstacle: Option<Refusal>) {
        self.machine.set_obstacle(obstacle);
        self.model.obstruct(obstacle);
        self.compare();
    }

    /// Carries out so many outputs.
    pub fn drain(&mut self, most: usize) -> Vec<Output> {
        let mut outputs = Vec::new();
        while outputs.len() < most {
            let (output, expected) = (self.machine.poll_output(), self.model.next_output());
            let Some(output) = output.filter(|_| output == expected) else {
                if output != expected {
                    self.differs(&format!("it puts out {output:?}, the model {expected:?}"));
                }
                if let Err(broken) = self.laws.rests(self.machine.state()) {
                    self.differs(broken);
                }
                break;
            };
            outputs.push(output);
            if let Some(step) = self.history.last_mut() {
                step.outputs.push(output);
            }
            if let Err(broken) = self.laws.comes_out(output, self.machine.state()) {
                self.differs(broken);
            }
        }
        self.compare();
        outputs
    }

    /// An input of this kind; tickets are fresh, and the pid is that of the attempt.
    pub fn input(&mut self, on: On, attempt: Attempt) -> Input {
        self.tickets += u64::from(on == On::Request);
        on.input(attempt, Ticket(self.tickets), pid_of(attempt))
    }

    pub fn attempt(&self) -> Attempt {
        self.model.attempt()
    }

    pub fn pid(&self) -> u32 {
        pid_of(self.attempt())
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    /// How long until the next timeout is due.
    pub fn to_deadline(&self) -> Duration {
        self.machine.poll_timeout().map_or(Duration::ZERO, |deadline| deadline.saturating_sub(self.now))
    }

    pub fn state(&self) -> State {
        self.machine.state()
    }

    pub fn room(&self) -> Room {
        self.model.room()
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn cells(&self) -> &[(usize, Room, On)] {
        &self.cells
    }

    /// All that decides what comes next, free of what only counts up: two histories with the same key have the same future.
    pub fn key(&self) -> String {
        let view = self.model.view();
        let since = view.since.map(|since| self.now - since);
        let left = [view.deadline, view.lost].map(|at| at.map(|at| at.saturating_sub(self.now)));
        let probation = self.limits.probation;
        format!(
            "{probation:?} {:?} {since:?} {left:?} {:?} {:?} {:?} {:?}",
            view.room,
            view.gave,
            view.cause,
            self.model.remembered(),
            self.queued()
        )
    }

    /// What waits to be carried out; numbers matter here, so that such keys are alike only among histories of like length.
    fn queued(&self) -> Option<(u64, &std::collections::VecDeque<Output>)> {
        Some((self.attempt().0, self.model.queue())).filter(|(_, queue)| !queue.is_empty())
    }

    fn compare(&self) {
        let (view, expected) = (View::from(self.machine.state()), self.model.view());
        if view != expected {
            self.differs(&format!("it stands at {view:?}, the model at {expected:?}"));
        }
        let (deadline, expected) = (self.machine.poll_timeout(), self.model.timeout());
        if deadline != expected {
            self.differs(&format!("it wants to be woken at {deadline:?}, the model at {expected:?}"));
        }
        let (refusal, expected) = (self.machine.refusal(self.now), self.model.refusal(self.now));
        if refusal != expected {
            self.differs(&format!("it would refuse with {refusal:?}, the model with {expected:?}"));
        }
    }

    fn differs(&self, how: &str) -> ! {
        panic!("{how}\n{self}");
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "history of a machine with {:?}:", self.limits)?;
        for Step { now, input, outputs, state } in &self.history {
            writeln!(f, "  {now:?} {input:?} → {state:?}")?;
            for output in outputs {
                writeln!(f, "      {output:?}")?;
            }
        }
        Ok(())
    }
}

fn pid_of(attempt: Attempt) -> u32 {
    1000u32.wrapping_add(attempt.0 as u32)
}
