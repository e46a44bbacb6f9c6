//! Where the processes of a service tell what they do, and are told what to do: one connection each, lines both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt};
use nix::unistd::Pid;
use serde::Serialize;

use crate::procfs;
use crate::service::report::GO;
use crate::service::{Act, Step};

/// How long anything is waited for: the machine may be busy with something else.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// So often is looked for what announces itself by nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// What one who is no process says to the hub, with a number.
const MARK: &str = "mark ";
/// What is left out of a story.
const BORING: [&str; 3] = ["variable", "arguments", "directory"];

/// The test's end of the connections.
#[derive(Debug)]
pub struct Hub {
    path: PathBuf,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    processes: Vec<Told>,
    /// The connections of those who have yet to name themselves.
    unnamed: BTreeSet<usize>,
    /// The connections by which somebody asks how far the hub is, by who asks.
    marks: BTreeMap<usize, usize>,
    /// All lines of all processes in the order in which they came, for a failed test.
    story: String,
    closed: bool,
}

#[derive(Debug)]
struct Told {
    /// As this process sees it.
    pid: u32,
    /// As it sees itself, which is another number in a PID namespace of its own.
    own: u32,
    /// How many had connected before: their first lines are read by threads of their own, in any order.
    connection: usize,
    stream: UnixStream,
    /// What was received of a line that is not whole.
    received: Vec<u8>,
    lines: Vec<String>,
    hung_up: bool,
}

impl Hub {
    pub fn new(path: &Path) -> Arc<Hub> {
        let listener = UnixListener::bind(path).expect("the hub");
        let hub = Arc::new(Hub { path: path.into(), seen: Mutex::default(), changed: Condvar::new() });
        let theirs = hub.clone();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let mut seen = theirs.lock();
                if seen.closed {
                    return;
                }
                seen.unnamed.insert(connection);
                let hub = theirs.clone();
                thread::spawn(move || hub.listen(stream, connection));
            }
        });
        hub
    }

    /// Ends the thread that accepts.
    pub fn close(&self) {
        self.lock().closed = true;
        let _ = UnixStream::connect(&self.path);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn listen(&self, stream: UnixStream, connection: usize) {
        let first = first_line(&stream);
        let mut seen = self.lock();
        seen.unnamed.remove(&connection);
        if let Some(mark) = first.strip_prefix(MARK) {
            seen.marks.insert(mark.parse().expect("a number"), connection);
        }
        if first.is_empty() || first.starts_with(MARK) {
            return self.changed.notify_all();
        }
        // The first line is "born PID …".
        let own = first.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a process names itself first");
        let pid = getsockopt(&stream, sockopt::PeerCredentials).expect("who has connected").pid() as u32;
        let theirs = stream.try_clone().expect("a descriptor");
        let (index, received) = (seen.processes.len(), Vec::new());
        seen.processes.push(Told { pid, own, connection, stream: theirs, received, lines: Vec::new(), hung_up: false });
        seen.put(index, first);
        while !seen.processes[index].hung_up {
            drop(seen);
            self.changed.notify_all();
            let _ = poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            seen = self.lock();
            seen.hear(index);
        }
        self.changed.notify_all();
    }

    /// Waits until `look` finds something in what the processes have told.
    fn wait<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        self.wait_while(|_| None, what, look)
    }

    /// The same for something that one process tells: when that has ended, nothing more comes.
    fn wait_for_process<T>(&self, own: u32, what: &str, look: impl Fn(&Told) -> Option<T>) -> T {
        self.wait_while(|seen| seen.told(own).filter(|told| told.hung_up), what, |seen| look(seen.told(own)?))
    }

    /// Waits no longer when the process that `hung_up` finds has ended. One that executes a program hangs up too, and connects once more.
    fn wait_while<T>(&self, hung_up: impl Fn(&Seen) -> Option<&Told>, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut is_heard = false;
        let mut seen = self.lock();
        loop {
            if let Some(found) = look(&seen) {
                return found;
            }
            let gone = hung_up(&seen).map(|told| told.pid);
            let has_ended = gone.is_some_and(procfs::has_ended);
            if has_ended && !is_heard {
                drop(seen);
                // All that it has said before its end.
                self.pids();
                is_heard = true;
                seen = self.lock();
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if has_ended || left.is_zero() {
                let story = seen.story.clone();
                drop(seen);
                match has_ended {
                    true => panic!("the process has ended, without {what}; so far:\n{story}"),
                    false => panic!("waited {DEADLINE:?} for {what}; so far:\n{story}"),
                }
            }
            // The end announces itself by nothing.
            let left = if gone.is_some() { left.min(LOOK_AGAIN) } else { left };
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    pub fn story(&self) -> String {
        self.lock().story.clone()
    }

    /// All processes that have been born so far, as they see themselves, in that order: those that have connected, whether they have been
    /// heard yet or not.
    pub fn pids(&self) -> Vec<u32> {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let number = MARKS.fetch_add(1, Ordering::Relaxed);
        // Connections are accepted in the order in which they came.
        let mut stream = UnixStream::connect(&self.path).expect("the hub");
        stream.write_all(format!("{MARK}{number}\n").as_bytes()).expect("the hub");
        self.wait("all that have connected to be heard", |seen| {
            let mark = seen.marks.get(&number)?;
            seen.unnamed.iter().all(|connection| connection > mark).then(|| seen.in_order().map(|told| told.own).collect())
        })
    }

    /// Waits for the birth of the process of that number: 0 is the first.
    pub fn nth(self: &Arc<Hub>, number: usize) -> Process {
        let (pid, own) = self.wait(&format!("birth number {number}"), |seen| {
            let told = seen.in_order().nth(number)?;
            // One that came before it may have yet to be heard.
            seen.unnamed.iter().all(|connection| *connection > told.connection).then_some((told.pid, told.own))
        });
        Process { pid, own, hub: self.clone() }
    }

    /// The process that has that number for itself, once it has named itself.
    pub fn process(self: &Arc<Hub>, own: u32) -> Process {
        let pid = self.wait(&format!("the birth of process {own}"), |seen| seen.told(own).map(|told| told.pid));
        Process { pid, own, hub: self.clone() }
    }
}

/// What is said first by who has just connected: the bytes behind it stay where they are.
fn first_line(mut stream: &UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|length| length == 1) && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).expect("text")
}

impl Seen {
    /// Reads what a process has said up to now: nothing is on its way any more.
    fn hear(&mut self, index: usize) {
        let told = &mut self.processes[index];
        let mut buffer = [0; 4096];
        loop {
            match recv(told.stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length > 0 => told.received.extend_from_slice(&buffer[..length]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Ok(_) | Err(_) => break told.hung_up = true,
            }
        }
        let end = told.received.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = told.received.drain(..end).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            self.put(index, line.into());
        }
    }

    fn put(&mut self, index: usize, line: String) {
        let told = &mut self.processes[index];
        if !BORING.iter().any(|word| line.starts_with(word)) {
            let _ = writeln!(self.story, "  {}: {line}", told.own);
        }
        told.lines.push(line);
    }

    /// Those who have named themselves, in the order in which they connected.
    fn in_order(&self) -> impl Iterator<Item = &Told> {
        let mut all: Vec<_> = self.processes.iter().collect();
        all.sort_by_key(|told| told.connection);
        all.into_iter()
    }

    fn told(&self, own: u32) -> Option<&Told> {
        self.index(own).map(|index| &self.processes[index])
    }

    fn index(&self, own: u32) -> Option<usize> {
        // The last one: numbers may come back, and a process that executes a program connects once more.
        let all = self.processes.iter().enumerate().filter(|(_, told)| told.own == own);
        all.max_by_key(|(_, told)| told.connection).map(|(index, _)| index)
    }
}

/// What a process can be told: [`Act`], or what its test program has besides.
pub trait Command: Serialize {}

fn to_line(command: &impl Command) -> String {
    serde_json::to_string(command).expect("text") + "\n"
}

/// A process of a service that speaks.
#[derive(Debug, Clone)]
pub struct Process {
    /// As this process sees it.
    pub pid: u32,
    /// As it sees itself and the others of its service, where it has a PID namespace of its own: what it is told as, and what is told of it.
    pub own: u32,
    hub: Arc<Hub>,
}

impl Process {
    /// Waits for a line that begins so, and returns the rest of it.
    pub fn says(&self, beginning: &str) -> String {
        self.says_again(beginning, 0)
    }

    /// Waits for one more line of a kind after so many of them.
    pub fn says_again(&self, beginning: &str, after: usize) -> String {
        self.hub.wait_for_process(self.own, &format!("{beginning:?} number {after} from process {}", self.own), |told| {
            told.lines.iter().filter_map(|line| rest(line, beginning)).nth(after)
        })
    }

    /// The lines that begin so, so far: what it has said before this is called is among them.
    pub fn said(&self, beginning: &str) -> Vec<String> {
        let mut seen = self.hub.lock();
        let Some(index) = seen.index(self.own) else { return Vec::new() };
        seen.hear(index);
        // Others may wait for one of them.
        self.hub.changed.notify_all();
        seen.processes[index].lines.iter().filter_map(|line| rest(line, beginning)).collect()
    }

    /// Has it do something.
    pub fn tell(&self, command: impl Command) {
        self.try_tell(command).expect("it reads what it is told");
    }

    /// Has it do several things, of which it hears together.
    pub fn tell_all<C: Command>(&self, commands: impl IntoIterator<Item = C>) {
        let lines: Vec<_> = commands.into_iter().map(|command| to_line(&command)).collect();
        self.write(&lines.concat()).expect("it reads what it is told");
    }

    /// Has it do something, if it still lives.
    pub fn try_tell(&self, command: impl Command) -> std::io::Result<()> {
        self.write(&to_line(&command))
    }

    /// Has it do something, and waits for what it answers. What ends the process has no answer: [`Process::tell`].
    pub fn ask(&self, command: impl Command) -> String {
        let before = self.said("answer").len();
        self.tell(command);
        self.says_again("answer", before)
    }

    /// Has it do something at a step of its life.
    pub fn on(&self, step: Step, act: Act) {
        assert_eq!(self.ask(Act::On(step, Box::new(act))), "planned");
    }

    /// Has it go on, where it waits ([`Act::Wait`]).
    pub fn go(&self) {
        self.try_go().expect("it reads what it is told");
    }

    /// The same, if it still lives.
    pub fn try_go(&self) -> std::io::Result<()> {
        self.write(GO)
    }

    /// Waits until it has done what was planned, and returns what came of it.
    pub fn did(&self, act: &Act) -> String {
        self.says(&format!("did {act:?}:"))
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let seen = self.hub.lock();
        let mut stream = &seen.told(self.own).expect("a process that was born").stream;
        stream.write_all(text.as_bytes())
    }

    pub fn signal(&self, signal: Signal) {
        // Nobody reaps it before the end of the test, so that the number is still its own.
        kill(Pid::from_raw(self.pid as i32), signal).expect("a signal");
    }

    /// Waits until it has ended, of whatever cause, whoever reaps it.
    pub fn ends(&self) {
        self.hub.wait(&format!("process {} to hang up", self.own), |seen| seen.told(self.own).filter(|told| told.hung_up).map(|_| ()));
        wait_until(&format!("the end of process {}", self.own), || procfs::has_ended(self.pid));
    }

    pub fn lives(&self) -> bool {
        !procfs::has_ended(self.pid)
    }
}

fn rest(line: &str, beginning: &str) -> Option<String> {
    let rest = line.strip_prefix(beginning)?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim_start().to_owned())
}

/// Waits for something that announces itself by nothing.
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    wait_for(what, || look().then_some(()));
}

/// Waits until two are the same, which announces itself by nothing either.
pub fn wait_until_equal<T: PartialEq + std::fmt::Debug>(what: &str, left: impl Fn() -> T, right: impl Fn() -> T) {
    let deadline = Instant::now() + DEADLINE;
    while left() != right() && Instant::now() < deadline {
        thread::sleep(LOOK_AGAIN);
    }
    assert_eq!(left(), right(), "waited {DEADLINE:?} for {what}");
}

/// Waits for something that announces itself by nothing, and returns it.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        thread::sleep(LOOK_AGAIN);
    }
}
