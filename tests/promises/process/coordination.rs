//! Promise 10 for the clients of the coordination socket: whoever talks nonsense is told so and dropped, and nobody else notices.

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use pollflip_kit::client::{Raw, frame};
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{DEADLINE, wait_until};
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Linger, Step, at};

pollflip_kit::trials![
    promise_10_the_bytes_of_shellflip_are_understood_and_answered,
    promise_10_a_failure_has_the_bytes_of_shellflip_too,
    promise_10_a_frame_that_is_cut_is_reported,
    promise_10_a_frame_that_is_too_long_is_reported,
    promise_10_what_is_no_json_is_reported,
    promise_10_an_unknown_request_is_reported,
    promise_10_a_response_is_no_request,
    promise_10_deep_json_is_reported,
    promise_10_a_client_that_closes_its_side_is_answered,
    promise_10_requests_in_one_packet_are_answered_in_order,
    promise_10_a_request_byte_by_byte_is_answered,
    promise_10_a_silent_client_is_dropped,
    a_client_that_has_asked_in_time_is_answered_however_late_the_service_looks,
    promise_10_the_sixty_fifth_client_takes_the_place_of_the_first_and_the_others_go_on,
    promise_10_clients_that_come_in_one_instant_are_all_answered,
    promise_10_a_client_that_leaves_does_not_end_its_restart,
    promise_10_a_client_that_leaves_unanswered_kills_no_program_that_minds_sigpipe,
];

const STATUS: &str = r#"{"Request":"Status"}"#;
const RESTART: &str = r#"{"Request":"TryRestart"}"#;

fn promise_10_the_bytes_of_shellflip_are_understood_and_answered() {
    let service = Service::start();
    let mut client = Raw::connect(&service.socket());
    client.write(b"\x00\x00\x00\x18{\"Request\":\"TryRestart\"}");
    let answer = client.receive();
    let new = service.hub.nth(1);
    assert_eq!(answer, format!("{{\"Response\":{{\"RestartComplete\":{}}}}}", new.pid));
    assert_eq!(service.connect().pid, new.pid);
}

fn promise_10_a_failure_has_the_bytes_of_shellflip_too() {
    let service = Service::start();
    service.plan_next(at(Step::Born, Act::Exit(3)));
    let mut client = Raw::connect(&service.socket());
    client.send(RESTART);
    assert_eq!(
        client.receive(),
        r#"{"Response":{"RestartFailed":"the successor exited with status 3 before it was ready; its standard error may say why"}}"#
    );
}

/// One client that writes something, is told what is wrong with it, and is dropped; the service goes on.
fn nonsense(bytes: &[u8], close: bool, words: &str) {
    let service = Service::start();
    let first = service.first();
    let before = Snapshot::of(first.pid);
    let mut client = Raw::connect(&service.socket());
    client.write(bytes);
    if close {
        client.0.shutdown(Shutdown::Write).expect("a shutdown");
    }
    let answer = client.receive();
    assert!(answer.starts_with(r#"{"Response":{"RestartFailed":"the request makes no sense: "#), "{answer}");
    assert!(answer.contains(words), "{words:?} is not in: {answer}");
    client.expect_end();
    service.expect_unchanged(&first, &before);
    service.restart();
}

fn promise_10_a_frame_that_is_cut_is_reported() {
    nonsense(b"\x00\x00\x00\x18{\"Requ", true, "it ends within a frame");
    nonsense(b"\x00\x00", true, "it ends within a frame");
}

fn promise_10_a_frame_that_is_too_long_is_reported() {
    nonsense(b"\xff\xff\xff\xff", false, "a frame of 4294967295 bytes; no more than 65536 are taken");
    nonsense(b"\x00\x01\x00\x01", false, "a frame of 65537 bytes");
}

fn promise_10_what_is_no_json_is_reported() {
    nonsense(&frame("TryRestart"), false, "a message that cannot be read");
    nonsense(&frame(""), false, "a message that cannot be read");
    nonsense(&frame("\u{0}\u{1}"), false, "a message that cannot be read");
}

fn promise_10_an_unknown_request_is_reported() {
    nonsense(&frame(r#"{"Request":"Explode"}"#), false, "unknown request `Explode`");
    nonsense(&frame(r#"{"Question":"Status"}"#), false, "a message that cannot be read");
    nonsense(&frame(r#"{"Request":{"Restart":{"progress":7}}}"#), false, "a message that cannot be read");
}

fn promise_10_a_response_is_no_request() {
    nonsense(&frame(r#"{"Response":{"RestartComplete":1}}"#), false, "a response came as a request");
}

fn promise_10_deep_json_is_reported() {
    nonsense(&frame(&"[".repeat(60_000)), false, "a message that cannot be read");
}

fn promise_10_a_client_that_closes_its_side_is_answered() {
    let service = Service::start();
    let mut client = Raw::connect(&service.socket());
    client.send(RESTART);
    client.0.shutdown(Shutdown::Write).expect("a shutdown");
    assert!(client.receive().starts_with(r#"{"Response":{"RestartComplete":"#));
    client.expect_end();
    let mut client = Raw::connect(&service.socket());
    client.send(STATUS);
    client.0.shutdown(Shutdown::Write).expect("a shutdown");
    assert!(client.receive().starts_with(r#"{"Response":{"Status":{"pid":"#));
    client.expect_end();
}

fn promise_10_requests_in_one_packet_are_answered_in_order() {
    let service = Setup::new().set(Linger).start();
    let mut client = Raw::connect(&service.socket());
    let all = [STATUS, RESTART, STATUS, r#"{"Request":{"Restart":{"progress":true}}}"#, RESTART].map(frame).concat();
    client.write(&all);
    assert!(client.receive().contains(r#""state":"idle""#));
    assert!(client.receive().starts_with(r#"{"Response":{"RestartComplete":"#));
    assert!(client.receive().contains(r#""state":"handed off""#));
    assert!(client.receive().starts_with(r#"{"Response":{"RestartRefused":"handed off to process "#));
    assert!(client.receive().starts_with(r#"{"Response":{"RestartFailed":"handed off to process "#));
    // Several hundred at once, more than one turn takes.
    let mut client = Raw::connect(&service.socket());
    client.write(&frame(STATUS).repeat(300));
    for _ in 0..300 {
        assert!(client.receive().contains(r#""state":"idle""#));
    }
}

fn promise_10_a_request_byte_by_byte_is_answered() {
    let service = Service::start();
    let mut client = Raw::connect(&service.socket());
    for byte in frame(STATUS) {
        client.write(&[byte]);
    }
    assert!(client.receive().contains(r#""state":"idle""#));
}

fn promise_10_a_silent_client_is_dropped() {
    let service = Service::start();
    let first = service.first();
    let before = Snapshot::of(first.pid);
    let began = Instant::now();
    let mut silent = Raw::connect(&service.socket());
    let mut half = Raw::connect(&service.socket());
    half.write(&frame(STATUS)[..10]);
    silent.expect_end();
    half.expect_end();
    // Five seconds of patience, and not much more.
    assert!(began.elapsed().as_secs() >= 4 && began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    service.expect_unchanged(&first, &before);
}

fn promise_10_the_sixty_fifth_client_takes_the_place_of_the_first_and_the_others_go_on() {
    let service = Service::start();
    let first = service.first();
    let before = Snapshot::of(first.pid);
    let deadline = Instant::now() + DEADLINE;
    // One that is silent for five seconds is hung up on, which a busy machine may be late for.
    while let Err(error) = sixty_five_clients(&service) {
        assert!(Instant::now() < deadline, "{error}");
    }
    service.expect_unchanged(&first, &before);
    service.restart();
}

fn sixty_five_clients(service: &Service) -> std::io::Result<()> {
    let mut silent: Vec<_> = (0..64).map(|_| Raw::connect(&service.socket())).collect();
    // One by one: who comes in one turn of the loop is of one age.
    let answered = |_| {
        let mut client = Raw::connect(&service.socket());
        client.try_send(STATUS)?;
        assert!(client.try_receive()?.contains(r#""state":"idle""#));
        Ok(client)
    };
    let mut clients = (0..64).map(answered).collect::<std::io::Result<Vec<_>>>()?;
    silent.iter_mut().for_each(Raw::expect_end);
    let mut one_more = Raw::connect(&service.socket());
    one_more.try_send(STATUS)?;
    assert!(one_more.try_receive()?.contains(r#""state":"idle""#));
    clients.remove(0).expect_end();
    clients.iter_mut().try_for_each(|client| client.try_send(STATUS))?;
    for client in &mut clients {
        assert!(client.try_receive()?.contains(r#""state":"idle""#));
    }
    Ok(())
}

fn a_client_that_has_asked_in_time_is_answered_however_late_the_service_looks() {
    let service = Service::start();
    let first = service.first();
    let mut client = Raw::connect(&service.socket());
    // The one before it has been taken in when another is answered.
    service.status();
    first.signal(Signal::SIGSTOP);
    wait_until("the service to stand still", || procfs::state(first.pid) == Some('T'));
    client.send(STATUS);
    // The clock is what this is about: silence is borne for five seconds.
    thread::sleep(Duration::from_millis(5200));
    first.signal(Signal::SIGCONT);
    assert!(client.receive().contains(r#""state":"idle""#));
}

fn promise_10_clients_that_come_in_one_instant_are_all_answered() {
    let service = Service::start();
    let first = service.first();
    let before = Snapshot::of(first.pid);
    // They all wait in the queue when the service looks at it.
    first.signal(Signal::SIGSTOP);
    let mut clients: Vec<_> = (0..200).map(|_| Raw::connect(&service.socket())).collect();
    clients.iter_mut().for_each(|client| client.send(STATUS));
    first.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert!(client.receive().contains(r#""state":"idle""#));
    }
    drop(clients);
    service.expect_unchanged(&first, &before);
    service.restart();
}

fn promise_10_a_client_that_leaves_does_not_end_its_restart() {
    let service = Service::start();
    let mut client = Raw::connect(&service.socket());
    client.send(RESTART);
    service.first().says("event Restarting");
    drop(client);
    let new = service.hub.nth(1);
    new.says("event Committed");
    assert_eq!(service.connect().pid, new.pid);
}

fn promise_10_a_client_that_leaves_unanswered_kills_no_program_that_minds_sigpipe() {
    // One whose main function is not Rust's, or that asks for what shells expect.
    let service = Setup::new().plan(at(Step::Born, Act::Default(Signal::SIGPIPE))).start();
    let first = service.first();
    first.tell(Act::Wait);
    first.says("waits");
    let mut client = Raw::connect(&service.socket());
    client.send(STATUS);
    drop(client);
    first.go();
    assert_eq!(first.says("answer"), "gone on");
    assert_eq!(service.status().pid, first.pid);
}
