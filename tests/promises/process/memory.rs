//! The process that the kernel ends first when memory is short: the successor, until its restart is
//! final.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot, oom_score as score};
use pollflip_kit::service::{Act, Config, Linger, Log, RunAs, Step, at, ms};

pollflip_kit::trials![
    a_successor_is_the_first_that_the_kernel_ends_until_the_restart_is_final,
    a_successor_that_dies_on_probation_leaves_the_old_one_as_it_was,
    a_successor_whose_predecessor_is_killed_before_the_restart_is_final_sets_itself_back,
    a_successor_whose_predecessor_is_killed_before_the_grant_sets_itself_back,
    what_a_program_sets_itself_is_left_alone,
    a_service_that_goes_first_anyway_stays_so,
    a_service_of_an_ordinary_user_sets_its_successor_back,
    rights_that_are_dropped_after_the_start_do_not_keep_a_successor_from_being_set_back,
    a_service_that_root_has_protected_is_protected_in_each_generation,
    a_successor_that_cannot_be_made_to_go_first_is_told_of_and_takes_over,
    a_successor_that_cannot_be_set_back_says_so,
];

fn on_probation() -> Setup {
    Setup::new().set(Config::Probation(ms(120000))).set(Log::Told).set(Linger)
}

/// Successors of another user reach the test as well.
fn open_to_all(service: &Service) {
    fs::set_permissions(service.path(pollflip_kit::service::HUB), fs::Permissions::from_mode(0o777)).expect("permissions");
}

/// A successor that has taken over and can still be taken back.
fn handed_off(service: &Service) -> Process {
    let before = service.hub.pids().len();
    assert_eq!(service.first().ask(Act::Request), "ok");
    let new = service.hub.nth(before);
    new.says("serving");
    service.first().says("event HandedOff");
    new
}

/// The old one ends: that makes the restart final.
fn becomes_final(service: &Service) {
    service.first().ask(Act::Stop);
    service.first().says("event Completed");
}

fn is_root(test: &str) -> bool {
    if !geteuid().is_root() {
        eprintln!("skipped {test}: it needs root");
    }
    geteuid().is_root()
}

/// Whether this process may set a value that is lower than the one that it was given: not even root
/// may everywhere.
fn may_protect(test: &str) -> bool {
    let sets = procfs::status(std::process::id(), "CapEff").expect("capabilities");
    let has_it = u64::from_str_radix(sets.trim(), 16).expect("a number") & (1 << 24) != 0;
    if !has_it {
        eprintln!("skipped {test}: it needs CAP_SYS_RESOURCE");
    }
    has_it
}

/// It is put first a moment after its start.
fn goes_first(new: &Process) {
    wait_until("the successor that goes first", || score(new.pid) == 1000);
}

fn a_successor_is_the_first_that_the_kernel_ends_until_the_restart_is_final() {
    let service = on_probation().start();
    let before = score(service.first().pid);
    assert!(before < 1000, "the tests themselves go first");
    service.plan_next(at(Step::Born, Act::Wait));
    assert_eq!(service.first().ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    service.first().says("event Spawned");
    goes_first(&new);
    assert_eq!(score(service.first().pid), before);
    new.go();
    service.first().says("event HandedOff");
    assert_eq!(score(new.pid), 1000);
    becomes_final(&service);
    assert_eq!(score(new.pid), before);
    assert!(service.first().said("log WARN").is_empty() && new.said("log WARN").is_empty());
    new.says("event Committed");
    assert_eq!(service.status().notes, [""; 0]);
    // From one generation to the next nothing is left of it.
    assert_eq!(new.ask(Act::Request), "ok");
    let third = service.hub.nth(2);
    new.says("event HandedOff");
    new.ask(Act::Stop);
    new.says("event Completed");
    assert_eq!(score(third.pid), before);
}

fn a_successor_that_dies_on_probation_leaves_the_old_one_as_it_was() {
    let service = on_probation().start();
    let old = service.first();
    let (before, held) = (score(old.pid), Snapshot::of(old.pid));
    let new = handed_off(&service);
    goes_first(&new);
    new.signal(Signal::SIGKILL);
    // The kernel has ended nobody for memory.
    assert!(old.says("event Resumed").contains("was killed by SIGKILL on probation"));
    assert_eq!(score(old.pid), before);
    service.expect_unchanged(&old, &held);
    service.plan_next(at(Step::Born, Act::Exit(1)));
    assert_eq!(old.ask(Act::Request), "ok");
    old.says("event Failed");
    service.expect_unchanged(&old, &held);
    assert_eq!(service.connect().pid, old.pid);
    let new = handed_off(&service);
    becomes_final(&service);
    assert_eq!(score(new.pid), before);
}

fn a_successor_whose_predecessor_is_killed_before_the_restart_is_final_sets_itself_back() {
    let service = on_probation().start();
    let before = score(service.first().pid);
    let new = handed_off(&service);
    service.first().signal(Signal::SIGKILL);
    new.says("event PredecessorGone");
    wait_until("the score of the old one", || score(new.pid) == before);
    assert_eq!(service.status().notes, [""; 0]);
}

fn a_successor_whose_predecessor_is_killed_before_the_grant_sets_itself_back() {
    let service = on_probation().start();
    let old = service.first();
    let before = score(old.pid);
    service.plan_next(at(Step::Built, Act::Wait));
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    old.says("event Spawned");
    goes_first(&new);
    old.signal(Signal::SIGKILL);
    wait_until("the end of the old one", || procfs::has_ended(old.pid));
    assert_eq!(score(new.pid), 1000);
    new.go();
    new.says("serving");
    wait_until("the score of the old one", || score(new.pid) == before);
}

fn what_a_program_sets_itself_is_left_alone() {
    let service = on_probation().start();
    service.plan_next(at(Step::Built, Act::Wait).at(Step::Granted, Act::SetOomScore(700)));
    assert_eq!(service.first().ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    service.first().says("event Spawned");
    new.go();
    assert_eq!(new.did(&Act::SetOomScore(700)), "set");
    becomes_final(&service);
    new.says("event Committed");
    assert_eq!(score(new.pid), 700);
}

fn a_service_that_goes_first_anyway_stays_so() {
    let service = on_probation().plan(at(Step::Born, Act::SetOomScore(1000))).start();
    let new = handed_off(&service);
    becomes_final(&service);
    new.says("event Committed");
    assert_eq!(score(new.pid), 1000);
    assert_eq!(service.status().notes, [""; 0]);
}

fn a_service_of_an_ordinary_user_sets_its_successor_back() {
    if !is_root("a_service_of_an_ordinary_user_sets_its_successor_back") {
        return;
    }
    let service = on_probation().set(Config::NoSocket).set(RunAs(12345)).start();
    open_to_all(&service);
    let before = score(service.first().pid);
    let new = handed_off(&service);
    goes_first(&new);
    becomes_final(&service);
    assert_eq!(score(new.pid), before);
    assert!(service.first().said("log WARN").is_empty());
}

fn rights_that_are_dropped_after_the_start_do_not_keep_a_successor_from_being_set_back() {
    let test = "rights_that_are_dropped_after_the_start_do_not_keep_a_successor_from_being_set_back";
    if !is_root(test) {
        return;
    }
    let _ = may_protect(&format!("a part of {test}"));
    for dies in [false, true] {
        let service = on_probation().start();
        let before = score(service.first().pid);
        service.plan_next(at(Step::Granted, Act::Become(12345)));
        let new = handed_off(&service);
        assert_eq!(new.did(&Act::Become(12345)), "became");
        goes_first(&new);
        // Nobody who might write something lower than was set with the rights of root is left.
        assert_eq!(service.first().ask(Act::Become(12345)), "became");
        if dies {
            service.first().signal(Signal::SIGKILL);
        } else {
            becomes_final(&service);
        }
        wait_until("the score of the old one", || score(new.pid) == before);
    }
}

fn a_service_that_root_has_protected_is_protected_in_each_generation() {
    if !may_protect("a_service_that_root_has_protected_is_protected_in_each_generation") {
        return;
    }
    // As OOMScoreAdjust= does, before the rights are given up.
    let service = on_probation().set(Config::NoSocket).set(RunAs(12345)).plan(at(Step::Born, Act::SetOomScore(-500))).start();
    open_to_all(&service);
    assert_eq!(score(service.first().pid), -500);
    let new = handed_off(&service);
    goes_first(&new);
    becomes_final(&service);
    assert_eq!(score(new.pid), -500);
}

fn a_successor_that_cannot_be_made_to_go_first_is_told_of_and_takes_over() {
    if !is_root("a_successor_that_cannot_be_made_to_go_first_is_told_of_and_takes_over") {
        return;
    }
    let setup = on_probation().set(Config::NoSocket).set(RunAs(12345));
    let program = setup.path("server");
    pollflip_kit::harness::install_copy(&program);
    let service = setup.program(program.clone()).start();
    open_to_all(&service);
    let old = service.first();
    // Nobody may look into a process whose program nobody but root may read.
    nix::unistd::chown(&program, Some(0.into()), Some(0.into())).expect("root's");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).expect("permissions");
    assert_eq!(old.ask(Act::Request), "ok");
    let told = old.says("log WARN");
    assert!(told.contains("may end the process that serves") && told.contains("Permission denied"), "{told}");
    let new = service.hub.nth(1);
    old.says("event HandedOff");
    let note = told.trim();
    assert_eq!(request_status_of(&old), [note]);
    becomes_final(&service);
    assert_eq!(service.connect().pid, new.pid);
}

/// The notes that a process itself has, whoever answers for the service.
fn request_status_of(process: &Process) -> Vec<String> {
    let json = process.ask(Act::Status);
    let notes = json.split_once("\"notes\":[").expect("notes").1.split_once(']').expect("an end").0;
    notes.split("\",\"").map(|note| note.trim_matches('"').to_owned()).filter(|note| !note.is_empty()).collect()
}

fn a_successor_that_cannot_be_set_back_says_so() {
    if !may_protect("a_successor_that_cannot_be_set_back_says_so") {
        return;
    }
    let service = on_probation().start();
    // With the rights of root this is also the lowest value that others may set.
    service.plan_next(at(Step::Built, Act::Wait).at(Step::Built, Act::SetOomScore(1000)).at(Step::Granted, Act::Become(12345)));
    assert_eq!(service.first().ask(Act::Request), "ok");
    let new = service.hub.nth(1);
    new.says("waits");
    goes_first(&new);
    new.go();
    new.says("serving");
    service.first().says("event HandedOff");
    assert_eq!(new.did(&Act::Become(12345)), "became");
    assert_eq!(service.first().ask(Act::Become(12345)), "became");
    becomes_final(&service);
    assert!(service.first().says("log WARN").contains("cannot be set back by this process"));
    let told = new.says("log WARN");
    assert!(told.contains("ends this process first") && told.contains("Permission denied"), "{told}");
    assert_eq!(request_status_of(&new), [told.trim()]);
    assert_eq!(score(new.pid), 1000);
    assert_eq!(service.connect().pid, new.pid);
}
