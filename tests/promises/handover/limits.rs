//! Limits of descriptors, on either side.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::dialects::Successor;
use crate::giving::Give;
use crate::player::Player;
use crate::service;
use crate::service::Limit;
use crate::taking::{Each, Take};
use pollflip_kit::harness::Setup;
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, RunAs, set};
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    a_successor_that_may_not_have_so_many_descriptors_refuses_and_names_the_limit,
    an_old_process_that_cannot_duplicate_fails_the_attempt_and_names_the_item,
    an_old_process_without_room_for_duplicates_hands_over_at_once,
    an_old_process_without_room_for_what_must_wait_fails_the_attempt_and_names_the_item,
    too_many_descriptors_on_their_way_are_waited_for,
];

fn a_successor_that_may_not_have_so_many_descriptors_refuses_and_names_the_limit() {
    // One that closes what it takes needs room for a packet of 253.
    for (take, limit) in [(Take::All, 300), (Take::Each(Each::Quietly), 200)] {
        let service = Setup::new().set(Give::ManyAtOnce(1000, 0)).set(take).start();
        let old = service.first();
        let mut player = Player::tcp(&service);
        let before = Snapshot::of(old.pid);
        service.plan_next(set(Limit::Files(limit)));
        service.fail_to_restart();
        service.plan_next(set(Limit::Files(limit)));
        let why = service.fail_to_restart();
        assert!(why.starts_with("the successor refused: the state cannot be taken over: "), "{take:?}: {why}");
        assert!(why.contains(&format!("may have no more than {limit} open at a time (RLIMIT_NOFILE)")), "{take:?}: {why}");
        assert_eq!(player.echo("kept"), old.pid);
        service.expect_unchanged(&old, &before);
        service.restart();
    }
}

fn an_old_process_that_cannot_duplicate_fails_the_attempt_and_names_the_item() {
    let service = Setup::new().plan(set(Limit::Files(200)).set(Give::Many(1000))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    service.fail_to_restart();
    let why = service.fail_to_restart();
    assert!(why.starts_with("the handover failed: cannot hand \"item/1"), "{why}");
    assert!(why.contains("(os error 24)") && why.contains("no more than 200 open at a time (RLIMIT_NOFILE)"), "{why}");
    assert_eq!(player.echo("kept"), old.pid);
    service.expect_unchanged(&old, &before);
}

/// It has 200, and nearly all of them are in use: there would be room for no duplicate.
fn an_old_process_without_room_for_duplicates_hands_over_at_once() {
    if !are_many_descriptors_allowed("an_old_process_without_room_for_duplicates_hands_over_at_once") {
        return;
    }
    let service = Setup::new().plan(set(Limit::Files(200)).set(Give::ManyAtOnce(5000, 0))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    service.plan_next(set(Limit::Files(20000)));
    service.restart();
    assert_eq!(old.said("give-error"), Vec::<String>::new());
    player.expect_end();
}

fn an_old_process_without_room_for_what_must_wait_fails_the_attempt_and_names_the_item() {
    let service = Setup::new().plan(set(Limit::Files(200)).set(Give::ManyAtOnce(20_000, 0))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let before = Snapshot::of(old.pid);
    for _ in 0..2 {
        service.plan_next(set(Successor::NeverReads));
        let why = service.fail_to_restart();
        assert!(why.starts_with("the handover failed: cannot hand \"item/1"), "{why}");
        assert!(why.contains("(os error 24)") && why.contains("no more than 200 open at a time (RLIMIT_NOFILE)"), "{why}");
    }
    assert_eq!(player.echo("kept"), old.pid);
    service.expect_unchanged(&old, &before);
}

/// More than an unprivileged process may have in flight: what is too much waits, and goes when the successor has read.
fn too_many_descriptors_on_their_way_are_waited_for() {
    for give in [Give::Many(1700), Give::ManyAtOnce(1700, 0)] {
        wait_for_too_many_descriptors(give);
    }
}

fn wait_for_too_many_descriptors(give: Give) {
    if !are_many_descriptors_allowed("too_many_descriptors_on_their_way_are_waited_for") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        // Then the service is no more privileged than this, and its successors neither.
        return eprintln!("skipped: it takes root to run a service as a user of whom no other descriptors are in flight");
    }
    let setup = Setup::new();
    fs::set_permissions(setup.path(""), Permissions::from_mode(0o777)).expect("permissions");
    // These tests may run more than once at a time.
    let user = 20_000 + std::process::id() % 20_000 * 2 + u32::from(matches!(give, Give::Many(_)));
    let service = setup.set(Config::NoSocket).set(RunAs(user)).plan(set(Limit::Files(1100)).set(give)).launch();
    fs::set_permissions(service.path(service::HUB), Permissions::from_mode(0o777)).expect("permissions");
    let old = service.first();
    old.says("serving");
    service.plan_next(set(Successor::ReadsLate));
    fs::set_permissions(service.path(service::NEXT), Permissions::from_mode(0o666)).expect("permissions");
    let before = procfs::descriptors(old.pid).len();
    assert_eq!(old.ask(Act::Request), "ok");
    old.says("given");
    // Six packets of 253 are in flight before the kernel says that it is too much; the rest is held here.
    let waiting = procfs::descriptors(old.pid).len() - before;
    assert!((100..=700).contains(&waiting), "{waiting} descriptors wait");
    let new = service.hub.nth(1);
    new.says("waits");
    new.go();
    assert_eq!(new.says("granted"), "1700 1700");
    old.says("event Completed");
}
