//! What a thread is pinned to, and its priority: inherited by every later generation if it is set before the restarter is built.

use std::thread;

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::service::Recipe;
use pollflip_kit::harness::Setup;
use pollflip_kit::service::report::say;
use pollflip_kit::service::{Act, Capability, Core, Settings, Step, at};
use serde::{Deserialize, Serialize};

pollflip_kit::trials![what_is_set_after_build_is_not_inherited, what_is_set_before_build_is_inherited,];

/// Pins its thread to one processor, and lowers its priority, as a program without rights may.
pub struct Pinned(pub Order);

/// Whether it does so before or after its restarter is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    Before,
    After,
}

#[allow(unsafe_code, reason = "nix has no priorities")]
fn niceness() -> i32 {
    // SAFETY: the call takes numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

#[allow(unsafe_code, reason = "nix has no priorities")]
fn pin() {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).expect("a set");
    let one = (0..CpuSet::count()).find(|number| allowed.is_set(*number).unwrap_or(false)).expect("a processor");
    let mut set = CpuSet::new();
    set.set(one).expect("a processor");
    sched_setaffinity(own, &set).expect("a set that is allowed");
    // SAFETY: the call takes numbers.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness() + 1) }, 0);
}

impl Capability for Pinned {
    fn before_build(&mut self, _: &Settings) {
        say(&format!("processors {} niceness {}", thread::available_parallelism().expect("a number"), niceness()));
        if self.0 == Order::Before {
            pin();
        }
    }

    fn built(&mut self, _: &mut Core) -> Result<(), String> {
        if self.0 == Order::After {
            pin();
        }
        Ok(())
    }
}

fn what_is_set_after_build_is_not_inherited() {
    let service = Setup::new().set(Recipe::Pinned(Order::After)).start();
    let born = service.first().says("processors");
    service.plan_next(at(Step::Claimed, Act::Exit(3)));
    service.fail_to_restart();
    for _ in 0..3 {
        assert_eq!(service.restart().says("processors"), born);
    }
}

/// Which is why the guide says when.
fn what_is_set_before_build_is_inherited() {
    let service = Setup::new().set(Recipe::Pinned(Order::Before)).start();
    let niceness: i32 = service.first().says("processors").rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    for generation in 1..=3 {
        let born = service.restart().says("processors");
        assert_eq!(born, format!("1 niceness {}", (niceness + generation).min(19)), "no process is nicer than 19");
    }
}
