//! The same with chance: chains of restarts, each struck at a random step by a random fault, storms of signals in between. What is drawn
//! follows from the seed, which is printed: `POLLFLIP_SEED` repeats it. `POLLFLIP_SECONDS` says for how long (60).

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::asker::{Answer, Asker};
use crate::case::{Case, Fault, Step, all};
use crate::judge::size;
use crate::service::StopOnSignals;
use crate::signals::calm;
use crate::watchdog::Watchdog;
use crate::world::{World, setup};
use pollflip_kit::harness::Setup;

/// Chains at a time: they wait more than they work.
const CHAINS: u64 = 4;
const LONGEST: usize = 8;

pub fn trials() -> Vec<Trial> {
    let seed = number("POLLFLIP_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64 % 1_000_000
    });
    let trial = |chain: u64| {
        let run = move || chain_of_worlds(seed * CHAINS + chain);
        Trial::test(format!("random::chain_{chain}_of_seed_{seed}"), move || {
            run();
            Ok(())
        })
    };
    (0..CHAINS).map(|chain| trial(chain).with_ignored_flag(true)).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// xorshift64*.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn chain_of_worlds(seed: u64) {
    let time = Duration::from_secs(number("POLLFLIP_SECONDS").unwrap_or(60));
    let (begun, mut chance, mut count) = (Instant::now(), Chance::new(seed), 0);
    while begun.elapsed() < time {
        let first = chance.one_of(&all());
        let (mut world, kind) = (World::start(world_for(first), has_long_probation(first)), Kind::of(first));
        let others: Vec<_> = all().into_iter().filter(|case| Kind::of(*case) == kind).collect();
        let mut story = Vec::new();
        for number in 0..1 + chance.below(LONGEST) {
            let case = if number == 0 { first } else { chance.one_of(&others) };
            story.push(case.to_string());
            // A panic is told with what led to it.
            let told = Told(&story);
            let goes_on = world.suffer(case);
            drop(told);
            count += 1;
            crate::CASES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if !goes_on || begun.elapsed() > time {
                break;
            }
            if kind == Kind::Plain && chance.below(3) == 0 {
                story.push("a storm".into());
                let told = Told(&story);
                let _watchdog = Watchdog::new("a storm".into(), &world.service);
                storm(&mut world, &mut chance);
                drop(told);
            }
        }
    }
    println!("chain {seed}: {count} cases");
}

/// The cases that one world can go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Impatient,
    LongProbation,
    ShortProbation,
    Unprivileged,
    Terminated,
}

impl Kind {
    fn of(case: Case) -> Kind {
        match case {
            Case { step: Step::Probation, fault: Fault::Suspend | Fault::Sleep, .. } => Kind::ShortProbation,
            // These need settings of their own.
            Case { fault: Fault::Crowded, step, .. } if step != Step::Probation => Kind::Unprivileged,
            Case { fault: Fault::Terminate, step, .. } if step != Step::Probation => Kind::Terminated,
            Case { step: Step::Probation, .. } => Kind::LongProbation,
            case if case.is_impatient() => Kind::Impatient,
            _ => Kind::Plain,
        }
    }
}

fn has_long_probation(case: Case) -> bool {
    Kind::of(case) == Kind::LongProbation
}

fn world_for(case: Case) -> Setup {
    match Kind::of(case) {
        Kind::LongProbation => setup(Case { fault: Fault::Crowded, ..case }).set(StopOnSignals),
        _ => setup(case),
    }
}

/// Restart signals to whoever lives, at any instant of a restart.
fn storm(world: &mut World, chance: &mut Chance) {
    let births = world.service.hub.pids().len();
    let asker = Asker::ask(&world.service.socket());
    for _ in 0..5 + chance.below(60) {
        for process in world.service.hub.pids().into_iter().map(|own| world.service.hub.process(own)) {
            if process.lives() {
                // It may end meanwhile; nobody else gets its number as fast as that.
                let _ = kill(Pid::from_raw(process.pid as i32), Signal::SIGUSR1);
            }
        }
        thread::sleep(Duration::from_micros(chance.below(2000) as u64));
    }
    let answer = asker.answer();
    // A signal may have been first, and a refusal is a failure to one who asks so simply; that no attempt failed, `calm` sees.
    let refused = |why: &str| ["under way", "handed off", "taken over", "probation"].iter().any(|word| why.contains(word));
    let ok = matches!(&answer, Answer::Complete(_) | Answer::Ended) || matches!(&answer, Answer::Failed(why) if refused(why));
    assert!(ok, "{answer:?}");
    calm(world, births);
    // Those who were born while earlier ones still worked hold these until they are asked again.
    let owner = world.service.restart_some_time();
    owner.says("serving");
    owner.says("event PredecessorGone");
    world.before = size(&world.service, &owner);
    world.owner = owner;
}

/// Tells what has led to a panic.
struct Told<'a>(&'a [String]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the chain so far: {:#?}", self.0);
        }
    }
}
