//! Successors with bad manners, or slow ones.

use crate::player::Player;
use crate::service::Ask;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::Process;
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::set;
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    a_successor_that_pulls_twice_is_killed,
    a_successor_that_pulls_again_when_it_has_everything_is_killed,
    a_successor_that_is_ready_with_a_handover_open_is_killed,
    a_successor_that_talks_nonsense_is_killed,
    a_successor_that_never_reads_costs_what_waits_for_it_until_the_deadline,
    a_successor_that_challenges_without_end_costs_nothing,
    a_successor_that_asks_for_what_can_go_ahead_is_told_that_nothing_does,
    a_successor_that_reads_late_gets_everything,
    a_successor_that_reads_slowly_gets_everything,
    a_successor_that_closes_its_end_half_way_is_killed,
    a_successor_that_exits_half_way_is_reported_as_such,
    a_refusal_half_way_is_heard_before_the_end,
];

/// What a restart with such a successor fails with, after which the service goes on as before.
fn fails(how: &str, give: &str, timeout: &str) -> String {
    let service = Setup::new().set("give", give).set("count", "4000").set("ready_timeout_ms", timeout).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    service.plan_next(set("successor", how));
    service.fail_to_restart();
    service.plan_next(set("successor", how));
    let why = service.fail_to_restart();
    assert_eq!(player.echo("here"), old.pid);
    // A thread that still waits with the handover lets go of it.
    old.ask(Ask::GoOn);
    service.expect_unchanged(&old, &before);
    why
}

const LONG: &str = "60000";

fn a_successor_that_pulls_twice_is_killed() {
    let why = fails("pulls_twice", "all", LONG);
    assert_eq!(why, "the successor broke the protocol and has been killed: it asked for the state twice");
}

fn a_successor_that_pulls_again_when_it_has_everything_is_killed() {
    let why = fails("pulls_again_later", "many", LONG);
    assert_eq!(why, "the successor broke the protocol and has been killed: it asked for the state twice");
}

fn a_successor_that_is_ready_with_a_handover_open_is_killed() {
    let why = fails("ready_too_soon", "thread", LONG);
    let expected = "it said that it is ready before it had all of the state it had asked for";
    assert_eq!(why, format!("the successor broke the protocol and has been killed: {expected}"));
}

fn a_successor_that_talks_nonsense_is_killed() {
    let why = fails("garbage", "all", LONG);
    assert!(why.contains("broke the protocol") && why.contains("a message that cannot be read"), "{why}");
}

fn a_successor_that_never_reads_costs_what_waits_for_it_until_the_deadline() {
    if !are_many_descriptors_allowed("a_successor_that_never_reads_costs_what_waits_for_it_until_the_deadline") {
        return;
    }
    let count = 15_000;
    let give_many = || Setup::new().set("give", "many_at_once").set("count", count.to_string());
    let lets_go = |old: &Process, before: usize| {
        let has_let_go = || procfs::descriptors(old.pid).len() <= before + 1;
        pollflip_kit::hub::wait_until("the old process to let go of what waited", has_let_go);
    };
    // What the kernel has taken is not held here any more.
    let service = give_many().start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set("successor", "never_reads"));
    let asked = service.restart_meanwhile();
    old.says("given");
    let during = procfs::descriptors(old.pid).len();
    assert!(during > before + 1000 && during < before + count / 2, "{before}, {during}");
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "true");
    asked.join().expect("no panic").expect_err("called off");
    lets_go(&old, before);

    let service = give_many().set("ready_timeout_ms", "1500").start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set("successor", "never_reads"));
    let why = service.fail_to_restart();
    assert!(why.contains("was not ready within 1.5 s"), "{why}");
    lets_go(&old, before);
}

fn a_successor_that_challenges_without_end_costs_nothing() {
    let service = Setup::new().start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set("successor", "challenges_without_end"));
    let asked = service.restart_meanwhile();
    service.hub.nth(1).says("challenged");
    let during = procfs::descriptors(old.pid).len();
    assert!(during < before + 20, "{before}, {during}");
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "true");
    asked.join().expect("no panic").expect_err("called off");
}

fn a_successor_that_asks_for_what_can_go_ahead_is_told_that_nothing_does() {
    let service = Setup::new().set("give", "many").set("count", "10").start();
    service.plan_next(set("successor", "asks_ahead"));
    let new = service.restart();
    assert_eq!(new.says("granted"), "PrecopyComplete { items: 0 } 10 10");
}

fn gets_everything(how: &str) {
    if !are_many_descriptors_allowed(&format!("a_successor_that_{how}_gets_everything")) {
        return;
    }
    for give in ["many", "many_at_once"] {
        let service = Setup::new().set("give", give).set("count", "15000").start();
        service.plan_next(set("successor", how));
        let asked = service.restart_meanwhile();
        service.first().says("given");
        let new = service.hub.nth(1);
        if how == "reads_late" {
            new.says("waits");
            new.go();
        }
        assert_eq!(new.says("granted"), "15000 15000", "{give}");
        assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    }
}

fn a_successor_that_reads_late_gets_everything() {
    gets_everything("reads_late");
}

fn a_successor_that_reads_slowly_gets_everything() {
    gets_everything("reads_slowly");
}

fn a_successor_that_closes_its_end_half_way_is_killed() {
    let why = fails("closes_half_way", "many", LONG);
    assert!(why.starts_with("the successor closed its lifeline and has been killed"), "{why}");
}

fn a_successor_that_exits_half_way_is_reported_as_such() {
    let why = fails("exits_half_way", "many", LONG);
    assert_eq!(why, "the successor exited with status 7 before it was ready; its standard error may say why");
}

fn a_refusal_half_way_is_heard_before_the_end() {
    let why = fails("refuses_and_exits_half_way", "many", LONG);
    assert_eq!(why, "the successor refused: half of it is enough");
}
