//! A process that is killed at each of its steps, on real connections; and what is refused.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::layout::Work;
use super::steps::kill_after;
use super::*;

/// A peer, and what a keeper has: the connection and the file.
struct Kept {
    peer: TcpStream,
    connection: TcpStream,
    file: OwnedFd,
}

fn connect() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let connection = listener.accept().expect("a connection").0;
    (peer, connection)
}

const NAME_OF_STATES: &str = "chain.v1";

fn keep() -> Kept {
    let (peer, connection) = connect();
    let ledger = Ledger::new(NAME_OF_STATES, 3, 64).expect("a ledger");
    peer.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    Kept { peer, connection, file: ledger.as_fd().try_clone_to_owned().expect("a duplicate") }
}

impl Kept {
    fn ledger(&self) -> Ledger {
        Ledger::open(NAME_OF_STATES, self.file.try_clone().expect("a duplicate")).expect("a ledger")
    }

    fn connection(&self) -> TcpStream {
        self.connection.try_clone().expect("a duplicate")
    }

    fn begin(&self) -> Account<TcpStream> {
        self.ledger().begin(self.connection(), &[0]).expect("an account")
    }

    fn arrives(&self, unread: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while position(&self.connection).expect("a position").unread < unread {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::yield_now();
        }
    }
}

/// Each byte of output depends on all input before it.
fn chain(x: u8, byte: u8) -> u8 {
    x.wrapping_mul(31).wrapping_add(byte).wrapping_add(7)
}

fn chained(input: &[u8]) -> Vec<u8> {
    let mut x: u8 = 0;
    let mut answer = |byte: &u8| {
        let output = x.wrapping_add(*byte);
        x = chain(x, *byte);
        output
    };
    input.iter().map(&mut answer).collect()
}

/// At most 5 bytes at a time.
fn work(input: &[u8], draft: &mut Draft<'_>) -> io::Result<usize> {
    let input = &input[..input.len().min(5)];
    for byte in input {
        let x = draft.state()[0];
        draft.write_all(&[x.wrapping_add(*byte)])?;
        draft.state()[0] = chain(x, *byte);
    }
    Ok(input.len())
}

/// One life of the process: goes on with the connection until it has answered all that has come.
/// `Err`: it was killed.
fn live(kept: &Kept) -> io::Result<()> {
    let ledger = kept.ledger();
    let mut account = match ledger.recover(kept.connection()).map_err(|failed| failed.error)? {
        Recovered::Even(account) | Recovered::Behind(account) => account,
        Recovered::Untouched(connection) => ledger.begin(connection, &[0]).map_err(|failed| failed.error)?,
        other => panic!("{other:?}"),
    };
    assert_eq!(ledger.close_unclaimed()?, 0);
    while let Advance::Worked = account.advance(&mut [0; 8], work)? {}
    Ok(())
}

/// Lives are killed after so many steps each, and the last one is not. Returns how many steps were
/// left to the last one that should have been killed.
fn lives(kills: &[u64]) -> u64 {
    let mut kept = keep();
    let input: Vec<u8> = (1..=13).map(|n| n * 17).collect();
    kept.peer.write_all(&input).expect("a write");
    kept.arrives(13);
    let mut left = 0;
    for kill in kills {
        kill_after(Some(*kill));
        let result = live(&kept);
        left = kill_after(None).expect("a number");
        assert!(result.is_ok() || left == 0, "{result:?}");
    }
    live(&kept).expect("the last life");
    let mut output = vec![0; input.len()];
    kept.peer.read_exact(&mut output).expect("all of the output");
    assert_eq!(output, chained(&input), "killed after {kills:?} steps");
    // And no byte more.
    kept.connection.shutdown(Shutdown::Both).expect("an end");
    assert_eq!(kept.peer.read(&mut output).expect("an end"), 0, "killed after {kills:?} steps");
    left
}

#[test]
fn a_process_that_is_killed_at_any_step_leaves_a_connection_that_goes_on() {
    let mut steps = 0;
    while lives(&[steps]) == 0 {
        steps += 1;
    }
    println!("{steps} steps");
    assert!(steps > 40, "{steps} steps");
}

#[test]
fn one_that_is_killed_again_while_it_recovers_does_too() {
    let mut pairs = 0;
    for first in 0.. {
        let mut second = 0;
        while lives(&[first, second]) == 0 {
            second += 1;
            pairs += 1;
        }
        if lives(&[first]) > 0 {
            break;
        }
    }
    println!("{pairs} pairs");
    assert!(pairs > 1_000, "{pairs} pairs");
}

#[test]
fn output_that_the_peer_does_not_take_in_is_written_in_the_next_life() {
    let (mut peer, connection) = connect();
    setsockopt(&connection, sockopt::SndBuf, &4_096).expect("an option");
    let ledger = Ledger::new("long", 1, 1 << 20).expect("a ledger");
    let file = ledger.as_fd().try_clone_to_owned().expect("a duplicate");
    let kept = connection.try_clone().expect("a duplicate");
    let mut account = ledger.begin(connection, b"").expect("an account");
    peer.write_all(b"go").expect("a write");
    let mut sent = Vec::new();
    let mut buffer = [0; 16];
    // As much as no buffer of the kernel holds.
    while account.unwritten() == 0 || sent.len() < 6 << 20 {
        let more: Vec<u8> = (0..300_000_u32).map(|n| (n as usize + sent.len()) as u8).collect();
        if account.push(|draft| draft.write_all(&more)).is_err() {
            break;
        }
        sent.extend(more);
    }
    assert!(account.unwritten() > 0);
    assert_eq!(account.advance(&mut buffer, |_, _| unreachable!()).expect("an answer"), Advance::Blocked, "nothing is read meanwhile");
    let unwritten = account.unwritten();
    drop((account, ledger));

    let ledger = Ledger::open("long", file).expect("a ledger");
    let Recovered::Behind(mut account) = ledger.recover(kept).expect("an answer") else { panic!("it is not behind") };
    assert_eq!((account.unwritten(), account.untaken()), (unwritten, 0));
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).expect("all of it");
        all
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    while !account.flush().expect("a write") {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(account.written(), sent.len() as u64);
    drop(account.close());
    assert!(reader.join().expect("no panic") == sent, "another output");
}

#[test]
fn what_was_read_past_the_ledger_is_seen_and_the_connection_closed() {
    let mut kept = keep();
    let mut account = kept.begin();
    kept.peer.write_all(b"first, and more").expect("a write");
    kept.arrives(15);
    assert_eq!(account.advance(&mut [0; 5], work).expect("work"), Advance::Worked);
    account.connection_mut().read_exact(&mut [0; 4]).expect("a read");
    account.connection_mut().write_all(b"xy").expect("a write");
    drop(account);
    let ledger = kept.ledger();
    match ledger.recover(kept.connection()).expect("an answer") {
        Recovered::Unrecorded { read, written, .. } => assert_eq!((read, written), (4, 2)),
        other => panic!("{other:?}"),
    }
    let mut rest = Vec::new();
    // The five bytes that are right, the two that are not, and an end, whatever of.
    let _ = kept.peer.read_to_end(&mut rest);
    assert_eq!(ledger.free(), 3);
    assert!(matches!(ledger.recover(kept.connection()), Ok(Recovered::Unknown(_))));
}

#[test]
fn somebody_who_takes_what_was_looked_at_is_an_error() {
    let mut kept = keep();
    let mut account = kept.begin();
    kept.peer.write_all(b"first").expect("a write");
    kept.arrives(5);
    let mut other = kept.connection();
    let error = account.advance(&mut [0; 5], |input, draft| {
        other.read_exact(&mut [0; 5])?;
        work(input, draft)
    });
    assert_eq!(error.expect_err("gone").kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_record_of_another_connection_is_none_of_this_one() {
    let kept = keep();
    drop(kept.begin());
    let ledger = kept.ledger();
    let words = ledger.book.words();
    let cookie = cookie(&kept.connection).expect("a cookie");
    for (read, written) in [(1, 0), (0, 9)] {
        // A byte that never came, or an output whose beginning was never written.
        assert_eq!(words.record_next(0, cookie, Entry { read, written }, b"", b""), Ok(()));
        let again = kept.ledger();
        assert!(matches!(again.recover(kept.connection()), Ok(Recovered::Mismatched(_))), "{read} {written}");
        assert!(words.claim(0, cookie));
    }
}

#[test]
fn a_connection_that_ended_meanwhile_is_over_and_one_that_is_half_closed_is_not() {
    let kept = keep();
    drop(kept.begin());
    kept.peer.shutdown(Shutdown::Write).expect("an end");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !position(&kept.connection).expect("a position").peer_finished {
        assert!(Instant::now() < deadline);
    }
    let Ok(Recovered::Even(mut account)) = kept.ledger().recover(kept.connection()) else { panic!("not even") };
    assert_eq!(account.advance(&mut [0; 8], work).expect("an answer"), Advance::Finished);
    drop(account);
    setsockopt(&kept.peer, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    let Kept { peer, connection, file } = kept;
    drop(peer);
    while !position(&connection).expect("a position").is_over {
        assert!(Instant::now() < deadline);
    }
    let ledger = Ledger::open(NAME_OF_STATES, file).expect("a ledger");
    assert!(matches!(ledger.recover(&connection), Ok(Recovered::Over(_))));
    assert_eq!(ledger.free(), 3);
    assert_eq!(ledger.begin(&connection, b"").expect_err("it is over").error.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn work_that_fails_leaves_the_record_and_the_input_as_they_were() {
    let mut kept = keep();
    let mut account = kept.begin();
    kept.peer.write_all(b"first").expect("a write");
    kept.arrives(5);
    let spoil = |draft: &mut Draft<'_>| {
        draft.state().extend(b"spoilt");
        draft.write_all(b"spoilt")
    };
    let error = account.advance(&mut [0; 8], |_, draft| spoil(draft).and(Err(io::ErrorKind::Other.into())));
    assert_eq!(error.expect_err("an error").kind(), io::ErrorKind::Other);
    let error = account.advance(&mut [0; 8], |_, draft| spoil(draft).map(|()| 6));
    assert_eq!(error.expect_err("more than there was").kind(), io::ErrorKind::InvalidInput);
    let error = account.advance(&mut [0; 5], |_, draft| spoil(draft).map(|()| 0));
    assert_eq!(error.expect_err("a full buffer").kind(), io::ErrorKind::InvalidInput);
    assert_eq!(account.advance(&mut [0; 6], |_, draft| spoil(draft).map(|()| 0)).expect("an answer"), Advance::Incomplete);
    let error = account.advance(&mut [0; 8], |_, draft| {
        draft.state().resize(65, 1);
        Ok(5)
    });
    assert_eq!(error.expect_err("full").kind(), io::ErrorKind::StorageFull);
    let error = account.push(|draft| draft.write_all(&[0; 64]));
    assert_eq!(error.expect_err("full").kind(), io::ErrorKind::StorageFull);
    let panics = catch_unwind(AssertUnwindSafe(|| account.advance(&mut [0; 8], |_, draft| spoil(draft).map(|()| panic!("as it should")))));
    assert!(panics.is_err());
    assert_eq!((account.read(), account.written()), (0, 0));
    assert_eq!(account.advance(&mut [0; 8], work).expect("work"), Advance::Worked);
    let mut output = [0; 5];
    kept.peer.read_exact(&mut output).expect("output");
    assert_eq!(output[..], chained(b"first"));
    assert_eq!(account.state(), b"first".iter().fold([0], |[x], byte| [chain(x, *byte)]));
}

#[test]
fn each_account_is_used_once_and_all_of_them_are() {
    let ledger = Ledger::new("few", 2, 8).expect("a ledger");
    let pairs = [connect(), connect(), connect()];
    let first = ledger.begin(&pairs[0].1, b"").expect("an account");
    assert_eq!(ledger.begin(&pairs[0].1, b"").expect_err("it has one").error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(ledger.recover(&pairs[0].1).expect_err("it is in use").error.kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(ledger.begin(&pairs[1].1, b"a long state").expect_err("too long").error.kind(), io::ErrorKind::StorageFull);
    // Another process begins one meanwhile.
    let other = Ledger::open("few", ledger.as_fd().try_clone_to_owned().expect("a duplicate")).expect("the same");
    drop(other.begin(&pairs[1].1, b"b").expect("an account"));
    let failed = ledger.begin(&pairs[2].1, b"").expect_err("no room");
    assert_eq!(failed.error.kind(), io::ErrorKind::StorageFull);
    assert!(failed.to_string().contains("2 accounts"), "{failed}");
    // That one is found though it was begun after this one had looked.
    assert!(matches!(ledger.recover(&pairs[1].1), Ok(Recovered::Even(account)) if account.state() == b"b"));
    first.close();
    assert!(ledger.begin(&pairs[2].1, b"").is_ok());
    assert_eq!(ledger.close_unclaimed().expect("a number"), 2, "neither is in use here any more");
    assert_eq!(ledger.free(), 2);
}

#[test]
fn an_account_that_another_process_has_begun_is_found_though_this_one_has_begun_others_since() {
    let ledger = Ledger::new("more", 3, 8).expect("a ledger");
    let [(_a, theirs), (_b, ours)] = [connect(), connect()];
    let other = Ledger::open("more", ledger.as_fd().try_clone_to_owned().expect("a duplicate")).expect("the same");
    drop(other.begin(&theirs, b"b").expect("an account"));
    let _ours = ledger.begin(&ours, b"").expect("an account");
    assert!(matches!(ledger.recover(&theirs), Ok(Recovered::Even(account)) if account.state() == b"b"));
}

/// After a roll-back the predecessor has accounts whose place the successor has given to others.
#[test]
fn an_account_that_another_process_has_closed_writes_into_no_other() {
    let [mut kept, mut other] = two();
    let mut account = kept.begin();
    kept.peer.write_all(b"first").expect("a write");
    kept.arrives(5);
    let successor = kept.ledger();
    let Ok(Recovered::Even(theirs)) = successor.recover(kept.connection.try_clone().expect("a duplicate")) else { panic!("not even") };
    successor.book.free_account(0, cookie(&theirs.into_connection()).expect("a cookie"));
    drop(successor.begin(other.connection(), b"other").expect("an account"));
    for result in [account.advance(&mut [0; 8], work).map(drop), account.push(|_| Ok(())).map(drop), account.flush().map(drop)] {
        let error = result.expect_err("it is closed");
        assert!(error.to_string().contains("closed by another process"), "{error}");
    }
    drop(account.close());
    assert!(matches!(kept.ledger().recover(other.connection()), Ok(Recovered::Even(account)) if account.state() == b"other"));
    other.peer.write_all(b"x").expect("a write");
}

#[test]
fn a_process_that_serves_on_after_a_failed_successor_is_one_that_has_served() {
    let kept = two();
    let serving = kept[0].ledger();
    serving.serves();
    drop(kept[0].ledger());
    assert!(!kept[0].ledger().book.has_served_before());
    serving.serves();
    assert!(kept[0].ledger().book.has_served_before());
}

#[test]
fn what_is_no_ledger_or_has_no_position_is_refused_with_a_reason() {
    for name in ["", "a name that is longer than thirty-two", "a\0b"] {
        assert_eq!(Ledger::new(name, 1, 8).expect_err("a bad name").kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(Ledger::new("large", usize::MAX, 8).expect_err("too large").kind(), io::ErrorKind::InvalidInput);
    let file = File::open("/dev/null").expect("a file");
    assert_eq!(Ledger::open("any", file).expect_err("no memory file").kind(), io::ErrorKind::InvalidInput);
    let ledger = Ledger::new("one", 1, 8).expect("a ledger");
    let file = || ledger.as_fd().try_clone_to_owned().expect("a duplicate");
    let error = Ledger::open("two", file()).expect_err("another name");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("\"one\""), "{error}");
    let (unix, _other) = UnixStream::pair().expect("a pair");
    let failed = ledger.begin(&unix, b"").expect_err("it has none");
    assert!(failed.to_string().contains("unix"), "{failed}");
    assert!(failed.connection.peer_addr().is_ok(), "it comes back as it was");
    assert_eq!(ledger.recover(&unix).expect_err("it has none").error.kind(), io::ErrorKind::InvalidInput);
}

/// A ledger with two connections, of which those are in hand that are told, at the end of a process.
fn ended_with(kept: &[Kept; 2], in_hand: [bool; 2], has_served: bool) {
    let ledger = kept[0].ledger();
    for (kept, in_hand) in kept.iter().zip(in_hand) {
        let account = match ledger.recover(kept.connection()).expect("an answer") {
            Recovered::Even(account) => account,
            Recovered::Untouched(connection) => ledger.begin(connection, b"").expect("an account"),
            _ => continue,
        };
        if in_hand {
            std::mem::forget(account.in_hand());
        }
    }
    if has_served {
        ledger.serves();
    } else {
        ledger.book.words().set_last_that_served(0);
    }
}

fn two() -> [Kept; 2] {
    let [first, mut second] = [keep(), keep()];
    second.file = first.file.try_clone().expect("a duplicate");
    [first, second]
}

/// The judgement, and whether each of the two goes on.
fn judged(kept: &[Kept; 2], end: Exit) -> (Judgement, [bool; 2]) {
    let ledger = kept[0].ledger();
    let judgement = ledger.judge(end).expect("a judgement");
    assert_eq!(ledger.judge(Exit::Signal(libc::SIGSEGV)).expect("the same"), judgement);
    let goes_on = kept.each_ref().map(|kept| matches!(ledger.recover(kept.connection()), Ok(Recovered::Even(_))));
    (judgement, goes_on)
}

#[test]
fn who_was_in_hand_at_a_crash_is_dropped_and_nobody_else() {
    let kept = two();
    ended_with(&kept, [false, true], true);
    let (judgement, goes_on) = judged(&kept, Exit::Signal(libc::SIGSEGV));
    assert_eq!((judgement.scope, judgement.is_strike, judgement.strikes), (Scope::NotSuspects, false, 0));
    assert_eq!(judgement.in_hand, [sys::socket_cookie(&kept[1].connection).expect("a cookie")]);
    assert_eq!(goes_on, [true, false]);
    let mut end = &kept[1].peer;
    assert_eq!(end.read(&mut [0]).expect("an end"), 0, "its peer is told");
    ended_with(&kept, [false, false], true);
    let (judgement, goes_on) = judged(&kept, Exit::Signal(libc::SIGSEGV));
    assert_eq!((judgement.scope, judgement.is_strike, goes_on[0]), (Scope::All, true, true), "the mark is gone");
}

/// A crash, a start that judges and is killed after each number of steps, and a start after that, which
/// is told of the kill alone.
#[test]
fn who_is_to_be_dropped_is_dropped_by_the_next_process_if_the_one_that_judged_is_killed() {
    let (mut steps, mut judged_and_killed) = (0, 0);
    loop {
        let kept = two();
        ended_with(&kept, [false, true], true);
        kill_after(Some(steps));
        let second = kept[0].ledger();
        let scope = second.judge(Exit::Signal(libc::SIGSEGV)).expect("a judgement").scope;
        let left = kill_after(None).expect("a number");
        assert_eq!(scope, Scope::NotSuspects);
        kill_after(Some(left));
        // The last step of a close.
        let _ = second.recover(kept[1].connection());
        let lives_on = kill_after(None).expect("a number") > 0;
        let third = kept[0].ledger();
        assert_eq!(third.judge(Exit::Signal(libc::SIGKILL)).expect("a judgement").scope, Scope::All);
        let suspect = third.recover(kept[1].connection()).expect("an answer");
        if left > 0 {
            judged_and_killed += u32::from(!lives_on);
            assert!(matches!(suspect, Recovered::Dropped(_) | Recovered::Over(_) | Recovered::Unknown(_)), "{steps} steps: {suspect:?}");
        }
        assert!(matches!(third.recover(kept[0].connection()), Ok(Recovered::Even(_))), "{steps} steps");
        if lives_on {
            break;
        }
        steps += 1;
    }
    assert!(judged_and_killed >= 2, "{judged_and_killed} of {steps} kills came between");
}

/// The same for all connections, at the second strike.
#[test]
fn connections_that_are_to_be_dropped_stay_so_when_the_process_is_killed() {
    let kept = two();
    for _ in 0..2 {
        ended_with(&kept, [false, false], true);
        kept[0].ledger().judge(Exit::Signal(libc::SIGSEGV)).expect("a judgement");
    }
    let (judgement, goes_on) = judged(&kept, Exit::Signal(libc::SIGKILL));
    assert_eq!((judgement.scope, judgement.strikes, goes_on), (Scope::All, 2, [false, false]));
    let (_peer, connection) = connect();
    let ledger = kept[0].ledger();
    drop(ledger.begin(connection.try_clone().expect("a duplicate"), b"").expect("an account of before"));
    assert!(matches!(kept[0].ledger().recover(connection), Ok(Recovered::Even(_))));
}

#[test]
fn ends_from_outside_drop_nobody() {
    let kept = two();
    for _ in 0..10 {
        ended_with(&kept, [true, true], false);
        let (judgement, goes_on) = judged(&kept, Exit::Signal(libc::SIGKILL));
        assert_eq!((judgement.scope, judgement.strikes, goes_on), (Scope::All, 0, [true, true]));
        assert_eq!(judgement.in_hand.len(), 2);
    }
}

#[test]
fn where_nobody_knows_the_cause_two_ends_drop_the_one_that_was_in_hand_at_both() {
    let kept = two();
    ended_with(&kept, [true, false], true);
    assert_eq!(judged(&kept, Exit::Unknown).1, [true, true]);
    ended_with(&kept, [true, true], true);
    let (judgement, goes_on) = judged(&kept, Exit::Unknown);
    assert_eq!((judgement.scope, goes_on), (Scope::NotSuspects, [false, true]));
}

/// An end amid that work; whether the connection goes on.
fn ends_amid(kept: &Kept, work: Work) -> bool {
    let ledger = kept.ledger();
    ledger.judge(Exit::Unknown).expect("a judgement");
    let mut account = match ledger.recover(kept.connection()).expect("an answer") {
        Recovered::Untouched(connection) => ledger.begin(connection, b"").expect("an account"),
        Recovered::Even(account) => account,
        _ => return false,
    };
    let end = AssertUnwindSafe(|| match work {
        Work::Input => drop(account.advance(&mut [0; 8], |_, _| panic!("as it should"))),
        Work::Output => drop(account.push(|_| panic!("as it should"))),
        Work::Other => std::mem::forget(account.in_hand()),
    });
    assert_eq!(catch_unwind(end).is_err(), work != Work::Other);
    true
}

/// A process does that work to the end, and is killed later on, with nothing in hand.
fn lives_through(kept: &Kept, work: Work) {
    let ledger = kept.ledger();
    ledger.judge(Exit::Unknown).expect("a judgement");
    let Ok(Recovered::Even(mut account)) = ledger.recover(kept.connection()) else { panic!("it does not go on") };
    match work {
        // One byte of what is there.
        Work::Input => assert_eq!(account.advance(&mut [0; 8], |_, _| Ok(1)).expect("work"), Advance::Worked),
        Work::Output => assert!(account.push(|_| Ok(())).expect("a push")),
        Work::Other => drop(account.in_hand()),
    }
}

#[test]
fn where_nobody_knows_the_cause_a_connection_whose_work_was_done_since_goes_on() {
    let works = [Work::Input, Work::Output, Work::Other];
    for work in works {
        let mut kept = keep();
        kept.peer.write_all(b"0123456789").expect("a write");
        kept.arrives(10);
        assert!(ends_amid(&kept, work));
        for _ in 0..3 {
            lives_through(&kept, work);
            assert!(ends_amid(&kept, work), "{work:?}: by chance");
        }
        // Other work says nothing about it.
        works.into_iter().filter(|other| *other != work).for_each(|other| lives_through(&kept, other));
        assert!(ends_amid(&kept, work), "the second end is judged by the next process");
        assert!(!ends_amid(&kept, work), "{work:?}");
    }
}

#[test]
fn work_that_comes_to_nothing_clears_nobody() {
    let mut kept = keep();
    kept.peer.write_all(b"0123456789").expect("a write");
    kept.arrives(10);
    assert!(ends_amid(&kept, Work::Input));
    let ledger = kept.ledger();
    ledger.judge(Exit::Unknown).expect("a judgement");
    let Ok(Recovered::Even(mut account)) = ledger.recover(kept.connection()) else { panic!("it does not go on") };
    assert_eq!(account.advance(&mut [0; 16], |_, _| Ok(0)).expect("no work"), Advance::Incomplete);
    account.advance(&mut [0; 16], |_, _| Err(io::ErrorKind::Other.into())).expect_err("no work");
    drop((account, ledger));
    assert!(ends_amid(&kept, Work::Input), "the second end is judged by the next process");
    assert!(!ends_amid(&kept, Work::Input));
}

/// An end, a start that judges it and is killed after each number of steps, and a start after that.
#[test]
fn an_end_is_counted_once_though_the_one_that_judges_it_is_killed() {
    for end in [Exit::Unknown, Exit::OutOfMemory] {
        let mut steps = 0;
        loop {
            let kept = two();
            ended_with(&kept, [true, false], true);
            kill_after(Some(steps));
            let first = kept[0].ledger().judge(end).expect("a judgement");
            let is_killed = kill_after(None).expect("a number") == 0;
            // How the one that was killed has ended: where nobody tells, the same is said of each.
            let [told, counted] = match end {
                Exit::Unknown => [Exit::Unknown, Exit::Signal(libc::SIGKILL)],
                _ => [Exit::Signal(libc::SIGKILL); 2],
            };
            assert_eq!(judged(&kept, told).1, [true, true], "{end:?}, {steps} steps: it was in hand at one end alone");
            let strikes = kept[0].ledger().judge(counted).expect("a judgement").strikes;
            let of_the_kill = u32::from(told == Exit::Unknown && strikes > first.strikes);
            assert!(strikes - of_the_kill == first.strikes || is_killed && strikes == 0, "{end:?}, {steps} steps: {strikes}");
            if !is_killed {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 3, "{end:?}: {steps} steps");
    }
}

/// Killed from outside with a connection in hand; the start after that fails on its own.
#[test]
fn a_start_that_ends_before_it_judges_passes_no_blame_on() {
    let kept = two();
    ended_with(&kept, [true, false], true);
    drop(kept[0].ledger());
    let (judgement, goes_on) = judged(&kept, Exit::Code(1));
    assert_eq!((judgement.scope, judgement.is_strike, goes_on), (Scope::All, true, [true, true]));
    // Once more is no chance.
    ended_with(&kept, [true, false], true);
    assert_eq!(judged(&kept, Exit::Unknown).1, [false, true]);
}

#[test]
fn a_successor_that_fails_takes_no_blame_from_its_predecessor() {
    let kept = two();
    ended_with(&kept, [false, false], true);
    let serving = kept[0].ledger();
    let Ok(Recovered::Even(account)) = serving.recover(kept[0].connection()) else { panic!("not even") };
    drop(kept[0].ledger());
    std::mem::forget(account.in_hand());
    drop((account, serving));
    assert_eq!(judged(&kept, Exit::Signal(libc::SIGSEGV)).1, [false, true]);
}

#[test]
fn crashes_with_nobody_in_hand_drop_the_connections_at_the_second_and_all_state() {
    let kept = two();
    for (scope, goes_on, strikes) in
        [(Scope::All, [true, true], 1), (Scope::NotStreams, [false, false], 2), (Scope::Listeners, [false, false], 3)]
    {
        ended_with(&kept, [false, false], true);
        let (judgement, found) = judged(&kept, Exit::Signal(libc::SIGSEGV));
        assert_eq!((judgement.scope, found, judgement.strikes), (scope, goes_on, strikes));
    }
    assert_eq!(kept[0].ledger().free(), 3, "it is empty");
}

#[test]
fn what_is_begun_after_all_connections_were_dropped_goes_on() {
    let kept = two();
    ended_with(&kept, [false, false], true);
    judged(&kept, Exit::Signal(libc::SIGSEGV));
    ended_with(&kept, [false, false], true);
    let ledger = kept[0].ledger();
    assert_eq!(ledger.judge(Exit::Signal(libc::SIGSEGV)).expect("a judgement").scope, Scope::NotStreams);
    let (_peer, connection) = connect();
    // It is handed over, and comes back after a roll-back.
    drop(ledger.begin(connection.try_clone().expect("a duplicate"), b"").expect("an account"));
    assert!(matches!(ledger.recover(connection), Ok(Recovered::Even(_))));
    assert!(matches!(ledger.recover(kept[0].connection()), Ok(Recovered::Dropped(_))));
}

#[test]
fn a_mark_is_gone_when_the_work_is_done_and_stays_after_a_panic() {
    let mut kept = keep();
    let mut account = kept.begin();
    kept.peer.write_all(b"first").expect("a write");
    kept.arrives(5);
    let ledger = kept.ledger();
    account
        .advance(&mut [0; 8], |input, draft| {
            assert!(ledger.book.words().mark(0).is_some(), "it is in hand");
            work(input, draft)
        })
        .expect("work");
    assert_eq!(ledger.book.words().mark(0), None);
    assert!(catch_unwind(AssertUnwindSafe(|| account.push(|_| panic!("as it should")))).is_err());
    assert!(ledger.book.words().mark(0).is_some(), "the process may end of it");
    account.push(|_| Ok(())).expect("a push");
    assert_eq!(ledger.book.words().mark(0), None);
}
