//! Clocks and numbers.

use crate::Options;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use pollflip::{RestartConfig, RestartTask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

/// Not counted at the beginning: memory is touched for the first time.
const WARM_UP: usize = 30;

/// The time as all processes of this machine have it, which an `Instant` cannot be given over as.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// When frames begin. Goes from generation to generation, so that the new one falls in with the step of the old.
#[derive(Serialize, Deserialize)]
pub(crate) struct Clock {
    frame: Duration,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { frame: now() }
    }

    pub(crate) fn wait_for_the_next_frame(&mut self, length: Duration) {
        self.frame += length;
        match self.frame.checked_sub(now()) {
            Some(left) => thread::sleep(left),
            // Too late by more than a frame: no use in catching up.
            None if now() > self.frame + length => self.frame = now(),
            None => {}
        }
    }
}

/// What one half of the game was like.
#[derive(Default, Serialize, Deserialize)]
struct Half {
    /// From the start of one step to the start of the next, in microseconds.
    frames: Vec<u32>,
    /// The longest call into the library of each kind.
    calls: BTreeMap<String, Duration>,
}

/// Without restarts first, then with them.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Measurements {
    halves: [Half; 2],
    /// The last step.
    last: Option<Duration>,
    warm: usize,
    began: Option<Duration>,
    restarting_since: Option<Duration>,
}

impl Measurements {
    fn half(&mut self) -> &mut Half {
        &mut self.halves[usize::from(self.restarting_since.is_some())]
    }

    /// A step of the world begins.
    pub(crate) fn frame(&mut self, clock: &Clock) {
        let start = now();
        if self.warm < WARM_UP {
            self.warm += 1;
            self.began = Some(clock.frame);
        } else if let Some(last) = self.last {
            self.half().frames.push((start - last).as_micros() as u32);
        }
        self.last = Some(start);
    }

    /// A call into the library.
    pub(crate) fn call<T>(&mut self, name: &str, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        let took = start.elapsed();
        let calls = &mut self.half().calls;
        match calls.get_mut(name) {
            Some(longest) => *longest = took.max(*longest),
            None => drop(calls.insert(name.into(), took)),
        }
        result
    }

    /// Whether it is time for the next restart: they are spread over the second half.
    pub(crate) fn look_at_the_plan(&mut self, clock: &Clock, options: &Options, done: u32) -> bool {
        if self.began.is_none_or(|began| clock.frame < began + options.seconds) {
            return false;
        }
        let since = *self.restarting_since.get_or_insert(clock.frame);
        done < options.restarts && clock.frame >= since + options.seconds * done / options.restarts
    }

    pub(crate) fn is_over(&self, clock: &Clock, options: &Options, done: u32) -> bool {
        done >= options.restarts && self.restarting_since.is_some_and(|since| clock.frame >= since + options.seconds)
    }

    pub(crate) fn report(&mut self, options: &Options) -> String {
        let mut text = format!("{:24}{:>14}{:>14}\n", "frames of", "no restarts", format!("{} restarts", options.restarts));
        for half in &mut self.halves {
            half.frames.sort_unstable();
        }
        let edges: [f64; 9] = [0.0, 15.0, 16.0, 16.5, 16.8, 17.0, 18.0, 20.0, 33.0];
        for (index, from) in edges.iter().enumerate() {
            let to = edges.get(index + 1).copied().unwrap_or(f64::INFINITY);
            let count = |half: &Half| half.frames.iter().filter(|frame| (*from..to).contains(&milliseconds(**frame))).count();
            let label = if to.is_finite() { format!("{from:.1} to {to:.1} ms") } else { format!("{from:.1} ms and more") };
            let counts = [count(&self.halves[0]), count(&self.halves[1])];
            let _ = writeln!(text, "{label:24}{:>14}{:>14}", counts[0], counts[1]);
        }
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)] {
            let [first, second] = [self.halves[0].quantile(share), self.halves[1].quantile(share)];
            let change = (second / first - 1.0) * 100.0;
            let _ = writeln!(text, "{label:24}{first:>11.3} ms{second:>11.3} ms   {change:+.1} %");
        }
        let longest = |half: &Half| half.calls.iter().max_by_key(|(_, took)| **took).map(|(name, took)| (name.clone(), *took));
        for (label, half) in [("without", &self.halves[0]), ("with", &self.halves[1])] {
            if let Some((name, took)) = longest(half) {
                let _ = writeln!(text, "longest call into the library {label} restarts: {name}, {:.3} ms", took.as_secs_f64() * 1e3);
            }
        }
        text
    }
}

impl Half {
    /// Of sorted frames.
    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.frames.len() as f64).ceil() as usize;
        self.frames.get(rank.saturating_sub(1)).map_or(0.0, |frame| milliseconds(*frame))
    }
}

fn milliseconds(frame: u32) -> f64 {
    f64::from(frame) / 1e3
}

// --- what polling costs when nothing happens ---

const BATCH: u32 = 20_000;
const BATCHES: u32 = 25;

/// Prints it beside a bare `epoll_wait` that does not wait: the fastest of many batches each, taken in turn.
pub(crate) fn idle_cost() -> io::Result<()> {
    let socket = std::env::temp_dir().join(format!("game_loop.{}.sock", std::process::id()));
    let mut restarter = RestartConfig::new().coordination_socket(socket).build()?;
    restarter.ready()?;
    while restarter.poll().is_some() {}
    compare("Restarter::poll", || assert!(restarter.poll().is_none()))?;
    let mut task = RestartTask::from(restarter);
    compare("RestartTask::poll", || assert!(task.poll().is_pending()))
}

fn compare(name: &str, mut call: impl FnMut()) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut events = [EpollEvent::empty(); 64];
    let (mut bare, mut ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..BATCHES {
        bare = bare.min(batch(|| assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(0))));
        ours = ours.min(batch(&mut call));
    }
    let share = ours.as_secs_f64() / bare.as_secs_f64();
    writeln!(io::stdout(), "{name:18}{:>6} ns, a bare epoll_wait {:>6} ns: × {share:.2}", ours.as_nanos(), bare.as_nanos())
}

/// The time of one call.
fn batch(mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        call();
    }
    start.elapsed() / BATCH
}
