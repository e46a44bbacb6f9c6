//! The end of a main process in the middle of something, and a service that is started again.

use nix::sys::signal::Signal;

use crate::kit::{End, end_of, guarded, how, log, signal};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Step, at};

pollflip_kit::trials![
    a_successor_goes_on_when_its_predecessor_is_killed,
    a_successor_that_is_told_to_end_then_ends,
    a_successor_that_is_told_to_end_then_is_told_once,
    a_successor_that_never_names_itself_ends_with_the_service,
    a_crash_beside_one_that_drains_starts_the_service_again,
    a_crash_after_a_restart_starts_the_service_again,
    a_service_that_exits_in_order_is_not_started_again_on_failure,
];

fn a_successor_goes_on_when_its_predecessor_is_killed() {
    let service = guarded(Setup::new(), "--restart on-failure").start();
    service.plan_next(at(Step::Claimed, Act::Wait));
    let asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let first = service.first();
    signal(first.pid, Signal::SIGKILL);
    first.ends();
    asked.join().expect("no panic").expect_err("the one that was asked is dead");
    wait_until("the guard to wait", || log(&service).contains("its successor may go on"));
    new.go();
    new.says("serving");
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
    assert_eq!(service.connect().pid, new.pid);
    assert_eq!(service.hub.pids().len(), 2, "no other one was started");
    service.restart().tell(Act::Exit(0));
    assert_eq!(how(end_of(&service)), End::Code(0), "{}", log(&service));
}

fn a_successor_that_is_told_to_end_then_ends() {
    let service = guarded(Setup::new(), "--restart always").start();
    service.plan_next(at(Step::Claimed, Act::Wait));
    let _asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let first = service.first();
    signal(first.pid, Signal::SIGKILL);
    wait_until("the guard to wait", || log(&service).contains("its successor may go on"));
    signal(service.launched(), Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGKILL), "{}", log(&service));
    new.ends();
}

/// Before it names itself, and not again when it does.
fn a_successor_that_is_told_to_end_then_is_told_once() {
    let service = guarded(Setup::new(), "").start();
    service.plan_next(at(Step::Born, Act::Count(Signal::SIGTERM)).at(Step::Claimed, Act::Wait));
    let _asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    signal(service.first().pid, Signal::SIGKILL);
    wait_until("the guard to wait", || log(&service).contains("its successor may go on"));
    signal(service.launched(), Signal::SIGTERM);
    wait_until("the guard to have it", || !procfs::has_signal(service.launched(), "ShdPnd", Signal::SIGTERM as i32));
    new.go();
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
    service.plan_next(at(Step::Born, Act::Exit(4)));
    signal(service.launched(), Signal::SIGUSR1);
    new.says("event Failed");
    assert_eq!(new.ask(Act::Counted), "1");
    signal(service.launched(), Signal::SIGKILL);
    // It counts what else would end it.
    new.signal(Signal::SIGKILL);
}

/// It ends without a word.
fn a_successor_that_never_names_itself_ends_with_the_service() {
    let service = guarded(Setup::new(), "").start();
    service.plan_next(at(Step::Claimed, Act::Wait));
    let _asked = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    let first = service.first();
    signal(first.pid, Signal::SIGKILL);
    wait_until("the guard to wait", || log(&service).contains("its successor may go on"));
    new.signal(Signal::SIGKILL);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGKILL), "{}", log(&service));
}

fn a_crash_beside_one_that_drains_starts_the_service_again() {
    let service = guarded(Setup::new(), "--restart on-failure --delay 10").start();
    let mut connection = service.connect();
    let new = service.restart();
    new.tell(Act::Exit(9));
    let again = service.hub.nth(2);
    assert!(again.says("built").starts_with("generation 0"));
    again.says("serving");
    connection.echo("still served");
    assert!(service.first().lives());
    assert_eq!(service.restart().says("built").split(' ').nth(1), Some("1"));
}

fn a_crash_after_a_restart_starts_the_service_again() {
    let service = guarded(Setup::new(), "--restart on-failure --delay 10 --strikes 3/60").start();
    service.restart().tell(Act::Abort);
    let mut last = service.hub.nth(2);
    last.says("serving");
    for number in 3..4 {
        last.tell(Act::Exit(1));
        last = service.hub.nth(number);
        last.says("serving");
    }
    last.tell(Act::Exit(5));
    assert_eq!(how(end_of(&service)), End::Code(5), "{}", log(&service));
    assert_eq!(service.hub.pids().len(), 4);
    assert!(log(&service).contains("too often"));
}

fn a_service_that_exits_in_order_is_not_started_again_on_failure() {
    let service = guarded(Setup::new(), "--restart on-failure").start();
    service.restart().tell(Act::Exit(0));
    assert_eq!(how(end_of(&service)), End::Code(0));
    assert_eq!(service.hub.pids().len(), 2);
}
