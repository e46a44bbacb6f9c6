//! The processes under test: services around a loop, processes that test themselves, and the successors of both.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use pollflip::{Event, Failure, HookResult, LifecycleHandler, RestartConfig, Restarter};

use crate::{case, examples, half, loops, tasks};
use pollflip_kit::group::DIRECTORY;

/// The time limit of the services: short, since it is waited out, and long enough for a busy machine.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a process does with its life.
pub(crate) fn main(role: &str) -> ExitCode {
    let plan = std::fs::read_to_string(path("next")).unwrap_or_default();
    let is_successor = std::env::var_os("POLLFLIP_LIFELINE").is_some();
    if is_successor && !plan.is_empty() {
        std::fs::remove_file(path("next")).expect("the plan is this process's");
    }
    match plan.as_str() {
        "hang" if is_successor => {
            std::fs::write(path("hangs"), "").expect("written");
            loop {
                thread::park();
            }
        }
        "exit" if is_successor => return ExitCode::from(3),
        _ => {}
    }
    if role == "taker" {
        return examples::take_and_end();
    }
    match role.split_once(' ') {
        Some(("loop", name)) => serve(name, config(), false),
        Some(("half", name)) => serve(name, config().program(half::program()), true),
        Some(("case", _)) if is_successor => case::succeed(&plan),
        Some(("case", name)) => case::run(name),
        _ => panic!("no role: {role}"),
    }
    ExitCode::SUCCESS
}

/// A file of this test.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory")).join(name)
}

/// The configuration of every process here.
pub(crate) fn config() -> RestartConfig {
    RestartConfig::new().coordination_socket(path("restart.sock"))
}

fn serve(name: &str, config: RestartConfig, is_half: bool) {
    let config = config.ready_timeout(READY_TIMEOUT).freeze_timeout(READY_TIMEOUT);
    if let Some((_, run)) = loops::ALL.iter().find(|(other, _)| *other == name) {
        let mut restarter = config.build().expect("a restarter");
        restarter.ready().expect("the service");
        say("serving");
        if is_half {
            half::begin(restarter.predecessor().is_some());
        }
        run(restarter);
    } else if let Some((_, run)) = tasks::ALL.iter().find(|(other, _)| *other == name) {
        let mut task = config.try_into_restart_task().expect("a task");
        say("serving");
        if is_half {
            // Ready, so that a restart can be asked for.
            assert!(task.poll().is_pending());
            half::begin(task.restarter().predecessor().is_some());
        }
        run(task);
    } else {
        panic!("no loop: {name}");
    }
}

/// Says a line to the test, in one write.
pub(crate) fn say(line: &str) {
    let line = format!("{} {line}\n", std::process::id());
    std::io::stdout().write_all(line.as_bytes()).expect("the test listens");
}

/// Does what a readable descriptor stands for. `true`: the restart is final.
pub(crate) fn drain(restarter: &mut Restarter) -> bool {
    if half::is_on() {
        return half::take_one(restarter);
    }
    while let Some(event) = restarter.poll() {
        if tell(&event) {
            return true;
        }
    }
    false
}

/// Tells what the test wants to know. `true`: the restart is final.
pub(crate) fn tell(event: &Event) -> bool {
    match event {
        Event::Restarting if half::is_on() => half::has_begun(),
        Event::Failed(_) if half::is_on() => half::has_failed(),
        Event::Failed(why) => say(&format!("failed {why}")),
        Event::Completed(pid) => {
            say(&format!("completed {pid}"));
            return true;
        }
        Event::NoMoreRestarts(error) => say(&format!("no more restarts: {error}")),
        _ => {}
    }
    false
}

/// The same for tasks, whose events only a handler sees.
pub(crate) struct Teller;

impl LifecycleHandler for Teller {
    fn pre_new_process(&mut self) -> HookResult {
        if half::is_on() {
            half::has_begun();
        }
        Ok(())
    }

    fn new_process_failed(&mut self, why: &Failure) {
        if half::is_on() {
            return half::has_failed();
        }
        say(&format!("failed {why}"));
    }

    fn new_process_ready(&mut self, pid: u32) {
        say(&format!("completed {pid}"));
    }
}
