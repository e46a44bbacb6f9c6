//! Promise 4: one restart at a time; who else asks is told at once what is going on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pollflip::restart_coordination_socket::RestartCoordinationSocket;
use pollflip::{RequestError, ServiceState};

use pollflip_kit::client::Raw;
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::{DEADLINE, wait_until};
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Config, Linger, Log, Plan, Step, at, ms, never_ready};
use pollflip_kit::surroundings::stale_socket;

pollflip_kit::trials![
    promise_04_a_second_asker_is_refused_at_once_with_what_is_going_on,
    promise_04_of_many_at_once_exactly_one_gets_a_restart,
    promise_04_a_process_that_is_not_ready_refuses,
    promise_04_both_refuse_during_a_probation,
    promise_04_who_has_handed_off_names_its_successor,
    promise_04_a_request_of_the_program_is_answered_by_events,
    the_status_follows_a_restart,
    the_status_names_the_program_and_those_that_finish_their_work,
    the_status_names_the_version_that_serves,
    a_line_of_the_log_names_who_writes_it_and_the_generations,
    the_client_says_why_nobody_answers,
    the_configuration_of_a_service_can_ask_it_for_a_restart,
    a_client_on_a_stream_of_the_programs_asks_as_one_by_path_does,
    a_client_on_a_stream_gives_up_at_its_deadline_and_tells_that_the_other_end_hung_up,
    the_client_gives_up_at_its_deadline,
    the_client_of_a_service_that_hangs_up_and_then_hangs_gives_up_at_its_deadline,
];

fn promise_04_a_second_asker_is_refused_at_once_with_what_is_going_on() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Built, Act::Wait));
    let first = service.restart_meanwhile();
    let successor = service.hub.nth(1);
    successor.says("waits");

    match service.try_restart() {
        Err(RequestError::Refused(why)) => assert!(why.contains("a restart has been under way for"), "{why}"),
        other => panic!("{other:?}"),
    }
    // A client of shellflip knows no refusal.
    let mut raw = Raw::connect(&service.socket());
    raw.send(r#"{"Request":"TryRestart"}"#);
    let answer = raw.receive();
    assert!(answer.starts_with(r#"{"Response":{"RestartFailed":"a restart has been under way for"#), "{answer}");
    assert!(old.ask(Act::Request).starts_with("UnderWay {"));

    successor.go();
    let pid = first.join().expect("a thread").expect("a restart");
    assert_eq!(pid, successor.pid);
}

fn promise_04_of_many_at_once_exactly_one_gets_a_restart() {
    let service = Service::start();
    service.plan_next(at(Step::Built, Act::Wait));
    let askers: Vec<_> = (0..16).map(|_| service.restart_meanwhile()).collect();
    let successor = service.hub.nth(1);
    successor.says("waits");
    // All but one are answered while that one still waits.
    let mut unanswered = askers;
    let mut refused = 0;
    while unanswered.len() > 1 {
        let (done, waiting): (Vec<_>, Vec<_>) = unanswered.into_iter().partition(thread::JoinHandle::is_finished);
        for asker in done {
            match asker.join().expect("a thread") {
                Err(RequestError::Refused(_)) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        unanswered = waiting;
        thread::yield_now();
    }
    assert_eq!(refused, 15);
    successor.go();
    let pid = unanswered.pop().expect("one").join().expect("a thread").expect("a restart");
    assert_eq!(service.connect().pid, pid);
    assert_eq!(service.hub.pids().len(), 2);
}

fn promise_04_a_process_that_is_not_ready_refuses() {
    let service = Setup::new().plan(never_ready()).launch();
    let first = service.first();
    first.says("socket echo");
    assert!(first.ask(Act::Request).starts_with("NotReady"));
    assert_eq!(first.ask(Act::Ready), "ok");
    assert_eq!(first.ask(Act::Request), "ok");
    first.says("event Completed");
}

fn promise_04_both_refuse_during_a_probation() {
    let service = Setup::new().set(Config::Probation(ms(120000))).start();
    let old = service.first();
    let asker = service.restart_meanwhile();
    let new = service.hub.process(old.says("event HandedOff").parse().expect("a pid"));
    new.says("serving");
    // Only the old one takes requests in.
    match service.try_restart() {
        Err(RequestError::Refused(why)) => {
            assert!(why.contains(&format!("process {} has taken over and must prove itself", new.pid)), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(old.ask(Act::Request).starts_with("OnProbation { successor: Some("));
    assert!(new.ask(Act::Request).starts_with("OnProbation { successor: None }"));
    assert_eq!(service.status().state, pollflip::ServiceState::HandingOff);
    // Its end makes the restart final.
    assert_eq!(old.ask(Act::Stop), "stopped");
    assert_eq!(asker.join().expect("a thread").expect("a restart"), new.pid);
    new.says("event Committed");
    assert_eq!(new.ask(Act::Request), "ok");
}

fn promise_04_who_has_handed_off_names_its_successor() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let new = service.restart();
    old.says("event Completed");
    assert!(old.ask(Act::Request).starts_with(&format!("HandedOff {{ successor: {} }}", new.pid)));
    assert_eq!(service.status().pid, new.pid);
}

fn promise_04_a_request_of_the_program_is_answered_by_events() {
    let service = Service::start();
    let old = service.first();
    assert_eq!(old.ask(Act::Request), "ok");
    let new = service.hub.process(old.says("event Completed").parse().expect("a pid"));
    old.ends();
    assert_eq!(
        old.said("event"),
        ["Restarting".into(), format!("Spawned {}", new.pid), format!("HandedOff {}", new.pid), format!("Completed {}", new.pid)]
    );
    new.says("event PredecessorGone");
    new.says("event Committed");
    assert_eq!(new.said("event"), ["Granted", "Committed", "PredecessorGone"]);
    assert_eq!(new.says("built"), format!("generation 1 predecessor {}", old.pid));
}

fn the_status_follows_a_restart() {
    let service = Service::start();
    let old = service.first();
    let status = service.status();
    assert_eq!((status.pid, status.generation, status.state.as_str(), status.successor), (old.pid, 0, "idle", None));
    service.plan_next(at(Step::Built, Act::Wait));
    let asker = service.restart_meanwhile();
    let new = service.hub.nth(1);
    new.says("waits");
    // The successor may have come this far before the restart thread has told the loop of it.
    old.says("event Spawned");
    let status = service.status();
    assert_eq!((status.pid, status.state.as_str(), status.successor), (old.pid, "awaiting ready", Some(new.pid)));
    assert!(status.under_way().is_some());
    new.go();
    asker.join().expect("a thread").expect("a restart");
    let status = service.status();
    assert_eq!((status.pid, status.generation, status.state.as_str()), (new.pid, 1, "idle"));
}

fn the_status_names_the_program_and_those_that_finish_their_work() {
    let service = Setup::new().set(Linger).start();
    let old = service.first();
    let status = service.status();
    assert_eq!(std::path::Path::new(&status.program), procfs::executable(old.pid));
    assert_eq!((status.version, status.draining), (None, vec![]));
    let new = service.restart();
    let status = service.status();
    assert_eq!((status.pid, status.draining), (new.pid, vec![old.pid]));
    old.signal(Signal::SIGKILL);
    wait_until("the end of the old one to be seen", || service.status().draining.is_empty());
}

fn the_status_names_the_version_that_serves() {
    let service = Setup::new().set(Config::Version("1.0".into())).start();
    let old = service.first();
    let next = |plan: Plan| service.plan_next(plan.set(Config::Version("2.0 \"β\"".into())));
    for (act, reason) in [(Act::Exit(3), "exited with status 3"), (Act::Raise(Signal::SIGKILL), "SIGKILL")] {
        next(at(Step::Built, act));
        assert!(service.fail_to_restart().contains(reason));
        let status = service.status();
        assert_eq!((status.pid, status.version.as_deref()), (old.pid, Some("1.0")));
    }
    next(Plan::default());
    let new = service.restart();
    let status = service.status();
    assert_eq!((status.pid, status.version.as_deref()), (new.pid, Some("2.0 \"β\"")));
}

fn a_line_of_the_log_names_who_writes_it_and_the_generations() {
    let service = Setup::new().set(Log::Told).start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Exit(3)));
    service.fail_to_restart();
    let line = old.says("log ERROR");
    assert!(line.starts_with(&format!("process {}, generation 0 → 1, restart 1 after ", old.pid)), "{line}");
    let new = service.restart();
    service.plan_next(at(Step::Born, Act::Exit(3)));
    service.fail_to_restart();
    let line = new.says("log ERROR");
    assert!(line.starts_with(&format!("process {}, generation 1 → 2, restart 1 after ", new.pid)), "{line}");
}

fn the_client_says_why_nobody_answers() {
    let setup = Setup::new();
    let nobody = setup.path("nobody");
    let error = pollflip::restart_coordination_socket::request_restart(&nobody, DEADLINE, |_| {}).expect_err("nobody");
    assert!(error.to_string().contains("is the service running"), "{error}");
    let stale = setup.path("stale");
    stale_socket(&stale);
    let error = pollflip::restart_coordination_socket::request_status(&stale, DEADLINE).expect_err("nobody");
    assert!(error.to_string().contains("nobody serves it any more"), "{error}");
    for none in [setup.path("."), own_program()] {
        let error = pollflip::restart_coordination_socket::request_status(&none, DEADLINE).expect_err("no socket");
        assert!(error.to_string().contains("it is no socket; is that the path of a coordination socket?"), "{error}");
    }
    // One that speaks first, and something else.
    let other = setup.path("other");
    let listener = UnixListener::bind(&other).expect("a socket");
    let greeter = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"220 mail.example ESMTP\r\n").expect("it reads");
        // Until it has read that.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = pollflip::restart_coordination_socket::request_status(&other, DEADLINE).expect_err("another service");
    assert!(error.to_string().ends_with("is that the path of a coordination socket?"), "{error}");
    greeter.join().expect("no panic");
}

fn the_configuration_of_a_service_can_ask_it_for_a_restart() {
    let service = Service::start();
    let config = pollflip::RestartConfig::new().coordination_socket(service.socket());
    let pid = config.request_restart().expect("a restart");
    assert_eq!(service.connect().pid, pid);
    let error = pollflip::RestartConfig::new().request_restart().expect_err("no socket");
    assert_eq!(error.to_string(), "no coordination socket is configured");
}

fn a_client_on_a_stream_of_the_programs_asks_as_one_by_path_does() {
    let service = Service::start();
    let old = service.first();
    let stream = UnixStream::connect(service.socket()).expect("a service");
    stream.set_nonblocking(true).expect("a flag");
    let mut socket = RestartCoordinationSocket::from(stream.try_clone().expect("a duplicate"));
    for _ in 0..3 {
        let status = socket.request_status(DEADLINE).expect("a status");
        assert_eq!((status.pid, status.state), (old.pid, ServiceState::Serving));
    }
    service.plan_next(at(Step::Built, Act::Exit(3)));
    match socket.request_restart(DEADLINE, |_| {}) {
        Err(RequestError::Failed(why)) => assert!(why.contains("exited with status 3"), "{why}"),
        other => panic!("{other:?}"),
    }
    service.plan_next(at(Step::Built, Act::Progress("half of it".into())));
    let mut lines = Vec::new();
    let pid = socket.request_restart(DEADLINE, |line| lines.push(line.to_owned())).expect("a restart");
    let same = format!("the same file as before: {}", own_program().display());
    assert_eq!((pid, lines), (service.connect().pid, vec!["half of it".to_owned(), same]));
    // It is the connection to a process that has been replaced.
    drop(stream);
    let mut socket = RestartCoordinationSocket::new(UnixStream::connect(service.socket()).expect("a service"));
    assert_eq!(socket.request_status(DEADLINE).expect("a status").pid, pid);
}

fn a_client_on_a_stream_gives_up_at_its_deadline_and_tells_that_the_other_end_hung_up() {
    let (ours, theirs) = UnixStream::pair().expect("two ends");
    let mut socket = RestartCoordinationSocket::new(ours);
    let limit = Duration::from_millis(50);
    assert!(matches!(socket.request_status(limit), Err(RequestError::TimedOut(time)) if time == limit));
    drop(theirs);
    assert!(matches!(socket.request_restart(DEADLINE, |_| {}), Err(RequestError::HungUp(_))));
}

fn the_client_gives_up_at_its_deadline() {
    let service = Service::start();
    let old = service.first();
    service.plan_next(at(Step::Built, Act::Wait));
    let limit = Duration::from_millis(300);
    // A busy machine may have no time left for the question itself.
    wait_until("one who has asked", || {
        match pollflip::restart_coordination_socket::request_restart(service.socket(), limit, |_| {}) {
            Err(RequestError::TimedOut(time)) => assert_eq!(time, limit),
            other => panic!("{other:?}"),
        }
        // What was asked has been read when the second of these is answered.
        old.ask(Act::Status);
        old.ask(Act::Status);
        !old.said("event Restarting").is_empty()
    });
    // The restart goes on without its asker.
    let new = service.hub.nth(1);
    new.says("waits");
    new.go();
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
}

/// Hung up on, it finds out whether that one knows shellflip's requests alone.
fn the_client_of_a_service_that_hangs_up_and_then_hangs_gives_up_at_its_deadline() {
    let setup = Setup::new();
    let path = setup.path("odd");
    let listener = UnixListener::bind(&path).expect("a listener");
    thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            let (mut first, _) = listener.accept().expect("a client");
            let _ = first.read(&mut [0; 100]);
            drop(first);
            kept.push(listener.accept());
        }
    });
    // It takes as long as the limit and the machine's load, and never the second that such a question may take.
    wait_until("an end in time", || {
        let begun = Instant::now();
        let error = pollflip::restart_coordination_socket::request_restart(&path, Duration::from_millis(100), |_| {});
        error.expect_err("no answer");
        begun.elapsed() < Duration::from_secs(1)
    });
}
