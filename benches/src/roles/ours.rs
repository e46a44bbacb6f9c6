//! pollflip in a service.

use std::fs::File;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use pollflip::{Blob, Event, Handover, Mark, Predecessor, RestartConfig, Restarter, Sockets};

use crate::memory::{now, see_all, state};

use super::work::Work;
use super::{Failed, Occupation, Settings, Udp, Way, address, say};

pub fn serve(settings: &Settings) -> Result<(), Failed> {
    let mut restarter = RestartConfig::new().coordination_socket(&settings.socket).build()?;
    let successor = restarter.predecessor().is_some();
    if successor {
        settings.fail_if_told();
    }
    let sockets = restarter.sockets();
    let listeners = (0..settings.listeners)
        .map(|number| sockets.tcp_listener(&format!("listener {number}"), address(settings, number)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut state = State::None;
    match restarter.predecessor() {
        Some(predecessor) if settings.state > 0 => take(settings, &predecessor)?,
        None if settings.state > 0 => state = State::new(settings)?,
        _ => {}
    }
    let _socket = udp_socket(settings, restarter.sockets())?;
    let begun = Instant::now();
    restarter.ready()?;
    let lasted = begun.elapsed();
    say("ready", &listeners.len().to_string());
    if successor && settings.udp != Udp::Nothing {
        say("granted", &lasted.as_secs_f64().to_string());
    }
    let mut work = Work::begin(settings, successor);
    if settings.occupation == Occupation::Frames {
        work.run_frames(|| is_over(&mut restarter))?;
    } else {
        loop {
            match restarter.wait(Duration::MAX) {
                Some(Event::Completed(_)) => break,
                Some(Event::StateRequested(handover)) => state.give(handover)?,
                _ => {}
            }
        }
    }
    work.end()
}

/// Each has an address of its own, which listeners do not have.
fn udp_socket(settings: &Settings, sockets: &mut Sockets) -> Result<Option<UdpSocket>, Failed> {
    let address = address(settings, usize::from(u16::MAX) - settings.udp as usize);
    Ok(match settings.udp {
        Udp::Nothing => None,
        Udp::Plain => Some(sockets.udp_socket("udp", address)?),
        Udp::Group => Some(sockets.udp_group("udp", address, Mark::byte(0, 0x0f).generations(8))?.socket()?),
    })
}

/// The state, as the way of handing it over wants it.
enum State {
    None,
    Memory(Vec<u8>),
    OwnFile(File),
}

impl State {
    fn new(settings: &Settings) -> Result<State, Failed> {
        let bytes = state(settings.state);
        Ok(match settings.way {
            Way::Copied | Way::Mapped => State::Memory(bytes),
            Way::OwnFile => {
                let mut file = File::from(memfd_create("state", MFdFlags::MFD_CLOEXEC)?);
                file.write_all(&bytes)?;
                State::OwnFile(file)
            }
        })
    }

    fn give(&self, mut handover: Handover) -> io::Result<()> {
        say("frozen", &now().to_string());
        match self {
            State::None => {}
            State::Memory(bytes) => {
                let mut blob = Blob::new()?;
                blob.write_all(bytes)?;
                handover.blob("state", blob)?;
            }
            State::OwnFile(file) => handover.fd("state", file)?,
        }
        handover.send();
        Ok(())
    }
}

/// Takes the state, and says when it is held.
fn take(settings: &Settings, predecessor: &Predecessor) -> Result<(), Failed> {
    let mut inheritance = predecessor.receive(Duration::from_secs(60))?;
    let what = match settings.way {
        Way::Copied => inheritance.bytes("state")?.map(|bytes| bytes.len() as u64),
        Way::Mapped => inheritance.map("state")?.map(|map| see_all(&map)),
        Way::OwnFile => inheritance.fd::<File>("state").map(|file| file.metadata().map(|data| data.len())).transpose()?,
    };
    say("held", &format!("{} {}", now(), what.ok_or("no state has come")?));
    Ok(())
}

/// One tick.
fn is_over(restarter: &mut Restarter) -> bool {
    let mut over = false;
    while let Some(event) = restarter.poll() {
        over |= matches!(event, Event::Completed(_));
    }
    over
}

/// As many polls as `state` says, with nothing to do.
pub fn poll_idle(settings: &Settings) -> Result<(), Failed> {
    let mut restarter = RestartConfig::new().coordination_socket(&settings.socket).build()?;
    restarter.ready()?;
    is_over(&mut restarter);
    let begun = Instant::now();
    for _ in 0..settings.state {
        std::hint::black_box(restarter.poll());
    }
    say("idle", &begun.elapsed().as_secs_f64().to_string());
    Ok(())
}
