//! Registered in mio, or nested in another reactor.

use std::collections::HashSet;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use pollflip::shutdown::ShutdownCoordinator;

use crate::tools::{Poller, within_deadline};

#[test]
fn a_registered_signal_fires_at_the_shutdown_and_again_when_forced() {
    let mut poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    let _handle = coordinator.handle();
    let mut signal = coordinator.signal();
    poll.register(&mut signal, 1);
    assert!(poll.ready_now().is_empty());
    let shutdown = coordinator.shutdown();
    assert_eq!(poll.wait(), [1]);
    assert!(signal.is_shutdown() && !signal.is_forced());
    assert!(poll.ready_now().is_empty(), "edge-triggered: once");
    shutdown.force();
    assert_eq!(poll.wait(), [1]);
    assert!(signal.is_forced());
    shutdown.force();
    assert!(poll.ready_now().is_empty(), "forced already");
}

#[test]
fn a_signal_registered_late_fires_at_once() {
    let coordinator = ShutdownCoordinator::new();
    let mut during = coordinator.signal();
    let shutdown = coordinator.shutdown();
    let mut poll = Poller::new();
    poll.register(&mut during, 1);
    assert_eq!(poll.wait(), [1]);
    shutdown.force();
    assert_eq!(poll.wait(), [1]);
    let mut forced = during.clone();
    poll.register(&mut forced, 2);
    assert_eq!(poll.wait(), [2]);
    poll.poll.registry().reregister(&mut forced, Token(3), Interest::READABLE).unwrap();
    assert_eq!(poll.wait(), [3], "it stays readable");
}

#[test]
fn clones_of_a_signal_can_be_registered_in_one_poll_and_one_signal_only_once() {
    let mut poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    let mut first = coordinator.signal();
    poll.register(&mut first, 1);
    let mut second = first.clone();
    poll.register(&mut second, 2);
    let again = poll.poll.registry().register(&mut first, Token(3), Interest::READABLE);
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let shutdown = coordinator.shutdown();
    assert_eq!(poll.wait_for(2), HashSet::from([1, 2]));
    poll.poll.registry().deregister(&mut first).unwrap();
    shutdown.force();
    assert_eq!(poll.wait(), [2]);
    assert!(poll.ready_now().is_empty());
}

#[test]
fn one_signal_can_be_registered_in_two_polls() {
    let (mut one, mut two) = (Poller::new(), Poller::new());
    let coordinator = ShutdownCoordinator::new();
    let mut signal = coordinator.signal();
    one.register(&mut signal, 1);
    two.register(&mut signal, 2);
    let shutdown = coordinator.shutdown();
    assert_eq!((one.wait(), two.wait()), (vec![1], vec![2]));
    one.poll.registry().deregister(&mut signal).unwrap();
    shutdown.force();
    assert_eq!(two.wait(), [2]);
    assert!(one.ready_now().is_empty());
}

#[test]
fn a_registered_shutdown_fires_when_the_last_handle_is_dropped() {
    let mut poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    let (first, last) = (coordinator.handle(), coordinator.handle());
    let mut shutdown = coordinator.shutdown();
    poll.register(&mut shutdown, 1);
    drop(first);
    shutdown.force();
    assert!(poll.ready_now().is_empty(), "one is left, and force is for the signals");
    let thread = within_deadline(move || drop(last));
    assert_eq!(poll.wait(), [1]);
    assert!(shutdown.poll().is_ready());
    thread.finish();

    let mut late = ShutdownCoordinator::new().shutdown();
    poll.register(&mut late, 2);
    assert_eq!(poll.wait(), [2]);
}

#[test]
fn the_descriptor_of_a_shutdown_can_be_nested_in_another_reactor() {
    let mut poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    let handle = coordinator.handle();
    let shutdown = coordinator.shutdown();
    let descriptor = shutdown.descriptor().unwrap();
    assert_eq!(descriptor.as_raw_fd(), shutdown.descriptor().unwrap().as_raw_fd());
    poll.register(&mut SourceFd(&descriptor.as_raw_fd()), 1);
    assert!(poll.ready_now().is_empty());
    drop(handle);
    assert_eq!(poll.wait(), [1]);
}

#[test]
fn the_descriptor_of_a_signal_can_be_nested_in_another_reactor_and_tells_of_both_phases() {
    let mut poll = Poller::new();
    let coordinator = ShutdownCoordinator::new();
    let signal = coordinator.signal();
    let descriptor = signal.descriptor().unwrap();
    assert_eq!(descriptor.as_raw_fd(), signal.descriptor().unwrap().as_raw_fd());
    poll.register(&mut SourceFd(&descriptor.as_raw_fd()), 1);
    assert!(poll.ready_now().is_empty());
    let shutdown = coordinator.shutdown();
    assert_eq!(poll.wait(), [1]);
    shutdown.force();
    assert_eq!(poll.wait(), [1], "edge-triggered: once more");
    let late = signal.clone();
    assert_ne!(late.descriptor().unwrap().as_raw_fd(), descriptor.as_raw_fd());
    poll.register(&mut SourceFd(&late.descriptor().unwrap().as_raw_fd()), 2);
    assert_eq!(poll.wait(), [2]);
}
