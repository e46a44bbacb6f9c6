//! Who descends from whom, as `/proc` tells.
//!
//! Knows: the files of `/proc`. Does not know: what a process is to the guard.

use std::fs;
use std::io;
use std::process;

use nix::unistd::getpgrp;

use crate::sys::{self, ProcessKey};

/// How many threads this process has.
pub(super) fn threads() -> Option<usize> {
    fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// The children of this process, those included that have ended and are not reaped.
pub(super) fn children() -> io::Result<Vec<u32>> {
    let own = process::id();
    match fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()),
        // A kernel without that file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(all()?.filter(|pid| sys::parent_of(*pid) == Some(own)).collect()),
        Err(error) => Err(error),
    }
}

/// The processes of the group of this process that can have got what a terminal has sent to all of
/// it, as far as they can be seen. The kernel does not say when a signal was sent: one that was born
/// between that and this look has not got it.
pub(super) fn told_by_terminal(signal: i32) -> Vec<ProcessKey> {
    let own = getpgrp().as_raw() as u32;
    let member = |pid| sys::process_key(pid).filter(|key| key.group == own && can_have_got(pid, signal));
    all().into_iter().flatten().filter_map(member).collect()
}

/// Whether that process can have got a signal and live: it would be dead if it did nothing about it.
fn can_have_got(pid: u32, signal: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let has = |line: &str| {
        let mask = line.split_once(':').and_then(|(_, mask)| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
    };
    let masks = ["SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:"];
    status.lines().filter(|line| masks.iter().any(|mask| line.starts_with(mask))).any(has)
}

fn all() -> io::Result<impl Iterator<Item = u32>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()))
}
