//! A release that starts, takes over, serves for 200 ms and crashes, under load: probation gives the service back, and no connection
//! attempt is refused. And what a start costs a process that has much memory.

use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::asker::{Answer, Asker};
use crate::service::Ballast;
use crate::strike::Strike;
use crate::trial;
use crate::world::World;
use pollflip_kit::client::Load;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::service::{Act, Config, at, ms, plan};

/// How many of them one after the other.
const RELEASES: usize = 3;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("promise_01_on_probation::a_bad_release_costs_no_refused_connection".into(), || bad_releases(8)),
        trial("promise_07_on_probation::a_bad_release_is_reported_and_the_old_one_serves_again".into(), || bad_releases(1)),
        trial("promise_08_after_the_spawn::the_start_does_not_grow_with_the_memory_of_the_old_one".into(), large_and_small),
    ]
}

/// How often each is started at least, and at most where the machine is busy.
const STARTS: RangeInclusive<usize> = 6..=60;

/// The shortest start so far, after one more.
fn shortest_start(world: &World) -> Duration {
    let before = world.owner.said("spawned-within").len();
    world.service.plan_next(at(plan::Step::Born, Act::Exit(0)));
    world.service.fail_to_restart();
    // Who asks is told before the program is.
    let told = || Some(world.owner.said("spawned-within")).filter(|times| times.len() > before);
    let times = wait_for("the program to be told of the start", told);
    times.iter().map(|text| Duration::from_micros(text.parse().expect("a number"))).min().expect("starts")
}

fn large_and_small() {
    let worlds = [Setup::new(), Setup::new().set(Ballast)].map(|setup| World::start(setup, false));
    for start in 1.. {
        let [small, large] = worlds.each_ref().map(shortest_start);
        // A copy of the page tables of so much takes several times as long. What a busy machine adds is not meant.
        let is_alike = large < small * 3 + Duration::from_millis(3);
        if is_alike && start >= *STARTS.start() {
            break;
        }
        assert!(start < *STARTS.end(), "{small:?} without memory, {large:?} with it");
    }
}

fn bad_releases(clients: usize) {
    let world = World::start(Setup::new().set(Config::Probation(ms(120000))), true);
    let (service, old) = (&world.service, &world.owner);
    let load = Load::start(service.address(), clients);
    for number in 0..RELEASES {
        wait_until("load on the old one", || load.served() > 200 * (number + 1));
        let births = service.hub.pids().len();
        let asker = Asker::ask(&service.socket());
        let new = service.hub.nth(births);
        new.says("serving");
        // So long it serves, as far as anybody can tell: the time is what this is about.
        thread::sleep(Duration::from_millis(200));
        let served = load.served();
        wait_until("the new one to serve", || load.served() > served);
        world.send_strike(&new, Strike::Abort);
        let answer = asker.answer();
        assert_eq!(
            answer,
            Answer::Failed(
                "the successor was killed by SIGABRT on probation; a failed assertion, or a panic that aborts? see its standard error"
                    .into()
            )
        );
        old.says_again("event Resumed", number);
        assert_eq!(service.status().pid, old.own);
        let served = load.served();
        wait_until("the old one to serve again", || load.served() > served + 200);
        assert_eq!(service.connect().pid, old.own);
    }
    // Connections that the dead one had accepted are lost with it; nobody was turned away.
    let failed = load.stop();
    let refused: Vec<_> = failed.iter().filter(|why| why.contains("refused")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    // Each client has one connection at a time, so that a crash breaks one of each at the most.
    assert!(failed.len() <= clients * RELEASES, "{} connections were lost: {failed:?}", failed.len());
    assert_eq!(
        service.status().last_failure.as_deref(),
        Some("the successor was killed by SIGABRT on probation; a failed assertion, or a panic that aborts? see its standard error")
    );
}
