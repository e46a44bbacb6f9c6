//! A service whose loop may make the system calls that the guide lists, and no other: it is killed at the first one that is not there.
//!
//! The loop's thread does nothing but what a program does with a restarter. What it sees goes to the first thread, which tells it to the
//! test, and passes commands on.

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use pollflip::{Blob, Event, Handover, Mark, Restarter};
use seccompiler::{SeccompAction, apply_filter};

use crate::confine;
use pollflip_kit::hub::Command;
use pollflip_kit::service::report::{self, say};
use pollflip_kit::service::{self, Act, Settings};
use serde::{Deserialize, Serialize};

pollflip_kit::settings![Without, Keeps, Instead];

const RESTARTER: Token = Token(0);
const COMMANDS: Token = Token(1);

/// Calls that are taken off the list.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Without(pub Vec<String>);

/// The service keeps what it has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keeps;

/// What a process does instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instead {
    Exit,
    Hang,
    Refuse,
    /// It dies when it serves.
    Die,
    /// It waits with its state until it is told to get ready.
    Wait,
}

/// What is handed over besides descriptors, more than one page of it.
const STATE: &[u8] = &[7; 100_000];

/// The numbers of the calls that this module knows; one that this machine does not have has none.
macro_rules! calls {
    ($($name:ident)*; only on x86_64: $($old:ident)*) => {
        pub fn number(name: &str) -> Option<i64> {
            use nix::libc;
            paste_calls!(name, $($name)*);
            #[cfg(target_arch = "x86_64")]
            paste_calls!(name, $($old)*);
            #[cfg(not(target_arch = "x86_64"))]
            if [$(stringify!($old)),*].contains(&name) {
                return None;
            }
            panic!("the guide lists {name}, which this test does not know")
        }
    };
}

macro_rules! paste_calls {
    ($given:ident, $($name:ident)*) => {
        $(if format!("SYS_{}", $given) == stringify!($name) { return Some(libc::$name); })*
    };
}

calls! {
    SYS_read SYS_write SYS_readv SYS_writev SYS_close SYS_fcntl SYS_fstat SYS_newfstatat SYS_statx SYS_openat SYS_readlinkat SYS_unlinkat
    SYS_renameat SYS_renameat2 SYS_lseek SYS_epoll_ctl SYS_epoll_pwait SYS_ppoll SYS_timerfd_settime SYS_socket SYS_socketpair
    SYS_accept4 SYS_connect SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_getsockopt SYS_setsockopt SYS_getsockname SYS_pipe2
    SYS_shutdown SYS_memfd_create SYS_ftruncate SYS_pread64 SYS_pwrite64 SYS_kcmp SYS_pidfd_open SYS_pidfd_send_signal SYS_waitid SYS_getpid SYS_gettid
    SYS_geteuid SYS_clock_gettime SYS_clock_nanosleep SYS_futex SYS_getrandom SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect
    SYS_madvise SYS_rt_sigreturn SYS_rt_sigprocmask SYS_rt_sigaction SYS_restart_syscall SYS_sched_yield SYS_kill SYS_wait4 SYS_tgkill SYS_dup
    SYS_ioctl SYS_timerfd_create SYS_eventfd2 SYS_epoll_create1 SYS_execve SYS_clone SYS_clone3 SYS_signalfd4 SYS_faccessat2 SYS_faccessat SYS_getdents64 SYS_prlimit64 SYS_sigaltstack SYS_exit SYS_exit_group
    SYS_chdir SYS_flock SYS_fchmod SYS_bind SYS_listen SYS_dup3;
    only on x86_64: SYS_epoll_wait SYS_poll SYS_unlink SYS_rename SYS_readlink SYS_stat SYS_lstat SYS_access SYS_open SYS_vfork SYS_dup2
}

/// The names in the table of the guide.
pub fn names() -> Vec<String> {
    let guide = include_str!("../../src/guide.rs");
    let (_, section) = guide.split_once("//! # The system calls of the loop\n").expect("the guide has the section");
    let section = section.split("//! # ").next().expect("a section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("//! | `")?.split(" | ").next());
    rows.flat_map(|names| names.split(',')).map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

/// The names that the guide has besides, for a service that keeps what it has.
pub fn names_of_keeping() -> Vec<String> {
    let guide = include_str!("../../src/guide.rs");
    let (_, from) =
        guide.split_once("//! With [`RestartConfig::keep`](crate::RestartConfig::keep) come ").expect("the guide has the sentence");
    let sentence = from.split('.').next().expect("a sentence");
    sentence.split('`').skip(1).step_by(2).map(String::from).collect()
}

pub fn main() -> ExitCode {
    let (_, settings) = service::begin();
    let instead = settings.get();
    if let Some(how) = instead.filter(|how| *how != Instead::Wait) {
        say(&format!("fails by plan: {how:?}"));
    }
    if instead == Some(Instead::Exit) {
        return ExitCode::from(3);
    }
    let (tell, told) = channel();
    let poll = Poll::new().expect("an epoll");
    let waker = Waker::new(poll.registry(), COMMANDS).expect("a waker");
    let restarter = restarter(&settings);
    let (command, commands) = channel();
    // The hub's own descriptor, by another epoll: its number is all that is known of it.
    let mut hub = Poll::new().expect("an epoll");
    let mut ready = Events::with_capacity(1);
    hub.registry().register(&mut SourceFd(&report::descriptor()), COMMANDS, Interest::READABLE).expect("registered");
    thread::spawn(move || {
        loop {
            // Interrupted by the restart signal.
            let _ = hub.poll(&mut ready, None);
            for act in report::commands() {
                command.send(act).expect("a loop");
                waker.wake().expect("a loop");
            }
        }
    });
    let Without(without) = settings.get().unwrap_or_default();
    let keeps = settings.has::<Keeps>();
    let looping = move || Loop { poll, tell, commands, instead, without, keeps }.run(restarter);
    thread::Builder::new().name("loop".into()).spawn(looping).expect("a thread");
    for line in told {
        say(&line);
        match line.as_str() {
            "serving" if instead == Some(Instead::Die) => return ExitCode::from(9),
            "over" => return ExitCode::SUCCESS,
            _ => {}
        }
    }
    ExitCode::from(2)
}

fn restarter(settings: &Settings) -> Restarter {
    let config = settings.config().pid_file(service::directory().join("pid")).keep(settings.has::<Keeps>());
    let mut restarter = config.build().expect("a restarter");
    drop(restarter.sockets().tcp_listener("echo", "127.0.0.1:0").expect("a socket"));
    drop(restarter.sockets().udp_group("flows", "127.0.0.1:0", Mark::byte(0, 0xf0)).expect("a group"));
    restarter
}

struct Loop {
    poll: Poll,
    tell: Sender<String>,
    commands: Receiver<Act>,
    instead: Option<Instead>,
    /// Calls that are listed and that it may not make all the same.
    without: Vec<String>,
    keeps: bool,
}

impl Loop {
    fn tell(&self, line: impl Into<String>) {
        // The process ends with the first thread.
        let _ = self.tell.send(line.into());
    }

    fn run(mut self, mut restarter: Restarter) {
        let besides = if self.keeps { names_of_keeping() } else { Vec::new() };
        let calls = names().into_iter().chain(besides).filter(|name| !self.without.contains(name)).filter_map(|name| number(&name));
        let program = confine::filter(calls, SeccompAction::KillProcess, SeccompAction::Allow);
        apply_filter(&program).expect("a filter");
        self.tell("confined");
        self.poll.registry().register(&mut restarter, RESTARTER, Interest::READABLE).expect("registered");
        match restarter.predecessor() {
            Some(predecessor) => {
                predecessor.progress("taking the state");
                predecessor.pull();
            }
            None => self.get_ready(&mut restarter),
        }
        let mut events = Events::with_capacity(16);
        let mut restarter = Some(restarter);
        loop {
            while let Some(event) = restarter.as_mut().and_then(Restarter::poll) {
                self.happened(event, &mut restarter);
            }
            while let Ok(act) = self.commands.try_recv() {
                if let (Some(restarter), Act::Ready) = (&mut restarter, &act) {
                    self.tell("readies");
                    self.become_ready(restarter);
                }
                let answer = obey(&act, &mut restarter);
                self.tell(format!("answer {answer}"));
            }
            // Interrupted by the restart signal.
            let _ = self.poll.poll(&mut events, None);
        }
    }

    fn get_ready(&self, restarter: &mut Restarter) {
        match self.instead {
            Some(Instead::Refuse) => restarter.predecessor().expect("a predecessor").refuse("as planned"),
            Some(Instead::Hang) => self.tell("hangs"),
            Some(Instead::Wait) => self.tell("waits"),
            _ => self.become_ready(restarter),
        }
    }

    fn become_ready(&self, restarter: &mut Restarter) {
        restarter.ready().expect("it is granted");
        self.tell("serving");
    }

    fn happened(&self, event: Event, restarter: &mut Option<Restarter>) {
        self.tell(format!("event {}", name(&event)));
        match event {
            Event::StateRequested(handover) => give(handover),
            Event::Inherited(mut state) => {
                let whole = state.map("blob").expect("a memfd").is_some_and(|map| map[..] == *STATE);
                let bytes = state.bytes("bytes").expect("a memfd").is_some_and(|bytes| bytes == STATE);
                let pipe = state.fd::<std::os::fd::OwnedFd>("pipe").is_some();
                self.tell(format!("state {whole} {bytes} {pipe}"));
                restarter.as_mut().into_iter().for_each(|restarter| self.get_ready(restarter));
            }
            Event::Completed(_) => self.tell("over"),
            _ => {}
        }
    }
}

/// Its debug output would look into /proc, which is none of the loop's business.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Failed(_) => "Failed",
        Event::Resumed(_) => "Resumed",
        Event::Committed => "Committed",
        Event::Completed(_) => "Completed",
        Event::PredecessorGone => "PredecessorGone",
        Event::NoMoreRestarts(_) => "NoMoreRestarts",
        Event::GivenUp(_) => "GivenUp",
        _ => "of another kind",
    }
}

/// What it can be told to do besides.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Keeps a connection, forgets it, and keeps it twice under one name. What its keeper answers.
    Keep,
    /// Makes a system call that is forbidden to it.
    MakeForbiddenCall,
}

impl Command for Ask {}

fn obey(act: &Act, restarter: &mut Option<Restarter>) -> String {
    match (act, &mut *restarter) {
        (Act::Status, Some(restarter)) => restarter.status().state.as_str().into(),
        (Act::Request, Some(restarter)) => format!("{:?}", restarter.request()),
        (Act::Cancel, Some(restarter)) => restarter.cancel("by a test").to_string(),
        (Act::Stop, Some(restarter)) => {
            restarter.stop();
            "stopped".into()
        }
        (Act::Other(_), Some(restarter)) if act.other() == Some(Ask::Keep) => {
            let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let keeper = restarter.keeper();
            let kept = keeper.keep_stream(&near);
            keeper.forget_stream(&near);
            let named = [(); 2].map(|()| keeper.keep("pair", &near));
            format!("{kept:?} {named:?} {}", keeper.is_active())
        }
        (Act::Drop, restarter) => restarter.take().map_or("none".into(), |_| "dropped".into()),
        (Act::Ready, _) => "ready".into(),
        (Act::Other(_), _) => format!("{:?}", std::fs::create_dir("/nowhere/at/all")),
        (other, _) => format!("this service does not do that: {other:?}"),
    }
}

fn give(mut handover: Handover) {
    let mut blob = Blob::new().expect("a memfd");
    blob.write_all(STATE).expect("it is written");
    handover.blob("blob", blob).expect("a blob");
    handover.bytes("bytes", STATE).expect("bytes");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    handover.fd("pipe", &reader).expect("a descriptor");
    drop(writer);
    handover.send();
}
