//! One life of the pair, that bytes choose.
//!
//! Knows: the body of the fuzz target. Does not know: what the laws are.

use std::cell::RefCell;
use std::collections::HashMap;

use super::acts::is_due;
use super::laws::Law;
use super::search::Pair;
use super::setting::{Act, SETTINGS, Setting};
use super::world::World;

/// One life of the pair, as far as it went.
pub struct Life {
    pub acts: Vec<Act>,
}

/// How much of a life is lived: a longer one has nothing new.
const LONGEST: usize = 300;
/// How much can be left to come when nobody does anything new.
const LAST: usize = 200;

thread_local! {
    static PAIRS: RefCell<HashMap<(usize, bool), Pair>> = RefCell::default();
}

/// The body of the fuzz target: the first byte says what may happen, and each of the others what does.
pub fn life(data: &[u8]) -> Life {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let (number, probation) = (usize::from(first >> 1) % SETTINGS.len(), first & 1 == 1);
    let setting = Setting::new(SETTINGS[number].1, probation);
    PAIRS.with_borrow_mut(|pairs| pairs.entry((number, probation)).or_insert_with(|| Pair::new(setting)).live(rest))
}

impl Pair {
    fn live(&mut self, choices: &[u8]) -> Life {
        let mut world = self.start();
        let mut acts = Vec::new();
        for choice in choices.iter().take(LONGEST) {
            let possible = self.acts(&world);
            let Some(act) = possible.get(usize::from(*choice) % possible.len().max(1)) else { break };
            acts.push(*act);
            world = self.must_step(&world, &acts);
        }
        let lived = acts.len();
        while let Some(act) = self.first_due(&world) {
            assert!(acts.len() < lived + LAST, "{}\n{}", Law::Endless, self.tell(&acts));
            acts.push(act);
            world = self.must_step(&world, &acts);
        }
        if let Some(law) = self.judge_at_rest(&world) {
            panic!("broken: {law}\n{}", self.tell(&acts));
        }
        acts.truncate(lived);
        Life { acts }
    }

    fn must_step(&mut self, world: &World, acts: &[Act]) -> World {
        let (next, broken) = self.step(world, acts[acts.len() - 1]);
        if let Some(law) = broken {
            panic!("broken: {law}\n{}", self.tell(acts));
        }
        next
    }

    fn first_due(&mut self, world: &World) -> Option<Act> {
        self.acts(world).into_iter().find(|act| is_due(world, *act) && self.step(world, *act).0 != *world)
    }

    /// The bytes by which these acts are chosen.
    pub fn bytes_of(&mut self, way: &[Act]) -> Vec<u8> {
        let mut world = self.start();
        let mut bytes = Vec::new();
        for act in way {
            let place = self.acts(&world).iter().position(|possible| possible == act).expect("the act is possible there");
            bytes.push(u8::try_from(place).expect("so many acts are never possible"));
            world = self.step(&world, *act).0;
        }
        bytes
    }
}
