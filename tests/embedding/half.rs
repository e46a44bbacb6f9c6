//! A poll that is only half used: each loop takes one event per wake-up, and goes back to wait although there may be more.
//!
//! A round is a restart that a signal asks for and whose program is not there: nothing but the start of it, which `poll` itself carries
//! out, leads from its first event to its second. A wake-up that is missing stops the loop for ever. At the end the program is there, and
//! the restart succeeds.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use pollflip::restart_coordination_socket::request_status;
use pollflip::{Event, Restarter, ServiceState};

use crate::child::{path, say, tell};
use pollflip_kit::group::{DEADLINE, Group, has_ended, wait_until};

const ROUNDS: usize = 1_000;
/// A loop with a tick is woken by nothing else, and takes its time.
const ROUNDS_OF_TICKS: usize = 30;
/// How often the test hears of it.
const STEP: usize = 10;

/// Where this process stands in its rounds, if it is in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Off,
    /// A restart has been asked for.
    Asked,
    /// The loop has been told that it has begun.
    Begun,
    /// The loop has been told how it ended.
    Ended,
    /// It has taken over, and asks for nothing.
    Following,
}

#[derive(Debug)]
struct Half {
    stage: Stage,
    rounds: usize,
}

static HALF: Mutex<Half> = Mutex::new(Half { stage: Stage::Off, rounds: 0 });

fn half() -> MutexGuard<'static, Half> {
    HALF.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Half {
    fn goes(&mut self, from: Stage, to: Stage) {
        assert_eq!(self.stage, from, "in round {}", self.rounds);
        self.stage = to;
    }

    /// Asks for a restart, from outside as it were: the loop is woken by that, and by nothing of its own.
    fn ask(&mut self) {
        self.stage = Stage::Asked;
        kill(getpid(), Signal::SIGUSR1).expect("a signal");
    }

    fn next(&mut self) {
        self.rounds += 1;
        if self.rounds.is_multiple_of(STEP) {
            say(&format!("round {}", self.rounds));
        }
        self.ask();
    }
}

/// The test, from outside.
pub(crate) fn run(name: &str) {
    let group = Group::of_role(&format!("half {name}"));
    let rounds = if name.contains("tick") { ROUNDS_OF_TICKS } else { ROUNDS };
    let says = format!("{} round", group.first());
    for step in 1..=rounds / STEP {
        assert_eq!(group.says(&says, step - 1), (step * STEP).to_string());
    }
    let own = std::env::current_exe().expect("the path of this program");
    symlink(own, group.path(PROGRAM)).expect("a link");
    let new: u32 = group.says(&format!("{} completed", group.first()), 0).parse().expect("a process id");
    wait_until("the new process to have the service", || {
        request_status(group.socket(), DEADLINE).is_ok_and(|status| status.pid == new && status.state == ServiceState::Serving)
    });
    wait_until("the old process to end", || has_ended(group.first()));
}

/// What these services start.
const PROGRAM: &str = "nothing";

pub(crate) fn program() -> PathBuf {
    path(PROGRAM)
}

/// From now on this process is in rounds, or is what they have come to.
pub(crate) fn begin(is_successor: bool) {
    match is_successor {
        true => half().stage = Stage::Following,
        false => half().ask(),
    }
}

pub(crate) fn is_on() -> bool {
    half().stage != Stage::Off
}

/// Takes one event, in the place of all that there are. The next round begins when nothing is left. `true`: the restart is final.
pub(crate) fn take_one(restarter: &mut Restarter) -> bool {
    let event = restarter.poll();
    let stage = half().stage;
    match event {
        Some(Event::Restarting) => half().goes(Stage::Asked, Stage::Begun),
        Some(Event::Failed(_)) => half().goes(Stage::Begun, Stage::Ended),
        Some(Event::Spawned(_) | Event::HandedOff(_)) if stage == Stage::Begun => {}
        Some(event @ Event::Completed(_)) if stage == Stage::Begun => return tell(&event),
        Some(Event::Granted | Event::Committed | Event::PredecessorGone) if stage == Stage::Following => {}
        Some(event) => panic!("{event:?}"),
        None if stage == Stage::Ended => half().next(),
        None => {}
    }
    false
}

/// A task has taken an event. What is left it takes by itself, or with the next event that it is asked for.
pub(crate) fn has_begun() {
    half().goes(Stage::Asked, Stage::Begun);
}

/// The same, and nothing is left.
pub(crate) fn has_failed() {
    let mut half = half();
    half.goes(Stage::Begun, Stage::Ended);
    half.next();
}
