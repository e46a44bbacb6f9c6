//! A sandbox that has some system calls fail: each that a restart needs is missed when the restarter is built, or when it is needed, by its
//! name; and what cannot be killed is said to be so.

use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use pollflip::RequestError;
use pollflip::restart_coordination_socket::request_restart;

use crate::confine::{Confine, Deny};
use pollflip_kit::harness::Setup;
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs::{self, Snapshot};
use pollflip_kit::service::{Act, Config, Log, Step, at, ms};

pollflip_kit::trials![
    calls_that_every_restart_needs_are_missed_at_build_by_name,
    a_sandbox_that_comes_later_is_told_by_the_name_of_the_call,
    no_call_is_missed_without_a_word,
    a_hung_successor_that_cannot_be_killed_is_said_to_be_so,
];

const ERRORS: [i32; 2] = [libc::ENOSYS, libc::EPERM];

/// Whatever is forbidden from the start: restarts work without it, or somebody is told which call it is.
fn no_call_is_missed_without_a_word() {
    let calls = "memfd_create timerfd_create timerfd_settime eventfd2 epoll_ctl accept4 getsockopt pipe2 prlimit64 faccessat2 faccessat \
                 signalfd4 clone clone3 vfork execve getdents64 renameat unlinkat rename unlink chdir dup2 dup3 flock fchmod bind listen sendto \
                 recvfrom";
    for call in calls.split_whitespace() {
        for error in ERRORS {
            let service = Setup::new().set(Log::Told).set(Deny(call.into(), error)).launch();
            let first = service.first();
            let is_settled = || !first.said("serving").is_empty() || !first.said("build-error").is_empty();
            wait_until("a service, or the reason why there is none", is_settled);
            let asked = if first.said("serving").is_empty() {
                Err(first.says("build-error"))
            } else {
                // One that is not taken in waits until its time is over.
                request_restart(service.socket(), Duration::from_secs(5), |_| {}).map_err(|error| error.to_string())
            };
            let said = [asked.as_ref().err().cloned().into_iter().collect(), first.said("log WARN"), first.said("log ERROR")].concat();
            println!("{call}, error {error}: {}", if asked.is_ok() { "works" } else { &said[0] });
            let is_named = said.iter().any(|line| line.contains(call) || call == "clone3" && line.contains("clone"));
            assert!(asked.is_ok() || is_named, "{call} {error}: {said:?}");
        }
    }
}

/// The old process is asked in vain, for that reason, and serves. Nobody else is there.
fn calls_that_every_restart_needs_are_missed_at_build_by_name() {
    for call in ["pidfd_open", "pidfd_send_signal", "waitid", "sendmsg", "recvmsg"] {
        for error in ERRORS {
            let service = Setup::new().set(Log::Told).set(Deny(call.into(), error)).start();
            let first = service.first();
            let warning = first.says("log WARN");
            let told = format!("this process cannot call {call} ({})", std::io::Error::from_raw_os_error(error));
            assert!(warning.contains("every restart of this process will be refused") && warning.contains(&told), "{warning}");
            match service.try_restart() {
                Err(RequestError::Impossible(why)) => assert!(why.contains(&told), "{why}"),
                other => panic!("{call} {error}: {other:?}"),
            }
            assert!(first.ask(Act::Request).starts_with("MissingCall"));
            assert_eq!(service.status().state, pollflip::ServiceState::Serving);
            assert_eq!(service.connect().pid, first.pid);
            assert!(procfs::children(first.pid).is_empty());
        }
    }
}

/// Of all threads, once the restarter is built.
fn a_sandbox_that_comes_later_is_told_by_the_name_of_the_call() {
    for call in ["pidfd_open", "socketpair", "sendmsg", "execve", "chdir"] {
        for error in ERRORS {
            let service = Setup::new().set(Confine::Denied(Deny(call.into(), error))).start();
            let first = service.first();
            // The program's other thread has tried to start a process by then.
            first.says("worker");
            let before = Snapshot::of(first.pid);
            let why = service.fail_to_restart();
            assert!(why.contains(call), "{call} {error}: {why}");
            assert_eq!(service.status().state, pollflip::ServiceState::Serving);
            service.expect_unchanged(&first, &before);
            assert_eq!(service.connect().pid, first.pid);
        }
    }
}

/// Of all threads, the restart thread too, once the restarter is built.
fn a_hung_successor_that_cannot_be_killed_is_said_to_be_so() {
    for error in ERRORS {
        let setup = Setup::new().set(Log::Told).set(Config::ReadyTimeout(ms(500)));
        let service = setup.set(Confine::Denied(Deny("pidfd_send_signal".into(), error))).start();
        let first = service.first();
        service.plan_next(at(Step::Built, Act::Hang));
        let asker = service.restart_meanwhile();
        let hung = service.hub.nth(1);
        hung.says("hangs");
        let error = first.says("log ERROR");
        let told = format!("process {} must end, and this process may not kill it", hung.pid);
        assert!(error.contains(&told) && error.contains("pidfd_send_signal"), "{error}");
        let why = asker.join().expect("a thread").expect_err("a restart that has failed").to_string();
        assert!(why.contains("was not ready within 0.5 s"), "{why}");
        let status = service.status();
        assert_eq!(status.state, pollflip::ServiceState::Killing);
        wait_until("the status to say so", || {
            service.status().progress.is_some_and(|text| text.contains(&told) && text.contains("by hand"))
        });
        assert_eq!(service.connect().pid, first.pid);
        // The advice.
        hung.signal(Signal::SIGKILL);
        wait_until("the end of that", || service.status().state == pollflip::ServiceState::Serving);
        assert!(procfs::children(first.pid).is_empty());
        assert_eq!(first.said("log ERROR").iter().filter(|error| error.contains(&told)).count(), 1);
    }
}
