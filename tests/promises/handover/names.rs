//! Names: which are given, and what comes of the others.

use crate::dialects::Predecessor;
use crate::giving::Give;
use crate::player::{Player, with_predecessor};
use crate::taking::Take;
use pollflip_kit::harness::Setup;

pollflip_kit::trials![
    odd_names_arrive_as_they_are,
    two_items_of_one_name_fail_the_attempt,
    a_name_that_is_far_too_long_fails_the_attempt_for_just_that,
    a_descriptor_that_was_closed_fails_the_attempt_and_names_it,
    names_from_the_wire_that_are_no_text_fail_the_attempt,
    a_list_that_makes_no_sense_fails_the_attempt_and_says_what_is_wrong_with_it,
    two_items_of_one_name_from_the_wire_fail_the_attempt,
    items_that_are_missing_at_the_end_fail_the_attempt,
    more_names_than_descriptors_fail_the_attempt,
    items_in_a_message_that_is_not_known_fail_the_attempt,
    odd_names_from_the_wire_are_only_names,
];

fn odd_names_arrive_as_they_are() {
    let service = Setup::new().set(Give::Names).set(Take::Names).start();
    let new = service.restart();
    new.says_again("name", 5);
    let names = new.said("name");
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(" true")), "{names:?}");
}

fn two_items_of_one_name_fail_the_attempt() {
    for give in [Give::Twice, Give::TwiceAtOnce] {
        let service = Setup::new().set(give).start();
        let mut player = Player::tcp(&service);
        let why = service.fail_to_restart();
        assert_eq!(why, "the handover failed: cannot hand \"same\" over: there is one of that name already", "{give:?}");
        assert_eq!(player.echo("here"), service.first().pid);
    }
}

fn a_name_that_is_far_too_long_fails_the_attempt_for_just_that() {
    let service = Setup::new().set(Give::LongName).start();
    let old = service.first();
    let why = service.fail_to_restart();
    assert!(why.ends_with("n\" over: a name must have 1 to 255 bytes, and this one has 70000") && why.len() < 500, "{why}");
    assert!(old.says("event Failed").ends_with(&why));
    assert_eq!(service.status().last_failure, Some(why));
}

fn a_descriptor_that_was_closed_fails_the_attempt_and_names_it() {
    for give in [Give::Closed, Give::ClosedAtOnce] {
        let service = Setup::new().set(give).start();
        let mut player = Player::tcp(&service);
        let why = service.fail_to_restart();
        // The one that was closed after it had been given is not the reason.
        assert!(why.starts_with("the handover failed: cannot hand \"closed\" over: Bad file descriptor"), "{give:?}: {why}");
        assert_eq!(player.echo("here"), service.first().pid);
    }
}

/// What a successor says to a predecessor that hands over in this way.
fn refused(how: Predecessor) -> String {
    let (_service, old, new) = with_predecessor(how);
    let why = old.says("refused");
    let said = new.says("receive-error");
    assert!(why.starts_with("the state cannot be taken over: "), "{why}");
    assert_eq!(why.split_once(": ").map(|(_, why)| why), said.split_once(": ").map(|(_, why)| why));
    why
}

fn names_from_the_wire_that_are_no_text_fail_the_attempt() {
    let why = refused(Predecessor::NonUtf8);
    assert!(why.ends_with("a list with a name that is no text (invalid utf-8 sequence of 1 bytes from index 1)"), "{why}");
}

fn a_list_that_makes_no_sense_fails_the_attempt_and_says_what_is_wrong_with_it() {
    for (how, what) in [
        (Predecessor::KindOfALaterVersion, "a list of names with an entry of the kind 9, which this version does not know"),
        (Predecessor::NameThatIsCutShort, "a list of names that is cut short after 0 of them"),
        (Predecessor::NameThatIsTooLong, "a list with a name of 256 bytes, and a name has no more than 255"),
        (Predecessor::GoneBeforeItIsGiven, "\"b\" is taken back, and had not been given"),
        (Predecessor::AheadWithoutBeingAsked, "1 items are said to have gone ahead, and none was asked for"),
    ] {
        let why = refused(how);
        assert!(why.ends_with(what), "{why}");
    }
}

fn two_items_of_one_name_from_the_wire_fail_the_attempt() {
    let why = refused(Predecessor::OneNameTwice);
    assert!(why.ends_with("two items of the handover have the name \"a\""), "{why}");
}

fn items_that_are_missing_at_the_end_fail_the_attempt() {
    let why = refused(Predecessor::OneMissing);
    assert!(why.ends_with("2 items were handed over, and 1 have come"), "{why}");
}

fn more_names_than_descriptors_fail_the_attempt() {
    let why = refused(Predecessor::MoreNamesThanDescriptors);
    assert!(why.ends_with("a message that names 2 descriptors came with 1"), "{why}");
}

fn items_in_a_message_that_is_not_known_fail_the_attempt() {
    let why = refused(Predecessor::ItemsOfAnotherKind);
    assert!(why.ends_with("1 items were handed over, and 0 have come"), "{why}");
}

fn odd_names_from_the_wire_are_only_names() {
    let (_service, old, new) = with_predecessor(Predecessor::OddNames);
    old.says("granted");
    assert_eq!(new.says("received"), "2");
    new.says("ready");
}
