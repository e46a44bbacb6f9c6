//! Promise 11: what the program's threads give up after the build does not bind the restart thread, unless it reaches every thread.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::confine::{Confine, NOBODY};
use crate::is_root;
use crate::service::GivePath;
use pollflip_kit::harness::{Service, Setup, install_copy, own_program};
use pollflip_kit::hub::{wait_for, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Log, Plan, RunAs, Step, at, ms, set};
use pollflip_kit::surroundings::directory;

pollflip_kit::trials![
    promise_11_a_seccomp_filter_on_the_other_threads_leaves_the_right_to_restart,
    promise_11_threads_without_capabilities_and_new_privileges_leave_the_right_to_restart,
    promise_11_a_successor_of_another_user_can_be_killed_without_capabilities,
    promise_11_a_successor_of_another_user_can_be_killed_where_no_descriptor_can_be_had,
    promise_11_a_successor_that_nobody_may_kill_is_killed_when_somebody_may,
    promise_11_one_that_comes_too_late_and_that_nobody_may_kill_is_in_nobodys_way,
    promise_03_a_deadline_is_kept_where_no_timer_can_be_set,
    promise_11_a_filter_on_all_threads_takes_the_right_to_restart_away,
    promise_11_setuid_reaches_the_restart_thread_and_the_successor,
    promise_10_a_program_that_is_setuid_goes_on_for_nobody_who_has_not_its_rights,
    promise_11_a_directory_that_the_new_user_cannot_enter_is_stayed_in,
    promise_11_a_program_that_only_capabilities_let_in_is_started_before_linux_5_8,
    a_path_that_was_given_to_the_new_user_lets_that_one_ask,
    promise_11_chroot_hides_a_program_from_the_restart_thread,
    promise_11_a_program_within_the_new_root_is_started_there,
];

/// Whether filters can be made for this machine; says aloud if not.
fn there_are_filters() -> bool {
    let there = seccompiler::TargetArch::try_from(std::env::consts::ARCH).is_ok();
    if !there {
        eprintln!("skipped: there are no filters for this machine");
    }
    there
}

/// One line of the status of each thread, by the thread's name. One that ends meanwhile is none.
fn threads(pid: u32, line: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a live process");
    let look = |task: PathBuf| {
        let text = fs::read_to_string(task.join("status")).ok()?;
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|text| text.trim().to_owned());
        Some((value("Name").expect("a name"), value(line).unwrap_or_default()))
    };
    tasks.filter_map(|task| look(task.expect("a thread").path())).collect()
}

/// What that line says for the restart thread, and for all others.
fn restart_thread_and_others(pid: u32, line: &str) -> (String, Vec<String>) {
    let (own, others) = wait_for("the restart thread to have taken its name, of 15 characters at the most", || {
        let (own, others): (Vec<_>, Vec<_>) = threads(pid, line).into_iter().partition(|(name, _)| name.starts_with("pollflip-restar"));
        (own.len() == 1).then_some((own, others))
    });
    let others: Vec<_> = others.into_iter().map(|(_, value)| value).collect();
    assert!(others.len() >= 2, "{others:?}");
    (own[0].1.clone(), others)
}

/// Three restarts, in each generation of which no thread but one can start anything.
fn restarts_though_nobody_else_can(service: &Service) {
    for generation in 0..3 {
        let process = service.hub.nth(generation);
        process.says("serving");
        assert!(process.says("worker").contains("not permitted"));
        let answer = process.ask(Act::SpawnDirectly);
        assert!(answer.contains("not permitted"), "a thread of generation {generation} could start something: {answer}");
        let (own, others) = restart_thread_and_others(process.pid, "Seccomp");
        assert_eq!(own, "0");
        assert!(others.iter().all(|mode| mode == "2"), "{others:?}");
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
}

fn promise_11_a_seccomp_filter_on_the_other_threads_leaves_the_right_to_restart() {
    if !there_are_filters() {
        return;
    }
    let service = Setup::new().set(Confine::Seccomp).start();
    restarts_though_nobody_else_can(&service);
    // What goes wrong is found out and put right without those rights too: a successor that must be killed.
    service.plan_next(at(Step::Born, Act::Exit(3)));
    assert!(service.fail_to_restart().contains("exited with status 3"));
    service.plan_next(at(Step::Built, Act::CloseLifeline).at(Step::Built, Act::Hang));
    assert!(service.fail_to_restart().contains("closed its lifeline"));
    service.restart();
}

fn promise_11_threads_without_capabilities_and_new_privileges_leave_the_right_to_restart() {
    if !is_root("the one of the capabilities") {
        return;
    }
    let service = Setup::new().set(Confine::Capabilities).start();
    let all = threads(std::process::id(), "CapEff").remove(0).1;
    for generation in 0..3 {
        let process = service.hub.nth(generation);
        process.says("worker");
        process.says("serving");
        let (own, others) = restart_thread_and_others(process.pid, "CapEff");
        assert_eq!(own, all, "of generation {generation}");
        assert!(others.iter().all(|set| set.chars().all(|digit| digit == '0')), "{others:?}");
        let (own, others) = restart_thread_and_others(process.pid, "NoNewPrivs");
        assert_eq!(own, "0");
        assert!(others.iter().all(|set| set == "1"), "{others:?}");
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
    service.plan_next(at(Step::Built, Act::CloseLifeline).at(Step::Built, Act::Hang));
    assert!(service.fail_to_restart().contains("closed its lifeline"));
    service.restart();
}

fn promise_11_a_successor_of_another_user_can_be_killed_without_capabilities() {
    if !is_root("the one of another user's successor") {
        return;
    }
    let service = Setup::new().set(Confine::Capabilities).start();
    let old = service.first();
    // Root without capabilities has no power over others.
    service.plan_next(set(RunAs(NOBODY)).at(Step::Built, Act::Hang));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("hangs");
    assert_eq!(old.ask(Act::Cancel), "true");
    let why = asker.join().expect("a thread").expect_err("a restart that was called off");
    assert_eq!(why.to_string(), "restart failed: the restart was called off: by a test");
    new.ends();
    service.restart();
}

fn promise_11_a_successor_of_another_user_can_be_killed_where_no_descriptor_can_be_had() {
    if !is_root("the one of another user's successor where no descriptor can be had") {
        return;
    }
    let service = Setup::new().set(Confine::Capabilities).start();
    let old = service.first();
    service.plan_next(set(RunAs(NOBODY)).at(Step::Built, Act::Hang));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("hangs");
    old.says("event Spawned");
    assert_eq!(old.ask(Act::SpareDescriptors(0)), "held");
    assert_eq!(old.ask(Act::Cancel), "true");
    let why = asker.join().expect("a thread").expect_err("a restart that was called off");
    assert_eq!(why.to_string(), "restart failed: the restart was called off: by a test");
    new.ends();
    wait_until("it to be reaped", || procfs::children(old.pid).is_empty());
}

/// A service that runs as nobody, with a program that is setuid root: a successor can become a process
/// that the service may not kill. Says aloud if there can be none.
fn of_nobody_with_a_program_of_root(test: &str) -> Option<Service> {
    if !is_root(test) {
        return None;
    }
    let setup = Setup::new().set(Confine::Setuid).set(Log::Told);
    let program = public_copy(&setup);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("a mode");
    let service = setup.program(program).launch();
    fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
    service.first().says("serving");
    let flags = nix::sys::statvfs::statvfs(service.path("server").as_path()).expect("a file system").flags();
    let there_are_some = !flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID);
    if !there_are_some {
        eprintln!("skipped {test}: a program cannot be setuid here");
    }
    there_are_some.then_some(service)
}

/// The plan of a successor that the service may not kill until it is told to go on.
fn out_of_reach() -> Plan {
    [Act::Become(0), Act::Wait, Act::Become(NOBODY), Act::Hang].into_iter().fold(Plan::default(), |plan, act| plan.at(Step::Born, act))
}

fn promise_11_a_successor_that_nobody_may_kill_is_killed_when_somebody_may() {
    let Some(service) = of_nobody_with_a_program_of_root("the one of a successor that nobody may kill") else { return };
    let old = service.first();
    service.plan_next(out_of_reach());
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    old.says("event Spawned");
    assert_eq!(old.ask(Act::Cancel), "true");
    let began = Instant::now();
    let why = asker.join().expect("a thread").expect_err("a restart that was called off");
    assert_eq!(why.to_string(), "restart failed: the restart was called off: by a test");
    assert!(began.elapsed() >= Duration::from_secs(4), "who asks is told when it has not died within its time: {:?}", began.elapsed());
    assert_eq!(service.status().state, pollflip::ServiceState::Killing);
    assert!(new.lives());
    // As the user that the service is, it can be killed.
    new.go();
    new.ends();
    wait_until("the end of that", || service.status().state == pollflip::ServiceState::Serving);
    assert!(procfs::children(old.pid).is_empty());
    assert_eq!(service.connect().pid, old.pid);
    let errors = old.said("log ERROR");
    assert_eq!(errors.iter().filter(|error| error.contains("must end, and this process may not kill it")).count(), 1, "{errors:?}");
}

/// It is left to the loop, and the restart thread starts the next one.
fn promise_11_one_that_comes_too_late_and_that_nobody_may_kill_is_in_nobodys_way() {
    let Some(service) = of_nobody_with_a_program_of_root("the one of a late successor that nobody may kill") else { return };
    let old = service.first();
    let mut tries = 0;
    let late = loop {
        tries += 1;
        service.plan_next(out_of_reach());
        for act in [Act::Wait, Act::Status, Act::Cancel] {
            old.on(Step::Spawning, act);
        }
        let asker = service.restart_meanwhile();
        old.says_again("waits", tries - 1);
        let new = service.hub.nth(tries);
        new.says("waits");
        old.go();
        let is_late = old.says_again("did Status:", tries - 1).contains("\"state\":\"spawning\"");
        if !is_late {
            // The loop had it already, which a busy machine may do.
            new.go();
        }
        let why = asker.join().expect("a thread").expect_err("a restart that was called off");
        assert_eq!(why.to_string(), "restart failed: the restart was called off: by a test");
        if is_late {
            break new;
        }
        new.ends();
        assert!(tries < 20, "it never comes too late");
        wait_until("the end of that", || service.status().state == pollflip::ServiceState::Serving);
    };
    // The next one is started, and fails for a reason of its own.
    service.plan_next(at(Step::Born, Act::Exit(7)));
    assert!(service.fail_to_restart().contains("exited with status 7"));
    assert!(late.lives());
    late.go();
    late.ends();
    wait_until("it to be reaped", || procfs::children(old.pid).is_empty());
}

fn promise_03_a_deadline_is_kept_where_no_timer_can_be_set() {
    if !there_are_filters() {
        return;
    }
    let service = Setup::new().set(Confine::Timer).set(Config::ReadyTimeout(ms(2500))).start();
    for _ in 0..2 {
        service.plan_next(at(Step::Built, Act::Hang));
        let reason = service.fail_to_restart();
        assert!(reason.contains("was not ready within 2.5 s"), "{reason}");
        assert_eq!(service.connect().pid, service.first().pid);
    }
    service.restart_some_time();
}

fn promise_11_a_filter_on_all_threads_takes_the_right_to_restart_away() {
    if !there_are_filters() {
        return;
    }
    let service = Setup::new().set(Confine::Tsync).start();
    let first = service.first();
    assert!(first.says("worker").contains("not permitted"));
    for _ in 0..2 {
        let reason = service.fail_to_restart();
        assert!(reason.contains("could not start") && reason.contains("not permitted"), "{reason}");
        assert_eq!(service.connect().pid, first.pid);
    }
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
}

/// This program where everybody may execute it.
fn public_copy(setup: &Setup) -> PathBuf {
    let program = setup.path("server");
    install_copy(&program);
    program
}

fn promise_11_setuid_reaches_the_restart_thread_and_the_successor() {
    if !is_root("the one of setuid") {
        return;
    }
    let setup = Setup::new().set(Confine::Setuid);
    let program = public_copy(&setup);
    let service = setup.program(program).launch();
    fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
    let user = NOBODY.to_string();
    for generation in 0..2 {
        let process = service.hub.nth(generation);
        process.says("serving");
        process.says("worker");
        for (thread, users) in threads(process.pid, "Uid") {
            assert!(users.split_whitespace().all(|uid| uid == user), "thread {thread} of generation {generation} runs as {users}");
        }
        // With the sockets of the first, which it could not have bound by itself if they were privileged.
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
    // What the new user may not execute cannot be started any more.
    fs::set_permissions(service.path("server"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let reason = service.fail_to_restart();
    assert!(reason.contains(&format!("user {NOBODY} (this process's) may not execute it")), "{reason}");
}

fn promise_10_a_program_that_is_setuid_goes_on_for_nobody_who_has_not_its_rights() {
    if !is_root("the one of a program that is setuid") {
        return;
    }
    let start = |setup: Setup| {
        let program = public_copy(&setup);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("a mode");
        let service = setup.program(program).launch();
        fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
        service.first().says("serving");
        service
    };
    // Anybody can say to such a program what a predecessor says: which files to take away, say.
    let service = start(Setup::new().set(Confine::Setuid));
    let flags = nix::sys::statvfs::statvfs(service.path("server").as_path()).expect("a file system").flags();
    if flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID) {
        return eprintln!("skipped: the one of a program that is setuid, where there is none");
    }
    let reason = service.fail_to_restart();
    assert!(reason.contains(&format!("user {NOBODY} has made it, whose rights this process exceeds")), "{reason}");
    assert_eq!(service.connect().pid, service.first().pid);

    let service = start(Setup::new());
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}

fn promise_11_a_directory_that_the_new_user_cannot_enter_is_stayed_in() {
    if !is_root("the one of a directory that is shut") {
        return;
    }
    let start = |setup: Setup| {
        let program = public_copy(&setup);
        let service = setup.program(program).set(Confine::Setuid).shell("mkdir -m 700 shut && cd shut && exec \"$0\"").launch();
        fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
        service.first().says("serving");
        service
    };
    let service = start(Setup::new());
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(Path::new(&new.says("directory")), service.path("shut"));
    }
    // One that was asked for must be entered.
    let setup = Setup::new();
    let directory = setup.path("shut");
    let service = start(setup.set(Config::CurrentDir(directory.clone())));
    let reason = service.fail_to_restart();
    let told = format!(" (this process's) may not enter the directory to start it in, {}", directory.display());
    assert!(reason.contains(&told), "{reason}");
}

fn promise_11_a_program_that_only_capabilities_let_in_is_started_before_linux_5_8() {
    if !is_root("the one of a program that others may not execute") || !there_are_filters() {
        return;
    }
    let setup = Setup::new().set(Confine::Before5_8);
    let program = public_copy(&setup);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a mode");
    let service = setup.program(program).start();
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}

/// What a process of that user gets for an answer.
fn status_for(user: u32, service: &Service) -> String {
    let ask = Act::StatusOf(service.socket());
    let asker = Setup::new().set(RunAs(user)).set(Config::NoSocket).plan(at(Step::Built, ask.clone())).start();
    asker.first().did(&ask)
}

fn a_path_that_was_given_to_the_new_user_lets_that_one_ask() {
    if !is_root("the one of a path that is given away") {
        return;
    }
    let setup = || {
        let setup = Setup::new().set(Confine::Setuid);
        let program = public_copy(&setup);
        setup.program(program)
    };
    let service = setup().start();
    let answer = status_for(NOBODY, &service);
    assert!(answer.contains("the path belongs to root: ask as root"), "{answer}");

    let service = setup().set(GivePath(Some(NOBODY))).start();
    fs::set_permissions(service.path(crate::service::HUB), fs::Permissions::from_mode(0o666)).expect("a mode");
    for _ in 0..2 {
        assert_eq!(status_for(NOBODY, &service), "idle");
        let answer = status_for(NOBODY + 1, &service);
        assert!(answer.contains(&format!("the path belongs to user {NOBODY}: ask as that user or as root")), "{answer}");
        // Asked by root, who may as well.
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
    }
    // Nobody but root comes into the directory.
    fs::set_permissions(service.path("."), fs::Permissions::from_mode(0o700)).expect("a mode");
    let answer = status_for(NOBODY, &service);
    assert!(answer.contains("a directory on the way cannot be entered: ask as root"), "{answer}");
}

fn promise_11_chroot_hides_a_program_from_the_restart_thread() {
    if !is_root("the one of chroot") {
        return;
    }
    let setup = Setup::new();
    let root = setup.path("root");
    fs::create_dir(&root).expect("a directory");
    let service = setup.set(Confine::Chroot(root.clone())).set(Config::CurrentDir("/".into())).start();
    let first = service.first();
    let reason = service.fail_to_restart();
    assert!(reason.contains("could not start") && reason.contains("there is no such file"), "{reason}");
    assert_eq!(service.connect().pid, first.pid);
}

/// A root with this program and the libraries that it has open, all at their own paths.
fn furnish(root: &Path) {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(below(to).parent().expect("a directory")).expect("a directory");
        fs::copy(from, below(to)).expect("a copy");
    };
    let maps = fs::read_to_string("/proc/self/maps").expect("the maps of this process");
    for library in maps.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| path.contains(".so")) {
        let name = library.rsplit('/').next().expect("a name");
        // The loader is named by /lib or /lib64, which can be links to where it is.
        [library.to_owned(), format!("/lib64/{name}"), format!("/lib/{name}")].iter().for_each(|to| copy(library, to));
    }
    let program = below(own_program().to_str().expect("text"));
    fs::create_dir_all(program.parent().expect("a directory")).expect("a directory");
    install_copy(&program);
}

fn promise_11_a_program_within_the_new_root_is_started_there() {
    if !is_root("the one of a program in a new root") {
        return;
    }
    let setup = Setup::new();
    let root = setup.path(".").canonicalize().expect("a directory");
    furnish(&root);
    // Seen from within, the files of the test are at the root.
    fs::create_dir_all(root.join(root.parent().expect("a parent").strip_prefix("/").expect("a path"))).expect("a directory");
    symlink("/", root.join(root.strip_prefix("/").expect("a path"))).expect("a link");
    let outside = directory();
    let within = root.join(outside.path().strip_prefix("/").expect("a path"));
    fs::create_dir_all(&within).expect("a directory");
    let path = outside.path().join("restart.sock");
    // Where the test asks.
    symlink(&path, setup.path("restart.sock")).expect("a link");
    let setup = setup.set(Config::Socket(path.clone())).set(Confine::Chroot(root.clone())).set(Config::CurrentDir("/".into()));
    let service = setup.start();
    for _ in 0..2 {
        let new = service.restart();
        assert_eq!(service.connect().pid, new.pid);
        assert_eq!(fs::read_link(format!("/proc/{}/root", new.pid)).expect("a root"), root);
        // Within, that path is another place, where there is nothing: it stays where it can be found.
        assert_eq!(service.status().pid, new.pid);
        assert_eq!(fs::read_dir(&within).expect("a directory").count(), 0);
    }
}
