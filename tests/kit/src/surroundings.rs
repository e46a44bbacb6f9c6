//! What the tests take for granted of the machine, however they were started.

use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Arguments;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::stat::{Mode, umask};
use tempfile::{Builder, TempDir};

use crate::procfs;

/// A path of a socket has 107 bytes at the most, and below the directories of tests stand names, and directories of their own.
const ROOM: usize = 60;

/// How many descriptors a process of these tests may have open at a time, where the machine allows that.
const DESCRIPTORS: u64 = 20_000;

/// How this test program was called, once the process is as its tests need it.
pub fn prepare() -> Arguments {
    // What the shell that started this has left open is nobody's here: a service would be born with it, until its number is needed.
    for (number, _) in procfs::descriptors(std::process::id()).into_iter().filter(|(number, _)| *number > 2) {
        // That of the directory itself is closed already.
        let _ = nix::unistd::close(number);
    }
    // Orphans of the services come to this process, which waits for them.
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
    // Services that give their rights up reach what this process has made.
    umask(Mode::from_bits_truncate(0o022));
    // On many machines a process has 1,024 of them until it asks for more.
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if now < DESCRIPTORS.min(most) {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(most), most).expect("a limit that is allowed");
    }
    let mut arguments = Arguments::from_args();
    // They wait more than they work.
    arguments.test_threads.get_or_insert(4);
    arguments
}

/// Whether that many are allowed; says aloud which test is skipped if they are not.
pub fn are_many_descriptors_allowed(test: &str) -> bool {
    let (now, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if now < DESCRIPTORS {
        eprintln!("skipped {test}: a process may have no more than {now} descriptors here");
    }
    now >= DESCRIPTORS
}

/// Where directories for tests are made.
pub fn temporary() -> PathBuf {
    Some(env::temp_dir()).filter(|path| path.as_os_str().len() <= ROOM).unwrap_or_else(|| "/tmp".into())
}

/// A socket that nobody serves any more. Nobody ever has: a process that another test starts has a copy of a listener for a moment.
pub fn stale_socket(path: &Path) {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("a free path");
}

/// A directory for one test, open to services that give their rights up.
pub fn directory() -> TempDir {
    let directory = Builder::new().prefix("pollflip-").tempdir_in(temporary()).expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    directory
}
