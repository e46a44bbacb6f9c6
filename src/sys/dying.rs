//! A child or a parent whose end has begun: it writes a core dump, or gives gigabytes back, and nothing of its program runs any more. Until
//! that is over, only `/proc` tells.

use std::fs;
use std::io;

use nix::libc;

use crate::error::Exit;

use super::stat::{Stat, look_at};

/// How a child is about to end, if its end has begun.
pub(super) fn exit_of(pid: u32) -> Option<Exit> {
    // Where there are several namespaces of processes, the number may be another one's.
    let first = first_of(pid, |parent| parent == std::process::id())?;
    Some(if first.status == 0 { Exit::Unknown } else { Exit::of_wait_status(first.status) })
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

/// The first thread of a process with such a parent, if its end has begun.
fn first_of(pid: u32, is_parent: impl Fn(u32) -> bool) -> Option<Stat> {
    let process = format!("/proc/{pid}");
    let look_at = |path: &str| look_at(path).filter(|thread| is_parent(thread.parent));
    let first = look_at(&format!("{process}/stat"))?;
    let is_dying = if first.is_killed() {
        true
    } else if first.is_exiting() {
        // The others may go on without it, or all be on their way; without a descriptor to look at them with, that is not seen.
        let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        let all: Vec<_> = threads.filter_map(|thread| look_at(&format!("{}/stat", thread.path().display()))).collect();
        all.iter().any(Stat::is_killed) || (!all.is_empty() && all.iter().all(Stat::is_exiting))
    } else {
        false
    };
    is_dying.then_some(first)
}
