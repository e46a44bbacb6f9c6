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

/// The processes of the group of this process, as far as they can be seen.
pub(super) fn group() -> Vec<ProcessKey> {
    let own = getpgrp().as_raw() as u32;
    let all = all().into_iter().flatten();
    all.filter_map(sys::process_key).filter(|key| key.group == own).collect()
}

fn all() -> io::Result<impl Iterator<Item = u32>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()))
}
