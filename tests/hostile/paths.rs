//! Promise 10 for paths in directories where others may write: what they put there is neither changed nor removed, whenever they put it
//! there. A debugger stops the service between its look and its act.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use pollflip::restart_coordination_socket::request_status;

use crate::confine::{Confine, NOBODY};
use crate::is_root;
use crate::service::{COORDINATION, GivePath, HUB};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_for, wait_until};
use pollflip_kit::service::{Act, Config, Log, Step, at, set};
use pollflip_kit::surroundings::stale_socket;

pollflip_kit::trials![
    promise_10_the_lock_of_a_wrapper_is_that_wrappers,
    promise_10_a_lock_file_that_was_there_stays,
    promise_10_another_users_socket_beside_the_path_is_left_alone,
    promise_10_what_others_put_beside_the_pid_file_is_left_alone,
    promise_10_a_path_of_the_user_that_the_service_was_is_left_alone_by_the_user_that_it_is,
    promise_10_the_coordination_socket_is_private_from_birth_and_no_mode_is_set_by_path,
    promise_10_a_link_in_the_place_of_the_new_socket_has_its_target_left_alone,
    promise_10_a_file_that_comes_to_the_path_while_the_socket_is_made_is_left_alone,
    promise_10_a_directory_in_the_place_of_the_pid_files_is_left_alone,
    promise_10_a_directory_in_the_place_of_the_sockets_is_left_alone,
];

fn promise_10_the_lock_of_a_wrapper_is_that_wrappers() {
    let setup = Setup::new();
    let path = setup.path("restart.sock.lock");
    // As `flock restart.sock.lock program` does.
    let file = File::create(&path).expect("a file");
    let inode = file.metadata().expect("a file").ino();
    let _held = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("a lock");
    let service = setup.start();
    service.restart();
    assert_eq!(fs::metadata(&path).expect("the lock").ino(), inode);
}

fn promise_10_a_lock_file_that_was_there_stays() {
    for name in ["restart.sock.lock", ".restart.sock.pollflip-lock"] {
        let setup = Setup::new();
        let path = setup.path(name);
        let inode = File::create(&path).and_then(|file| file.metadata()).expect("a file").ino();
        let service = setup.start();
        assert_eq!(fs::metadata(&path).expect("the lock").ino(), inode);
        assert_eq!(service.first().ask(Act::Drop), "dropped");
        assert_eq!(fs::metadata(&path).expect("the lock").ino(), inode);
    }
}

fn promise_10_another_users_socket_beside_the_path_is_left_alone() {
    if !is_root("the one of another user's socket") {
        return;
    }
    let setup = Setup::new();
    let beside = setup.path("restart.sock.new");
    stale_socket(&beside);
    chown(&beside, Some(NOBODY), None).expect("another owner");
    let inode = fs::symlink_metadata(&beside).expect("a socket").ino();
    let service = setup.launch();
    let error = service.first().says("build-error");
    assert!(error.contains("another user's socket is there; it is left alone: move it away"), "{error}");
    assert_eq!(fs::symlink_metadata(&beside).expect("a socket").ino(), inode);
    service.first().ends();
}

fn promise_10_what_others_put_beside_the_pid_file_is_left_alone() {
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    // A name that anybody may choose for something of their own.
    let setup = Setup::new();
    let (path, beside) = (setup.path("pid"), setup.path("pid.new"));
    fs::write(&beside, "precious").expect("a file");
    let service = setup.set(Config::PidFile(path.clone())).start();
    wait_until("the pid file", || path.exists());
    assert_eq!(fs::read_to_string(&beside).expect("a file"), "precious");
    drop(service);

    // One that nobody chooses; it may be there all the same.
    let target = "precious";
    for what in ["link", "text", "second name", "another user's"] {
        if what == "another user's" && !is_root("the one of another user's file") {
            continue;
        }
        let setup = Setup::new();
        let (path, keep, temporary) = (setup.path("pid"), setup.path("keep"), setup.path(".pid.pollflip-new"));
        match what {
            "link" => {
                fs::write(&keep, target).expect("a file");
                symlink(&keep, &temporary).expect("a link");
            }
            "text" => fs::write(&temporary, target).expect("a file"),
            "second name" => {
                fs::write(&keep, "12\n").expect("a file");
                fs::hard_link(&keep, &temporary).expect("a second name");
            }
            _ => {
                fs::write(&temporary, "12\n").expect("a file");
                chown(&temporary, Some(NOBODY), None).expect("another owner");
            }
        }
        let inode = fs::symlink_metadata(&temporary).expect("a file").ino();
        let service = setup.set(Config::PidFile(path.clone())).set(Log::Told).start();
        let warning = service.first().says("log WARN cannot write the pid file");
        assert!(warning.contains("the name under which it is made is taken: .pid.pollflip-new: "), "{what}: {warning}");
        assert_eq!(fs::symlink_metadata(&temporary).expect("a file").ino(), inode, "{what}");
        assert!(!is_there(&path), "{what}");
        if what == "link" {
            assert_eq!(fs::read_to_string(&keep).expect("a file"), target);
        }
    }
}

fn promise_10_a_path_of_the_user_that_the_service_was_is_left_alone_by_the_user_that_it_is() {
    if !is_root("the one of a service that has become another user") {
        return;
    }
    for is_given in [false, true] {
        let mut setup = Setup::new().set(Confine::Setuid);
        // Its new user may remove what is there, whosever it is.
        chown(setup.path("."), Some(NOBODY), Some(NOBODY)).expect("another owner");
        if is_given {
            setup = setup.set(GivePath(Some(NOBODY)));
        }
        let service = setup.start();
        fs::set_permissions(service.path(HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
        let other = service.path("other.sock");
        // The path that it gave away is the first one's, and is there no more when the next looks for it.
        service.plan_next(set(Config::Socket(other.clone())).set(GivePath(None)));
        let new = service.restart();
        new.says("event Committed");
        assert_eq!(request_status(&other, DEADLINE).expect("a status").pid, new.pid);
        let has_gone = || !service.socket().exists();
        if is_given {
            wait_until("the old path to go", has_gone);
        } else {
            new.ask(Act::Turns);
            assert!(!has_gone(), "it belongs to root");
        }
    }
}

fn promise_10_the_coordination_socket_is_private_from_birth_and_no_mode_is_set_by_path() {
    let setup = Setup::new();
    let watched = setup.path("watched");
    fs::create_dir(&watched).expect("a directory");
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(&watched, flags).expect("a watch");
    let path = watched.join("restart.sock");
    let service = setup.set(Config::Socket(path.clone())).shell("umask 0 && exec \"$0\"").start();
    let events = inotify.read_events().expect("events");
    let of =
        |flag, name: &str| events.iter().filter(|event| event.mask.contains(flag) && event.name.as_deref() == Some(name.as_ref())).count();
    assert_eq!(of(AddWatchFlags::IN_CREATE, "restart.sock.new"), 1, "{events:?}");
    assert_eq!(of(AddWatchFlags::IN_MOVED_TO, "restart.sock"), 1, "{events:?}");
    for name in ["restart.sock.new", "restart.sock"] {
        assert_eq!(of(AddWatchFlags::IN_ATTRIB, name), 0, "{events:?}");
    }
    assert_eq!(fs::symlink_metadata(&path).expect("a socket").mode() & 0o777, 0o600);
    drop(service);
}

/// A service that is stopped before it is built, and what stops it.
#[cfg(target_arch = "x86_64")]
fn stopped_at_birth(setup: Setup, test: &str) -> Option<(Service, pollflip_kit::debugger::Stopped)> {
    let service = setup.plan(at(Step::Born, Act::Wait)).launch();
    let process = service.first();
    process.says("waits");
    let thread = pollflip_kit::debugger::Stopped::new(process.pid, test)?;
    process.go();
    Some((service, thread))
}

/// Why it could not be built, if it could not.
#[cfg(target_arch = "x86_64")]
fn build_error(service: &Service) -> String {
    let process = service.first();
    wait_for("an outcome", || process.said("build-error").pop().or_else(|| process.said("serving").pop().map(|_| "it serves".into())))
}

fn promise_10_a_link_in_the_place_of_the_new_socket_has_its_target_left_alone() {
    #[cfg(target_arch = "x86_64")]
    // Once it is bound, and once it listens, which is after all else that is done with the file but the last move.
    for call in [libc::SYS_bind, libc::SYS_listen] {
        let setup = Setup::new();
        let (keep, path) = (setup.path("precious"), setup.path("restart.sock.new"));
        fs::write(&keep, "precious").expect("a file");
        fs::set_permissions(&keep, fs::Permissions::from_mode(0o644)).expect("a mode");
        let Some((service, thread)) = stopped_at_birth(setup, "the one of a link in the place of the socket") else { return };
        thread.go_on_until(call);
        thread.end_call();
        fs::remove_file(&path).expect("the new socket");
        symlink(&keep, &path).expect("a link");
        drop(thread);
        let error = build_error(&service);
        let found = fs::metadata(&keep).expect("the file");
        assert_eq!((found.mode() & 0o777, fs::read_to_string(&keep).expect("the file").as_str()), (0o644, "precious"));
        assert!(error.contains("another file was put in its place"), "{error}");
        service.first().ends();
    }
}

fn promise_10_a_file_that_comes_to_the_path_while_the_socket_is_made_is_left_alone() {
    #[cfg(target_arch = "x86_64")]
    for was_stale in [false, true] {
        let setup = Setup::new();
        let path = setup.path("restart.sock");
        if was_stale {
            stale_socket(&path);
        }
        let Some((service, thread)) = stopped_at_birth(setup, "the one of a file that comes to the path") else { return };
        thread.go_on_until(libc::SYS_listen);
        thread.end_call();
        // It can be there no longer, or never have been.
        let _ = fs::remove_file(&path);
        fs::write(&path, "precious").expect("a file");
        drop(thread);
        let error = build_error(&service);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("precious"), "{error}");
        assert!(error.contains("something was put there just now; it is left alone"), "{error}");
        assert!(!service.path("restart.sock.new").exists());
        service.first().ends();
    }
}

/// Another directory takes the place of the one in which the service has its file, while the service is about to remove that. Returns what
/// has become of the two.
#[cfg(target_arch = "x86_64")]
fn swap_while_removed(setting: fn(PathBuf) -> Config, name: &str, test: &str, in_place: impl Fn(&Path)) -> Option<(bool, bool)> {
    let setup = Setup::new();
    let directory = setup.path("directory");
    fs::create_dir(&directory).expect("a directory");
    // The last word on the socket counts.
    let service = setup.set(Config::NoSocket).set(setting(directory.join(name))).start();
    let process = service.first();
    let (moved, other) = (service.path("moved"), service.path("other"));
    wait_until("the file", || fs::symlink_metadata(directory.join(name)).is_ok());
    fs::create_dir(&other).expect("a directory");
    in_place(&other.join(name));
    let thread = pollflip_kit::debugger::Stopped::new(process.pid, test)?;
    process.tell(Act::Drop);
    loop {
        let call = thread.next_call().expect("a living thread").number();
        if call == libc::SYS_unlink || call == libc::SYS_unlinkat {
            break;
        }
    }
    fs::rename(&directory, &moved).expect("the directory");
    symlink(&other, &directory).expect("a link");
    drop(thread);
    assert_eq!(process.says("answer"), "dropped");
    let is_there = |directory: &PathBuf| fs::symlink_metadata(directory.join(name)).is_ok();
    Some((is_there(&moved), is_there(&other)))
}

fn promise_10_a_directory_in_the_place_of_the_pid_files_is_left_alone() {
    #[cfg(target_arch = "x86_64")]
    if let Some(there) = swap_while_removed(Config::PidFile, "pid", "the one of a directory in the place of another", |path| {
        fs::write(path, "precious").expect("a file");
    }) {
        assert_eq!(there, (false, true));
    }
}

fn promise_10_a_directory_in_the_place_of_the_sockets_is_left_alone() {
    #[cfg(target_arch = "x86_64")]
    if let Some(there) = swap_while_removed(Config::Socket, COORDINATION, "the one of a directory in the place of another", stale_socket) {
        assert_eq!(there, (false, true));
    }
}
