//! Restarts under a guard that is an ordinary child, and how it ends.

use nix::sys::signal::Signal;
use pollflip::restart_coordination_socket::request_restart;

use crate::kit::{End, POLLFLIP, end_of, guarded, has_children, has_program, how, log, own_descriptors, signal};
use pollflip_kit::client::Load;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, Process, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, RunAs, Step, at, ms};

pollflip_kit::trials![
    promise_16_twenty_restarts_under_load_and_the_pid_stays,
    promise_16_it_ends_with_the_status_of_the_third_generation,
    it_dies_of_the_signal_of_the_third_generation,
    a_signal_to_the_guard_restarts_the_service,
    the_end_waits_for_earlier_generations,
    told_to_end_all_generations_are_told,
    told_to_end_on_probation_both_end,
    told_to_end_before_it_is_ready_it_ends,
    a_signal_to_the_group_of_the_guard_reaches_the_service_once,
    a_guard_that_is_stopped_meanwhile_takes_the_new_process_in,
    a_service_that_is_stopped_is_waited_for,
    a_restart_that_fails_changes_nothing,
    a_guard_under_a_guard_is_a_service_like_others,
    nobody_is_left_when_the_guard_is_killed,
    a_generation_that_hangs_ends_with_the_guard,
    a_generation_that_hangs_ends_with_the_guard_after_a_change_of_user,
    a_new_one_ends_with_the_guard_although_an_earlier_one_does_not,
    a_status_that_the_predecessor_has_taken_is_known,
    a_status_that_nobody_tells_is_that_of_a_failure,
    nobody_is_left_when_the_guard_is_killed_after_a_change_of_user,
    nobody_is_left_when_the_guard_is_killed_and_an_earlier_one_drains,
];

fn promise_16_twenty_restarts_under_load_and_the_pid_stays() {
    let service = guarded(Setup::new(), "").start();
    let guard = service.launched();
    let load = Load::start(service.address(), 4);
    for _ in 0..20 {
        service.restart();
    }
    has_children(guard, 1);
    wait_until("the guard to have its own descriptors only", || own_descriptors(guard) == 4);
    let now = Snapshot::of(guard);
    assert_eq!((now.threads, now.zombies), (1, 0));
    let served = load.served();
    let failed = load.stop();
    println!("20 restarts under a guard: {served} served, {} failed", failed.len());
    assert!(served > 0 && failed.is_empty(), "{failed:?}");
    assert_eq!(service.connect().generation, 20);
    assert!(!procfs::has_ended(guard));
}

/// The third generation, when the two before it have ended.
fn third(service: &Service) -> Process {
    let second = service.restart();
    let third = service.restart();
    second.ends();
    third.says("event PredecessorGone");
    third
}

fn promise_16_it_ends_with_the_status_of_the_third_generation() {
    for status in [0, 7, 255] {
        let service = guarded(Setup::new(), "").start();
        third(&service).tell(Act::Exit(status));
        assert_eq!(how(end_of(&service)), End::Code(status), "{}", log(&service));
    }
}

fn it_dies_of_the_signal_of_the_third_generation() {
    for name in [Signal::SIGSEGV, Signal::SIGKILL, Signal::SIGABRT] {
        let service = guarded(Setup::new(), "").start();
        let third = third(&service);
        if name == Signal::SIGSEGV {
            assert_eq!(third.ask(Act::Default(Signal::SIGSEGV)), "set");
        }
        third.tell(Act::Raise(name));
        assert_eq!(how(end_of(&service)), End::Signal(name), "{}", log(&service));
    }
}

fn a_signal_to_the_guard_restarts_the_service() {
    let service = guarded(Setup::new(), "").start();
    for generation in 1..=3 {
        signal(service.launched(), Signal::SIGUSR1);
        assert!(service.hub.nth(generation).says("built").starts_with(&format!("generation {generation}")));
        service.hub.nth(generation).says("event PredecessorGone");
    }
}

fn the_end_waits_for_earlier_generations() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    let mut connection = service.connect();
    let new = service.restart();
    new.tell(Act::Exit(9));
    new.ends();
    wait_until("the guard to know", || log(&service).contains(&format!("process {} exited with status 9", new.pid)));
    connection.echo("still served");
    assert!(!procfs::has_ended(service.launched()));
    drop(connection);
    first.ends();
    assert_eq!(how(end_of(&service)), End::Code(9));
}

fn told_to_end_all_generations_are_told() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    let _connection = service.connect();
    let new = service.restart();
    assert!(first.lives());
    signal(service.launched(), Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGTERM));
    first.ends();
    new.ends();
}

fn told_to_end_on_probation_both_end() {
    let service = guarded(Setup::new().set(Config::Probation(ms(60000))), "").start();
    let first = service.first();
    let asked = service.restart_meanwhile();
    first.says("event HandedOff");
    signal(service.launched(), Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGTERM), "{}", log(&service));
    service.hub.nth(1).ends();
    asked.join().expect("no panic").expect_err("nobody is left to answer");
}

fn told_to_end_before_it_is_ready_it_ends() {
    let service = guarded(Setup::new().plan(at(Step::Claimed, Act::Hang)), "--restart always").launch();
    service.first().says("hangs");
    signal(service.launched(), Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGTERM), "{}", log(&service));
}

/// What supervisors do: with a handler, two signals would be seen as two.
fn a_signal_to_the_group_of_the_guard_reaches_the_service_once() {
    let service = guarded(Setup::new(), "").start();
    let group = nix::unistd::Pid::from_raw(service.launched() as i32);
    nix::sys::signal::killpg(group, Signal::SIGUSR1).expect("a group");
    service.hub.nth(1).says("event PredecessorGone");
    assert_eq!(service.hub.pids().len(), 2);
    assert_ne!(nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(service.hub.nth(1).pid as i32))), Ok(group));
}

fn a_guard_that_is_stopped_meanwhile_takes_the_new_process_in() {
    let service = guarded(Setup::new(), "").start();
    signal(service.launched(), Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(service.launched()) == Some('T'));
    let (first, new) = (service.first(), service.restart());
    // It waits for the guard for 5 s, and then no more.
    first.ends();
    signal(service.launched(), Signal::SIGCONT);
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
    new.tell(Act::Exit(3));
    assert_eq!(how(end_of(&service)), End::Code(3), "{}", log(&service));
}

/// That is no end. What the guard is sent meanwhile waits, until it is sent that the service goes on.
fn a_service_that_is_stopped_is_waited_for() {
    let service = guarded(Setup::new(), "--restart always --delay 1").start();
    let (guard, first) = (service.launched(), service.first());
    first.signal(Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(first.pid) == Some('T'));
    signal(guard, Signal::SIGUSR1);
    wait_until("it to have the signal", || procfs::has_signal(first.pid, "ShdPnd", Signal::SIGUSR1 as i32));
    assert_eq!((procfs::state(first.pid), procfs::children(guard)), (Some('T'), vec![first.pid]));
    signal(guard, Signal::SIGCONT);
    let new = service.hub.nth(1);
    new.says("event PredecessorGone");
    // The end waits in the same way.
    new.signal(Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(new.pid) == Some('T'));
    signal(guard, Signal::SIGTERM);
    wait_until("it to have the signal", || procfs::has_signal(new.pid, "ShdPnd", Signal::SIGTERM as i32));
    assert!(!procfs::has_ended(guard));
    signal(guard, Signal::SIGCONT);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGTERM), "{}", log(&service));
    assert_eq!(service.hub.pids(), [first.pid, new.pid]);
}

fn a_restart_that_fails_changes_nothing() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    service.plan_next(at(Step::Born, Act::Exit(4)));
    assert!(service.fail_to_restart().contains("status 4"));
    assert!(first.lives());
    service.restart();
    service.hub.nth(2).tell(Act::Exit(6));
    assert_eq!(how(end_of(&service)), End::Code(6), "{}", log(&service));
}

/// A service under a guard after so many restarts, and who serves then, alone.
fn restarted(restarts: usize) -> (Service, Process) {
    let service = guarded(Setup::new(), "").start();
    let mut last = service.first();
    for _ in 0..restarts {
        let before = std::mem::replace(&mut last, service.restart());
        before.ends();
        last.says("event PredecessorGone");
    }
    (service, last)
}

fn nobody_is_left_when_the_guard_is_killed() {
    for restarts in 0..3 {
        let (service, last) = restarted(restarts);
        signal(service.launched(), Signal::SIGKILL);
        last.ends();
    }
}

/// Its loop does not see the end of the guard any more: it is the kernel that tells it.
fn hangs(process: &Process) {
    process.tell(Act::Hang);
    process.says("hangs");
}

fn a_generation_that_hangs_ends_with_the_guard() {
    for restarts in 0..3 {
        let (service, last) = restarted(restarts);
        hangs(&last);
        signal(service.launched(), Signal::SIGKILL);
        last.ends();
    }
}

/// Between `build` and `ready`, where many give up their rights.
fn a_generation_that_hangs_ends_with_the_guard_after_a_change_of_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root, to become another user");
        return;
    }
    let service = guarded(Setup::new().plan(at(Step::Built, Act::Become(64998))), "").start();
    let first = service.first();
    assert_eq!(procfs::status(first.pid, "Uid").expect("a process").split_whitespace().next(), Some("64998"));
    hangs(&first);
    signal(service.launched(), Signal::SIGKILL);
    first.ends();
}

/// The new one has a parent that lives when the guard is killed.
fn nobody_is_left_when_the_guard_is_killed_and_an_earlier_one_drains() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    let _connection = service.connect();
    let new = service.restart();
    signal(service.launched(), Signal::SIGKILL);
    first.ends();
    new.ends();
    request_restart(service.socket(), DEADLINE, |_| {}).expect_err("nobody serves");
}

/// The kernel knows it when the parent has reaped it, from Linux 6.15 on.
fn a_status_that_the_predecessor_has_taken_is_known() {
    let release = nix::sys::utsname::uname().expect("a name").release().to_string_lossy().into_owned();
    let version: Vec<u32> = release.split(['.', '-']).take(2).filter_map(|part| part.parse().ok()).collect();
    if version < vec![6, 15] {
        eprintln!("skipped: this kernel ({release}) tells nobody but the parent");
        return;
    }
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    let connection = service.connect();
    let new = service.restart();
    assert_eq!(first.ask(Act::ReapAny), "started");
    // As long as it is a zombie all can see its status.
    signal(service.launched(), Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(service.launched()) == Some('T'));
    new.tell(Act::Exit(9));
    wait_until("its predecessor to reap it", || procfs::state(new.pid).is_none());
    signal(service.launched(), Signal::SIGCONT);
    wait_until("the guard to know", || log(&service).contains(&format!("process {} exited with status 9", new.pid)));
    drop(connection);
    assert_eq!(how(end_of(&service)), End::Code(9));
}

/// Older kernels do not know the question.
fn a_status_that_nobody_tells_is_that_of_a_failure() {
    if !has_program("strace") {
        return;
    }
    let setup = Setup::new();
    let log_path = setup.path("guard.log");
    let shell = "exec strace -o /dev/null -e trace=ioctl -e inject=ioctl:error=ENOTTY \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\"";
    let service = setup.env("POLLFLIP", POLLFLIP).env("LOG", log_path).shell(shell).start();
    let first = service.first();
    let connection = service.connect();
    let new = service.restart();
    assert_eq!(first.ask(Act::ReapAny), "started");
    // As long as it is a zombie all can see its status.
    let guard = procfs::stat(first.pid).expect("a process")[1].parse().expect("a parent");
    signal(guard, Signal::SIGSTOP);
    wait_until("it to stop", || matches!(procfs::state(guard), Some('T' | 't')));
    new.tell(Act::Exit(0));
    wait_until("its predecessor to reap it", || procfs::state(new.pid).is_none());
    signal(guard, Signal::SIGCONT);
    wait_until("the guard to know", || log(&service).contains(&format!("process {} has ended, and how is not known", new.pid)));
    drop(connection);
    assert_eq!(how(end_of(&service)), End::Code(1), "{}", log(&service));
}

/// That takes the death signal away, which the guard has arranged for.
fn nobody_is_left_when_the_guard_is_killed_after_a_change_of_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root, to become another user");
        return;
    }
    let setup = Setup::new().set(RunAs(64998));
    std::fs::set_permissions(setup.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
    let service = guarded(setup, "").start();
    let first = service.first();
    assert_eq!(procfs::status(first.pid, "Uid").expect("a process").split_whitespace().next(), Some("64998"));
    signal(service.launched(), Signal::SIGKILL);
    first.ends();
}

/// The guard is no parent of the new one yet, and that one must not keep the address.
fn a_new_one_ends_with_the_guard_although_an_earlier_one_does_not() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    assert_eq!(first.ask(Act::Handle(Signal::SIGTERM)), "handled");
    let mut connection = service.connect();
    let new = service.restart();
    signal(service.launched(), Signal::SIGKILL);
    new.ends();
    connection.echo("still served");
    first.signal(Signal::SIGKILL);
    first.ends();
}

fn a_guard_under_a_guard_is_a_service_like_others() {
    let service = guarded(Setup::new(), "-- \"$POLLFLIP\" guard").start();
    for _ in 0..2 {
        service.restart().says("event PredecessorGone");
    }
    service.hub.nth(2).tell(Act::Abort);
    assert_eq!(how(end_of(&service)), End::Signal(Signal::SIGABRT));
    let service = guarded(Setup::new(), "-- \"$POLLFLIP\" guard").start();
    let new = service.restart();
    new.says("event PredecessorGone");
    signal(service.launched(), Signal::SIGKILL);
    new.ends();
}
