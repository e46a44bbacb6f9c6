//! The frames of a 60 Hz loop across a restart: a loop that writes to its memory, polls, and sleeps until the next frame is due.

use std::thread;
use std::time::Duration;

use crate::memory::{GIB, fits, now};
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit};
use crate::roles::{Occupation, Settings};
use crate::service::Service;
use crate::stats::quantile;

const ALL: [Peer; 2] = [Peer::Ours, Peer::Shellflip];
/// How long before the request and after the answer frames count.
const AROUND: u64 = 500_000_000;

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let gib = plan.choose(1, 4);
    if !fits(gib) {
        report.note(format!("frames at {gib} GiB are left out: this machine has too little memory for it"));
        return Ok(());
    }
    let peers = plan.peers(&ALL);
    let mut frames = vec![Frames::default(); peers.len()];
    for () in plan.rounds(3, 9, 60) {
        for (peer, frames) in peers.iter().zip(&mut frames) {
            sample(*peer, gib * GIB, frames)?;
        }
    }
    let mut longest = Row::new("frames longest", format!("60 Hz loop, {gib} GiB: longest frame across a restart"), Unit::Seconds);
    let mut late = Row::new("frames late", "the same: frames later than 1 ms, a restart", Unit::Count);
    for (peer, frames) in peers.iter().zip(frames) {
        longest = longest.with(*peer, quantile(&frames.longest, 0.5));
        late = late.with(*peer, frames.late as f64 / frames.longest.len() as f64);
        if *peer == Peer::Ours {
            longest = longest.with(Peer::Limit, quantile(&frames.calm, 0.5));
        }
        report.series.push((format!("frames {}", peer.name()), frames.all));
        report.series.push((format!("restarts {}", peer.name()), frames.restarts));
    }
    report.add_all([longest, late]);
    report.note("60 Hz loop: the limit is the longest frame in half a second without a restart");
    Ok(())
}

#[derive(Clone, Default)]
struct Frames {
    /// Of each restart.
    longest: Vec<f64>,
    /// Before each restart.
    calm: Vec<f64>,
    late: usize,
    /// Seconds since the request, and how long the frame took.
    all: Vec<(f64, f64)>,
    /// How long each restart took.
    restarts: Vec<(f64, f64)>,
}

fn sample(peer: Peer, memory: usize, frames: &mut Frames) -> Result<(), String> {
    let mut service = Service::start(peer, Settings { memory, occupation: Occupation::Frames, ..Settings::default() })?;
    service.wait_for("warm")?;
    thread::sleep(Duration::from_secs(1));
    let begun = now();
    let lasted = service.restart()?;
    let ended = now();
    let starts: Vec<u64> = serde_json::from_str(&service.wait_for("frames")?.rest).map_err(|error| format!("{error}"))?;
    let (mut longest, mut calm) = (0.0_f64, 0.0_f64);
    for pair in starts.windows(2) {
        let (start, length) = (pair[0], (pair[1] - pair[0]) as f64 / 1e9);
        if pair[1] < begun - AROUND || start > ended + AROUND {
            continue;
        }
        frames.all.push(((start as f64 - begun as f64) / 1e9, length));
        if pair[1] < begun {
            calm = calm.max(length);
        } else {
            longest = longest.max(length);
            frames.late += usize::from(length > 1.0 / 60.0 + 0.001);
        }
    }
    frames.longest.push(longest);
    frames.calm.push(calm);
    frames.restarts.push((0.0, lasted));
    Ok(())
}
