//! Notifications of those who mean no good, and of those who make mistakes.

use std::io::{self, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

use crate::kept::private_memory;
use crate::kit::{End, POLLFLIP, contained, end_of, guarded, how, init_of, log, own_descriptors, signal, there_are_containers};
use crate::speaker::{self, WORDS, Word};
use pollflip_kit::harness::{Service, Setup, own_program};
use pollflip_kit::hub::wait_until;
use pollflip_kit::procfs;
use pollflip_kit::service::{Act, Listen, ROLE};

pollflip_kit::trials![
    what_a_stranger_says_is_left_out,
    what_another_pid_namespace_says_is_left_out,
    what_strangers_say_does_not_use_up_what_is_told_of_the_service,
    a_socket_of_a_stranger_that_lingers_does_not_hold_the_guard_up,
    a_queue_of_a_stranger_with_a_socket_that_lingers_does_not_hold_the_guard_up,
    descriptors_of_strangers_leave_nothing_behind,
    a_flood_of_a_stranger_does_not_keep_a_restart_from_its_end,
    garbage_and_descriptors_of_a_helper_do_nothing,
    a_helper_cannot_make_a_stranger_the_service,
    a_flood_of_a_helper_does_no_harm,
    a_flood_from_far_below_does_not_hide_an_end,
    what_an_earlier_generation_says_is_left_out,
    what_was_said_before_an_end_is_heard_before_it,
];

/// Where a service tells its guard, as its environment says.
fn address(pid: u32) -> String {
    let variable = procfs::environment(pid).into_iter().find(|variable| variable.starts_with("NOTIFY_SOCKET="));
    variable.expect("an address").trim_start_matches("NOTIFY_SOCKET=").into()
}

/// Has a helper of that process say something, and waits for its end.
fn helper_says(process: &pollflip_kit::hub::Process, words: &[Word]) {
    let pid = helper(process, words);
    wait_until("the helper to end", || procfs::has_ended(pid));
}

fn main_pid(pid: u32) -> Word {
    Word::Text(format!("MAINPID={pid}"))
}

fn helper(process: &pollflip_kit::hub::Process, words: &[Word]) -> u32 {
    let script = format!("{ROLE}=speaker {WORDS}='{}' exec '{}'", speaker::text(&words), own_program().display());
    process.ask(Act::StartHelper(script)).parse().expect("a process")
}

/// The guard is as it was: it takes a restart in, and ends as that.
fn all_is_well(service: &Service) {
    let new = service.restart();
    new.says("event PredecessorGone");
    let guard = service.launched();
    wait_until("the guard to know", || log(service).contains(&format!("the service is process {}", new.pid)));
    wait_until("the guard to have its own descriptors only", || own_descriptors(guard) == 4);
    assert_eq!(service.connect().pid, new.pid);
    new.tell(Act::Exit(12));
    assert_eq!(how(end_of(service)), End::Code(12), "{}", log(service));
}

fn what_a_stranger_says_is_left_out() {
    let service = guarded(Setup::new(), "").start();
    let address = address(service.first().pid);
    speaker::say(&address, format!("MAINPID={}\nREADY=1", process::id()).as_bytes());
    speaker::say(&address, format!("MAINPID={}", service.launched()).as_bytes());
    speaker::say(&address, b"STOPPING=1");
    speaker::garbage(&address);
    speaker::descriptors(&address);
    wait_until("the guard to hear", || log(&service).matches("is no descendant of this guard").count() >= 10);
    assert_eq!(log(&service).matches("is no descendant of this guard").count(), 10, "no more is said of strangers");
    // It is not signalled in the place of the service.
    signal(service.launched(), Signal::SIGUSR1);
    service.hub.nth(1).says("event PredecessorGone");
    all_is_well(&service);
}

fn what_another_pid_namespace_says_is_left_out() {
    if !there_are_containers() {
        return;
    }
    let service = contained(Setup::new(), "").start();
    let guard = init_of(&service);
    let address = address(procfs::children(guard)[0]);
    speaker::say(&address, b"MAINPID=1\nREADY=1");
    wait_until("the guard to hear", || log(&service).contains("process 0 is left out: the process is in another PID namespace"));
    service.restart().tell(Act::Exit(12));
    assert_eq!(how(end_of(&service)), End::Code(12), "{}", log(&service));
}

fn what_strangers_say_does_not_use_up_what_is_told_of_the_service() {
    let service = guarded(Setup::new(), "").start();
    let stranger = address(service.first().pid);
    speaker::flood(&stranger, 100);
    wait_until("the guard to hear", || log(&service).contains("; no more is told of such messages"));
    helper_says(&service.first(), &[Word::Garbage]);
    wait_until("the guard to hear", || log(&service).contains("it is no text, or too long"));
    all_is_well(&service);
}

/// The other end of a connection that lingers.
struct Peer(TcpStream);

impl Drop for Peer {
    /// Takes all that was sent. A child that another test starts has copies of both ends for a moment, and would wait for the one while
    /// it has the other.
    fn drop(&mut self) {
        self.0.set_read_timeout(Some(Duration::from_millis(10))).expect("a socket");
        let _ = io::copy(&mut self.0, &mut io::sink());
    }
}

/// A connection that whoever closes it last waits for until its peer has taken all that was sent.
fn lingering() -> (TcpStream, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (peer, _) = listener.accept().expect("a connection");
    client.set_nonblocking(true).expect("a socket");
    while (&client).write(&[0; 65_536]).is_ok() {}
    setsockopt(&client, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 1_000 }).expect("a socket");
    (client, Peer(peer))
}

fn send(socket: &impl AsRawFd, text: &str, numbers: &[RawFd]) {
    let part = [IoSlice::new(text.as_bytes())];
    let rights: &[_] = if numbers.is_empty() { &[] } else { &[ControlMessage::ScmRights(numbers)] };
    sendmsg::<()>(socket.as_raw_fd(), &part, rights, MsgFlags::empty(), None).expect("room");
}

/// The guard closes last what a stranger sends.
fn guard_closes_last(what: OwnedFd) {
    let service = guarded(Setup::new(), "").start();
    let socket = speaker::connected(&address(service.first().pid));
    signal(service.launched(), Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(service.launched()) == Some('T'));
    send(&socket, "FDSTORE=1\nFDNAME=x", &[what.as_raw_fd()]);
    drop(what);
    signal(service.launched(), Signal::SIGCONT);
    wait_until("the guard to hear", || log(&service).contains("is no descendant of this guard"));
    all_is_well(&service);
}

fn a_socket_of_a_stranger_that_lingers_does_not_hold_the_guard_up() {
    let (client, _peer) = lingering();
    guard_closes_last(client.into());
}

/// It has no option that a guard could look at, and the connection is closed with it.
fn a_queue_of_a_stranger_with_a_socket_that_lingers_does_not_hold_the_guard_up() {
    let (client, _peer) = lingering();
    let (write, read) = UnixDatagram::pair().expect("a pair");
    send(&write, "x", &[client.as_raw_fd()]);
    drop((client, write));
    // One in the other.
    let (write, outer) = UnixDatagram::pair().expect("a pair");
    send(&write, "x", &[read.as_raw_fd()]);
    drop((read, write));
    guard_closes_last(outer.into());
}

/// Each of them would be waited for.
fn descriptors_of_strangers_leave_nothing_behind() {
    let service = guarded(Setup::new(), "").start();
    let socket = speaker::connected(&address(service.first().pid));
    let guard = service.launched();
    let heard = || log(&service).contains("; no more is told of such messages");
    let send_some = |count: usize| {
        for _ in 0..count {
            let (client, _peer) = lingering();
            let many: Vec<OwnedFd> = (0..200).map(|_| client.try_clone().expect("a duplicate").into()).collect();
            let numbers: Vec<RawFd> = many.iter().map(AsRawFd::as_raw_fd).collect();
            send(&socket, "FDSTORE=1\nFDNAME=x", &numbers);
        }
    };
    send_some(20);
    wait_until("the guard to hear", heard);
    let at_rest = || {
        wait_until("its threads to end", || procfs::status(guard, "Threads").is_some_and(|count| count.trim() == "1"));
        wait_until("its own descriptors to be all", || own_descriptors(guard) == 4);
        private_memory(guard)
    };
    let before = at_rest();
    send_some(300);
    let after = at_rest();
    println!("320 messages of strangers with 200 descriptors each: private memory of the guard {before} kB, then {after} kB");
    assert!(after <= before + 64, "{before} kB, then {after} kB");
    all_is_well(&service);
}

fn a_flood_of_a_stranger_does_not_keep_a_restart_from_its_end() {
    let service = guarded(Setup::new(), "").start();
    let address = address(service.first().pid);
    let flooding = std::thread::spawn(move || speaker::flood(&address, 30_000));
    for _ in 0..3 {
        service.restart();
    }
    flooding.join().expect("no panic");
    all_is_well(&service);
}

fn garbage_and_descriptors_of_a_helper_do_nothing() {
    let service = guarded(Setup::new(), "").start();
    let lines = ["ERRNO=5", "WATCHDOG=1", "UNKNOWN=7", "MAINPID=1", "MAINPID=0"].map(|line| Word::Text(line.into()));
    helper_says(&service.first(), &[&[Word::Garbage, Word::Descriptors], &lines[..]].concat());
    all_is_well(&service);
}

fn a_helper_cannot_make_a_stranger_the_service() {
    let service = guarded(Setup::new(), "").start();
    let helper = helper(&service.first(), &[main_pid(process::id()), main_pid(service.launched()), main_pid(1), Word::Stay]);
    wait_until("the guard to hear", || log(&service).matches("the main process, and that is no descendant").count() == 3);
    signal(helper, Signal::SIGKILL);
    wait_until("the helper to end", || procfs::has_ended(helper));
    all_is_well(&service);
}

fn a_flood_of_a_helper_does_no_harm() {
    let service = guarded(Setup::new(), "").start();
    helper_says(&service.first(), &[Word::Flood(10_000)]);
    all_is_well(&service);
}

/// The way up from that one is long, and what is said comes before an end.
fn a_flood_from_far_below_does_not_hide_an_end() {
    let service = guarded(Setup::new(), "").start();
    let nest = service.path("nest");
    pollflip_kit::harness::install(&nest, b"#!/bin/sh\n[ $1 -gt 0 ] || exec \"$SPEAKER\"\n\"$0\" $(($1-1))\nexit $?\n");
    let first = service.first();
    let words = speaker::text(&[Word::Text("WATCHDOG=1".into()), Word::Garbage, Word::Flood(30_000)]);
    let environment = format!("SPEAKER='{}' {ROLE}=speaker {WORDS}='{words}'", own_program().display());
    first.ask(Act::StartHelper(format!("{environment} exec '{}' 500", nest.display())));
    wait_until("the guard to hear it", || log(&service).contains("it is no text, or too long"));
    let began = std::time::Instant::now();
    first.tell(Act::Exit(12));
    wait_until("the guard to know", || log(&service).contains(&format!("process {} exited with status 12", first.pid)));
    println!("a flood from 500 processes below: an end is known after {:?}", began.elapsed());
    assert_eq!(how(end_of(&service)), End::Code(12), "{}", log(&service));
}

/// One that drains does not take the service back.
fn what_an_earlier_generation_says_is_left_out() {
    let service = guarded(Setup::new(), "").start();
    let first = service.first();
    let _connection = service.connect();
    let new = service.restart();
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
    // By the first process itself, and not by a helper.
    let socket = speaker::connected(&address(first.pid));
    assert!(socket.as_raw_fd() > 2);
    assert_eq!(first.ask(Act::Notify(vec![format!("MAINPID={}", first.pid), "READY=1".into()])), "told");
    new.tell(Act::Exit(12));
    new.ends();
    first.signal(Signal::SIGKILL);
    assert_eq!(how(end_of(&service)), End::Code(12), "{}", log(&service));
}

/// A guard that was stopped finds much that was said, and behind it who the service is, and that
/// the one before has ended.
fn what_was_said_before_an_end_is_heard_before_it() {
    let mut probe = Command::new("unshare");
    let probe = probe.args(["--net", "/bin/sh", "-c", "echo 512 >/proc/sys/net/unix/max_dgram_qlen"]).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: it needs root and a network namespace, in which a socket's queue is long");
        return;
    }
    let setup = Setup::new().set(Listen::Nowhere);
    let log_path = setup.path("guard.log");
    let script = "echo 512 >/proc/sys/net/unix/max_dgram_qlen; exec \"$POLLFLIP\" guard -- \"$0\" 2>>\"$LOG\"";
    let shell = format!("exec unshare --net /bin/sh -c '{script}' \"$0\"");
    let service = setup.env("POLLFLIP", POLLFLIP).env("LOG", log_path).env("POLLFLIP_LOG", "info").shell(&shell).start();
    let first = service.first();
    signal(service.launched(), Signal::SIGSTOP);
    wait_until("it to stop", || procfs::state(service.launched()) == Some('T'));
    helper_says(&first, &[Word::Flood(100)]);
    let new = service.restart();
    first.ends();
    signal(service.launched(), Signal::SIGCONT);
    wait_until("the guard to know", || log(&service).contains(&format!("the service is process {}", new.pid)));
    new.tell(Act::Exit(12));
    assert_eq!(how(end_of(&service)), End::Code(12), "{}", log(&service));
}
