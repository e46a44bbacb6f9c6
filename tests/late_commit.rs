//! A commit that the kernel does not take, and a restarter that is dropped: whoever asked is told the outcome all the same.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pollflip::internals::machine::{Phase, State};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::internals::wire::{Coordination, Frames, Message, OLDEST, Request, Response, VERSION};
use pollflip::{RestartConfig, Restarter};

/// More answers than a lifeline holds.
const MANY: u64 = 600;
/// How long the kernel is waited for.
const LIMIT: Duration = Duration::from_secs(5);

fn poll_all(restarter: &mut Restarter) {
    while restarter.poll().is_some() {}
}

#[test]
fn promise_03_whoever_asked_is_told_of_a_commit_that_the_kernel_does_not_take() {
    let simulation = Simulation::new(None, None);
    let path = std::env::temp_dir().join(format!("pollflip-late-commit-{}.sock", std::process::id()));
    let config = RestartConfig::new().program("/bin/true").restart_signal(None).probation(Duration::from_secs(10));
    let mut restarter = simulation::build(&simulation, &config.coordination_socket(&path)).expect("a restarter");
    restarter.ready().expect("it has no predecessor");
    poll_all(&mut restarter);
    let mut client = UnixStream::connect(&path).expect("somebody listens");
    let request = Coordination::Request(Request::Restart { progress: false });
    client.write_all(&request.encode()).expect("room");
    poll_all(&mut restarter);
    simulation::run_thread(&mut restarter);
    poll_all(&mut restarter);
    let pid = simulation.children().last().expect("a successor").pid;
    let mut line = UnixStream::from(simulation.lifeline(pid).expect("its end of the lifeline"));
    for message in [Message::Here { version: VERSION, oldest: OLDEST, pid, again: None }, Message::Ready] {
        line.write_all(&message.encode()).expect("room");
    }
    poll_all(&mut restarter);
    assert!(matches!(simulation::state(&restarter), State::Handoff { phase: Phase::Probation { .. }, .. }));
    // It has everything answered and reads nothing.
    for number in 0..MANY {
        line.write_all(&Message::Challenge { number }.encode()).expect("it is read");
        poll_all(&mut restarter);
    }
    let before = simulation.passed();
    drop(restarter);
    let took = simulation.passed() - before;
    assert!(took >= LIMIT && took < LIMIT + Duration::from_secs(1), "the commit was to wait for the kernel, and for no longer: {took:?}");
    let (mut answer, mut frames) = (Vec::new(), Frames::default());
    client.read_to_end(&mut answer).expect("it hangs up");
    frames.push(&answer);
    let frame = frames.next_frame().expect("frames come whole").expect("an answer");
    let answer = Coordination::decode(&frame).expect("it makes sense");
    assert!(matches!(answer, Coordination::Response(Response::RestartComplete(of)) if of == pid), "{answer:?}");
    let _ = std::fs::remove_file(&path);
}
