//! The old process dies while it hands over.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::dialects::Predecessor;
use crate::giving::{Give, Wait};
use crate::player::{Player, with_predecessor};
use crate::taking::{Each, Take};
use pollflip_kit::harness::Setup;

pollflip_kit::trials![
    a_predecessor_that_dies_before_it_gives_leaves_its_listeners,
    a_predecessor_that_dies_half_way_leaves_its_listeners_and_no_connection_in_limbo,
    a_predecessor_that_dies_half_way_leaves_no_connection_that_was_taken_as_it_came,
    a_predecessor_that_dies_when_all_is_given_leaves_everything,
    items_of_a_predecessor_that_is_gone_are_closed,
];

fn dies_at(wait: Wait, moment: &str, take: Take) {
    let service = Setup::new().set(Give::InThread(wait)).set(take).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let address = service.address();
    let asked = service.restart_meanwhile();
    old.says(moment);
    let new = service.hub.nth(1);
    if take == Take::Each(Each::Aloud) {
        new.says("arrived");
    }
    old.signal(Signal::SIGKILL);
    let error = new.says("receive-error");
    assert_eq!(error, format!("no state has come: the predecessor (process {}) has ended; what it listened on is here", old.pid));
    new.says("serving");
    asked.join().expect("no panic").expect_err("nobody is left to answer");
    // Neither of the two has it any more, and it learns of that.
    player.expect_end();
    drop(TcpStream::connect(address).expect("the listener is here"));
}

fn a_predecessor_that_dies_before_it_gives_leaves_its_listeners() {
    dies_at(Wait::AtOnce, "frozen", Take::All);
}

fn a_predecessor_that_dies_half_way_leaves_its_listeners_and_no_connection_in_limbo() {
    dies_at(Wait::HalfWay, "half", Take::All);
}

fn a_predecessor_that_dies_half_way_leaves_no_connection_that_was_taken_as_it_came() {
    dies_at(Wait::HalfWay, "half", Take::Each(Each::Aloud));
}

fn a_predecessor_that_dies_when_all_is_given_leaves_everything() {
    let service = Setup::new().set(Take::Wait).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.signal(Signal::SIGKILL);
    old.ends();
    new.go();
    new.says("serving");
    drop(asked.join().expect("no panic"));
    assert_eq!(player.echo("whose am I?"), new.pid);
}

fn items_of_a_predecessor_that_is_gone_are_closed() {
    let (_service, _, new) = with_predecessor(Predecessor::DiesAfterHalf);
    let error = new.says("receive-error");
    assert!(error.contains("has ended; what it listened on is here"), "{error}");
    new.says("serving");
    let pipes = pollflip_kit::procfs::descriptors(new.pid).into_iter().filter(|(_, what)| what.starts_with("pipe:")).count();
    assert_eq!(pipes, 0);
}
