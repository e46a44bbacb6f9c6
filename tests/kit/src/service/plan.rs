//! What a process does at which step of its life, and how it differs from the others of its service.
//!
//! A test writes a plan; the process that is started next takes it, and no other.

use std::fs;
use std::path::Path;

use pollflip::{Event, Restarter};
use serde::{Deserialize, Serialize};

use super::act::Act;
use super::report::say;
use super::settings::{Setting, Settings};

/// A step of the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It has told that it is there, and has no restarter.
    Born,
    /// It has built its restarter.
    Built,
    /// It has its sockets.
    Claimed,
    /// It is ready, and has been granted the service.
    Granted,
    /// A start is under way: until the step is over, the loop does not look how that went.
    Spawning,
    /// A part of what goes ahead of the state is given.
    HalfAhead,
    /// A part of the state is given.
    Half,

    // --- it has got that event ---
    Arrived,
    ArrivedAll,
    Committed,
    Completed,
    Failed,
    GivenUp,
    HandedOff,
    Inherited,
    PrecopyRequested,
    PrecopyRoom,
    PredecessorGone,
    Progress,
    Restarting,
    Resumed,
    Spawned,
    StateRequested,
    SuccessorGone,
}

impl Step {
    /// That of an event. `None`: none is planned for it.
    pub fn of(event: &Event) -> Option<Step> {
        Some(match event {
            Event::Arrived(_) => Step::Arrived,
            Event::ArrivedAll => Step::ArrivedAll,
            Event::Committed => Step::Committed,
            Event::Completed(_) => Step::Completed,
            Event::Failed(_) => Step::Failed,
            Event::GivenUp(_) => Step::GivenUp,
            Event::HandedOff(_) => Step::HandedOff,
            Event::Inherited(_) => Step::Inherited,
            Event::PrecopyRequested(_) => Step::PrecopyRequested,
            Event::PrecopyRoom => Step::PrecopyRoom,
            Event::PredecessorGone => Step::PredecessorGone,
            Event::Progress(_) => Step::Progress,
            Event::Restarting => Step::Restarting,
            Event::Resumed(_) => Step::Resumed,
            Event::Spawned(_) => Step::Spawned,
            Event::StateRequested(_) => Step::StateRequested,
            Event::SuccessorGone(_) => Step::SuccessorGone,
            _ => return None,
        })
    }
}

/// What one process does. Each act is done once, in the order in which they stand here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    acts: Vec<(Step, Act)>,
    /// It does not get ready until it is told to.
    never_ready: bool,
    /// Settings of this process alone, which count more than those of all generations.
    settings: Settings,
}

/// A plan that begins with one act.
pub fn at(step: Step, act: Act) -> Plan {
    Plan::default().at(step, act)
}

/// A plan that begins with a setting.
pub fn set(setting: impl Setting) -> Plan {
    Plan::default().set(setting)
}

/// A plan of a process that does not get ready until it is told to ([`Act::Ready`]).
pub fn never_ready() -> Plan {
    Plan { never_ready: true, ..Plan::default() }
}

impl Plan {
    /// And does one thing more.
    pub fn at(mut self, step: Step, act: Act) -> Plan {
        self.acts.push((step, act));
        self
    }

    /// And has one setting more.
    pub fn set(mut self, setting: impl Setting) -> Plan {
        self.settings.add(setting);
        self
    }

    /// And all of another plan.
    pub fn and(mut self, other: Plan) -> Plan {
        self.acts.extend(other.acts);
        self.settings.append(other.settings);
        self.never_ready |= other.never_ready;
        self
    }

    /// Leaves it for the process that is started next, instead of what was left for that.
    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, serde_json::to_vec(self).expect("text")).expect("a plan");
    }

    /// Leaves it after what was left for that process.
    pub(super) fn append(self, path: &Path) {
        read(path).unwrap_or_default().and(self).write(path);
    }

    /// Takes the plan that waits for this process, so that the next one does not get it.
    pub fn take(path: &Path) -> Plan {
        let plan = read(path);
        if plan.is_some() {
            fs::remove_file(path).expect("the plan is this process's");
        }
        plan.unwrap_or_default()
    }

    /// The settings in it.
    pub fn settings(&mut self) -> Settings {
        std::mem::take(&mut self.settings)
    }

    pub(super) fn is_never_ready(&self) -> bool {
        self.never_ready
    }

    pub fn add(&mut self, step: Step, act: Act) {
        self.acts.push((step, act));
    }

    /// Does all that is planned for a step.
    pub fn carry_out(&mut self, step: Step, restarter: &mut Option<Restarter>) {
        let now: Vec<_> = self.acts.extract_if(.., |(at, _)| *at == step).collect();
        for (_, act) in now {
            // A test that goes on without the act would wait in vain, or prove nothing.
            let answer = act.perform(restarter).unwrap_or_else(|| panic!("no plan does {act:?}: tell the process to do it in its loop"));
            say(&format!("did {act:?}: {answer}"));
        }
    }
}

fn read(path: &Path) -> Option<Plan> {
    let text = fs::read(path).ok()?;
    Some(serde_json::from_slice(&text).expect("a plan"))
}
