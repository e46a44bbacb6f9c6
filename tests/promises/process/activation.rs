//! Sockets that systemd passes: by `Sockets`, or untouched for a program that takes them by itself.

use std::net::TcpListener;

use nix::libc;

use nix::sys::signal::Signal;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::Process;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Listen, Log, Step, at, tcp};

pollflip_kit::trials![
    passed_sockets_are_inherited_by_name,
    passed_sockets_of_one_name_are_told_apart_by_their_address,
    passed_sockets_are_made_non_blocking_once,
    passed_sockets_that_nobody_touches_stay_at_their_numbers,
    passed_sockets_stay_at_their_numbers_through_a_failed_restart,
    the_environment_of_passed_sockets_is_put_right,
    the_environment_is_left_alone_when_there_are_threads,
    the_environment_of_a_process_without_a_predecessor_is_left_alone,
    sockets_passed_to_another_process_are_none_of_ours,
    sockets_passed_to_nobody_by_name_are_taken_if_they_are_bound,
    what_was_passed_to_nobody_and_is_no_bound_socket_is_left_with_a_warning,
    a_count_of_sockets_that_are_not_there_is_no_harm,
    promise_10_a_count_of_sockets_that_is_no_number_is_ignored_with_a_warning,
];

/// Starts the service as systemd does, with these sockets as descriptors 3 and 4.
fn activated(setup: Setup, names: &str, sockets: [&TcpListener; 2]) -> Setup {
    let duplicate = |socket: &TcpListener| socket.try_clone().expect("a descriptor");
    setup
        .stdin(duplicate(sockets[0]))
        .stdout(duplicate(sockets[1]))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_PIDFDID", "4711")
        .env("LISTEN_FDNAMES", names)
        .shell("exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=${AS_PID:-$$}; exec \"$0\"")
}

fn two_listeners() -> [TcpListener; 2] {
    // systemd's are blocking.
    [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a listener"))
}

fn inode(listener: &TcpListener) -> u64 {
    nix::sys::stat::fstat(listener).expect("a socket").st_ino
}

fn is_at(process: &Process, number: i32, listener: &TcpListener) -> bool {
    let wanted = (number, format!("socket:[{}]", inode(listener)));
    procfs::descriptors(process.pid).contains(&wanted)
}

fn expect_unset(process: &Process) {
    for name in ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        assert_eq!(process.says(&format!("variable {name}")), "unset");
    }
}

fn passed_sockets_are_inherited_by_name() {
    let listeners = two_listeners();
    let address = listeners[1].local_addr().expect("an address");
    let setup = Setup::new().set(Listen::To(tcp("web", address))).set(Listen::To(tcp("admin", "127.0.0.1:0")));
    let service = activated(setup, "admin:web", [&listeners[0], &listeners[1]]).start();
    let first = service.first();
    assert_eq!(service.address(), address);
    assert!(first.says("socket admin").contains(&format!("inode {} ", inode(&listeners[0]))));
    let [_, _] = listeners;
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(new.says("socket web"), first.says("socket web"));
        assert_eq!(new.says("socket admin"), first.says("socket admin"));
        expect_unset(&new);
        assert_eq!(service.connect().pid, new.pid);
    }
}

fn passed_sockets_of_one_name_are_told_apart_by_their_address() {
    let listeners = two_listeners();
    let address = listeners[1].local_addr().expect("an address");
    let setup = Setup::new().set(Listen::To(tcp("web", address)));
    let service = activated(setup, "web:web", [&listeners[0], &listeners[1]]).start();
    let line = service.first().says("socket web");
    assert!(line.contains(&format!("inode {} ", inode(&listeners[1]))), "{line}");
    let new = service.restart();
    assert_eq!(new.says("socket web"), line);
}

fn passed_sockets_are_made_non_blocking_once() {
    let listeners = two_listeners();
    let service = activated(Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0"))), "web:admin", [&listeners[0], &listeners[1]]).start();
    let line = service.first().says("socket web");
    let flags = i32::from_str_radix(line.split(' ').nth(3).expect("flags"), 8).expect("flags");
    assert_ne!(flags & libc::O_NONBLOCK, 0);
    assert!(line.ends_with("cloexec 1"), "{line}");
    assert_eq!(service.restart().says("socket web"), line);
}

fn untouched() -> (Service, [TcpListener; 2]) {
    let listeners = two_listeners();
    let service = activated(Setup::new().set(Listen::Nowhere), "web:admin", [&listeners[0], &listeners[1]]).start();
    (service, listeners)
}

fn passed_sockets_that_nobody_touches_stay_at_their_numbers() {
    let (service, listeners) = untouched();
    let first = service.first();
    assert!(is_at(&first, 3, &listeners[0]) && is_at(&first, 4, &listeners[1]));
    for _ in 0..3 {
        let new = service.restart();
        assert!(is_at(&new, 3, &listeners[0]) && is_at(&new, 4, &listeners[1]));
        assert_eq!(new.says("variable LISTEN_PID"), "auto");
        // It names another process, and would make the library of systemd take none.
        assert_eq!(new.says("variable LISTEN_PIDFDID"), "unset");
        assert_eq!(new.says("variable LISTEN_FDS"), "2");
        assert_eq!(new.says("variable LISTEN_FDNAMES"), "web:admin");
        let born = new.says("descriptors");
        assert!(born.starts_with("[0, 1, 2, 3, 4, ") && born.matches(',').count() == 5, "{born}");
    }
}

fn passed_sockets_stay_at_their_numbers_through_a_failed_restart() {
    let (service, listeners) = untouched();
    service.plan_next(at(Step::Born, Act::Exit(1)));
    service.fail_to_restart();
    let new = service.restart();
    assert!(is_at(&new, 3, &listeners[0]) && is_at(&new, 4, &listeners[1]));
}

fn the_environment_of_passed_sockets_is_put_right() {
    let (service, _listeners) = untouched();
    service.plan_next(at(Step::Born, Act::FixUpSystemdVariables).set(Listen::Nowhere));
    let new = service.restart();
    assert_eq!(new.did(&Act::FixUpSystemdVariables), new.pid.to_string());
    // And the next one is told `auto` again.
    assert_eq!(service.restart().says("variable LISTEN_PID"), "auto");
}

fn the_environment_is_left_alone_when_there_are_threads() {
    let (service, _listeners) = untouched();
    service.plan_next(at(Step::Born, Act::StartThread).at(Step::Born, Act::FixUpSystemdVariables).set(Listen::Nowhere));
    assert_eq!(service.restart().did(&Act::FixUpSystemdVariables), "auto");
}

fn the_environment_of_a_process_without_a_predecessor_is_left_alone() {
    // A helper has the variables of the successor that started it, and its descriptors are its own: one is closed here, one another.
    for lifeline in ["77:1:1", "4:1:1", ""] {
        let listeners = two_listeners();
        let setup = Setup::new().set(Listen::Nowhere).plan(at(Step::Born, Act::FixUpSystemdVariables)).env("POLLFLIP_LIFELINE", lifeline);
        let setup = activated(setup.env("AS_PID", "auto"), "web:admin", [&listeners[0], &listeners[1]]);
        let service = setup.start();
        assert_eq!(service.first().did(&Act::FixUpSystemdVariables), "auto", "{lifeline}");
    }
}

fn sockets_passed_to_another_process_are_none_of_ours() {
    let listeners = two_listeners();
    let address = listeners[0].local_addr().expect("an address");
    let setup = Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0"))).env("AS_PID", "1").set(Log::Told);
    let service = activated(setup, "web:admin", [&listeners[0], &listeners[1]]).start();
    let first = service.first();
    let line = first.says("socket web");
    assert!(!line.contains(&format!("inode {} ", inode(&listeners[0]))), "{line}");
    let warnings = first.said("log WARN");
    let told = format!("LISTEN_FDS=2, but LISTEN_PID=1 is another process than this one ({})", first.pid);
    assert!(warnings.len() == 1 && warnings[0].contains(&told), "{warnings:?}");
    // The one who binds the address afresh is told who has it.
    drop(listeners);
    let answer = first.ask(Act::Claim(tcp("again", address)));
    let holder = format!("this process has {address}, as descriptor 3, which has no name here");
    assert!(answer.contains(&holder) && answer.contains("LISTEN_FDS"), "{answer}");
    let new = service.restart();
    assert_eq!(new.says("socket web"), line);
    expect_unset(&new);
    assert!(new.said("log WARN").is_empty());
}

/// As a runner does it that has a shell between.
fn unaddressed(setup: Setup, sockets: [&TcpListener; 2], descriptors: &str) -> Setup {
    let shell = format!("exec 3<&0 4>&1 </dev/null >/dev/null {descriptors}; unset LISTEN_PID; exec \"$0\"");
    activated(setup.set(Log::Told), "web:admin", sockets).shell(&shell)
}

fn sockets_passed_to_nobody_by_name_are_taken_if_they_are_bound() {
    let listeners = two_listeners();
    let setup = Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0"))).set(Listen::To(tcp("admin", "127.0.0.1:0")));
    let service = unaddressed(setup, [&listeners[0], &listeners[1]], "").start();
    let first = service.first();
    let lines = ["web", "admin"].map(|name| first.says(&format!("socket {name}")));
    for (line, listener) in lines.iter().zip(&listeners) {
        assert!(line.contains(&format!("inode {} ", inode(listener))), "{line}");
    }
    service.plan_next(at(Step::Claimed, Act::Exit(1)));
    service.fail_to_restart();
    service.plan_next(at(Step::Claimed, Act::Raise(Signal::SIGKILL)));
    service.fail_to_restart();
    assert_eq!(service.connect().pid, first.pid);
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(["web", "admin"].map(|name| new.says(&format!("socket {name}"))), lines);
        expect_unset(&new);
        assert!(new.said("log WARN").is_empty());
    }
    assert!(first.said("log WARN").iter().all(|line| line.contains("restart")), "{:?}", first.said("log WARN"));
}

fn what_was_passed_to_nobody_and_is_no_bound_socket_is_left_with_a_warning() {
    let listeners = two_listeners();
    // A file, and nothing.
    for descriptors in ["4</dev/null", "4<&-"] {
        let setup = Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0")));
        let service = unaddressed(setup, [&listeners[0], &listeners[1]], descriptors).start();
        let first = service.first();
        let line = first.says("socket web");
        assert!(!line.contains(&format!("inode {} ", inode(&listeners[0]))), "{line}");
        let warnings = first.said("log WARN");
        let told = "LISTEN_FDS=2, but there is no LISTEN_PID, and descriptor 4 is no bound socket that was passed";
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{warnings:?}");
        assert_eq!(service.restart().says("socket web"), line);
    }
}

fn a_count_of_sockets_that_are_not_there_is_no_harm() {
    let listeners = two_listeners();
    let setup = Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0"))).env("AS_FDS", "1");
    let setup = activated(setup, "web:admin:more:and:more", [&listeners[0], &listeners[1]])
        .shell("exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=4000000000; exec \"$0\"");
    let service = setup.start();
    let line = service.first().says("socket web");
    assert!(line.contains(&format!("inode {} ", inode(&listeners[0]))), "{line}");
    assert_eq!(service.restart().says("socket web"), line);
}

fn promise_10_a_count_of_sockets_that_is_no_number_is_ignored_with_a_warning() {
    for count in ["-1", "99999999999999", " 1", "", "two"] {
        let listeners = two_listeners();
        let setup = Setup::new().set(Listen::To(tcp("web", "127.0.0.1:0"))).set(Log::Told).env("AS_FDS", count);
        let setup = activated(setup, "web:admin", [&listeners[0], &listeners[1]])
            .shell("exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=\"$AS_FDS\"; exec \"$0\"");
        let service = setup.start();
        let warning = service.first().says("log WARN");
        assert!(warning.starts_with(&format!("LISTEN_FDS={count:?} is no count of sockets: none is taken")), "{warning}");
        let line = service.first().says("socket web");
        assert!(!line.contains(&format!("inode {} ", inode(&listeners[0]))), "{line}");
        assert_eq!(service.restart().says("socket web"), line);
    }
}
