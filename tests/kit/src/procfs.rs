//! What /proc says about a process.

use std::fs;
use std::path::{Path, PathBuf};

use nix::libc;

/// What must be the same before and after, and from one generation to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What the descriptors are, sorted.
    pub descriptors: Vec<String>,
    pub threads: usize,
    pub zombies: usize,
    pub children: usize,
}

impl Snapshot {
    pub fn of(pid: u32) -> Snapshot {
        let mut descriptors: Vec<_> = descriptors(pid).into_iter().map(|(_, what)| kind(&what)).collect();
        descriptors.sort();
        let children = children(pid);
        Snapshot {
            descriptors,
            threads: fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
            zombies: children.iter().filter(|child| state(**child) == Some('Z')).count(),
            children: children.len(),
        }
    }

    /// The same once what was kept of one socket for successors is closed: nobody comes any more.
    pub fn without_a_kept_socket(mut self) -> Snapshot {
        let index = self.descriptors.iter().position(|what| what == "socket").expect("a socket");
        self.descriptors.remove(index);
        self
    }
}

/// The descriptors of a process: numbers and what they are.
pub fn descriptors(pid: u32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
    };
    entries.filter_map(|entry| named(entry.ok()?)).collect()
}

/// Without the numbers of the inode and of the process.
fn kind(what: &str) -> String {
    let what = what.split_once(":[").map_or(what, |(kind, _)| kind);
    match what.strip_prefix("/proc/") {
        Some(own) => format!("/proc/…/{}", own.split_once('/').map_or("", |(_, file)| file)),
        None => what.into(),
    }
}

/// How many connections the coordination socket at that path has taken in, or has waiting. Each one ends when nobody has the other end of it
/// open: a process that another thread is just starting has a copy of all that its parent has, until it executes its program.
pub fn connections_to(path: &Path) -> usize {
    const LISTENS: &str = "00010000";
    let path = path.to_str().expect("a path of text");
    let text = fs::read_to_string("/proc/net/unix").expect("/proc/net/unix");
    let is_one = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // The name by which it was bound is longer: it was renamed.
        fields.get(7).is_some_and(|name| name.starts_with(path)) && fields[3] != LISTENS
    };
    text.lines().filter(is_one).count()
}

/// The environment that a process was born with, sorted.
pub fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables: Vec<_> =
        bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty()).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    variables.sort();
    variables
}

/// The names of the variables of that environment, sorted.
pub fn variable_names(pid: u32) -> Vec<String> {
    environment(pid).iter().map(|variable| variable.split('=').next().unwrap_or_default().to_owned()).collect()
}

/// How soon the kernel ends a process when memory is short: its oom_score_adj.
pub fn oom_score(pid: u32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a process");
    text.trim().parse().expect("a number")
}

/// The file that a process executes.
pub fn executable(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

pub fn current_dir(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default()
}

/// Running, sleeping, zombie…; `None` if there is no such process.
pub fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Whether it has ended: gone, or only waiting to be reaped. Its first thread can have before the others, and a pidfd tells of the last.
pub fn has_ended(pid: u32) -> bool {
    const THREADS: usize = 17;
    let Some(stat) = stat(pid) else { return true };
    matches!(stat.first().map(String::as_str), Some("Z" | "X")) && matches!(stat.get(THREADS).map(String::as_str), Some("0" | "1"))
}

pub fn children(of: u32) -> Vec<u32> {
    let of = of.to_string();
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.get(1) == Some(&of))).collect()
}

/// The fields after the name, which may contain anything.
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(String::from).collect())
}

/// One line of /proc/PID/status, of a process or a thread.
pub fn status(pid: u32, name: &str) -> Option<String> {
    status_at(&format!("/proc/{pid}/status"), name)
}

fn status_at(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Whether a signal is in one of the masks of /proc/PID/status, which are those of the first thread.
pub fn has_signal(pid: u32, mask: &str, signal: i32) -> bool {
    is_in(status(pid, mask), signal)
}

/// Whether the restart thread takes a signal: `None` if there is no such thread.
pub fn restart_thread_takes(pid: u32, signal: i32) -> Option<bool> {
    Some(!is_in(status(restart_thread(pid)?, "SigBlk"), signal))
}

/// How often the restart thread has waited for something.
pub fn restart_thread_waits(pid: u32) -> u64 {
    let waits = restart_thread(pid).and_then(|thread| status(thread, "voluntary_ctxt_switches"));
    waits.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// How many threads of this process do not sleep, the one that asks among them.
pub fn threads_awake() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("the threads");
    let state = |path: PathBuf| fs::read_to_string(path.join("stat")).ok()?.rsplit_once(')')?.1.trim_start().chars().next();
    threads.filter(|thread| thread.as_ref().is_ok_and(|thread| state(thread.path()).is_some_and(|state| state != 'S'))).count()
}

/// The number of the restart thread.
pub fn restart_thread(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut numbers = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    numbers.find(|thread| status(*thread, "Name").as_deref() == Some("pollflip-restar"))
}

/// Whether the first thread waits for another one to let go of something.
pub fn waits_for_a_lock(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_futex.to_string())
}

/// Whether the first thread sleeps for a time that it has chosen.
pub fn sleeps(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().unwrap_or_default();
    [libc::SYS_clock_nanosleep, libc::SYS_nanosleep].iter().any(|sleep| number == sleep.to_string())
}

/// Whether the first thread waits by `poll`, as a drop does and a loop does not.
pub fn polls(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    // By its number on the architecture at hand: some have only the newer one.
    #[cfg(target_arch = "x86_64")]
    let poll = libc::SYS_poll;
    #[cfg(not(target_arch = "x86_64"))]
    let poll = libc::SYS_ppoll;
    call.split(' ').next() == Some(&poll.to_string())
}

/// Whether every one of these signals that was sent to a process has been taken in: none is pending, and no thread is in a handler, which
/// does not sleep. Nobody may send more meanwhile.
pub fn has_taken_in(pid: u32, signal: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let threads: Vec<_> = threads.filter_map(|thread| Some(thread.ok()?.path().join("status").to_str()?.to_owned())).collect();
    let is_pending = |mask: &str| threads.iter().any(|path| is_in(status_at(path, mask), signal));
    // In this order: one that takes it runs from then on.
    !is_pending("SigPnd")
        && !is_pending("ShdPnd")
        && threads.iter().all(|path| status_at(path, "State").is_none_or(|state| state.starts_with('S')))
}

fn is_in(mask: Option<String>, signal: i32) -> bool {
    mask.and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or_default() & (1 << (signal - 1)) != 0
}
