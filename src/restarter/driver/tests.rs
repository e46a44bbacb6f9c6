use crate::machine::{Action, Attempt, Cause, Notice, Reply, Ticket, Whose};

use super::*;

const READY: Duration = Duration::from_secs(60);
const BEGUN: Duration = Duration::from_secs(5);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// A process that serves.
fn open() -> Driver {
    let mut driver = Driver::new(Limits { ready: READY, freeze: READY, probation: None });
    driver.feed(Duration::ZERO, Input::Opened);
    driver
}

/// One that has been asked for a restart.
fn asked() -> Driver {
    let mut driver = open();
    driver.feed(BEGUN, Input::Request(Ticket(1)));
    assert_eq!(outputs(&mut driver), begun());
    driver
}

/// What a request makes of that.
fn begun() -> [Output; 3] {
    [Notice::Restarting.into(), Action::Hold(Whose::Both).into(), Action::Spawn(Attempt(1)).into()]
}

fn outputs(driver: &mut Driver) -> Vec<Output> {
    std::iter::from_fn(|| driver.next_output()).collect()
}

#[test]
fn an_obstacle_forbids_restarts_as_long_as_it_is_there() {
    let mut driver = open();
    assert_eq!(driver.refusal(BEGUN), None);
    driver.set_obstacle(Some(Refusal::SessionLeader));
    assert_eq!(driver.refusal(BEGUN), Some(Refusal::SessionLeader));
    driver.feed(BEGUN, Input::Request(Ticket(1)));
    assert_eq!(outputs(&mut driver), [Action::Reply(Ticket(1), Reply::Forbidden(Refusal::SessionLeader)).into()]);
    assert_eq!(driver.state(), State::Idle);
    driver.set_obstacle(None);
    driver.feed(BEGUN, Input::Request(Ticket(2)));
    assert_eq!(outputs(&mut driver), begun());
}

#[test]
fn the_deadline_is_that_of_the_restart_and_is_due_when_it_has_come() {
    assert_eq!(open().next_deadline(), None);
    assert!(!open().is_due(Duration::MAX));
    let driver = asked();
    assert_eq!(driver.next_deadline(), Some((BEGUN + READY, Deadline::Restart)));
    assert!(!driver.is_due(BEGUN + READY - NANOSECOND));
    assert!(driver.is_due(BEGUN + READY));
    assert_eq!(driver.limits().ready, READY);
}

#[test]
fn a_timeout_by_a_clock_that_was_read_before_the_deadline_does_nothing() {
    let mut driver = asked();
    let before = driver.state();
    for stale in [Duration::ZERO, BEGUN, BEGUN + READY - NANOSECOND] {
        driver.feed(stale, Input::Timeout);
        assert_eq!((outputs(&mut driver), driver.state()), (vec![], before));
    }
    driver.feed(BEGUN + READY, Input::Timeout);
    let failed = Action::Reply(Ticket(1), Reply::Failed(Cause::TimedOut));
    let (abandon, hold) = (Action::Abandon(Attempt(1)), Action::Hold(Whose::This));
    assert_eq!(outputs(&mut driver), [abandon.into(), hold.into(), failed.into(), Notice::Failed(Cause::TimedOut).into()]);
}

#[test]
fn the_record_has_each_step_once_in_order_and_is_kept_only_on_demand() {
    let mut driver = open();
    assert_eq!(driver.take_record(), []);
    driver.record();
    driver.set_obstacle(None);
    driver.feed(BEGUN, Input::Request(Ticket(3)));
    // An output is noted when it is taken.
    assert_eq!(driver.take_record(), [Step::Obstacle(None), Step::In(BEGUN, Input::Request(Ticket(3)))]);
    outputs(&mut driver);
    assert_eq!(driver.take_record(), begun().map(Step::Out));
    assert_eq!(driver.take_record(), []);
}
