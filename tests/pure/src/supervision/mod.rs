//! The guard's machine in a small world of processes that die, hand over and are told to end, and
//! the laws that hold there.
//!
//! `supervision_table` and `supervision_search` use it, and the fuzz target
//! `supervision`.

pub mod faults;
pub mod laws;
pub mod world;

use std::time::Duration;

use pollflip::internals::machine::supervision::{Deed, Fact, Policy, Rules, Stage, Strikes, Supervision};
use pollflip::internals::notify::{MAX_MESSAGE, Message, Wish, is_fit_name};

pub use laws::Law;
pub use world::{Step, World};

/// A second in the world.
pub const SECOND: Duration = Duration::from_secs(1);

/// What a world runs: the machine, or one with a planted fault.
pub trait Machine {
    fn handle(&mut self, now: Duration, fact: Fact);
    fn poll_deed(&mut self) -> Option<Deed>;
    fn poll_timeout(&self) -> Option<Duration>;
    fn stage(&self) -> Stage;
    fn inner(&self) -> &Supervision;
    fn status(&self) -> Option<pollflip::Exit> {
        self.inner().status()
    }
}

impl Machine for Supervision {
    fn handle(&mut self, now: Duration, fact: Fact) {
        Supervision::handle(self, now, fact);
    }

    fn poll_deed(&mut self) -> Option<Deed> {
        Supervision::poll_deed(self)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Supervision::poll_timeout(self)
    }

    fn stage(&self) -> Stage {
        Supervision::stage(self)
    }

    fn inner(&self) -> &Supervision {
        self
    }
}

/// Rules with times of a few seconds, but for strikes: all others together do not come to so much.
pub fn rules(policy: Policy, ready: bool) -> Rules {
    Rules { policy, strikes: Strikes { count: 2, within: 100_000 * SECOND }, delay: SECOND, ready: ready.then_some(3 * SECOND) }
}

/// All that a search goes through.
pub fn all_rules() -> Vec<Rules> {
    [Policy::No, Policy::OnFailure, Policy::Always].into_iter().flat_map(|policy| [false, true].map(|ready| rules(policy, ready))).collect()
}

/// Any bytes as a life: the first chooses the rules, each other a step. Ends with the first broken
/// law.
pub fn life(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let rules = all_rules()[usize::from(*first) % 6];
    let mut world = World::new(Supervision::new(rules), rules);
    for byte in rest {
        world.take(Step::ALL[usize::from(*byte) % Step::ALL.len()]);
        assert_eq!(world.broken, None, "after {:?}", world.story);
    }
    world.everything_ends();
    assert_eq!(world.broken, None, "after {:?}", world.story);
}

/// Any bytes as a message of a service.
pub fn notification(data: &[u8]) {
    let Some(message) = Message::new(data) else {
        let inside = data.strip_suffix(b"\0").unwrap_or(data);
        let is_garbage = inside.len() > MAX_MESSAGE || inside.contains(&0) || std::str::from_utf8(inside).is_err();
        return assert!(is_garbage, "a text was left out");
    };
    let text = String::from_utf8_lossy(data);
    let told = message.notification();
    assert!(told.main.is_none_or(|pid| pid > 0 && pid <= i32::MAX as u32));
    for (word, said) in
        [("READY", told.ready), ("RELOADING", told.reloading), ("STOPPING", told.stopping), ("BARRIER", message.is_barrier())]
    {
        assert!(!said || text.contains(&format!("{word}=1")), "{word} was not said");
    }
    if let Some(wish) = message.wish() {
        let (Wish::Store { name, .. } | Wish::Remove { name }) = wish;
        assert!(is_fit_name(name) && text.contains("FDSTORE"));
    }
    for line in message.lines_for_manager() {
        assert!(text.contains(line) && line.contains('=') && !line.contains('\n'));
        for ours in ["MAINPID=", "FDSTORE=", "BARRIER=", "STOPPING="] {
            assert!(!line.starts_with(ours), "{line:?} is not for a manager above");
        }
    }
}
