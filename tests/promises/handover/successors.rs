//! Successors with bad manners, or slow ones.

use crate::dialects::Successor;
use crate::giving::{Give, Wait};
use crate::player::Player;
use crate::service::Ask;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::Process;
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Config, ms, set};
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
fn fails(how: Successor, give: Give) -> String {
    let service = Setup::new().set(give).set(Config::ReadyTimeout(ms(60_000))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    service.plan_next(set(how));
    service.fail_to_restart();
    service.plan_next(set(how));
    let why = service.fail_to_restart();
    assert_eq!(player.echo("here"), old.pid);
    // A thread that still waits with the handover lets go of it.
    old.go();
    old.ask(Ask::Holds);
    service.expect_unchanged(&old, &before);
    why
}

fn a_successor_that_pulls_twice_is_killed() {
    let why = fails(Successor::PullsTwice, Give::All);
    assert_eq!(why, "the successor broke the protocol and has been killed: it asked for the state twice");
}

fn a_successor_that_pulls_again_when_it_has_everything_is_killed() {
    let why = fails(Successor::PullsAgainLater, Give::Many(4000));
    assert_eq!(why, "the successor broke the protocol and has been killed: it asked for the state twice");
}

fn a_successor_that_is_ready_with_a_handover_open_is_killed() {
    let why = fails(Successor::ReadyTooSoon, Give::InThread(Wait::AtOnce));
    let expected = "it said that it is ready before it had all of the state it had asked for";
    assert_eq!(why, format!("the successor broke the protocol and has been killed: {expected}"));
}

fn a_successor_that_talks_nonsense_is_killed() {
    let why = fails(Successor::Garbage, Give::All);
    assert!(why.contains("broke the protocol") && why.contains("a message that cannot be read"), "{why}");
}

fn a_successor_that_never_reads_costs_what_waits_for_it_until_the_deadline() {
    if !are_many_descriptors_allowed("a_successor_that_never_reads_costs_what_waits_for_it_until_the_deadline") {
        return;
    }
    let count = 15_000;
    let give_many = || Setup::new().set(Give::ManyAtOnce(count as u64, 0));
    let lets_go = |old: &Process, before: usize| {
        let has_let_go = || procfs::descriptors(old.pid).len() <= before + 1;
        pollflip_kit::hub::wait_until("the old process to let go of what waited", has_let_go);
    };
    // What the kernel has taken is not held here any more.
    let service = give_many().start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set(Successor::NeverReads));
    let asked = service.restart_meanwhile();
    old.says("given");
    let during = procfs::descriptors(old.pid).len();
    assert!(during > before + 1000 && during < before + count / 2, "{before}, {during}");
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "true");
    asked.join().expect("no panic").expect_err("called off");
    lets_go(&old, before);

    let service = give_many().set(Config::ReadyTimeout(ms(1500))).start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set(Successor::NeverReads));
    let why = service.fail_to_restart();
    assert!(why.contains("was not ready within 1.5 s"), "{why}");
    lets_go(&old, before);
}

fn a_successor_that_challenges_without_end_costs_nothing() {
    let service = Setup::new().start();
    let old = service.first();
    let before = procfs::descriptors(old.pid).len();
    service.plan_next(set(Successor::ChallengesWithoutEnd));
    let asked = service.restart_meanwhile();
    service.hub.nth(1).says("challenged");
    let during = procfs::descriptors(old.pid).len();
    assert!(during < before + 20, "{before}, {during}");
    assert_eq!(old.ask(Ask::Cancel("by a test".into())), "true");
    asked.join().expect("no panic").expect_err("called off");
}

fn a_successor_that_asks_for_what_can_go_ahead_is_told_that_nothing_does() {
    let service = Setup::new().set(Give::Many(10)).start();
    service.plan_next(set(Successor::AsksAhead));
    let new = service.restart();
    assert_eq!(new.says("granted"), "PrecopyComplete { items: 0 } 10 10");
}

fn gets_everything(how: Successor) {
    if !are_many_descriptors_allowed(&format!("a successor that {how:?}")) {
        return;
    }
    for give in [Give::Many(15_000), Give::ManyAtOnce(15_000, 0)] {
        let service = Setup::new().set(give).start();
        service.plan_next(set(how));
        let asked = service.restart_meanwhile();
        service.first().says("given");
        let new = service.hub.nth(1);
        if how == Successor::ReadsLate {
            new.says("waits");
            new.go();
        }
        assert_eq!(new.says("granted"), "15000 15000", "{give:?}");
        assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    }
}

fn a_successor_that_reads_late_gets_everything() {
    gets_everything(Successor::ReadsLate);
}

fn a_successor_that_reads_slowly_gets_everything() {
    gets_everything(Successor::ReadsSlowly);
}

fn a_successor_that_closes_its_end_half_way_is_killed() {
    let why = fails(Successor::ClosesHalfWay, Give::Many(4000));
    assert!(why.starts_with("the successor closed its lifeline and has been killed"), "{why}");
}

fn a_successor_that_exits_half_way_is_reported_as_such() {
    let why = fails(Successor::ExitsHalfWay, Give::Many(4000));
    assert_eq!(why, "the successor exited with status 7 before it was ready; its standard error may say why");
}

fn a_refusal_half_way_is_heard_before_the_end() {
    let why = fails(Successor::RefusesAndExitsHalfWay, Give::Many(4000));
    assert_eq!(why, "the successor refused: half of it is enough");
}
