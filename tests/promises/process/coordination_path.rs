//! Promise 10 for the path of the coordination socket: what somebody serves, or what is no socket, is left alone.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::DEADLINE;
use pollflip_kit::service::{Act, Config, GoTo, Listen, RunAs, Step, at, set};
use pollflip_kit::surroundings::{directory, stale_socket};

pollflip_kit::trials![
    promise_10_a_regular_file_at_the_path_is_left_alone,
    promise_10_a_directory_at_the_path_is_left_alone,
    promise_10_a_symbolic_link_at_the_path_is_left_alone,
    promise_10_a_lock_that_is_no_file_is_left_alone,
    promise_10_files_of_others_beside_the_path_are_left_alone,
    promise_10_a_path_that_is_too_long_is_an_error,
    promise_10_a_live_server_keeps_its_path,
    promise_10_a_path_in_a_directory_that_is_missing_is_an_error,
    promise_10_a_path_in_a_directory_without_the_right_to_write_is_an_error,
    promise_10_a_stale_socket_is_replaced,
    promise_10_what_a_dead_server_left_half_done_is_no_obstacle,
    promise_10_of_two_servers_at_the_same_instant_exactly_one_wins,
    promise_10_the_socket_is_for_its_user_alone,
    promise_10_another_user_is_refused,
    the_user_nobody_is_told_why_it_may_not_ask,
    promise_10_a_path_that_somebody_replaced_is_not_removed,
    promise_10_a_relative_path_is_that_of_the_build,
];

/// A service that cannot be built because of its path; returns why.
fn build_error(setup: Setup, path: &Path) -> String {
    let service = setup.set(Config::Socket(path.into())).launch();
    let error = service.first().says("build-error");
    assert!(error.starts_with(&format!("cannot bind the coordination socket {}: ", path.display())), "{error}");
    let left = fs::read_dir(service.path(".")).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with("-lock") || name.to_string_lossy().ends_with(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
    service.first().ends();
    error
}

fn promise_10_a_regular_file_at_the_path_is_left_alone() {
    let setup = Setup::new();
    let keep = directory();
    let path = keep.path().join("file");
    fs::write(&path, "precious").expect("a file");
    let error = build_error(setup, &path);
    assert!(error.contains("something that is no socket is there; it is left alone"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
}

fn promise_10_a_directory_at_the_path_is_left_alone() {
    let keep = directory();
    let path = keep.path().join("directory");
    fs::create_dir(&path).expect("a directory");
    let error = build_error(Setup::new(), &path);
    assert!(error.contains("something that is no socket is there"), "{error}");
    assert!(path.is_dir());
}

fn promise_10_a_symbolic_link_at_the_path_is_left_alone() {
    let keep = directory();
    let (path, target) = (keep.path().join("link"), keep.path().join("target"));
    for exists in [false, true] {
        if exists {
            stale_socket(&target);
        }
        symlink(&target, &path).expect("a link");
        let error = build_error(Setup::new(), &path);
        assert!(error.contains("something that is no socket is there"), "{error}");
        assert_eq!(fs::read_link(&path).expect("the link"), target);
        assert_eq!(target.exists(), exists);
        fs::remove_file(&path).expect("the link");
    }
}

fn promise_10_a_lock_that_is_no_file_is_left_alone() {
    let keep = directory();
    let (path, lock) = (keep.path().join("restart.sock"), keep.path().join(".restart.sock.pollflip-lock"));
    let expect_left_alone = || {
        let inode = fs::symlink_metadata(&lock).expect("a lock").ino();
        let error = build_error(Setup::new(), &path);
        assert!(error.contains("cannot use the lock file") && error.contains("it is no regular file, and left alone"), "{error}");
        assert_eq!(fs::symlink_metadata(&lock).expect("it is still there").ino(), inode);
    };
    mkfifo(&lock, Mode::S_IRWXU).expect("a pipe");
    expect_left_alone();
    // One that somebody reads from can be opened.
    let _reader = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&lock).expect("a reader");
    expect_left_alone();
    fs::remove_file(&lock).expect("the pipe");
    symlink(keep.path().join("target"), &lock).expect("a link");
    expect_left_alone();
}

fn promise_10_files_of_others_beside_the_path_are_left_alone() {
    // A file that was there before serves as the lock, and stays.
    let setup = Setup::new();
    let lock = setup.path(".restart.sock.pollflip-lock");
    fs::write(&lock, "precious").expect("a file");
    let service = setup.start();
    assert_eq!(fs::read_to_string(&lock).expect("the file"), "precious");
    service.restart();
    // Another service whose path is the one under which this one would make its own.
    let keep = directory();
    let (path, beside) = (keep.path().join("restart.sock"), keep.path().join("restart.sock.new"));
    let other = Setup::new().set(Config::Socket(beside.clone())).start();
    let service = Setup::new().set(Config::Socket(path.clone())).launch();
    let error = service.first().says("build-error");
    assert!(error.contains(&format!("{}: another process serves it", beside.display())), "{error}");
    let status = pollflip::restart_coordination_socket::request_status(&beside, DEADLINE).expect("a status");
    assert_eq!(status.pid, other.first().pid);
    drop(other);
    fs::remove_file(&beside).expect("what the killed one left");
    fs::write(&beside, "precious").expect("a file");
    let service = Setup::new().set(Config::Socket(path.clone())).launch();
    let error = service.first().says("build-error");
    assert!(error.contains(&format!("{}: something that is no socket is there", beside.display())), "{error}");
    assert_eq!(fs::read_to_string(&beside).expect("the file"), "precious");
}

fn promise_10_a_path_that_is_too_long_is_an_error() {
    let setup = Setup::new();
    let path = setup.path(&"x".repeat(120));
    let error = build_error(setup, &path);
    assert!(error.contains(&format!("the path has {} bytes", path.as_os_str().len())), "{error}");
    // The longest that is allowed.
    let setup = Setup::new();
    let room = 103 - setup.path("").as_os_str().len();
    let path = setup.path(&"y".repeat(room));
    let service = setup.set(Config::Socket(path.clone())).start();
    assert!(UnixStream::connect(&path).is_ok());
    drop(service);
}

fn promise_10_a_live_server_keeps_its_path() {
    let service = Service::start();
    let path = service.socket();
    let error = build_error(Setup::new(), &path);
    assert!(error.contains("another process serves it"), "{error}");
    assert_eq!(service.status().pid, service.first().pid);
    // Also one that is no pollflip program, and one that does not accept.
    let keep = directory();
    let path = keep.path().join("other");
    let _listener = UnixListener::bind(&path).expect("a listener");
    let error = build_error(Setup::new(), &path);
    assert!(error.contains("another process serves it"), "{error}");
    service.restart();
}

fn promise_10_a_path_in_a_directory_that_is_missing_is_an_error() {
    let setup = Setup::new();
    let path = setup.path("missing/restart.sock");
    let error = build_error(setup, &path);
    assert!(error.contains("No such file or directory"), "{error}");
}

fn promise_10_a_path_in_a_directory_without_the_right_to_write_is_an_error() {
    let setup = Setup::new();
    let directory = setup.path("closed");
    fs::create_dir(&directory).expect("a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).expect("a mode");
    let path = directory.join("restart.sock");
    // Root may write everywhere, and becomes somebody else for this.
    let setup = if nix::unistd::geteuid().is_root() { setup.set(RunAs(65534)) } else { setup };
    let error = build_error(setup, &path);
    assert!(error.contains("ermission denied"), "{error}");
}

fn promise_10_a_stale_socket_is_replaced() {
    let setup = Setup::new();
    let path = setup.path("restart.sock");
    stale_socket(&path);
    let stale = fs::symlink_metadata(&path).expect("a socket").ino();
    let service = setup.start();
    assert_ne!(fs::symlink_metadata(&path).expect("a socket").ino(), stale);
    service.restart();
}

fn promise_10_what_a_dead_server_left_half_done_is_no_obstacle() {
    let setup = Setup::new();
    fs::write(setup.path(".restart.sock.pollflip-lock"), "").expect("a file");
    stale_socket(&setup.path("restart.sock.new"));
    let service = setup.start();
    service.restart();
    assert!(service.path(".restart.sock.pollflip-lock").exists(), "nobody can tell whose it is");
    assert!(!service.path("restart.sock.new").exists());
}

fn promise_10_of_two_servers_at_the_same_instant_exactly_one_wins() {
    let keep = directory();
    let path = keep.path().join("restart.sock");
    let competitor = || {
        // It starts with a socket of its own, lets go of it, and from then on wants the one that both want.
        let service = Setup::new().set(Listen::Nowhere).set(Config::Socket(path.clone())).plan(set(Config::NoSocket)).start();
        service.first().ask(Act::Drop);
        service.first().ask(Act::ForgetSetting);
        service
    };
    let both = [competitor(), competitor()];
    let processes = [both[0].first(), both[1].first()];
    for round in 0..50 {
        if round % 2 == 0 {
            stale_socket(&path);
        }
        let before = processes[0].said("answer").len();
        assert_eq!(processes[1].said("answer").len(), before);
        processes.iter().for_each(|process| process.tell(Act::Build));
        let answers = [0, 1].map(|index| processes[index].says_again("answer", before));
        let winners: Vec<_> = answers.iter().filter(|answer| *answer == "ok").collect();
        assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
        let loser = answers.iter().find(|answer| *answer != "ok").expect("a loser");
        assert!(loser.contains("another process serves it"), "round {round}: {loser}");
        processes.iter().for_each(|process| assert!(["dropped", "there was none"].contains(&process.ask(Act::Drop).as_str())));
        assert!(!path.exists(), "round {round}");
    }
    assert_eq!(fs::read_dir(keep.path()).expect("a directory").count(), 0);
}

fn promise_10_the_socket_is_for_its_user_alone() {
    let service = Service::start();
    let found = fs::symlink_metadata(service.socket()).expect("a socket");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    service.restart();
    assert_eq!(fs::symlink_metadata(service.socket()).expect("a socket").ino(), found.ino());
}

fn promise_10_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let service = Service::start();
    let path = service.socket();
    let ask = Act::StatusOf(path.clone());
    let stranger = || Setup::new().set(RunAs(12345)).set(Config::NoSocket).plan(at(Step::Built, ask.clone())).start();
    let answer = stranger().first().did(&ask);
    assert!(answer.contains("the path belongs to root: ask as root"), "{answer}");
    // Even if somebody opens the path to all.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
    let answer = stranger().first().did(&ask);
    assert!(answer.contains("restart refused: user 12345 may not ask; root and the user of the service may"), "{answer}");
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
}

fn the_user_nobody_is_told_why_it_may_not_ask() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let nobody = || Setup::new().set(RunAs(65534));
    let writable = nobody();
    let directory = writable.path("restart.sock").parent().expect("a directory").to_owned();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).expect("a mode");
    for (service, why) in [
        (Service::start(), "user 65534 may not ask; root and the user of the service may"),
        (writable.start(), "user 65534 may not ask, although the service runs as that user"),
    ] {
        fs::set_permissions(service.socket(), fs::Permissions::from_mode(0o666)).expect("a mode");
        let ask = Act::StatusOf(service.socket());
        let answer = nobody().set(Config::NoSocket).plan(at(Step::Built, ask.clone())).start().first().did(&ask);
        assert!(answer.contains(why), "{answer}");
        assert_eq!(service.status().state, pollflip::ServiceState::Serving, "root may");
    }
}

fn promise_10_a_path_that_somebody_replaced_is_not_removed() {
    let service = Service::start();
    fs::remove_file(service.socket()).expect("the socket");
    fs::write(service.socket(), "precious").expect("a file");
    assert_eq!(service.first().ask(Act::Drop), "dropped");
    assert_eq!(fs::read_to_string(service.socket()).expect("the file"), "precious");
}

fn promise_10_a_relative_path_is_that_of_the_build() {
    let setup = Setup::new();
    let directory = setup.path(".");
    let service = setup
        .env("WHERE", directory)
        .set(Config::Socket("restart.sock".into()))
        .set(GoTo("/".into()))
        .shell("cd \"$WHERE\" && exec \"$0\"")
        .start();
    service.restart();
    service.restart();
}
