use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::flag::register_conditional_default;

use super::*;

/// Nothing is in the way but what a test says.
fn free() -> Preconditions {
    Preconditions { forbidden: None, leads_terminal: false, max_draining: 50, told: None }
}

fn config() -> RestartConfig {
    RestartConfig::new()
}

/// What forbids restarts from the start.
fn from_the_start(config: &RestartConfig, unstartable: Option<Refusal>, is_deaf: bool) -> Option<Refusal> {
    // A hang-up would not reach the successor, whatever terminal this test has.
    let mask = SigSet::from_iter([Signal::SIGHUP]);
    let preconditions = Preconditions::new(config, unstartable, &World::default(), is_deaf, &mask);
    assert!(!preconditions.leads_terminal);
    preconditions.refusal(0, 0, false)
}

#[test]
fn what_forbids_restarts_from_the_start_has_an_order() {
    let unstartable = Some(Refusal::UnknownProgram);
    let world = Some(Refusal::ContainerInit);
    assert_eq!(forbidden(unstartable, world, true), unstartable);
    assert_eq!(forbidden(None, world, true), world);
    assert_eq!(forbidden(None, None, true), Some(Refusal::NoNotifyAccess));
    assert_eq!(forbidden(None, None, false), None);
}

#[test]
fn a_system_that_has_no_restarts_refuses_each_before_anything_else_is_looked_at() {
    let unsupported = Some(Refusal::Unsupported);
    assert_eq!(forbidden(unsupported, Some(Refusal::ContainerInit), true), unsupported);
    let mask = SigSet::from_iter([Signal::SIGHUP]);
    let preconditions = Preconditions::new(&config(), unsupported, &World::default(), false, &mask);
    assert_eq!((preconditions.refusal(0, 0, false), preconditions.permanent()), (unsupported, unsupported));
}

#[test]
fn a_deaf_manager_forbids_restarts_unless_a_pid_file_tells_it() {
    assert_eq!(from_the_start(&config(), None, false), None);
    assert_eq!(from_the_start(&config(), None, true), Some(Refusal::NoNotifyAccess));
    assert_eq!(from_the_start(&config().pid_file("/nowhere/pid"), None, true), None);
    assert_eq!(from_the_start(&config(), Some(Refusal::Privileged), true), Some(Refusal::Privileged));
}

#[test]
fn more_generations_than_may_drain_are_refused_and_as_many_are_not() {
    let preconditions = Preconditions::new(&config().max_draining(2), None, &World::default(), false, &SigSet::from_iter([Signal::SIGHUP]));
    assert_eq!(preconditions.refusal(2, 7, false), None);
    assert_eq!(preconditions.refusal(3, 7, false), Some(Refusal::Draining { count: 3, oldest: 7 }));
    let none = Preconditions { max_draining: 0, ..free() };
    assert_eq!((none.refusal(0, 0, false), none.refusal(1, 8, false)), (None, Some(Refusal::Draining { count: 1, oldest: 8 })));
}

/// The one test that looks at SIGHUP, which is the whole process's.
#[test]
fn a_terminal_forbids_restarts_as_long_as_nothing_is_done_about_a_hang_up() {
    let leads = || Preconditions { leads_terminal: true, max_draining: 0, ..free() };
    let forbidden = Preconditions { forbidden: Some(Refusal::NoNotifyAccess), ..leads() };
    let draining = Some(Refusal::Draining { count: 1, oldest: 7 });
    // It may have been started by nohup.
    if sys::is_at_default(Signal::SIGHUP) {
        assert_eq!(leads().refusal(0, 0, false), Some(Refusal::SessionLeader));
        assert_eq!(leads().refusal(1, 7, false), Some(Refusal::SessionLeader), "before those that drain");
        assert_eq!(forbidden.refusal(1, 7, false), Some(Refusal::NoNotifyAccess), "and after what holds from the start");
        // A handler that does what the kernel does.
        register_conditional_default(Signal::SIGHUP as i32, Arc::new(AtomicBool::new(true))).expect("a handler");
    }
    assert_eq!(leads().refusal(0, 0, false), None);
    assert_eq!(leads().refusal(1, 7, false), draining);
    assert_eq!(forbidden.refusal(1, 7, false), Some(Refusal::NoNotifyAccess));
}

#[test]
fn a_permanent_reason_is_kept_once_somebody_has_been_refused_for_it_and_no_other_is() {
    let mut preconditions = Preconditions { forbidden: Some(Refusal::ContainerInit), ..free() };
    assert_eq!((preconditions.permanent(), preconditions.told()), (Some(Refusal::ContainerInit), None), "nobody has asked");
    preconditions.asked_in_vain(Refusal::NotReady);
    assert_eq!(preconditions.told(), None);
    for refusal in [Refusal::ContainerInit, Refusal::RestartThreadGone, Refusal::NotReady] {
        preconditions.asked_in_vain(refusal);
        assert_eq!(preconditions.told(), Some(Refusal::ContainerInit));
    }
    assert_eq!(Preconditions { leads_terminal: true, ..free() }.permanent(), None, "the program can lift that");
}
