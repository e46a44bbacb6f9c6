//! All that can happen to the pair, breadth first, to a fixed point.
//!
//! Knows: which states were seen, and how they were reached. Does not know: what an act does.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::BuildHasherDefault;

use pollflip::internals::machine::{Action, Output, Reply};

use super::acts::is_due;
use super::automaton::{Automaton, Move, Node, Restarts, Takes};
use super::laws::Law;
use super::normal::{AsItIs, Fingerprint, fingerprint};
use super::setting::{Act, Setting};
use super::world::{Life, World, Wrapper};

/// The machines of both sides, as one setting has them.
pub struct Pair {
    pub setting: Setting,
    pub restarts: Automaton<Restarts>,
    pub takeovers: Automaton<Takes>,
    /// Where a request was tried: whether one that is not taken is answered once, and changes nothing.
    refusals: Vec<Option<bool>>,
}

/// One state, on the way to the next.
pub struct Run<'a> {
    pub pair: &'a mut Pair,
    pub world: World,
    pub broken: Option<Law>,
}

/// A law that does not hold, and a shortest way to where it does not.
pub struct Broken {
    pub law: Law,
    pub way: Vec<Act>,
}

/// What a search has seen.
pub struct Seen {
    pub states: usize,
    pub edges: usize,
    pub at_rest: usize,
    pub broken: Option<Broken>,
    /// Each act, with a shortest way to it; not of a search without a limit.
    pub acts: HashMap<Act, Vec<Act>, BuildHasherDefault<Fingerprint>>,
}

impl Pair {
    pub fn new(setting: Setting) -> Pair {
        let Setting { probation, plant, .. } = setting;
        let restarts = Automaton::new(move || Restarts::new(probation, plant));
        let takeovers = Automaton::new(move || Takes::new(probation, plant));
        Pair { setting, restarts, takeovers, refusals: Vec::new() }
    }

    /// The old process serves, and its machine is open.
    pub fn start(&mut self) -> World {
        World::new(self.restarts.step(0, Move::Opened).0)
    }

    /// What comes of an act, and the law that it breaks.
    pub fn step(&mut self, world: &World, act: Act) -> (World, Option<Law>) {
        let mut run = Run { pair: self, world: *world, broken: None };
        match act {
            Act::New(which, step) => run.new_acts(which, step),
            _ => run.old_acts(act),
        }
        run.normalise();
        run.judge();
        (run.world, run.broken)
    }

    /// The law that does not hold where nothing is left to deliver.
    pub fn judge_at_rest(&mut self, world: &World) -> Option<Law> {
        let mut run = Run { pair: self, world: *world, broken: None };
        run.judge_at_rest();
        run.broken
    }

    /// Whether a request that would not be taken now is answered exactly once, and changes nothing else.
    pub fn refuses_once(&mut self, node: Node) -> bool {
        let place = usize::from(node);
        self.refusals.resize(self.refusals.len().max(place + 1), None);
        if let Some(answer) = self.refusals[place] {
            return answer;
        }
        let (room, willing) = (self.restarts.facts(node).room, self.restarts.facts(node).willing);
        let asked = self.restarts.step(node, Move::Request).0;
        let answers = self.refusals_from(asked) - self.refusals_from(node);
        let answer = willing || (answers == 1 && self.restarts.facts(asked).room == room);
        self.refusals[place] = Some(answer);
        answer
    }

    /// How many are refused by what waits to be carried out.
    fn refusals_from(&mut self, node: Node) -> usize {
        let (mut at, mut refusals) = (node, 0);
        while !self.restarts.facts(at).queue.is_empty() {
            let (next, outputs) = self.restarts.step(at, Move::Output);
            let refused = |output: &&Output| matches!(output, Output::Action(Action::Reply(_, Reply::Refused(_) | Reply::Forbidden(_))));
            refusals += outputs.iter().filter(refused).count();
            at = next;
        }
        refusals
    }

    pub fn acts(&mut self, world: &World) -> Vec<Act> {
        Run { pair: self, world: *world, broken: None }.acts()
    }

    /// All that can happen, up to the first law that does not hold.
    pub fn explore(&mut self) -> Seen {
        self.explore_up_to(usize::MAX)
    }

    /// The same in no more than so many states.
    pub fn explore_up_to(&mut self, limit: usize) -> Seen {
        let start = self.start();
        let mut states = vec![start];
        let mut from: Vec<(u32, Act)> = vec![(0, Act::Poll)];
        let mut towards: Vec<u32> = Vec::new();
        let mut known: HashMap<u64, u32, BuildHasherDefault<AsItIs>> = HashMap::default();
        known.insert(fingerprint(&start), 0);
        let mut seen = Seen { states: 0, edges: 0, at_rest: 0, broken: None, acts: HashMap::default() };
        let mut index = 0;
        while index < states.len().min(limit) {
            let world = states[index];
            let mut leads_to = None;
            for act in self.acts(&world) {
                let (next, broken) = self.step(&world, act);
                seen.edges += 1;
                if limit < usize::MAX {
                    seen.acts.entry(act).or_insert_with(|| way(&from, index, Some(act)));
                }
                if let Some(law) = broken {
                    seen.broken = Some(Broken { law, way: way(&from, index, Some(act)) });
                    seen.states = states.len();
                    return seen;
                }
                if next == world {
                    continue;
                }
                let number = *known.entry(fingerprint(&next)).or_insert_with(|| {
                    states.push(next);
                    from.push((index as u32, act));
                    states.len() as u32 - 1
                });
                if leads_to.is_none() && is_due(&world, act) {
                    leads_to = Some(number);
                }
            }
            if leads_to.is_none() {
                seen.at_rest += 1;
                if let Some(law) = self.judge_at_rest(&world) {
                    seen.broken = Some(Broken { law, way: way(&from, index, None) });
                    break;
                }
            }
            towards.push(leads_to.unwrap_or(index as u32));
            index += 1;
        }
        seen.states = states.len();
        if seen.broken.is_none()
            && seen.states <= limit
            && let Some(index) = endless(&towards)
        {
            seen.broken = Some(Broken { law: Law::Endless, way: way(&from, index, None) });
        }
        seen
    }

    /// A history, one act a line, with where it leads.
    pub fn tell(&mut self, way: &[Act]) -> String {
        let mut world = self.start();
        let mut text = String::new();
        for (number, act) in way.iter().enumerate() {
            world = self.step(&world, *act).0;
            let _ = writeln!(text, "  {:>2}. {act:?}", number + 1);
            let _ = writeln!(text, "      {}", self.describe(&world));
        }
        text
    }

    fn describe(&self, world: &World) -> String {
        let old = &world.old;
        let facts = self.restarts.facts(old.machine);
        let mut text = match old.life {
            Life::Alive if old.dropped => "old: without a restarter".to_string(),
            Life::Alive => format!("old: {:?} {:?}", facts.room, facts.queue),
            life => format!("old: {life:?}"),
        };
        text += if old.serves { ", serves" } else { "" };
        text += if old.committed { ", has committed" } else { "" };
        for (which, of) in world.successors() {
            let stage = of.takeover.map(|node| self.takeovers.facts(node).stage);
            let _ = write!(text, " | {which:?}: {:?} ", of.life);
            match stage {
                Some(stage) if of.life == Life::Alive => _ = write!(text, "{stage:?}"),
                _ => {}
            }
            if of.wrapper != Wrapper::None {
                let _ = write!(text, " behind a wrapper ({:?})", of.wrapper);
            }
            if !of.line.to_new.is_empty() || !of.line.unsent_by_old.is_empty() {
                let _ = write!(text, " ←{:?}", of.line.to_new);
            }
            if !of.line.unsent_by_old.is_empty() {
                let _ = write!(text, "←unsent{:?}", of.line.unsent_by_old);
            }
            if !of.line.to_old.is_empty() || !of.line.unsent_by_new.is_empty() {
                let _ = write!(text, " →{:?}", of.line.to_old);
            }
            if !of.line.unsent_by_new.is_empty() {
                let _ = write!(text, "→unsent{:?}", of.line.unsent_by_new);
            }
        }
        text
    }
}

fn way(from: &[(u32, Act)], to: usize, last: Option<Act>) -> Vec<Act> {
    let mut way: Vec<Act> = last.into_iter().collect();
    let mut at = to;
    while at != 0 {
        let (before, act) = from[at];
        way.push(act);
        at = before as usize;
    }
    way.reverse();
    way
}

/// A state from which what is due goes round in a circle.
fn endless(towards: &[u32]) -> Option<usize> {
    let mut visited_by = vec![u32::MAX; towards.len()];
    for start in 0..towards.len() {
        let mut at = start;
        while visited_by[at] == u32::MAX {
            visited_by[at] = start as u32;
            at = towards[at] as usize;
        }
        if visited_by[at] == start as u32 && towards[at] as usize != at {
            return Some(at);
        }
    }
    None
}
