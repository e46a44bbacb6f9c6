use std::os::unix::net::UnixStream;

use nix::sys::eventfd::EventFd;

use crate::restarter::testing::{LIMIT, collect_until};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn reactor() -> Reactor {
    Reactor::new().expect("a reactor")
}

fn is_readable(reactor: &Reactor) -> bool {
    sys::is_readable_within(reactor, Duration::ZERO)
}

/// A descriptor that is readable.
fn readable() -> EventFd {
    EventFd::from_value(1).expect("an eventfd")
}

#[test]
fn the_earliest_deadline_is_the_one_to_wait_for() {
    let at = Duration::from_secs;
    let dues = [Some((at(3), Deadline::Client)), None, Some((at(1), Deadline::Restart)), Some((at(2), Deadline::Kill))];
    assert_eq!(earliest(dues), Some((at(1), Deadline::Restart)));
    assert_eq!(earliest([None, Some((at(9), Deadline::Kill))]), Some((at(9), Deadline::Kill)));
    assert_eq!(earliest([None, None]), None);
}

#[test]
fn an_armed_reactor_is_ready_at_its_deadline_and_not_before() {
    let mut reactor = reactor();
    let at = reactor.now() + Duration::from_millis(20);
    assert!(reactor.arm(Some((at, Deadline::Client))));
    let ready = collect_until(&mut reactor, |_| true);
    assert!(reactor.now() >= at, "{:?}", reactor.now());
    assert!(ready.has(TIMER) && ready.clients().is_empty());
    assert!(reactor.collect().is_none());
}

#[test]
fn a_deadline_that_has_passed_is_due_at_once_and_can_be_taken_back() {
    let mut reactor = reactor();
    for _ in 0..2 {
        // Again after it has fired, although it is the same one.
        assert!(reactor.arm(Some((Duration::ZERO, Deadline::Client))));
        assert!(collect_until(&mut reactor, |_| true).has(TIMER));
    }
    assert!(reactor.arm(Some((Duration::ZERO, Deadline::Client))));
    assert!(sys::is_readable_within(&reactor, LIMIT));
    assert!(reactor.arm(None));
    assert!(!is_readable(&reactor));
    assert!(reactor.collect().is_none());
}

#[test]
fn an_unchanged_deadline_is_not_set_again_and_another_one_is() {
    let mut reactor = reactor();
    // The timer is told of a time that is not that of the reactor: so it is seen whether it is set again.
    assert!(reactor.timer.arm(Some(HOUR), HOUR));
    assert!(sys::is_readable_within(&reactor, LIMIT));
    assert!(reactor.arm(Some((HOUR, Deadline::Restart))));
    assert!(reactor.arm(Some((HOUR, Deadline::Client))), "the moment counts, and not the name");
    assert!(is_readable(&reactor));
    assert!(reactor.arm(Some((2 * HOUR, Deadline::Client))));
    assert!(!is_readable(&reactor));
}

#[test]
fn each_wake_reaches_an_edge_triggered_outer_epoll() {
    let mut reactor = reactor();
    let mut outer = Poll::new().expect("an epoll");
    let mut events = Events::with_capacity(4);
    SourceFd(&reactor.as_raw_fd()).register(outer.registry(), Token(7), Interest::READABLE).expect("an outer epoll");
    for _ in 0..3 {
        reactor.wake();
        outer.poll(&mut events, Some(LIMIT)).expect("an event");
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(7)]);
        assert!(reactor.collect().is_some_and(|ready| ready.has(WAKER)));
        outer.poll(&mut events, Some(Duration::ZERO)).expect("no event");
        assert!(events.is_empty());
    }
}

#[test]
fn all_that_is_ready_is_collected_at_once_under_its_token() {
    let mut reactor = reactor();
    let clients: Vec<_> = (0..CAPACITY + 10).map(|_| readable()).collect();
    for (index, client) in clients.iter().enumerate() {
        reactor.watch(client.as_fd(), Token(FIRST_CLIENT + index)).expect("a watch");
    }
    let fixed = readable();
    reactor.watch(fixed.as_fd(), DRAINING).expect("a watch");
    let ready = reactor.collect().expect("something ready");
    let mut found: Vec<_> = ready.clients().iter().map(|token| token.0 - FIRST_CLIENT).collect();
    found.sort_unstable();
    assert_eq!(found, (0..clients.len()).collect::<Vec<_>>());
    let has: Vec<_> = (0..FIRST_CLIENT).map(Token).filter(|token| ready.has(*token)).collect();
    assert_eq!(has, [DRAINING]);
    assert!(reactor.collect().is_none() && !is_readable(&reactor));
}

#[test]
fn lifelines_are_watched_for_room_too_and_what_is_unwatched_is_not_seen() {
    let mut reactor = reactor();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    reactor.watch(ours.as_fd(), SUCCESSOR).expect("a watch");
    assert!(reactor.collect().is_none(), "it can be written, and nobody asked for that");
    reactor.unwatch(ours.as_fd());
    for token in [LIFELINE, PREDECESSOR] {
        reactor.watch(ours.as_fd(), token).expect("a watch");
        assert!(reactor.collect().is_some_and(|ready| ready.has(token)));
        reactor.unwatch(ours.as_fd());
        assert!(reactor.collect().is_none());
    }
    // It is no error if nothing was watched.
    reactor.unwatch(ours.as_fd());
    let seen = readable();
    reactor.watch(seen.as_fd(), BARRIER).expect("a watch");
    reactor.unwatch(seen.as_fd());
    assert!(reactor.collect().is_none());
}
