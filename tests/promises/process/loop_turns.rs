//! Promise 5: the loop of the old process is never held up. The service measures its longest turn: the time on the clock from one poll
//! to the next, without what the scheduler gave to others. A turn takes a millisecond or so; anything that waits for somebody would
//! take at least the second that is asserted here.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nix::sys::signal::Signal;
use pollflip_kit::client::Raw;
use pollflip_kit::harness::{Service, Setup, install, own_program};
use pollflip_kit::hub::Process;
use pollflip_kit::service::{Act, Config, Kind, Listen, Step, at, ms, tcp};

const LONGEST: Duration = Duration::from_secs(1);

pollflip_kit::trials![
    promise_05_a_successor_that_hangs_does_not_hold_the_loop_up,
    promise_05_a_successor_that_never_reads_does_not_hold_the_loop_up,
    promise_05_a_program_that_is_not_there_does_not_interrupt_the_loop,
    promise_05_a_program_that_is_slow_to_start_does_not_hold_the_loop_up,
    promise_05_silent_and_slow_clients_do_not_hold_the_loop_up,
    promise_05_a_client_that_never_reads_does_not_hold_the_loop_up,
];

fn expect_short_turns(process: &Process) {
    let longest = Duration::from_micros(process.ask(Act::Turns).parse().expect("a number"));
    assert!(longest < LONGEST, "the loop was held up for {longest:?}");
}

fn promise_05_a_successor_that_hangs_does_not_hold_the_loop_up() {
    let service = Setup::new().set(Config::ReadyTimeout(ms(2500))).start();
    let old = service.first();
    for plan in [at(Step::Born, Act::Hang), at(Step::Built, Act::Hang), at(Step::Built, Act::Raise(Signal::SIGSTOP))] {
        service.plan_next(plan);
        let asker = service.restart_meanwhile();
        service.connect().echo("served meanwhile");
        asker.join().expect("a thread").expect_err("a successor that hangs");
    }
    expect_short_turns(&old);
}

fn promise_05_a_successor_that_never_reads_does_not_hold_the_loop_up() {
    // More than the lifeline takes at once.
    let setup = Setup::new()
        .set(Config::ReadyTimeout(ms(2500)))
        .set(Listen::To(tcp("echo", "127.0.0.1:0")))
        .set(Listen::To(Kind::Many(400).socket("null", "/dev/null")));
    let service = setup.start();
    let old = service.first();
    service.plan_next(at(Step::Born, Act::Hang));
    let asker = service.restart_meanwhile();
    service.connect().echo("served meanwhile");
    asker.join().expect("a thread").expect_err("a successor that hangs");
    expect_short_turns(&old);
    service.restart_some_time();
}

/// A loop that passes every error of its poll on would end by EINTR.
fn promise_05_a_program_that_is_not_there_does_not_interrupt_the_loop() {
    let service = Setup::new().set(Config::Program("/nobody/is/here".into())).start();
    for _ in 0..50 {
        assert!(service.fail_to_restart().contains("there is no such file"));
    }
    assert_eq!(service.first().said("interrupted"), [""; 0]);
}

fn promise_05_a_program_that_is_slow_to_start_does_not_hold_the_loop_up() {
    let setup = Setup::new();
    let program = setup.path("program");
    symlink(own_program(), &program).expect("a link");
    let service = setup.set(Config::Program(program.clone())).start();
    let old = service.first();
    fs::remove_file(&program).expect("the link");
    install(&program, b"#!/bin/sh\n");
    // A program that is being written is tried for two seconds.
    let writer = fs::OpenOptions::new().append(true).open(&program).expect("a file");
    let asker = service.restart_meanwhile();
    old.says("event Restarting");
    service.connect().echo("served meanwhile");
    asker.join().expect("a thread").expect_err("a program that is being written");
    drop(writer);
    expect_short_turns(&old);
}

fn promise_05_silent_and_slow_clients_do_not_hold_the_loop_up() {
    let service = Service::start();
    let old = service.first();
    let mut clients: Vec<_> = (0..30).map(|_| Raw::connect(&service.socket())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // Nothing, half a length, a length alone, half a frame.
        client.write([&b""[..], &[0, 0], &[0, 0, 0, 24], &[0, 0, 0, 24, b'{', b'"']][number % 4]);
    }
    service.connect().echo("served meanwhile");
    let new = service.restart();
    assert_eq!(service.connect().pid, new.pid);
    let _ = old;
    expect_short_turns(&new);
}

fn promise_05_a_client_that_never_reads_does_not_hold_the_loop_up() {
    let service = Service::start();
    let old = service.first();
    let mut client = Raw::connect(&service.socket());
    client.0.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    // Until nothing more goes in: what is answered fills the way back.
    let request = pollflip_kit::client::frame(r#"{"Request":"Status"}"#).repeat(100);
    while std::io::Write::write_all(&mut client.0, &request).is_ok() {}
    service.connect().echo("served meanwhile");
    expect_short_turns(&old);
    service.restart();
}
