//! What goes over arrives: descriptors of all kinds, blobs, many of them, by either way of taking.

use crate::dialects::Predecessor;
use crate::giving::{Give, Wait};
use crate::player::{Player, with_predecessor_and};
use crate::service::{Ask, Hold, Thing};
use crate::taking::{Each, Take};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::procfs;
use pollflip_kit::service::{Linger, set};
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    descriptors_of_all_kinds_go_on_in_the_successor,
    the_successor_can_pull_and_be_told_by_an_event,
    half_a_line_goes_over_with_its_connection,
    what_is_sent_during_the_freeze_is_answered_by_the_successor,
    a_thousand_items_go_over,
    connections_that_are_given_at_once_and_taken_as_they_come_go_on,
    what_the_program_takes_as_it_comes_may_have_come_before_it_waits,
    fifteen_thousand_items_go_over_at_once,
    a_thousand_names_of_the_greatest_length_go_over_at_once,
    what_is_taken_back_is_not_there,
    what_is_not_taken_is_closed_at_the_grant,
    a_handover_can_be_filled_on_another_thread_while_the_loop_turns,
    a_limit_for_the_state_holds_while_another_thread_waits_for_it,
    progress_reaches_the_asker_the_events_and_the_status,
    a_successor_that_wants_no_state_gets_none,
    connections_survive_a_chain_of_restarts,
    the_old_process_keeps_nothing_of_what_it_gave,
];

fn descriptors_of_all_kinds_go_on_in_the_successor() {
    let service = Setup::new().set(Hold(vec![Thing::File, Thing::Pipe, Thing::Memfd])).start();
    let (mut tcp, mut unix) = (Player::tcp(&service), Player::unix(&service));
    let old = service.first();
    let before = (old.ask(Ask::Holds), old.ask(Ask::Inode("file".into())), old.ask(Ask::Inode("memfd".into())));
    let new = service.restart();
    old.ends();
    assert_eq!((new.ask(Ask::Holds), new.ask(Ask::Inode("file".into())), new.ask(Ask::Inode("memfd".into()))), before);
    assert_eq!((tcp.echo("tcp"), unix.echo("unix")), (new.pid, new.pid));
    assert_eq!(new.ask(Ask::Pipe), "through");
    assert_eq!(new.ask(Ask::Write(" and more".into())), "word and more");
    assert_eq!(new.ask(Ask::Read("file".into())), "");
}

fn the_successor_can_pull_and_be_told_by_an_event() {
    let service = Setup::new().set(Take::Pull).start();
    let mut player = Player::tcp(&service);
    let new = service.restart();
    new.says("event Inherited");
    new.says("event Granted");
    assert_eq!(player.echo("pulled"), new.pid);
}

fn half_a_line_goes_over_with_its_connection() {
    let service = Service::start();
    let mut player = Player::tcp(&service);
    player.write("one half");
    // It has read that when it has echoed something that came later on another connection, twice.
    let mut other = Player::tcp(&service);
    other.echo("a turn");
    other.echo("another turn");
    let new = service.restart();
    player.write(" and the other\n");
    assert_eq!(player.hear(), (new.pid, "one half and the other".into()));
}

fn what_is_sent_during_the_freeze_is_answered_by_the_successor() {
    let service = Setup::new().set(Give::InThread(Wait::AtOnce)).start();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    service.first().says("frozen");
    player.write("is anybody there?\n");
    service.first().go();
    let pid = asked.join().expect("no panic").expect("a restart");
    assert_eq!(player.hear(), (pid, "is anybody there?".into()));
}

fn a_thousand_items_go_over() {
    let service = Setup::new().set(Give::Many(1000)).start();
    let new = service.restart();
    assert_eq!(new.says("received"), "1000");
    assert_eq!(service.first().said("give-error"), Vec::<String>::new());
}

fn connections_that_are_given_at_once_and_taken_as_they_come_go_on() {
    let each = Take::Each(Each::Quietly);
    for (give, take) in [(Give::AllAtOnce, Take::All), (Give::All, each), (Give::AllAtOnce, each)] {
        let service = Setup::new().set(Hold(vec![Thing::File, Thing::Pipe, Thing::Memfd])).set(give).set(take).start();
        let (mut tcp, mut unix) = (Player::tcp(&service), Player::unix(&service));
        let old = service.first();
        tcp.write("half a line");
        unix.echo("a turn");
        unix.echo("another turn");
        let before = (old.ask(Ask::Holds), old.ask(Ask::Inode("file".into())), old.ask(Ask::Inode("memfd".into())));
        for _ in 0..2 {
            let new = service.restart();
            assert_eq!(
                (new.ask(Ask::Holds), new.ask(Ask::Inode("file".into())), new.ask(Ask::Inode("memfd".into()))),
                before,
                "{give:?} {take:?}"
            );
            assert_eq!(unix.echo("unix"), new.pid);
            if take == Take::Each(Each::Quietly) {
                // Blobs are no arrivals.
                assert_eq!((new.says("each"), new.says("received")), ("6".into(), "1".into()));
            }
        }
        tcp.write(" and the rest\n");
        assert_eq!(tcp.hear().1, "half a line and the rest", "{give:?} {take:?}");
    }
}

fn what_the_program_takes_as_it_comes_may_have_come_before_it_waits() {
    let service = Setup::new().set(Take::Each(Each::OfWhatWasPulled)).start();
    let mut player = Player::tcp(&service);
    let asked = service.restart_meanwhile();
    service.first().says("frozen");
    let new = service.hub.nth(1);
    new.says("waits");
    new.go();
    assert_eq!((new.says("each"), new.says("received")), ("1".into(), "1".into()));
    assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    assert_eq!(player.echo("here"), new.pid);
}

/// More than the kernel takes before the successor reads: the rest waits, and goes when it does.
fn fifteen_thousand_items_go_over_at_once() {
    if !are_many_descriptors_allowed("fifteen_thousand_items_go_over_at_once") {
        return;
    }
    for take in [Take::All, Take::Each(Each::Quietly)] {
        let service = Setup::new().set(Give::ManyAtOnce(15_000, 0)).set(take).start();
        let new = service.restart();
        let counts = if take == Take::Each(Each::Quietly) { new.says("each") } else { new.says("received") };
        assert_eq!(counts, "15000", "{take:?}");
        assert_eq!(service.first().said("give-error"), Vec::<String>::new());
    }
}

fn a_thousand_names_of_the_greatest_length_go_over_at_once() {
    let service = Setup::new().set(Give::ManyAtOnce(1000, 255)).start();
    let new = service.restart();
    assert_eq!(new.says("received"), "1000");
}

fn what_is_taken_back_is_not_there() {
    for take in [Take::All, Take::Each(Each::Aloud)] {
        let (_service, old, new) = with_predecessor_and(Predecessor::TakesBack, take);
        old.says("granted");
        let held = new.ask(Ask::Holds);
        assert_eq!(held, "one three", "{take:?}");
        if take == Take::Each(Each::Aloud) {
            assert_eq!((new.said("arrived").len(), new.said("gone")), (4, vec!["two".to_owned(); 2]));
        }
    }
}

fn what_is_not_taken_is_closed_at_the_grant() {
    let service = Setup::new().set(Take::First).start();
    let (mut one, mut two) = (Player::tcp(&service), Player::tcp(&service));
    service.plan_next(set(Take::First).set(Linger));
    let new = service.restart();
    assert_eq!(one.echo("taken"), new.pid);
    two.expect_end();
}

fn a_handover_can_be_filled_on_another_thread_while_the_loop_turns() {
    let service = Setup::new().set(Give::InThread(Wait::HalfWay)).start();
    let mut player = Player::tcp(&service);
    let old = service.first();
    let asked = service.restart_meanwhile();
    old.says("half");
    // The loop turns: it answers here, and on the coordination socket.
    assert_eq!(service.status().state, pollflip::ServiceState::AwaitingReady);
    assert!(old.ask(Ask::Holds).contains("tcp/"));
    old.go();
    let pid = asked.join().expect("no panic").expect("a restart");
    assert_eq!(player.echo("after"), pid);
    assert_eq!(service.hub.process(pid).says("received"), "1002");
}

fn a_limit_for_the_state_holds_while_another_thread_waits_for_it() {
    let service = Setup::new().plan(set(Give::InThread(Wait::AtOnce))).start();
    let old = service.first();
    let mut player = Player::tcp(&service);
    service.plan_next(set(Take::ImpatientWhileAnotherThreadWaits));
    let asked = service.restart_meanwhile();
    // The other thread has asked by then.
    old.says("frozen");
    let new = service.hub.nth(1);
    new.go();
    assert_eq!(new.says("impatient"), "no state has come from the predecessor within 0.2 s; refuse, or end");
    old.go();
    assert_eq!(asked.join().expect("no panic").expect("a restart"), new.pid);
    assert_eq!(player.echo("patience"), new.pid);
}

fn progress_reaches_the_asker_the_events_and_the_status() {
    let service = Setup::new().set(Give::InThread(Wait::AtOnce)).start();
    let socket = service.socket();
    let asked = std::thread::spawn(move || {
        let mut heard = Vec::new();
        let result =
            pollflip::restart_coordination_socket::request_restart(socket, pollflip_kit::hub::DEADLINE, |text| heard.push(text.to_owned()));
        (result, heard)
    });
    service.first().says("frozen");
    assert_eq!(service.first().says("event Progress"), "warming, 40%");
    assert_eq!(service.status().progress.as_deref(), Some("warming, 40%"));
    service.first().go();
    let (result, heard) = asked.join().expect("no panic");
    result.expect("a restart");
    assert!(heard.contains(&"warming, 40%".to_owned()), "{heard:?}");
}

fn a_successor_that_wants_no_state_gets_none() {
    let service = Setup::new().set(Linger).start();
    service.plan_next(set(Take::Nothing));
    let mut player = Player::tcp(&service);
    let new = service.restart();
    assert_eq!(service.first().said("event StateRequested"), Vec::<String>::new());
    assert_eq!(new.ask(Ask::Holds), "");
    // This program lets its connections go; another would finish them.
    player.expect_end();
}

fn connections_survive_a_chain_of_restarts() {
    let service = Service::start();
    let mut players: Vec<_> = (0..20).map(|number| if number % 2 == 0 { Player::tcp(&service) } else { Player::unix(&service) }).collect();
    let mut fds = Vec::new();
    for _ in 0..5 {
        let new = service.restart();
        for player in &mut players {
            assert_eq!(player.echo("still here"), new.pid);
        }
        let old = service.hub.pids();
        pollflip_kit::hub::wait_until("the end of the others", || {
            old.iter().filter(|pid| **pid != new.pid).all(|pid| procfs::has_ended(*pid))
        });
        // It knows, and has let go of the last of them.
        new.says("event PredecessorGone");
        new.ask(Ask::Holds);
        new.ask(Ask::Holds);
        fds.push(procfs::descriptors(new.pid).len());
    }
    fds.dedup();
    assert_eq!(fds.len(), 1, "descriptors of the generations: {fds:?}");
}

fn the_old_process_keeps_nothing_of_what_it_gave() {
    let service = Setup::new().set(Linger).start();
    let mut player = Player::tcp(&service);
    let inodes = || -> Vec<String> {
        let all = procfs::descriptors(service.first().pid);
        all.into_iter().map(|(_, what)| what).filter(|what| what.starts_with("socket:") || what.contains("pollflip")).collect()
    };
    let before = inodes().len();
    let new = service.restart();
    assert_eq!(player.echo("new"), new.pid);
    service.first().says("event Completed");
    pollflip_kit::hub::wait_until("the old process to let go", || inodes().len() < before);
    new.signal(nix::sys::signal::Signal::SIGKILL);
    // With a copy in the old process the peer would never see this.
    player.expect_end();
    // The restart thread makes its table of descriptors larger with one, some time after the start.
    pollflip_kit::hub::wait_until("the end of all memory files", || !inodes().iter().any(|what| what.contains("memfd")));
}
