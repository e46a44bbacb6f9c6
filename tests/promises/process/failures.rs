//! Promise 3: whatever a successor does, the predecessor keeps serving, the asker is told the true reason, nothing is left behind, and
//! the next restart works.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Kind, Listen, Plan, Step, at, ms, never_ready, set, tcp};

pollflip_kit::trials![
    promise_03_a_successor_that_exits_with_0_is_reported,
    promise_03_a_successor_that_exits_with_3_is_reported,
    promise_03_a_successor_that_exits_after_its_build_is_reported,
    promise_03_a_successor_that_panics_is_reported,
    promise_03_a_successor_that_aborts_is_reported,
    promise_03_a_successor_that_is_killed_is_reported,
    promise_03_a_successor_that_is_killed_after_its_build_is_reported,
    promise_03_a_successor_that_hangs_before_its_build_is_killed_at_the_deadline,
    promise_03_a_successor_that_hangs_after_its_build_is_killed_at_the_deadline,
    promise_03_a_successor_that_is_stopped_is_killed_at_the_deadline,
    promise_03_a_successor_that_is_never_ready_is_killed_at_the_deadline,
    promise_03_a_successor_that_refuses_is_quoted,
    promise_03_a_long_refusal_after_much_progress_is_quoted_up_to_the_limit,
    promise_03_a_successor_whose_build_fails_is_quoted,
    promise_03_a_successor_that_the_end_of_its_predecessor_would_kill_is_quoted,
    promise_03_a_successor_that_wants_another_kind_of_socket_is_reported,
    promise_03_an_address_that_a_successor_cannot_bind_is_told,
    promise_03_the_last_line_of_a_successor_that_hangs_is_told,
    promise_03_a_successor_that_closes_its_lifeline_but_lives_on_is_killed,
    promise_03_a_successor_that_closes_its_lifeline_and_exits_is_reported_by_its_status,
    promise_03_a_successor_that_talks_garbage_is_killed,
    promise_03_a_successor_that_talks_as_a_predecessor_is_killed,
    promise_03_a_successor_of_a_later_protocol_is_killed,
    promise_03_a_successor_that_asks_for_the_state_twice_is_killed,
    promise_03_a_wrapper_that_does_not_exec_is_named,
    promise_03_a_helper_that_keeps_the_lifeline_does_not_hide_a_death,
    promise_03_what_a_later_version_says_is_skipped,
    promise_03_the_progress_of_a_successor_reaches_the_asker,
];

/// One failed restart: what the successor does, how the failure begins as a value, and what the asker must read.
fn fails(setup: Setup, plan: Plan, failure: &str, words: &[&str]) {
    let service = setup.start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    let mut kept = service.connect();
    service.plan_next(plan);

    let reason = service.fail_to_restart();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in: {reason}");
    }
    let told = old.says("event Failed");
    assert!(told.starts_with(failure), "{failure} expected: {told}");
    assert!(told.ends_with(&reason), "the asker was told {reason:?} and the program {told:?}");
    let status = service.status();
    assert_eq!((status.pid, status.state.as_str(), status.last_failure), (old.pid, "idle", Some(reason)));

    kept.echo("still here");
    drop(kept);
    assert_eq!(service.connect().pid, old.pid);
    // It need not have come to name itself, nor to take its plan, nor to be known to the loop.
    if let Some(born) = old.said("event Spawned").first() {
        let born = born.parse().expect("a pid");
        wait_until("the end of the successor", || procfs::has_ended(born));
    }
    service.expect_unchanged(&old, &before);

    service.plan_next(Plan::default());
    let new = service.restart_some_time();
    assert_eq!(service.connect().pid, new.pid);
}

/// With a short time to become ready; long enough for one that can, most of the time.
fn impatient() -> Setup {
    Setup::new().set(Config::ReadyTimeout(ms(2500)))
}

fn promise_03_a_successor_that_exits_with_0_is_reported() {
    fails(Setup::new(), at(Step::Born, Act::Exit(0)), "Exited { exit: Code(0)", &["exited with status 0 before it was ready"]);
}

fn promise_03_a_successor_that_exits_with_3_is_reported() {
    fails(Setup::new(), at(Step::Born, Act::Exit(3)), "Exited { exit: Code(3)", &["exited with status 3"]);
}

fn promise_03_a_successor_that_exits_after_its_build_is_reported() {
    fails(Setup::new(), at(Step::Claimed, Act::Exit(4)), "Exited { exit: Code(4)", &["exited with status 4"]);
}

fn promise_03_a_successor_that_panics_is_reported() {
    fails(Setup::new(), at(Step::Built, Act::Panic), "Exited { exit: Code(101)", &["exited with status 101"]);
}

fn promise_03_a_successor_that_aborts_is_reported() {
    fails(Setup::new(), at(Step::Born, Act::Abort), "Exited { exit: Signal(6)", &["was killed by SIGABRT"]);
}

fn promise_03_a_successor_that_is_killed_is_reported() {
    fails(Setup::new(), at(Step::Born, Act::Raise(Signal::SIGKILL)), "Exited { exit: Signal(9)", &["was killed by SIGKILL"]);
}

fn promise_03_a_successor_that_is_killed_after_its_build_is_reported() {
    fails(Setup::new(), at(Step::Claimed, Act::Raise(Signal::SIGKILL)), "Exited { exit: Signal(9)", &["was killed by SIGKILL"]);
}

fn promise_03_a_successor_that_hangs_before_its_build_is_killed_at_the_deadline() {
    fails(impatient(), at(Step::Born, Act::Hang), "TimedOut { limit: 2.5s", &["was not ready within 2.5 s"]);
}

fn promise_03_a_successor_that_hangs_after_its_build_is_killed_at_the_deadline() {
    fails(impatient(), at(Step::Built, Act::Hang), "TimedOut { limit: 2.5s", &["was not ready within 2.5 s"]);
}

fn promise_03_a_successor_that_is_stopped_is_killed_at_the_deadline() {
    fails(impatient(), at(Step::Born, Act::Raise(Signal::SIGSTOP)), "TimedOut { limit: 2.5s", &["was not ready within 2.5 s"]);
}

fn promise_03_a_successor_that_is_never_ready_is_killed_at_the_deadline() {
    fails(impatient(), never_ready(), "TimedOut { limit: 2.5s", &["was not ready within 2.5 s"]);
}

fn promise_03_a_successor_that_refuses_is_quoted() {
    let plan = at(Step::Built, Act::Refuse("the disk is full".into())).at(Step::Built, Act::Hang);
    fails(Setup::new(), plan, "Refused(\"the disk is full\")", &["refused: the disk is full"]);
}

fn promise_03_a_long_refusal_after_much_progress_is_quoted_up_to_the_limit() {
    let plan = at(Step::Built, Act::RefuseAtLength { lines: 200, characters: 3000 }).at(Step::Built, Act::Hang);
    // A text is cut behind the character that reaches 4096 bytes.
    let quoted = format!("n{}…", "ö".repeat(2048));
    fails(Setup::new(), plan, "Refused(\"nö", &[&format!("refused: {quoted}")]);
}

fn promise_03_a_successor_whose_build_fails_is_quoted() {
    fails(Setup::new(), set(Config::Signal(Some(9))), "Refused(", &["refused: ", "signal 9 cannot be the restart signal"]);
}

fn promise_03_a_successor_that_the_end_of_its_predecessor_would_kill_is_quoted() {
    // The first may: its parent is none of ours.
    let setup = Setup::new().plan(at(Step::Born, Act::EndWithParent(Signal::SIGKILL)));
    fails(
        setup,
        at(Step::Born, Act::EndWithParent(Signal::SIGTERM)),
        "Refused(",
        &["PR_SET_PDEATHSIG", "set that only where there is none"],
    );
}

fn promise_03_a_successor_that_wants_another_kind_of_socket_is_reported() {
    fails(
        Setup::new(),
        set(Listen::To(Kind::Udp.socket("echo", "127.0.0.1:0"))),
        "Exited { exit: Code(2)",
        &["exited with status 2 before it was ready: socket \"echo\" is a TCP", "was asked for"],
    );
}

fn promise_03_an_address_that_a_successor_cannot_bind_is_told() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = other.local_addr().expect("an address");
    let plan = set(Listen::To(tcp("another", address)));
    let told = format!("exited with status 2 before it was ready: cannot bind \"another\" as a TCP listener on {address}");
    fails(Setup::new(), plan, "Exited { exit: Code(2)", &[&told, "(os error 98)"]);
}

fn promise_03_the_last_line_of_a_successor_that_hangs_is_told() {
    let plan = at(Step::Built, Act::Progress("warming the cache, 40%".into())).at(Step::Built, Act::Hang);
    fails(impatient(), plan, "TimedOut { limit: 2.5s", &["was not ready within 2.5 s", "heard of it: warming the cache, 40%"]);
}

fn promise_03_a_successor_that_closes_its_lifeline_but_lives_on_is_killed() {
    fails(Setup::new(), at(Step::Born, Act::CloseLifeline).at(Step::Born, Act::Hang), "HungUp", &["closed its lifeline"]);
}

fn promise_03_a_successor_that_closes_its_lifeline_and_exits_is_reported_by_its_status() {
    // Its predecessor sees both at once, or one after the other.
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    for (number, is_held) in [true, false].into_iter().enumerate() {
        service.plan_next(at(Step::Born, Act::Wait).at(Step::Born, Act::CloseLifeline).at(Step::Born, Act::Exit(5)));
        let asker = service.restart_meanwhile();
        let new = service.hub.nth(number + 1);
        new.says("waits");
        if is_held {
            old.signal(Signal::SIGSTOP);
            wait_until("the old one to stand still", || procfs::state(old.pid) == Some('T'));
        }
        let begun = Instant::now();
        new.go();
        if is_held {
            new.ends();
            old.signal(Signal::SIGCONT);
        }
        let reason = asker.join().expect("a thread").expect_err("a successor that exits").to_string();
        // It has a second for the one after the other, more than which a busy machine may take.
        let is_too_slow = !is_held && begun.elapsed() >= Duration::from_secs(1) && reason.contains("closed its lifeline");
        assert!(is_too_slow || reason.contains("exited with status 5"), "{reason}");
        assert!(is_too_slow || old.says_again("event Failed", number).starts_with("Exited { exit: Code(5)"));
        service.expect_unchanged(&old, &before);
    }
    service.restart();
}

fn promise_03_a_successor_that_talks_garbage_is_killed() {
    let plan = at(Step::Born, Act::SayOnLifeline("GET / HTTP/1.1".into())).at(Step::Born, Act::Hang);
    fails(Setup::new(), plan, "Protocol(", &["broke the protocol", "a message that cannot be read"]);
}

fn promise_03_a_successor_that_talks_as_a_predecessor_is_killed() {
    let plan = at(Step::Born, Act::SayOnLifeline("{\"type\":\"granted\"}".into())).at(Step::Born, Act::Hang);
    fails(Setup::new(), plan, "Protocol(", &["a message for the other side"]);
}

fn promise_03_a_successor_of_a_later_protocol_is_killed() {
    let plan =
        at(Step::Born, Act::SayOnLifeline("{\"type\":\"here\",\"version\":9,\"oldest\":8,\"pid\":1}".into())).at(Step::Born, Act::Hang);
    fails(Setup::new(), plan, "Protocol(", &["no version of the lifeline before 8"]);
}

fn promise_03_a_successor_that_asks_for_the_state_twice_is_killed() {
    let plan = at(Step::Built, Act::SayOnLifeline("{\"type\":\"pull\"}".into()))
        .at(Step::Built, Act::SayOnLifeline("{\"type\":\"pull\"}".into()))
        .at(Step::Built, Act::Hang);
    fails(Setup::new(), plan, "Protocol(", &["asked for the state twice"]);
}

fn promise_03_a_wrapper_that_does_not_exec_is_named() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(at(Step::Born, Act::RunAsChild));
    let reason = service.fail_to_restart();
    assert!(reason.contains("a wrapper must exec the program"), "{reason}");
    // The one behind the wrapper learns that it has been given up, and ends by itself.
    // Which of the two announces itself first is not settled.
    let either = [service.hub.nth(1), service.hub.nth(2)];
    assert!(either.iter().any(|process| reason.contains(&format!("process {} answers", process.pid))), "{reason}");
    either.iter().for_each(|process| process.ends());
    assert_eq!(service.connect().pid, old.pid);
    service.expect_unchanged(&old, &before);
    service.restart();
}

fn promise_03_a_helper_that_keeps_the_lifeline_does_not_hide_a_death() {
    let service = Service::start();
    let old = service.first();
    let before = Snapshot::of(old.pid);
    service.plan_next(at(Step::Born, Act::StartHelper("exec sleep 1000".into())).at(Step::Born, Act::Exit(6)));
    let reason = service.fail_to_restart();
    assert!(reason.contains("exited with status 6"), "{reason}");
    let helper: u32 = service.hub.nth(1).did(&Act::StartHelper("exec sleep 1000".into())).parse().expect("a pid");
    assert!(!procfs::has_ended(helper));
    service.expect_unchanged(&old, &before);
    service.restart();
}

fn promise_03_what_a_later_version_says_is_skipped() {
    let service = Service::start();
    service.plan_next(at(Step::Built, Act::SayOnLifeline("{\"type\":\"sing\",\"song\":1}".into())));
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
}

fn promise_03_the_progress_of_a_successor_reaches_the_asker() {
    let service = Service::start();
    service.plan_next(at(Step::Built, Act::Progress("warming the cache, 40%".into())).at(Step::Built, Act::Wait));
    let (socket, (send, lines)) = (service.socket(), std::sync::mpsc::channel());
    let asker = std::thread::spawn(move || {
        let progress = |line: &str| send.send(line.to_owned()).expect("a test");
        pollflip::restart_coordination_socket::request_restart(socket, pollflip_kit::hub::DEADLINE, progress)
    });
    assert_eq!(lines.recv_timeout(pollflip_kit::hub::DEADLINE).as_deref(), Ok("warming the cache, 40%"));
    assert_eq!(service.first().says("event Progress"), "warming the cache, 40%");
    assert_eq!(service.status().progress.as_deref(), Some("warming the cache, 40%"));
    service.hub.nth(1).go();
    asker.join().expect("a thread").expect("a restart");
}
