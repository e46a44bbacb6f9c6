//! A child or a parent whose end has begun: it writes a core dump, or gives gigabytes back, and nothing of its program runs any more. Until
//! that is over, only `/proc` tells.

use std::fs;
use std::io::{self, Read};

use nix::libc;

use crate::error::Exit;

/// Flags of a thread, as the kernel shows them: it exits, which others of its process may survive; it writes a core dump, or a signal has
/// ended it, which none does.
const EXITING: u64 = 0x4;
const DUMPING: u64 = 0x200;
const SIGNALED: u64 = 0x400;

/// What is seen of a thread.
struct Thread {
    is_zombie: bool,
    parent: u32,
    /// Of processes.
    group: u32,
    flags: u64,
    /// In ticks since the machine was started.
    born: u64,
    /// As `wait` would tell it; 0 if this process may not see it.
    status: i32,
}

/// How a child is about to end, if its end has begun.
pub(super) fn exit_of(pid: u32) -> Option<Exit> {
    // Where there are several namespaces of processes, the number may be another one's.
    first_of(pid, |parent| parent == std::process::id()).map(|first| first.exit())
}

/// Whether the end of that process has begun, or may have: that cannot be seen for a moment.
pub(super) fn may_have_begun(pid: u32) -> bool {
    first_of(pid, |_| true).is_some() || is_hidden_by_a_shortage(pid)
}

/// Whether this process lacks the descriptor or the memory to look at that one.
fn is_hidden_by_a_shortage(pid: u32) -> bool {
    let passes = |error: io::Error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    fs::File::open(format!("/proc/{pid}/stat")).is_err_and(passes)
}

/// The wait status of a process that has ended and that its parent, any process, has not reaped yet.
pub(super) fn status_of_zombie(pid: u32) -> Option<i32> {
    look_at(&format!("/proc/{pid}/stat")).filter(|thread| thread.is_zombie).map(|thread| thread.status)
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    if pid == std::process::id() {
        // 0: it is in another PID namespace.
        return Some(nix::unistd::getppid().as_raw() as u32);
    }
    look_at(&format!("/proc/{pid}/stat")).map(|thread| thread.parent)
}

/// Whether `/proc` shows the processes that this process sees, by the same numbers.
pub(crate) fn proc_is_ours() -> bool {
    let own = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str()) && parent_of(std::process::id()).is_some()
}

/// Whether no other child of that parent, as far as they can be seen, was started before this process.
pub(crate) fn is_first_child_of(parent: u32) -> bool {
    let own = std::process::id();
    let started =
        |pid: u32| look_at(&format!("/proc/{pid}/stat")).filter(|thread| thread.parent == parent).map(|thread| (thread.born, pid));
    let Some(since) = started(own) else { return false };
    let names = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| started(name.parse().ok()?)).all(|other| other >= since)
}

/// A process by its number and its birth, which no two have in common; and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessKey {
    pid: u32,
    born: u64,
    pub(crate) group: u32,
}

pub(crate) fn process_key(pid: u32) -> Option<ProcessKey> {
    let Thread { group, born, .. } = look_at(&format!("/proc/{pid}/stat"))?;
    Some(ProcessKey { pid, born, group })
}

/// When a process was born, in ticks since the machine was started. No two processes have both that and their number in common.
pub(crate) fn birth_of(pid: u32) -> Option<u64> {
    look_at(&format!("/proc/{pid}/stat")).map(|thread| thread.born)
}

/// How far up parents are followed.
const DEPTH: usize = 1000;
/// How often the way up may change while it is looked at.
const LOOKS: usize = 10;

/// Whether the one is a descendant of the other.
pub(crate) fn descends_from(pid: u32, ancestor: u32) -> bool {
    has_ancestor(pid, |parent| parent == ancestor)
}

/// Whether such a process is among the ancestors of that one.
pub(crate) fn has_ancestor(pid: u32, is_one: impl Fn(u32) -> bool) -> bool {
    leads_to(pid, is_one, parent_of)
}

/// One that ends meanwhile leaves its children to another parent, so only what is found twice is not there.
fn leads_to(pid: u32, is_one: impl Fn(u32) -> bool, mut parent_of: impl FnMut(u32) -> Option<u32>) -> bool {
    let mut before = None;
    for _ in 0..LOOKS {
        let mut next = pid;
        let step = || parent_of(next).filter(|parent| *parent > 0).inspect(|parent| next = *parent);
        let way: Vec<_> = std::iter::from_fn(step).take(DEPTH).collect();
        if way.iter().any(|parent| is_one(*parent)) {
            return true;
        }
        if before.as_ref() == Some(&way) {
            return false;
        }
        before = Some(way);
    }
    false
}

/// The first thread of a process with such a parent, if its end has begun.
fn first_of(pid: u32, is_parent: impl Fn(u32) -> bool) -> Option<Thread> {
    let process = format!("/proc/{pid}");
    let look_at = |path: &str| look_at(path).filter(|thread| is_parent(thread.parent));
    let first = look_at(&format!("{process}/stat"))?;
    let is_dying = if first.is_killed() {
        true
    } else if first.flags & EXITING != 0 {
        // The others may go on without it, or all be on their way; without a descriptor to look at them with, that is not seen.
        let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        let all: Vec<_> = threads.filter_map(|thread| look_at(&format!("{}/stat", thread.path().display()))).collect();
        all.iter().any(Thread::is_killed) || (!all.is_empty() && all.iter().all(|thread| thread.flags & EXITING != 0))
    } else {
        false
    };
    is_dying.then_some(first)
}

impl Thread {
    fn is_killed(&self) -> bool {
        self.flags & (DUMPING | SIGNALED) != 0
    }

    fn exit(&self) -> Exit {
        if self.status == 0 { Exit::Unknown } else { Exit::of_wait_status(self.status) }
    }
}

/// Longer than that file is: 52 numbers and a name.
const STAT: usize = 2048;

/// One look, which costs three calls of the system: a guard has to look often.
fn look_at(path: &str) -> Option<Thread> {
    let mut text = [0; STAT];
    let mut file = fs::File::open(path).ok()?;
    let length = loop {
        match file.read(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.ok()?,
        }
    };
    let text = &text[..length];
    // The name comes before, with anything in it.
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = text[after..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    // By its number, which is 3 for the first after the name; each call takes those before it away.
    let mut next = 3;
    let mut field = |number: usize| {
        let field = fields.nth(number - next)?;
        next = number + 1;
        std::str::from_utf8(field).ok()
    };
    Some(Thread {
        is_zombie: field(3)? == "Z",
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        born: field(22)?.parse().ok()?,
        status: field(52).and_then(|status| status.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7 is a child of 6, that one of 5, and 1 has none.
    fn parent(pid: u32) -> Option<u32> {
        [(7, 6), (6, 5), (5, 1), (1, 0)].into_iter().find_map(|(child, parent)| (child == pid).then_some(parent))
    }

    #[test]
    fn an_ancestor_is_found_though_a_process_between_ends_meanwhile() {
        assert!(leads_to(7, |pid| pid == 5, parent));
        assert!(!leads_to(7, |pid| pid == 4, parent));
        let mut is_over = false;
        let ends_when_looked_at = |pid: u32| match pid {
            6 => {
                is_over = true;
                None
            }
            7 if is_over => Some(5),
            _ => parent(pid),
        };
        assert!(leads_to(7, |pid| pid == 5, ends_when_looked_at));
    }
}
