//! A `current` link that is switched to a new release: program *and* directory of the successor are
//! the new release's, however the service was started, and the old release can go.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use pollflip::restart_coordination_socket::request_restart;

use crate::deploys::copy;
use crate::is_root;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, Process};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Log, Step, at};

pollflip_kit::trials![
    a_service_that_a_shell_started_by_a_relative_path_in_a_current_link_follows_it,
    a_service_that_was_started_by_an_absolute_path_through_a_current_link_follows_it_with_its_directory,
    a_directory_below_a_current_link_is_that_of_the_new_release,
    a_service_in_a_directory_of_its_own_stays_there,
    a_relative_start_without_the_name_of_the_directory_is_warned_of,
    a_name_of_another_directory_is_not_believed,
    promise_10_a_name_by_way_of_a_process_does_not_lead_where_that_goes_later,
    a_program_that_is_set_by_a_relative_path_follows_a_current_link,
    a_program_file_that_is_mounted_by_itself_is_said_to_be_the_same,
];

/// `releases/N/bin/server` for some of them, and `current`, which leads to the first.
fn releases(setup: &Setup, count: u32) -> PathBuf {
    let root = setup.path(".").canonicalize().expect("a directory");
    for release in 1..=count {
        copy(&root.join(format!("releases/{release}/bin/server")));
        fs::create_dir_all(root.join(format!("releases/{release}/var"))).expect("a directory");
    }
    symlink("releases/1", root.join("current")).expect("a link");
    root
}

fn switch(root: &Path, release: u32) {
    symlink(format!("releases/{release}"), root.join("next")).expect("a link");
    fs::rename(root.join("next"), root.join("current")).expect("a rename");
}

fn is_of(process: &Process, root: &Path, release: u32, below: &str) {
    assert_eq!(procfs::executable(process.pid), root.join(format!("releases/{release}/bin/server")));
    assert_eq!(procfs::current_dir(process.pid), root.join(format!("releases/{release}")).join(below));
}

/// Each next release is the one that runs and serves; those before it are removed.
fn follows(service: &Service, root: &Path, below: &str) {
    is_of(&service.first(), root, 1, below);
    let mut last = service.first();
    for release in 2..=3 {
        switch(root, release);
        // An attempt that fails changes nothing.
        for (act, reason) in [(Act::Exit(1), "exited with status 1"), (Act::Raise(Signal::SIGKILL), "SIGKILL")] {
            service.plan_next(at(Step::Born, act));
            assert!(service.fail_to_restart().contains(reason));
            assert_eq!(service.connect().pid, last.pid);
        }
        last = service.restart();
        is_of(&last, root, release, below);
        fs::remove_dir_all(root.join(format!("releases/{}", release - 1))).expect("an old release");
        last = service.restart();
        is_of(&last, root, release, below);
    }
    assert_eq!(service.connect().pid, last.pid);
    // Back to a release that is not there: the reason is told, and the one that runs goes on.
    switch(root, 1);
    let reason = service.fail_to_restart();
    assert!(reason.contains("current") && reason.contains("is gone"), "{reason}");
    assert_eq!(service.connect().pid, last.pid);
    assert!(service.first().said("log WARN").is_empty());
}

fn started(setup: Setup, root: &Path, shell: &str) -> Service {
    setup.set(Log::Told).env("WHERE", root).shell(shell).start()
}

fn a_service_that_a_shell_started_by_a_relative_path_in_a_current_link_follows_it() {
    let setup = Setup::new();
    let root = releases(&setup, 3);
    follows(&started(setup, &root, "cd \"$WHERE/current\" && exec ./bin/server"), &root, "");
}

fn a_service_that_was_started_by_an_absolute_path_through_a_current_link_follows_it_with_its_directory() {
    let setup = Setup::new();
    let root = releases(&setup, 3);
    // As a service manager does, which enters the directory without a word.
    let shell = "cd -P \"$WHERE/current\" && exec env -u PWD \"$WHERE/current/bin/server\"";
    follows(&started(setup, &root, shell), &root, "");
}

fn a_directory_below_a_current_link_is_that_of_the_new_release() {
    for shell in ["cd \"$WHERE/current/var\" && exec ../bin/server", "cd -P \"$WHERE/current/var\" && exec \"$WHERE/current/bin/server\""] {
        let setup = Setup::new();
        let root = releases(&setup, 3);
        follows(&started(setup, &root, shell), &root, "var");
    }
}

fn a_service_in_a_directory_of_its_own_stays_there() {
    let setup = Setup::new();
    let root = releases(&setup, 2);
    fs::create_dir(root.join("data")).expect("a directory");
    let service = started(setup, &root, "cd \"$WHERE/data\" && exec \"$WHERE/current/bin/server\"");
    switch(&root, 2);
    let new = service.restart();
    assert_eq!(procfs::executable(new.pid), root.join("releases/2/bin/server"));
    assert_eq!(procfs::current_dir(new.pid), root.join("data"));
}

/// The first release goes on, which was said beforehand.
fn is_warned_of(service: &Service, root: &Path) {
    let first = service.first();
    let [told] = &first.said("log WARN")[..] else { panic!("{:?}", first.said("log WARN")) };
    let program = root.join("releases/1/bin/server");
    assert!(told.contains("a relative path, ./bin/server,") && told.contains(program.to_str().expect("text")), "{told}");
    switch(root, 2);
    let new = service.restart();
    is_of(&new, root, 1, "");
    // It was started by the absolute path.
    assert!(new.said("log WARN").is_empty());
}

fn a_relative_start_without_the_name_of_the_directory_is_warned_of() {
    let setup = Setup::new();
    let root = releases(&setup, 2);
    is_warned_of(&started(setup, &root, "cd \"$WHERE/current\" && exec env -u PWD ./bin/server"), &root);
}

fn a_name_of_another_directory_is_not_believed() {
    for name in ["$WHERE/releases/2", "$WHERE/nowhere", "current", ""] {
        let setup = Setup::new();
        let root = releases(&setup, 2);
        is_warned_of(&started(setup, &root, &format!("cd \"$WHERE/current\" && exec env PWD=\"{name}\" ./bin/server")), &root);
    }
}

/// An operator who has entered the directory of a running process has such a name, and a service that
/// changes its directory after that must not start what lies there.
fn promise_10_a_name_by_way_of_a_process_does_not_lead_where_that_goes_later() {
    let starts = [
        "cd \"$WHERE/current\" && exec env PWD=/proc/self/cwd ./bin/server",
        "cd -P \"$WHERE/current\" && cd /proc/$$/cwd && exec ./bin/server",
        "cd -P \"$WHERE/current\" && exec /proc/$$/cwd/bin/server",
    ];
    for start in starts {
        let setup = Setup::new();
        let root = releases(&setup, 2);
        let setup = setup.plan(at(Step::Built, Act::ChangeDirectory(root.join("releases/2"))));
        let service = started(setup, &root, start);
        let new = service.restart();
        assert_eq!(procfs::executable(new.pid), root.join("releases/1/bin/server"), "{start}");
    }
}

fn a_program_that_is_set_by_a_relative_path_follows_a_current_link() {
    let setup = Setup::new();
    let root = releases(&setup, 3);
    let setup = setup.set(Config::Program("bin/server".into())).set(Config::CurrentDir("var".into()));
    let service = started(setup, &root, "cd \"$WHERE/current\" && exec ./bin/server");
    switch(&root, 2);
    let new = service.restart();
    is_of(&new, &root, 2, "var");
}

fn a_program_file_that_is_mounted_by_itself_is_said_to_be_the_same() {
    if !is_root("a_program_file_that_is_mounted_by_itself") {
        return;
    }
    let setup = Setup::new();
    let root = setup.path(".").canonicalize().expect("a directory");
    copy(&root.join("host/server"));
    copy(&root.join("host/next"));
    fs::create_dir(root.join("app")).expect("a directory");
    fs::write(root.join("app/server"), "").expect("a file");
    // As a container with `-v ./server:/app/server` has it.
    let mounted = "mount --bind \"$WHERE/host/server\" \"$WHERE/app/server\" && exec \"$WHERE/app/server\"";
    let service = setup.env("WHERE", &root).shell(&format!("exec unshare -m --propagation private sh -c '{mounted}'")).start();
    // A deploy by rename outside, of which nothing is seen inside.
    fs::rename(root.join("host/next"), root.join("host/server")).expect("a rename");
    let mut lines = Vec::new();
    let pid = request_restart(service.socket(), DEADLINE, |line| lines.push(line.to_owned())).expect("a restart");
    let same = format!("the same file as before: {}", root.join("app/server").display());
    assert!(lines.len() == 1 && lines[0].starts_with(&same), "{lines:?}");
    let status = service.status();
    assert_eq!(status.pid, pid);
    assert!(status.outcomes.last().expect("an outcome").text.contains(&same));
}
