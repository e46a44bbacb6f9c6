//! What a service has to stand, whatever loop it is in.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::{request_restart, request_status};

use crate::child::READY_TIMEOUT;
use crate::crowd;
use crate::{loops, tasks};
use pollflip_kit::group::{DEADLINE, Group, entries, has_ended, signal, wait_until};

const ROUNDS: usize = 1_000;
/// How long nothing happens while the CPU time is measured.
const IDLE: Duration = Duration::from_secs(1);
/// What an idle loop may take of it. One that spins takes all that it gets.
const IDLE_CPU: Duration = Duration::from_millis(150);

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    loops::ALL.iter().map(|(name, _)| *name).chain(tasks::ALL.iter().map(|(name, _)| *name))
}

pub(crate) fn run(name: &str) {
    let group = Group::of_role(&format!("loop {name}"));
    let first = group.first();
    says(&group, first, "serving");
    // A task becomes ready on its first poll.
    wait_until("the service to be ready", || {
        request_status(group.socket(), DEADLINE).is_ok_and(|status| status.state == pollflip::ServiceState::Serving)
    });

    no_wake_up_is_lost(&group.socket());
    crowd::more_is_ready_than_the_inner_buffer_holds(&group);
    a_deadline_strikes(&group);
    idle_costs_next_to_nothing(name, first);
    let second = restart(&group, first, |group| {
        let before = group.count(&format!("{first} failed"));
        signal(first, Signal::SIGUSR1);
        group.wait("the end of the restart", |lines| {
            let completed = lines.iter().find_map(|line| line.strip_prefix(&format!("{first} completed "))?.parse().ok());
            let failed = lines.iter().filter(|line| line.starts_with(&format!("{first} failed"))).nth(before);
            completed.map(Ok).or_else(|| failed.map(|line| Err(line.clone())))
        })
    });
    restart(&group, second, |group| match request_restart(group.socket(), DEADLINE, |_| {}) {
        Err(RequestError::Failed(why)) => Err(why),
        other => Ok(other.expect("a restart")),
    });
}

fn says(group: &Group, pid: u32, what: &str) -> String {
    group.says(&format!("{pid} {what}"), 0)
}

/// A restart that succeeds, if need be at the second try: the time limit is short, and the machine may be busy.
fn restart(group: &Group, old: u32, ask: impl Fn(&Group) -> Result<u32, String>) -> u32 {
    // One that was killed too early has left it.
    group.plan("");
    let deadline = Instant::now() + DEADLINE;
    let new = loop {
        match ask(group) {
            Ok(pid) => break pid,
            Err(why) => assert!(why.contains("was not ready within") && Instant::now() < deadline, "{why}"),
        }
    };
    assert_eq!(says(group, old, "completed"), new.to_string());
    says(group, new, "serving");
    wait_until("the old process to end", || has_ended(old));
    new
}

fn no_wake_up_is_lost(socket: &Path) {
    for round in 0..ROUNDS / 2 {
        let status = request_status(socket, DEADLINE).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(status.state, pollflip::ServiceState::Serving);
    }
    let mut client = connect(socket);
    for _ in 0..ROUNDS / 2 {
        ask(&mut client).expect("it is read");
        assert!(answer(&mut client).expect("an answer").contains("idle"));
    }
}

fn a_deadline_strikes(group: &Group) {
    group.plan("hang");
    let since = Instant::now();
    match request_restart(group.socket(), DEADLINE, |_| {}) {
        Err(RequestError::Failed(why)) => assert!(why.contains("was not ready within 1.5 s"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(since.elapsed() >= READY_TIMEOUT);
}

fn idle_costs_next_to_nothing(name: &str, pid: u32) {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).expect("a clock");
    let now = || Duration::from(clock_gettime(clock).expect("the time"));
    let (before, since) = (now(), Instant::now());
    thread::sleep(IDLE);
    let (spent, elapsed) = (now() - before, since.elapsed());
    let threads = entries(format!("/proc/{pid}/task"));
    println!("{name}: {spent:?} of CPU time in {elapsed:?} of idleness, {threads} threads");
    assert!(spent < IDLE_CPU * elapsed.as_millis() as u32 / IDLE.as_millis() as u32, "it spins: {spent:?} in {elapsed:?}");
    let by_hand = ["mio", "poll", "epoll_level_triggered", "ticks_at_60_hz", "task_ticking_at_60_hz", "task_registered_in_mio"];
    if by_hand.contains(&name) {
        assert_eq!(threads, 2, "its own and the restart thread");
    }
}

// ---- a client that does one thing at a time ----

pub(crate) fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the coordination socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    stream
}

pub(crate) fn ask(client: &mut UnixStream) -> std::io::Result<()> {
    let json = br#"{"Request":"Status"}"#;
    let mut frame = (json.len() as u32).to_be_bytes().to_vec();
    frame.extend(json);
    client.write_all(&frame)
}

pub(crate) fn answer(client: &mut UnixStream) -> std::io::Result<String> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut json = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut json)?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// What a loop with a fixed tick pays while nothing happens, as the README has it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn an_idle_tick_is_one_system_call() {
    use nix::libc;
    use pollflip_kit::debugger::Stopped;

    let group = Group::of_role("loop ticks_at_60_hz");
    let first = group.first();
    says(&group, first, "serving");
    let Some(stopped) = Stopped::new(first, "the one of the calls of an idle tick") else { return };
    // What the start has left to do is done by then.
    let mut ticks = Vec::new();
    for _ in 0..20 {
        let mut calls = Vec::new();
        loop {
            match stopped.next_call().expect("a living thread").number() {
                libc::SYS_clock_nanosleep | libc::SYS_nanosleep => break,
                call => calls.push(call),
            }
        }
        ticks.push(calls);
    }
    let idle = &ticks[ticks.len() / 2..];
    assert!(idle.iter().all(|calls| matches!(calls[..], [libc::SYS_epoll_wait | libc::SYS_epoll_pwait])), "{ticks:?}");
}
