//! What a successor is started as: the release that stands at the path, with the arguments, environment and directory of the build.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;
use pollflip::restart_coordination_socket::request_restart;

use pollflip_kit::harness::{Service, Setup, install, install_copy, own_program};
use pollflip_kit::hub::DEADLINE;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, GoTo, Linger, Plan, Step, at};

pollflip_kit::trials![
    a_release_deployed_by_rename_runs_after_a_restart,
    a_current_link_that_was_switched_leads_to_the_new_release,
    a_program_that_was_executed_by_a_descriptor_follows_the_current_link,
    what_a_program_has_under_the_number_by_which_it_was_executed_is_not_read,
    a_program_that_was_deleted_and_comes_back_can_be_restarted,
    a_program_started_by_a_relative_path_is_found_after_chdir,
    arguments_environment_and_directory_are_those_of_the_build,
    the_interpreter_of_a_script_keeps_its_arguments,
    arguments_environment_and_directory_can_be_set,
    what_a_program_loads_into_its_environment_is_read_anew_by_each_generation,
    without_the_setting_a_successor_inherits_what_the_program_has_loaded,
    a_restart_that_runs_the_same_file_says_so,
    a_restart_that_runs_the_same_file_through_a_wrapper_says_so,
    a_restart_that_runs_a_new_release_or_fails_does_not_speak_of_the_same_file,
];

/// A release that is this binary under another name; by a copy where the file systems differ.
fn release(path: &Path) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    if fs::hard_link(own_program(), path).is_err() {
        install_copy(path);
    }
}

fn a_release_deployed_by_rename_runs_after_a_restart() {
    let setup = Setup::new();
    let program = setup.path("server");
    release(&program);
    let service = setup.program(program.clone()).start();
    // Something else by the same name: a script that names its release.
    let next = service.path("server.next");
    install(&next, format!("#!/bin/sh\nexport RELEASE=2\nexec '{}' \"$@\"\n", own_program().display()).as_bytes());
    fs::rename(&next, &program).expect("a rename");
    let new = service.restart();
    assert_eq!(new.says("variable RELEASE"), "2");
    assert_eq!(service.connect().pid, new.pid);
}

fn a_current_link_that_was_switched_leads_to_the_new_release() {
    let setup = Setup::new();
    release(&setup.path("releases/1/server"));
    release(&setup.path("releases/2/server"));
    symlink("releases/1", setup.path("current")).expect("a link");
    let program = setup.path("current/server");
    let service = setup.program(program).start();
    assert!(procfs::executable(service.first().pid).ends_with("releases/1/server"));

    symlink("releases/2", service.path("current.next")).expect("a link");
    fs::rename(service.path("current.next"), service.path("current")).expect("a rename");
    fs::remove_file(service.path("releases/1/server")).expect("an old release");
    let second = service.restart();
    assert!(procfs::executable(second.pid).ends_with("releases/2/server"));
    let third = service.restart();
    assert!(procfs::executable(third.pid).ends_with("releases/2/server"));
}

fn a_program_that_was_executed_by_a_descriptor_follows_the_current_link() {
    let setup = Setup::new();
    let root = fs::canonicalize(setup.path(".")).expect("a directory");
    for number in ["1", "2"] {
        release(&root.join("releases").join(number).join("server"));
    }
    symlink("releases/1", root.join("current")).expect("a link");
    let service = setup.plan(at(Step::Born, Act::ExecuteByDescriptor(root.join("current/server")))).start();
    let second = service.restart();
    assert_eq!(procfs::executable(second.pid), root.join("releases/1/server"));
    symlink("releases/2", root.join("next")).expect("a link");
    fs::rename(root.join("next"), root.join("current")).expect("a rename");
    let third = service.restart();
    assert_eq!(procfs::executable(third.pid), root.join("releases/2/server"));
}

fn what_a_program_has_under_the_number_by_which_it_was_executed_is_not_read() {
    let setup = Setup::new();
    let program = setup.path("server");
    release(&program);
    let leave = |plan: Plan| at(Step::Born, Act::LeavePlan(plan));
    let plan = leave(at(Step::Born, Act::HoldPipe("a request".into())))
        .and(leave(at(Step::Built, Act::ReadPipe)))
        .at(Step::Born, Act::ExecuteByDescriptor(program));
    let service = setup.plan(plan).start();
    assert_eq!(service.first().did(&Act::ReadPipe), "a request");
    service.restart();
}

fn a_program_that_was_deleted_and_comes_back_can_be_restarted() {
    let setup = Setup::new();
    let program = setup.path("server");
    release(&program);
    let service = setup.program(program.clone()).start();
    fs::remove_file(&program).expect("a file");
    let reason = service.fail_to_restart();
    assert!(reason.contains("there is no such file"), "{reason}");
    release(&program);
    service.restart();
}

fn a_program_started_by_a_relative_path_is_found_after_chdir() {
    let setup = Setup::new();
    release(&setup.path("bin/server"));
    let directory = fs::canonicalize(setup.path(".")).expect("a directory");
    let service = setup.env("WHERE", &directory).set(GoTo("/".into())).shell("cd \"$WHERE\" && exec bin/server").start();
    let first = service.first();
    assert_eq!(procfs::current_dir(first.pid), Path::new("/"));
    let second = service.restart();
    assert_eq!(Path::new(&second.says("directory")), directory);
    assert_eq!(procfs::executable(second.pid), directory.join("bin/server"));
    service.restart();
}

fn arguments_environment_and_directory_are_those_of_the_build() {
    let setup = Setup::new();
    let directory = fs::canonicalize(setup.path(".")).expect("a directory");
    let service = setup.env("WHERE", &directory).env("COLOUR", "blue").shell("cd \"$WHERE\" && exec \"$0\" --port 'a b'").start();
    let first = service.first();
    // Of a process that has ended it cannot be read any more.
    let before = procfs::environment(first.pid);
    let second = service.restart();
    assert_eq!(second.says("arguments"), first.says("arguments"));
    assert!(second.says("arguments").ends_with("--port a b"));
    assert_eq!(Path::new(&second.says("directory")), directory);
    let mut after = procfs::environment(second.pid);
    after.retain(|variable| !["POLLFLIP_LIFELINE=", "POLLFLIP_BIRTH="].iter().any(|own| variable.starts_with(own)));
    let names =
        |variables: &[String]| variables.iter().map(|text| text.split('=').next().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    // The values of the test runner's variables are nobody's business.
    assert!(after == before && !before.is_empty());
}

fn the_interpreter_of_a_script_keeps_its_arguments() {
    let setup = Setup::new();
    let (program, script) = (setup.path("server"), setup.path("server.conf"));
    release(&program);
    install(&script, format!("#!{} --config\n", program.display()).as_bytes());
    let service = setup.program(script.clone()).start();
    let arguments = service.first().says("arguments");
    assert!(arguments.ends_with(&format!("--config {}", script.display())), "{arguments}");
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(new.says("arguments"), arguments);
        assert_eq!(procfs::executable(new.pid), fs::canonicalize(&program).expect("a path"));
    }
}

fn arguments_environment_and_directory_can_be_set() {
    let setup = Setup::new();
    let directory = fs::canonicalize(setup.path(".")).expect("a directory");
    let service = setup
        .env("COLOUR", "blue")
        .env("SIZE", "small")
        .set(Config::Args(vec!["--restarted".into()]))
        .set(Config::Env("COLOUR".into(), "red".into()))
        .set(Config::Env("TASTE".into(), "sweet=sour".into()))
        .set(Config::EnvRemove("SIZE".into()))
        .set(Config::CurrentDir(directory.clone()))
        .start();
    let second = service.restart();
    assert!(second.says("arguments").ends_with(" --restarted"));
    assert_eq!(Path::new(&second.says("directory")), directory);
    let environment = procfs::environment(second.pid);
    assert!(environment.iter().any(|variable| variable == "COLOUR=red"));
    assert!(environment.iter().any(|variable| variable == "TASTE=sweet=sour"));
    assert!(!environment.iter().any(|variable| variable.starts_with("SIZE=")));
}

/// What the program loads if it is not set: the line of the first generation, then that of the second one.
fn loads(setup: Setup) -> [Vec<String>; 2] {
    let service = setup
        .env("COLOUR", "green")
        .set(Config::Env("SIZE".into(), "small".into()))
        .plan(
            at(Step::Born, Act::SetVariable("COLOUR".into(), "red".into())).at(Step::Born, Act::SetVariable("TASTE".into(), "sour".into())),
        )
        .start();
    let failing = || {
        for (act, reason) in [(Act::Exit(3), "exited with status 3"), (Act::Raise(Signal::SIGKILL), "SIGKILL")] {
            service.plan_next(at(Step::Built, act));
            assert!(service.fail_to_restart().contains(reason));
        }
    };
    failing();
    let new = service.restart();
    failing();
    let third = service.restart();
    assert_eq!(service.connect().pid, third.pid);
    let own = |pid| {
        let mut all = procfs::environment(pid);
        all.retain(|line| ["COLOUR=", "TASTE=", "SIZE="].iter().any(|name| line.starts_with(name)));
        all.sort();
        all
    };
    assert!(third.said("log WARN").is_empty());
    [own(new.pid), own(third.pid)]
}

fn what_a_program_loads_into_its_environment_is_read_anew_by_each_generation() {
    let setup = Setup::new().set(Config::EnvAsExecuted).set(Linger);
    assert_eq!(loads(setup), [["COLOUR=green", "SIZE=small"]; 2]);
}

fn without_the_setting_a_successor_inherits_what_the_program_has_loaded() {
    assert_eq!(loads(Setup::new().set(Linger)), [["COLOUR=red", "SIZE=small", "TASTE=sour"]; 2]);
}

/// The lines that the asker is told, and the outcome that the new process shows.
fn told(service: &Service) -> (Vec<String>, String) {
    let mut lines = Vec::new();
    request_restart(service.socket(), DEADLINE, |line| lines.push(line.to_owned())).expect("a restart");
    let outcome = service.status().outcomes.pop().expect("an outcome");
    assert!(outcome.ok);
    (lines, outcome.text)
}

fn says_the_same(service: &Service, path: &Path) {
    let same = format!("the same file as before: {}", path.display());
    let (lines, outcome) = told(service);
    assert_eq!(lines, std::slice::from_ref(&same));
    assert!(outcome.ends_with(&format!("; {same}")), "{outcome}");
}

fn a_restart_that_runs_the_same_file_says_so() {
    let setup = Setup::new();
    let program = fs::canonicalize(setup.path(".")).expect("a directory").join("server");
    release(&program);
    let service = setup.program(program.clone()).start();
    says_the_same(&service, &program);
    says_the_same(&service, &program);
}

fn a_restart_that_runs_the_same_file_through_a_wrapper_says_so() {
    let setup = Setup::new();
    let root = fs::canonicalize(setup.path(".")).expect("a directory");
    let (program, wrapper) = (root.join("server"), root.join("wrapper"));
    release(&program);
    install(&wrapper, format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display()).as_bytes());
    let service = setup.program(program.clone()).set(Config::Program(wrapper.clone())).start();
    says_the_same(&service, &program);
}

fn a_restart_that_runs_a_new_release_or_fails_does_not_speak_of_the_same_file() {
    let setup = Setup::new();
    let program = setup.path("server");
    install_copy(&program);
    let service = setup.program(program.clone()).start();
    service.plan_next(at(Step::Built, Act::Exit(1)));
    assert!(!service.fail_to_restart().contains("the same file"));
    install_copy(&service.path("next-release"));
    fs::rename(service.path("next-release"), &program).expect("a rename");
    let (lines, outcome) = told(&service);
    assert!(lines.is_empty() && !outcome.contains("the same file"), "{lines:?} {outcome}");
}
