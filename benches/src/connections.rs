//! Descriptors and memory over a lifeline, both ends in this process, beside the same system calls without a crate around them.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};
use pollflip::{Blob, Handover, Inheritance};

use crate::plan::{Peer, Plan, Rounds};
use crate::report::{Report, Row, Unit};
use crate::stats::median;

/// As many descriptors as the kernel takes at a time.
const AT_A_TIME: usize = 253;
const COUNTS: [usize; 3] = [100, 1000, 10_000];
/// What a program writes at a time.
const CHUNK: usize = 256 * 1024;

pub fn run(plan: &Plan, report: &mut Report) -> Result<(), String> {
    measure(plan, report).map_err(|error| error.to_string())
}

fn measure(plan: &Plan, report: &mut Report) -> Result<(), Box<dyn std::error::Error>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (own, _other) = std::os::unix::net::UnixStream::pair()?;
    let mut passing: Vec<[Vec<f64>; 2]> = COUNTS.iter().map(|_| Default::default()).collect();
    for () in plan.rounds(5, 31, 20) {
        for (count, [bare, ours]) in COUNTS.iter().zip(&mut passing) {
            bare.push(seconds(|| pass_bare(&own, *count))?);
            ours.push(seconds(|| pass(&own, *count))?);
        }
    }
    for (count, [bare, ours]) in COUNTS.iter().zip(&passing) {
        let row = Row::new(format!("connections {count}"), format!("{count} connections, given until received"), Unit::Seconds);
        report.add(row.with(Peer::Limit, median(bare)).with(Peer::Ours, median(ours)));
    }
    for (count, [bare, ours]) in COUNTS.iter().zip(&passing) {
        let row = Row::new(format!("connection of {count}"), format!("each of {count} connections"), Unit::Seconds);
        let each = |samples| median(samples) / *count as f64;
        report.add(row.with(Peer::Limit, each(bare)).with(Peer::Ours, each(ours)));
    }
    let large = plan.choose(64 << 20, 1 << 30);
    report.add(own_files(large, plan.rounds(20, 200, 10))?);
    report.add(blobs(large, plan.rounds(3, 7, 20))?);
    report.note(
        "connections: one descriptor by that many names, given by Handover::fds over a lifeline within this process, the two ends on threads \
         of their own; the limit is sendmsg and recvmsg of 253 at a time. Own memory file: the limit is one of 1 KiB. Blob: written in pieces \
         of 256 KiB, handed over, and read into fresh memory; the limit is a plain memfd, written and read in the same way",
    );
    Ok(())
}

/// A memory file of the program's own costs what a small one costs.
fn own_files(large: usize, rounds: Rounds) -> io::Result<Row> {
    let (small, large_file) = (memory()?, memory()?);
    write_all(&small, 1024)?;
    write_all(&large_file, large)?;
    let mut samples: [Vec<f64>; 2] = Default::default();
    for () in rounds {
        for (file, samples) in [&small, &large_file].into_iter().zip(&mut samples) {
            samples.push(seconds(|| {
                let given = |mut handover: Handover| handover.fd("state", file).map(|()| handover.send());
                black_box(rehearse(given)?.fd::<OwnedFd>("state"));
                Ok(())
            })?);
        }
    }
    let row = Row::new("own memory file", format!("a memory file of the program's own, {} MiB", large >> 20), Unit::Seconds);
    Ok(row.with(Peer::Limit, median(&samples[0])).with(Peer::Ours, median(&samples[1])))
}

fn blobs(large: usize, rounds: Rounds) -> io::Result<Row> {
    let mut samples: [Vec<f64>; 2] = Default::default();
    for () in rounds {
        samples[0].push(seconds(|| {
            let file = memory()?;
            write_all(&file, large)?;
            let mut bytes = vec![0; large];
            file.read_exact_at(&mut bytes, 0)?;
            black_box(bytes);
            Ok(())
        })?);
        samples[1].push(seconds(|| {
            let mut inheritance = rehearse(|mut handover| {
                let mut blob = Blob::new()?;
                write_all(&mut blob, large)?;
                handover.blob("state", blob)?;
                handover.send();
                Ok(())
            })?;
            black_box(inheritance.bytes("state")?);
            Ok(())
        })?);
    }
    let row = Row::new("blob", format!("a blob of {} MiB, written until read", large >> 20), Unit::Seconds);
    Ok(row.with(Peer::Limit, median(&samples[0])).with(Peer::Ours, median(&samples[1])))
}

fn memory() -> io::Result<File> {
    Ok(memfd_create("own", MFdFlags::MFD_CLOEXEC)?.into())
}

fn write_all(mut to: impl Write, length: usize) -> io::Result<()> {
    let chunk = vec![7; CHUNK.min(length)];
    let mut left = length;
    while left > 0 {
        let some = left.min(CHUNK);
        to.write_all(&chunk[..some])?;
        left -= some;
    }
    Ok(())
}

fn rehearse(give: impl FnOnce(Handover) -> io::Result<()>) -> io::Result<Inheritance> {
    let mut given = Ok(());
    let inheritance = Handover::rehearse(|handover| given = give(handover));
    given?;
    inheritance.map_err(io::Error::other)
}

fn pass(own: &std::os::unix::net::UnixStream, count: usize) -> io::Result<()> {
    thread::scope(|scope| {
        let inheritance = Handover::rehearse(|mut handover| {
            scope.spawn(move || {
                // What goes wrong is what the rehearsal fails with.
                if handover.fds((0..count).map(|number| (format!("player/{number}"), own))).is_ok() {
                    handover.send();
                }
            });
        });
        let received = inheritance.map_err(io::Error::other)?.drain().count();
        if received == count { Ok(()) } else { Err(io::Error::other(format!("{received} of {count} have come"))) }
    })
}

fn pass_bare(own: &std::os::unix::net::UnixStream, count: usize) -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let numbers: Vec<RawFd> = vec![own.as_raw_fd(); count];
            for some in numbers.chunks(AT_A_TIME) {
                sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"x")], &[ControlMessage::ScmRights(some)], MsgFlags::empty(), None)?;
            }
            io::Result::Ok(())
        });
        let mut received = Vec::with_capacity(count);
        let mut room = cmsg_space!([RawFd; AT_A_TIME]);
        while received.len() < count {
            let mut byte = [0];
            let mut slices = [IoSliceMut::new(&mut byte)];
            let message = recvmsg::<()>(theirs.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = part {
                    // SAFETY: the kernel has just made them for this process.
                    received.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
        }
        black_box(received);
        Ok(())
    })
}

fn seconds(what: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64())
}
