//! Builds of the crate that speak other versions of the lifeline, or say what this one does not know: served, or refused with the reason.

use pollflip::internals::wire::{OLDEST, VERSION};

use crate::dialects::{Predecessor, Successor};
use crate::giving::Give;
use crate::player::{Player, with_predecessor};
use crate::service::Ask;
use pollflip_kit::harness::Setup;
use pollflip_kit::service::set;

pollflip_kit::trials![
    a_newer_successor_that_can_still_speak_this_version_is_served,
    a_newer_predecessor_that_can_still_speak_this_version_is_served,
    a_successor_that_is_too_new_is_killed_with_the_reason,
    a_successor_that_is_too_old_is_killed_with_the_reason,
    a_successor_that_is_too_new_to_be_read_is_killed_with_the_reason,
    a_successor_of_version_1_refuses_and_says_why,
    a_predecessor_of_version_1_is_told_why_it_is_refused,
    a_predecessor_whose_first_message_makes_no_sense_is_told_why,
    a_predecessor_that_is_too_new_is_told_so,
    a_predecessor_that_is_too_new_to_be_read_is_told_so,
];

fn a_newer_successor_that_can_still_speak_this_version_is_served() {
    let service = Setup::new().set(Give::Many(1000)).start();
    service.plan_next(set(Successor::Newer));
    let new = service.restart();
    assert_eq!(new.says("granted"), "1000 1000");
    assert_eq!(service.first().says_again("event Progress", 0), "nearly there");
}

fn a_newer_predecessor_that_can_still_speak_this_version_is_served() {
    let (_service, old, new) = with_predecessor(Predecessor::Newer);
    old.says("granted");
    assert!(new.says("built").starts_with("generation 3 "));
    assert_eq!(new.says("received"), "2");
    new.says("event Committed");
    assert_eq!(new.ask(Ask::Holds), "memfd odd");
    assert_eq!(new.ask(Ask::Read("memfd".into())), "word");
}

fn fails(how: Successor) -> String {
    let service = Setup::new().start();
    let mut player = Player::tcp(&service);
    service.plan_next(set(how));
    let why = service.fail_to_restart();
    assert_eq!(player.echo("here"), service.first().pid);
    service.restart();
    why
}

fn too_new() -> String {
    format!("it speaks no version of the lifeline before {}, and this process none after {VERSION}", VERSION + 9)
}

fn a_successor_that_is_too_new_is_killed_with_the_reason() {
    assert_eq!(fails(Successor::VersionTooNew), format!("the successor broke the protocol and has been killed: {}", too_new()));
}

fn a_successor_that_is_too_old_is_killed_with_the_reason() {
    let why = format!("it speaks version {} of the lifeline, and this process none before {OLDEST}", OLDEST - 1);
    assert_eq!(fails(Successor::VersionTooOld), format!("the successor broke the protocol and has been killed: {why}"));
}

fn a_successor_that_is_too_new_to_be_read_is_killed_with_the_reason() {
    assert_eq!(fails(Successor::UnreadableAndTooNew), format!("the successor broke the protocol and has been killed: {}", too_new()));
}

fn a_successor_of_version_1_refuses_and_says_why() {
    let why =
        "the successor refused: the lifeline cannot be used: it speaks no version of the lifeline before 2, and this process none after 1";
    assert_eq!(fails(Successor::Version1), why);
}

fn refuses(how: Predecessor, for_that: &str) {
    let (_service, old, new) = with_predecessor(how);
    let why = old.says("refused");
    assert!(why.starts_with("the lifeline cannot be used: ") && why.ends_with(for_that), "{why}");
    assert!(new.says("build-error").ends_with(for_that));
}

fn a_predecessor_of_version_1_is_told_why_it_is_refused() {
    refuses(Predecessor::Version1, "it speaks version 1 of the lifeline, and this process none before 2");
}

fn a_predecessor_whose_first_message_makes_no_sense_is_told_why() {
    refuses(Predecessor::MoreThanAnnounced, "the predecessor gives more than the 1 descriptors that it has announced");
    refuses(Predecessor::BlobForASocket, "the predecessor begins with a list of 1 names that has no place there");
}

fn a_predecessor_that_is_too_new_is_told_so() {
    refuses(Predecessor::VersionTooNew, &too_new());
}

fn a_predecessor_that_is_too_new_to_be_read_is_told_so() {
    refuses(Predecessor::UnreadableAndTooNew, &too_new());
}
