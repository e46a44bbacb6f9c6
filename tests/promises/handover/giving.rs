//! The ways in which the old process gives what it holds, by the setting `give`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::thread;

use pollflip::{Blob, Handover};

use crate::copying;
use crate::service::{Holdings, Service, memory};
use pollflip_kit::service::report::say;

pub fn give(service: &mut Service, mut handover: Handover, go: Receiver<()>) {
    let holdings = &service.holdings;
    match service.settings.get("give").unwrap_or("all") {
        // What has not gone ahead.
        "all" if service.copy.is_some() => {
            let ahead = copying::given(service);
            let rest = holdings.iter().filter(|(name, _)| !ahead.contains(*name));
            let given = handover.fds(rest.map(|(name, held)| (name, held.fd.as_fd())));
            tell(given.and_then(|()| give_buffers(&mut handover, holdings)).map(|()| handover.send()));
        }
        "all" => tell(give_all(&mut handover, holdings).map(|()| handover.send())),
        "all_at_once" => tell(give_all_at_once(&mut handover, holdings).map(|()| handover.send())),
        "drop" => tell(give_all(&mut handover, holdings)),
        "fail" => {
            tell(give_all(&mut handover, holdings));
            handover.fail("the program\nis in no mood");
        }
        // An error of its own comes first, whatever the program says then.
        "error_then_fail" => {
            tell(handover.fd("", io::stdin()));
            handover.fail("something else");
        }
        "error_then_send" => {
            tell(handover.fd("", io::stdin()));
            handover.send();
        }
        "long_name" => {
            tell(handover.bytes(&"n".repeat(70_000), b"state"));
            handover.send();
        }
        "twice" => {
            tell(handover.fd("same", io::stdin()));
            tell(handover.bytes("same", b"other"));
            handover.send();
        }
        "twice_at_once" => {
            tell(handover.fds(["other", "same", "same", "another"].map(|name| (name, io::stdin()))));
            handover.send();
        }
        "names" => give_names(handover),
        "closed" => give_closed(handover),
        "closed_at_once" => {
            let (open, closed) = (memory(), closed_file());
            tell(handover.fds([("open", &open), ("closed", closed), ("open too", &open), ("closed too", closed)]));
            handover.send();
        }
        "many" => {
            let count = service.settings.number("count").unwrap_or(1000);
            tell(give_many(&mut handover, count).map(|()| handover.send()));
        }
        "many_at_once" => {
            let count = service.settings.number("count").unwrap_or(1000);
            let length = service.settings.number("length").unwrap_or(0) as usize;
            let stdin = io::stdin();
            let name = |number| format!("item/{number:0>length$}", length = length.saturating_sub("item/".len()));
            tell(handover.fds((0..count).map(|number| (name(number), &stdin))).map(|()| handover.send()));
        }
        "blob" => tell(give_blob(&mut handover, service.settings.number("size").unwrap_or(0)).map(|()| handover.send())),
        // What `?` makes of a blob that cannot be written: the handover is dropped.
        "broken_blob" => tell(give_broken_blob(handover)),
        "blob_without_room" => {
            // On a thread of its own, which ends with its filter.
            let giving = thread::spawn(move || {
                let blob = Blob::new().and_then(|blob| fill_up().map(|()| blob)).expect("a blob and a filter");
                write_long(blob)?;
                handover.send();
                Ok(())
            });
            tell(giving.join().expect("no panic"));
        }
        "broken_bytes" => {
            tell(handover.bytes("large", &vec![7; 1 << 20]));
            handover.send();
        }
        // In a thread of its own, and there it waits: before anything, after a packet or two of many, or before it sends.
        how @ ("thread" | "thread_half" | "thread_last") => {
            give_all(&mut handover, holdings).expect("all can be given");
            let how = how.to_owned();
            let count = service.settings.number("count").unwrap_or(1000);
            thread::spawn(move || {
                let wait = |at| if at == how { go.recv().is_ok() } else { true };
                wait("thread");
                tell(give_many(&mut handover, count / 2));
                say("half");
                wait("thread_half");
                tell((count / 2..count).try_for_each(|number| handover.fd(&format!("item/{number}"), io::stdin())));
                wait("thread_last");
                handover.send();
                say("given");
            });
            return;
        }
        "thread_panics" => {
            thread::spawn(move || {
                let _handover = handover;
                panic!("as planned");
            });
            return;
        }
        how => panic!("no such way: {how}"),
    }
    say("given");
}

fn tell(result: io::Result<()>) {
    if let Err(error) = result {
        say(&format!("give-error {error}"));
    }
}

fn give_all(handover: &mut Handover, holdings: &Holdings) -> io::Result<()> {
    for (name, held) in holdings {
        handover.fd(name, held.fd.as_fd())?;
    }
    give_buffers(handover, holdings)
}

fn give_all_at_once(handover: &mut Handover, holdings: &Holdings) -> io::Result<()> {
    handover.fds(holdings.iter().map(|(name, held)| (name, held.fd.as_fd())))?;
    give_buffers(handover, holdings)
}

fn give_buffers(handover: &mut Handover, holdings: &Holdings) -> io::Result<()> {
    let buffers: Vec<_> = holdings.iter().map(|(name, held)| (name, &held.buffer)).collect();
    handover.bytes("buffers", &serde_json::to_vec(&buffers)?)
}

fn give_many(handover: &mut Handover, count: u64) -> io::Result<()> {
    (0..count).try_for_each(|number| handover.fd(&format!("item/{number}"), io::stdin()))
}

fn give_names(mut handover: Handover) {
    let longest = "x".repeat(255);
    let good = ["a", "with space", "\"quoted\" \\ {}", "größe/✓", "../../etc", longest.as_str()];
    for name in good {
        handover.bytes(name, name.as_bytes()).expect("a good name");
    }
    handover.send();
}

/// The program closes what it has given, before it is sent; the handover has its own.
fn give_closed(mut handover: Handover) {
    let file = memory();
    handover.fd("open", &file).expect("an open file");
    drop(file);
    tell(handover.fd("closed", closed_file()));
    handover.send();
}

/// One that was closed behind the back of its owner, who must then not close it again.
fn closed_file() -> &'static File {
    let file: &'static File = Box::leak(Box::new(memory()));
    nix::unistd::close(file.as_raw_fd()).expect("an open file");
    file
}

fn give_blob(handover: &mut Handover, size: u64) -> io::Result<()> {
    let mut blob = Blob::new()?;
    let chunk: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut left = size as usize;
    while left > 0 {
        let length = left.min(chunk.len());
        blob.write_all(&chunk[..length])?;
        left -= length;
    }
    handover.blob("blob", blob)
}

fn give_broken_blob(mut handover: Handover) -> io::Result<()> {
    let blob = write_long(Blob::new()?)?;
    handover.blob("blob", blob)?;
    handover.send();
    Ok(())
}

fn write_long(mut blob: Blob) -> io::Result<Blob> {
    for _ in 0..64 {
        blob.write_all(&[1; 64 * 1024])?;
    }
    Ok(blob)
}

/// From now on this thread finds no room for anything long that it writes.
fn fill_up() -> io::Result<()> {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    let long = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ge, 4096).expect("a condition");
    let rule = SeccompRule::new(vec![long]).expect("a rule");
    let rules = [(nix::libc::SYS_write, vec![rule])].into_iter().collect();
    let no_room = SeccompAction::Errno(nix::errno::Errno::ENOSPC as u32);
    let here = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, no_room, here).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
