//! A commit that the kernel does not take, and a restarter that is dropped: whoever asked is told the outcome all the same. And one that
//! a loop gets to late: the service manager has its time all the same.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pollflip::internals::machine::{COMMIT_TIMEOUT, Knows, Phase, State};
use pollflip::internals::simulation::{self, Simulation};
use pollflip::internals::wire::{Coordination, Frames, Message, OLDEST, Request, Response, VERSION};
use pollflip::{Event, RestartConfig, Restarter};

/// More answers than a lifeline holds.
const MANY: u64 = 600;
/// How long the kernel is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// There is one restarter at a time in a process.
static ALONE: Mutex<()> = Mutex::new(());

fn poll_all(restarter: &mut Restarter) {
    while restarter.poll().is_some() {}
}

/// What was asked for gets ready; its pid, and its end of the lifeline.
fn ready_successor(simulation: &Simulation, restarter: &mut Restarter) -> (u32, UnixStream) {
    poll_all(restarter);
    simulation::run_thread(restarter);
    poll_all(restarter);
    let pid = simulation.children().last().expect("a successor").pid;
    let mut line = UnixStream::from(simulation.lifeline(pid).expect("its end of the lifeline"));
    for message in [Message::Here { version: VERSION, oldest: OLDEST, pid, again: None }, Message::Ready] {
        line.write_all(&message.encode()).expect("room");
    }
    (pid, line)
}

#[test]
fn promise_03_whoever_asked_is_told_of_a_commit_that_the_kernel_does_not_take() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let simulation = Simulation::new(None, None);
    let path = std::env::temp_dir().join(format!("pollflip-late-commit-{}.sock", std::process::id()));
    let config = RestartConfig::new().program("/bin/true").restart_signal(None).probation(Duration::from_secs(10));
    let mut restarter = simulation::build(&simulation, &config.coordination_socket(&path)).expect("a restarter");
    restarter.ready().expect("it has no predecessor");
    poll_all(&mut restarter);
    let mut client = UnixStream::connect(&path).expect("somebody listens");
    let request = Coordination::Request(Request::Restart { progress: false });
    client.write_all(&request.encode()).expect("room");
    let (pid, mut line) = ready_successor(&simulation, &mut restarter);
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

#[test]
fn promise_04_a_busy_manager_has_its_time_although_the_loop_stood_still_after_the_grant() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join(format!("pollflip-late-commit-{}.notify", std::process::id()));
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let simulation = Simulation::new(None, Some(path.clone().into()));
    let config = RestartConfig::new().program("/bin/true").restart_signal(None);
    let mut restarter = simulation::build(&simulation, &config).expect("a restarter");
    restarter.ready().expect("it has no predecessor");
    poll_all(&mut restarter);
    restarter.request().expect("it is idle");
    let (_, _line) = ready_successor(&simulation, &mut restarter);
    // It reads nothing any more, and has no room.
    manager.set_nonblocking(true).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"busy", &path).is_ok() {}
    let handed_off = restarter.poll();
    assert!(matches!(handed_off, Some(Event::HandedOff(_))), "{handed_off:?}");
    // The program stands still.
    simulation::pass(&simulation, &mut restarter, 2 * COMMIT_TIMEOUT);
    poll_all(&mut restarter);
    let is_untold = |restarter: &Restarter| {
        matches!(
            simulation::state(restarter),
            State::Handoff { phase: Phase::Committing { successor: Knows::NotTold, manager_knows: false, .. }, .. }
        )
    };
    assert!(is_untold(&restarter), "{:?}", simulation::state(&restarter));
    simulation::pass(&simulation, &mut restarter, COMMIT_TIMEOUT - Duration::from_millis(1));
    poll_all(&mut restarter);
    assert!(is_untold(&restarter), "{:?}", simulation::state(&restarter));
    // As soon as it reads, it is told, and the successor after it.
    while manager.recv(&mut [0; 64]).is_ok() {}
    simulation::pass(&simulation, &mut restarter, Duration::from_millis(1));
    poll_all(&mut restarter);
    let told = simulation::state(&restarter);
    assert!(
        matches!(told, State::Handoff { phase: Phase::Committing { manager_knows: false, successor: Knows::Taken, .. }, .. }),
        "{told:?}"
    );
    let _ = std::fs::remove_file(&path);
}
