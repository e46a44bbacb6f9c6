//! Generations that still finish their work are bounded, and a refusal names them.

use std::fs;

use pollflip::RequestError;

use pollflip_kit::client::Connection;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::Process;
use pollflip_kit::service::{Act, Config};

pollflip_kit::trials![
    a_restart_is_refused_while_too_many_generations_still_work,
    a_restart_with_no_generation_allowed_to_drain_waits_for_the_predecessor,
    a_generation_that_ends_out_of_order_makes_room,
    the_documented_default_is_the_one_that_holds,
];

/// A connection to the newest generation, which keeps it alive, and its successor.
fn hold_and_restart(service: &Service) -> (Connection, Process) {
    let connection = service.connect();
    (connection, service.restart())
}

fn refusal(service: &Service) -> String {
    match service.try_restart() {
        Err(RequestError::Refused(why)) => why,
        other => panic!("{other:?}\n{}", service.hub.story()),
    }
}

/// Until the serving process sees it too, the end of a generation makes no room.
fn end(service: &Service, connection: Connection) {
    let pid = connection.pid;
    drop(connection);
    service.hub.process(pid).ends();
}

fn a_restart_is_refused_while_too_many_generations_still_work() {
    let service = Setup::new().set(Config::MaxDraining(2)).start();
    let first = service.first();
    let (zeroth, _) = hold_and_restart(&service);
    let (mut one, _) = hold_and_restart(&service);
    let (mut two, third) = hold_and_restart(&service);
    assert_eq!([zeroth.generation, one.generation, two.generation], [0, 1, 2]);
    for _ in 0..2 {
        let why = refusal(&service);
        assert!(why.contains("3 earlier generations still finish their work"), "{why}");
        assert!(why.contains(&format!("the oldest as process {}", first.pid)), "{why}");
    }
    // By the program itself too.
    let answer = third.ask(Act::Request);
    assert!(answer.starts_with(&format!("Draining {{ count: 3, oldest: {} }}", first.pid)), "{answer}");
    assert_eq!(service.status().pid, third.pid);
    one.echo("still served");
    two.echo("still served");

    end(&service, zeroth);
    let (_three, fourth) = hold_and_restart(&service);
    // Its predecessor has told it of those before.
    let why = refusal(&service);
    assert!(why.contains("3 earlier generations") && why.contains(&format!("process {}", one.pid)), "{why}");
    assert_eq!(service.status().pid, fourth.pid);
}

fn a_restart_with_no_generation_allowed_to_drain_waits_for_the_predecessor() {
    let service = Setup::new().set(Config::MaxDraining(0)).start();
    let (connection, second) = hold_and_restart(&service);
    let why = refusal(&service);
    assert!(why.contains("1 earlier generation") && why.contains(&format!("process {}", connection.pid)), "{why}");
    end(&service, connection);
    let third = service.restart();
    assert_ne!(third.pid, second.pid);
}

fn a_generation_that_ends_out_of_order_makes_room() {
    let service = Setup::new().set(Config::MaxDraining(1)).start();
    let (zeroth, _) = hold_and_restart(&service);
    let (one, _) = hold_and_restart(&service);
    let why = refusal(&service);
    assert!(why.contains("2 earlier generations") && why.contains(&format!("process {}", zeroth.pid)), "{why}");
    // The younger of the two, the predecessor itself.
    end(&service, one);
    let (_two, _) = hold_and_restart(&service);
    let why = refusal(&service);
    assert!(why.contains("2 earlier generations") && why.contains(&format!("process {}", zeroth.pid)), "{why}");
}

fn the_documented_default_is_the_one_that_holds() {
    let docs = fs::read_to_string(pollflip_kit::repository().join("src/config.rs")).expect("the source");
    let (before, _) = docs.split_once("pub fn max_draining").expect("the setting");
    let text = before.rsplit("\n\n").next().expect("its documentation").replace("\n    ///", "");
    assert!(text.contains("Unless told otherwise, 50."), "{text}");
    assert!(format!("{:?}", pollflip::RestartConfig::new()).contains("max_draining: 50"));
}
