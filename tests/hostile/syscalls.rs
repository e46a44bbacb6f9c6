//! Promise 11: the guide lists the system calls that the loop needs. Here a loop does all that it can do, and is killed at the first call
//! that is not in that list.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use pollflip::RequestError;

use crate::listed;
use crate::listed::{Ask, Instead, Keeps};
use pollflip_kit::client::Raw;
use pollflip_kit::harness::{Service, Setup};
use pollflip_kit::hub::{Process, wait_until};
use pollflip_kit::service::{Act, Config, ms, set};

pollflip_kit::trials![
    promise_11_the_loop_restarts_under_exactly_the_calls_that_the_guide_lists,
    promise_11_the_loop_deals_with_failures_under_exactly_the_calls_that_the_guide_lists,
    promise_11_the_loop_talks_to_systemd_under_exactly_the_calls_that_the_guide_lists,
    promise_11_the_loop_keeps_what_it_has_under_exactly_the_calls_that_the_guide_lists,
    promise_11_a_call_that_the_guide_does_not_list_is_noticed,
    promise_11_the_list_names_nothing_that_makes_processes,
];

fn start(setup: Setup) -> Service {
    let service = setup.env(crate::service::ROLE, "listed").launch();
    service.first().says("serving");
    service
}

/// A restart, with the state that is handed over.
fn restart(service: &Service) -> Process {
    let new = service.restart();
    assert_eq!(new.says("state"), "true true true");
    new.says("serving");
    new.says("event Committed");
    assert_eq!(fs::read_to_string(service.path("pid")).expect("a pid file"), format!("{}\n", new.pid));
    new
}

fn promise_11_the_loop_restarts_under_exactly_the_calls_that_the_guide_lists() {
    println!("{} system calls are listed", listed::names().len());
    let service = start(Setup::new());
    for _ in 0..3 {
        restart(&service);
    }
    // By signal.
    let before = service.hub.pids().len();
    service.hub.nth(before - 1).signal(Signal::SIGUSR1);
    let new = service.hub.nth(before);
    new.says("event Committed");
    // By itself, and called off.
    service.plan_next(set(Instead::Hang));
    assert_eq!(new.ask(Act::Request), "Ok(())");
    service.hub.nth(before + 1).says("hangs");
    assert!(new.ask(Act::Request).starts_with("Err(UnderWay"));
    assert_eq!(new.ask(Act::Cancel), "true");
    new.says("event Failed");
    // Clients of all kinds.
    assert_eq!(service.status().state, pollflip::ServiceState::Serving);
    let mut clients: Vec<_> = (0..70).map(|_| Raw::connect(&service.socket())).collect();
    // They take the places of the first.
    clients[..6].iter_mut().for_each(Raw::expect_end);
    clients[67].write(b"\xff\xff\xff\xff");
    assert!(clients[67].receive().contains("no more than 65536 are taken"));
    clients[68].write(b"\x00\x00\x00\x10half");
    clients[68].0.shutdown(std::net::Shutdown::Write).expect("a shutdown");
    assert!(clients[68].receive().contains("it ends within a frame"));
    // The others are dropped for their silence.
    clients[69].expect_end();
    drop(clients);
    let last = restart(&service);
    assert_eq!(last.ask(Act::Stop), "stopped");
    assert!(matches!(service.try_restart(), Err(RequestError::Refused(why)) if why.contains("stopping")));
    assert_eq!(last.ask(Act::Drop), "dropped");
    assert!(!service.socket().exists() && !service.path("pid").exists());
}

fn promise_11_the_loop_deals_with_failures_under_exactly_the_calls_that_the_guide_lists() {
    let fails = |service: &Service, how: Instead| {
        service.plan_next(set(how));
        match service.try_restart() {
            Err(RequestError::Failed(why)) => why,
            other => panic!("{how:?}: {other:?}\n{}", service.hub.story()),
        }
    };
    // None but one that hangs has a short time.
    let service = start(Setup::new().set(Config::ReadyTimeout(ms(1000))));
    assert!(fails(&service, Instead::Hang).contains("was not ready within 1.0 s"));
    service.first().says("event Failed");
    let service = start(Setup::new().set(Config::Probation(ms(60000))));
    let first = service.first();
    assert!(fails(&service, Instead::Exit).contains("exited with status 3"));
    assert!(fails(&service, Instead::Refuse).contains("as planned"));
    first.says_again("event Failed", 1);
    // It is granted the service, and dies of it.
    assert!(fails(&service, Instead::Die).contains("exited with status 9"));
    first.says("event Resumed");
    // The successor of a service that dies at the wrong moment goes on alone.
    service.plan_next(set(Instead::Hang));
    let asker = service.restart_meanwhile();
    let second = service.hub.nth(4);
    second.says("hangs");
    assert_eq!(first.ask(Act::Drop), "dropped");
    asker.join().expect("a thread").expect_err("it was given up");
}

/// What systemd is to a service: it takes messages, and closes what comes with them, which answers a barrier.
pub struct Manager {
    heard: Arc<Mutex<String>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    pub fn listen(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let (heard, over) = (Arc::<Mutex<String>>::default(), Arc::<AtomicBool>::default());
        let (hears, until) = (heard.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !until.load(Ordering::Relaxed) {
                // Nothing comes most of the time.
                if let Ok(length) = socket.recv(&mut buffer) {
                    *hears.lock().expect("no panic") += &(String::from_utf8_lossy(&buffer[..length]) + "\n");
                }
            }
        });
        Manager { heard, over, thread: Some(thread) }
    }

    /// Waits until it has heard that.
    fn hears(&self, text: &str) {
        wait_until(&format!("{text:?} to be heard"), || self.heard.lock().expect("no panic").contains(text));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
        if thread::panicking() {
            eprintln!("heard:\n{}", self.heard.lock().expect("no panic"));
        }
    }
}

fn promise_11_the_loop_talks_to_systemd_under_exactly_the_calls_that_the_guide_lists() {
    let setup = Setup::new();
    let path = setup.path("notify");
    let manager = Manager::listen(&path);
    let service = start(setup.env("NOTIFY_SOCKET", &path));
    restart(&service);
    service.plan_next(set(Instead::Exit));
    service.fail_to_restart();
    let last = restart(&service);
    assert_eq!(last.ask(Act::Stop), "stopped");
    assert_eq!(last.ask(Act::Drop), "dropped");
    for word in ["READY=1", "RELOADING=1", &format!("MAINPID={}", last.pid), "STATUS=the successor exited", "BARRIER=1", "STOPPING=1"] {
        manager.hears(word);
    }
}

fn promise_11_the_loop_keeps_what_it_has_under_exactly_the_calls_that_the_guide_lists() {
    let setup = Setup::new().set(Keeps);
    let path = setup.path("notify");
    let manager = Manager::listen(&path);
    let service = start(setup.env("NOTIFY_SOCKET", &path));
    for _ in 0..2 {
        restart(&service);
    }
    let last = restart(&service);
    assert_eq!(last.ask(Ask::Keep), "Ok(()) [Ok(()), Ok(())] true");
    assert_eq!(last.ask(Act::Stop), "stopped");
    assert_eq!(last.ask(Act::Drop), "dropped");
    for name in ["echo", "pollflip.group.flows", "pollflip.member.0.flows", "pollflip.member.7.flows", "pollflip.kept.pair"] {
        manager.hears(&format!("FDSTORE=1\nFDNAME={name}\n"));
        manager.hears(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
    }
    manager.hears("FDSTORE=1\nFDNAME=pollflip.streams.");
}

fn promise_11_a_call_that_the_guide_does_not_list_is_noticed() {
    let service = start(Setup::new());
    let first = service.first();
    first.tell(Ask::MakeForbiddenCall);
    first.ends();
    assert!(first.said("answer").is_empty());
}

fn promise_11_the_list_names_nothing_that_makes_processes() {
    let names = listed::names();
    assert!(names.len() > 20, "{names:?}");
    for forbidden in ["execve", "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "bind", "listen"] {
        assert!(!names.iter().any(|name| name == forbidden), "{forbidden}");
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len(), "some are listed twice: {names:?}");
}
