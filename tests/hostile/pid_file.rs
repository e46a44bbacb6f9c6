//! The pid file: whoever reads it, at whatever moment, finds a process that lives and is ready.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::service::clock;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Linger, Log, Step, at, ms, set};

pollflip_kit::trials![
    the_pid_file_names_a_live_and_ready_process_at_every_moment,
    the_pid_file_goes_with_the_last_process_alone,
    a_pid_file_with_the_longest_name_is_written,
    promise_10_nobody_else_may_write_to_the_pid_file_whatever_the_umask,
    a_pid_file_that_names_another_process_is_left_alone,
    a_pid_file_that_is_stale_is_written_over,
    a_pid_file_at_another_path_takes_the_place_of_the_old_one,
    a_pid_file_that_goes_by_another_name_stays,
    a_pid_file_that_may_not_be_written_is_no_end_of_the_service,
    a_pipe_in_the_place_of_the_pid_file_holds_nothing_up,
    a_link_to_a_file_without_end_is_not_read,
    a_pid_file_in_the_place_of_the_coordination_socket_is_an_error,
    a_failed_restart_leaves_the_pid_file,
    a_successor_whose_predecessor_dies_writes_the_pid_file,
];

fn start(setup: Setup) -> (Service, PathBuf) {
    let path = setup.path("pid");
    let service = setup.set(Config::PidFile(path.clone())).start();
    (service, path)
}

fn named(path: &Path) -> u32 {
    fs::read_to_string(path).expect("a pid file").trim().parse().expect("a number")
}

/// Reads it in a loop until it is told to stop. Returns how often it has read, and when it first saw each process.
fn read_on(path: PathBuf, over: &AtomicBool) -> (usize, HashMap<u32, u64>) {
    let mut seen = HashMap::new();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let text = fs::read_to_string(&path).expect("it is there at any moment");
        let now = clock();
        let pid: u32 = text.strip_suffix('\n').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("half a number: {text:?}"));
        // It may have been replaced and have ended since: then the file names another one.
        assert!(!procfs::has_ended(pid) || named(&path) != pid, "it names process {pid}, which has ended");
        seen.entry(pid).or_insert(now);
        count += 1;
    }
    (count, seen)
}

fn the_pid_file_names_a_live_and_ready_process_at_every_moment() {
    let (service, path) = start(Setup::new());
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (over, path) = (over.clone(), path.clone());
        thread::spawn(move || read_on(path, &over))
    };
    let mut generations = vec![service.first()];
    for _ in 0..30 {
        let new = service.restart();
        wait_until("the file to name the new one", || named(&path) == new.pid);
        generations.push(new);
    }
    over.store(true, Ordering::Relaxed);
    let (count, seen) = reader.join().expect("a reader");
    println!("the pid file was read {count} times over {} generations", generations.len());
    for process in &generations {
        let ready: u64 = process.says("begins-ready").parse().expect("a time");
        // The first wrote it before anybody read.
        let since = seen.get(&process.pid).copied().unwrap_or(u64::MAX);
        assert!(since > ready, "process {} was named before it was ready", process.pid);
    }
    assert!(seen.keys().all(|pid| generations.iter().any(|process| process.pid == *pid)), "{seen:?}");
}

fn the_pid_file_goes_with_the_last_process_alone() {
    let (service, path) = start(Setup::new().set(Linger));
    let (first, second) = (service.first(), service.restart());
    let third = service.restart();
    for process in [first, second] {
        assert_eq!(process.ask(Act::Drop), "dropped");
        assert_eq!(named(&path), third.pid);
    }
    assert_eq!(third.ask(Act::Drop), "dropped");
    assert!(!path.exists());
    let left: Vec<_> = fs::read_dir(service.path(".")).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("pid")), "{left:?}");
}

fn a_pid_file_with_the_longest_name_is_written() {
    let setup = Setup::new();
    let path = setup.path(&"p".repeat(255));
    let service = setup.set(Config::PidFile(path.clone())).start();
    wait_until("the file", || path.exists());
    assert_eq!(named(&path), service.first().pid);
    assert_eq!(service.first().ask(Act::Drop), "dropped");
    assert!(!path.exists());
}

/// Who stops the service by it, as root most likely, would end whatever process somebody else wants ended.
fn promise_10_nobody_else_may_write_to_the_pid_file_whatever_the_umask() {
    for (umask, expected) in [("0", 0o644), ("002", 0o644), ("077", 0o600)] {
        let setup = Setup::new();
        let path = setup.path("pid");
        let service = setup.set(Config::PidFile(path.clone())).shell(&format!("umask {umask} && exec \"$0\"")).start();
        let mode = || fs::metadata(&path).expect("a pid file").permissions().mode() & 0o7777;
        assert_eq!(mode(), expected, "umask {umask}");
        let new = service.restart();
        wait_until("the file to name the new one", || named(&path) == new.pid);
        assert_eq!(mode(), expected, "umask {umask}");
    }
}

fn a_pid_file_that_names_another_process_is_left_alone() {
    let (service, path) = start(Setup::new());
    fs::write(&path, "1\n").expect("a file");
    assert_eq!(service.first().ask(Act::Drop), "dropped");
    assert_eq!(named(&path), 1);
}

fn a_pid_file_that_is_stale_is_written_over() {
    let setup = Setup::new();
    fs::write(setup.path("pid"), "no number").expect("a file");
    // What a dead one left half done is no obstacle.
    fs::write(setup.path(".pid.pollflip-new"), "12").expect("a file");
    let (service, path) = start(setup);
    wait_until("the file to name the service", || named(&path) == service.first().pid);
    assert!(fs::symlink_metadata(service.path(".pid.pollflip-new")).is_err());
}

fn a_pid_file_at_another_path_takes_the_place_of_the_old_one() {
    let (service, path) = start(Setup::new());
    let other = service.path("other");
    service.plan_next(set(Config::PidFile(other.clone())));
    let second = service.restart();
    wait_until("the new file", || other.exists() && !path.exists());
    assert_eq!(named(&other), second.pid);
    // And back again.
    let third = service.restart();
    wait_until("the first path again", || path.exists() && !other.exists());
    assert_eq!(named(&path), third.pid);
}

fn a_pid_file_that_goes_by_another_name_stays() {
    let setup = Setup::new();
    // As `/var/run` is a name of `/run`.
    std::os::unix::fs::symlink(".", setup.path("run")).expect("a link");
    let (service, path) = start(setup);
    service.plan_next(set(Config::PidFile(service.path("run/pid"))));
    let second = service.restart();
    second.says("event Committed");
    assert_eq!(named(&path), second.pid);
}

fn is_pipe(path: &Path) -> bool {
    fs::symlink_metadata(path).expect("a pipe").file_type().is_fifo()
}

/// The kernel kills who makes a file larger than it may.
fn a_pid_file_that_may_not_be_written_is_no_end_of_the_service() {
    let (service, path) = start(Setup::new().shell("ulimit -f 0 && exec \"$0\""));
    let first = service.first();
    let second = service.restart();
    first.ends();
    assert_eq!(service.connect().pid, second.pid);
    service.restart();
    assert!(!path.exists());
}

fn a_pipe_in_the_place_of_the_pid_file_holds_nothing_up() {
    // There before the service is ready, when it commits, and when the last process goes.
    let setup = Setup::new();
    let path = setup.path("pid");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let (service, path) = start(setup.set(Log::Told));
    let warning = service.first().says("log WARN cannot write the pid file");
    assert!(warning.contains("something that is no regular file is there; it is left alone: move it away"), "{warning}");
    let second = service.restart();
    assert!(is_pipe(&path), "it is somebody's");
    fs::remove_file(&path).expect("the pipe");
    let third = service.restart();
    wait_until("the file to name the third", || fs::read_to_string(&path).is_ok_and(|text| text == format!("{}\n", third.pid)));
    // It looks whether it is named when it hears that the restart is final, and not after that.
    third.says("event Committed");
    second.ends();
    fs::remove_file(&path).expect("the file");
    mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let fourth = service.restart();
    third.ends();
    assert_eq!(service.connect().pid, fourth.pid);
    assert_eq!(fourth.ask(Act::Drop), "dropped");
    assert!(is_pipe(&path), "it is somebody's");
}

fn a_link_to_a_file_without_end_is_not_read() {
    let setup = Setup::new();
    std::os::unix::fs::symlink("/dev/zero", setup.path("pid")).expect("a link");
    let (service, path) = start(setup);
    wait_until("the file to name the service", || named(&path) == service.first().pid);
    assert!(fs::symlink_metadata(&path).expect("a file").is_file());
}

fn a_pid_file_in_the_place_of_the_coordination_socket_is_an_error() {
    const OVER: &str = "would be written over the coordination socket";
    const BESIDE: &str = "would take a name that is needed to make the coordination socket";
    let pairs = [
        ("same", "same", OVER),
        ("./same", "same", OVER),
        ("pid", ".pid.pollflip-new", OVER),
        ("sock.new", "sock", BESIDE),
        ("./sock.new", "sock", BESIDE),
        (".sock.pollflip-lock", "sock", BESIDE),
    ];
    for (file, socket, why) in pairs {
        let setup = Setup::new();
        let (file, socket) = (setup.path(file), setup.path(socket));
        let service = setup.set(Config::PidFile(file.clone())).set(Config::Socket(socket.clone())).launch();
        let error = service.first().says("build-error");
        assert!(error.contains(why) && error.contains("give it another path"), "{error}");
        service.first().ends();
        assert!(!socket.exists() && !file.exists());
    }
    // The other way to write the same path is seen only when it is there: it is no file, and left alone.
    let setup = Setup::new();
    let file = setup.path("other");
    std::os::unix::fs::symlink(setup.path("."), &file).expect("a link");
    let service = setup.set(Config::PidFile(file.join("restart.sock"))).start();
    service.restart();
    assert!(fs::symlink_metadata(service.socket()).expect("the socket").file_type().is_socket());
}

fn a_failed_restart_leaves_the_pid_file() {
    let (service, path) = start(Setup::new().set(Config::Probation(ms(60000))));
    let first = service.first();
    // At any step: before it is ready, while it gets ready, on probation.
    for plan in [at(Step::Born, Act::Exit(3)), at(Step::Built, Act::Exit(4)), at(Step::Granted, Act::Exit(5))] {
        service.plan_next(plan);
        service.fail_to_restart();
        assert_eq!(named(&path), first.pid);
    }
}

fn a_successor_whose_predecessor_dies_writes_the_pid_file() {
    let (service, path) = start(Setup::new());
    let first = service.first();
    service.plan_next(at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    let second = service.hub.nth(1);
    second.says("waits");
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.ends();
    asker.join().expect("a thread").expect_err("the old process died");
    second.go();
    second.says("serving");
    wait_until("the file to name the successor", || named(&path) == second.pid);
}
