//! Processes that speak the lifeline by hand: successors and predecessors of other versions, or with bad manners.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Command, exit};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use pollflip::internals::wire::{Hello, Message, OLDEST, VERSION};

use crate::raw::Raw;
use crate::service::memory;
use pollflip_kit::service::report::{say, wait_for_go};
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Successor, Predecessor];

fn here(version: u32, oldest: u32) -> Message {
    Message::Here { version, oldest, pid: std::process::id(), again: None }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Reads the first message, whole, and returns the oldest version that the predecessor can serve.
fn take_hello(line: &Raw) -> u32 {
    let Some((Message::Hello(Hello { oldest, mut following, .. }), _)) = line.hear() else { panic!("no first message") };
    while following > 0 {
        let (_, descriptors) = line.hear().expect("what was announced");
        following -= descriptors as u64;
    }
    oldest
}

/// A process that speaks by hand to a real predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Successor {
    // --- builds of other versions ---
    Version1,
    VersionTooNew,
    VersionTooOld,
    UnreadableAndTooNew,
    /// A later version that can still speak this one, and says what this one does not know.
    Newer,

    // --- bad manners ---
    PullsTwice,
    PullsAgainLater,
    ReadyTooSoon,
    AsksAheadTwice,
    AsksAheadAfterTheState,
    ReadyWithoutTheState,
    Garbage,
    NeverReads,
    ChallengesWithoutEnd,
    ClosesHalfWay,
    ExitsHalfWay,
    RefusesAndExitsHalfWay,

    // --- others ---
    AsksAhead,
    ReadsLate,
    ReadsSlowly,
}

/// A process that starts a real successor, and speaks to it by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Predecessor {
    // --- builds of other versions ---
    Version1,
    VersionTooNew,
    UnreadableAndTooNew,
    Newer,

    // --- its first message makes no sense ---
    MoreThanAnnounced,
    BlobForASocket,

    // --- what it gives makes no sense ---
    NonUtf8,
    OneNameTwice,
    OneMissing,
    MoreNamesThanDescriptors,
    KindOfALaterVersion,
    NameThatIsCutShort,
    NameThatIsTooLong,
    GoneBeforeItIsGiven,
    AheadWithoutBeingAsked,
    ItemsOfAnotherKind,
    GivesAhead(GivenAhead),

    // --- others ---
    TakesBack,
    OddNames,
    DiesAfterHalf,
}

/// What goes ahead of the state, and makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GivenAhead {
    GoneBeforeGiven,
    Twice,
    Miscounted,
    EndMiscounted,
}

pub fn successor(how: Successor) -> ! {
    let line = Raw::adopt();
    let oldest = take_hello(&line);
    match how {
        // A build of version 1 reads no more of it than that.
        Successor::Version1 => {
            let why = format!("it speaks no version of the lifeline before {oldest}, and this process none after 1");
            line.say(&Message::Refuse { reason: format!("the lifeline cannot be used: {why}") });
            exit(2);
        }
        Successor::VersionTooNew => line.say(&here(VERSION + 9, VERSION + 9)),
        Successor::VersionTooOld if OLDEST > 0 => line.say(&here(OLDEST - 1, OLDEST - 1)),
        Successor::UnreadableAndTooNew => {
            line.json(&format!(r#"{{"type":"here","version":{0},"oldest":{0},"who":"nobody"}}"#, VERSION + 9))
        }
        Successor::Newer => {
            let pid = std::process::id();
            line.json(&format!(r#"{{"type":"here","version":{},"oldest":{OLDEST},"pid":{pid},"mood":{{"good":[1,2]}}}}"#, VERSION + 1));
            let file = memory();
            line.send(br#"{"type":"look_at_this","closely":true}"#, &[file.as_raw_fd()]);
            line.json(r#"{"type":"pull","since":17}"#);
            let (items, ended) = take_all(&line, || {});
            line.json(r#"{"type":"progress","text":"nearly there","percent":99}"#);
            line.json(r#"{"type":"ready","in":"time"}"#);
            line.wait_for(|message| *message == Message::Granted);
            say(&format!("granted {items} {ended}"));
            forever();
        }
        _ => line.say(&here(VERSION, OLDEST)),
    }
    match how {
        Successor::PullsTwice => {
            line.say(&Message::Pull);
            line.say(&Message::Pull);
        }
        Successor::PullsAgainLater => {
            line.say(&Message::Pull);
            take_all(&line, || {});
            line.say(&Message::Pull);
        }
        Successor::ReadyTooSoon => {
            line.say(&Message::Pull);
            line.say(&Message::Ready);
        }
        // Nothing goes ahead: it is told so, and asks for the state then.
        Successor::AsksAhead => {
            line.say(&Message::PrecopyPull);
            let told = line.wait_for(|message| matches!(message, Message::PrecopyComplete { .. } | Message::Items { .. }));
            line.say(&Message::Pull);
            let (items, ended) = take_all(&line, || {});
            line.say(&Message::Ready);
            line.wait_for(|message| *message == Message::Granted);
            say(&format!("granted {told:?} {items} {ended}"));
        }
        Successor::AsksAheadTwice => {
            line.say(&Message::PrecopyPull);
            line.say(&Message::PrecopyPull);
        }
        Successor::AsksAheadAfterTheState => {
            line.say(&Message::Pull);
            line.say(&Message::PrecopyPull);
        }
        Successor::ReadyWithoutTheState => {
            line.say(&Message::PrecopyPull);
            line.wait_for(|message| matches!(message, Message::PrecopyComplete { .. }));
            line.say(&Message::Ready);
        }
        Successor::Garbage => line.json("{\"type\":\"ready\""),
        Successor::NeverReads => line.say(&Message::Pull),
        // It has no use for the answers, and reads none of them.
        Successor::ChallengesWithoutEnd => {
            for number in 0..20_000 {
                line.say_when_there_is_room(&Message::Challenge { number });
            }
            say("challenged");
        }
        // Not before the old process has given everything.
        Successor::ReadsLate => {
            line.say(&Message::Pull);
            wait_for_go();
            let (items, ended) = take_all(&line, || {});
            line.say(&Message::Ready);
            line.wait_for(|message| *message == Message::Granted);
            say(&format!("granted {items} {ended}"));
        }
        Successor::ReadsSlowly => {
            line.say(&Message::Pull);
            let (items, ended) = take_all(&line, || std::thread::sleep(Duration::from_millis(30)));
            line.say(&Message::Ready);
            line.wait_for(|message| *message == Message::Granted);
            say(&format!("granted {items} {ended}"));
        }
        Successor::ClosesHalfWay | Successor::ExitsHalfWay | Successor::RefusesAndExitsHalfWay => {
            line.say(&Message::Pull);
            line.wait_for(|message| matches!(message, Message::Items { .. }));
            match how {
                Successor::ClosesHalfWay => close(line),
                Successor::ExitsHalfWay => exit(7),
                _ => {
                    line.say(&Message::Refuse { reason: "half of it is enough".into() });
                    exit(7);
                }
            }
        }
        _ => {}
    }
    forever()
}

/// What this process holds of the lifeline, the inherited one included.
fn close(line: Raw) {
    let variable = std::env::var("POLLFLIP_LIFELINE").unwrap_or_default();
    let number: RawFd = variable.split(':').next().and_then(|number| number.parse().ok()).expect("its number");
    drop(line);
    nix::unistd::close(number).expect("it was open");
}

fn take_all(line: &Raw, between: impl Fn()) -> (usize, u64) {
    let mut items = 0;
    loop {
        match line.hear() {
            Some((Message::Items { .. }, descriptors)) => items += descriptors,
            Some((Message::End { items: announced, .. }, _)) => return (items, announced),
            Some(_) => {}
            None => panic!("the other side has closed the lifeline"),
        }
        between();
    }
}

pub fn predecessor(how: Predecessor) -> ! {
    wait_for_go();
    let line = start_successor(how);
    let file = memory();
    let fd = file.as_raw_fd();
    let wanted = match how {
        Predecessor::Version1 | Predecessor::VersionTooNew | Predecessor::UnreadableAndTooNew => None,
        Predecessor::MoreThanAnnounced | Predecessor::BlobForASocket => None,
        Predecessor::GivesAhead(_) => Some(Message::PrecopyPull),
        _ => Some(Message::Pull),
    };
    // Otherwise it is refused at once.
    if let Some(wanted) = wanted {
        line.wait_for(|message| matches!(message, Message::Here { .. }));
        line.wait_for(|message| *message == wanted);
    }
    match how {
        Predecessor::Version1 | Predecessor::VersionTooNew | Predecessor::UnreadableAndTooNew => {}
        Predecessor::MoreThanAnnounced | Predecessor::BlobForASocket => {}
        Predecessor::GivesAhead(GivenAhead::GoneBeforeGiven) => line.items(&[(1, b"a"), (0, b"b")], &[fd]),
        Predecessor::GivesAhead(GivenAhead::Twice) => line.items(&[(1, b"a"), (2, b"a")], &[fd, fd]),
        Predecessor::GivesAhead(GivenAhead::Miscounted) => {
            line.items(&[(1, b"a"), (1, b"b"), (0, b"b")], &[fd, fd]);
            line.say(&Message::PrecopyComplete { items: 3 });
        }
        Predecessor::GivesAhead(GivenAhead::EndMiscounted) => {
            line.items(&[(1, b"a")], &[fd]);
            line.say(&Message::PrecopyComplete { items: 1 });
            line.wait_for(|message| *message == Message::Pull);
            line.say(&Message::End { items: 1, precopied: 1 });
        }
        Predecessor::Newer => {
            line.send(br#"{"type":"weather","rain":[1,2,3]}"#, &[fd, fd]);
            line.items(&[(1, b"memfd"), (2, b"odd")], &[fd, fd]);
            line.json(r#"{"type":"end","items":2,"precopied":0,"checksum":"none"}"#);
            line.wait_for(|message| *message == Message::Ready);
            line.json(r#"{"type":"granted","with":"pleasure"}"#);
            line.json(r#"{"type":"applause"}"#);
            line.json(r#"{"type":"commit","at":12}"#);
            say("granted");
        }
        Predecessor::NonUtf8 => line.items(&[(2, b"a\xff\xfe")], &[fd]),
        Predecessor::OneNameTwice => {
            line.items(&[(2, b"a"), (2, b"a")], &[fd, fd]);
            line.say(&Message::End { items: 2, precopied: 0 });
        }
        Predecessor::OneMissing => {
            line.items(&[(2, b"a")], &[fd]);
            line.say(&Message::End { items: 2, precopied: 0 });
        }
        Predecessor::MoreNamesThanDescriptors => line.items(&[(2, b"a"), (1, b"b")], &[fd]),
        Predecessor::KindOfALaterVersion => line.items(&[(1, b"a"), (9, b"b")], &[fd]),
        Predecessor::NameThatIsCutShort => line.send(&[1, 2, 4, 0, 0, 0, b'a', b'b', b'c'], &[fd]),
        Predecessor::NameThatIsTooLong => line.items(&[(1, &[b'x'; 256])], &[fd]),
        Predecessor::GoneBeforeItIsGiven => line.items(&[(1, b"a"), (0, b"b")], &[fd]),
        // One of a name is taken back, and given anew, and taken back.
        Predecessor::TakesBack => {
            line.items(&[(1, b"one"), (1, b"two"), (0, b"two"), (1, b"two")], &[fd, fd, fd]);
            line.items(&[(1, b"three"), (0, b"two")], &[fd]);
            line.say(&Message::End { items: 2, precopied: 0 });
            line.wait_for(|message| *message == Message::Ready);
            line.say(&Message::Granted);
            line.say(&Message::Commit);
            say("granted");
        }
        Predecessor::AheadWithoutBeingAsked => {
            line.items(&[(1, b"a")], &[fd]);
            line.say(&Message::End { items: 1, precopied: 1 });
        }
        // A message of a later version carries what this one cannot take: nothing may be lost in silence.
        Predecessor::ItemsOfAnotherKind => {
            line.send(br#"{"type":"bundle","items":[{"name":"a"}]}"#, &[fd]);
            line.say(&Message::End { items: 1, precopied: 0 });
        }
        Predecessor::OddNames => {
            line.items(&[(2, b""), (2, b"a\0b\n")], &[fd, fd]);
            line.say(&Message::End { items: 2, precopied: 0 });
            line.wait_for(|message| *message == Message::Ready);
            line.say(&Message::Granted);
            line.say(&Message::Commit);
            say("granted");
        }
        Predecessor::DiesAfterHalf => {
            let (keep, give) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
            line.items(&[(1, b"pipe")], &[give.as_raw_fd()]);
            drop((keep, give));
            exit(0);
        }
    }
    if !matches!(how, Predecessor::Newer | Predecessor::OddNames | Predecessor::TakesBack) {
        let Message::Refuse { reason } = line.wait_for(|message| matches!(message, Message::Refuse { .. })) else { forever() };
        say(&format!("refused {reason}"));
    }
    forever()
}

/// Starts a service with a first message on its lifeline.
fn start_successor(how: Predecessor) -> Raw {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    let ours = Raw(ours);
    let own = File::open("/proc/self").expect("this process");
    let pidfd = pidfd();
    let pid = std::process::id();
    let given = r#"{"is":"predecessor","since":"ever"},{"is":"keepsake","of":"youth"}"#;
    let hello = match how {
        Predecessor::Newer => format!(
            r#"{{"type":"hello","version":{},"oldest":{OLDEST},"pid":{pid},"generation":3,"given":[{given}],"following":0,"flags":["a"]}}"#,
            VERSION + 1
        ),
        // As a build of that version has it.
        Predecessor::Version1 => format!(
            r#"{{"type":"hello","version":1,"oldest":1,"pid":{pid},"generation":3,"given":[{given},{{"is":"socket","name":"web"}}],"more":false}}"#
        ),
        Predecessor::VersionTooNew => format!(
            r#"{{"type":"hello","version":{0},"oldest":{0},"pid":{pid},"generation":3,"given":[{given}],"following":0}}"#,
            VERSION + 9
        ),
        Predecessor::UnreadableAndTooNew => format!(r#"{{"type":"hello","version":{0},"oldest":{0},"given":"nothing"}}"#, VERSION + 9),
        _ => {
            let following = u64::from(matches!(how, Predecessor::MoreThanAnnounced | Predecessor::BlobForASocket));
            format!(
                r#"{{"type":"hello","version":{VERSION},"oldest":{OLDEST},"pid":{pid},"generation":1,"given":[{given}],"following":{following}}}"#
            )
        }
    };
    let descriptors: &[RawFd] = match how {
        Predecessor::UnreadableAndTooNew => &[],
        Predecessor::Version1 => &[pidfd.as_raw_fd(), own.as_raw_fd(), own.as_raw_fd()],
        _ => &[pidfd.as_raw_fd(), own.as_raw_fd()],
    };
    if how == Predecessor::Newer {
        ours.json(r#"{"type":"overture"}"#);
    }
    ours.send(hello.as_bytes(), descriptors);
    match how {
        Predecessor::MoreThanAnnounced => ours.items(&[(1, b"one"), (1, b"two")], &[own.as_raw_fd(), own.as_raw_fd()]),
        Predecessor::BlobForASocket => ours.items(&[(2, b"web")], &[own.as_raw_fd()]),
        _ => {}
    }
    let stat = nix::sys::stat::fstat(&theirs).expect("a socket");
    let variable = format!("{}:{}:{}", theirs.as_raw_fd(), stat.st_dev, stat.st_ino);
    // This process has one thread: no other child can be born meanwhile.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("its flags");
    let program = std::env::current_exe().expect("the path of this program");
    let child = Command::new(program).env("POLLFLIP_LIFELINE", variable).spawn().expect("the successor");
    // Whoever runs the test reaps it.
    std::mem::forget(child);
    ours
}

#[allow(unsafe_code, reason = "nix has no pidfd_open")]
fn pidfd() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: a system call of two numbers, which returns a new descriptor or -1.
    let number = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, std::process::id(), 0) };
    assert!(number >= 0, "no pidfd");
    // SAFETY: the kernel has just made it for this process.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}
