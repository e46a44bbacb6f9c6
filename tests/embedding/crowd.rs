//! More readiness at one moment than the restarter's own event buffer holds (64): as many clients as it takes, one more that takes
//! the place of the first, and a signal.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::exercise::{answer, ask, connect};
use pollflip_kit::group::{DEADLINE, Group, signal, state, wait_until};

const CLIENTS: usize = 64;
const ROUNDS: usize = 5;

pub(crate) fn more_is_ready_than_the_inner_buffer_holds(group: &Group) {
    for _ in 0..ROUNDS {
        let deadline = Instant::now() + DEADLINE;
        // A client that is silent for 5 s is hung up on, which a busy machine may be late for.
        while let Err(error) = one_round(group) {
            assert!(Instant::now() < deadline, "{error}");
        }
    }
}

fn one_round(group: &Group) -> io::Result<()> {
    let pid = group.first();
    let mut clients: Vec<UnixStream> = (0..CLIENTS).map(|_| connect(&group.socket())).collect();
    // Answered once, they are known to be taken in. All at a time, so that none has to be silent for long.
    clients.iter_mut().try_for_each(ask)?;
    clients.iter_mut().try_for_each(is_served)?;

    let failed = group.count(&format!("{pid} failed"));
    group.plan("exit");
    signal(pid, Signal::SIGSTOP);
    wait_until("the service to stop", || state(pid) == Some('T'));
    let asked: io::Result<()> = clients.iter_mut().try_for_each(ask);
    let mut one_more = connect(&group.socket());
    let asked = asked.and_then(|()| ask(&mut one_more));
    signal(pid, Signal::SIGUSR1);
    signal(pid, Signal::SIGCONT);

    group.says(&format!("{pid} failed"), failed);
    asked?;
    clients.iter_mut().try_for_each(is_served)?;
    is_served(&mut one_more)
}

fn is_served(client: &mut UnixStream) -> io::Result<()> {
    let text = answer(client)?;
    assert!(text.contains("Status"), "{text}");
    Ok(())
}
