//! State: from the moment the old process freezes until the new one holds it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::memory::{now, state};
use crate::plan::{Peer, Plan};
use crate::report::{Report, Row, Unit, shown};
use crate::roles::{Role, Settings, Way};
use crate::service::Service;
use crate::stats::median;

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let sizes: &[usize] = plan.choose(&[1 << 10, 64 << 20], &[1 << 10, 64 << 20, 1 << 30]);
    for size in sizes {
        // It is there twice, and once more on its way.
        if crate::proc::memory_available() < 4 * *size as u64 {
            report.note(format!("handover of {} is left out: this machine has too little memory for it", shown(*size as f64, Unit::Bytes)));
            continue;
        }
        let mut samples: [Vec<f64>; 6] = Default::default();
        for () in plan.rounds(3, if *size < 1 << 30 { 15 } else { 7 }, if *size < 1 << 30 { 20 } else { 50 }) {
            samples[0].push(raw(Role::PipeReader, *size)?);
            samples[1].push(sample(Peer::Ours, *size, Way::Copied)?);
            if Peer::Shellflip.is_built() {
                samples[2].push(sample(Peer::Shellflip, *size, Way::Copied)?);
            }
            samples[3].push(raw(Role::FileMapper, *size)?);
            samples[4].push(sample(Peer::Ours, *size, Way::Mapped)?);
            samples[5].push(sample(Peer::Ours, *size, Way::OwnFile)?);
        }
        let [pipe, copied, shellflip, file, mapped, own] = samples.map(|samples| median(&samples));
        let row = |way: &str, text: &str| {
            Row::new(format!("state {way} {size}"), format!("{} of state, {text}", shown(*size as f64, Unit::Bytes)), Unit::Seconds)
        };
        let row_of = |row: Row, limit: f64, ours: f64| row.with(Peer::Limit, limit).with(Peer::Ours, ours).with(Peer::Shellflip, shellflip);
        report.add(row_of(row("mapped", "mapped (limit: raw memfd)"), file, mapped));
        report.add(row_of(row("copied", "copied (limit: raw pipe)"), pipe, copied));
        report.add(row("own", "in a memory file of the program's own").with(Peer::Ours, own).with(Peer::Shellflip, shellflip));
    }
    report.note(
        "state: from the freeze until the successor holds it. shellflip has one way, its pipe, which stands in each row; ecdysis hands over no \
         state. Mapped state has been looked at, each page",
    );
    Ok(())
}

fn sample(peer: Peer, state: usize, way: Way) -> Result<f64, String> {
    let mut service = Service::start(peer, Settings { state, way, ..Settings::default() })?;
    service.wait_for("warm")?;
    service.restart()?;
    let frozen = time(&service.wait_for("frozen")?.rest)?;
    let held = time(&service.wait_for("held")?.rest)?;
    Ok((held - frozen) / 1e9)
}

/// Without any library: this process writes, the other reads.
fn raw(role: Role, size: usize) -> Result<f64, String> {
    let failed = |error: std::io::Error| format!("the raw handover: {error}");
    let bytes = state(size);
    let mut service = Service::launch(Peer::Limit, Settings { role, state: size, ..Settings::default() })?;
    service.wait_for("ready")?;
    let frozen = now() as f64;
    // It must live until it has been read.
    let mut _file = None;
    if role == Role::PipeReader {
        service.input.write_all(&bytes).map_err(failed)?;
    } else {
        let file = _file.insert(File::from(memfd_create("raw", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(error.into()))?));
        file.write_all(&bytes).map_err(failed)?;
        service.tell(&format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()))?;
    }
    Ok((time(&service.wait_for("held")?.rest)? - frozen) / 1e9)
}

fn time(text: &str) -> Result<f64, String> {
    text.split(' ').next().and_then(|number| number.parse().ok()).ok_or_else(|| format!("{text:?} is no time"))
}
