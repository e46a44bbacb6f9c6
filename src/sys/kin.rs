//! Which process comes from which, as `/proc` shows it.

use std::fs;

use super::stat::{Stat, look_at};

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
    let Stat { group, born, .. } = look_at(&format!("/proc/{pid}/stat"))?;
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
        let mut way = Vec::new();
        for parent in std::iter::from_fn(step).take(DEPTH) {
            if is_one(parent) {
                return true;
            }
            way.push(parent);
        }
        if before.as_ref() == Some(&way) {
            return false;
        }
        before = Some(way);
    }
    false
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
        let not_above = |pid| if pid == 5 { panic!("who is above the one that is looked for does not matter") } else { parent(pid) };
        assert!(leads_to(7, |pid| pid == 5, not_above));
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
