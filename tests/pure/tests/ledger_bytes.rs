//! Bytes that are no ledger, or a damaged one, do nothing worse than an error.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pollflip_tests_pure::ledger;
use pollflip_tests_pure::repository;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{MsgFlags, send};
use pollflip::ledger::{Advance, Ledger, Recovered};
use pollflip_tests_pure::ledger::{NAME, any_bytes, connection};

/// Bytes of a ledger of version 1, word by word: so many accounts, so much room, and what stands in
/// the first record. MAX stands for the cookie of the connection that is tried.
fn seed(accounts: u64, capacity: u64, record: [u64; 5], bytes: &[u8]) -> Vec<u8> {
    let place = (capacity / 8 + 5) as usize;
    let stride = (2 * place + 1).next_multiple_of(8);
    let tables = (64 + 3 * accounts as usize).next_multiple_of(8);
    let mut words = vec![0; tables + accounts as usize * stride];
    words[0] = u64::from_ne_bytes(*b"pollflip");
    (words[1], words[2], words[3]) = (1, accounts, capacity);
    let mut name = [0; 8];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    words[4] = u64::from_ne_bytes(name);
    (words[8], words[9], words[10], words[14]) = (3, 1, 1, 3);
    if accounts > 0 {
        (words[64], words[64 + accounts as usize]) = (1, 2);
        words[tables] = 2;
        words[tables + 1..tables + 6].copy_from_slice(&record);
        for (word, bytes) in words[tables + 6..tables + 1 + place].iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
    }
    words.into_iter().flat_map(u64::to_ne_bytes).collect()
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let with = |cause: u8, bytes: Vec<u8>| [vec![cause], bytes].concat();
    let good = seed(2, 64, [u64::MAX, 0, 0, 5, 0], b"state");
    let mut other_version = good.clone();
    other_version[8] = 2;
    vec![
        ("even", with(2, good.clone())),
        ("in-hand", with(0, good.clone())),
        ("behind", with(2, seed(1, 64, [u64::MAX, 0, 9, 5, 9], b"stateoutputput"))),
        ("unrecorded", with(2, seed(1, 64, [7, 0, 0, 0, 0], b""))),
        ("ahead", with(3, seed(1, 16, [u64::MAX, u64::MAX, u64::MAX, 0, 0], b""))),
        ("long", with(2, seed(1, 16, [u64::MAX, 0, 0, u64::MAX, 1], b""))),
        ("longer", with(2, seed(1, 16, [u64::MAX, 0, 0, 9, 8], b""))),
        ("none", with(1, seed(0, 0, [0; 5], b""))),
        ("version", with(2, other_version)),
        ("short", with(2, good[..good.len() - 8].to_vec())),
        ("nothing", vec![0]),
    ]
}

fn corpus() -> PathBuf {
    repository().to_owned().join("fuzz/corpus/ledger")
}

#[test]
fn the_seeds_are_committed() {
    for (name, bytes) in seeds() {
        let file = corpus().join(format!("{name}.seed"));
        if std::env::var_os("POLLFLIP_BLESS").is_some() {
            fs::create_dir_all(corpus()).expect("a directory");
            fs::write(&file, &bytes).expect("a file");
        }
        assert_eq!(fs::read(&file).unwrap_or_default(), bytes, "{name}.seed is out of date: POLLFLIP_BLESS=1 writes it anew");
    }
}

#[test]
fn the_corpus_does_no_harm() {
    let mut count = 0;
    for entry in fs::read_dir(corpus()).expect("the corpus") {
        any_bytes(&fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count >= seeds().len(), "{count}");
}

/// Each word of a good ledger is made each of these.
#[test]
fn a_ledger_with_any_one_word_changed_does_no_harm() {
    for (_, seed) in seeds().into_iter().filter(|(name, _)| ["in-hand", "behind"].contains(name)) {
        for at in (1..seed.len()).step_by(8) {
            for word in [0, 1, 63, u64::MAX, 1 << 63] {
                let mut bytes = seed.clone();
                if bytes[at..at + 8] != word.to_ne_bytes() {
                    bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
                    any_bytes(&bytes);
                }
            }
        }
    }
}

/// What the seeds are named after is what becomes of them.
#[test]
fn the_seeds_come_as_far_as_they_should() {
    for (name, bytes) in seeds() {
        let opens = Ledger::open(NAME, ledger::memory_file(&bytes[1..]));
        assert_eq!(opens.is_ok(), !["version", "short", "nothing"].contains(&name), "{name}: {opens:?}");
    }
}

/// Who has a file mapped dies when it becomes shorter.
#[test]
fn a_file_that_could_become_shorter_is_refused() {
    let mut file = File::from(memfd_create(c"shrinks", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("a file"));
    file.write_all(&seed(1, 8, [0; 5], b"")).expect("a write");
    let error = Ledger::open(NAME, file).expect_err("it is not sealed");
    assert!(error.to_string().contains("shorter"), "{error}");
}

/// The kernel counts urgent data, and gives them to no reader: after a kill the connection is closed,
/// because it might be wrong.
#[test]
fn a_peer_that_sends_urgent_data_costs_nobody_but_itself() {
    let ledger = Ledger::new(NAME, 2, 64).expect("a ledger");
    let [(honest_peer, honest), (peer, connection)] = [(); 2].map(|()| connection());
    for mut peer in [&honest_peer, &peer] {
        peer.write_all(b"before").expect("a write");
    }
    send(peer.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("urgent data");
    (&peer).write_all(b"after").expect("a write");
    let deadline = Instant::now() + Duration::from_secs(20);
    for (connection, wanted) in [(&honest, 6), (&connection, 11)] {
        let mut account = ledger.begin(connection, b"").expect("an account");
        let mut read = 0;
        while read < wanted {
            let advanced = account.advance(&mut [0; 64], |input, _| {
                read += input.len();
                Ok(input.len())
            });
            assert!(matches!(advanced, Ok(Advance::Worked | Advance::Idle)) && Instant::now() < deadline, "{advanced:?}");
        }
    }
    assert!(matches!(ledger.recover(&honest), Ok(Recovered::Even(_))));
    let recovered = ledger.recover(&connection);
    assert!(matches!(recovered, Ok(Recovered::Unrecorded { .. } | Recovered::Mismatched(_))), "{recovered:?}");
    assert_eq!((&peer).read(&mut [0]).expect("an end"), 0);
}
