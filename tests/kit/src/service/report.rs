//! The service's end of the hub: what it says, and what it is told.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use crate::procfs;
use crate::service::Act;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use pollflip::Event;
use serde::{Deserialize, Serialize};

crate::settings![Log];

static HUB: OnceLock<UnixStream> = OnceLock::new();
/// What was received of a line that is not whole.
static RECEIVED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What one that waits is told: it is no command.
pub(crate) const GO: &str = "go\n";

/// What becomes of what goes to the log, warnings and worse. Without this, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Log {
    /// It is told too.
    Told,
    /// The same, and the log panics in the restart thread.
    Faulty,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Connects to the hub. A panic is told there, and not printed.
pub fn open(path: &Path, log: Option<Log>) {
    HUB.get_or_init(|| UnixStream::connect(path).expect("the hub"));
    if let Some(log) = log {
        LOG.get_or_init(|| log);
        log::set_logger(&Logged).expect("no other logger");
        log::set_max_level(log::LevelFilter::Warn);
    }
    std::panic::set_hook(Box::new(|info| say(&format!("panic {info}"))));
}

struct Logged;

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(&format!("log {} {}", record.level(), record.args()));
        let is_faulty = LOG.get() == Some(&Log::Faulty);
        assert!(!is_faulty || std::thread::current().name() != Some("pollflip-restart"), "the log fails");
    }

    fn flush(&self) {}
}

fn hub() -> &'static UnixStream {
    HUB.get().expect("an open hub")
}

/// Says a line.
pub fn say(line: &str) {
    let line = line.replace('\n', " ") + "\n";
    let is_said = match hub().write_all(line.as_bytes()).map_err(|error| error.raw_os_error()) {
        // A sandbox forbids what sockets are written by: there is another call.
        Err(Some(libc::ENOSYS | libc::EPERM)) => nix::unistd::write(hub(), line.as_bytes()).is_ok(),
        said => said.is_ok(),
    };
    if !is_said {
        // The test is over.
        std::process::exit(0);
    }
}

/// Tells an event, and returns its name.
pub fn event(event: &Event) -> String {
    let text = format!("{event:?}");
    let name = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
    match event {
        Event::Restarting | Event::Granted | Event::Committed | Event::PredecessorGone => say(&format!("event {name}")),
        Event::Spawned(pid)
        | Event::HandedOff(pid)
        | Event::Completed(pid)
        | Event::SuccessorGone(pid)
        | Event::GivenUp(pid)
        | Event::GenerationEnded(pid) => {
            say(&format!("event {name} {pid}"));
        }
        Event::Progress(text) => say(&format!("event {name} {text}")),
        Event::Resumed(failure) | Event::Failed(failure) => say(&format!("event {name} {failure:?} :: {failure}")),
        Event::NoMoreRestarts(error) => say(&format!("event {name} {error:?} :: {error}")),
        _ => say(&format!("event {name}")),
    }
    name
}

pub fn descriptor() -> RawFd {
    hub().as_raw_fd()
}

/// The commands that have come, as they are written by [`Process::tell`](crate::hub::Process::tell).
pub fn commands() -> Vec<Act> {
    let mut received = RECEIVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    while receive(&mut received, 1024, MsgFlags::MSG_DONTWAIT) {}
    let Some(end) = received.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let whole: Vec<_> = received.drain(..=end).collect();
    let parse = |line: &[u8]| match serde_json::from_slice(line) {
        Ok(command) => command,
        Err(_) if line == GO.trim_end().as_bytes() => Act::GoOn,
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(line)),
    };
    whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect()
}

/// Blocks until `go` comes.
pub fn wait_for_go() {
    let mut received = RECEIVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    say("waits");
    // No more than that: what comes after it is for the loop, which looks at what has yet to be received.
    while *received != GO.as_bytes() {
        assert!(GO.as_bytes().starts_with(&received), "a process that waits can be told nothing but to go on");
        let missing = GO.len() - received.len();
        receive(&mut received, missing, MsgFlags::empty());
    }
    received.clear();
}

/// Whether something came.
fn receive(received: &mut Vec<u8>, limit: usize, flags: MsgFlags) -> bool {
    let mut buffer = vec![0; limit];
    match recv(descriptor(), &mut buffer, flags) {
        // The test is over.
        Ok(0) => std::process::exit(0),
        Ok(count) => {
            received.extend_from_slice(&buffer[..count]);
            true
        }
        Err(Errno::EINTR) => true,
        Err(_) => false,
    }
}

/// What a process is born with, seen before it does anything.
#[derive(Debug)]
pub struct Birth {
    descriptors: Vec<i32>,
    lifeline: String,
    blocked: String,
    directory: String,
    arguments: Vec<String>,
}

impl Birth {
    pub fn observe() -> Birth {
        let lifeline = std::env::var("POLLFLIP_LIFELINE").unwrap_or_else(|_| "none".into());
        let pid = std::process::id();
        // The directory that is being read has a descriptor too.
        let own = format!("/proc/{pid}/fd");
        let mut descriptors: Vec<i32> =
            procfs::descriptors(pid).into_iter().filter(|(_, what)| *what != own).map(|(number, _)| number).collect();
        descriptors.sort();
        let directory = std::env::current_dir().unwrap_or_default().display().to_string();
        let blocked = procfs::status(pid, "SigBlk").unwrap_or_default();
        Birth { descriptors, lifeline, blocked, directory, arguments: std::env::args().collect() }
    }

    pub fn report(&self) {
        say(&format!("born {} blocked {}", std::process::id(), self.blocked));
        say(&format!("descriptors {:?}", self.descriptors));
        say(&format!("lifeline {}", self.lifeline));
        say(&format!("directory {}", self.directory));
        say(&format!("arguments {}", self.arguments.join(" ")));
        for name in ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "RELEASE"] {
            say(&format!("variable {name} {}", std::env::var(name).unwrap_or_else(|_| "unset".into())));
        }
    }
}
