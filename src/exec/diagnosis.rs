//! What stands at the path of a program that could not be started.
//!
//! Knows: what the kernel looks at before it executes a file. Does not know: who reads this. What a
//! file or a link holds is told only if everybody may read it (`public`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;

use crate::config::{Launch, Program};
use crate::sys;

use super::public;

/// So much of a file the kernel looks at: what comes after the name of an interpreter must be in it.
const HEAD: usize = 256;
/// How deep the kernel goes into scripts whose interpreters are scripts.
const DEPTH: u8 = 5;
const NAMELESS: &str = "it begins with #!, and no interpreter is named after that";
const UNTOLD: &str = "what is in it is not told: not everybody may read it, or this process has rights that its caller need not have";

/// What a person should know beyond the error itself.
pub(super) fn of(program: &Program, launch: &Launch, error: &io::Error) -> Option<String> {
    let directory = launch.directory();
    if let (Some(entered), Some(path)) = (launch.directory_to_enter(), directory) {
        if sys::may_enter(entered).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Some(format!("{} may not enter the directory to start it in, {}", this_user(), path.display()));
        }
        if !path.is_dir() {
            return Some(format!("the directory to start it in, {}, is gone", path.display()));
        }
    }
    match error.raw_os_error()? {
        libc::ENOENT => Some(missing(&program.path, directory)),
        libc::EACCES => Some(forbidden(&program.path, directory)),
        libc::ENOEXEC => Some(unfit(&program.path, directory, DEPTH)),
        libc::ETXTBSY => Some("it is still being written; deploy by rename".into()),
        libc::EPERM | libc::ENOSYS => Some(
            "a rule of the system forbids it (a seccomp filter that reaches the restart thread and forbids clone, vfork, pipe2, dup2, dup3, \
             chdir or execve, a security module)"
                .into(),
        ),
        libc::EAGAIN => Some(format!("{} or its control group may not have more processes (RLIMIT_NPROC, pids.max)", this_user())),
        libc::E2BIG => Some("its arguments and environment are too large".into()),
        _ => None,
    }
}

fn missing(program: &Path, directory: Option<&Path>) -> String {
    match fs::symlink_metadata(program) {
        Err(_) => "there is no such file".into(),
        Ok(found) if found.is_symlink() && fs::metadata(program).is_err() => match public::target(program) {
            Some(target) => format!("it is a symbolic link to {}, which is not there", target.display()),
            None => "it is a broken symbolic link".into(),
        },
        Ok(_) => match head(program).map(|head| script(&head)) {
            None => format!("it is there, but the interpreter or the loader that it names is not; {UNTOLD}"),
            Some(Some(Script::Of(name))) => {
                let what = if from(directory, &name).exists() { "is there, but what that needs is not" } else { "is not there" };
                format!("it is a script, and its interpreter {} {what}", printable(&name))
            }
            _ => "it is there, but the loader that it names is not".into(),
        },
    }
}

fn forbidden(program: &Path, directory: Option<&Path>) -> String {
    if let Some(why) = obstacle(program) {
        return why;
    }
    match head(program).map(|head| script(&head)) {
        // A name without a character stands for the directory.
        Some(Some(Script::OfNothing)) => NAMELESS.into(),
        Some(Some(Script::Of(name))) => match obstacle(&from(directory, &name)) {
            Some(why) => format!("it is a script, and its interpreter {} is no program: {why}", printable(&name)),
            None => not_allowed(),
        },
        Some(_) => format!("{} may not execute it, or its file system is mounted noexec", this_user()),
        None => not_allowed(),
    }
}

fn not_allowed() -> String {
    format!("{} may not execute it or its interpreter, or their file system is mounted noexec", this_user())
}

/// The user whose rights count: a program that has given up root may not know.
fn this_user() -> String {
    format!("user {} (this process's)", geteuid())
}

/// Why nobody can execute what is there.
fn obstacle(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Some("it is a directory".into()),
        Ok(found) if !found.is_file() => Some("it is no regular file".into()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some(format!("it is not executable (mode {:03o})", found.permissions().mode() & 0o777))
        }
        Ok(_) => None,
        Err(_) => Some("a directory on the way to it cannot be entered".into()),
    }
}

fn unfit(program: &Path, directory: Option<&Path>, depth: u8) -> String {
    let Some(head) = head(program) else { return format!("it is no program that this machine can execute; {UNTOLD}") };
    match script(&head) {
        Some(Script::OfNothing) => return NAMELESS.into(),
        Some(Script::TooLong) => {
            return format!("it is a script, and the name of its interpreter is too long: it must end within {} bytes", HEAD - 1);
        }
        Some(Script::Of(name)) if depth > 0 => {
            let interpreter = from(directory, &name);
            let why = obstacle(&interpreter).unwrap_or_else(|| unfit(&interpreter, directory, depth - 1));
            return format!("it is a script, and its interpreter {} is no program: {why}", printable(&name));
        }
        _ => {}
    }
    if head.is_empty() {
        return "it is empty".into();
    }
    if head.starts_with(b"\x7fELF") {
        // Class and byte order, machine: what this process runs on would not have been refused for what it is.
        let own = File::open("/proc/self/exe").map(beginning).unwrap_or_default();
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

/// How it begins. `None`: not everybody may read that.
fn head(program: &Path) -> Option<Vec<u8>> {
    public::open(program).map(beginning)
}

fn beginning(file: File) -> Vec<u8> {
    let mut head = Vec::new();
    // What cannot be read is described by the error alone.
    let _ = file.take(HEAD as u64).read_to_end(&mut head);
    head
}

/// A file that begins with `#!`, as the kernel reads it.
enum Script {
    Of(Vec<u8>),
    OfNothing,
    TooLong,
}

fn script(head: &[u8]) -> Option<Script> {
    let rest = head.strip_prefix(b"#!")?;
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | 0);
    let start = line.iter().take_while(|byte| is_blank(byte)).count();
    let name: Vec<u8> = line[start..].iter().take_while(|byte| !is_blank(byte)).copied().collect();
    let goes_on = head.len() == HEAD && start + name.len() == rest.len();
    Some(match name.len() {
        _ if goes_on => Script::TooLong,
        0 => Script::OfNothing,
        _ => Script::Of(name),
    })
}

/// A path as a process takes it that starts in that directory.
fn from(directory: Option<&Path>, name: &[u8]) -> PathBuf {
    directory.unwrap_or(Path::new("")).join(OsStr::from_bytes(name))
}

/// With what nobody sees in it, such as the carriage return of a script with the wrong ends of lines.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}
