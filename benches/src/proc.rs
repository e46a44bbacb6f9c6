//! What /proc says of a process and of the machine.

use std::fs;

/// A process, as seen from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub descriptors: f64,
    pub threads: f64,
    /// Children that have ended and nobody has reaped.
    pub zombies: f64,
    /// Memory that is its own, in bytes.
    pub private: f64,
}

pub fn see(pid: u32) -> Seen {
    let entries = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(f64::NAN, |entries| entries.count() as f64);
    Seen { descriptors: entries("fd"), threads: entries("task"), zombies: zombies_of(pid) as f64, private: private(pid) }
}

fn private(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    field(&text, "Private_Dirty:").map_or(f64::NAN, |kib| kib as f64 * 1024.0)
}

/// Those are the children of its own; it may have threads that start processes, which are all of one family.
fn zombies_of(parent: u32) -> usize {
    processes().filter(|pid| stat(*pid).is_some_and(|(state, of)| state == 'Z' && of == parent)).count()
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The state of a process, and its parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether it has ended, reaped or not.
pub fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z' || state == 'X')
}

pub fn memory_total() -> u64 {
    meminfo("MemTotal:")
}

pub fn memory_available() -> u64 {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> u64 {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, name)).unwrap_or(0) * 1024
}

/// The number after a name, in a file of lines of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
