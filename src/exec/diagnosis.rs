//! What stands at the path of a program that could not be started.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::libc;

use crate::config::Launch;

/// What a person should know beyond the error itself.
pub(super) fn of(launch: &Launch, error: &io::Error) -> Option<String> {
    let directory = launch.directory.as_ref().map(|directory| Path::new(OsStr::from_bytes(directory.as_bytes())));
    if let Some(directory) = directory
        && !directory.is_dir()
    {
        return Some(format!("the directory to start it in, {}, is gone", directory.display()));
    }
    match error.raw_os_error()? {
        libc::ENOENT => Some(missing(&launch.program)),
        libc::EACCES => Some(forbidden(&launch.program)),
        libc::ENOEXEC => Some(unfit(&launch.program)),
        libc::ETXTBSY => Some("it is still being written; deploy by rename".into()),
        libc::EPERM => Some("a rule of the system forbids it (a seccomp filter that reaches the restart thread, a security module)".into()),
        libc::EAGAIN => Some("this user or control group may not have more processes (RLIMIT_NPROC, pids.max)".into()),
        libc::E2BIG => Some("its arguments and environment are too large".into()),
        _ => None,
    }
}

fn missing(program: &Path) -> String {
    match fs::symlink_metadata(program) {
        Err(_) => "there is no such file".into(),
        Ok(found) if found.is_symlink() && fs::metadata(program).is_err() => match fs::read_link(program) {
            Ok(target) => format!("it is a symbolic link to {}, which is not there", target.display()),
            Err(_) => "it is a broken symbolic link".into(),
        },
        Ok(_) => match head(program).strip_prefix(b"#!") {
            Some(line) => format!("it is a script, and its interpreter {} is not there", first_word(line)),
            None => "it is there, but the loader that it names is not".into(),
        },
    }
}

fn forbidden(program: &Path) -> String {
    match fs::metadata(program) {
        Ok(found) if found.is_dir() => "it is a directory".into(),
        Ok(found) if !found.is_file() => "it is no regular file".into(),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            format!("it is not executable (mode {:03o})", found.permissions().mode() & 0o777)
        }
        Ok(_) => "this user may not execute it, or its file system is mounted noexec".into(),
        Err(_) => "a directory on the way to it cannot be entered".into(),
    }
}

fn unfit(program: &Path) -> String {
    let head = head(program);
    if head.is_empty() {
        return "it is empty".into();
    }
    if head.starts_with(b"\x7fELF") {
        // Class and byte order, machine: what this process runs on would not have been refused for what it is.
        let own = self::head(Path::new("/proc/self/exe"));
        let big = head.get(5) == Some(&2);
        let machine = head.get(18..20).map(|bytes| {
            let bytes = [bytes[0], bytes[1]];
            if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        });
        return match machine {
            Some(_) if (head.get(4..6), head.get(18..20)) == (own.get(4..6), own.get(18..20)) => {
                "it is an ELF program for this machine, but cut off or damaged".into()
            }
            Some(machine) => format!("it is an ELF program for another machine ({})", machine_name(machine)),
            None => "it is a cut-off ELF program".into(),
        };
    }
    format!("it is neither a program nor a script with #!: it begins with \"{}\"", head[..head.len().min(16)].escape_ascii())
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86".into(),
        40 => "arm".into(),
        62 => "x86-64".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        other => format!("number {other}"),
    }
}

fn head(program: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    // A file that cannot be read is described by the error alone.
    if let Ok(file) = File::open(program) {
        let _ = file.take(128).read_to_end(&mut head);
    }
    head
}

fn first_word(line: &[u8]) -> String {
    String::from_utf8_lossy(line).split_whitespace().next().unwrap_or_default().to_string()
}
