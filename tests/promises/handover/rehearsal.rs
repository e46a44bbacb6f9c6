//! Both ends in one process, for users' own tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use pollflip::{Arrival, Blob, Failure, Handover, Precopy};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use pollflip_kit::hub::wait_until;
use pollflip_kit::surroundings::are_many_descriptors_allowed;

pollflip_kit::trials![
    a_rehearsal_returns_what_was_given,
    a_rehearsal_that_fails_says_why,
    a_rehearsal_can_be_filled_on_another_thread,
    a_rehearsal_takes_more_than_the_kernel_takes_at_once,
    whatever_is_given_in_whatever_way_arrives_once,
    a_rehearsal_hands_each_descriptor_out_and_keeps_the_blobs,
    a_rehearsal_of_a_program_that_cannot_use_what_comes_fails_as_the_attempt_would,
    a_rehearsal_of_what_the_kernel_refuses_in_the_end_says_so,
    what_was_taken_is_gone_and_what_was_not_is_listed,
    a_connection_has_no_bytes_and_stays,
    a_list_that_breaks_off_has_nothing_of_it_go_ahead,
    a_list_that_breaks_off_leaves_a_handover_that_can_go_on,
];

fn a_rehearsal_returns_what_was_given() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let mut inheritance = Handover::rehearse(|mut handover| {
        let mut blob = Blob::new().expect("memory");
        writeln!(blob, "the state").expect("room");
        handover.blob("state", blob).expect("a good name");
        handover.fd("connection", &ours).expect("a good name");
        handover.send();
    })
    .expect("nothing to fail");
    assert_eq!(&*inheritance.map("state").expect("a blob").expect("its name"), b"the state\n");
    let mut connection: UnixStream = inheritance.fd::<OwnedFd>("connection").map(UnixStream::from).expect("its name");
    connection.write_all(b"x").expect("an open connection");
    let mut byte = [0];
    std::io::Read::read_exact(&mut theirs, &mut byte).expect("a byte");
    assert_eq!(byte, *b"x");
}

fn a_rehearsal_that_fails_says_why() {
    let reason = |save: fn(Handover)| match Handover::rehearse(save) {
        Err(Failure::Handover(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(drop), "the predecessor dropped the Handover without sending it; does its release handle Event::StateRequested?");
    assert_eq!(reason(|handover| handover.fail("not today")), "not today");
    let twice = |mut handover: Handover| {
        let _ = handover.bytes("a", b"");
        let _ = handover.bytes("a", b"");
        handover.send();
    };
    assert_eq!(reason(twice), "cannot hand \"a\" over: there is one of that name already");
    let after_many = |mut handover: Handover| {
        for number in 0..1000 {
            handover.fd(&number.to_string(), std::io::stdin()).expect("a good name");
        }
        handover.fail("after a thousand");
    };
    assert_eq!(reason(after_many), "after a thousand");
    for name in ["", "line\nbreak", "nul\0", &"x".repeat(256)] {
        let why = Handover::rehearse(|mut handover| drop(handover.bytes(name, b"x"))).expect_err("a bad name").to_string();
        assert!(why.contains("a name must"), "{why}");
    }
}

fn a_rehearsal_can_be_filled_on_another_thread() {
    if !are_many_descriptors_allowed("a_rehearsal_can_be_filled_on_another_thread") {
        return;
    }
    let mut threads = Vec::new();
    let inheritance = Handover::rehearse(|mut handover| {
        threads.push(thread::spawn(move || {
            for number in 0..5000 {
                handover.fd(&number.to_string(), std::io::stdin()).expect("a good name");
            }
            handover.send();
        }));
    });
    assert_eq!(inheritance.expect("nothing to fail").names().len(), 5000);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

fn a_rehearsal_takes_more_than_the_kernel_takes_at_once() {
    if !are_many_descriptors_allowed("a_rehearsal_takes_more_than_the_kernel_takes_at_once") {
        return;
    }
    let name = |number: usize| format!("{number:0>255}");
    for at_once in [false, true] {
        let inheritance = Handover::rehearse(|mut handover| {
            if at_once {
                handover.fds((0..6000).map(|number| (name(number), std::io::stdin()))).expect("good names");
            } else {
                (0..6000).for_each(|number| handover.fd(&name(number), std::io::stdin()).expect("a good name"));
            }
            handover.send();
        });
        let names = inheritance.expect("nothing to fail").names();
        assert!(names.into_iter().eq((0..6000).map(name)));
    }
}

fn whatever_is_given_in_whatever_way_arrives_once() {
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut state = seed;
    // SplitMix64.
    let mut random = |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    for _ in 0..30 {
        // By name, the file that must come under it.
        let mut given: BTreeMap<String, u64> = BTreeMap::new();
        let files: Vec<File> = (0..4).map(|number| memory(&format!("file {number}"))).collect();
        let mut inheritance = Handover::rehearse(|mut handover| {
            for _ in 0..random(8) {
                let mut names = Vec::new();
                for _ in 0..random(600) {
                    let (name, file) = (format!("{:0>1$}", given.len(), 1 + random(255) as usize), random(4));
                    if given.insert(name.clone(), file).is_none() {
                        names.push((name, file));
                    }
                }
                let all = names.iter().map(|(name, file)| (name, &files[*file as usize]));
                match random(3) {
                    0 => handover.fds(all).expect("good names"),
                    1 => all.for_each(|(name, file)| handover.fd(name, file).expect("a good name")),
                    _ => names.iter().for_each(|(name, file)| {
                        handover.bytes(name, format!("file {file}").as_bytes()).expect("a good name");
                    }),
                }
            }
            handover.send();
        })
        .expect("nothing to fail");
        assert!(inheritance.names().iter().eq(given.keys()), "seed {seed}");
        for (name, file) in given {
            let bytes = inheritance.bytes(&name).expect("a file").expect("its name");
            assert_eq!(bytes, format!("file {file}").as_bytes(), "seed {seed}");
        }
    }
}

fn a_rehearsal_hands_each_descriptor_out_and_keeps_the_blobs() {
    let file = memory("here");
    let mut arrived = Vec::new();
    let save = |mut handover: Handover| {
        handover.fd("first", &file).expect("a good name");
        handover.bytes("blob", b"there").expect("a good name");
        handover.fds((0..1000).map(|number| (number.to_string(), &file))).expect("good names");
        handover.fd("last", &file).expect("a good name");
        handover.send();
    };
    let inheritance = Handover::rehearse_each(save, |arrival| {
        let Arrival::Given(name, descriptor) = arrival else { panic!("{arrival:?}") };
        assert!(File::from(descriptor).metadata().expect("a file").len() == 4);
        arrived.push(name);
        Ok(())
    });
    let mut inheritance = inheritance.expect("nothing to fail");
    let all = ["first".into()].into_iter().chain((0..1000).map(|number| number.to_string())).chain(["last".into()]);
    assert!(arrived.into_iter().eq(all), "in the order in which they were given");
    assert_eq!(inheritance.names(), ["blob"]);
    assert_eq!(inheritance.bytes("blob").expect("a blob").as_deref(), Some(&b"there"[..]));
}

fn a_rehearsal_of_a_program_that_cannot_use_what_comes_fails_as_the_attempt_would() {
    let save = |mut handover: Handover| {
        handover.fds(["a", "b"].map(|name| (name, std::io::stdin()))).expect("good names");
        handover.send();
    };
    match Handover::rehearse_each(save, |_| Err(std::io::Error::other("no\nroom"))) {
        Err(Failure::Refused(why)) => assert_eq!(why, "the state cannot be taken over: no room"),
        other => panic!("{other:?}"),
    }
}

/// A file in memory with that in it.
fn memory(text: &str) -> File {
    let file = nix::sys::memfd::memfd_create("given", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("memory");
    let mut file = File::from(file);
    file.write_all(text.as_bytes()).expect("room");
    file
}

/// As it does a descriptor of io_uring, in a packet that had to wait.
fn a_rehearsal_of_what_the_kernel_refuses_in_the_end_says_so() {
    if !are_many_descriptors_allowed("a_rehearsal_of_what_the_kernel_refuses_in_the_end_says_so") {
        return;
    }
    let rehearsal = thread::spawn(|| {
        Handover::rehearse(|mut handover| {
            for number in 0..6000 {
                handover.fd(&format!("{number:0>255}"), std::io::stdin()).expect("a good name");
            }
            handover.send();
            forbid_sendmsg();
        })
    });
    wait_until("the end of the rehearsal", || rehearsal.is_finished());
    match rehearsal.join().expect("no panic") {
        Err(Failure::Handover(why)) => assert!(why.starts_with("the kernel does not take what was given: "), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// In this thread.
fn forbid_sendmsg() {
    let rules = [(nix::libc::SYS_sendmsg, vec![])].into_iter().collect();
    let machine = std::env::consts::ARCH.try_into().expect("a machine that seccompiler knows");
    let refused = SeccompAction::Errno(nix::libc::EINVAL as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, machine).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("seccomp");
}

fn what_was_taken_is_gone_and_what_was_not_is_listed() {
    let mut inheritance = Handover::rehearse(|mut handover| {
        for name in ["c", "a", "b"] {
            handover.bytes(name, name.as_bytes()).expect("a good name");
        }
        handover.send();
    })
    .expect("nothing to fail");
    assert_eq!(inheritance.bytes("b").expect("a blob").as_deref(), Some(&b"b"[..]));
    assert!(inheritance.bytes("b").expect("nothing to fail").is_none());
    assert!(inheritance.fd::<OwnedFd>("d").is_none());
    assert_eq!(inheritance.names(), ["a", "c"]);
    assert_eq!(inheritance.drain().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "c"]);
    assert!(inheritance.names().is_empty());
}

fn a_connection_has_no_bytes_and_stays() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let (end, _other) = std::io::pipe().expect("a pipe");
    let mut inheritance = Handover::rehearse(|mut handover| {
        handover.fd("connection", &ours).expect("a good name");
        handover.fd("pipe", &end).expect("a good name");
        handover.send();
    })
    .expect("nothing to fail");
    drop((ours, theirs));
    for name in ["connection", "pipe"] {
        let error = inheritance.bytes(name).expect_err("no file");
        assert!(error.to_string().contains("take it as a descriptor"), "{error}");
        assert!(inheritance.fd::<OwnedFd>(name).is_some());
    }
}

/// What makes the list is the program's own code.
fn a_list_that_breaks_off_has_nothing_of_it_go_ahead() {
    let stdin = std::io::stdin();
    let ahead = |precopy: &mut Precopy| {
        let list = (0..3).map(|number| match number {
            2 => panic!("as it should"),
            _ => (number.to_string(), &stdin),
        });
        assert!(catch_unwind(AssertUnwindSafe(|| precopy.fds(list))).is_err());
        precopy.fds((1..4).map(|number| (number.to_string(), &stdin))).expect("none of these has gone");
    };
    let (arrivals, _) = Handover::rehearse_precopy(ahead, Handover::send).expect("a handover");
    assert_eq!(arrivals.len(), 3);
}

fn a_list_that_breaks_off_leaves_a_handover_that_can_go_on() {
    let stdin = std::io::stdin();
    // One of as many as go together, and one behind those that have gone.
    for breaks_at in [2, 255] {
        let save = |mut handover: Handover| {
            let list = (0..300).map(|number| match number {
                _ if number == breaks_at => panic!("as it should"),
                _ => (number.to_string(), &stdin),
            });
            assert!(catch_unwind(AssertUnwindSafe(|| handover.fds(list))).is_err());
            handover.fd("single", &stdin).expect("it is taken");
            handover.bytes("blob", b"12 34").expect("it is taken");
            handover.send();
        };
        let mut inheritance = Handover::rehearse(save).expect("a handover");
        assert_eq!(inheritance.bytes("blob").expect("a blob").expect("it was given"), b"12 34");
        assert!(inheritance.fd::<OwnedFd>("single").is_some());
        // What has gone before.
        assert_eq!(inheritance.names().len(), if breaks_at == 2 { 0 } else { 253 });
    }
}
