//! Promises 1 and 2: restarts under load lose nothing, and a long chain of them leaves nothing behind.

use nix::sys::signal::Signal;

use pollflip_kit::client::Load;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Step, at, ms};

pollflip_kit::trials![
    promise_01_connections_under_load_survive_restarts_by_socket_and_by_signal,
    promise_01_connections_under_load_survive_restarts_on_probation,
    promise_01_a_connection_is_served_to_its_end_by_the_process_that_took_it_in,
    promise_02_sixty_restarts_in_a_chain_leave_nothing_behind,
    promise_02_failed_restarts_leave_nothing_behind;
    ignored: promise_02_three_hundred_restarts_in_a_chain_leave_nothing_behind,
];

/// Restarts by the signal, and waits for the process that serves then.
fn restart_by_signal(service: &Service, old: &Process) -> Process {
    old.signal(Signal::SIGUSR1);
    let pid = old.says("event Completed").parse().expect("a pid");
    let new = service.hub.process(pid);
    new.says("event Committed");
    new
}

fn promise_01_connections_under_load_survive_restarts_by_socket_and_by_signal() {
    let service = Service::start();
    let load = Load::start(service.address(), 4);
    let mut serving = service.first();
    for number in 0..8 {
        let before = load.served();
        wait_until("some load", || load.served() > before + 20);
        serving = if number % 2 == 0 { service.restart() } else { restart_by_signal(&service, &serving) };
    }
    let before = load.served();
    wait_until("some load", || load.served() > before + 20);
    assert_eq!(load.stop(), Vec::<String>::new());
    let last = service.connect();
    assert_eq!((last.pid, last.generation), (serving.pid, 8));
}

fn promise_01_connections_under_load_survive_restarts_on_probation() {
    let service = Setup::new().set(Config::Probation(ms(3000))).start();
    let load = Load::start(service.address(), 4);
    for number in 0..3 {
        // Every second release dies when it has just been granted the service.
        if number % 2 == 1 {
            service.restart();
        } else {
            service.plan_next(at(Step::Granted, Act::Exit(9)));
            let reason = service.fail_to_restart();
            assert!(reason.contains("exited with status 9 on probation"), "{reason}");
        }
        let before = load.served();
        wait_until("some load", || load.served() > before + 20);
    }
    // A connection that the release had taken in died with it; nobody was refused or cut off otherwise.
    let failed = load.stop();
    assert!(failed.iter().all(|why| !why.contains("refused")), "{failed:?}");
}

fn promise_01_a_connection_is_served_to_its_end_by_the_process_that_took_it_in() {
    let service = Service::start();
    let old = service.first();
    let mut kept = service.connect();
    let new = service.restart();
    for number in 0..3 {
        kept.echo(&format!("line {number}"));
    }
    assert_eq!(kept.pid, old.pid);
    assert_eq!(service.connect().pid, new.pid);
    assert!(old.lives());
    drop(kept);
    old.ends();
}

fn promise_02_sixty_restarts_in_a_chain_leave_nothing_behind() {
    chain(60);
}

fn promise_02_three_hundred_restarts_in_a_chain_leave_nothing_behind() {
    chain(300);
}

fn chain(restarts: u32) {
    let service = Service::start();
    let mut serving = service.first();
    let mut second = None;
    for generation in 1..=restarts {
        let old = serving;
        serving = if generation % 2 == 0 { restart_by_signal(&service, &old) } else { service.restart() };
        serving.says("event Committed");
        old.ends();
        if generation == 2 {
            serving.says("event PredecessorGone");
            second = Some((Snapshot::of(serving.pid), procfs::variable_names(serving.pid)));
        }
    }
    let connection = service.connect();
    assert_eq!((connection.pid, connection.generation), (serving.pid, restarts));
    drop(connection);
    let (snapshot, environment) = second.expect("a second generation");
    service.expect_unchanged(&serving, &snapshot);
    assert_eq!(procfs::variable_names(serving.pid), environment);
    assert_eq!(snapshot.zombies, 0);
}

fn promise_02_failed_restarts_leave_nothing_behind() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    for number in 0..30 {
        service.plan_next(match number % 4 {
            0 => at(Step::Born, Act::Exit(1)),
            1 => at(Step::Built, Act::Exit(2)),
            2 => at(Step::Built, Act::Refuse("no".into())),
            _ => at(Step::Born, Act::CloseLifeline).at(Step::Born, Act::Hang),
        });
        service.fail_to_restart();
    }
    service.expect_unchanged(&old, &before);
    service.restart();
}
