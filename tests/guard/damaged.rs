//! A ledger that is damaged when a start under the guard finds it: as much goes on as can.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kept::{Kept, Player, keeps};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;

pollflip_kit::trials![
    a_ledger_of_another_layout_is_not_opened_and_the_service_begins_a_new_one,
    a_record_that_is_behind_the_connection_ends_that_one_alone,
    a_record_that_is_ahead_of_the_connection_ends_that_one_alone,
    a_record_that_is_torn_ends_that_one_alone,
    an_account_that_has_lost_its_connection_ends_that_one_alone,
];

/// Where what is in the words of a ledger: see `src/ledger/layout.rs`.
const WORD: u64 = 8;
const HEAD: u64 = 64;
const RECORD_HEAD: u64 = 5;
const LINE: u64 = 8;

/// The file of the ledger, as its keeper has it.
struct Words(File);

impl Words {
    fn of(kept: &Kept) -> Words {
        let guard = kept.guard();
        // It may have yet to take it in.
        let stored = || procfs::descriptors(guard).into_iter().find(|(_, what)| what.starts_with("/memfd:"));
        let (number, _) = wait_for("a memory file", stored);
        let path = format!("/proc/{guard}/fd/{number}");
        Words(OpenOptions::new().read(true).write(true).open(path).expect("the file"))
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; WORD as usize];
        self.0.read_exact_at(&mut bytes, at * WORD).expect("a word");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, at: u64, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), at * WORD).expect("a word");
    }

    /// The first word of the record of an account that counts: a cookie, read, written, the lengths of
    /// state and output.
    fn record(&self, account: u64) -> u64 {
        let (accounts, length) = (self.get(2), self.get(3) / WORD + RECORD_HEAD);
        let stride = (2 * length + 1).next_multiple_of(LINE);
        let at = (HEAD + 3 * accounts).next_multiple_of(LINE) + account * stride;
        let record = at + 1 + (self.get(at) & 1) * length;
        assert_eq!(self.get(record), self.get(HEAD + account), "the record is that of the account");
        record
    }
}

/// A service with three connections, whose ledger is damaged while it stands still; then it is killed.
/// Returns which connections go on, what the next start says of the others, and how often it was started.
fn damaged(damage: impl FnOnce(&Words)) -> ([bool; 3], String, usize) {
    let kept = Kept::start(&["--restart", "on-failure"], &keeps());
    let mut players = [1, 2, 3].map(|seed| {
        let mut player = Player::new(&kept, seed);
        player.round().expect("an answer");
        player
    });
    let old = kept.pid_after("");
    let pid = old.parse().expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it is there");
    wait_until("it to stop", || procfs::state(pid as u32) == Some('T'));
    damage(&Words::of(&kept));
    kept.kill();
    kept.pid_after(&old);
    let go_on = players.each_mut().map(|player| player.round().is_ok());
    // Others are served, and all is well from here on.
    let mut late = Player::new(&kept, 4);
    late.round().expect("an answer");
    let second = kept.kill();
    kept.pid_after(&second);
    late.round().expect("it goes on");
    for (player, goes_on) in players.iter_mut().zip(go_on) {
        assert_eq!(player.round().is_ok(), goes_on);
    }
    let said = kept.read("said");
    let starts = said.matches(" serves ").count();
    assert_eq!(kept.stop(), 0);
    (go_on, said, starts)
}

fn a_ledger_of_another_layout_is_not_opened_and_the_service_begins_a_new_one() {
    for (at, value, why) in [
        (1, 77, "it has version 77 of the layout"),
        (0, 0, "it is no ledger, or one that was never finished"),
        (2, 4_097, "does not have the length of that"),
        (4, u64::from_ne_bytes(*b"prices.v"), "it holds states called \"prices.v"),
    ] {
        let (go_on, said, starts) = damaged(|words| words.set(at, value));
        assert_eq!((go_on, starts), ([false; 3], 3), "{said}");
        assert!(said.contains(why), "{said}");
        assert_eq!(said.matches("ends Unknown").count(), 3, "their state is lost, so they end: {said}");
    }
}

/// More was read than anybody has recorded.
fn a_record_that_is_behind_the_connection_ends_that_one_alone() {
    let (go_on, said, starts) = damaged(|words| {
        let read = words.record(1) + 1;
        words.set(read, words.get(read) - 3);
    });
    assert_eq!((go_on, starts), ([true, false, true], 3), "{said}");
    assert!(said.contains("ends Unrecorded") && said.contains("read: 3, written: 0"), "{said}");
}

fn a_record_that_is_ahead_of_the_connection_ends_that_one_alone() {
    for beyond in [1, 1 << 40] {
        let (go_on, said, starts) = damaged(|words| {
            let read = words.record(1) + 1;
            words.set(read, words.get(read) + beyond);
        });
        assert_eq!((go_on, starts), ([true, false, true], 3), "{said}");
        assert!(said.contains("ends Mismatched"), "{said}");
    }
}

fn a_record_that_is_torn_ends_that_one_alone() {
    for length in [1 << 20, u64::MAX] {
        let (go_on, said, starts) = damaged(|words| words.set(words.record(1) + 3, length));
        assert_eq!((go_on, starts), ([true, false, true], 3), "{said}");
        assert!(said.contains("ends Mismatched"), "{said}");
    }
}

fn an_account_that_has_lost_its_connection_ends_that_one_alone() {
    let (go_on, said, starts) = damaged(|words| words.set(HEAD + 1, 0));
    assert_eq!((go_on, starts), ([true, false, true], 3), "{said}");
    assert!(said.contains("ends Unknown"), "{said}");
}
