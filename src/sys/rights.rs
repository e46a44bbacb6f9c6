//! What a process may do, as the kernel tells others: the sets of capabilities of its threads; and who has made a socket.
//!
//! Knows: `/proc`, and the options of a socket. Does not know: whose rights are enough for what.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};

use super::{Process, read_proc};

/// The process that has made this end of a pair of sockets.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) process: Process,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Maker {
    /// Who it was, which need not live any more.
    ///
    /// # Errors
    ///
    /// It has ended, and cannot be held; or it is in another namespace of processes.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Maker> {
        let by = getsockopt(socket, sockopt::PeerCredentials)?;
        let pid = u32::try_from(by.pid()).ok().filter(|pid| *pid > 0).ok_or(io::Error::from(Errno::ESRCH))?;
        let process = match peer_pidfd(socket) {
            Ok(pidfd) => Process::from((pid, pidfd)),
            // Before Linux 6.5 there is only the number, which can be another process's by now.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Process::open(pid)?,
            Err(error) => return Err(error),
        };
        Ok(Maker { process, uid: by.uid(), gid: by.gid() })
    }
}

fn peer_pidfd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut pidfd: RawFd = -1;
    let mut length = mem::size_of::<RawFd>() as libc::socklen_t;
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the call writes nothing but one number and its length.
    let result = unsafe { libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut pidfd).cast(), &mut length) };
    Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// A thread of a process. Its number can come back, but not within the same hundredth of a second.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    number: u32,
    since: u64,
}

/// The capabilities that this process may use, in any of its threads.
pub(crate) fn own_capabilities() -> io::Result<u64> {
    let mut all = 0;
    for thread in threads("/proc/self")? {
        all |= look_at(&thread)?.map_or(0, |(_, permitted)| permitted);
    }
    Ok(all)
}

/// The threads of a process that may use all of these capabilities, without its first one: that one alone lives on when the process
/// executes another program. Capabilities in another user namespace are none: anybody has all of them in one of their own.
pub(crate) fn threads_with(process: &Process, capabilities: u64) -> io::Result<Vec<Thread>> {
    // In the `/proc` of another namespace of processes, the number is another one's.
    if fs::read_link("/proc/self")? != Path::new(&std::process::id().to_string()) {
        return Err(io::Error::other("/proc is that of another namespace of processes"));
    }
    let mut with = Vec::new();
    for path in threads(&format!("/proc/{}", process.pid()))? {
        if let Some((thread, permitted)) = look_at(&path)?
            && permitted & capabilities == capabilities
            && thread.number != process.pid()
        {
            with.push(thread);
        }
    }
    // Read after the capabilities: a process that has got them by leaving this user namespace cannot come back to it.
    if numbering(&format!("/proc/{}", process.pid()))? != numbering("/proc/self")? {
        with.clear();
    }
    Ok(with)
}

/// Which numbers users and groups have in the user namespace of a process, as seen from the
/// namespace of this one. Two namespaces whose numbers differ are two. Where the process may not be
/// traced, nothing else tells them apart. Somebody without rights over this namespace cannot make
/// another one with the same numbers, unless both have a single user and group.
fn numbering(process: &str) -> io::Result<[String; 2]> {
    let read = |name| match fs::read_to_string(format!("{process}/{name}")) {
        // A kernel without user namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    };
    Ok([read("uid_map")?, read("gid_map")?])
}

/// One half of the sets of capabilities of a thread, as the kernel takes them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// With the number of a thread, of which 0 is this one.
#[repr(C)]
struct Header {
    version: u32,
    thread: libc::c_int,
}

/// The third version of the call, with two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Does something with a capability lent away, if this thread has it; it has it again afterwards.
///
/// # Errors
///
/// The thread has it, and is under a seccomp filter: one that forbids capset may end the process, as
/// those of systemd do, so it is not tried.
pub(super) fn without_capability<T>(number: u32, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let status = read_proc("/proc/thread-self/status")?;
    if set_of(&status, "CapEff:").is_some_and(|effective| effective & 1 << number == 0) {
        return what();
    }
    if !is_unfiltered(&status) {
        return Err(io::Error::other(format!(
            "the process has capability {number} and a seccomp filter, which may end it for the call (capset) that lends a capability away; \
             take the capability from the service"
        )));
    }
    let header = Header { version: CAPABILITY_VERSION, thread: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: the kernel reads the header and fills in two halves, which is what this version has.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    let set = |sets: &[Sets; 2]| {
        // SAFETY: the kernel reads the header and two halves.
        Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
    };
    let half = (number / 32) as usize;
    let bit = 1 << (number % 32);
    sets[half].effective &= !bit;
    set(&sets)?;
    let done = what();
    sets[half].effective |= bit;
    set(&sets)?;
    done
}

fn threads(process: &str) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(format!("{process}/task"))?.map(|thread| Ok(thread?.path())).collect()
}

/// A thread, and its permitted set; `None`: it has ended.
fn look_at(path: &Path) -> io::Result<Option<(Thread, u64)>> {
    let read = |name: &str| match fs::read(path.join(name)) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(stat), Some(status)) = (read("stat")?, read("status")?) else { return Ok(None) };
    let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    let thread = number.zip(since(&stat)).map(|(number, since)| Thread { number, since });
    let unknown = || io::Error::other(format!("{} does not tell what a thread may do", path.display()));
    thread.zip(permitted(&status)).map(Some).ok_or_else(unknown)
}

/// The 22nd field. The second is the name, with anything in it.
fn since(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

fn permitted(status: &str) -> Option<u64> {
    set_of(status, "CapPrm:")
}

fn set_of(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix(name))?.trim(), 16).ok()
}

/// A kernel without such filters says nothing of them.
fn is_unfiltered(status: &str) -> bool {
    status.lines().find_map(|line| line.strip_prefix("Seccomp:")).is_none_or(|mode| mode.trim() == "0")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Binds this thread to a filter by which each of these calls ends the process.
    fn forbid(calls: &[libc::c_long]) {
        let step = |code: u32, jt: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: 0, k };
        // The number of the call is the first word of what a filter sees.
        let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        let compare =
            |(index, call): (usize, &libc::c_long)| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls.len() - index, *call as u32);
        filter.extend(calls.iter().enumerate().map(compare));
        filter.extend([libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS].map(|end| step(libc::BPF_RET | libc::BPF_K, 0, end)));
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        nix::sys::prctl::set_no_new_privs().expect("a thread may bind itself");
        // SAFETY: the kernel copies the steps of the filter, which live until the call returns.
        let bound = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        Errno::result(bound).expect("a thread may bind itself");
    }

    fn effective() -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").expect("a thread");
        set_of(&status, "CapEff:").expect("a set")
    }

    #[test]
    fn a_capability_is_lent_away_by_one_thread_for_one_thing_and_comes_back() {
        let before = effective();
        // The first and the last that the kernel knows are in different halves.
        for number in [0, 13, 40] {
            let meanwhile = without_capability(number, || Ok(effective())).expect("the sets of this thread");
            assert_eq!(meanwhile, before & !(1 << number));
            assert_eq!(effective(), before);
            let failed = without_capability(number, || Err::<(), _>(io::Error::other("as planned")));
            assert_eq!(failed.expect_err("an error").to_string(), "as planned");
            assert_eq!(effective(), before);
        }
    }

    #[test]
    fn no_call_is_tried_for_which_a_filter_may_end_the_process() {
        let Some(held) = (0..41).find(|number| effective() & 1 << number != 0) else {
            return eprintln!("SKIPPED: this thread has no capability");
        };
        // The filter is this thread's alone, and goes with it.
        let (lent, untouched) = thread::spawn(move || {
            forbid(&[libc::SYS_capget, libc::SYS_capset]);
            let absent = (0..41).find(|number| effective() & 1 << number == 0);
            (without_capability(held, || Ok(())), absent.map(|number| without_capability(number, || Ok(()))))
        })
        .join()
        .expect("the thread ends");
        assert!(lent.expect_err("nothing is lent away").to_string().contains("capset"));
        assert!(untouched.is_none_or(|done| done.is_ok()), "what the thread has not needs no call");
    }
}
