//! What systemd is told, seen by a test that stands in for it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::manager::Manager;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Linger, Listen, Step, at, ms, never_ready};

pollflip_kit::trials![
    systemd_is_told_of_a_start_and_of_a_restart,
    systemd_is_told_that_a_failed_restart_is_over_and_why,
    systemd_is_told_one_line_whatever_the_reason_has_in_it,
    systemd_is_told_of_progress,
    systemd_is_told_why_a_reload_by_signal_is_refused,
    systemd_is_told_that_the_service_stops,
    systemd_that_is_busy_is_told_that_the_service_stops_before_that_has_ended,
    systemd_is_told_last_that_the_service_stops_in_the_middle_of_a_restart,
    systemd_is_not_told_that_the_service_stops_by_one_that_does_not_have_it,
    systemd_is_told_that_the_service_stops_by_one_that_has_it_back,
    systemd_is_told_nothing_new_by_a_release_that_fails_on_probation,
    nothing_more_happens_until_systemd_has_answered,
    systemd_that_never_answers_is_not_waited_for_forever,
    systemd_that_is_busy_is_told_of_the_start_later_and_holds_nothing_up,
    promise_07_the_successor_is_not_told_that_it_is_final_before_systemd_has_been_sent_its_number,
    promise_07_the_old_one_killed_before_systemd_has_been_sent_the_number_leaves_the_new_one_to_send_it,
    promise_07_the_old_one_killed_before_systemd_has_answered_leaves_the_new_one_the_service,
    promise_03_a_drop_held_up_by_systemd_answers_though_the_new_one_is_killed_meanwhile,
    promise_07_a_drop_held_up_by_systemd_and_stopped_past_its_time_still_commits,
    systemd_that_is_busy_does_not_hold_up_a_thread_that_says_ready,
    systemd_that_is_not_there_does_no_harm,
    systemd_is_told_though_the_program_forgets_where_it_listens,
    systemd_is_told_of_a_process_that_is_left_alone_between_two_restarters,
    systemd_is_left_the_crash_of_a_process_that_has_taken_over,
];

fn start(setup: Setup) -> (Manager, Service) {
    let (manager, setup) = Manager::new(setup);
    let service = setup.start();
    manager.expect(&["READY=1"]);
    (manager, service)
}

fn systemd_is_told_of_a_start_and_of_a_restart() {
    let (manager, service) = start(Setup::new());
    for generation in 1..=2 {
        let asker = service.restart_meanwhile();
        let usec = manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]).lines[1].clone();
        let usec: u64 = usec.trim_start_matches("MONOTONIC_USEC=").parse().expect("a number");
        let uptime = std::fs::read_to_string("/proc/uptime").expect("a clock");
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        assert!(usec > 0 && usec as f64 <= (uptime + 1.0) * 1e6, "{usec} at {uptime} s");
        let told = manager.expect(&["MAINPID=", "READY=1", "STATUS="]).lines[0].clone();
        Manager::answer(manager.expect_barrier());
        let pid = asker.join().expect("a thread").expect("a restart");
        assert_eq!(told, format!("MAINPID={pid}"));
        service.hub.nth(generation).says("event PredecessorGone");
        manager.expect_nothing();
    }
}

fn systemd_is_told_though_the_program_forgets_where_it_listens() {
    // Libraries that tell it that a service is ready can take the variable out of the environment at once.
    let (manager, service) = start(Setup::new().plan(at(Step::Built, Act::ForgetVariable("NOTIFY_SOCKET".into()))));
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    let message = manager.receive();
    let new = service.hub.nth(1);
    assert_eq!(message.lines, [format!("MAINPID={}", new.pid), "READY=1".into(), "STATUS=".into()]);
    Manager::answer(manager.expect_barrier());
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
}

fn systemd_is_told_of_a_process_that_is_left_alone_between_two_restarters() {
    let (manager, service) = start(Setup::new().set(Listen::Nowhere));
    service.plan_next(never_ready().at(Step::Claimed, Act::Drop));
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    let new = service.hub.nth(1);
    assert_eq!(new.did(&Act::Drop), "dropped");
    service.first().signal(Signal::SIGKILL);
    service.first().ends();
    asker.join().expect("a thread").expect_err("a restart whose old process was killed");
    // The service is its own from here on, and it has nobody yet who could say so.
    assert_eq!(new.ask(Act::StartupComplete), "ok");
    assert_eq!(new.ask(Act::Build), "ok");
    let told = manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    assert_eq!(told.lines[0], format!("MAINPID={}", new.pid));
    // Once is enough.
    assert_eq!((new.ask(Act::Drop).as_str(), new.ask(Act::Build).as_str(), new.ask(Act::Ready).as_str()), ("dropped", "ok", "ok"));
    assert!(new.ask(Act::Status).contains("idle"));
    manager.expect_nothing();
}

fn systemd_is_told_that_a_failed_restart_is_over_and_why() {
    let (manager, service) = start(Setup::new());
    service.plan_next(at(Step::Born, Act::Exit(3)));
    service.fail_to_restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["READY=1", "STATUS=the successor exited with status 3 before it was ready; its standard error may say why"]);
    service.first().says("event Failed");
    manager.expect_nothing();
}

fn systemd_is_told_one_line_whatever_the_reason_has_in_it() {
    let setup = Setup::new();
    let directory = setup.path("release\nMAINPID=1\nSTOPPING=1");
    std::fs::create_dir(&directory).expect("a directory");
    let program = directory.join("program");
    std::os::unix::fs::symlink(own_program(), &program).expect("a link");
    let (manager, service) = start(setup.program(program.clone()));
    std::fs::remove_file(&program).expect("the link");
    service.fail_to_restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    let told = manager.expect(&["READY=1", "STATUS="]);
    assert!(told.lines[1].contains("/release MAINPID=1 STOPPING=1/program"), "{told:?}");
}

fn systemd_is_told_of_progress() {
    let (manager, service) = start(Setup::new());
    service.plan_next(at(Step::Built, Act::Progress("40%".into())).at(Step::Built, Act::Exit(1)));
    service.fail_to_restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["STATUS=40%"]);
    manager.expect(&["READY=1", "STATUS=the successor exited with status 1 before it was ready; its standard error may say why"]);
}

fn systemd_is_told_why_a_reload_by_signal_is_refused() {
    let (manager, service) = start(Setup::new().set(Config::MaxDraining(0)).set(Linger));
    let first = service.first();
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    Manager::answer(manager.expect_barrier());
    let pid = asker.join().expect("a thread").expect("a restart");
    let second = service.hub.process(pid);
    second.says("event Committed");
    // With Type=notify-reload it waits for the answer to the signal.
    second.signal(Signal::SIGUSR1);
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    let why =
        format!("STATUS=1 earlier generation still finishes its work, the oldest as process {}: wait for them, or end them", first.pid);
    manager.expect(&["READY=1", &why]);
    // Whoever asks by the socket is answered there.
    service.try_restart().expect_err("a refusal");
    manager.expect_nothing();
}

fn systemd_is_told_that_the_service_stops() {
    let (manager, service) = start(Setup::new());
    service.first().ask(Act::Stop);
    manager.expect(&["STOPPING=1"]);
}

fn systemd_that_is_busy_is_told_that_the_service_stops_before_that_has_ended() {
    let (manager, service) = start(Setup::new());
    let only = service.first();
    manager.is_kept_busy();
    assert_eq!(only.ask(Act::Stop), "stopped");
    only.tell(Act::Drop);
    wait_until("it to wait in the drop", || procfs::polls(only.pid));
    manager.expect(&["STOPPING=1"]);
    only.says_again("answer", 1);
}

fn systemd_is_told_last_that_the_service_stops_in_the_middle_of_a_restart() {
    let (manager, service) = start(Setup::new());
    let old = service.first();
    service.plan_next(at(Step::Built, Act::Hang));
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    service.hub.nth(1).says("hangs");
    old.ask(Act::Stop);
    manager.expect(&["STOPPING=1"]);
    asker.join().expect("a thread").expect_err("a restart that was called off");
    // The reload is over, and what was said before that is not: a unit that is ready again would be called active to its end.
    manager.expect(&["READY=1", "STATUS=the restart was called off because this process is stopping"]);
    manager.expect(&["STOPPING=1"]);
    assert_eq!(old.ask(Act::Drop), "dropped");
    manager.expect_nothing();
}

fn systemd_is_not_told_that_the_service_stops_by_one_that_does_not_have_it() {
    let (manager, service) = start(Setup::new().set(Config::Probation(ms(120000))));
    let old = service.first();
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    old.says("event HandedOff");
    let new = service.hub.nth(1);
    new.says("serving");
    // It would not listen to this one yet, or it would, and take the end of this one for that of the service.
    assert_eq!(new.ask(Act::Stop), "stopped");
    manager.expect_nothing();
    // It has the service after all, and ends.
    assert_eq!(old.ask(Act::Stop), "stopped");
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    Manager::answer(manager.expect_barrier());
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    manager.expect(&["STOPPING=1"]);
}

fn systemd_is_told_that_the_service_stops_by_one_that_has_it_back() {
    // What has hung up is taken for one that is about to end for a second, and is killed after that in any case.
    wait_until("a look in time", || {
        let (manager, service) = start(Setup::new().set(Config::Probation(ms(120000))));
        let old = service.first();
        service.plan_next(at(Step::Granted, Act::CloseLifeline));
        let asker = service.restart_meanwhile();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        old.says("event HandedOff");
        service.hub.nth(1).did(&Act::CloseLifeline);
        // It has seen that.
        (0..2).for_each(|_| drop(old.ask(Act::Status)));
        let is_in_time = old.ask(Act::Status).contains("handing off");
        // It may be final, and then it is not this one that stops.
        assert_eq!(old.ask(Act::Stop), "stopped");
        asker.join().expect("a thread").expect_err("a successor that has hung up");
        old.says("event Resumed");
        if !is_in_time {
            return false;
        }
        let why = "STATUS=the successor closed its lifeline and has been killed; does something in it close descriptors it does not know?";
        manager.expect(&["READY=1", why]);
        manager.expect(&["STOPPING=1"]);
        true
    });
}

fn systemd_is_told_nothing_new_by_a_release_that_fails_on_probation() {
    let (manager, service) = start(Setup::new().set(Config::Probation(ms(120000))));
    service.plan_next(at(Step::Granted, Act::Exit(3)));
    service.fail_to_restart();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["READY=1", "STATUS=the successor exited with status 3 on probation"]);
    service.first().says("event Resumed");
    manager.expect_nothing();
}

fn nothing_more_happens_until_systemd_has_answered() {
    // It is waited for five seconds at the most, more than which a busy machine may take to come here.
    wait_until("a look in time", is_held_up_by_systemd);
}

/// Whether it was looked at in time.
fn is_held_up_by_systemd() -> bool {
    let (manager, service) = start(Setup::new().set(Linger));
    let old = service.first();
    let began = Instant::now();
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    let barrier = manager.expect_barrier();
    // It still runs its loop, and has not been told that it may end.
    service.hub.nth(1).says("serving");
    let status = old.ask(Act::Status);
    let (completed, is_answered) = (old.said("event Completed"), asker.is_finished());
    let is_in_time = began.elapsed() < Duration::from_secs(5);
    if is_in_time {
        assert!(status.contains("handed off"), "{status}");
        assert_eq!(completed, Vec::<String>::new());
        assert!(!is_answered);
    }
    Manager::answer(barrier);
    old.says("event Completed");
    asker.join().expect("a thread").expect("a restart");
    is_in_time
}

fn systemd_that_never_answers_is_not_waited_for_forever() {
    let (manager, service) = start(Setup::new());
    let began = Instant::now();
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    let barrier = manager.expect_barrier();
    asker.join().expect("a thread").expect("a restart");
    assert!(began.elapsed() >= Duration::from_secs(5));
    service.first().ends();
    Manager::answer(barrier);
}

/// A service that becomes ready while its manager has no room for another word.
fn start_with_a_full_manager(setup: Setup) -> (Manager, Service) {
    let (manager, setup) = Manager::new(setup);
    manager.is_kept_busy();
    (manager, setup.launch())
}

fn systemd_that_is_busy_is_told_of_the_start_later_and_holds_nothing_up() {
    let (manager, service) = start_with_a_full_manager(Setup::new());
    let old = service.first();
    old.says("serving");
    assert!(old.ask(Act::Status).contains("idle"));
    // What comes later is told later.
    let asker = service.restart_meanwhile();
    old.says("event Restarting");
    manager.expect(&["READY=1"]);
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    Manager::answer(manager.expect_barrier());
    asker.join().expect("a thread").expect("a restart");
}

fn promise_07_the_successor_is_not_told_that_it_is_final_before_systemd_has_been_sent_its_number() {
    // A busy machine may take longer than the old one waits for systemd.
    wait_until("a look in time", || {
        let (manager, setup) = Manager::new(Setup::new().set(Linger));
        let service = setup.start();
        manager.expect(&["READY=1"]);
        manager.is_kept_busy();
        let old = service.first();
        let began = Instant::now();
        let asker = service.restart_meanwhile();
        let new = service.hub.process(old.says("event HandedOff").parse().expect("a pid"));
        // It would have been told by now, and would restart in its turn: what is sent of that one could overtake what waits here.
        old.ask(Act::Status);
        let refusal = new.ask(Act::Request);
        // The old one answers for as long as the new one does not.
        let who_answers = service.status().pid;
        if began.elapsed() >= Duration::from_secs(5) {
            return false;
        }
        assert!(refusal.starts_with("OnProbation"), "{refusal}");
        assert_eq!(who_answers, old.pid);
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
        Manager::answer(manager.expect_barrier());
        new.says("event Committed");
        asker.join().expect("a thread").expect("a restart");
        true
    });
}

/// The old one, which has handed over and waits for systemd, is killed then, if it is in time; the new one has the service.
fn killed_while_it_waits(service: &Service, began: Instant, new: &Process) -> bool {
    let old = service.first();
    assert!(old.ask(Act::Status).contains("handed off"));
    old.signal(Signal::SIGKILL);
    // A busy machine may take longer than the old one waits for systemd.
    let is_in_time = began.elapsed() < Duration::from_secs(5);
    old.ends();
    assert!(!is_in_time || old.said("event Completed").is_empty());
    new.says("event PredecessorGone");
    assert_eq!(new.said("event"), ["Granted", "Committed", "PredecessorGone"]);
    let status = service.status();
    assert_eq!((status.pid, status.state.as_str()), (new.pid, "idle"));
    assert_eq!(service.connect().pid, new.pid);
    is_in_time
}

/// The next restart, of which systemd learns as of any other.
fn restarts_under(manager: &Manager, service: &Service) {
    let asker = service.restart_meanwhile();
    manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
    manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
    Manager::answer(manager.expect_barrier());
    asker.join().expect("a thread").expect("a restart");
    manager.expect_nothing();
}

fn promise_07_the_old_one_killed_before_systemd_has_been_sent_the_number_leaves_the_new_one_to_send_it() {
    wait_until("a look in time", || {
        let (manager, service) = start(Setup::new());
        manager.is_kept_busy();
        let began = Instant::now();
        let asker = service.restart_meanwhile();
        let new = service.hub.process(service.first().says("event HandedOff").parse().expect("a pid"));
        new.says("serving");
        if !killed_while_it_waits(&service, began, &new) {
            return false;
        }
        asker.join().expect("a thread").expect_err("the one who was to answer has died");
        // What the old one had yet to say is lost with it.
        manager.expect(&[&format!("MAINPID={}", new.pid), "READY=1", "STATUS="]);
        restarts_under(&manager, &service);
        true
    });
}

fn promise_07_the_old_one_killed_before_systemd_has_answered_leaves_the_new_one_the_service() {
    wait_until("a look in time", || {
        let (manager, service) = start(Setup::new());
        let began = Instant::now();
        let asker = service.restart_meanwhile();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        let told = manager.expect(&["MAINPID=", "READY=1", "STATUS="]).lines[0].clone();
        let barrier = manager.expect_barrier();
        let new = service.hub.nth(1);
        new.says("event Committed");
        assert_eq!(told, format!("MAINPID={}", new.pid));
        if !killed_while_it_waits(&service, began, &new) {
            return false;
        }
        asker.join().expect("a thread").expect_err("the one who was to answer has died");
        Manager::answer(barrier);
        restarts_under(&manager, &service);
        true
    });
}

/// It has been granted the service for good: whoever asked is told so, once, and no later than systemd is waited for.
fn promise_03_a_drop_held_up_by_systemd_answers_though_the_new_one_is_killed_meanwhile() {
    let (manager, service) = start(Setup::new());
    manager.is_kept_busy();
    let old = service.first();
    old.on(Step::HandedOff, Act::Drop);
    let asker = service.restart_meanwhile();
    let new = service.hub.process(old.says("event HandedOff").parse().expect("a pid"));
    new.signal(Signal::SIGKILL);
    new.ends();
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    assert_eq!(old.did(&Act::Drop), "dropped");
    assert_eq!(old.said("event"), ["Restarting".into(), format!("Spawned {}", new.pid), format!("HandedOff {}", new.pid)]);
    assert_eq!(old.ask(Act::Request), "there is no restarter");
}

/// The program goes on without its restarter. Who asked and the new one wait for the commit, and would hear nothing more from here.
fn promise_07_a_drop_held_up_by_systemd_and_stopped_past_its_time_still_commits() {
    let (manager, service) = start(Setup::new().set(Config::Probation(ms(120000))));
    manager.is_kept_busy();
    let old = service.first();
    old.on(Step::HandedOff, Act::Drop);
    let asker = service.restart_meanwhile();
    let new = service.hub.process(old.says("event HandedOff").parse().expect("a pid"));
    wait_until("the old one to wait in the drop", || procfs::sleeps(old.pid));
    old.signal(Signal::SIGSTOP);
    wait_until("the old one to stand still", || procfs::state(old.pid) == Some('T'));
    // The clock is what this is about.
    std::thread::sleep(Duration::from_millis(5500));
    old.signal(Signal::SIGCONT);
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    assert_eq!(old.did(&Act::Drop), "dropped");
    new.says("event Committed");
    assert!(old.lives());
    assert_eq!(new.ask(Act::Request), "ok");
}

fn systemd_that_is_busy_does_not_hold_up_a_thread_that_says_ready() {
    let (manager, service) = start_with_a_full_manager(Setup::new().plan(never_ready().at(Step::Claimed, Act::StartupCompleteElsewhere)));
    let old = service.first();
    assert_eq!(old.did(&Act::StartupCompleteElsewhere), "ok");
    assert!(old.ask(Act::Status).contains("idle"));
    manager.expect(&["READY=1"]);
    old.ask(Act::Status);
    manager.expect_nothing();
}

fn systemd_that_is_not_there_does_no_harm() {
    let setup = Setup::new();
    let nowhere = setup.path("nowhere");
    let service = setup.env("NOTIFY_SOCKET", nowhere).start();
    service.restart();
    service.plan_next(at(Step::Born, Act::Exit(1)));
    service.fail_to_restart();
}

/// Whom systemd takes for the service, systemd must be able to reap: else it would not learn that this was a crash. An end in order says
/// nothing that it would miss.
fn systemd_is_left_the_crash_of_a_process_that_has_taken_over() {
    for (end, stays) in [(Act::Exit(0), false), (Act::Exit(3), true), (Act::Abort, true)] {
        let (manager, service) = start(Setup::new().set(Linger));
        let old = service.first();
        let asker = service.restart_meanwhile();
        manager.expect(&["RELOADING=1", "MONOTONIC_USEC=", "STATUS=restarting"]);
        manager.expect(&["MAINPID=", "READY=1", "STATUS="]);
        Manager::answer(manager.expect_barrier());
        let new = service.hub.process(asker.join().expect("a thread").expect("a restart"));
        new.tell(end.clone());
        assert_eq!(old.says("event SuccessorGone"), new.pid.to_string());
        assert_eq!(procfs::state(new.pid), stays.then_some('Z'), "{end:?}");
    }
}
