//! The restarter, its predecessor and its sockets.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use pollflip::{Predecessor, Restarter};

use crate::service::report::say;

/// How long a successor waits for the state.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn request(restarter: &mut Restarter) -> String {
    match restarter.request() {
        Ok(()) => "ok".into(),
        Err(refusal) => format!("{refusal:?} :: {refusal}"),
    }
}

pub(super) fn refuse_at_length(predecessor: &Predecessor, lines: usize, characters: usize) -> String {
    for line in 0..lines {
        predecessor.progress(&format!("line {line}"));
    }
    // The first character has one byte, and each other has two: a cut by bytes alone would split one.
    let reason: String = std::iter::once('n').chain(std::iter::repeat('ö')).take(characters).collect();
    predecessor.refuse(&reason);
    "refused".into()
}

pub(super) fn successor(restarter: &mut Option<Restarter>) -> String {
    match restarter.take().and_then(Restarter::into_successor) {
        Some(mut successor) => format!("{} {:?}", successor.pid(), successor.try_wait()),
        None => "none".into(),
    }
}

pub(super) fn drop_in_a_fork(restarter: &mut Option<Restarter>) -> String {
    let began = Instant::now();
    match fork() {
        ForkResult::Child => {
            drop(restarter.take());
            // Nothing else that this child has a copy of is its own.
            std::process::exit(i32::from(began.elapsed() >= Duration::from_secs(3)));
        }
        ForkResult::Parent { child } => format!("{:?}", waitpid(child, None).map(|status| status == WaitStatus::Exited(child, 0))),
    }
}

#[allow(unsafe_code, reason = "a worker that some programs have")]
fn fork() -> ForkResult {
    // SAFETY: no other thread of this service holds a lock that the child needs: the restart thread waits, or waits for a child.
    unsafe { nix::unistd::fork() }.expect("a child")
}

pub(super) fn receive(predecessor: Predecessor) -> String {
    match predecessor.receive(PATIENCE) {
        Ok(mut state) => match state.bytes("from") {
            Ok(from) => String::from_utf8_lossy(&from.unwrap_or_default()).into_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

pub(super) fn receive_after(predecessor: Predecessor, file: &Path) -> String {
    let file = file.to_owned();
    thread::spawn(move || {
        say(&format!("receiver {}", nix::unistd::gettid()));
        while !file.exists() {
            thread::yield_now();
        }
        match predecessor.receive(PATIENCE) {
            Ok(state) => say(&format!("received {}", state.names().join(" "))),
            Err(error) => say(&format!("receive-error {error}")),
        }
    });
    "started".into()
}
