//! Promise 10 for what a process finds when it starts, its configuration included; and what a successor is born with.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::Process;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Linger, Step, at, ms};

pollflip_kit::trials![
    promise_10_a_lifeline_variable_of_garbage_is_ignored,
    promise_10_a_lifeline_variable_that_names_a_closed_descriptor_is_ignored,
    promise_10_a_lifeline_variable_with_another_identity_is_ignored,
    promise_10_a_lifeline_variable_that_names_another_kind_of_socket_is_ignored,
    promise_10_a_lifeline_variable_that_names_a_regular_file_is_ignored,
    promise_10_a_birth_variable_that_belongs_to_no_lifeline_of_this_process_is_ignored,
    promise_10_a_lifeline_of_somebody_who_hangs_up_is_an_error_that_says_so,
    promise_10_a_configuration_that_makes_no_sense_is_an_error,
    promise_10_descriptors_that_the_variable_does_not_name_are_left_alone,
    promise_12_nothing_is_printed,
    a_successor_is_born_with_its_lifeline_and_nothing_else,
    a_helper_that_inherits_the_variable_is_no_successor,
];

/// A service that finds something in its environment, is a first generation in spite of it, and can be restarted.
fn ignores(setup: Setup) {
    let service = setup.start();
    assert_eq!(service.first().says("built"), "generation 0 predecessor none");
    assert_eq!(service.restart().says("built"), format!("generation 1 predecessor {}", service.first().pid));
}

fn promise_10_a_lifeline_variable_of_garbage_is_ignored() {
    for garbage in ["", "x", ":::", "3", "3:1", "-1:0:0", "99999999999999999999:1:1", "3:1:1:1", "\u{1F980}", "0:0:0"] {
        ignores(Setup::new().env("POLLFLIP_LIFELINE", garbage));
    }
}

fn promise_10_a_lifeline_variable_that_names_a_closed_descriptor_is_ignored() {
    ignores(Setup::new().env("POLLFLIP_LIFELINE", "77:1:1"));
}

fn promise_10_a_birth_variable_that_belongs_to_no_lifeline_of_this_process_is_ignored() {
    let stale = "1:1,open=100000000,inherited=1000,oom_score_adj=500,program=1:1";
    for text in ["", "x", "1:1", "1:1,", "1:1,open=-1", "1:1,oom_score_adj=99999", stale] {
        ignores(Setup::new().env("POLLFLIP_BIRTH", text));
    }
    // A release that does not know the variable hands it down as it is.
    let score = |pid| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a process").trim().to_owned();
    let service = Setup::new().env("POLLFLIP_BIRTH", stale).set(Config::Probation(ms(120000))).start();
    let before = score(service.first().pid);
    service.plan_next(at(Step::Born, Act::SetVariable("POLLFLIP_BIRTH".into(), stale.into())));
    assert_eq!(service.first().ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("serving");
    service.first().says("event HandedOff");
    let named = procfs::environment(new.pid).into_iter().filter(|line| line.starts_with("POLLFLIP_BIRTH=")).collect::<Vec<_>>();
    assert!(named.len() == 1 && !named[0].contains("oom_score_adj=500"), "{named:?}");
    service.first().ask(Act::Stop);
    service.first().says("event Completed");
    new.says("event Committed");
    assert_eq!(score(new.pid), before);
}

/// Passes a descriptor as number 9, and names it in the variable.
fn named(fd: OwnedFd) -> Setup {
    let stat = nix::sys::stat::fstat(&fd).expect("a descriptor");
    let variable = format!("9:{}:{}", stat.st_dev, stat.st_ino);
    Setup::new().stdin(fd).env("POLLFLIP_LIFELINE", variable).shell("exec 9<&0 </dev/null; exec \"$0\"")
}

fn seqpackets() -> (OwnedFd, OwnedFd) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair")
}

fn promise_10_a_lifeline_variable_with_another_identity_is_ignored() {
    let (fd, _other) = seqpackets();
    ignores(named(fd).env("POLLFLIP_LIFELINE", "9:8:7"));
}

fn promise_10_a_lifeline_variable_that_names_another_kind_of_socket_is_ignored() {
    let (fd, _other) = UnixStream::pair().expect("a pair");
    ignores(named(fd.into()));
}

fn promise_10_a_lifeline_variable_that_names_a_regular_file_is_ignored() {
    ignores(named(tempfile::tempfile().expect("a file").into()));
}

fn promise_10_a_lifeline_of_somebody_who_hangs_up_is_an_error_that_says_so() {
    let (fd, other) = seqpackets();
    drop(other);
    let service = named(fd).launch();
    let error = service.first().says("build-error");
    assert!(error.contains("the lifeline cannot be used: the predecessor closed it before it had said who it is"), "{error}");

    let (fd, other) = seqpackets();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&other);
    nix::sys::socket::send(raw, b"HTTP/1.1 200 OK", nix::sys::socket::MsgFlags::empty()).expect("a packet");
    let service = named(fd).launch();
    let error = service.first().says("build-error");
    assert!(error.contains("the lifeline cannot be used: the predecessor broke the protocol"), "{error}");
}

fn promise_10_a_configuration_that_makes_no_sense_is_an_error() {
    let env = |name: &str, value: &str| Config::Env(name.into(), value.into());
    for (setting, words) in [
        (Config::Signal(Some(9)), "signal 9 cannot be the restart signal"),
        (Config::Signal(Some(19)), "signal 19 cannot be the restart signal"),
        (Config::Signal(Some(0)), "signal 0 cannot be the restart signal"),
        (Config::Signal(Some(-3)), "signal -3 cannot be the restart signal"),
        (Config::Signal(Some(4000)), "signal 4000 cannot be the restart signal"),
        (env("", "x"), "cannot be the name of an environment variable"),
        (env("POLLFLIP_LIFELINE", "x"), "\"POLLFLIP_LIFELINE\" cannot be set for a successor: it is about one process"),
        (env("LISTEN_FDS", "1"), "\"LISTEN_FDS\" cannot be set for a successor: it is about one process"),
    ] {
        let service = Setup::new().set(setting.clone()).launch();
        let error = service.first().says("build-error");
        assert!(error.contains(words), "{setting:?}: {error}");
    }
    // To leave one out is what happens anyway.
    Setup::new().set(Config::EnvRemove("POLLFLIP_LIFELINE".into())).start().restart();
}

fn promise_10_descriptors_that_the_variable_does_not_name_are_left_alone() {
    let (fd, other) = UnixStream::pair().expect("a pair");
    let inode = nix::sys::stat::fstat(&fd).expect("a socket").st_ino;
    let service = named(fd.into()).start();
    let expected = (9, format!("socket:[{inode}]"));
    assert!(procfs::descriptors(service.first().pid).contains(&expected));
    drop(other);
}

fn promise_12_nothing_is_printed() {
    // With all that goes wrong, which goes to `log`: dropping the service checks its standard output and error.
    let service = Setup::new().env("RUST_LOG", "trace").set(Config::Probation(ms(120000))).start();
    for plan in [
        at(Step::Born, Act::Exit(1)),
        at(Step::Built, Act::Refuse("no".into())),
        at(Step::Born, Act::CloseLifeline).at(Step::Born, Act::Hang),
        at(Step::Built, Act::Panic),
        at(Step::Granted, Act::Exit(1)),
    ] {
        service.plan_next(plan);
        service.fail_to_restart();
    }
    let old = service.first();
    let asker = service.restart_meanwhile();
    old.says_again("event HandedOff", 1);
    old.ask(Act::Stop);
    asker.join().expect("a thread").expect("a restart");
    old.ends();
}

/// The numbers that a process was born with.
fn birth(process: &Process) -> (String, i32) {
    let lifeline = process.says("lifeline").split(':').next().and_then(|number| number.parse().ok()).unwrap_or(-1);
    (process.says("descriptors"), lifeline)
}

fn a_successor_is_born_with_its_lifeline_and_nothing_else() {
    let service = Setup::new().set(Linger).start();
    let mut connections = vec![service.connect()];
    for _ in 0..4 {
        let new = service.restart();
        let (descriptors, lifeline) = birth(&new);
        assert!(lifeline > 2);
        assert_eq!(descriptors, format!("[0, 1, 2, {lifeline}]"));
        connections.push(service.connect());
    }
    // A failed one in between, and a signal instead of the socket.
    service.plan_next(at(Step::Born, Act::Exit(1)));
    service.fail_to_restart();
    let (descriptors, lifeline) = birth(&service.hub.nth(5));
    assert_eq!(descriptors, format!("[0, 1, 2, {lifeline}]"));
}

fn a_helper_that_inherits_the_variable_is_no_successor() {
    let service = Service::start();
    let second = service.restart();
    // The lifeline is CLOEXEC again, and its number is free or something else in the helper.
    let helper = second.ask(Act::StartHelper("exec sleep 1000".into()));
    let helper: u32 = helper.parse().expect("a pid");
    pollflip_kit::hub::wait_until("the helper with its environment", || {
        procfs::status(helper, "Name").as_deref() == Some("sleep")
            && procfs::variable_names(helper).contains(&"POLLFLIP_LIFELINE".to_owned())
    });
    // The loader of programs opens a library at a time, and closes it; what was inherited would stay.
    pollflip_kit::hub::wait_until("a helper that has inherited nothing", || {
        procfs::descriptors(helper).iter().all(|(number, _)| *number <= 2)
    });
    service.restart();
}
