//! The guard as PID 1.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::kit::{
    CONTAINER, End, POLLFLIP, contained, end_of, end_of_command, has_children, has_program, how, init_of, log, signal, there_are_containers,
};
use pollflip_kit::client::Load;
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::Act;

pollflip_kit::trials![
    twenty_restarts_under_load_in_a_container,
    the_status_of_the_third_generation_is_that_of_the_container,
    orphans_are_reaped,
    a_container_is_stopped_by_one_signal,
    the_guard_under_an_init_that_ends_with_its_first_child,
];

fn twenty_restarts_under_load_in_a_container() {
    if !there_are_containers() {
        return;
    }
    let service = contained(Setup::new(), "").start();
    assert_ne!(service.first().own, 1);
    let load = Load::start(service.address(), 4);
    for _ in 0..20 {
        service.restart();
    }
    let served = load.served();
    let failed = load.stop();
    println!("20 restarts in a container: {served} served, {} failed", failed.len());
    assert!(served > 0 && failed.is_empty(), "{failed:?}");
    let guard = init_of(&service);
    has_children(guard, 1);
    let zombies = procfs::children(guard).into_iter().filter(|child| procfs::state(*child) == Some('Z'));
    assert_eq!(zombies.count(), 0);
}

fn the_status_of_the_third_generation_is_that_of_the_container() {
    if !there_are_containers() {
        return;
    }
    let ends =
        [(Act::Exit(7), 7), (Act::Exit(0), 0), (Act::Raise(Signal::SIGSEGV), 139), (Act::Raise(Signal::SIGKILL), 137), (Act::Abort, 134)];
    for (end, status) in ends {
        let service = contained(Setup::new(), "").start();
        service.restart();
        let third = service.restart();
        third.says("event PredecessorGone");
        if end == Act::Raise(Signal::SIGSEGV) {
            assert_eq!(third.ask(Act::Default(Signal::SIGSEGV)), "set");
        }
        third.tell(end.clone());
        assert_eq!(how(end_of(&service)), End::Code(status), "{end:?}: {}", log(&service));
    }
}

fn orphans_are_reaped() {
    // Each runs in the background of a shell that ends at once, so that it comes to the guard.
    let script = "i=0; while [ $i -lt 200 ]; do sh -c 'sleep 0.01 &'; i=$((i+1)); done; \
                  while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do :; done; exit 5";
    let mut commands = vec![Command::new(POLLFLIP)];
    if there_are_containers() {
        let mut words = CONTAINER.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(POLLFLIP);
        commands.push(command);
    }
    for (number, mut command) in commands.into_iter().enumerate() {
        // Outside of a container there are zombies of others.
        let script = if number == 0 { script.replace("/proc/[0-9]*/status", "/dev/null") } else { script.into() };
        command.args(["guard", "--", "/bin/sh", "-c", &script]);
        assert_eq!(end_of_command(command).0, End::Code(5));
    }
}

fn a_container_is_stopped_by_one_signal() {
    if !there_are_containers() {
        return;
    }
    let service = contained(Setup::new(), "--restart always").start();
    service.restart();
    let guard = init_of(&service);
    wait_until("the first to end", || procfs::children(guard).len() == 1);
    signal(guard, Signal::SIGTERM);
    assert_eq!(how(end_of(&service)), End::Code(128 + Signal::SIGTERM as i32), "{}", log(&service));
}

/// An init above it may end with its first child, which is the guard.
fn the_guard_under_an_init_that_ends_with_its_first_child() {
    if !there_are_containers() {
        return;
    }
    for init in ["tini", "dumb-init", "catatonit"] {
        if !has_program(init) {
            continue;
        }
        let service = Setup::new()
            .env("POLLFLIP", POLLFLIP)
            .shell(&format!("exec {CONTAINER} {init} -- \"$POLLFLIP\" guard -- \"$0\" 2>/dev/null"))
            .start();
        for _ in 0..3 {
            let new = service.restart();
            new.says("event PredecessorGone");
            assert_eq!(service.connect().pid, new.own);
        }
        let last = service.restart();
        last.says("event PredecessorGone");
        last.tell(Act::Exit(7));
        assert_eq!(how(end_of(&service)), End::Code(7), "{init}");
    }
}
