//! Promise 10 for the path by which a program was started, where it may lead elsewhere by now:
//! relative, and the program has changed its directory; or a name that its caller gave it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pollflip::{Refusal, RequestError};

use crate::callers::{Call, Rights, Wish};
use crate::deploys::copy;
use crate::service::GoFirstTo;
use pollflip_kit::harness::{Service, Setup, install};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Log, Step, at};

pollflip_kit::trials![
    promise_10_a_relative_path_is_not_taken_for_a_file_of_that_name_in_another_directory,
    promise_10_a_relative_path_that_leads_nowhere_any_more_is_that_of_the_file_that_runs,
    promise_10_a_relative_path_to_a_file_that_was_deleted_forbids_restarts,
    promise_10_a_relative_path_to_a_file_that_was_replaced_forbids_restarts,
    promise_10_a_relative_path_in_the_same_directory_follows_a_switched_link,
    promise_10_a_relative_interpreter_is_not_taken_for_a_file_of_that_name_in_another_directory,
    promise_10_the_name_of_a_program_is_not_taken_for_it_when_a_script_has_replaced_it,
];

/// A directory for this program, `bin/server` in it, and another directory.
fn directories(setup: &Setup) -> [PathBuf; 2] {
    let root = setup.path(".").canonicalize().expect("a directory");
    copy(&root.join("home/bin/server"));
    fs::create_dir_all(root.join("away/bin")).expect("a directory");
    [root.join("home"), root.join("away")]
}

/// Started in the first directory by a relative path; then it goes to the second, before it builds
/// its restarter.
fn started(setup: Setup, [home, away]: &[PathBuf; 2]) -> Setup {
    setup.set(Log::Told).env("WHERE", home).set(GoFirstTo(away.clone())).shell("cd \"$WHERE\" && exec bin/server")
}

/// Two restarts, of the very file that runs.
fn goes_on(service: &Service, [home, away]: &[PathBuf; 2]) {
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(procfs::executable(new.pid), home.join("bin/server"));
        assert_eq!(Path::new(&new.says("directory")), away);
        assert_eq!(service.connect().pid, new.pid);
    }
    // The directory that it was started from is not known by the time at which it asks: a link there would not be followed.
    let told = service.first().said("log WARN");
    assert!(told.len() == 1 && told[0].contains("was started by a relative path, bin/server,"), "{told:?}");
}

fn promise_10_a_relative_path_is_not_taken_for_a_file_of_that_name_in_another_directory() {
    let setup = Setup::new();
    let directories = directories(&setup);
    copy(&directories[1].join("bin/server"));
    goes_on(&started(setup, &directories).start(), &directories);
}

fn promise_10_a_relative_path_that_leads_nowhere_any_more_is_that_of_the_file_that_runs() {
    let setup = Setup::new();
    let directories = directories(&setup);
    goes_on(&started(setup, &directories).start(), &directories);
}

/// Each asker is told why there is no restart, and what to do; nothing is started.
fn refuses(service: &Service) {
    let first = service.first();
    let refusal = Refusal::UnknownProgram.to_string();
    match service.try_restart() {
        Err(RequestError::Impossible(why)) => assert_eq!(why, refusal),
        other => panic!("the restart ended with {other:?}\n{}", service.hub.story()),
    }
    assert_eq!(first.ask(Act::Request), format!("UnknownProgram :: {refusal}"));
    assert_eq!(first.said("log WARN"), [format!("every restart of this process will be refused: {refusal}")]);
    assert_eq!(service.hub.pids(), [first.pid]);
    assert_eq!(service.connect().pid, first.pid);
}

fn promise_10_a_relative_path_to_a_file_that_was_deleted_forbids_restarts() {
    for is_another_there in [false, true] {
        let setup = Setup::new();
        let directories = directories(&setup);
        if is_another_there {
            copy(&directories[1].join("bin/server"));
        }
        let service = started(setup, &directories).plan(at(Step::Born, Act::Wait)).launch();
        let first = service.first();
        first.says("waits");
        fs::remove_file(directories[0].join("bin/server")).expect("a program");
        first.go();
        first.says("serving");
        refuses(&service);
    }
}

fn promise_10_a_relative_path_to_a_file_that_was_replaced_forbids_restarts() {
    let setup = Setup::new();
    let [home, _] = directories(&setup);
    // It stays where it is, and that cannot be known.
    let directories = [home.clone(), home.clone()];
    let service = started(setup, &directories).plan(at(Step::Born, Act::Wait)).launch();
    let first = service.first();
    first.says("waits");
    copy(&home.join("bin/next"));
    fs::rename(home.join("bin/next"), home.join("bin/server")).expect("a rename");
    first.go();
    first.says("serving");
    refuses(&service);
}

fn promise_10_a_relative_path_in_the_same_directory_follows_a_switched_link() {
    let setup = Setup::new();
    let root = setup.path(".").canonicalize().expect("a directory");
    (1..=3).for_each(|release| copy(&root.join(format!("releases/{release}/server"))));
    symlink("releases/1", root.join("current")).expect("a link");
    let service = setup.env("WHERE", &root).shell("cd \"$WHERE\" && exec ./current/server").start();
    for release in 2..=3 {
        symlink(format!("releases/{release}"), root.join("next")).expect("a link");
        fs::rename(root.join("next"), root.join("current")).expect("a rename");
        let new = service.restart();
        assert_eq!(procfs::executable(new.pid), root.join(format!("releases/{release}/server")));
    }
}

fn promise_10_a_relative_interpreter_is_not_taken_for_a_file_of_that_name_in_another_directory() {
    let setup = Setup::new();
    let directories = directories(&setup);
    copy(&directories[1].join("bin/server"));
    let script = setup.path("server.conf");
    install(&script, b"#!bin/server --config\n");
    let service = started(setup.program(script.clone()), &directories).shell("cd \"$WHERE\" && exec \"$0\"").start();
    let arguments = format!("bin/server --config {}", script.display());
    assert_eq!(service.first().says("arguments"), arguments);
    goes_on(&service, &directories);
    assert_eq!(service.hub.nth(2).says("arguments"), arguments);
}

fn promise_10_the_name_of_a_program_is_not_taken_for_it_when_a_script_has_replaced_it() {
    let Some(call) = Call::new("the one of a name that leads elsewhere", Rights::None) else { return };
    let (program, other, next) = (call.program(), call.path("other"), call.path("next-release"));
    copy(&other);
    // The service is another user's, who need not be able to enter the directories of this test program.
    let release = call.path("release");
    copy(&release);
    let service = call.wish(Wish::Name(other.clone())).with(|setup| setup.plan(at(Step::Born, Act::Wait))).launch();
    let first = service.first();
    first.says("waits");
    install(&next, format!("#!/bin/sh\nexport RELEASE=2\nexec '{}' \"$@\"\n", release.display()).as_bytes());
    fs::rename(&next, &program).expect("a rename");
    first.go();
    first.says("serving");
    let new = service.restart();
    assert_eq!(new.says("variable RELEASE"), "2");
    assert_ne!(procfs::executable(new.pid), other.canonicalize().expect("a path"));
}
