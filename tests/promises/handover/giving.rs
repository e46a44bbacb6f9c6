//! The ways in which the old process gives what it holds.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::thread;

use pollflip::{Blob, Handover};

use crate::copying;
use crate::service::{Holder, Holdings, memory};
use pollflip_kit::service::report::say;
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Give];

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Give {
    All,
    AllAtOnce,
    /// All, and drops the handover.
    Drop,
    /// All, and fails the handover.
    Fail,
    ErrorThenFail,
    ErrorThenSend,
    LongName,
    Twice,
    TwiceAtOnce,
    /// Blobs of odd names.
    Names,
    /// A file that was closed.
    Closed,
    ClosedAtOnce,
    /// So many items without a meaning.
    Many(u64),
    /// The same, with names that are at least so long.
    ManyAtOnce(u64, usize),
    /// A blob of that size.
    Blob(usize),
    BrokenBlob,
    BlobWithoutRoom,
    BrokenBytes,
    /// All and many items, in a thread of its own, which waits there until it is told to go on.
    InThread(Wait),
    ThreadPanics,
}

/// When a thread that gives waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    AtOnce,
    /// After a packet or two of many.
    HalfWay,
    BeforeSending,
}

/// How many items such a thread gives.
const MANY: u64 = 1000;

pub fn give(holder: &Holder, how: Give, mut handover: Handover, go: Receiver<()>) {
    let holdings = &holder.holdings;
    match how {
        // What has not gone ahead.
        Give::All if holder.copy.is_some() => {
            let ahead = copying::given(holder);
            let rest = holdings.iter().filter(|(name, _)| !ahead.contains(*name));
            let given = handover.fds(rest.map(|(name, held)| (name, held.fd.as_fd())));
            tell(given.and_then(|()| give_buffers(&mut handover, holdings)).map(|()| handover.send()));
        }
        Give::All => tell(give_all(&mut handover, holdings).map(|()| handover.send())),
        Give::AllAtOnce => tell(give_all_at_once(&mut handover, holdings).map(|()| handover.send())),
        Give::Drop => tell(give_all(&mut handover, holdings)),
        Give::Fail => {
            tell(give_all(&mut handover, holdings));
            handover.fail("the program\nis in no mood");
        }
        // An error of its own comes first, whatever the program says then.
        Give::ErrorThenFail => {
            tell(handover.fd("", io::stdin()));
            handover.fail("something else");
        }
        Give::ErrorThenSend => {
            tell(handover.fd("", io::stdin()));
            handover.send();
        }
        Give::LongName => {
            tell(handover.bytes(&"n".repeat(70_000), b"state"));
            handover.send();
        }
        Give::Twice => {
            tell(handover.fd("same", io::stdin()));
            tell(handover.bytes("same", b"other"));
            handover.send();
        }
        Give::TwiceAtOnce => {
            tell(handover.fds(["other", "same", "same", "another"].map(|name| (name, io::stdin()))));
            handover.send();
        }
        Give::Names => give_names(handover),
        Give::Closed => give_closed(handover),
        Give::ClosedAtOnce => {
            let (open, closed) = (memory(), closed_file());
            tell(handover.fds([("open", &open), ("closed", closed), ("open too", &open), ("closed too", closed)]));
            handover.send();
        }
        Give::Many(count) => tell(give_many(&mut handover, count).map(|()| handover.send())),
        Give::ManyAtOnce(count, length) => {
            let stdin = io::stdin();
            let name = |number| format!("item/{number:0>length$}", length = length.saturating_sub("item/".len()));
            tell(handover.fds((0..count).map(|number| (name(number), &stdin))).map(|()| handover.send()));
        }
        Give::Blob(size) => tell(give_blob(&mut handover, size).map(|()| handover.send())),
        // What `?` makes of a blob that cannot be written: the handover is dropped.
        Give::BrokenBlob => tell(give_broken_blob(handover)),
        Give::BlobWithoutRoom => {
            // On a thread of its own, which ends with its filter.
            let giving = thread::spawn(move || {
                let blob = Blob::new().and_then(|blob| fill_up().map(|()| blob)).expect("a blob and a filter");
                write_long(blob)?;
                handover.send();
                Ok(())
            });
            tell(giving.join().expect("no panic"));
        }
        Give::BrokenBytes => {
            tell(handover.bytes("large", &vec![7; 1 << 20]));
            handover.send();
        }
        Give::InThread(when) => {
            give_all(&mut handover, holdings).expect("all can be given");
            thread::spawn(move || {
                let wait = |at| if at == when { go.recv().is_ok() } else { true };
                wait(Wait::AtOnce);
                tell(give_many(&mut handover, MANY / 2));
                say("half");
                wait(Wait::HalfWay);
                tell((MANY / 2..MANY).try_for_each(|number| handover.fd(&format!("item/{number}"), io::stdin())));
                wait(Wait::BeforeSending);
                handover.send();
                say("given");
            });
            return;
        }
        Give::ThreadPanics => {
            thread::spawn(move || {
                let _handover = handover;
                panic!("as planned");
            });
            return;
        }
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
///
/// Each new descriptor takes the lowest free number, and the restart thread opens some at any time: the number of this one is
/// high, with free ones below it.
fn closed_file() -> &'static File {
    let mut files: Vec<File> = (0..64).map(|_| memory()).collect();
    let file: &'static File = Box::leak(Box::new(files.pop().expect("64 files")));
    drop(files);
    nix::unistd::close(file.as_raw_fd()).expect("an open file");
    file
}

fn give_blob(handover: &mut Handover, size: usize) -> io::Result<()> {
    let mut blob = Blob::new()?;
    let chunk: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut left = size;
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
